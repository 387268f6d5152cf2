"""The directive ``layer``: the API of all modules of one layer of the library.

The layers are those that import-linter checks, read from pyproject.toml: a module that
has a place there has one on the API page too.
"""

import re
import tomllib
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

log = logging.getLogger(__name__)


class Layer(SphinxDirective):
    """A section for each module of the layer in which the named module is."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        settings = Path(self.env.srcdir).parent / "pyproject.toml"
        self.env.note_dependency(str(settings))
        for names in layers(settings.read_text("utf-8")):
            if self.arguments[0] in names:
                return [self.section(name) for name in names]
        place = self.get_location()
        log.warning("no layer with the module %s", self.arguments[0], location=place)
        return []

    def section(self, name: str) -> nodes.section:
        """Document a module under its name."""
        module = f"dian.{name}"
        title = nodes.title("", "", nodes.literal("", module))
        section = nodes.section("", title, names=[module])
        self.state.document.note_implicit_target(section)
        text = f"```{{eval-rst}}\n.. automodule:: {module}\n```"
        section += self.parse_text_to_nodes(text)
        return section


def layers(settings: str) -> list[list[str]]:
    r"""Read the layers of the library, the highest first.

    >>> layers('[tool.importlinter]\ncontracts = [{layers = ["top", "a | (b)"]}]')
    [['top'], ['a', 'b']]
    """
    contracts = tomllib.loads(settings)["tool"]["importlinter"]["contracts"]
    [listed] = [c["layers"] for c in contracts if "layers" in c]
    return [re.findall(r"\w+", layer) for layer in listed]


def setup(app: Sphinx) -> dict:
    """Register the directive."""
    app.add_directive("layer", Layer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
