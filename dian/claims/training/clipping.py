"""Chapter 1: clipping the gradient by its norm."""

import torch
from torch import Tensor, nn

from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, normal, relative
from dian.training import clipping, loop

# Three tensors, as of a network: the norm is of all of them together.
SHAPES = ((3, 11), (11, 11), (11,))


def clipped(clipping, gradient: Tensor, max_norm: float) -> Tensor:
    """Clip one long gradient that is spread over several parameters."""
    parameters = [nn.Parameter(torch.zeros(shape).double()) for shape in SHAPES]
    parts = gradient.split([parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.reshape(parameter.shape).clone()
    clipping.clip_by_norm(parameters, max_norm)
    return torch.cat([parameter.grad.flatten() for parameter in parameters])


@claim(
    "R13",
    "Clipping by norm",
    equations=("eq-clipping",),
    kinds="H E",
    tolerance=1e-12,
    source="Pascanu et al., On the difficulty of training recurrent neural networks, "
    "2013, arXiv:1211.5063, algorithm 1",
    assumptions="the norm is over all parameters together",
    subjects=(clipping, loop),
    mutants=(
        Mutant("each tensor is clipped separately", "clip_by_norm",
               "torch._foreach_mul_(gradients, max_norm / norm)",
               "[g.mul_(min(1, max_norm / g.norm())) for g in gradients]"),
        Mutant("each value is clipped", "clip_by_norm",
               "torch._foreach_mul_(gradients, max_norm / norm)",
               "[g.clamp_(-max_norm, max_norm) for g in gradients]"),
        Mutant("as torch does, with 1e-6 added to the norm", "clip_by_norm",
               "max_norm / norm", "max_norm / (norm + 1e-6)"),
        Mutant("small gradients are enlarged", "clip_by_norm",
               "norm > max_norm", "norm"),
        Mutant("the sum of the norms", "clip_by_norm",
               "math.hypot(*norms)", "sum(norms)"),
        Mutant("the squared norm", "clip_by_norm",
               "max_norm / norm", "max_norm / norm**2"),
        Mutant("the norm after clipping is returned", "clip_by_norm",
               "return norm", "return min(norm, max_norm)"),
        Mutant("a training run does not clip", "Training._step",
               "self.max_norm is not None", "False", module=loop),
        Mutant("a training run clips at another norm", "Training._step",
               "clip_by_norm(self.model.parameters(), self.max_norm)",
               "clip_by_norm(self.model.parameters(), 2 * self.max_norm)", module=loop),
        Mutant("a training run clips each tensor separately", "Training._step",
               "clip_by_norm(self.model.parameters(), self.max_norm)",
               "max(clip_by_norm([p], self.max_norm) for p in "
               "self.model.parameters())", module=loop),
    ),
)  # fmt: skip
def by_norm() -> float:
    """Check norm, direction, idempotence, scaling, and that the map is nonexpansive.

    One step of the training loop, which all recorded runs use, clips likewise.
    """
    n = sum(torch.Size(shape).numel() for shape in SHAPES)
    directions = normal(0, *4 * [(n,)])
    residuals = [clipped(clipping, torch.zeros(n).double(), 1.0).norm()]
    for max_norm in 10.0 ** torch.arange(-6, 7, 3):
        max_norm = max_norm.item()
        for size in (1e-8, 0.5, 1.0, 2.0, 1e8):
            g, other = (max_norm * size * v / v.norm() for v in directions[:2])
            c, d = (clipped(clipping, x, max_norm) for x in (g, other))
            unit = max(max_norm, torch.finfo(g.dtype).tiny)
            length = min(g.norm().item(), max_norm)
            residuals += [
                abs(c.norm() - length) / length,
                1 - torch.cosine_similarity(c, g, dim=0, eps=1e-300),
                relative(clipped(clipping, c, max_norm) / unit, c / unit),
                relative(
                    clipped(clipping, 10 * g, 10 * max_norm) / unit, 10 * c / unit
                ),
                holds(bool((c - d).norm() <= (g - other).norm() * (1 + 1e-12))),
                holds(size > 0.9 or torch.equal(c, g)),
            ]
    return largest([*residuals, in_a_training_run(directions), peer()])


def in_a_training_run(gradients: list[Tensor]) -> float:
    """One step of SGD with a given gradient changes weights by the clipped gradient."""
    residuals = []
    for gradient in (*gradients, 1e-3 * gradients[0]):
        model = nn.Module()
        for i, shape in enumerate(SHAPES):
            model.register_parameter(f"p{i}", nn.Parameter(torch.zeros(shape).double()))

        def loss_fn(_, model=model, gradient=gradient):
            flat = torch.cat([p.flatten() for p in model.parameters()])
            return flat @ gradient

        training = loop.Training(
            model,
            loss_fn,
            (torch.zeros(1),),
            optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
            epochs=1,
            max_norm=0.7,
        )
        (step,) = training
        norm = gradient.square().sum().sqrt()
        moved = torch.cat([p.detach().flatten() for p in model.parameters()])
        residuals.append(relative(moved, -gradient * min(1.0, 0.7 / norm)))
        residuals.append(abs((step.grad_norm or 0.0) / norm - 1))
    return largest(residuals)


def peer(max_norm: float = 1e-3) -> float:
    """PyTorch adds 1e-6 to the norm: a second clipping changes by 1e-6 / max_norm."""
    parameter = nn.Parameter(torch.zeros(11).double())
    (gradient,) = normal(1, (11,))
    parameter.grad = gradient.clone()
    lengths = []
    for _ in range(2):
        nn.utils.clip_grad_norm_([parameter], max_norm)
        lengths.append(parameter.grad.norm().item())
    return holds(abs((1 - lengths[1] / lengths[0]) / (1e-6 / max_norm) - 1) < 0.01)
