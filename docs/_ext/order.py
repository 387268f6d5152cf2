"""The pages of the gallery stand behind their chapter, not behind each other.

Sphinx-gallery lists the chapters of the gallery on its first page. That list is left
out: ``docs/index.md`` puts each of them behind the chapter whose evidence it is, and so
do the links to the previous and to the next page.
"""

from sphinx.application import Sphinx

OVERVIEW = "gallery/index"  # cards of all pages


def drop_list(app: Sphinx, docname: str, source: list[str]) -> None:
    """Cut off what sphinx-gallery wrote below the cards."""
    if docname == OVERVIEW:
        source[0] = without_list(source[0])


def without_list(text: str) -> str:
    r"""Leave out every hidden table of contents.

    >>> without_list("Cards\n\n.. toctree::\n   :hidden:\n\n   /a/index\n   /b/index\n")
    'Cards\n\n'
    """
    kept, inside = [], False
    for line in text.splitlines(keepends=True):
        if line.startswith(".. toctree::"):
            inside = True
        elif line.strip() and not line.startswith(" "):
            inside = False
        if not inside:
            kept.append(line)
    return "".join(kept)


def setup(app: Sphinx) -> dict:
    """Change the page as it is read."""
    app.connect("source-read", drop_list)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
