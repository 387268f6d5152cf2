"""axe-core finds nothing to object to, in both colour modes, wide and narrow."""

import pytest
from built import MODES, NODE_MODULES, WIDTHS, page_names

RUN = """async () => {
  const told = (await axe.run(document, { resultTypes: ["violations"] })).violations;
  return told.map(v => `${v.id}: ${v.nodes.map(n => n.target.join(" ")).slice(0, 3)}`);
}"""


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("mode", MODES)
def test_axe_finds_nothing(opened, origin, mode, width):
    axe, told = (NODE_MODULES / "axe-core/axe.min.js").read_text("utf-8"), {}
    with opened(mode, width) as tab:
        for name in page_names():
            tab.goto(f"{origin}/{name}", wait_until="load")
            tab.evaluate(axe)
            assert tab.evaluate("document.documentElement.dataset.theme") == mode
            if found := tab.evaluate(RUN):
                told[name] = found
    assert not told


def test_the_test_above_can_fail(opened, origin):
    with opened() as tab:
        tab.goto(f"{origin}/index.html")
        tab.evaluate((NODE_MODULES / "axe-core/axe.min.js").read_text("utf-8"))
        tab.evaluate("document.body.append(new Image())")
        assert any(line.startswith("image-alt") for line in tab.evaluate(RUN))


def test_nothing_is_wider_than_a_telephone(opened, origin):
    with opened(width=390) as tab:
        wide = {}
        for name in page_names():
            tab.goto(f"{origin}/{name}", wait_until="load")
            width = tab.evaluate("document.scrollingElement.scrollWidth")
            if width > 390:
                wide[name] = width
    assert not wide


def test_the_keyboard_reaches_the_content_and_shows_where_it_is(opened, origin):
    with opened() as tab:
        tab.goto(f"{origin}/rnn.html")
        tab.keyboard.press("Tab")
        first = tab.evaluate("document.activeElement.textContent.trim()")
        assert first == "Skip to main content"
        tab.keyboard.press("Enter")
        assert tab.evaluate("location.hash") == "#main-content"
        unseen = []
        for _ in range(40):
            tab.keyboard.press("Tab")
            style = tab.evaluate(
                """() => { const e = document.activeElement, s = getComputedStyle(e);
                return [e.outerHTML.slice(0, 80), s.outlineStyle, s.boxShadow,
                        s.textDecorationLine] }"""
            )
            if style[1:] == ["none", "none", "none"]:
                unseen.append(style[0])
    assert not unseen


def test_what_scrolls_sideways_can_be_scrolled_by_keyboard(opened, origin):
    with opened(width=390) as tab:
        tab.goto(f"{origin}/gallery/1_rnn/plot_2_bptt.html")
        stuck = tab.evaluate(
            """() => [...document.querySelectorAll("main *")].filter(e => {
              const flow = getComputedStyle(e).overflowX;
              return /auto|scroll/.test(flow) && e.scrollWidth > e.clientWidth + 1
                && e.tabIndex < 0 && !e.querySelector("a, button, [tabindex='0']");
            }).map(e => e.outerHTML.slice(0, 80))"""
        )
    assert not stuck
