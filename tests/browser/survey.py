"""Every page is opened in each colour mode, and what the tests ask of all is noted.

To open a page costs more than to ask it: so each is opened once by its address on a
server, as on a telephone and then as on a desk, and once as a file.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from built import HTML, MODES, NODE_MODULES, WIDTHS, page_names, started

LOOK = Path(__file__).with_name("look.js").read_text("utf-8")
AXE = NODE_MODULES / "axe-core/axe.min.js"
# What KaTeX drew is hidden from screen readers, who get the MathML beside it, and all
# of its thousand parts have the colour of the text: axe looks at everything else.
UNDRAW = """() => document.querySelectorAll(".katex-html[aria-hidden='true']").forEach(
  (drawn) => drawn.replaceChildren())"""
RUN_AXE = """async () => {
  const told = await axe.run(document, { resultTypes: ["violations"] });
  return told.violations.map(
    (v) => `${v.id}: ${v.nodes.map((n) => n.target.join(" ")).slice(0, 3)}`);
}"""


@dataclass
class Survey:
    """What was seen of all pages in one colour mode."""

    told: dict[str, list[str]] = field(default_factory=lambda: {"http": [], "file": []})
    looks: dict[str, dict] = field(default_factory=dict)
    axe: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def each(self, what: str) -> dict:
        """Return one thing of every page where there is something to tell."""
        return {name: look[what] for name, look in self.looks.items() if look[what]}


def survey(origin: str) -> dict[str, Survey]:
    """Look at every page in each mode, the modes side by side."""
    with ThreadPoolExecutor(len(MODES)) as pool:
        found = pool.map(lambda mode: _survey(origin, mode), MODES)
        return dict(zip(MODES, found, strict=True))


def _survey(origin: str, mode: str) -> Survey:
    found, axe = Survey(), AXE.read_text("utf-8")
    narrow = {"width": WIDTHS["telephone"], "height": 900}
    with started() as browser:
        tab = browser.new_context(color_scheme=mode, viewport=narrow).new_page()
        with listened(tab, origin) as found.told["http"]:
            for name in page_names():
                tab.set_viewport_size(narrow)
                tab.goto(f"{origin}/{name}", wait_until="load")
                found.looks[name] = tab.evaluate(LOOK)
                tab.evaluate(UNDRAW)
                tab.evaluate(axe)
                # First as on a telephone: on its way to a smaller window a page takes
                # a moment until the keyboard reaches the tables that scroll now.
                for where in widths(name, mode):
                    tab.set_viewport_size(narrow | {"width": WIDTHS[where]})
                    found.axe[name, where] = tab.evaluate(RUN_AXE)
        with listened(tab, HTML.as_uri()) as found.told["file"]:
            for name in filter(lambda name: widths(name, mode), page_names()):
                tab.goto(f"{HTML.as_uri()}/{name}", wait_until="load")
                # Pictures further down load when they come into view.
                tab.evaluate("scrollTo(0, document.body.scrollHeight)")
            tab.wait_for_timeout(300)
    return found


def widths(name: str, mode: str) -> tuple[str, ...]:
    """Return the widths at which axe checks a page, the smaller one first.

    Chinese pages have the mark-up of the English ones, so axe checks each of them in
    one of the two modes, by turns. All pages of modules have one form, so axe checks
    them in one mode, too, and as on a telephone only; the pages of packages show the
    form on a desktop.
    """
    is_module = name.startswith("api/") and name.count(".") > 2
    turn = MODES[len(name) % len(MODES)]
    if (is_module or name.startswith("zh_CN/")) and mode != turn:
        return ()
    return ("telephone",) if is_module else ("telephone", "desktop")


@contextmanager
def listened(tab, base: str):
    """Note what a tab asks others for, what it does not get, and what fails in it."""
    told: list[str] = []

    def asks(request):
        if not request.url.startswith((base, "data:", "blob:")):
            told.append(f"asks for {request.url}")

    def fails(request):
        # A picture that is still on its way when the next page is opened is let go.
        if request.failure != "net::ERR_ABORTED":
            told.append(f"did not get {request.url}: {request.failure}")

    def answers(response):
        if response.status >= 400:  # 304 says that the browser has it already
            told.append(f"{response.status} {response.url}")

    def breaks(error):
        told.append(f"fails: {error}")

    listeners = {
        "request": asks,
        "requestfailed": fails,
        "response": answers,
        "pageerror": breaks,
    }
    for event, listener in listeners.items():
        tab.on(event, listener)
    yield told
    for event, listener in listeners.items():
        tab.remove_listener(event, listener)
