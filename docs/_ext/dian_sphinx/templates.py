"""The templates of *Check your own implementation* in the language of the edition."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from dian.check import template as templates
from dian_sphinx.editions import is_source

PAGE = "contracts"


def translate(app: Sphinx, doctree: nodes.document) -> None:
    """Show the template of each task in the language of an edition."""
    env, language = app.env, app.config.language
    if is_source(app.config) or env.current_document.docname != PAGE:
        return
    env.note_dependency(str(templates.table(language)))
    left = {templates.template(task).rstrip(): task for task in templates.TASKS}
    for block in doctree.findall(nodes.literal_block):
        if task := left.pop(block.astext().rstrip(), None):
            block.rawsource = templates.template(task, language).rstrip()
            block.children = [nodes.Text(block.rawsource)]
            title, _ = templates.TASKS[task]
            [heading] = block.parent.findall(nodes.rubric)
            heading.children = [
                nodes.Text(f"{task} {templates.words(language)[title]}")
            ]
    if left:
        raise ExtensionError(f"{PAGE}: no template of {', '.join(left.values())}")


def connect(app: Sphinx) -> None:
    """Change the page once it is read."""
    app.connect("doctree-read", translate)
