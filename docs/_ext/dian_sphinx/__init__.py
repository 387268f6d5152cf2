"""The Sphinx extension of this report; each module is one concept of the site.

A part imports what it needs of Sphinx and of the library, and registers itself in its
function ``connect``. They are imported by :func:`setup` alone: a process that runs a
script of the gallery imports ``dian_sphinx.figures`` and nothing else.
"""

from importlib import import_module

PARTS = (
    "garbage",
    "wording",
    "quick_messages",
    "messages",
    "untranslated",
    "editions",
    "templates",
    "han_search",
    "han_blanks",
    "folded",
    "records",
    "provenance",
    "images",
    "interactive",
    "equations",
    "claims",
    "gallery",
    "gallery_page",
    "notebooks",
    "api",
    "katex",
    "html",
    "live.site",
    "policy",
    "previews",
    "glossary",
    "incremental",
    "pdf",
    "benchmarks",
    "one_core",
    "certificate",
    "citation",
    "teaching",
    "logo",
    "links",
)


def setup(app) -> dict:
    """Register every part."""
    for name in PARTS:
        import_module(f"{__name__}.{name}").connect(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
