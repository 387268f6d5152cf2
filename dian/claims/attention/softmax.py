"""The softmax of the attention scores: its Jacobian and its backward pass."""

import torch

from dian.attention import softmax
from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, normal, relative


@claim(
    "A3",
    "Jacobian of the softmax",
    equations=("eq-softmax-jacobian", "eq-softmax-backward", "eq-softmax-bound"),
    kinds="G E H",
    tolerance=1e-12,
    source="Bridle, Probabilistic interpretation of feedforward classification network "
    "outputs, 1990",
    assumptions="rank n - 1 requires positive weights",
    subjects=(softmax,),
    mutants=(
        Mutant("the outer product is missing", "softmax_jacobian",
               "torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)",
               "torch.diag_embed(p)"),
        Mutant("p in place of its diagonal", "softmax_jacobian",
               "torch.diag_embed(p)", "p.unsqueeze(-1)"),
        Mutant("the backward pass without its mean", "softmax_backward",
               "s_bar.addcmul_(p, s_bar.sum(-1, keepdim=True), value=-1)", "s_bar"),
        Mutant("the mean is not weighted", "softmax_backward",
               "s_bar.sum(-1, keepdim=True)", "p_bar.mean(-1, keepdim=True)"),
        Mutant("a quarter of the squared norm as bound", "quadratic_form",
               "x @ x / 2", "x @ x / 4", module=__name__),
        Mutant("an eighth of the squared range as bound", "quadratic_form",
               "(x.max() - x.min()) ** 2 / 4", "(x.max() - x.min()) ** 2 / 8",
               module=__name__),
    ),
)  # fmt: skip
def softmax_jacobian() -> float:
    """Equals autograd; symmetric, eigenvalues in [0, 1/2], rank n - 1."""
    residuals = []
    for n, spread in [(2, 1.0), (3, 0.1), (7, 1.0), (11, 3.0)]:
        scores, p_bar = normal(n, (n,), (n,))
        scores = spread * scores
        p = scores.softmax(-1)
        J = softmax.softmax_jacobian(p)
        auto = torch.autograd.functional.jacobian(lambda s: s.softmax(-1), scores)
        eigenvalues = torch.linalg.eigvalsh(J)
        residuals += [
            relative(J, auto),
            relative(J, J.T),
            relative(J.sum(-1), torch.zeros_like(p)),
            relative(J.trace(), 1 - (p * p).sum()),
            relative(softmax.softmax_backward(p, p_bar), auto @ p_bar),
            holds(bool(eigenvalues[0] > -1e-12 and eigenvalues[-1] <= 0.5 + 1e-12)),
            holds(int((eigenvalues > 1e-12).sum()) == n - 1),
        ]
    # The bound 1/2 is attained if and only if two weights are 1/2.
    even = softmax.softmax_jacobian(torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64))
    residuals.append(relative(torch.linalg.eigvalsh(even)[-1], torch.tensor(0.5)))
    return largest([*residuals, quadratic_form()])


def quadratic_form() -> float:
    """Compare with the variance, and its bounds: by range, and by the norm."""
    residuals = []
    draws = [(x.softmax(-1), y) for x, y in (normal(i, (5,), (5,)) for i in range(20))]
    # Both bounds are attained: two weights of 1/2, and opposite values.
    attained = torch.tensor([[0.5, 0.5, 0.0], [-1.3, 1.3, 0.0]]).double()
    for p, x in [*draws, tuple(attained)]:
        found = x @ softmax.softmax_jacobian(p) @ x
        variance = (p * (x - (p * x).sum()) ** 2).sum()
        of_range, of_norm = (x.max() - x.min()) ** 2 / 4, x @ x / 2
        within = bool(variance <= of_range + 1e-14 and of_range <= of_norm + 1e-14)
        residuals += [relative(found, variance), holds(within)]
    residuals.append(relative(variance, of_norm))
    return largest(residuals)
