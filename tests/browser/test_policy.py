"""The policy of every page refuses other origins, and nothing that the site does."""

import pytest
from built import HTML


def test_every_page_has_a_policy():
    pages = [p for p in HTML.rglob("*.html") if "_static" not in p.parts]
    without = [
        p.name for p in pages if "Content-Security-Policy" not in p.read_text("utf-8")
    ]
    assert not without


@pytest.mark.parametrize("scheme", ["http", "file"])
@pytest.mark.parametrize(
    ("code", "directive"),
    [
        ("new Image().src = 'http://127.0.0.2:9/x.png'", "img-src"),
        ("fetch('http://127.0.0.2:9/x').catch(() => 0)", "connect-src"),
        ("navigator.sendBeacon('http://127.0.0.2:9/x')", "connect-src"),
        (
            "document.head.append(Object.assign(document.createElement('script'),"
            " { src: 'http://127.0.0.2:9/x.js' }))",
            "script-src-elem",
        ),
        (
            "document.head.append(Object.assign(document.createElement('script'),"
            " { textContent: '1' }))",
            "script-src-elem",
        ),
        (
            "document.body.append(Object.assign(document.createElement('iframe'),"
            " { src: 'http://127.0.0.2:9/' }))",
            "frame-src",
        ),
    ],
)
def test_the_browser_refuses_other_origins(opened, origin, scheme, code, directive):
    base = origin if scheme == "http" else HTML.as_uri()
    with opened() as tab:
        tab.goto(f"{base}/index.html")
        tab.evaluate(
            "() => { window.refused = []; addEventListener('securitypolicyviolation',"
            " (e) => refused.push(e.effectiveDirective)) }"
        )
        tab.evaluate(f"() => {{ {code} }}")
        tab.wait_for_timeout(300)
        assert tab.evaluate("refused") == [directive]


def test_the_pages_do_all_that_they_did_under_the_policy(opened, origin):
    pages = ["index", "rnn", "search", "genindex", "gallery/index", "check"]
    with opened() as tab:
        tab.add_init_script(
            "window.refused = []; addEventListener('securitypolicyviolation',"
            " (e) => refused.push(`${e.effectiveDirective} ${e.blockedURI}`))"
        )
        for base in (origin, HTML.as_uri()):
            for page in pages:
                tab.goto(f"{base}/{page}.html")
                tab.wait_for_timeout(100)
                assert tab.evaluate("refused") == [], (base, page)
