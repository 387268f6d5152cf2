"""The evaluation of recorded weights: every number again, and that it resumes."""

import math
from dataclasses import asdict, replace

import pytest
import torch
from torch.nn.utils import parameters_to_vector

from dian.diffusion import sample_metrics
from dian.diffusion.likelihood import total_bits, variational_bound
from dian.diffusion.pixels import signed, unit
from dian.diffusion.sampling import Denoiser
from dian.diffusion.schedule import linear_schedule
from dian.diffusion.unet import UNet
from dian.errors import DianError
from dian.experiments.diffusion import (
    ddpm_evaluation,
    evaluation,
    objective,
    paired_evaluation,
)
from dian.experiments.diffusion.distances import METRICS
from dian.experiments.diffusion.evaluation import Evaluator
from dian.experiments.diffusion.paired_evaluation import Data, Model, Settings
from dian.experiments.diffusion.set_comparison import search_neighbors
from dian.runs.checkpoint import Checkpoint
from dian.runs.experiment import Job, Outcome

N = 8
SETTINGS = Settings(
    "ddpm-",
    "one two",
    ways="ddpm ddim-2",
    variants="beta_tilde no_clip raw",
    n=N,
    chunk=5,
    guidance="0 2",
    guided=11,
    guided_steps=3,
    references=3,
    draws=3,
    bound_images=3,
)
JOB = Job(dtype=torch.float64)


def network(seed):
    """A network whose prediction depends on everything, also where it begins at 0."""
    generator = torch.Generator().manual_seed(seed)
    unet = UNet("tiny", num_classes=10, generator=generator).requires_grad_(False)
    for weight in unet.parameters():
        weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return unet


def model(seed):
    """A model of two seeds, with and without averaging: four networks in all."""
    trained = objective.Settings(
        network="tiny", T=5, beta_1=0.1, beta_T=0.9, label_dropout=0.1
    )
    vectors = {
        name: torch.stack(
            [parameters_to_vector(network(s).parameters()) for s in seeds]
        )
        for name, seeds in (
            (objective.AVERAGED, (seed, seed + 1)),
            (objective.RAW, (seed + 2, seed + 3)),
        )
    }
    return Model(trained, network(seed).state_dict(), vectors)


@pytest.fixture(scope="module")
def data():
    shared = evaluation.read(True)
    few = shared._replace(train=shared.train[:60], test=shared.test[:16])
    return Data(few, {"one": model(0), "two": model(10)})


@pytest.fixture(scope="module")
def outcome(data):
    return paired_evaluation.run(SETTINGS, data, JOB)


@pytest.fixture(scope="module")
def features(data):
    classifier = Evaluator(data.shared, torch.device("cpu"), torch.float64).network
    return lambda images: classifier.features(unit(images).double()).detach()


SETS = ("one/ddpm", "one/ddim-2", "one/beta_tilde", "one/no_clip", "one/raw")


def test_each_set_is_compared_with_real_images(data, outcome, features):
    Y = features(data.shared.test.images)
    for name in (*SETS, "two/ddpm", "two/ddim-2", "guided-0", "guided-2"):
        X = features(outcome.arrays[f"{name}/samples"])
        assert len(X) == (11 if "guided" in name else N)
        expected = [
            sample_metrics.frechet_distance(X, Y).item(),
            sample_metrics.mmd2_unbiased(X, Y).item(),
            *sample_metrics.precision_recall(X, Y[: len(X)]),
        ]
        found = [outcome.metrics[f"{name}/{metric}"] for metric in METRICS]
        assert found == pytest.approx(expected)
        count = outcome.arrays[f"{name}/classes"]
        imbalance = (count / count.sum() - 0.1).abs().sum().item() / 2
        assert outcome.metrics[f"{name}/imbalance"] == pytest.approx(imbalance)


def test_all_sets_are_different_and_begin_with_the_same_noise(data, outcome):
    sets = [outcome.arrays[f"{name}/samples"] for name in (*SETS, "two/ddpm")]
    for i, images in enumerate(sets):
        assert not any(torch.equal(images, other) for other in sets[:i])
    starts = {
        way: paired_evaluation._sampler(
            data.models[key], way, SETTINGS, range(5, 8), JOB
        )
        for key, way in (("one", "ddpm"), ("one", "ddim-2"), ("two", "raw"))
    }
    (x, _), *others = (next(sampler.parts(3)) for sampler in starts.values())
    assert all(torch.equal(x, other) for other, _ in others)
    # Each part and each seed has other noise.
    for part, job in ((range(3), JOB), (range(5, 8), Job(1, dtype=torch.float64))):
        other = paired_evaluation._sampler(
            data.models["one"], "ddpm", SETTINGS, part, job
        )
        assert not torch.equal(next(other.parts(3))[0], x)


@pytest.mark.parametrize(
    ("weights", "seed", "expected"),
    [
        (objective.AVERAGED, 0, 0),
        (objective.AVERAGED, 1, 1),
        (objective.RAW, 0, 2),
        (objective.RAW, 1, 3),
    ],
)
def test_each_seed_has_its_own_weights(data, weights, seed, expected):
    job = Job(seed, dtype=torch.float64)
    predict = paired_evaluation._network(data.models["one"], weights, job, "float32")
    x_t, t = torch.ones(2, 1, 28, 28).double(), torch.tensor([1, 5])
    torch.testing.assert_close(predict(x_t, t), network(expected).double()(x_t, t))


def test_a_record_without_weights_of_every_seed_holds_those_of_the_first(data):
    alone = data.models["one"]._replace(vectors={})
    x_t, t = torch.ones(2, 1, 28, 28).double(), torch.tensor([1, 5])
    predict = paired_evaluation._network(alone, objective.AVERAGED, JOB, "float32")
    torch.testing.assert_close(predict(x_t, t), network(0).double()(x_t, t))
    with pytest.raises(DianError, match="holds no weights/raw"):
        paired_evaluation._network(alone, objective.RAW, Job(), "float32")


def test_samples_are_made_in_bfloat16_and_the_bound_is_not(data):
    model, x_t = data.models["one"], torch.ones(1, 1, 28, 28)
    expected = network(0).to(memory_format=torch.channels_last)(x_t, 3)
    for precision, dtype, error in (
        ("float32", torch.float32, 1e-5),
        ("bfloat16", torch.float32, None),
        ("bfloat16", torch.float64, 1e-5),
    ):
        job = Job(dtype=dtype)
        predict = paired_evaluation._network(model, objective.AVERAGED, job, precision)
        found = predict(x_t.to(dtype), torch.tensor([3]))
        assert found.dtype == dtype
        apart = (found - expected).abs().max().item()
        assert apart < error if error else 1e-4 < apart < 0.1


def test_differences_are_from_the_first_way_or_the_first_model(outcome):
    m = outcome.metrics
    bases = dict.fromkeys(SETS, "one/ddpm")
    bases |= {"two/ddpm": "one/ddpm", "two/ddim-2": "one/ddim-2"}
    bases |= {"guided-0": "guided-0", "guided-2": "guided-0"}
    for name, base in bases.items():
        for metric in METRICS:
            path = f"{name}/{metric}"
            apart = m[path] - m[f"{base}/{metric}"]
            assert m[f"{path}_difference"] == pytest.approx(apart, abs=1e-12)
            assert m[f"{path}_error"] >= 0
            if name == base:
                assert m[f"{path}_difference_error"] == 0
    assert m["two/ddpm/frechet_error"] > 0
    assert m["two/ddpm/frechet_difference_error"] > 0


def test_real_images_are_compared_like_samples(data, outcome, features):
    train, Y = data.shared.train.images, features(data.shared.test.images)
    for name, n in (("real", N), ("real_guided", 11)):
        found = outcome.arrays[f"{name}/distances"]
        assert found.shape == (3, 4)
        for i, row in enumerate(found):
            X = features(train[i * n : (i + 1) * n])
            expected = sample_metrics.frechet_distance(X, Y).item()
            assert row[0].item() == pytest.approx(expected)
        assert outcome.metrics[f"{name}/recall"] == pytest.approx(
            found[:, 3].mean().item()
        )
        assert outcome.metrics[f"{name}/kernel_sd"] == pytest.approx(
            found[:, 1].std().item()
        )


def test_all_models_code_the_same_images_with_the_same_noise(data, outcome):
    bits = outcome.arrays["bits"]
    x = signed(data.shared.test.images[:3, None]).double()
    for row, seed in zip(bits, (0, 10), strict=True):
        bound = variational_bound(
            linear_schedule(5, 0.1, 0.9),
            Denoiser(network(seed).double()),
            x,
            generator=torch.Generator().manual_seed(0),
        )
        torch.testing.assert_close(row, total_bits(bound, 784))
    m, apart = outcome.metrics, bits[1] - bits[0]
    assert m["two/bits"] == pytest.approx(bits[1].mean().item())
    assert m["one/bits_error"] == pytest.approx(bits[0].std().item() / 3**0.5)
    assert m["two/bits_difference"] == pytest.approx(apart.mean().item())
    assert m["two/bits_difference_error"] == pytest.approx(apart.std().item() / 3**0.5)
    rate = outcome.arrays["rate"]
    assert rate.shape == outcome.arrays["distortion"].shape == (6,)
    assert rate[0].item() == pytest.approx(m["one/bits"], rel=1e-5)


def test_the_classes_of_guided_samples_take_turns(data, outcome):
    labels = torch.arange(11) % 10
    judge = Evaluator(data.shared, torch.device("cpu"), torch.float64).network
    with torch.no_grad():
        for name in ("guided-0", "guided-2"):
            images = unit(outcome.arrays[f"{name}/samples"]).double()
            p = (judge(images).argmax(1) == labels).double().mean().item()
            assert outcome.metrics[f"{name}/accuracy"] == pytest.approx(p)
            error = math.sqrt(p * (1 - p) / 11)
            assert outcome.metrics[f"{name}/accuracy_error"] == pytest.approx(error)
        images = unit(data.shared.test.images).double()
        right = judge(images).argmax(1) == data.shared.test.labels
    assert outcome.metrics["test/accuracy"] == right.double().mean().item()


def test_a_copy_of_a_training_image_is_the_closest(data):
    judge = Evaluator(data.shared, torch.device("cpu"), torch.float64)
    images = judge.test[:7].clone()
    images[4] = judge.train[33]
    found = Outcome()
    search_neighbors(judge, images, found)
    assert found.arrays["nearest/closest"][0] == 4
    assert found.arrays["nearest/index"][4] == 33
    assert torch.equal(found.arrays["nearest/closest_images"][0], judge.train[33])
    assert found.arrays["nearest/samples"][4] == 0
    others = [i for i in range(7) if i != 4]
    same = found.arrays["nearest/test"]
    assert torch.equal(found.arrays["nearest/samples"][others], same[:7][others])


class Interruption(Exception):
    """Somebody ends the process."""


@pytest.mark.parametrize("last", [1, 6, 14])
def test_an_interrupted_evaluation_computes_no_part_twice(
    data, outcome, tmp_path, last
):
    checkpoint = Checkpoint(tmp_path / "seed-0.checkpoint", {"seed": 0}, interval_s=0.0)

    def stop(seed, part):
        if part.number == last + 1:
            raise Interruption

    with pytest.raises(Interruption):
        paired_evaluation.run(
            SETTINGS, data, replace(JOB, report=stop, checkpoint=checkpoint)
        )
    parts = []
    job = replace(JOB, report=lambda seed, part: parts.append(part.number))
    resumed = paired_evaluation.run(SETTINGS, data, replace(job, checkpoint=checkpoint))
    assert parts[0] == last + 1
    assert len(parts) + last == 2 * (5 + 2) + 2 * 3 + 2 == parts[-1]
    assert resumed.metrics == outcome.metrics
    assert resumed.arrays.keys() == outcome.arrays.keys()
    for name, array in outcome.arrays.items():
        assert torch.equal(resumed.arrays[name], array)


def test_held_out_images_take_the_place_of_the_test_images(data):
    settings = replace(SETTINGS, models="one", ways="ddim-2", variants="", held_out=16)
    settings = replace(settings, guidance="")
    shared = data.shared
    swapped = shared._replace(train=shared.train[:-16], test=shared.train[-16:])
    without = shared._replace(test=shared.test[:0])
    alone = {"one": data.models["one"]}
    found = paired_evaluation.run(settings, Data(without, alone), JOB)
    plain = replace(settings, held_out=0)
    expected = paired_evaluation.run(plain, Data(swapped, alone), JOB)
    assert found.metrics == expected.metrics


def test_without_images_for_the_bound_there_is_none(data):
    settings = replace(SETTINGS, models="one", ways="ddim-2", variants="")
    settings = replace(settings, guidance="", bound_images=0)
    alone = {"one": data.models["one"]}
    found = paired_evaluation.run(settings, data._replace(models=alone), JOB)
    assert not any("bits" in name for name in found.metrics | found.arrays)
    assert all(map(math.isfinite, found.metrics.values()))


def test_without_ways_the_bound_is_all_that_is_computed(data, outcome):
    settings = replace(SETTINGS, models="one", ways="", variants="", guidance="")
    alone = {"one": data.models["one"]}
    found = paired_evaluation.run(settings, data._replace(models=alone), JOB)
    assert all("bits" in name for name in found.metrics)
    assert found.metrics["one/bits"] == outcome.metrics["one/bits"]
    assert {"bits", "rate", "distortion"} <= found.arrays.keys()


@pytest.mark.parametrize("name", paired_evaluation.EVALUATIONS)
def test_a_dry_run_and_a_replay_are_smaller_and_nothing_else(name, data):
    experiment = next(e for e in paired_evaluation.EXPERIMENTS if e.name == name)
    full = asdict(experiment.settings)
    replayed, few = paired_evaluation.smoke_settings(experiment.settings, data)
    size = {"n", "chunk", "references", "draws", "guided", "bound_images", "held_out"}
    for small in (asdict(experiment.quick), asdict(replayed)):
        assert {k for k in full if full[k] != small[k]} <= size | {"guided_steps"}
    assert len(few.shared.train) == 36
    assert all(model.settings.T == 5 for model in few.models.values())


def test_recorded_models_are_read_with_the_hashes_of_their_files():
    settings = replace(SETTINGS, prefix="ddpm-fashion-mnist-", models="small")
    (model,) = paired_evaluation.read_models(settings, True).models.values()
    assert (model.settings.network, model.settings.T) == ("small", 5)
    assert model.vectors == {}
    found = ddpm_evaluation.checksums(settings.records().values())
    assert "ddpm-fashion-mnist-small/weights.safetensors" in found
