"""A reference shows what it names, for the pointer and for the keyboard."""

import pytest
from built import HTML

# A link to an equation of another page, and one to an equation of the same page.
ELSEWHERE = "main a.internal[href*='.html#equation-']"
HERE = "main a.internal[href^='#equation-']"
SOURCE = "main a.internal[href*='references.html#']"
PAGE = "rnn_gradients.html"


@pytest.fixture
def page(opened, origin, scheme):
    base = origin if scheme == "http" else HTML.as_uri()
    with opened() as tab:
        tab.goto(f"{base}/{PAGE}")
        yield tab


@pytest.mark.parametrize("scheme", ["http", "file"])
@pytest.mark.parametrize(
    ("link", "content"),
    [(ELSEWHERE, ".katex"), (HERE, ".katex"), (SOURCE, "p")],
    ids=["elsewhere", "here", "source"],
)
def test_hovering_shows_it_and_leaving_hides_it(page, scheme, link, content):
    page.locator(link).first.hover()
    box = page.locator("#preview")
    box.wait_for(state="visible")
    assert box.locator(content).first.is_visible()
    assert box.locator("[id]").count() == 0  # an ID is unique on a page
    page.mouse.move(0, 0)
    box.wait_for(state="hidden")


@pytest.mark.parametrize("scheme", ["http"])
def test_the_pointer_can_move_onto_it(page, scheme):
    page.locator(HERE).first.hover()
    box = page.locator("#preview")
    box.wait_for(state="visible")
    place = box.bounding_box()
    page.mouse.move(place["x"] + 5, place["y"] + 5)
    page.wait_for_timeout(400)
    assert box.is_visible()


@pytest.mark.parametrize("scheme", ["http"])
def test_the_keyboard_shows_it_and_escape_hides_it(page, scheme):
    link = page.locator(HERE).first
    page.keyboard.press("Tab")  # the next focus is one that is to be seen
    link.focus()
    box = page.locator("#preview")
    box.wait_for(state="visible")
    assert link.get_attribute("aria-describedby") == "preview"
    page.keyboard.press("Escape")
    assert box.is_hidden()
    assert link.get_attribute("aria-describedby") is None
