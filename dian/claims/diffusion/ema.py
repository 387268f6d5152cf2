"""Chapter 4: EMA weights."""

import torch
from torch import nn

from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, normal, relative
from dian.claims.diffusion.process import HO
from dian.diffusion import ema


@claim(
    "D16b",
    "EMA weights",
    equations=("eq-ema", "eq-ema-constant"),
    kinds="E",
    tolerance=1e-12,
    source=f"{HO}, appendix B",
    subjects=(ema,),
    mutants=(
        Mutant("the old average and the new weights are exchanged", "ema_update",
               "torch._foreach_lerp(list(theta_bar), theta, 1 - decay)",
               "torch._foreach_lerp(list(theta_bar), theta, decay)"),
        Mutant("the raw weights in place of the average", "ema_update",
               "torch._foreach_lerp(list(theta_bar), theta, 1 - decay)", "theta"),
        Mutant("the average starts from zero", "EMA.__init__",
               "p.detach().clone()", "0 * p.detach()"),
        Mutant("the average shares memory with the parameters", "EMA.__init__",
               "p.detach().clone()", "p.detach()"),
        Mutant("the averages are assigned to the wrong names", "EMA.update",
               "zip(theta, new, strict=True)", "zip(theta, new[::-1], strict=True)"),
        Mutant("the averages are never updated", "EMA.update",
               "self.average |= dict(zip(theta, new, strict=True))", ""),
        Mutant("the checkpoint is ignored", "EMA.load_state_dict",
               "mean.clone().copy_(state[name])", "mean.clone()"),
    ),
)  # fmt: skip
def average() -> float:
    """Compare with 1 - mu^n for constant weights, and with the sum over all steps."""
    decay, n = 0.9, 37
    kept = ema.EMA([("w", torch.zeros(3, dtype=torch.float64))], decay)
    constant = []
    for step in range(1, n + 1):
        kept.update([("w", torch.ones(3, dtype=torch.float64))])
        constant.append((kept.average["w"] - (1 - decay**step)).abs().max())
    return largest([*constant, of_a_network(0.9, n), of_a_network(0.999, n)])


def layers() -> nn.Module:
    """Return two layers whose weights have the same shape and could be exchanged."""
    return nn.Sequential(*(nn.Linear(3, 3, bias=False).double() for _ in range(2)))


def of_a_network(decay: float, n: int) -> float:
    """Average a network in training, resumed from a checkpoint, as recorded runs do."""
    network = layers()
    steps = normal(0, (n + 1, 3, 3), (n + 1, 3, 3))

    def train(step: int) -> None:
        for parameter, values in zip(network.parameters(), steps, strict=True):
            parameter.data.copy_(values[step])

    train(0)
    kept = ema.EMA(network.named_parameters(), decay)
    for step in range(1, n + 1):
        train(step)
        if step == n // 2:
            before, kept = kept, ema.EMA(network.named_parameters(), decay)
            kept.load_state_dict(before.state_dict())
        kept.update(network.named_parameters())
    averaged = layers()
    averaged.load_state_dict(kept.average)
    residuals = [holds(kept.average.keys() == {"0.weight", "1.weight"})]
    for found, values in zip(averaged.parameters(), steps, strict=True):
        expected = decay**n * values[0]
        for k in range(1, n + 1):
            expected = expected + (1 - decay) * decay ** (n - k) * values[k]
        residuals.append(relative(found.detach(), expected))
    return largest(residuals)
