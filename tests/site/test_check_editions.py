"""Two editions of a page that say different things are told apart."""

import pytest

import check_editions

PAGE = """<article class="bd-article"><section id="a">
<span class="eqno">(1.2)<a class="headerlink" href="#equation-x">#</a></span>
<annotation encoding="application/x-tex">x^2</annotation>
<span class="result">87.9%</span>
<a class="reference internal" href="{up}verification/rnn.html#claim-r1">R1</a>
<img alt="a curve" src="{up}_images/a.png"/>
<a class="reference internal" href="rnn.html">words</a>
<pre>x = 1</pre> <code class="docutils literal notranslate">size</code>
<span class="caption-number">Fig. 3 </span> words</section></article>"""
CHINESE = PAGE.replace("words", "文字").replace("Fig. 3", "图 3")


@pytest.fixture
def site(tmp_path):
    """A site of two editions."""
    (tmp_path / "zh_CN").mkdir()
    (tmp_path / "page.html").write_text(PAGE.format(up=""))
    (tmp_path / "zh_CN/page.html").write_text(CHINESE.format(up="../"))
    return tmp_path


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
        english = PAGE.replace("x = 1", ours).format(up="")
        (site / name).write_text(english, "utf-8")
        chinese = CHINESE.replace("x = 1", theirs).format(up="../")
        (site / "zh_CN" / name).write_text(chinese, "utf-8")
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
