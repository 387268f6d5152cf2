#!/usr/bin/env python3
"""Write docs/contracts.md, the page with the contracts of ``dian check``."""

from pathlib import Path

from dian.check.template import contracts_page

PAGE = Path(__file__).parents[1] / "docs/contracts.md"

if __name__ == "__main__":
    PAGE.write_text(contracts_page(), encoding="utf-8")
