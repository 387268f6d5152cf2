"""What is still English on a page of another edition.

The file ``whole.txt`` of a language lists the pages and catalogues that are translated
in full. On these, each message that is left is a warning, so an English sentence that
was changed without its translation stops the build. A fuzzy translation counts as none.
A page that is not listed is a warning, too, unless its text is English in each edition.
"""

from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform
from sphinx.util import logging
from sphinx.util.index_entries import split_index_msg
from sphinx.util.nodes import extract_messages, traverse_translatable_index

from dian_sphinx import wording
from dian_sphinx.editions import ENGLISH
from dian_sphinx.han_search import HAN

log = logging.getLogger(__name__)
KEY = "in_english"
WHOLE = "whole.txt"


class FindEnglishEntries(SphinxTransform):
    """Note the entries of the index that will not be translated."""

    default_priority = 19  # before Sphinx: afterwards, a name is as it was before

    def apply(self, **kwargs) -> None:
        """Look each up in the catalogue of the page."""
        if self.config.language == wording.SOURCE:
            return
        page, left = self.env.docname, wording.missing(self.env)
        for _, entries in traverse_translatable_index(self.document):
            for kind, value, *_ in entries:
                parts = split_index_msg(kind, value)
                left += [p for p in parts if not wording.look_up(self.env, page, p)]


class FindEnglish(SphinxTransform):
    """Note the messages of a page that were not translated."""

    default_priority = 25  # after Sphinx has put the translations in place, at 20

    def apply(self, **kwargs) -> None:
        """Collect them, and those that directives have asked for."""
        if self.config.language == wording.SOURCE:
            return
        left = [
            (node.line or 0, message)
            for node, message in extract_messages(self.document)
            if not is_translated(self.env, node, message)
        ]
        left += [(0, message) for message in wording.missing(self.env)]
        self.env.metadata[self.env.docname][KEY] = left


def is_translated(env: BuildEnvironment, node: nodes.Element, message: str) -> bool:
    """Tell whether Sphinx has put a translation in place of a message."""
    if isinstance(node, nodes.image):  # its message is the alternative text by now
        return bool(HAN.search(message))
    if isinstance(node, addnodes.translatable):  # such as the captions of a toctree
        return wording.look_up(env, env.docname, message) is not None
    return bool(node.get("translated"))


def whole(language: str, locale: Path | None = None) -> set[str]:
    """List the pages and catalogues that are translated in full."""
    file = Path(locale or wording.LOCALE, language, WHOLE)
    return set(file.read_text("utf-8").split()) if file.is_file() else set()


def warn(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of each English message on a page that is listed, and of other pages."""
    if app.config.language == wording.SOURCE:
        return
    listed = whole(app.config.language, locale_of(app))
    for page in sorted(env.found_docs - listed - ENGLISH):
        log.warning("not listed in %s", WHOLE, location=page, type="i18n")
    for page in sorted(listed & env.found_docs):
        for line, message in env.metadata[page].get(KEY, ()):
            log.warning(
                "not translated: %r", message[:70], location=(page, line), type="i18n"
            )


def locale_of(app: Sphinx) -> Path | None:
    """Return the folder of the catalogues of a site."""
    folders = app.config.locale_dirs
    return Path(app.srcdir, folders[0]) if folders else None


def report(app: Sphinx, exception: Exception | None) -> None:
    """Print how many messages of each page are English."""
    if exception or app.config.language == wording.SOURCE:
        return
    pages, found = app.env.all_docs, app.env.metadata
    left = {
        page: len(found[page][KEY]) for page in sorted(pages) if found[page].get(KEY)
    }
    log.info(
        "%s: %d of %d pages are translated; messages in English: %s",
        app.config.language,
        len(pages) - len(left),
        len(pages),
        ", ".join(f"{page} {n}" for page, n in left.items()) or "none",
    )


def connect(app: Sphinx) -> None:
    """Collect as pages are read, and warn when all are."""
    app.add_transform(FindEnglishEntries)
    app.add_transform(FindEnglish)
    app.connect("env-check-consistency", warn)
    app.connect("build-finished", report)
