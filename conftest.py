"""Run the Python of the pages: doctests, and blocks that are marked ``python``."""

from sybil import Sybil

# The Markdown parser of code blocks and not MyST's: that one also runs {code-cell}.
from sybil.parsers.markdown import PythonCodeBlockParser
from sybil.parsers.myst import DocTestDirectiveParser

pytest_collect_file = Sybil(
    parsers=[DocTestDirectiveParser(), PythonCodeBlockParser()],
    patterns=["*.md"],
    path="docs",
).pytest()
