"""Goals, reading times, exercises and figures are collected from the pages."""

import re

import pytest

from dian_sphinx import teaching

SETTINGS = {
    "extensions": ["myst_nb", "sphinx_design"],
    "html_theme": "basic",
    "nb_execution_mode": "off",
    "master_doc": "index",
    "myst_enable_extensions": {"dollarmath", "colon_fence"},
    "html_math_renderer": "mathjax",
    "numfig": True,
}
BOX = """
:::{admonition} Before you start
:class: tip
**You need** {doc}`rnn`.

**You will learn**

- to add, {eq}`eq-sum`;
- to subtract.

**Reading time:** about 12 minutes, and 90 minutes for the chapter.
:::
"""
EXERCISES = """
## Exercises

The solutions run.

**1. Add.** What is {eq}`eq-sum` for $x = 2$?

- The first part.

:::{dropdown} Solution
Four. {term}`x`

```python
secret = 4
```
:::

**2. Subtract.** What is $2 - 2$?

::::{dropdown} Solution
Nothing.
::::

```{toctree}
:hidden:

rnn_more
```
"""
EQUATION = """
```{math}
:label: eq-sum
x + x
```

```{glossary}
x
  A number.
```
"""


@pytest.fixture
def site(tmp_path, sphinx_build, extension_of):
    """Build pages of a chapter, and return their HTML and the warnings."""

    def build(box=BOX, exercises=EXERCISES):
        source = tmp_path / "docs"
        source.mkdir()
        pages = {
            "rnn": f"# Networks\n{box}{EQUATION}{exercises}",
            "rnn_more": f"# More\n{BOX.replace('12', '8')}",
            "plan": "# Plan\n\n```{lesson-plan} rnn\n```",
            "sheet": "# Sheet\n\n```{exercise-sheet} rnn\n```",
            "answers": "# Answers\n\n```{exercise-sheet} rnn\n:solutions:\n```",
        }
        listed = "\n".join([n for n in pages if n != "rnn_more"])
        pages["index"] = f"# Top\n\n```{{toctree}}\n{listed}\n```"
        for name, text in pages.items():
            (source / f"{name}.md").write_text(text)
        ours = [*SETTINGS["extensions"], extension_of("teaching")]
        built = tmp_path / "built"
        said = sphinx_build(source, built, SETTINGS | {"extensions": ours})
        return {
            name: (built / f"{name}.html").read_text("utf-8") for name in pages
        }, said

    return build


def words(html: str) -> str:
    body = html.split('role="main"')[1].split('class="sphinxsidebar"')[0]
    return " ".join(re.sub("<[^>]*>", " ", body).split())


def test_the_plan_has_the_time_and_the_goals_of_each_page(site):
    pages, said = site()
    assert said == ""
    plan = words(pages["plan"])
    assert re.search("Networks , 12 minutes to add, .* to subtract. More , 8 min", plan)
    assert 'href="rnn.html#equation-eq-sum"' in pages["plan"]


def test_a_page_without_goals_is_reported(site):
    _, said = site(box="")
    assert "the page needs a box 'Before you start'" in said


def test_the_sheet_has_the_exercises_and_no_solution(site):
    pages, _ = site()
    sheet = words(pages["sheet"])
    parts = ["Networks", "1. Add.", "The first part.", "2. Subtract."]
    places = [sheet.index(part) for part in parts]
    assert places == sorted(places)
    assert not re.search("Four|Nothing|secret|The solutions run|More", sheet)


def test_the_solutions_are_open_on_their_page(site):
    pages, _ = site()
    answers = words(pages["answers"])
    for part in ("1. Add.", "Four.", "secret", "2. Subtract.", "Nothing."):
        assert part in answers
    assert pages["answers"].count("<details") == 2
    assert len(re.findall("<details[^>]*open", pages["answers"])) == 2
    assert not re.search("<details[^>]*open", pages["rnn"])
    assert "secret" in pages["rnn"]


def test_copies_have_no_second_anchor(site):
    pages, _ = site()
    for name in ("plan", "sheet", "answers"):
        ids = re.findall(' id="([^"]+)"', pages[name])
        assert len(ids) == len(set(ids))


def test_every_figure_of_a_chapter_is_listed(tmp_path, sphinx_build, extension_of):
    folder = tmp_path / "gallery/1_rnn"
    (folder / "images").mkdir(parents=True)
    page = ""
    for i, caption in enumerate(("The state $h_t$.", ""), 1):
        file = folder / f"images/sphx_glr_plot_x_{i:03}.png"
        file.write_bytes(PNG)
        name = f"/gallery/1_rnn/images/{file.name}"
        page += f"\n.. image-sg:: {name}\n   :alt: curve {i}\n   :srcset: {name}\n"
        if caption:
            label = f"fig-plot-x-{i:03}"
            text = caption.replace("$h_t$", ":math:`h_t`")
            page += f"\n.. caption:: {label}\n\n   {text}\n"
    (folder / "plot_x.rst").write_text(f"X found\n=======\n{page}")
    (tmp_path / "index.md").write_text(
        "# Top\n\n```{figure-list} rnn\n```\n\n"
        "```{toctree}\ngallery/1_rnn/plot_x\n```\n"
    )
    settings = SETTINGS | {
        "extensions": [
            *SETTINGS["extensions"],
            "sphinx_gallery.load_style",
            extension_of("images", "teaching"),
        ]
    }
    assert sphinx_build(tmp_path, tmp_path / "built", settings) == ""
    html = (tmp_path / "built/index.html").read_text("utf-8")
    assert html.count('class="figure-entry') == 2
    assert "Fig. 1" in html.split("figure-entry")[1]
    assert "curve 2" in words(html)
    assert "X found" in words(html)


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360606060000000050001a5f64540"
    "0000000049454e44ae426082"
)


def test_the_chapters_are_those_of_the_claims():
    from dian_sphinx.claims import CHAPTERS

    assert tuple(CHAPTERS) == teaching.CHAPTERS
