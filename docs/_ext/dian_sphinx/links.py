"""Links that lead out: the source of a page, issues, notebook services, papers.

``DIAN_REPOSITORY`` is the address of the repository; without it, pages have no such
links. Notebook services read notebooks from a branch of a repository on GitHub, which
``scripts/notebook_branch.sh`` writes; ``DIAN_NOTEBOOKS`` is its name.

Each citation has a second link, to the paper, and so has each arXiv number in the text.
"""

import re
from html import unescape
from pathlib import Path
from urllib.parse import quote, urlsplit

from docutils import nodes
from sphinx.application import Sphinx

from dian_sphinx.gallery_page import DOWNLOADS

EDIT = {"github.com": "edit", "gitlab.com": "-/edit"}
ISSUE = {
    "github.com": "issues/new?title={}",
    "gitlab.com": "-/issues/new?issue[title]={}",
}
COLAB = "https://colab.research.google.com/github/{path}/blob/{branch}/{notebook}"
BINDER = "https://mybinder.org/v2/gh/{path}/{branch}?urlpath={where}"
CITED = re.compile(
    r'<a class="reference internal" href="[^"]*references\.html#id\d+" '
    r'title="([^"]*)">[^<]*</a>'
)
FOUND_AT = (
    (re.compile(r"doi:(10\.\S+)"), "https://doi.org/{}"),
    (re.compile(r"arXiv:(\d{4}\.\d{4,5})"), "https://arxiv.org/abs/{}"),
    (re.compile(r"(?:URL: )?(https?://\S+)"), "{}"),
)
ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


# --- The repository -------------------------------------------------------------------


def source_of(root: Path, page: str) -> str | None:
    """Return the file of the repository from which a page is made.

    Examples
    --------
    >>> root = Path(__file__).parents[3]
    >>> source_of(root, "gallery/1_rnn/plot_1_forward")
    'gallery/1_rnn/plot_1_forward.py'
    >>> source_of(root, "genindex") is None
    True
    """
    chapter, last = page.rpartition("/")[::2]
    files = [f"docs/{page}.md"]
    if page.startswith("gallery/"):
        header = f"{chapter}/GALLERY_HEADER.rst"
        files = [header if last == "index" else f"{page}.py"]
    return next((file for file in files if (root / file).is_file()), None)


def page_links(
    repository: str, branch: str, source: str | None, title: str
) -> list[tuple[str, str]]:
    """Return the text and the address of each link of a page to the repository.

    Examples
    --------
    >>> links = page_links("https://github.com/a/b", "main", "docs/rnn.md", "RNNs")
    >>> [address.removeprefix("https://github.com/a/b") for _, address in links]
    ['', '/edit/main/docs/rnn.md', '/issues/new?title=RNNs']
    >>> page_links("https://example.org/b", "main", "docs/rnn.md", "RNNs")
    [('Repository', 'https://example.org/b')]
    """
    host = urlsplit(repository).netloc
    links = [("Repository", repository)]
    if host in EDIT and source:
        address = f"{repository}/{EDIT[host]}/{branch}/{quote(source)}"
        links.append(("Edit this page", address))
    if host in ISSUE:
        address = f"{repository}/{ISSUE[host].format(quote(title))}"
        links.append(("Report a problem", address))
    return links


def notebook_links(repository: str, branch: str, page: str) -> list[tuple[str, str]]:
    """Return the links that open a gallery page as a notebook, for GitHub.

    Examples
    --------
    >>> name = "gallery/1_rnn/plot_1_forward"
    >>> for _, address in notebook_links("https://github.com/a/b", "nb", name):
    ...     print(address.split("/", 3)[3])
    github/a/b/blob/nb/1_rnn/plot_1_forward.ipynb
    v2/gh/a/b/nb?urlpath=lab/tree/1_rnn/plot_1_forward.ipynb
    >>> notebook_links("https://example.org/b", "nb", name)
    []
    """
    parts = urlsplit(repository)
    if parts.netloc != "github.com":
        return []
    notebook = f"{page.removeprefix('gallery/')}.ipynb"
    path = parts.path.strip("/")
    place = {"path": path, "branch": branch, "notebook": notebook}
    return [
        ("Open in Colab", COLAB.format(**place)),
        ("Open in Binder", BINDER.format(where=f"lab/tree/{notebook}", **place)),
    ]


def add_page_links(app: Sphinx, pagename, templatename, context, doctree) -> None:
    """Hand the links of a page to the template."""
    if repository := app.config.repository:
        title = re.sub(r"<[^>]*>", "", unescape(context.get("title", "")))
        source = source_of(Path(app.confdir), pagename)
        links = page_links(repository, app.config.repository_branch, source, title)
        context["links_out"] = links


def add_notebook_links(app: Sphinx, doctree: nodes.document) -> None:
    """Put links to notebook services in front of the downloads of a gallery page."""
    links = notebook_links(
        app.config.repository, app.config.notebook_branch, app.env.docname
    )
    for box in list(doctree.findall(nodes.container)):
        if DOWNLOADS in box["classes"]:
            for text, address in reversed(links):
                link = nodes.reference("", text, refuri=address)
                box.insert(0, nodes.paragraph("", "", link))


# --- The papers -----------------------------------------------------------------------


def paper(reference: str) -> tuple[str, str] | None:
    """Return the title of a cited paper, and its address.

    Examples
    --------
    >>> paper("A. Author. A title. Some Journal, 1999. doi:10.1/xy.")
    ('A. Author. A title. Some Journal, 1999.', 'https://doi.org/10.1/xy')
    >>> paper("A. Author. A title. 2017. arXiv:1708.07747.")[1]
    'https://arxiv.org/abs/1708.07747'
    >>> paper("A. Author. A book. 1999.") is None
    True
    """
    for pattern, address in FOUND_AT:
        if found := pattern.search(reference):
            words = reference[: found.start()].strip()
            return words, address.format(found[1].rstrip("."))
    return None


def link_paper(citation: re.Match) -> str:
    """Return the HTML of a citation, followed by a link to the paper."""
    found = paper(unescape(citation[1]))
    if found is None:
        return citation[0]
    words = found[0].replace('"', "&quot;").replace("<", "&lt;")
    return (
        f'{citation[0]}<a class="paper" href="{found[1]}" '
        f'aria-label="Paper: {words}" title="Open the paper">↗</a>'
    )


def link_papers(app: Sphinx, pagename, templatename, context, doctree) -> None:
    """Link each citation of a page to its paper, too."""
    if app.builder.format == "html" and "body" in context:
        context["body"] = CITED.sub(link_paper, context["body"])


def link_arxiv(app: Sphinx, doctree: nodes.document) -> None:
    """Link each arXiv number in the text, as in the sources of gallery pages."""
    for text in list(doctree.findall(nodes.Text)):
        linked = isinstance(text.parent, nodes.reference | nodes.literal | nodes.title)
        code = isinstance(text.parent, nodes.FixedTextElement | nodes.raw)
        if linked or code or not ARXIV.search(text.astext()):
            continue
        parts, last = [], 0
        for found in ARXIV.finditer(text.astext()):
            address = f"https://arxiv.org/abs/{found[1]}"
            parts.append(nodes.Text(text.astext()[last : found.start()]))
            parts.append(nodes.reference("", found[0], refuri=address))
            last = found.end()
        parts.append(nodes.Text(text.astext()[last:]))
        text.parent.replace(text, [part for part in parts if part.astext()])


def connect(app: Sphinx) -> None:
    """Register the settings and what they add."""
    app.add_config_value("repository", "", "env", str)
    app.add_config_value("repository_branch", "main", "html", str)
    app.add_config_value("notebook_branch", "notebooks", "env", str)
    app.connect("doctree-read", link_arxiv)
    app.connect("doctree-read", add_notebook_links, priority=800)  # after gallery_page
    app.connect("html-page-context", add_page_links)
    app.connect("html-page-context", link_papers, priority=910)
