"""Figures are read as well on a dark page as on a white one."""

import re

import numpy as np
import pytest
from built import CHAPTERS, HTML, MODES, page_names, until
from PIL import Image
from test_interactive import PAGES

# The images that a page shows, in its present mode.
SHOWN = """() => [...document.querySelectorAll("main img")]
  .filter(e => e.getClientRects().length)
  .map(e => ({ address: e.src, filter: getComputedStyle(e).filter,
    ground: getComputedStyle(e).backgroundColor }))"""
FIGURE = "sphx_glr_plot_"


@pytest.fixture(scope="module", params=MODES)
def shown(request, browser, origin):
    """The mode, and all images that the site shows in it, by address."""
    mode, found = request.param, {}
    context = browser.new_context(color_scheme=mode)
    tab = context.new_page()
    for name in page_names():
        if "<img" not in (HTML / name).read_text("utf-8"):
            continue
        tab.goto(f"{origin}/{name}", wait_until="domcontentloaded")
        until(tab, f"document.documentElement.dataset.theme === '{mode}'")
        for one in tab.evaluate(SHOWN):
            found[one["address"].removeprefix(f"{origin}/")] = one
    context.close()
    return mode, found


def is_figure(address: str) -> bool:
    return FIGURE in address and "_thumb" not in address


def test_each_mode_shows_its_form_of_every_figure(shown):
    mode, images = shown
    figures = {address for address in images if is_figure(address)}
    assert len(figures) > 50
    assert {"_dark." in address for address in figures} == {mode == "dark"}
    assert {one["filter"] for one in images.values()} == {"none"}


def test_a_figure_has_the_ground_of_its_mode_and_something_on_it(shown):
    mode, images = shown
    told = []
    for address in sorted(filter(is_figure, images)):
        with Image.open(HTML / address) as picture:
            pixels = np.asarray(picture.convert("L")).astype(int)
        edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        ground, furthest = (250, 118) if mode == "light" else (30, 150)
        if mode == "light":
            good = np.median(edge) >= ground and pixels.min() <= furthest
        else:
            good = np.median(edge) <= ground and pixels.max() >= furthest
        if not good:
            told.append(address)
    assert not told


def test_other_images_lie_on_white_on_a_dark_page(shown):
    mode, images = shown
    others = [one for address, one in images.items() if not is_figure(address)]
    if mode == "dark":
        assert {one["ground"] for one in others} == {"rgb(255, 255, 255)"}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_each_figure_offers_its_svg_file(opened, origin, page):
    with opened() as tab:
        tab.goto(f"{origin}/{page}")
        links = tab.locator("main a.figure-svg")
        assert links.count() == tab.locator("main img.only-light").count() > 0
        for link in links.all():
            file = HTML / "_images" / link.get_attribute("href").rpartition("/")[2]
            assert file.read_text("utf-8").rstrip().endswith("</svg>")


# The contrast of what a figure draws with the page behind it (WCAG 2, 1.4.11).
CONTRAST = """figure => {
  const canvas = document.createElement("canvas").getContext("2d");
  const light = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) =>
      v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = light(getComputedStyle(document.body).backgroundColor);
  return [...figure.querySelectorAll("svg .first, svg .second, svg .curve, svg .bar, "
    + "svg .marker, svg .other, svg .loss, svg .arrow, svg text")].map((e) => {
    const style = getComputedStyle(e);
    const own = light(style.stroke === "none" ? style.fill : style.stroke);
    return (Math.max(own, ground) + 0.05) / (Math.min(own, ground) + 0.05);
  });
}"""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [name for name in PAGES if name != "noising"])
def test_what_can_be_moved_is_seen_on_both(opened, origin, mode, name):
    with opened(mode) as tab:
        tab.goto(f"{origin}/{PAGES[name]}")
        figure = tab.locator("figure.interactive").element_handle()
        found = figure.evaluate(CONTRAST)
    assert found
    assert min(found) >= 3


# --- On a telephone -----------------------------------------------------------------

POINTS_WIDE = 504  # every figure is 7 inches wide
# How wide each figure is shown, and whether what scrolls is reached and tells it.
SIZES = """() => [...document.querySelectorAll("main img")].filter((e) =>
    e.getClientRects().length && e.src.includes("/sphx_glr_plot_")
    && !e.src.includes("_thumb") && !e.classList.contains("plain"))
  .map((e) => {
    const box = e.closest(".figure-scroll");
    return { file: e.src.split("/").pop(), width: e.getBoundingClientRect().width,
      tab: box?.tabIndex, scrolls: box && getComputedStyle(box).overflowX,
      hint: box && getComputedStyle(box).backgroundImage.includes("gradient"),
      lets_through: getComputedStyle(e).mixBlendMode !== "normal" };
  })"""
SHOWING = [
    *(f"{name}.html" for name in CHAPTERS),
    "figures.html",
    *dict.fromkeys(PAGES.values()),
]


def smallest_text(stem: str) -> float:
    """Return the size of the smallest text of a figure in points.

    matplotlib draws letters of a font of 100 points, and scales them. Exponents, which
    are scaled once more, are not counted.
    """
    drawing = (HTML / "_images" / f"{stem}.svg").read_text("utf-8")
    scales = re.findall(r"scale\((0\.\d+) -\1\)", drawing)
    return 100 * min(map(float, scales), default=np.inf)


@pytest.mark.parametrize("page", SHOWING)
@pytest.mark.parametrize("mode", MODES)
def test_text_in_a_figure_is_read_on_a_telephone(opened, origin, mode, page):
    with opened(mode, width=390) as tab:
        tab.goto(f"{origin}/{page}")
        found = tab.evaluate(SIZES)
        assert tab.evaluate("document.scrollingElement.scrollWidth") == 390
    assert found or "/plot_" in page
    small, stuck = {}, []
    for one in found:
        stem = one["file"].removesuffix(".png").removesuffix("_dark")
        size = smallest_text(stem) * one["width"] / POINTS_WIDE
        if size < 9:
            small[stem] = round(size, 1)
        if (one["tab"], one["scrolls"]) != (0, "auto") or not (
            one["hint"] and one["lets_through"]
        ):
            stuck.append(stem)
    assert not small
    assert not stuck


def test_a_figure_fits_a_desktop_and_paper(opened, origin):
    fits = """() => [...document.querySelectorAll("main .figure-scroll")].every(
      (e) => e.scrollWidth <= e.clientWidth)"""
    for width, media in ((1280, "screen"), (718, "print")):
        with opened(width=width) as tab:
            tab.goto(f"{origin}/rnn.html")
            tab.emulate_media(media=media)
            assert tab.evaluate(fits)
