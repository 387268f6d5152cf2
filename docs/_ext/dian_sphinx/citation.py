"""The directive ``citation``: CITATION.cff as BibTeX, so that both say the same.

Until something is released the year is that of the licence, and the address is that of
the site, if it is hosted.
"""

import re
from pathlib import Path

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Citation(SphinxDirective):
    """The entry for the whole report."""

    def run(self) -> list[nodes.Node]:
        """Return the entry as a block of code."""
        root = Path(self.env.app.confdir)
        for name in ("CITATION.cff", "LICENSE"):
            self.env.note_dependency(str(root / name))
        known = {"date-released": licensed((root / "LICENSE").read_text("utf-8"))}
        if address := self.config.html_baseurl:
            known["url"] = address
        cff = yaml.safe_load((root / "CITATION.cff").read_text("utf-8"))
        text = bibtex(known | cff)
        return [nodes.literal_block(text, text, language="bibtex")]


def bibtex(cff: dict) -> str:
    """Write what a file in the citation file format says as an entry of BibTeX.

    It is of the type ``misc``: the BibTeX of old knows no software.

    >>> cff = {"title": "T", "version": "1", "authors": [{"name": "The authors"}]}
    >>> print(bibtex(cff))
    @misc{t,
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
    return "\n".join([f"@misc{{{key},", *lines, "}"])


def licensed(text: str) -> str:
    r"""Return the year of a licence.

    >>> licensed("MIT License\n\nCopyright (c) 2026 The authors")
    '2026'
    """
    return re.search(r"Copyright \(c\) (\d{4})", text)[1]


def _author(author: dict) -> str:
    if "name" in author:
        return f"{{{author['name']}}}"
    return f"{author['family-names']}, {author['given-names']}"


def connect(app: Sphinx) -> None:
    """Register the directive."""
    app.add_directive("citation", Citation)
