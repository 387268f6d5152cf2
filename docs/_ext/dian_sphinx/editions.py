"""The editions of the site: English, and what is translated from it.

The Chinese edition consists of the same pages, read again with the catalogues of
``locale``: ``-D language=zh_CN`` into a folder of the English site, which is built
first. Nothing runs a second time, and the API reference is not repeated: the pages
link to the English one.
"""

import posixpath
import re
from html import escape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment

from dian_sphinx.han_search import HAN
from dian_sphinx.punctuation import keep_mark
from dian_sphinx.wording import SOURCE, mark, own, tr


class Edition(NamedTuple):
    """One language of the site."""

    folder: str
    """Where its pages are in the site, with a slash at the end."""
    tag: str
    """The language as browsers call it."""
    name: str
    """The language as its readers call it."""


EDITIONS = {
    SOURCE: Edition("", "en", "English"),
    "zh_CN": Edition("zh_CN/", "zh-CN", "中文"),
}
INVENTORY = "objects.inv"
AROUND = (nodes.reference, nodes.strong, nodes.emphasis)
"""What may be around code within a line."""
REFERENCE = "api/"
"""The folder of pages that only the English edition has."""
ENGLISH = {"changelog", "contracts", "libraries"}
"""Pages whose text is English in each edition, besides the reference."""
PARTS = {"api": mark("The modules are described in English.")} | dict.fromkeys(
    (
        f"verification/{chapter}"
        for chapter in ("rnn", "positions", "attention", "diffusion")
    ),
    mark("Sources, assumptions and mutants are described in English."),
)
"""Pages of which a part is English, and which part."""
WITHOUT_SOURCE = {"genindex", "search"}
"""Pages that Sphinx makes in each edition."""
CARD = re.compile(r'(<div class="sphx-glr-thumbnail-title">).*?(</div>)', re.DOTALL)
TOOLTIP = re.compile(r' tooltip="[^"]*"')


def is_source(config: Config) -> bool:
    """Return whether this is the edition of which the others are translations."""
    return config.language == SOURCE


# --- Settings -------------------------------------------------------------------------


def adapt(app: Sphinx, config: Config) -> None:
    """Change the settings of an edition that repeats what the English one has run."""
    if config.language not in EDITIONS:
        known = ", ".join(EDITIONS)
        # One line: of a ConfigError Sphinx prints the traceback, too.
        raise SystemExit(f"no edition in {config.language!r}; there are: {known}")
    if not has_reference(config):
        config.exclude_patterns = [*config.exclude_patterns, f"{REFERENCE}**"]
    if is_source(config):
        return
    if "sphinx_gallery_conf" in config:
        config.sphinx_gallery_conf |= {"examples_dirs": [], "gallery_dirs": []}
    folder = EDITIONS[config.language].folder
    if site := english_site(app, config):
        config.intersphinx_mapping = {"english": ("..", str(site / INVENTORY))}
    config.intersphinx_disabled_reftypes = ["std:*", "math:*"]
    if config.html_theme == "sphinx_book_theme":
        options = config.html_theme_options
        options["search_bar_text"] = tr("Search the report")
        # Without the author, whose name is in the line of the copyright.
        options["footer_content_items"] = ["copyright.html", "extra-footer.html"]
    config.copyright = config.author = tr("The developers of Dian")
    title = tr("Dian: an executable technical report")
    config.latex_documents = [
        (a, b, title, config.author, *e) for a, b, _, _, *e in config.latex_documents
    ]
    if config.html_baseurl:
        config.html_baseurl = posixpath.join(config.html_baseurl, folder)
        config.ogp_site_url = config.html_baseurl
        config.notfound_urls_prefix = urlsplit(config.html_baseurl).path


def english_site(app: Sphinx, config: Config) -> Path | None:
    """Return the English site, if this edition is built into its folder of that."""
    folder = EDITIONS[config.language].folder
    site = Path(app.outdir, *[".."] * folder.count("/")).resolve()
    inside = site / folder == Path(app.outdir).resolve()
    return site if inside and (site / INVENTORY).is_file() else None


def has_reference(config: Config) -> bool:
    """Return whether the pages of the reference are a part of what is built."""
    return is_source(config) and not getattr(config, "for_translators", False)


# --- From one edition to another ------------------------------------------------------


def add_editions(app: Sphinx, pagename, templatename, context, doctree) -> None:
    """Hand the addresses of a page in the other editions to the templates."""
    here = EDITIONS[app.config.language].folder
    root = context.get("content_root", "") + "../" * here.count("/")
    site = app.config.html_baseurl.removesuffix(here)
    twin = pagename in app.env.found_docs or pagename in WITHOUT_SOURCE
    if not twin or pagename.startswith(REFERENCE):
        return
    places = {
        key: f"{edition.folder}{pagename}.html" for key, edition in EDITIONS.items()
    }
    context["editions"] = [
        {
            "tag": edition.tag,
            "name": edition.name,
            "href": root + places[key],
            "address": (site or root) + places[key],
            "here": key == app.config.language,
        }
        for key, edition in EDITIONS.items()
    ]


def mark_english(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Say that a link leads to the English reference."""
    if is_source(app.config):
        return
    up = "../" * docname.count("/")
    for link in doctree.findall(nodes.reference):
        # Sphinx-gallery counts the way from the top, wherever the page is.
        from_code = any(name.startswith("sphx-glr-backref") for name in link["classes"])
        address = link.get("refuri", "")
        if from_code and address.startswith("../"):
            link["refuri"] = up + address
        if f"../{REFERENCE}" in address:
            link["reftitle"] = tr("in English")
            link["classes"].append("in-english")


def keep_marks(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put code where no line can end before the marks after it.

    If it ends a link or an emphasis, the whole of that is kept with the marks.
    """
    if is_source(app.config) or app.builder.format != "html":
        return
    for code in list(doctree.findall(nodes.literal)):
        while isinstance(code.parent, AROUND) and code.parent[-1] is code:
            code = code.parent
        keep_mark(code)


def mark_latin(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Tell emphasis without Chinese characters, which stays italic, from the other."""
    if is_source(app.config):
        return
    for emphasis in doctree.findall(nodes.emphasis):
        if not HAN.search(emphasis.astext()):
            emphasis["classes"].append("latin")


def leave_out(app: Sphinx, env: BuildEnvironment, node, content) -> nodes.Node | None:
    """Show the name alone where there is no English site to link to, as in a PDF."""
    if is_source(app.config) or node.get("refdomain") != "py":
        return None
    return content if app.builder.format != "html" else None


def add_notice(app: Sphinx, doctree: nodes.document) -> None:
    """Say on a page of another edition what of it is English."""
    page = app.env.current_document.docname
    if is_source(app.config) or page not in ENGLISH | PARTS.keys():
        return
    part = PARTS.get(page)
    text = tr(part) if part else tr("The text of this page is in English.")
    notice = nodes.paragraph("", text, classes=["english-page"])
    title = next(doctree.findall(nodes.title))
    title.parent.insert(title.parent.index(title) + 1, own([notice]))
    if page in ENGLISH:
        _speak(title.parent, SOURCE)
        _speak(notice, app.config.language)
        if HAN.search(title.astext()):
            _speak(title, app.config.language)


def _speak(node: nodes.Element, language: str) -> None:
    """Name the language of a part of a page: Docutils writes the class as ``lang``."""
    node["classes"].append(f"language-{EDITIONS[language].tag}")


def name_cards(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Give the cards of the gallery the titles that their pages have here."""
    if is_source(app.config) or not docname.endswith("index"):
        return
    title = ""
    for node in list(doctree.findall()):
        if isinstance(node, nodes.reference) and node.get("internal"):
            title = node.astext()
        elif isinstance(node, nodes.raw) and "sphx-glr-thumb" in node.astext():
            html = TOOLTIP.sub("", node.astext())
            html = CARD.sub(rf"\g<1>{escape(title)}\g<2>", html)
            node.children = [nodes.Text(html)]


def connect(app: Sphinx) -> None:
    """Adapt the settings first; tell the templates before the theme looks at them."""
    app.setup_extension("sphinx.ext.intersphinx")
    app.add_config_value("for_translators", False, "env", bool)
    app.connect("config-inited", adapt, priority=100)
    app.connect("doctree-read", add_notice)
    app.connect("missing-reference", leave_out, priority=900)
    app.connect("doctree-resolved", name_cards)
    app.connect("doctree-resolved", mark_english)
    app.connect("doctree-resolved", keep_marks)
    app.connect("doctree-resolved", mark_latin)
    # The theme, at 500, leaves out a template that writes nothing.
    app.connect("html-page-context", add_editions, priority=400)
