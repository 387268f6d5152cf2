"""The first screen shows a picture and leads on; nothing wraps badly on a telephone."""

import re

import pytest
from built import HTML, MODES, until

BOX = "e => { const b = e.getBoundingClientRect(); return [b.top, b.bottom]; }"


@pytest.mark.parametrize("mode", MODES)
def test_the_first_screen_has_the_picture_and_the_buttons(opened, origin, mode):
    with opened(mode) as tab:
        tab.set_viewport_size({"width": 1280, "height": 900})
        tab.goto(f"{origin}/index.html")
        shown = "main img.picture:visible"
        until(tab, "document.querySelector('main img.picture').naturalWidth > 0")
        top, bottom = tab.locator(shown).first.evaluate(BOX)
        assert 0 < top < bottom < 900
        buttons = tab.locator(".front-buttons a")
        assert [text.strip() for text in buttons.all_inner_texts()] == [
            "Start reading",
            "Check your own implementation",
            "Run it",
        ]
        run = tab.get_by_role("button", name="Run", exact=True)
        assert buttons.last.evaluate(BOX)[1] < run.evaluate(BOX)[1] < top


def test_each_card_leads_to_its_chapter(opened, origin):
    with opened() as tab:
        for name in ("rnn", "positions", "attention", "diffusion"):
            tab.goto(f"{origin}/index.html")
            card = tab.locator(f".front-cards .sd-card:has(a[href='{name}.html'])")
            assert card.locator("img:visible").count() == 1
            card.click()
            assert tab.url.endswith(f"/{name}.html")


def test_the_downloads_are_one_line_each(opened, origin):
    with opened(width=390) as tab:
        tab.goto(f"{origin}/gallery/1_rnn/plot_5_fashion_mnist.html")
        links = tab.locator(".sphx-glr-footer a")
        assert links.count() >= 3
        for i in range(links.count()):
            top, bottom = links.nth(i).evaluate(BOX)
            assert bottom - top < 30
        tops = {round(links.nth(i).evaluate(BOX)[0]) for i in range(links.count())}
        assert len(tops) <= 2


def test_every_page_has_the_icon_and_the_logo():
    for name in ("index", "rnn", "gallery/1_rnn/plot_1_forward"):
        page = (HTML / f"{name}.html").read_text("utf-8")
        [address] = re.findall(r'<link rel="icon"[^>]*href="([^"]+)"', page)
        assert (HTML / f"{name}.html").parent.joinpath(address).is_file()
        assert page.count('<svg class="logo"') == 1


def test_every_slide_has_an_svg_file():
    page = (HTML / "figures.html").read_text("utf-8")
    n_figure = page.count('class="figure-entry')
    links = re.findall(r'class="figure-svg" href="([^"]+)"', page)
    assert n_figure == len(links) > 100
    assert all((HTML / link).is_file() for link in links)
