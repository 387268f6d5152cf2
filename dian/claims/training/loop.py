"""Chapter 1: what must hold before a training is worth its time."""

import math

import numpy as np
import torch

from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest
from dian.rnn import networks
from dian.runs.record import load
from dian.training import loop, loss

SIDE, H, N_IMAGE, N_CLASS = 7, 31, 13, 10


@claim(
    "R17",
    "Start-up checks",
    equations=("eq-start-loss",),
    kinds="E T",
    tolerance=0.5,
    source="Karpathy, A recipe for training neural networks, 2019",
    assumptions="small start weights. The residual is in nats, from the logarithm of "
    "the number of classes",
    subjects=(networks, loop, loss),
    mutants=(
        Mutant("the bias of the output does not start at zero",
               "RNNClassifier.__init__",
               "torch.zeros(num_classes)", "torch.arange(1.0 * num_classes)"),
        Mutant("the images do not reach the network", "RNNClassifier.forward",
               "time_first(x, self.input_size)",
               "time_first(0 * x, self.input_size)"),
        Mutant("no step is made", "Training._step",
               "self.optimizer.step()", "None", module=loop),
        Mutant("a loss that is not finite does not stop", "Training._step",
               "not math.isfinite(self.losses[-1])", "False", module=loop),
        Mutant("the loss is a sum", "cross_entropy",
               "return nll.mean()", "return nll.sum()", module=loss),
    ),
)  # fmt: skip
def start() -> float:
    """It knows nothing at first, can learn one batch by heart, and stops at a NaN."""
    generator = torch.Generator().manual_seed(0)
    model = networks.RNNClassifier(SIDE, H, N_CLASS, generator=generator)
    images = torch.rand(N_IMAGE, SIDE, SIDE, generator=generator)
    labels = torch.randint(N_CLASS, (N_IMAGE,), generator=generator)

    def losses_of(epochs: int, factor: float = 1.0) -> list[float]:
        training = loop.Training(
            model,
            lambda x, y: factor * loss.cross_entropy(model(x), y),
            (images, labels),
            optimizer=torch.optim.Adam(model.parameters(), lr=1e-2),
            batch_size=N_IMAGE,
            epochs=epochs,
            generator=generator,
        )
        return [step.loss for step in training]

    losses = losses_of(100)
    try:
        losses_of(1, factor=math.nan)
        stopped = False
    except FloatingPointError as error:  # at the loss, not after the last step
        stopped = "the loss is" in str(error)
    record = load("rnn-fashion-mnist").series
    recorded = np.concatenate([v.ravel() for k, v in record.items() if "loss" in k])
    return largest(
        [
            abs(losses[0] - math.log(N_CLASS)),
            *abs(record["test/loss"][:, 0] - math.log(N_CLASS)),
            holds(losses[-1] < 0.01),
            holds(bool(np.isfinite(recorded).all())),
            holds(stopped),
        ]
    )
