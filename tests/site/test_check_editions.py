"""Two editions of a page that say different things are told apart."""

import pytest

import check_editions

HEAD = """<html class="x" lang="{tag}"><head><title>words</title>
<link rel="alternate" hreflang="en" href="./{up}page.html">
<link rel="alternate" hreflang="zh-CN" href="./{up}zh_CN/page.html"></head>
<a class="btn btn-sm edition" href="./{up}{twin}" hreflang="{other}">switch</a>
"""
PAGE = """<article class="bd-article"><section id="a">
<h2><span class="section-number">1.2. </span>words</h2>
<ul class="simple"><li><p><strong>words</strong> <em>words</em></p></li></ul>
<p class="claim-badge"><a href="#x"><span>✓ R1</span></a> </p>
<table><thead><tr><td>words</td><td><p>words 12.5</p></td></tr></thead></table>
<figure class="interactive" data-figure="rotary" hidden>
<script type="application/json">{{"omega":[1.0,0.1],"name":"words"}}</script></figure>
<span class="eqno">(1.2)<a class="headerlink" href="#equation-x">#</a></span>
<annotation encoding="application/x-tex">x^2</annotation>
<span class="result">87.9%</span>
<a class="reference internal" href="{up}verification/rnn.html#claim-r1">R1</a>
<img alt="a curve" src="{up}_images/a.png"/>
<a class="reference internal" href="rnn.html">words</a>
<pre>x = 1</pre> <code class="docutils literal notranslate">size</code>
<span class="caption-number">Fig. 3 </span> words</section></article>"""
ENGLISH = HEAD + PAGE
CHINESE = ENGLISH.replace("words", "文字").replace("Fig. 3", "图 3")


@pytest.fixture
def site(tmp_path):
    """A site of two editions."""
    (tmp_path / "zh_CN").mkdir()
    (tmp_path / "page.html").write_text(in_english())
    (tmp_path / "zh_CN/page.html").write_text(in_chinese())
    return tmp_path


def in_english(page: str = ENGLISH) -> str:
    return page.format(up="", tag="en", twin="zh_CN/page.html", other="zh-CN")


def in_chinese(page: str = CHINESE) -> str:
    return page.format(up="../", tag="zh-CN", twin="page.html", other="en")


def found(site) -> list[str]:
    return list(check_editions.differences(site, "zh_CN"))


def test_the_same_in_other_words_passes(site):
    assert found(site) == []


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ('id="a"', 'id="b"', "anchor missing: 'a'"),
        ("(1.2)", "(1.3)", "equation missing"),
        ("x^2", "x^3", "formula missing: 'x^2'"),
        ("87.9%", "87.8%", "value missing: '87.9%'"),
        ("#claim-r1", "#claim-r2", "claim missing: 'claim-r1'"),
        ("a.png", "b.png", "figure missing"),
        ('href="rnn.html"', 'href="lstm.html"', "link missing: 'rnn.html'"),
        ("x = 1", "x = 2", "code missing: 'x = 1'"),
        (">size<", ">length<", "inline code missing: 'size'"),
        ("图 3", "图 4", "number of a caption missing: '3'"),
        ("<pre>x = 1</pre>", "<pre>x = 1</pre><pre>x = 1</pre>", "code added"),
        ("h2>", "h3>", "heading missing: 'h2'"),
        ("1.2. ", "1.3. ", "number of a section missing: '1.2.'"),
        ("<li>", "", "item missing: 'li'"),
        ("<ul class", "<ol class", "item added: 'ol'"),
        ("strong>", "b>", "emphasis missing: 'strong'"),
        ("em>", "i>", "emphasis missing: 'em'"),
        ("✓ R1", "✗ R1", "badge missing: '✓ R1"),
        ("12.5", "12.6", "number missing: '12.5'"),
        ('alt="a curve"', 'alt=""', "alternative text missing"),
        ('="rotary"', '="other"', "figure that moves missing: 'rotary'"),
        ("[1.0,0.1]", "[1.0,0.2]", "data missing"),
        ("application/json", "text/plain", "data missing"),
        ('lang="zh-CN"><head', 'lang="en"><head', "its language is not zh-CN"),
        ("<title>文字</title>", "<title> </title>", "no title"),
        ('hreflang="zh-CN" href', 'hreflang="zh" href', "no alternate of zh-CN"),
        (
            'en" href="./../page',
            'en" href="./../rnn',
            "no alternate of en that is page",
        ),
        ('btn-sm edition"', 'btn-sm"', "no switch to page.html"),
        (
            'n" href="./../page.html" h',
            'n" href="page.html" h',
            "no switch to page.html",
        ),
    ],
)
def test_each_difference_is_named(site, before, after, named):
    page = site / "zh_CN/page.html"
    assert before in page.read_text()
    page.write_text(page.read_text().replace(before, after))
    assert any(named in line for line in found(site))


def test_of_templates_the_docstrings_alone_may_differ(site):
    ours, theirs = '"""A."""\nx = 1', '"""甲。"""\nx = 1'
    for name in ("contracts.html", "other.html"):
        english = in_english(ENGLISH.replace("x = 1", ours))
        (site / name).write_text(english.replace("page.html", name))
        chinese = in_chinese(CHINESE.replace("x = 1", theirs))
        (site / "zh_CN" / name).write_text(chinese.replace("page.html", name))
    assert {line.partition(":")[0] for line in found(site)} == {"zh_CN/other.html"}
    page = site / "zh_CN/contracts.html"
    page.write_text(page.read_text().replace("x = 1", "x = 2"))
    assert any(line.startswith("zh_CN/contracts.html: code") for line in found(site))


def test_a_page_that_only_one_edition_has_is_named(site):
    (site / "zh_CN/more.html").write_text(CHINESE)
    (site / "less.html").write_text(PAGE)
    assert found(site) == [
        "less.html: only in the English edition",
        "more.html: only in the zh_CN edition",
    ]


def test_a_site_without_the_other_edition_does_not_pass(tmp_path, monkeypatch):
    (tmp_path / "page.html").write_text(PAGE)
    monkeypatch.setattr("sys.argv", ["check_editions.py", str(tmp_path), "zh_CN"])
    assert check_editions.main() == 1
