"""The diffusion experiments: training, evaluation, and that they resume."""

import math
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest
import torch

from dian.diffusion.pixels import signed, to_bytes, unit
from dian.diffusion.sampling import Denoiser
from dian.diffusion.schedule import linear_schedule
from dian.diffusion.unet import UNet
from dian.errors import DianError
from dian.experiments.diffusion import ddpm, evaluation, guided
from dian.experiments.diffusion.evaluation import Evaluator
from dian.experiments.diffusion.samplers import (
    Sampler,
    TrajectoryRecorder,
)
from dian.runs.checkpoint import Checkpoint
from dian.runs.experiment import Job
from dian.runs.record import load

CPU = torch.device("cpu")
NAMES = ddpm.EXPERIMENTS_BY_NAME
TINY = replace(
    ddpm.smoke_settings(ddpm.BASE, evaluation.read(True))[0],
    network="tiny",
    precision="float32",
)
CONDITIONAL = replace(
    ddpm.smoke_settings(ddpm.CONDITIONAL, evaluation.read(True))[0],
    network="tiny",
    guidance="0 2",
    precision="float32",
    held_out=4,
    batch_size=3,
)


@pytest.fixture(scope="module")
def few():
    """A handful of real images, and the networks that evaluate."""
    return ddpm.smoke_settings(TINY, evaluation.read(True))[1]


@pytest.fixture(scope="module")
def outcome(few):
    return ddpm.run(TINY, few, Job())


def test_every_method_is_evaluated_and_everything_is_kept(outcome):
    ways = ("all", "all-floor", "averaged", "floor", "raw", "beta_tilde", "no_clip")
    for way in (*ways, "ddim-2", "ddim-5"):
        for key in ("frechet", "kernel", "precision", "recall", "imbalance"):
            assert math.isfinite(outcome.metrics[f"{way}/{key}"])
    for variance in ("beta", "beta_tilde"):
        assert 1 < outcome.metrics[f"bits/{variance}"] < 30
        assert outcome.metrics[f"bits/{variance}_error"] > 0
    assert len(outcome.losses) == 2 * 3
    assert all(len(row) == TINY.epochs for row in outcome.series.values())
    assert outcome.weights.keys() == UNet("tiny").state_dict().keys()
    assert all(w.dtype == torch.float16 for w in outcome.weights.values())
    arrays = outcome.arrays
    assert arrays["samples"].shape == (8, 28, 28)
    assert arrays["samples"].dtype == torch.uint8
    assert arrays["progress"].shape == (2, 10, 28, 28)
    assert arrays["path/x"].shape == arrays["path/x_0"].shape == (5, 5, 28, 28)
    assert arrays["path/t"].tolist() == [5, 4, 3, 2, 1]
    assert arrays["between"].shape == (5, 9, 28, 28)
    assert arrays["rate"].shape == arrays["distortion"].shape == (TINY.T + 1,)
    # The last thing on the way is the sample itself.
    assert torch.equal(arrays["path/x"][-1][:5], arrays["samples"][:5])


def test_the_bound_is_the_rate_of_all_and_falls_to_the_prior(outcome):
    rate = outcome.arrays["rate"]
    assert rate[0].item() == pytest.approx(outcome.metrics["bits/beta"], rel=1e-5)
    assert rate[-1].item() == pytest.approx(outcome.metrics["bits/prior"], rel=1e-3)
    assert (rate.diff() < 0).all()
    assert outcome.arrays["distortion"][0] == 0


def test_a_seed_decides_everything(few, outcome):
    again = ddpm.run(TINY, few, Job())
    other = ddpm.run(replace(TINY, variants=False, ddim=""), few, Job(seed=1))
    assert again.losses == outcome.losses
    assert again.metrics == outcome.metrics
    assert again.losses != other.losses
    for name, w in outcome.weights.items():
        assert torch.equal(again.weights[name], w)


class Interruption(Exception):
    """Somebody ends the process."""


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", [TINY, CONDITIONAL], ids=["plain", "conditional"])
def test_an_interrupted_run_ends_with_the_same_bits(few, tmp_path, kind, precision):
    """Order, flips, noise, labels and steps, and the average of the weights."""
    settings = replace(kind, precision=precision, variants=False, ddim="")
    whole = ddpm.run(settings, few, Job())
    checkpoint = Checkpoint(tmp_path / "seed-0.checkpoint", {"seed": 0}, interval_s=0.0)

    def stop(seed, step):
        if step.number == 5:  # in the middle of the second epoch
            raise Interruption

    with pytest.raises(Interruption):
        ddpm.run(settings, few, Job(report=stop, checkpoint=checkpoint))
    steps = []
    job = Job(report=lambda seed, step: steps.append(step.number))
    job.checkpoint = checkpoint
    resumed = ddpm.run(settings, few, job)
    assert steps == [5, 6]
    assert resumed.losses == whole.losses
    assert resumed.metrics == whole.metrics
    assert resumed.series == whole.series
    for name in whole.arrays.keys() | resumed.arrays.keys():
        if not name.endswith("seconds"):
            assert torch.equal(resumed.arrays[name], whole.arrays[name])
    for name, w in whole.weights.items():
        assert torch.equal(resumed.weights[name], w)


def test_an_interrupted_evaluation_starts_again_without_training(
    few, tmp_path, monkeypatch, outcome
):
    checkpoint = Checkpoint(tmp_path / "seed-0.checkpoint", {"seed": 0}, interval_s=1e9)

    def stop(*_):
        raise Interruption

    with monkeypatch.context() as patched:
        patched.setattr(ddpm, "evaluate_all", stop)
        with pytest.raises(Interruption):
            ddpm.run(TINY, few, Job(checkpoint=checkpoint))
    again = Checkpoint(checkpoint.path, {"seed": 0}, interval_s=1e9)
    resumed = ddpm.run(TINY, few, Job(report=stop, checkpoint=again))
    assert resumed.metrics == outcome.metrics
    assert resumed.losses == outcome.losses


@pytest.mark.parametrize(
    "changed",
    [
        {"target": "mu"},
        {"weighting": "bound"},
        {"target": "mu", "weighting": "bound"},
        {"warm_up": 0},
        {"flips": False},
    ],
    ids=lambda changed: "-".join(changed),
)
def test_each_part_of_the_recipe_changes_the_training(few, changed, outcome):
    trial = replace(TINY, **changed, variants=False, ddim="")
    found = ddpm.run(trial, few, Job())
    assert all(map(math.isfinite, found.losses))
    assert found.losses != outcome.losses


def test_a_network_with_classes_learns_with_and_without_them(few):
    """The last images are held out; the test images have no part in it."""
    plain = replace(CONDITIONAL, label_dropout=1.0)
    found, other = ddpm.run(CONDITIONAL, few, Job()), ddpm.run(plain, few, Job())
    assert len(found.losses) == 2 * math.ceil(7 / 3)
    without_test = few._replace(test=few.test[:0])
    again = ddpm.run(CONDITIONAL, without_test, Job())
    assert again.losses == found.losses
    assert again.metrics == found.metrics
    for outcome in (found, other):
        table = outcome.weights["label.weight"]
        assert table.shape == (11, UNet("tiny").config.width * 4)
        for w in ("0", "2"):
            for key in ("frechet", "precision", "recall", "accuracy"):
                assert math.isfinite(outcome.metrics[f"guided-{w}/{key}"])
            assert outcome.arrays[f"guided-{w}/samples"].shape == (6, 28, 28)
        assert outcome.metrics["real/frechet"] < outcome.metrics["guided-0/frechet"]
        assert outcome.arrays["progress/epoch"].tolist() == [1, 2]
        assert outcome.arrays["progress/frechet"].isfinite().all()
    # All labels are dropped: only the embedding of the null class is trained.
    start = UNet("tiny", num_classes=10, generator=torch.Generator().manual_seed(0))
    kept = start.label.weight.half()
    assert torch.equal(other.weights["label.weight"][:10], kept[:10])
    assert not torch.equal(other.weights["label.weight"][10], kept[10])
    seen = few.train.labels[:7].unique()
    assert not torch.equal(found.weights["label.weight"][seen], kept[seen])


def test_a_sample_is_of_its_class_and_of_the_same_noise_at_every_weight():
    """With a model whose image is the class, whatever the noise."""
    schedule = linear_schedule(T=4, beta_start=0.1, beta_end=0.9)

    def model(x_t, t, y):
        shade = torch.where(y == 10, 0.0, y / 10 - 0.5)
        return shade[:, None, None, None].expand_as(x_t)

    sampler = Sampler(schedule, Denoiser(model, "x_0"), 3, 0, CPU, torch.float32)
    labels = torch.tensor([4, 0, 9, 9, 1, 2, 7])
    for w in (0.0, 1.0):
        found = guided.sample_classes(sampler, model, labels, w, steps=2)
        shade = (labels / 10 - 0.5) * (1 + w)
        expected = to_bytes(shade)[:, None, None].expand(7, 28, 28)
        assert torch.equal(found, expected)


def test_the_accuracy_is_that_of_the_classifier(few):
    judge = Evaluator(few, CPU, torch.float32)
    images = judge.train
    with torch.no_grad():
        labels = judge.network(unit(images)).argmax(1)
    assert guided.accuracy(judge, images, labels) == 1
    labels[:3] = (labels[:3] + 1) % 10
    assert guided.accuracy(judge, images, labels) == 1 - 3 / len(images)


def test_the_candidates_differ_in_the_network_and_its_epochs_alone():
    main = asdict(ddpm.CONDITIONAL)
    for network, epochs in ddpm.TRIALS.items():
        trial = asdict(NAMES[f"ddpm-conditional-trial-{network}"])
        changed = {key: trial[key] for key in main if trial[key] != main[key]}
        changed.setdefault("network", main["network"])
        assert changed.pop("network") == network
        assert changed.pop("epochs") == epochs
        assert changed.pop("held_out") == 10_000
        evaluated = {"samples", "others", "bound_images", "guidance"}
        assert changed.keys() == evaluated  # less


def test_a_dry_run_is_smaller_and_nothing_else():
    for experiment in ddpm.EXPERIMENTS:
        full, quick = asdict(experiment.settings), asdict(experiment.quick)
        changed = {key for key in full if full[key] != quick[key]}
        small = "network epochs batch_size warm_up T beta_1 beta_T ddim ema samples"
        small += " others bound_images progress held_out"
        assert changed <= {*small.split()}
        assert quick["samples"] < full["samples"]


def test_a_replay_is_in_float64_and_does_not_round_its_weights(few):
    settings = replace(TINY, precision="bfloat16", variants=False, ddim="")
    job = Job(dtype=torch.float64)
    outcome = ddpm.run(settings, few, job)
    assert all(w.dtype == torch.float64 for w in outcome.weights.values())
    exact = replace(settings, precision="float32")
    assert outcome.losses == ddpm.run(exact, few, job).losses


def test_the_first_loss_is_one_and_the_average_lags_behind(few, outcome):
    """A network that begins with 0 loses the variance of the noise."""
    assert outcome.losses[0] == pytest.approx(1, abs=0.1)
    frozen = ddpm.run(replace(TINY, ema=1 - 1e-9, variants=False, ddim=""), few, Job())
    assert not frozen.weights["last.weight"].any()  # as it started
    assert frozen.losses == outcome.losses


def test_images_between_two_begin_and_end_at_them(few):
    """With a model that is right, what is at the ends comes back."""
    schedule = linear_schedule(T=20, beta_start=1e-3, beta_end=0.3)
    x = few.test.signed()[:3, None]
    ends = torch.cat([x[0], x[1]])

    def model(x_t, t):  # the nearer of two images
        distance = torch.stack([(x_t[:, 0] - e).square().sum((1, 2)) for e in ends])
        return ends[distance.argmin(0)][:, None]

    sampler = Sampler(schedule, Denoiser(model, "x_0"), 4, 0, CPU, torch.float32)
    found = sampler.interpolate_pairs(x[:1], x[1:2], t=10, n=5)
    assert found.shape == (1, 5, 28, 28)
    for end, pixels in ((0, found[0, 0]), (1, found[0, -1])):
        torch.testing.assert_close(signed(pixels), x[end, 0], rtol=0, atol=1e-6)


def test_the_same_starts_for_every_way_and_every_size_of_a_part():
    def model(x_t, t):
        return torch.zeros_like(x_t)

    schedule = linear_schedule(T=3, beta_start=0.1, beta_end=0.5)
    starts, samplers = [], []
    for chunk, seed in [(5, 0), (5, 0), (5, 1)]:
        sampler = Sampler(schedule, Denoiser(model), chunk, seed, CPU, torch.float32)
        starts.append(torch.cat([x for x, _ in sampler.parts(7)]))
        samplers.append(sampler)
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    for found in (samplers[0].ddim(7, 2), samplers[0].ddpm(7)):
        assert found.shape == (7, 28, 28)
        assert found.dtype == torch.uint8


def test_judging_real_images_finds_them_real(few):
    judge = Evaluator(few, CPU, torch.float64)
    same = judge(judge.test)
    assert same["frechet"] == pytest.approx(0, abs=1e-6)
    assert same["precision"] == same["recall"] == 1.0
    distance, index = judge.neighbors(judge.train[3:6])
    assert index.tolist() == [3, 4, 5]
    assert not distance.any()
    assert judge.classes(judge.test).sum() == len(judge.test)


def test_a_trajectory_has_eleven_timesteps():
    at = TrajectoryRecorder(1000).at
    assert at == [1, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000]


def test_without_the_classifier_nothing_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "record_names", list)
    monkeypatch.setattr(evaluation, "load", partial(load, folder=tmp_path))
    monkeypatch.setattr(evaluation, "load_splits", lambda quick: ((), ()))
    with pytest.raises(DianError, match="run: python -m dian train feature-classifier"):
        evaluation.read(False)
    assert evaluation.checksums() == {}


def test_what_a_record_may_weigh():
    """Weights in half precision and the arrays, each below 15 MiB."""
    for settings in NAMES.values():
        network = UNet(settings.network)
        assert sum(p.numel() for p in network.parameters()) * 2 < 12 * 2**20
        assert max(settings.samples, 0) >= settings.others > 0
        assert np.prod([evaluation.KEPT, 28, 28]) < 2**20
