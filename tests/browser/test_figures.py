"""Figures are read as well on a dark page as on a white one."""

import io

import numpy as np
import pytest
from built import HTML, MODES, page_names
from PIL import Image
from test_interactive import PAGES

# Where a picture is drawn on nothing, the card under it shows through.
CARDS = """() => [...document.querySelectorAll("main img")].map(e => {
  const style = getComputedStyle(e);
  return { address: e.src, card: style.backgroundColor, filter: style.filter };
})"""


@pytest.fixture(scope="module")
def pictures(browser, origin):
    """All pictures of the site as a dark page shows them, by address."""
    context = browser.new_context(color_scheme="dark")
    tab, found = context.new_page(), {}
    for name in page_names():
        if "<img" not in (HTML / name).read_text("utf-8"):
            continue
        tab.goto(f"{origin}/{name}", wait_until="domcontentloaded")
        tab.wait_for_function("document.documentElement.dataset.theme === 'dark'")
        for one in tab.evaluate(CARDS):
            found[one["address"].removeprefix(f"{origin}/")] = one
    context.close()
    return found


def test_on_a_dark_page_a_figure_lies_on_a_white_card_and_keeps_its_colours(pictures):
    assert len(pictures) > 50
    assert {one["card"] for one in pictures.values()} == {"rgb(255, 255, 255)"}
    assert {one["filter"] for one in pictures.values()} == {"none"}


def test_every_figure_is_drawn_on_white(pictures):
    told = []
    for address in sorted(pictures):
        if address.startswith("_static/"):
            continue  # a sign of the theme
        with Image.open(HTML / address) as picture:
            white = Image.new("RGBA", picture.size, "white")
            white.alpha_composite(picture.convert("RGBA"))
        pixels = np.asarray(white.convert("L"))
        edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        # its ground is white, and something dark stands on it
        if np.median(edge) < 250 or pixels.min() > 118:
            told.append(address)
    assert not told


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_figure_looks_the_same_on_both(opened, origin, page):
    shots = []
    for mode in MODES:
        with opened(mode) as tab:
            tab.goto(f"{origin}/{page}")
            picture = tab.locator("main img[class*='sphx-glr']").first
            picture.scroll_into_view_if_needed()
            tab.wait_for_function("e => e.complete", arg=picture.element_handle())
            shot = Image.open(io.BytesIO(picture.screenshot())).convert("RGB")
            # without the corners, which are round, and the rim of the card
            box = (20, 20, shot.width - 20, shot.height - 20)
            shots.append(np.asarray(shot.crop(box).resize((160, 90)), dtype=float))
    assert np.abs(shots[0] - shots[1]).mean() < 2


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
    + "svg .marker, svg text")].map((e) => {
    const style = getComputedStyle(e);
    const own = light(style.stroke === "none" ? style.fill : style.stroke);
    return (Math.max(own, ground) + 0.05) / (Math.min(own, ground) + 0.05);
  });
}"""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["rotary", "attention", "gradient"])
def test_what_can_be_moved_is_seen_on_both(opened, origin, mode, name):
    with opened(mode) as tab:
        tab.goto(f"{origin}/{PAGES[name]}")
        figure = tab.locator("figure.interactive").element_handle()
        found = figure.evaluate(CONTRAST)
    assert found
    assert min(found) >= 3
