"""A numbered equation is verified, and the page says by which claim."""

import json
import re
import subprocess

import pytest

from dian_sphinx import claims

REPORT = {
    "id": "R1",
    "chapter": "one",
    "title": "Two and two",
    "statement": "They make four.",
    "equations": ["eq-two"],
    "kinds": "S E",
    "tolerance": 1e-10,
    "source": "Peano, 1889",
    "assumptions": "none",
    "file": "dian/claims/one.py",
    "code": "def two():\n    return 0.0\n",
    "residual": 2.5e-16,
    "error": None,
    "passed": True,
    "mutants": [
        {"what": "five", "old": "2 | 2", "new": "5", "caught": True, "by": "residual 1"}
    ],
}
SETTINGS = {
    "html_theme": "basic",
    "html_math_renderer": "mathjax",
    "nb_execution_mode": "off",
    "master_doc": "page",
    "myst_enable_extensions": {"colon_fence"},
    "nitpicky": True,
    "numfig": True,
    "math_numfig": True,
    "numfig_secnum_depth": 0,
}
ALL = "# Verification\n\nAll.\n\n```{claims}\n```\n"
CHAPTER = "# Claims of one chapter\n\n```{claims} rnn\n```\n"


def equation(label):
    return f"```{{math}}\n:label: {label}\n2 + 2 = 4\n```\n"


@pytest.fixture
def build(tmp_path, monkeypatch, sphinx_build, extension_of):
    """Build a page and the ledger with these claims; return warnings and pages."""
    (tmp_path / "docs").mkdir()

    def build(text, *reports):
        kept = {"one": list(reports)}
        monkeypatch.setattr(claims.kept_results, "read", lambda file: kept)
        monkeypatch.setattr(claims.kept_results, "chapter_keys", lambda: {"one": "key"})
        toctree = "```{toctree}\nverification\nrnn-claims\n```\n"
        (tmp_path / "docs" / "page.md").write_text(f"# Page\n\n{text}\n\n{toctree}")
        (tmp_path / "docs" / "verification.md").write_text(ALL)
        (tmp_path / "docs" / "rnn-claims.md").write_text(CHAPTER)
        built = tmp_path / "built"
        extensions = ["myst_nb", "sphinx_design", extension_of("equations", "claims")]
        settings = SETTINGS | {"extensions": extensions}
        warnings = sphinx_build(tmp_path / "docs", built, settings)
        return warnings, {p.stem: p.read_text("utf-8") for p in built.glob("*.html")}

    return build


def test_a_badge_under_the_equation_links_to_its_claim(build):
    warnings, pages = build(equation("eq-two"), REPORT)
    assert warnings == ""
    badge = re.search(r'<p class="claim-badge">(.*?)</p>', pages["page"], re.S)[1]
    assert 'href="rnn-claims.html#claim-r1"' in badge
    assert re.sub("<[^>]+>", "", badge).strip() == "✓ R1"
    assert pages["page"].index("2 + 2 = 4") < pages["page"].index(badge)
    assert 'id="claim-r1"' in pages["rnn-claims"]


def test_the_page_of_a_chapter_has_the_equation_and_the_check_of_each_claim(build):
    _, pages = build(equation("def-four") + equation("eq-two"), REPORT)
    text = {name: re.sub(r"<[^>]+>", "", page) for name, page in pages.items()}
    assert "Equation (2):" in text["rnn-claims"]
    assert 'href="page.html#equation-eq-two"' in pages["rnn-claims"]
    assert "2 + 2 = 4" in text["rnn-claims"]
    for told in ("Peano, 1889", "They make four.", "five", "2 | 2", "def two():"):
        assert told in text["rnn-claims"]
    assert "residual 1" in text["rnn-claims"]


def test_the_table_counts_claims_and_mutants(build):
    _, pages = build(equation("eq-two") + equation("def-four"), REPORT)
    page = re.sub(r"<[^>]+>", "", pages["verification"])
    assert "1 of 1 claims hold, and 1 of 1 mutants are detected." in page
    assert "definitions is 1." in page
    assert 'href="page.html#equation-eq-two"' in pages["verification"]


def test_a_failed_claim_is_never_shown_as_passed(build):
    failed = REPORT | {"passed": False, "residual": 1.0, "error": "wrong"}
    _, pages = build(equation("eq-two"), failed)
    for page in pages.values():
        assert "✓" not in page
        assert "R1 holds" not in page
    assert "✗ R1 does not hold" in pages["page"]
    assert "0 of 1 claims hold" in re.sub(r"<[^>]+>", "", pages["verification"])


def test_a_definition_has_no_badge(build):
    warnings, pages = build(equation("def-four") + equation("eq-two"), REPORT)
    assert warnings == ""
    assert pages["page"].count("claim-badge") == 1


def test_an_equation_without_a_claim_is_a_warning_that_names_it(build):
    warnings, _ = build(equation("eq-two") + equation("eq-three"), REPORT)
    assert "equation 'eq-three' has no claim" in warnings
    assert "page.md" in warnings
    assert "eq-two" not in warnings


def test_a_claim_without_an_equation_is_a_warning_that_names_both(build):
    warnings, _ = build("No equation.", REPORT)
    assert "claim R1 verifies equation 'eq-two', which is on no page" in warnings


def test_an_equation_without_a_number_needs_no_claim(build):
    warnings, pages = build("```{math}\n1 = 1\n```\n" + equation("eq-two"), REPORT)
    assert warnings == ""
    assert pages["page"].count("claim-badge") == 1


def test_claims_that_do_not_hold_stop_the_build_by_name(monkeypatch):
    def failing(command, **_):
        said = "dian: claims that do not hold: R5 (residual 4.2e+01)\n"
        return subprocess.CompletedProcess(command, 1, "", said)

    monkeypatch.setattr(claims.subprocess, "run", failing)
    monkeypatch.setattr(claims.kept_results, "read", lambda file: {})
    app = type("App", (), {"confdir": "."})()
    with pytest.raises(SystemExit, match=r"do not hold: R5 \(residual"):
        claims.verify_all(app)


def test_the_build_writes_which_label_each_number_stands_for(build, tmp_path):
    build(equation("def-four") + equation("eq-two"), REPORT)
    labels = json.loads((tmp_path / "docs/build/equations.json").read_text())
    assert labels == {"1": "def-four", "2": "eq-two"}
