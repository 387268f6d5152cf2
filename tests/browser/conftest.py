"""The built site in a real browser: the system's Chromium, driven by Playwright.

Not a part of ``make test``, which needs nothing but pip; ``make test-site`` runs it.
"""

import functools
import gzip
import threading
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
from built import HTML, PACKED, started
from live_figures import started as started_figure
from survey import survey


@functools.cache
def packed(path: Path) -> bytes:
    """Pack a file, once."""
    return gzip.compress(path.read_bytes(), 6)


class Handler(SimpleHTTPRequestHandler):
    """A static server that packs texts, as those that host sites do."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Say nothing."""

    def send_head(self):
        """Pack a file if it is a text and the browser can unpack it."""
        path = Path(self.translate_path(self.path))
        packs = "gzip" in self.headers.get("Accept-Encoding", "")
        if not (packs and path.is_file() and path.suffix in PACKED):
            return super().send_head()
        body = packed(path)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "max-age=600")
        self.end_headers()
        return BytesIO(body)


@pytest.fixture(scope="session")
def origin():
    """Serve the site on this machine, and give its address."""
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Handler, directory=str(HTML))
    )
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def surveys(origin):
    """What was seen of every page, in each colour mode."""
    return survey(origin)


@pytest.fixture(scope="session")
def browser():
    """Start the browser once."""
    with started() as browser:
        yield browser


@pytest.fixture(scope="session")
def opened(browser):
    """Return a context manager that opens a tab of some width and colour mode."""

    @contextmanager
    def open_tab(mode="light", width=1280, **options):
        context = browser.new_context(
            color_scheme=mode, viewport={"width": width, "height": 900}, **options
        )
        try:
            yield context.new_page()
        finally:
            context.close()

    return open_tab


@pytest.fixture(scope="module")
def tabs(opened, origin):
    """Keep a tab for each live figure that is asked for, in which it runs."""

    class Tabs(dict):
        def __missing__(self, kind):
            self[kind] = stack.enter_context(opened())
            started_figure(self[kind], origin, kind)
            return self[kind]

    with ExitStack() as stack:
        yield Tabs()
