"""What the HTML pages need beyond the theme.

**Navigation and accessibility.** Names, roles and keyboard focus that readers with a
screen reader or a keyboard need and that the theme leaves out.

**Assets.** A browser shows nothing until it has every style sheet and every script of a
page's head, and the theme and the extensions bring a dozen of each. Here the style
sheets become one file, of which no rule is without use, the scripts run when the page
is there, and the icon font keeps the icons that are drawn.
"""

import logging
import posixpath
import re
from collections.abc import Set
from pathlib import Path

from bs4 import BeautifulSoup
from fontTools import subset
from myst_nb.sphinx_ext import add_global_html_resources
from sphinx.application import Sphinx
from sphinx.util.osutil import relative_uri

from dian_sphinx.used_rules import shown, used, words

logging.getLogger("fontTools").setLevel(logging.WARNING)  # it reports every table

CODE = '<div class="highlight"><pre>'
# In the gallery, on another page, and on the page of all figures.
FIGURE = re.compile(
    r'<img [^>]*class ?= ?"(?:sphx-glr-(?:single|multi)-img|picture|slide)"[^>]*>'
)
# A list of terms without a term: Sphinx writes the parameters of a signature so.
PARAMETERS = re.compile(r'(<span class="sig-paren">\(</span>\s*)<dl>(.*?)</dl>', re.S)
SUMMARY = re.compile(r"(<a [^>]*>)([^<]*)(</a><details[^>]*><summary)>")

BUNDLE = "site.css"
# The theme's own come first: its templates would load them before all others.
FIRST = ("basic.css", "styles/pydata-sphinx-theme.css")
# The style sheet of Font Awesome names two thousand icons: the theme draws these.
ICONS = {
    *("angle-left", "angle-right", "arrow-up", "bars", "chevron-down"),
    *("circle-half-stroke", "expand", "list", "magnifying-glass", "moon", "sun"),
    "xmark",
}
ICON = re.compile(r'((?:\.fa-[\w-]+,?)+)\{--fa:"[^"]*"\}')
ADDRESS = re.compile(r"""url\(\s*(["']?)(?!data:|#|/|https?:)([^"')]+)\1\s*\)""")
FONT = "vendor/fontawesome/webfonts/fa-solid-900.woff2"
ICON_FONT = "icons.woff2"
# In a style sheet an icon is written "\f078", or stands there itself.
CHARACTER = re.compile(r"\\([0-9a-f]{4})\b|([\ue000-\uf8ff])")
# What a script on the page itself reads at once.
AT_ONCE = "documentation_options.js"


# --- Navigation and accessibility -----------------------------------------------------


def mend_page(app: Sphinx, pagename, templatename, context, doctree) -> None:
    """Name the buttons that unfold the sidebar, and correct what is in the page."""
    make_tree = context.get("generate_toctree_html")
    if make_tree:

        def tree(**kwargs) -> str:
            # A page that is shown at any address has its own way to write links.
            if pagename == "404":
                return _labelled(str(make_tree(**kwargs)))
            if not hasattr(app, "sidebar"):
                app.sidebar = Sidebar(_labelled(str(make_tree(**kwargs))), pagename)
            return app.sidebar.of(pagename)

        context["generate_toctree_html"] = tree
    if "body" in context:
        context["body"] = mend_body(context["body"])
    if pagename == "_modules/index":
        context["body"] = one_list(context["body"])


def _labelled(tree: str) -> str:
    return SUMMARY.sub(r'\1\2\3 aria-label="\2">', tree)


class Sidebar:
    """The tree of all pages, made once: the theme needs 0.1 s for each page.

    It is the same on all pages, but for the addresses and for the current page.

    Parameters
    ----------
    html
        The tree as the theme makes it for a page.
    page
        The name of that page.
    """

    def __init__(self, html: str, page: str):
        self.soup = BeautifulSoup(html, "html.parser")
        folder = posixpath.dirname(page)
        self.links = {
            posixpath.normpath(posixpath.join(folder, link["href"])): link
            for link in self.soup("a")
            if link["href"] != "#"
        }
        if here := self.soup.find("a", href="#"):
            self.links[f"{page}.html"] = here
            self._mark(here, current=False)

    def of(self, page: str) -> str:
        """Return the tree for a page."""
        address = f"{page}.html"
        for target, link in self.links.items():
            link["href"] = relative_uri(address, target)
        here = self.links.get(address)
        if here is None:
            return str(self.soup)
        here["href"] = "#"
        self._mark(here, current=True)
        html = str(self.soup)
        self._mark(here, current=False)
        return html

    def _mark(self, here, *, current: bool) -> None:
        """Mark a link and all that it is in as current, or undo that."""
        for tag in (here, *here.parents):
            if tag.name not in ("a", "ul", "li"):
                continue
            classes = [
                c for c in tag.get("class", ()) if c not in ("current", "active")
            ]
            if current and tag.name == "li":
                classes[1:1] = ["current", "active"]
            elif current:
                classes[:0] = ["current"]
            tag["class"] = classes
            if not classes:
                del tag["class"]
            if tag.name == "li" and tag.details:
                tag.details.attrs = {"open": "open"} if current else {}


def mend_body(body: str) -> str:
    """Correct roles and lists, and let the keyboard reach what scrolls.

    >>> mend_body('<div class="highlight"><pre>x</pre></div>')
    '<div class="highlight"><pre tabindex="0">x</pre></div>'
    >>> mend_body('<span class="sig-paren">(</span><dl><dd>x</dd></dl>')
    '<span class="sig-paren">(</span><div class="parameters"><div>x</div></div>'
    >>> mend_body('<img src="x.png" class = "sphx-glr-single-img"/>')[:41]
    '<div class="figure-scroll" tabindex="0"><'
    """
    body = body.replace('role="doc-biblioentry"', 'role="listitem"')
    body = body.replace(CODE, f'{CODE[:-1]} tabindex="0">')
    body = FIGURE.sub(r'<div class="figure-scroll" tabindex="0">\g<0></div>', body)
    return PARAMETERS.sub(_as_blocks, body)


def _as_blocks(match: re.Match) -> str:
    rows = match[2].replace("<dd>", "<div>").replace("</dd>", "</div>")
    return f'{match[1]}<div class="parameters">{rows}</div>'


def one_list(body: str) -> str:
    """Make one list of nested ones: Sphinx writes a list as a child of another.

    >>> one_list("<h1>Code</h1><ul><li>a</li><ul><li>a.b</li></ul></ul>")
    '<h1>Code</h1><ul><li>a</li><li>a.b</li></ul>'
    """
    before, opening, items = body.partition("<ul>")
    items = items.replace("<ul>", "").replace("</ul>", "")
    return f"{before}{opening}{items}</ul>" if opening else body


# --- Assets -------------------------------------------------------------------------


def joined(static: Path, names: list[str]) -> str:
    """Put style sheets one behind the other, to be read in the folder ``static``."""
    return "\n".join(_moved(static, name) for name in names)


def _moved(static: Path, name: str) -> str:
    """Return a style sheet whose addresses count from ``static``, without an import."""
    text = (static / name).read_text("utf-8").replace('@charset "UTF-8";', "")
    if "@import" in text:
        raise ValueError(f"{name} imports another style sheet; expected none")
    folder = Path(name).parent

    def moved(match: re.Match) -> str:
        address = (static / folder / match[2]).resolve().relative_to(static.resolve())
        return f"url({match[1]}{address.as_posix()}{match[1]})"

    return ADDRESS.sub(moved, ICON.sub(_if_used, text))


def _if_used(match: re.Match) -> str:
    """Keep the rule of an icon that is used.

    >>> ICON.sub(_if_used, '.fa-moon{--fa:"a"}.fa-0{--fa:"b"}.fa-x,.fa-sun{--fa:"c"}')
    '.fa-moon{--fa:"a"}.fa-x,.fa-sun{--fa:"c"}'
    """
    named = {name.removeprefix(".fa-") for name in match[1].split(",")}
    return match[0] if named & ICONS else ""


def write_icons(source: Path, target: Path, style: str) -> None:
    """Write a font that holds the characters of a style sheet, and no others."""
    options = subset.Options(flavor="woff2", layout_features=[])
    kept = subset.Subsetter(options)
    found = CHARACTER.findall(style)
    kept.populate(unicodes=[int(code, 16) if code else ord(c) for code, c in found])
    with subset.load_font(str(source), options, lazy=False) as font:
        kept.subset(font)
        subset.save_font(font, str(target), options)


def write_style(app: Sphinx, on_pages: Set[str] = frozenset()) -> None:
    """Write the joined style sheet and its icons, if they are others now.

    It has no rules for classes that are neither on a page nor named by a source.
    """
    static = Path(app.outdir) / "_static"
    add_global_html_resources(app, None)  # MyST-NB brings its own at the end, too late
    sheets = sorted(app.builder._css_files, key=lambda sheet: sheet.priority)
    own = [str(sheet.filename).removeprefix("_static/") for sheet in sheets]
    text = joined(static, [*FIRST, *own]).replace(FONT, ICON_FONT)
    text = used(text, words() | on_pages)
    target = static / BUNDLE
    if not target.is_file() or target.read_text("utf-8") != text:
        write_icons(static / FONT, static / ICON_FONT, text)
        target.write_text(text, "utf-8")


def link_style(app: Sphinx, pagename, templatename, context, doctree) -> None:
    """Load the one style sheet, and let the scripts wait."""
    if app.builder.format != "html" or "css_files" not in context:
        return
    # Its checksum becomes a part of its address, so it has to be there by now.
    if not getattr(app, "style_is_written", False):
        write_style(app)
        app.style_is_written = True
    kind = type(context["css_files"][0])
    context["css_files"] = [kind(f"_static/{BUNDLE}")]
    if pagename != "search":  # its own scripts, in its text, need the others
        context["script_files"] = [_waiting(s) for s in context["script_files"]]


def _waiting(script):
    """Return a script of the head as one that runs when the page is there."""
    if not script.filename or AT_ONCE in str(script.filename):
        return script
    # Not in place: all pages share the object.
    attributes = script.attributes | {"defer": "defer"}
    return type(script)(script.filename, priority=script.priority, **attributes)


def finish_style(app: Sphinx, exception: Exception | None) -> None:
    """Write it again when the classes of all pages are known."""
    if exception is None and app.builder.format == "html":
        write_style(app, shown(Path(app.outdir)))


def connect(app: Sphinx) -> None:
    """Change the pages after the theme and all other extensions."""
    app.connect("html-page-context", mend_page, priority=900)
    app.connect("html-page-context", link_style, priority=950)
    # After the theme, which writes the colors of code at the end.
    app.connect("build-finished", finish_style, priority=900)
