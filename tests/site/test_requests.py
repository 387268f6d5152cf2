"""No page asks another origin for anything, and none asks for what is not there."""

import pytest
from built import HTML, MODES, page_names


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scheme", ["http", "file"])
def test_nothing_is_loaded_from_elsewhere(opened, origin, scheme, mode):
    base = origin if scheme == "http" else HTML.as_uri()
    told = []
    with opened(mode) as tab:
        tab.on(
            "request",
            lambda request: (
                request.url.startswith((base, "data:", "blob:"))
                or told.append(f"asks for {request.url}")
            ),
        )
        tab.on(
            "requestfailed",
            # A picture that is still on its way when the next page is opened is let go.
            lambda request: (
                request.failure == "net::ERR_ABORTED"
                or told.append(f"did not get {request.url}: {request.failure}")
            ),
        )
        tab.on(
            "response",
            lambda answer: answer.ok or told.append(f"{answer.status} {answer.url}"),
        )
        tab.on("pageerror", lambda error: told.append(f"fails: {error}"))
        for name in page_names():
            tab.goto(f"{base}/{name}", wait_until="load")
            # Pictures further down load when they come into view.
            tab.evaluate("scrollTo(0, document.body.scrollHeight)")
        tab.wait_for_timeout(300)
    assert not told


def test_the_test_above_can_fail(opened, origin):
    with opened() as tab:
        asked = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(f"{origin}/index.html")
        tab.evaluate("new Image().src = 'http://127.0.0.2:9/elsewhere.png'")
        tab.wait_for_timeout(200)
    assert any(not address.startswith(origin) for address in asked)


def test_no_mathematics_is_set_in_the_browser_and_tex_can_be_copied(opened, origin):
    with opened() as tab:
        for name in ("rnn.html", "gallery/1_rnn/plot_2_bptt.html"):
            tab.goto(f"{origin}/{name}")
            sources = tab.eval_on_selector_all("script[src]", "a => a.map(x => x.src)")
            assert not [s for s in sources if "mathjax" in s.lower() or "katex" in s]
            found = tab.locator("annotation[encoding='application/x-tex']")
            assert found.count() > 20
            assert any("\\frac" in tex for tex in found.all_text_contents())
