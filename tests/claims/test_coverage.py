"""Each function of a recorded run is traced; one that nothing covers is an error."""

import pytest

from dian.claims import coverage
from dian.claims.coverage import Killers
from dian.errors import DianError
from dian.runs.experiment import Experiment

NAME = "rnn-fashion-mnist"


def test_a_function_that_nothing_covers_is_named_with_its_runs():
    good, bad = Killers(claims={"R5"}), Killers()
    found = {"one": {"f": good, "g": bad}, "two": {"g": bad, "h": Killers(tests={"t"})}}
    with pytest.raises(
        DianError, match=r"recorded runs; .*: g \(executed by one, two\)$"
    ):
        coverage.require_covered(found)
    coverage.require_covered({"one": {"f": good}})


def test_a_planted_function_without_a_check_is_found(monkeypatch):
    """What a run executes counts, whatever else is covered."""
    planted = "dian.rnn.recurrence.planted"
    real = coverage.killers()
    monkeypatch.setattr(coverage, "killers", lambda: real)
    monkeypatch.setattr(
        coverage,
        "executed",
        lambda names: {NAME: ["dian.rnn.recurrence.rnn_backward", planted]},
    )
    found = coverage.coverage([NAME])
    assert "R5" in found[NAME]["dian.rnn.recurrence.rnn_backward"].claims
    with pytest.raises(DianError, match=f": {planted} "):
        coverage.require_covered(found)


@pytest.mark.slow
def test_functions_of_a_replay(real_data):
    experiment = coverage.find(NAME)
    found = coverage._functions_of(experiment)
    assert {
        "dian.rnn.recurrence.rnn_backward",
        "dian.rnn.recurrence.ACTIVATIONS",
        "dian.rnn.recurrence._BackpropagationThroughTime.backward",
        "dian.training.loop.Training._step",
        "dian.training.metrics.confusion_matrix",
    } <= set(found)
    assert not any("check" in name for name in found)
    assert "dian.rnn.networks.StackedRNN.forward" not in found


def test_traces_are_kept_while_the_code_is_the_same(monkeypatch, tmp_path):
    traced, file = [], tmp_path / "coverage.json"

    def spread(call, items: list[Experiment], jobs):
        traced.extend(one.name for one in items)
        return [["f"] for _ in items]

    monkeypatch.setattr(coverage, "spread", spread)
    for _ in range(2):
        # A record of times has no run.
        assert coverage.executed([NAME, "benchmarks-cpu"], file) == {NAME: ["f"]}
    assert traced == [NAME]
    monkeypatch.setattr(coverage, "source_key", lambda module: {"other": "code"})
    coverage.executed([NAME], file)
    assert traced == [NAME, NAME]


def test_generic_mutants_count_while_they_exist(monkeypatch):
    function = "dian.training.schedules.cosine"
    mutant = next(m for m in coverage.generic_mutants("dian.training.schedules")
                  if m.function == "cosine")  # fmt: skip
    known = {str(mutant): "a test", f"{function}: x -> y": "another"}
    monkeypatch.setattr(coverage, "known_killers", lambda: known)
    assert coverage.killers()[function].tests == {"a test"}
