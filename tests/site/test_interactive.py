"""Interactive figures: what they hand to the page, and that the page draws them."""

import json
import re
from pathlib import Path

import pytest

from dian.figures.interactive import Interactive

SCRIPT = Path(__file__).parents[2] / "docs/_static/interactive.js"


def test_the_numbers_come_back_and_nothing_ends_the_element():
    data = {"omega": [1.0, 1e-3], "text": "</script><b>&"}
    html = Interactive("rotary", 'Turn "it" & look.', **data)._repr_html_()
    inside = re.search(r'<script type="application/json">(.*?)</script>', html)[1]
    assert json.loads(inside) == data
    assert html.count("<script") == html.count("</script>") == 1
    assert "<figcaption>Turn &quot;it&quot; &amp; look.</figcaption>" in html
    assert 'data-figure="rotary" hidden' in html  # until the script has drawn it


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_json_cannot_say_is_refused(number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        Interactive("rotary", "", omega=[number])


def test_a_chapter_shows_the_figure_of_a_gallery_page(
    tmp_path, extension_of, sphinx_build
):
    html = Interactive("rotary", "Move & look.", omega=[0.5])._repr_html_()
    page = f"X\n=\n\n.. raw:: html\n\n    <div>\n    {html}\n    </div>\n"
    (tmp_path / "gallery").mkdir()
    (tmp_path / "gallery/plot_x.rst").write_text(page)
    asked = "".join(f".. interactive:: gallery/plot_x{i}\n\n" for i in ("", " 2"))
    (tmp_path / "index.rst").write_text(f"One\n===\n\n{asked}")
    settings = {
        "extensions": [extension_of("interactive")],
        "master_doc": "index",
        "suppress_warnings": ["toc.not_included"],
        "html_theme": "basic",
    }
    warnings = sphinx_build(tmp_path, tmp_path / "built", settings)
    [warning] = [line for line in warnings.splitlines() if "interactive:" in line]
    assert "no figure 2 on gallery/plot_x" in warning
    shown = (tmp_path / "built/index.html").read_text("utf-8")
    assert shown.count(html) == 1
    assert "From the page" in shown


def test_every_figure_that_a_page_asks_for_is_drawn():
    drawn = set(re.findall(r"figures\.(\w+) = ", SCRIPT.read_text("utf-8")))
    gallery = Path(__file__).parents[2] / "gallery"
    asked = {
        name
        for page in gallery.rglob("plot_*.py")
        for name in re.findall(r'Interactive\(\s*"(\w+)"', page.read_text("utf-8"))
    }
    assert asked
    assert asked <= drawn
