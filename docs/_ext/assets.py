"""One style sheet for the whole site, and scripts that no page waits for.

A browser shows nothing until it has every style sheet and every script of a page's
head. The theme and the extensions bring a dozen of each; here the style sheets become
one file, and the scripts run when the page is there. The font of icons keeps those
that are drawn.
"""

import logging
import re
from pathlib import Path

from fontTools import subset
from myst_nb.sphinx_ext import add_global_html_resources
from sphinx.application import Sphinx

logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells every table

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


def write(app: Sphinx) -> None:
    """Write the joined style sheet and its icons, if they are others now."""
    static = Path(app.outdir) / "_static"
    add_global_html_resources(app, None)  # MyST-NB brings its own at the end, too late
    sheets = sorted(app.builder._css_files, key=lambda sheet: sheet.priority)
    own = [str(sheet.filename).removeprefix("_static/") for sheet in sheets]
    text = joined(static, [*FIRST, *own]).replace(FONT, ICON_FONT)
    target = static / BUNDLE
    if not target.is_file() or target.read_text("utf-8") != text:
        write_icons(static / FONT, static / ICON_FONT, text)
        target.write_text(text, "utf-8")


def link(app: Sphinx, pagename, templatename, context, doctree) -> None:
    """Load the one style sheet, and let the scripts wait."""
    if app.builder.format != "html" or "css_files" not in context:
        return
    # Its checksum becomes a part of its address, so it has to be there by now.
    if not getattr(app, "style_is_written", False):
        write(app)
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


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Write it also when no page was written again."""
    if exception is None and app.builder.format == "html":
        write(app)


def setup(app: Sphinx) -> dict:
    """Come after all that add a style sheet or a script to a page."""
    app.connect("html-page-context", link, priority=950)
    # After the theme, which writes the colours of code at the end.
    app.connect("build-finished", finish, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
