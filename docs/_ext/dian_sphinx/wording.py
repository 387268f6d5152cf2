"""What these extensions say themselves, in the language of the edition.

:func:`tr` translates a sentence of an extension by the catalogue ``dian``. :func:`said`
translates a message of another page, such as the caption of a figure that is shown
again, by the catalogue of that page. The scripts of the site have the catalogue
``scripts``, which is written out for them as ``wording.js``.
"""

import json
import re
from collections.abc import Iterable
from functools import reduce
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.locale import get_translation, get_translator
from sphinx.locale import init as read_catalogue
from sphinx.util.i18n import CatalogInfo

LOCALE = Path(__file__).parents[3] / "locale"
EXTENSIONS, SCRIPTS, CLAIMS = "dian", "scripts", "claims"
"""Catalogues that belong to no page."""
SOURCE = "en"
"""The language of the sources."""
_translated = get_translation(EXTENSIONS)


def tr(message: str, **values: object) -> str:
    """Translate a message of an extension, and then fill in the values.

    >>> tr("{n} seeds", n=5)
    '5 seeds'
    """
    text = str(_translated(message))
    return text.format(**values) if values else text


def woven(message: str, **parts: nodes.Node | str) -> list[nodes.Node]:
    """Translate a message, and put nodes in the places that are named in braces.

    >>> woven("Equation {link}:", link=nodes.strong("", "(1)"))
    [<#text: 'Equation '>, <strong: <#text: '(1)'>>, <#text: ':'>]
    """
    pieces = re.split(r"\{(\w+)\}", tr(message))
    pieces[1::2] = [parts[name] for name in pieces[1::2]]
    return [nodes.Text(p) if isinstance(p, str) else p for p in pieces if p != ""]


def joined(*sentences: str) -> str:
    """Put sentences one behind the other; Chinese has no blanks between them.

    >>> joined("No.", "The bug is in B.")
    'No. The bug is in B.'
    """
    return reduce(
        lambda first, second: tr("{first} {second}", first=first, second=second),
        sentences,
    )


def mark(message: str) -> str:
    """Mark a message that :func:`tr` translates elsewhere."""
    return message


def said(env: BuildEnvironment, catalogue: str, message: str) -> str:
    """Translate a message of the catalogue of a page."""
    if env.config.language == SOURCE or not message:
        return message
    for folder in env.config.locale_dirs:
        locale = _folder(Path(env.srcdir, folder), env.config.language)
        if (file := locale / f"{catalogue}.mo").is_file():
            env.note_dependency(str(file))
    text = look_up(env, catalogue, message)
    if text is None:
        missing(env).append(message)
    return text or message


def look_up(env: BuildEnvironment, catalogue: str, message: str) -> str | None:
    """Return the translation of a message, if a catalogue has one."""
    folders = [Path(env.srcdir, folder) for folder in env.config.locale_dirs]
    found, _ = read_catalogue(folders, env.config.language, catalogue)
    return getattr(found, "_catalog", {}).get(message)


def missing(env: BuildEnvironment) -> list[str]:
    """Return the list of messages that :func:`said` found no translation of."""
    return env.current_document.setdefault("dian_in_english", [])


def own(parts: Iterable[nodes.Node]) -> list[nodes.Node]:
    """Keep gettext away from what an extension has written, in its own words."""
    parts = list(parts)
    for part in parts:
        for node in part.findall(nodes.Element):
            is_inline = isinstance(node, nodes.Inline)
            is_text = isinstance(node, nodes.TextElement) and not is_inline
            if is_text or isinstance(node, nodes.image):
                node["translatable"] = False
    return parts


def _folder(locale: Path, language: str) -> Path:
    return Path(locale, language, "LC_MESSAGES")


def compile_own(language: str, name: str) -> None:
    """Compile a catalogue that is read before Sphinx compiles those of the pages."""
    own = CatalogInfo(_folder(LOCALE, language), name, "utf-8")
    if Path(own.po_path).is_file() and own.is_outdated():
        own.write_mo(language)


def read_own(app: Sphinx) -> None:
    """Read the catalogue of the extensions."""
    compile_own(app.config.language, EXTENSIONS)
    app.add_message_catalog(EXTENSIONS, str(LOCALE))


def write_script(app: Sphinx) -> None:
    """Hand the translations of the scripts to the pages."""
    if app.config.language == SOURCE or app.builder.format != "html":
        return
    compile_own(app.config.language, SCRIPTS)
    read_catalogue([LOCALE], app.config.language, SCRIPTS)
    found = getattr(get_translator(SCRIPTS), "_catalog", {})
    table = {message: text for message, text in found.items() if message}
    file = Path(app.outdir, "_static", "wording.js")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        f"var wording = {json.dumps(table, ensure_ascii=False)};\n", "utf-8"
    )
    app.add_js_file(file.name, priority=400)  # before the scripts that use it


def highlight_last(app: Sphinx) -> None:
    """Let the script that marks what was searched run when its words are translated."""
    if app.builder.format == "html":
        app.builder._js_files = [
            type(file)(file.filename, priority=600, **file.attributes)
            if str(file.filename).endswith("sphinx_highlight.js")
            else file
            for file in app.builder._js_files
        ]


def connect(app: Sphinx) -> None:
    """Read the catalogue first of all: other parts write their words with it."""
    read_own(app)
    app.connect("builder-inited", write_script)
    app.connect("builder-inited", highlight_last)
