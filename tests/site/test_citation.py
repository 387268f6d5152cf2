"""What others need to cite the report, and what the report cites."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from pybtex.database import parse_file

from dian_sphinx.citation import bibtex, licensed

ROOT = Path(__file__).parents[2]
CFF = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
SETTINGS = (ROOT / "pyproject.toml").read_text("utf-8")
PROJECT = tomllib.loads(SETTINGS)["project"]
ENTRIES = parse_file(ROOT / "docs/references.bib").entries

# The keys of version 1.2.0 of the citation file format that we may use.
ALLOWED = {
    *("abstract", "authors", "cff-version", "contact", "date-released", "doi"),
    *("identifiers", "keywords", "license", "message", "references", "title"),
    *("repository-code", "type", "url", "version"),
}
# What has neither: proceedings that give no DOI, and a file of a repository.
WITHOUT = {
    "glorot2010understanding": "https://proceedings.mlr.press/",
    "gretton2012kernel": "https://jmlr.org/papers/",
    "zalando2017readme": "https://github.com/zalandoresearch/fashion-mnist",
    "bengio2003neural": "https://www.jmlr.org/",
    "jozefowicz2015empirical": "https://proceedings.mlr.press/",
}


def test_the_citation_has_what_its_format_asks_for():
    assert {"cff-version", "message", "title", "authors"} <= set(CFF) <= ALLOWED
    assert CFF["cff-version"] == "1.2.0"
    assert CFF["type"] in ("software", "dataset")
    for author in CFF["authors"]:
        assert set(author) >= {"name"} or set(author) >= {"family-names", "given-names"}


def test_the_citation_says_what_the_package_says():
    assert CFF["version"] == PROJECT["version"]
    assert CFF["license"] == PROJECT["license"]
    assert [a["name"] for a in CFF["authors"]] == [
        a["name"] for a in PROJECT["authors"]
    ]


def test_the_front_page_shows_the_citation_as_bibtex():
    assert "```{citation}\n```" in (ROOT / "docs/index.md").read_text("utf-8")
    entry = bibtex(CFF)
    for field in ("title", "version"):
        assert CFF[field] in entry
    assert entry.count("{") == entry.count("}")


def test_authors_with_two_names_and_a_date_are_written_out():
    person = {"family-names": "Noether", "given-names": "Emmy"}
    cff = {"title": "T", "version": "2", "authors": [person, {"name": "We"}]}
    entry = bibtex(cff | {"date-released": "2026-01-31", "doi": "10.1/x"})
    assert "author = {Noether, Emmy and {We}}," in entry
    assert "year = {2026}," in entry
    assert "doi = {10.1/x}," in entry
    assert entry.startswith("@misc{t,")


def test_without_a_release_the_licence_tells_the_year():
    year = licensed((ROOT / "LICENSE").read_text("utf-8"))
    assert re.fullmatch(r"20\d\d", year)
    assert f"year = {{{year}}}," in bibtex({"date-released": year} | CFF)


@pytest.mark.parametrize("key", ENTRIES)
def test_what_is_cited_can_be_found(key):
    fields = ENTRIES[key].fields
    if key in WITHOUT:
        assert "doi" not in fields
        assert "eprint" not in fields
        assert fields["url"].startswith(WITHOUT[key])
        return
    if "doi" in fields:
        assert re.fullmatch(r"10\.\d{4,}/\S+", fields["doi"])
    else:
        assert fields["archiveprefix"] == "arXiv"
        assert re.fullmatch(r"\d{4}\.\d{4,5}", fields["eprint"])


def test_what_is_in_the_bibliography_is_cited():
    pages = [*ROOT.glob("docs/*.md"), *ROOT.glob("gallery/**/*.py")]
    text = "".join(page.read_text("utf-8") for page in pages)
    cited = set(re.findall(r"\w+\d{4}\w+", text))
    assert set(ENTRIES) <= cited
