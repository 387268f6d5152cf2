"""The table of well-known libraries is that of the record, and the record is fresh."""

import json
import re
from pathlib import Path

import pytest

import check_libraries as libraries

ROOT = Path(__file__).parents[2]
AGAIN = "run scripts/check_libraries.py"


@pytest.fixture(scope="module")
def record():
    return json.loads(libraries.RECORD.read_text("utf-8"))


def test_the_page_is_made_from_the_record(record):
    assert libraries.PAGE.read_text("utf-8") == libraries.page(record), AGAIN


def test_every_function_is_in_the_record(record):
    recorded = [(row["library"], row["function"], row["kind"]) for row in record]
    assert recorded == [tuple(one[:3]) for one in libraries.LIBRARIES], AGAIN
    assert set(libraries.WHY) <= {row["function"] for row in record}


def test_versions_are_those_that_are_installed_for_the_report(record):
    pinned = (ROOT / "constraints.txt").read_text("utf-8")
    versions = dict(re.findall(r"^([\w.-]+)==([\w.]+)", pinned, re.M))
    for row in record:
        assert row["version"] == versions[row["library"]], AGAIN


def test_well_known_libraries_are_right(record):
    assert {row["verdict"] for row in record} == {"right"}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("one", libraries.LIBRARIES, ids=lambda one: one[1])
def test_the_record_is_up_to_date(one, record):
    row = next(r for r in record if (r["library"], r["function"]) == tuple(one[:2]))
    assert libraries.outcome(*one) == row, AGAIN
