"""Denoising networks: what holds for each of them, and which mistakes it shows."""

import pytest
import torch
from torch import nn

from dian.check import check
from dian.check.registry import find
from dian.claims.diffusion.unet import network as claim_of_unet
from dian.claims.verify import installed, load_mutant
from dian.diffusion import unet

CONFIG = {"channels": 1, "width": 8, "multipliers": (1, 2), "blocks": 1, "groups": 4}


@pytest.mark.parametrize("known", find("denoiser").mistakes, ids=lambda m: m.what)
def test_mistakes_are_named(known):
    report = check("denoiser", known.function)
    assert report.status == 1
    assert report.mistakes == [known.what]


class Perceptron(nn.Module):
    """A network of vectors, which is given t / T."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(785, 16), nn.Linear(16, 784)
        nn.init.zeros_(self.last.weight)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x, t):
        given = torch.cat([x, t[:, None] / 1000], 1)
        return self.last(self.dropout(torch.relu(self.first(given))))


class Unconditioned(nn.Module):
    """A network with batch normalization, and without a time embedding."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, 1, 3, padding=1),
        )

    def forward(self, x_t, timesteps):
        return self.layers(x_t)


def test_modules():
    report = check("denoiser", Perceptron)
    assert report.passed, report
    assert "images of 784" in report.head()
    assert check("denoiser", Perceptron()).passed
    network = unet.UNet(unet.UNetConfig(**CONFIG))
    assert check("denoiser", network).passed
    assert check("denoiser", Unconditioned).mistakes == ["no timestep embedding"]


def test_batch_statistics():
    def predict(x, t):
        x = nn.functional.batch_norm(x, None, None, training=True)
        return x * t.view(-1, 1, 1, 1)

    assert check("denoiser", predict).mistakes == ["the images of a batch are mixed"]


def test_dropout_that_stays_on():
    def predict(x, t):
        return nn.functional.dropout(x) * t.view(-1, 1, 1, 1)

    report = check("denoiser", predict)
    assert report.status == 1
    assert report.fault.startswith("is random")


def test_our_network_without_its_embedding():
    mutants = {m.what: m for m in claim_of_unet.claim.mutants}
    mutant = mutants["no timestep embedding"]
    with installed(load_mutant(unet.__name__, mutant)):
        report = check("denoiser", unet.UNet(unet.UNetConfig(**CONFIG)))
    assert report.mistakes == ["no timestep embedding"]


def test_a_network_that_cannot_be_made():
    report = check("denoiser", nn.Linear)
    assert report.status == 2
    assert "cannot be made without arguments" in report.fault
