"""The four objectives of a diffusion model: what they change, and what is recorded."""

from dataclasses import asdict, replace

import pytest
import torch

from dian.experiments.diffusion import ddpm, evaluation, objective
from dian.runs.checkpoint import Checkpoint
from dian.runs.experiment import Job

EXPERIMENTS = {e.name: e for e in objective.EXPERIMENTS}
REFERENCE = EXPERIMENTS["ddpm-objective-epsilon-simple"].settings


@pytest.fixture(scope="module")
def few():
    return ddpm.smoke_settings(REFERENCE, evaluation.read(True))[1]


def tiny(settings):
    small = ddpm.smoke_settings(settings, evaluation.read(True))[0]
    return replace(small, network="tiny", precision="float32")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_objective_alone_differs_and_the_budget_is_the_same(name):
    settings, reference = asdict(EXPERIMENTS[name].settings), asdict(REFERENCE)
    changed = {key for key in settings if settings[key] != reference[key]}
    assert changed <= {"target", "weighting", "keep_raw"}
    _, target, weighting = name.removeprefix("ddpm-").split("-")
    assert (settings["target"], settings["weighting"]) == (target, weighting)
    assert not settings["flips"]
    assert EXPERIMENTS[name].n_seed == 3
    quick = asdict(EXPERIMENTS[name].quick)
    assert (quick["target"], quick["weighting"]) == (target, weighting)
    assert quick["epochs"] < settings["epochs"]


def test_the_training_is_that_of_the_other_experiments(few):
    settings = tiny(REFERENCE)
    plain = ddpm.Settings(
        **{k: v for k, v in asdict(settings).items() if k != "keep_raw"}
    )
    found, expected = objective.run(settings, few, Job()), ddpm.run(plain, few, Job())
    assert found.losses == expected.losses
    assert found.metrics == expected.metrics


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_weights_of_each_seed_are_recorded_with_and_without_averaging(few, dtype):
    settings = tiny(REFERENCE)
    outcome = objective.run(settings, few, Job(seed=1, dtype=dtype))
    averaged, raw = (outcome.arrays[k] for k in (objective.AVERAGED, objective.RAW))
    network = objective.build_unet(settings)
    n = sum(p.numel() for p in network.parameters())
    assert averaged.shape == raw.shape == (n,)
    assert averaged.dtype == raw.dtype == torch.float16
    names = [name for name, _ in network.named_parameters()]
    expected = torch.cat([outcome.weights[name].flatten() for name in names])
    assert torch.equal(averaged, expected.half())
    assert not torch.equal(raw, averaged)
    # Without averaging, both are the same.
    other = objective.run(replace(settings, ema=0.0), few, Job(seed=1, dtype=dtype))
    assert torch.equal(other.arrays[objective.RAW], other.arrays[objective.AVERAGED])
    assert torch.equal(other.arrays[objective.RAW], raw)
    without = objective.run(replace(settings, keep_raw=False), few, Job(seed=1))
    assert objective.RAW not in without.arrays


class Interruption(Exception):
    """Somebody ends the process."""


def test_an_interrupted_run_ends_with_the_same_weights(few, tmp_path):
    settings = tiny(REFERENCE)
    whole = objective.run(settings, few, Job())
    checkpoint = Checkpoint(tmp_path / "seed-0.checkpoint", {"seed": 0}, interval_s=0.0)

    def stop(seed, step):
        if step.number == 4:
            raise Interruption

    with pytest.raises(Interruption):
        objective.run(settings, few, Job(report=stop, checkpoint=checkpoint))
    resumed = objective.run(settings, few, Job(checkpoint=checkpoint))
    for name in (objective.AVERAGED, objective.RAW):
        assert torch.equal(resumed.arrays[name], whole.arrays[name])
