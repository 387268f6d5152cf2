"""Both results of each puzzle, and what the check of the claim says of the bug.

A function of ``SHOWN`` computes one result with a module, which is that of the library
or its mutant.
"""

from importlib import import_module
from types import ModuleType

import numpy as np
import torch

from dian.claims import verify
from dian.data import sample
from dian.diffusion.gaussian_mixture import optimal_denoiser, ring
from dian.diffusion.schedule import linear_schedule
from dian.positions.sinusoidal import frequencies
from dian.rnn.networks import RNNClassifier
from dian.training.loop import Training
from dian.training.loss import cross_entropy
from dian_sphinx.live.pictures import dark, picture
from dian_sphinx.live.puzzles import PUZZLES


def loss_curve(recurrence: ModuleType) -> dict:
    """Train a network on the sample, with the backward pass of a module."""
    train = sample("train")
    generator = torch.Generator().manual_seed(0)
    model = RNNClassifier(28, 64, 10, generator=generator)
    layer = recurrence.RNN(28, 64)
    layer.load_state_dict(model.rnn.state_dict())
    model.rnn = layer
    steps = Training(
        model,
        lambda images, labels: cross_entropy(model(images), labels),
        (train.unit(), train.labels),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.2),
        schedule="cosine",
        max_norm=1.0,
        batch_size=25,
        epochs=6,
        generator=generator,
    )
    # The mean over 20 steps, in the coordinates of a picture of 200 x 100 points.
    losses = np.convolve([step.loss for step in steps], np.ones(20) / 20, "valid")
    x = np.linspace(0, 200, len(losses))
    y = 100 - 100 * losses / 2.5
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return {"points": points}


def rotated_weights(rotary: ModuleType) -> dict:
    """Compute the attention weights of rotated queries and keys."""
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(24, 32, generator=generator, dtype=torch.float64)
    k = q + torch.randn(24, 32, generator=generator, dtype=torch.float64)
    Q, K = (rotary.rotate_half_split(x, frequencies(32)) for x in (q, k))
    return {"image": picture(dark((Q @ K.T / 32**0.5).softmax(-1).numpy()))}


def attention_weights(dot_product: ModuleType) -> dict:
    """Compute the attention weights of 24 queries and 24 keys."""
    generator = torch.Generator().manual_seed(0)
    Q, K = torch.randn(2, 1, 24, 16, generator=generator, dtype=torch.float64)
    _, P = dot_product.scaled_dot_product_attention(1.5 * Q, K, K)
    return {"image": picture(dark(P[0].numpy()))}


def ring_samples(sampling: ModuleType) -> dict:
    """Sample a ring of eight Gaussians with the optimal denoiser."""
    schedule = linear_schedule(100, 0.001, 0.2)
    eight = ring(8, radius=0.8, variance=0.005)
    denoiser = sampling.Denoiser(optimal_denoiser(eight, schedule.alpha_bar), clip=None)
    x_T = torch.randn(2000, 2, generator=torch.Generator().manual_seed(1)).double()
    generator = torch.Generator().manual_seed(2)
    points = sampling.ddpm_sample(schedule, denoiser, x_T, generator=generator).numpy()
    edges = np.linspace(-1.3, 1.3, 79)
    counts, _, _ = np.histogram2d(*points.T, bins=(edges, edges))
    return {"image": picture(dark(np.minimum(counts, 3)))}


SHOWN = {
    "rnn": loss_curve,
    "positions": rotated_weights,
    "attention": attention_weights,
    "diffusion": ring_samples,
}


def results(chapter: str) -> dict:
    """Compute both results, and the residuals of the check with and without the bug."""
    puzzle, show = PUZZLES[chapter], SHOWN[chapter]
    claim = getattr(import_module(puzzle.claims), puzzle.check).claim
    mutant = next(one for one in claim.mutants if one.what == puzzle.what)
    right, wrong = verify.verify(claim), verify.run_mutant(claim, mutant)
    if not (right.passed and verify.killed(mutant, wrong)):
        raise ValueError(
            f"spot {chapter}: expected that the check of {claim.id} passes, and fails "
            f"with the mutant {puzzle.what!r}; the residuals are {right.residual:.1e} "
            f"and {wrong.residual:.1e}, the tolerance is {claim.tolerance:.1e}"
        )
    other = "AB".replace(puzzle.place, "")
    return {
        "question": puzzle.question,
        "place": puzzle.place,
        "what": puzzle.what,
        "shown": {
            puzzle.place: show(verify.load_mutant(puzzle.module, mutant)),
            other: show(import_module(puzzle.module)),
        },
        "claim": claim.id,
        "title": claim.title,
        "tolerance": f"{claim.tolerance:.0e}",
        "right": f"{right.residual:.0e}",
        "wrong": f"{wrong.residual:.0e}",
    }
