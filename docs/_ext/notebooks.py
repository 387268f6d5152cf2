"""The notebooks that the gallery offers: what only the site understands is written out.

Sphinx-gallery turns the text of a script into Markdown, but knows nothing of our role
``result`` and our directive ``provenance``.
"""

import json
import re
import zipfile
from pathlib import Path

from recorded import read
from results import written
from sphinx.application import Sphinx

RESULT = re.compile(r":result:`([^/`]+)/([^:`]+):?([^`]*)`")
PROVENANCE = re.compile(r"^\.\. provenance:: (\S+)$", re.MULTILINE)


def write_out(app: Sphinx) -> None:
    """Mend every notebook that was made, and the archive that it lies in."""
    gallery = Path(app.srcdir) / app.config.sphinx_gallery_conf["gallery_dirs"]
    for notebook in sorted(gallery.rglob("*.ipynb")):
        content = json.loads(notebook.read_text("utf-8"))
        before = json.dumps(content)
        for cell in content["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = [plain("".join(cell["source"]))]
        if json.dumps(content) != before:
            notebook.write_text(json.dumps(content, indent=1), "utf-8")
            archive = notebook.with_suffix(".zip")
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
                for part in (notebook.with_suffix(".py"), notebook):
                    file.write(part, part.relative_to(gallery))


def plain(text: str) -> str:
    """Replace roles and directives of ours by what they show."""

    def value(match: re.Match) -> str:
        name, key, form = match.groups()
        return written(read(name).value(key), form)

    text = RESULT.sub(value, text)
    return PROVENANCE.sub(lambda match: f"*{read(match[1]).provenance}*", text)


def setup(app: Sphinx) -> dict:
    """Come after the gallery has run its scripts, which is at priority 500."""
    app.connect("builder-inited", write_out, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
