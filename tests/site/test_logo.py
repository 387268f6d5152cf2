"""The logo is drawn by code, in colors that suit a light and a dark page."""

import re
from xml.etree import ElementTree

import pytest

from dian_sphinx import logo

RECTANGLE = "{http://www.w3.org/2000/svg}rect"


def luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    ]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("text", [logo.icon(), logo.inline(), logo.svg("", "Dian")])
def test_it_is_an_image_of_rows(text):
    root = ElementTree.fromstring(text)
    rows = root.findall(RECTANGLE)
    assert [row.get("class") for row in rows] == ["row"] * 3 + ["read", "next"]
    side = float(root.get("viewBox").split()[2])
    for row in rows:
        x, y, width, height = (float(row.get(k)) for k in ("x", "y", "width", "height"))
        assert 0 <= x < x + width <= side
        assert 0 <= y < y + height <= side


@pytest.mark.parametrize(
    ("colors", "ground"),
    [
        ((logo.BLUE, logo.ORANGE), "#ffffff"),
        ((logo.BLUE_ON_DARK, logo.ORANGE_ON_DARK), "#14181e"),
    ],
)
def test_the_colors_stand_out(colors, ground):
    for color in colors:
        light, dark = sorted(map(luminance, (color, ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 3


def test_the_page_has_the_colors_of_the_icon(root):
    style = (root / "docs/_static/dian.css").read_text("utf-8")
    of_logo = "".join(re.findall(r"^.*svg\.logo.*$", style, re.M))
    names = ("BLUE", "ORANGE", "BLUE_ON_DARK", "ORANGE_ON_DARK")
    assert set(re.findall("#[0-9a-f]{6}", of_logo)) == {getattr(logo, n) for n in names}


def test_the_icon_is_written_beside_the_pages(tmp_path, sphinx_build, extension_of):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.rst").write_text("Top\n===\n")
    settings = {"html_theme": "basic", "extensions": [extension_of("logo")]}
    sphinx_build(tmp_path / "docs", tmp_path / "built", settings)
    assert (tmp_path / "built/_static" / logo.ICON).read_text("utf-8") == logo.icon()
