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
