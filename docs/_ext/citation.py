"""The directive ``citation``: CITATION.cff as BibTeX, so that both say the same."""

from pathlib import Path

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Citation(SphinxDirective):
    """The entry for the whole report."""

    def run(self) -> list[nodes.Node]:
        """Return the entry as a block of code."""
        file = Path(self.env.app.confdir, "CITATION.cff")
        self.env.note_dependency(str(file))
        text = bibtex(yaml.safe_load(file.read_text("utf-8")))
        return [nodes.literal_block(text, text, language="bibtex")]


def bibtex(cff: dict) -> str:
    """Write what a file in the citation file format says as an entry of BibTeX.

    >>> cff = {"title": "T", "version": "1", "authors": [{"name": "The authors"}]}
    >>> print(bibtex(cff))
    @software{t,
      author = {{The authors}},
      title = {{T}},
      version = {1},
    }
    """
    fields = {
        "author": " and ".join(map(_author, cff["authors"])),
        # Braces keep BibTeX from writing a name in small letters.
        "title": f"{{{cff['title']}}}",
        "version": cff["version"],
        "year": str(cff.get("date-released", ""))[:4],
        "doi": cff.get("doi"),
        "url": cff.get("url") or cff.get("repository-code"),
    }
    key = cff["title"].split(":")[0].lower()
    lines = [f"  {name} = {{{text}}}," for name, text in fields.items() if text]
    return "\n".join([f"@software{{{key},", *lines, "}"])


def _author(author: dict) -> str:
    if "name" in author:
        return f"{{{author['name']}}}"
    return f"{author['family-names']}, {author['given-names']}"


def setup(app: Sphinx) -> dict:
    """Register the directive."""
    app.add_directive("citation", Citation)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
