"""Who uses a keyboard, a screen reader or a telephone has all of it.

axe-core finds nothing to object to on any page, in both colour modes, wide and narrow.
"""

import re

import pytest
from built import HTML, MODES, WIDTHS
from fontTools.ttLib import TTFont
from survey import AXE, LOOK, RUN_AXE


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("mode", MODES)
def test_axe_finds_nothing(surveys, mode, width):
    found = surveys[mode].axe
    assert not {
        page: told for (page, at), told in found.items() if at == width and told
    }


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("what", ["stuck", "clipped", "cut", "broken", "mute", "blank"])
def test_what_scrolls_is_reached_and_what_is_shown_has_words(surveys, what, mode):
    assert not surveys[mode].each(what)


def test_the_font_holds_every_icon_that_the_style_sheet_writes():
    static = HTML / "_static"
    style = (static / "site.css").read_text("utf-8")
    written = {ord(c) for c in re.findall("[\ue000-\uf8ff]", style)}
    written |= {int(c, 16) for c in re.findall(r"\\(f[0-9a-f]{3})\b", style)}
    # Signs of two companies are in another font, and nowhere on these pages.
    written -= {0xF09B, 0xF296}
    assert len(written) > 20
    assert written <= set(TTFont(static / "icons.woff2").getBestCmap())


def test_nothing_is_wider_than_a_telephone(surveys):
    widths = surveys["light"].each("width")
    assert not {name: width for name, width in widths.items() if width > 390}


def test_axe_can_fail(opened, origin):
    with opened() as tab:
        tab.goto(f"{origin}/index.html")
        tab.evaluate(AXE.read_text("utf-8"))
        tab.evaluate("document.body.append(new Image())")
        assert any(line.startswith("image-alt") for line in tab.evaluate(RUN_AXE))


PLANT = "html => { document.querySelector('main article').innerHTML += html }"


@pytest.mark.parametrize(
    ("what", "fault"),
    [
        ("stuck", "<div style='overflow: auto'><p style='width: 999px'>x</p></div>"),
        (
            "clipped",
            "<section><section><p style='text-indent: 999px'>x</p></section></section>",
        ),
        ("cut", "<table><caption style='width: 400px'>x</caption></table>"),
        ("broken", "<table><td><code style='overflow-wrap: anywhere'>x</code></table>"),
        ("mute", "<img src='data:,'>"),
        ("blank", "<i class='fa-solid fa-flask'></i>"),
        ("without_tex", "<span class='katex'>x</span>"),
        ("unlinked", "<b class='eqno'>(1)<a class='headerlink' href='#no'>#</a></b>"),
        (
            "unlinked",
            "<b class='eqno'><a class='headerlink' href='#main-content'></a></b>",
        ),
    ],
)
def test_each_look_can_fail(opened, origin, what, fault):
    with opened(width=390) as tab:
        tab.goto(f"{origin}/index.html")
        assert tab.evaluate(LOOK)[what] == []
        tab.evaluate(PLANT, fault)
        assert len(tab.evaluate(LOOK)[what]) == 1


def test_the_look_at_the_width_can_fail(opened, origin):
    with opened(width=390) as tab:
        tab.goto(f"{origin}/index.html")
        tab.evaluate("document.body.style.width = '500px'")
        assert tab.evaluate(LOOK)["width"] > 390


# How the element with the focus looks, and how it looks when it has lost it.
FOCUS = """() => {
  const element = document.activeElement;
  const look = () => { const s = getComputedStyle(element);
    return [s.outlineStyle, s.outlineWidth, s.outlineColor, s.boxShadow].join(); };
  const focused = look(), box = element.getBoundingClientRect();
  element.blur();
  const blurred = look();
  element.focus({ preventScroll: true });
  return { name: element.outerHTML.slice(0, 80), shown: focused !== blurred,
    inside: document.querySelector("main").contains(element),
    seen: box.width > 0 && box.bottom > 0 && box.top < innerHeight };
}"""


@pytest.mark.parametrize("page", ["rnn.html", "gallery/1_rnn/plot_3_vanishing.html"])
@pytest.mark.parametrize("mode", MODES)
def test_the_keyboard_reaches_the_content_and_shows_where_it_is(
    opened, origin, page, mode
):
    with opened(mode) as tab:
        tab.goto(f"{origin}/{page}")
        tab.keyboard.press("Tab")
        first = tab.evaluate("document.activeElement.textContent.trim()")
        assert first == "Skip to main content"
        tab.keyboard.press("Enter")
        assert tab.evaluate("location.hash") == "#main-content"
        told = []
        for _ in range(40):
            tab.keyboard.press("Tab")
            told.append(tab.evaluate(FOCUS))
    assert told[0]["inside"]
    assert not [here["name"] for here in told if not here["shown"]]
    assert not [here["name"] for here in told if not here["seen"]]


def test_the_keyboard_scrolls_an_equation_and_code(opened, origin):
    with opened(width=390) as tab:
        tab.goto(f"{origin}/gallery/1_rnn/plot_2_bptt.html")
        # those further down, too, which are not laid out before they are in view
        tab.add_style_tag(content=".math-scroll { content-visibility: visible }")
        tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        for kind in (".math-scroll", "div.highlight pre"):
            wide = tab.evaluate_handle(
                """kind => [...document.querySelectorAll(`main ${kind}`)]
                  .find(e => e.scrollWidth > e.clientWidth + 40)""",
                kind,
            ).as_element()
            wide.scroll_into_view_if_needed()
            wide.focus()
            tab.keyboard.press("ArrowRight")
            tab.wait_for_timeout(300)
            assert wide.evaluate("e => e.scrollLeft") > 0
