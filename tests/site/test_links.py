"""Links that lead out: of a page to its source, of a citation to the paper."""

import re
import runpy
import subprocess
from pathlib import Path

import pytest

from dian_sphinx import links

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "extensions": ["myst_nb", "sphinxcontrib.bibtex"],
    "html_theme": "basic",
    "nb_execution_mode": "off",
    "master_doc": "index",
    "bibtex_bibfiles": ["refs.bib"],
    "bibtex_default_style": "unsrt",
}
BIB = """
@misc{a, author = {A. Author}, title = {One}, year = 2017,
  eprint = {1708.07747}, archiveprefix = {arXiv}}
@article{b, author = {B. Author}, title = {Two}, journal = {J}, year = 2018,
  doi = {10.1000/x(1)y}}
@book{c, author = {C. Author}, title = {Three}, publisher = {P}, year = 1999}
"""
GALLERY = """
One
===

**Source.** A, 2017 (arXiv:1708.07747), and B (arXiv:2006.11239). ``arXiv:1111.22222``

.. container:: sphx-glr-footer

    .. container:: sphx-glr-download sphx-glr-download-jupyter

      Download
"""


@pytest.fixture
def site(tmp_path, sphinx_build, extension_of):
    """Build a page that cites, and a gallery page, and return their HTML."""

    def build(**settings):
        folder = tmp_path / "docs/gallery/1_rnn"
        folder.mkdir(parents=True)
        source = tmp_path / "docs"
        (folder / "plot_1.rst").write_text(GALLERY)
        (source / "refs.bib").write_text(BIB)
        (source / "index.md").write_text(
            "# Top\n\nSee {cite:p}`a,b` and {cite:t}`c`.\n\n"
            "```{toctree}\nreferences\ngallery/1_rnn/plot_1\n```\n"
        )
        (source / "references.md").write_text("# References\n\n```{bibliography}\n```")
        ours = [*SETTINGS["extensions"], extension_of("links")]
        built = tmp_path / "built"
        said = sphinx_build(source, built, SETTINGS | settings | {"extensions": ours})
        assert said == ""
        return {page.stem: page.read_text("utf-8") for page in built.rglob("*.html")}

    return build


def test_a_citation_has_a_link_to_the_paper(site):
    page = site()["index"]
    papers = re.findall('<a class="paper" href="([^"]*)" aria-label="([^"]*)"', page)
    assert [address for address, _ in papers] == [
        "https://arxiv.org/abs/1708.07747",
        "https://doi.org/10.1000/x(1)y",
    ]
    assert all(label.startswith("Paper: ") for _, label in papers)
    assert "One" in papers[0][1]


def test_an_arxiv_number_in_the_text_is_a_link(site):
    page = site()["plot_1"]
    found = re.findall(r'href="https://arxiv.org/abs/([\d.]+)">arXiv:\1</a>', page)
    assert found == ["1708.07747", "2006.11239"]  # not the one in code


def test_with_a_repository_a_gallery_page_opens_as_a_notebook(site):
    page = site(repository="https://github.com/a/b")["plot_1"]
    assert "colab.research.google.com/github/a/b/blob/notebooks/1_rnn/plot_1.ip" in page
    assert "mybinder.org/v2/gh/a/b/notebooks" in page


def test_without_a_repository_nothing_leads_there(site):
    pages = site()
    assert not re.search("colab|mybinder", pages["plot_1"] + pages["index"])


@pytest.mark.parametrize("host", ["github.com", "gitlab.com"])
def test_the_sources_of_pages_are_files(host):
    names = [*ROOT.glob("docs/*.md"), *ROOT.glob("docs/verification/*.md")]
    pages = [path.relative_to(ROOT / "docs").with_suffix("") for path in names]
    pages += [p.relative_to(ROOT).with_suffix("") for p in ROOT.glob("gallery/*/*.py")]
    for page in pages:
        source = links.source_of(ROOT, page.as_posix())
        assert (ROOT / source).is_file()
        listed = dict(links.page_links(f"https://{host}/a/b", "main", source, "A & B"))
        assert listed["Edit this page"].endswith(f"edit/main/{source}")
        assert listed["Report a problem"].endswith("=A%20%26%20B")
    assert links.source_of(ROOT, "api/dian.rnn") is None


def test_the_environment_names_the_repository(monkeypatch):
    monkeypatch.setenv("DIAN_REPOSITORY", "https://github.com/a/b/")
    conf = runpy.run_path(str(ROOT / "conf.py"))
    assert conf["repository"] == "https://github.com/a/b"
    monkeypatch.delenv("DIAN_REPOSITORY")
    assert runpy.run_path(str(ROOT / "conf.py"))["repository"] == ""


def test_the_branch_has_the_notebooks_and_what_they_need(tmp_path):
    gallery = tmp_path / "gallery/1_rnn"
    gallery.mkdir(parents=True)
    (gallery / "plot_1.ipynb").write_text("{}")
    (gallery / "plot_1.py").write_text("")
    remote = tmp_path / "remote.git"
    subprocess.run(["git", "init", "-q", "--bare", remote], check=True)
    script = ROOT / "scripts/notebook_branch.sh"
    address = "https://github.com/a/b"
    for _ in range(2):  # it replaces what is there
        command = ["sh", script, tmp_path / "gallery", remote, address, "notebooks"]
        subprocess.run(command, check=True, capture_output=True)
    show = ["git", "-C", remote, "ls-tree", "-r", "--name-only", "notebooks"]
    listed = subprocess.run(show, check=True, capture_output=True, text=True).stdout
    assert listed.split() == ["1_rnn/plot_1.ipynb", "requirements.txt"]
    show = ["git", "-C", remote, "show", "notebooks:requirements.txt"]
    needs = subprocess.run(show, check=True, capture_output=True, text=True).stdout
    assert needs == f"dian @ git+{address}\n"
