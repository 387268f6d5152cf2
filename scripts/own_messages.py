#!/usr/bin/env python3
"""Write the messages that are on no page of their own, as templates of catalogues.

``python scripts/own_messages.py build/gettext`` writes those of the extensions
(``dian.pot``), of the scripts (``scripts.pot``), and the titles and statements of the
claims (``claims.pot``), which a build of the site keeps in ``build/claims.json``.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import write_po

from dian.claims import KINDS

ROOT = Path(__file__).parents[1]
EXTENSIONS = ROOT / "docs/_ext/dian_sphinx"
STATIC = ROOT / "docs/_static"
CLAIMS = ROOT / "build/claims.json"
KEYWORDS = dict.fromkeys(("tr", "mark", "woven"))
"""Functions whose first argument is a message."""


def of_code(folder: Path, method: str, pattern: str) -> Iterator[str]:
    """Find the messages of the programs in a folder."""
    found = extract_from_dir(
        folder, method_map=[(pattern, method)], keywords=KEYWORDS, comment_tags=()
    )
    for _, _, message, _, _ in sorted(found, key=lambda one: one[:2]):
        yield message


def of_claims(file: Path) -> Iterator[str]:
    """Find the kinds of checks, and the title and the statement of each claim."""
    yield from KINDS.values()
    for entry in json.loads(file.read_text("utf-8")).values():
        for claim in entry["reports"]:
            yield from (claim["title"], claim["statement"])


def write(file: Path, messages: Iterator[str]) -> int:
    """Write a template, and return how many messages it has."""
    catalogue = Catalog(project="Dian", copyright_holder="The developers of Dian")
    for message in messages:
        catalogue.add(message)
    with file.open("wb") as target:
        write_po(target, catalogue, width=0, omit_header=False)
    return len(catalogue)


def collected() -> dict[str, Iterator[str]]:
    """Find the messages of each catalogue; those of claims only after a build."""
    return {
        "dian": of_code(EXTENSIONS, "python", "**.py"),
        "scripts": of_code(STATIC, "javascript", "**.js"),
    } | ({"claims": of_claims(CLAIMS)} if CLAIMS.is_file() else {})


def main() -> int:
    """Write the three templates."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, messages in collected().items():
        print(f"{name}: {write(folder / f'{name}.pot', messages)} messages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
