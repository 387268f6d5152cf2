"""The certificate on its page: numbers from the record, and every survivor's reason."""

import re
from datetime import UTC, datetime

import pytest

from dian.claims import certificate
from dian.claims.generic_mutants import generic_mutants
from dian.claims.survival import Outcome
from dian_sphinx import records

PAGE = "```{certificate}\n```"
MUTANTS = generic_mutants("dian.training.schedules")[:4]
SURVIVOR = MUTANTS[3]


@pytest.fixture
def site(site, monkeypatch, extension_of):
    extension = extension_of("records", "provenance", "certificate", "katex")
    site.settings["extensions"] = ["myst_nb", "sphinx_design", extension]
    site.settings["myst_enable_extensions"] = {"colon_fence", "dollarmath"}
    return site


@pytest.fixture
def recorded(site, monkeypatch):
    outcomes = [Outcome("R17", by_claim=True, claims_apply=True)] * 3
    outcomes.append(Outcome(None, by_claim=False, claims_apply=True))
    found = dict(zip(MUTANTS, outcomes, strict=True))
    known = {str(SURVIVOR): "The two are **equal**."}
    monkeypatch.setattr(certificate, "reasons", lambda: known)
    certificate.write(found, datetime.now(UTC), site.records, "abc")
    records.read.cache_clear()
    yield
    records.read.cache_clear()


def test_the_figures_are_read_from_the_record(recorded, site):
    assert site.build(PAGE) == ""
    text = re.sub(r"<[^>]*>", "", site.html)
    assert "75.0% of 4 generic mutants are killed: 3 by a claim, 0 by a test" in text
    assert "claims alone kill 75.0%" in text
    (row,) = re.findall(r"<tr[^>]*>(?:(?!</tr>).)*training\.schedules.*?</tr>",
                        site.html, re.DOTALL)  # fmt: skip
    cells = re.findall(r"<td.*?>(.*?)</td>", row, re.DOTALL)
    found = [re.sub(r"<[^>]*>", "", cell).strip() for cell in cells]
    assert found[1:] == ["4", "3", "0", "1", "75.0%", "75.0%"]
    assert 'class="provenance"' in site.html


def test_survivors_are_listed_with_their_reasons(recorded, site):
    site.build(PAGE)
    text = re.sub(r"<[^>]*>", "", site.html)
    assert "Mutants of dian.training.schedules that survive" in text
    assert SURVIVOR.function in text
    assert "<strong>equal</strong>" in site.html


def test_without_a_record_the_page_says_so(site):
    assert site.build(PAGE) == ""
    assert "no certificate" in site.html
