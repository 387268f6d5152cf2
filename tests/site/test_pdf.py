"""The PDF edition says what the site says, and its checks can fail."""

import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

import check_pdf
from dian_sphinx import pdf, records

ROOT = Path(__file__).parents[2]
NAME = "rnn-fashion-mnist"


SETTINGS = {
    "html_theme": "basic",
    "html_math_renderer": "mathjax",
    "katex_macros": str(ROOT / "docs/macros.json"),
    "nb_execution_mode": "off",
    "master_doc": "index",
    "myst_enable_extensions": {"dollarmath"},
    "math_numfig": True,
    "numfig": True,
    "numfig_secnum_depth": 0,
    "latex_engine": "xelatex",
    "latex_elements": {"preamble": "% ours"},
    "latex_documents": [("index", "dian.tex", "Title", "Author", "manual")],
}
FRONT = """# Front

## Abstract

See {doc}`all pages <gallery/index>` and {doc}`another <two>`.

```{toctree}
one
two
gallery/index
references
```
"""


def equation(label, tex="a = b"):
    return f"```{{math}}\n:label: {label}\n{tex}\n```\n\n"


@pytest.fixture
def build(tmp_path, monkeypatch, sphinx_build, extension_of):
    """Build some pages in a format; return the warnings and the folder."""
    shutil.copytree(records.FOLDER / NAME, tmp_path / "recorded" / NAME)
    monkeypatch.setattr(records, "FOLDER", tmp_path / "recorded")
    ours = extension_of(*("folded", "records", "provenance", "gallery", "katex", "pdf"))

    def build(form="latex", front=FRONT, one="", two="", **settings):
        source, built = tmp_path / "docs", tmp_path / form
        (source / "gallery").mkdir(parents=True, exist_ok=True)
        (source / "index.md").write_text(front)
        (source / "one.md").write_text(f"# One\n\n{one}")
        (source / "two.md").write_text(f"# Two\n\n{two}")
        (source / "references.md").write_text("# References\n\nNone.\n")
        (source / "gallery/index.rst").write_text("Cards\n=====\n\nThe cards.\n")
        given = SETTINGS | {"extensions": ["myst_nb", ours]} | settings
        return sphinx_build(source, built, given, form), built

    return build


def test_equations_have_the_numbers_of_the_site(build):
    pages = {
        "one": equation("eq-first") + "$$a$$\n\n" + equation("eq-second", r"a \\ b"),
        "two": "See {eq}`eq-second`.\n\n" + equation("eq-third"),
    }
    said, site = build("html", **pages)
    assert said == ""
    html = "".join((site / f"{name}.html").read_text() for name in pages)
    on_site = re.findall(r'id="equation-(eq-\w+)".*?eqno">\((\d+)\)', html, re.DOTALL)
    said, printed = build("latex", **pages)
    assert said == ""
    tex = (printed / "dian.tex").read_text()
    in_print = re.findall(r"\\label\{equation:\w+:([^}]*)\}\\tag\{(\d+)\}", tex)
    assert on_site == in_print == [(f"eq-{x}", n) for x, n in
        [("first", "1"), ("second", "2"), ("third", "3")]]  # fmt: skip
    assert r"\eqref{equation:one:eq-second}" in tex


NUMBERED = """# Front

```{toctree}
one
```

```{toctree}
:numbered: 1

two
```

```{toctree}
gallery/index
references
```
"""


def test_pages_before_the_chapters_have_no_number(build):
    said, printed = build(front=NUMBERED)
    assert said == ""
    tex = (printed / "dian.tex").read_text()
    marks = [
        r"{secnumdepth}{-1}",
        r"\chapter{One}",
        r"\numbereddepth}",
        r"\chapter{Two}",
    ]
    places = [tex.index(mark) for mark in marks[:2]]
    places += [tex.index(mark, places[1]) for mark in marks[2:]]
    assert places == sorted(places)
    _, printed = build(front=NUMBERED.replace("one", "two", 1))
    assert "numbereddepth" not in (printed / "dian.tex").read_text()


def test_a_plain_picture_has_a_line_of_its_own(build, tmp_path):
    (tmp_path / "docs").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "docs/x.png")
    image = "```{image} x.png\n:alt: x\n:class: picture plain\n```"
    said, printed = build(one=f"Title.\n\n{image}\n\nText.\n")
    assert said == ""
    tex = (printed / "dian.tex").read_text()
    before = tex[: tex.index("x}.png")]
    assert before.rindex("sphinxAtStartPar") > before.rindex("Title.")
    assert "width=0.750" in tex


def test_the_macros_of_the_equations_are_defined(build):
    _, printed = build(one="$\\softmax(x)$")
    tex = (printed / "dian.tex").read_text()
    assert r"\newcommand{\softmax}{\operatorname{softmax}}" in tex
    assert "% ours" in tex


def test_a_line_under_a_figure_looks_like_one(build):
    said, printed = build(one=f"```{{provenance}} {NAME}\n```\n")
    assert said == ""
    tex = (printed / "dian.tex").read_text()
    line = re.search(
        r"\\begin\{sphinxuseclass\}\{provenance\}(.*?)\\end\{sphinxuseclass\}",
        tex,
        re.DOTALL,
    )
    assert "Recorded run" in line[1]
    assert r"\newenvironment{sphinxclassprovenance}" in (
        ROOT / "docs/_latex/dian.sty"
    ).read_text("utf-8")


MOVED = {
    "rotary": '{"omega": [1.0, 0.1]}',
    "sinusoidal": '{"d": 4, "n": 8, "bases": [10, 10000]}',
    "scaling": '{"factors": [2], "lengths": [64], "betas": [8], "ntk": [[1, 0.5]], '
    '"yarn": [[[[1, 0.5]]]]}',
    "attention": '{"weights": [[[0.25, 0.75], [0.5, 0.5]]]}',
    "masks": '{"scores": [[1, 2], [0, 1]], "masks": {"causal": [[1, 0], [1, 1]]}}',
    "softmax": '{"scores": [1, -1], "dimensions": [4, 64]}',
    "noising": '{"images": [[0, 255, 9, 9]], "side": 2, '
    '"alphaBar": {"linear": [1, 0.9, 0.5]}}',
    "unit": '{"weights": [0.5, 2], "impulses": [1], "steps": 4}',
    "forget": '{"biases": [0, 0.5, 3], "lags": 9, "lag": 4}',
    "gradient": '{"gains": [1.0], "spreads": [0.1, 1], "curves": [[[0, -1], [0, 1]]]}',
    "mixture": '{"x": [0, 1], "steps": [1, 9], "density": [[1, 0], [0.5, 0.5]], '
    '"score": [[0, 1], [0, -1]], "clean": [[0, 1], [0.1, 0.2]]}',
    "weights": '{"steps": [1, 9], "curves": {"linear": {"simple": [1, 1]}}}',
}


@pytest.mark.parametrize("name", MOVED)
def test_a_figure_that_can_be_moved_becomes_its_picture(name, build):
    html = (
        f'<figure class="interactive" data-figure="{name}" hidden>'
        f'<script type="application/json">{MOVED[name]}</script>'
        "<figcaption>What &amp; how.</figcaption></figure>"
    )
    said, printed = build(one=f"```{{raw}} html\n{html}\n```\n")
    assert said == ""
    tex = (printed / "dian.tex").read_text()
    assert r"\sphinxincludegraphics{still-0.pdf}" in tex
    assert r"What \& how. On the site it can be moved; here, " in tex
    assert (printed / "still-0.pdf").read_bytes().startswith(b"%PDF")


def test_every_figure_of_the_site_has_a_picture():
    script = (ROOT / "docs/_static/interactive.js").read_text("utf-8")
    assert set(re.findall(r"figures\.(\w+) =", script)) == set(MOVED)


def test_the_front_page_is_not_counted_and_cards_are_left_out(build):
    said, printed = build(one="Text.")
    assert said == ""
    tex = (printed / "dian.tex").read_text()
    assert re.findall(r"\\chapter\*?\{(.*?)\}", tex) == ["One", "Two"]
    assert r"\section*{Abstract}" in tex
    assert "The cards" not in tex
    assert "See all pages and" in tex
    assert "gallery/index" not in tex


def test_the_pdf_is_offered_where_there_is_one(build, tmp_path):
    front = FRONT + "\n```{pdf-edition}\n```\n"
    _, site = build("html", front=front)
    assert "Download" not in (site / "index.html").read_text()
    (tmp_path / "dian.pdf").touch()
    pdf_file = str(tmp_path / "dian.pdf")
    _, site = build("html", front=front, pdf_file=pdf_file)
    assert (site / "dian.pdf").is_file()
    assert re.search('href="dian.pdf">Download', (site / "index.html").read_text())


def test_each_edition_offers_its_own_pdf(tmp_path):
    english, chinese = tmp_path / "dian.pdf", tmp_path / "dian-zh_CN.pdf"
    english.touch()

    def offered(language):
        config = SimpleNamespace(
            pdf_file="dian.pdf", language=language, html_extra_path=[]
        )
        pdf.offer(SimpleNamespace(confdir=tmp_path), config)
        assert config.html_extra_path == [config.pdf_file] * bool(config.pdf_file)
        return config.pdf_file

    assert offered("en") == "dian.pdf"
    assert offered("zh_CN") == ""
    chinese.touch()
    assert offered("zh_CN") == str(chinese)


def test_make_pdf_says_in_one_line_what_to_install(tmp_path):
    command = ["/bin/sh", str(ROOT / "scripts/pdf_tools.sh")]
    done = subprocess.run(
        command, env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("make pdf: not found: latexmk xelatex")
    packages = subprocess.check_output([*command, "--packages"], text=True)
    english = packages.partition(" texlive-lang-chinese")[0]
    assert line.endswith(f"apt-get install --no-install-recommends {english}")
    done = subprocess.run(
        [*command, "zh_CN"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert "upmendex" in done.stderr
    assert done.stderr.rstrip().endswith(packages.strip())


CHAPTERS = check_pdf.expected_chapters(ROOT / "docs")


def test_the_chapters_are_those_of_the_front_page():
    first = CHAPTERS.index("Recurrent neural networks")
    assert CHAPTERS[first : first + 4] == [
        "Recurrent neural networks",
        "Positional encodings",
        "Attention",
        "Denoising diffusion",
    ]
    assert CHAPTERS[0] == "Abstract"
    assert {"Verification", "Bibliography", "Changelog"} <= set(CHAPTERS)
    assert len(CHAPTERS) == len(set(CHAPTERS))


START = CHAPTERS.index(check_pdf.title(ROOT / "docs", check_pdf.FIRST))


def line_of(number: int, title: str) -> str:
    mark = rf"\numberline {{{number}}}" if number > 0 else ""
    return rf"\contentsline {{chapter}}{{{mark}{title}}}{{1}}{{chapter.{number}}}%"


TOC = "\n".join(line_of(i, one) for i, one in enumerate(CHAPTERS, 1 - START))
AUX = "".join(
    rf"\newlabel{{equation:a:{name}}}{{{{{{{number}}}}}{{3}}{{}}{{AMS.1}}{{}}}}" + "\n"
    for name, number in (("x", "1.1"), ("y", "2.1"), ("z", "2.2"))
)
TEXT = "Computed while this page was built. Recorded run x."


def check(tmp_path, monkeypatch, *, log="", toc=TOC, aux=AUX, text=TEXT):
    for name, content in (("log", log), ("toc", toc), ("aux", aux)):
        (tmp_path / f"dian.{name}").write_text(content)
    monkeypatch.setattr(check_pdf, "text_of", lambda pdf: text)
    return check_pdf.problems(tmp_path, ROOT / "docs")


def test_a_good_pdf_has_no_problems(tmp_path, monkeypatch):
    narrow = "Overfull \\hbox (5.1pt too wide) in paragraph\n\\TU/x\n"
    assert check(tmp_path, monkeypatch, log=narrow) == []


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"log": "Missing character: There is no 爱 (U+7231) in font x!\n"}, "no 爱"),
        ({"log": "LaTeX Warning: Reference `a' on page 1 undefined on.\n"}, "undef"),
        ({"log": "LaTeX Warning: Label `a' multiply defined.\n"}, "multiply"),
        ({"log": "! Undefined control sequence.\n"}, "! Undefined"),
        ({"log": "Overfull \\hbox (61.1pt too wide) in x\n code\n"}, r"61.1.*code"),
        ({"toc": TOC.replace("}Attention}", "}Attentoin}")}, "no chapter 'Attention'"),
        ({"toc": "\n".join(reversed(TOC.splitlines()))}, "order"),
        ({"toc": TOC.replace(r"\numberline {1}", "")}, r"chapter 1 is \[\]"),
        ({"aux": AUX.replace("2.2", "2.3")}, r"chapter are .*2: \[1, 3\]"),
        ({"aux": AUX.replace("2.2", "2.1")}, r"chapter are .*2: \[1, 1\]"),
        ({"aux": ""}, r"chapter are \{\}"),
        ({"text": f"{TEXT}\nsee equation ??"}, "see equation"),
        ({"text": "Computed while this page was built."}, "provenance"),
    ],
)
def test_each_thing_that_is_wrong_is_found(broken, said, tmp_path, monkeypatch):
    [problem] = check(tmp_path, monkeypatch, **broken)
    assert re.search(said, problem)
