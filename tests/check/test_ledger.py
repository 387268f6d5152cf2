"""Every mutant of code that a contract runs is one of its diagnoses."""

import pytest

from dian.check import diagnosis
from dian.check.registry import KINDS, find
from dian.claims import verify


@pytest.fixture(scope="module")
def claims():
    return verify.claims().values()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_file_of_claims_is_left_out(kind, claims):
    contract = find(kind)
    executed = diagnosis.executed(contract)
    missing = set()
    for claim in claims:
        for mutant in claim.mutants:
            name = diagnosis.module_of(mutant, claim)
            ours = not name.startswith("dian.claims")
            if ours and diagnosis.runs(name, mutant.at, executed, tables=False):
                missing.add(verify.chapter(claim))
    assert missing <= set(contract.ledger)
