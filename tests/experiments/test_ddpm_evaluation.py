"""The evaluation of recorded diffusion models: every number again, by itself."""

import math
from dataclasses import replace

import pytest
import torch

from dian.diffusion import sample_metrics
from dian.diffusion.likelihood import total_bits, variational_bound
from dian.diffusion.pixels import signed, unit
from dian.diffusion.sampling import Denoiser
from dian.diffusion.schedule import linear_schedule
from dian.errors import DianError
from dian.experiments.diffusion import ddpm, ddpm_evaluation
from dian.experiments.diffusion.ddpm_evaluation import Settings
from dian.experiments.diffusion.distances import METRICS
from dian.runs.experiment import Job

FIRST, SECOND = "fashion-mnist-small", "conditional-long"
SETTINGS = Settings("ddpm-", f"{FIRST} {SECOND}", "ddpm ddim-3")
N = 8


@pytest.fixture(scope="module")
def small():
    """Eight samples of two recorded models, and a handful of real images."""
    data = ddpm_evaluation.read_models(SETTINGS, quick=True)
    return ddpm_evaluation.smoke_settings(SETTINGS, data)


@pytest.fixture(scope="module")
def outcome(small):
    return ddpm_evaluation.run(*small, Job(dtype=torch.float64))


@pytest.fixture(scope="module")
def features(small):
    network = ddpm_evaluation.Evaluator(
        small[1].shared, torch.device("cpu"), torch.float64
    ).network
    return lambda images: network.features(unit(images).double()).detach()


def test_each_set_is_compared_with_the_test_images_and_their_mirror_images(
    small, outcome, features
):
    shared, models = small[1]
    real, mirrored = features(shared.test.images), features(shared.test.images.flip(-1))
    both = torch.cat([real, mirrored])
    alternate = torch.stack(
        [(mirrored if i % 2 else real)[i] for i in range(len(real))]
    )
    for key, model in models.items():
        X = features(model.samples[:N])
        for target, Y, one in (("test", real, real), ("both", both, alternate)):
            expected = [
                sample_metrics.frechet_distance(X, Y).item(),
                sample_metrics.mmd2_unbiased(X, Y).item(),
                *sample_metrics.precision_recall(X, one[:N]),
            ]
            found = [outcome.metrics[f"{key}/{target}/{m}"] for m in METRICS]
            assert found == pytest.approx(expected)


def test_real_images_are_compared_like_samples(small, outcome, features):
    train, test = small[1].shared.train.images, small[1].shared.test.images
    mirrored = torch.stack(
        [image.flip(-1) if i % 2 else image for i, image in enumerate(train)]
    )
    for key, images in (("real", train), ("real_mirrored", mirrored)):
        found = outcome.arrays[f"{key}/test"]
        assert found.shape == (3, 4)
        for row, part in zip(found, images.split(N), strict=True):
            expected = sample_metrics.frechet_distance(features(part), features(test))
            assert row[0].item() == pytest.approx(expected.item())
        assert outcome.metrics[f"{key}/test/frechet"] == pytest.approx(
            found[:, 0].mean().item()
        )
        assert outcome.metrics[f"{key}/test/recall_sd"] == pytest.approx(
            found[:, 3].std().item()
        )


def test_differences_are_paired_with_the_first_set(outcome):
    m = outcome.metrics
    for metric in METRICS:
        for key, first in (
            (SECOND, FIRST),
            ("ddim-3", "ddpm"),
        ):
            path = f"{{}}/test/{metric}"
            apart = m[path.format(key)] - m[path.format(first)]
            assert m[f"{path.format(key)}_difference"] == pytest.approx(apart)
        assert m[f"{FIRST}/test/{metric}_difference_error"] == 0
        assert m[f"{FIRST}/test/{metric}_error"] >= 0
    assert m[f"{SECOND}/test/frechet_error"] > 0
    assert m[f"{SECOND}/test/frechet_difference_error"] > 0


def test_all_models_code_the_same_images_with_the_same_noise(small, outcome):
    data = small[1]
    bits = outcome.arrays["bits"]
    assert bits.shape == (2, 3)
    x = signed(data.shared.test.images[:3, None]).double()
    for row, model in zip(bits, data.models.values(), strict=True):
        network = ddpm.build_unet(model.settings).double().eval()
        network.load_state_dict(model.weights)
        bound = variational_bound(
            linear_schedule(5, 0.1, 0.9),
            Denoiser(network, "epsilon"),
            x,
            generator=torch.Generator().manual_seed(0),
        )
        torch.testing.assert_close(row, total_bits(bound, 784))
    apart = bits[1] - bits[0]
    m = outcome.metrics
    assert m[f"{SECOND}/bits"] == pytest.approx(bits[1].mean().item())
    assert m[f"{SECOND}/bits_error"] == pytest.approx(bits[1].std().item() / 3**0.5)
    assert m[f"{SECOND}/bits_difference"] == pytest.approx(apart.mean().item())
    assert m[f"{SECOND}/bits_difference_error"] == pytest.approx(
        apart.std().item() / 3**0.5
    )


def test_every_number_is_finite_and_repeats(small, outcome):
    assert all(map(math.isfinite, outcome.metrics.values()))
    again = ddpm_evaluation.run(*small, Job(dtype=torch.float64))
    assert again.metrics == outcome.metrics
    other = ddpm_evaluation.run(*small, Job(seed=1, dtype=torch.float64))
    assert other.metrics["ddpm/test/frechet"] != outcome.metrics["ddpm/test/frechet"]
    key = f"{FIRST}/test/frechet"  # of recorded samples
    assert other.metrics[key] == outcome.metrics[key]
    ddim, ddpm_ = (outcome.arrays[f"samples/{way}"] for way in ("ddim-3", "ddpm"))
    assert ddim.shape == ddpm_.shape == (N, 28, 28)
    assert not torch.equal(ddim, ddpm_)


def test_a_missing_record_is_named():
    with pytest.raises(DianError, match="no record 'ddpm-nothing'"):
        ddpm_evaluation.read_models(replace(SETTINGS, models="nothing"), True)
    # Its file is reported when it is read, not when experiments are listed.
    found = ddpm_evaluation.checksums(["ddpm-nothing"])
    assert not any("nothing" in file for file in found)
