"""Layer normalization: forward and backward pass, and the spectrum of its Jacobian."""

import torch
from torch import Tensor

from dian.attention import layer_norm
from dian.attention.transformer import EncoderLayer
from dian.claims import Mutant, claim
from dian.claims.compare import complex_step, holds, largest, normal, relative, worst

BATCH, N, D, EPS = 2, 3, 5, 1e-5


def example() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return vectors of several sizes, scale, shift, and a gradient of the output."""
    X, gamma, beta, Y_bar = normal(0, (BATCH, N, D), (D,), (D,), (BATCH, N, D))
    # A variance below eps, a mean far from zero, and a constant vector.
    X[0, 0] *= 1e-3
    X[0, 1] += 7
    X[1, 2] = 0.25
    return X, gamma, beta, Y_bar


def by_formula(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """Normalize by sums alone, which also take complex numbers."""
    mean = x.sum(-1, keepdim=True) / D
    variance = (x * x).sum(-1, keepdim=True) / D - mean * mean
    return gamma * (x - mean) / (variance + EPS) ** 0.5 + beta


def central(loss, x: Tensor, h: float = 1e-5) -> Tensor:
    """Differentiate by moving each entry to both sides."""
    gradient = torch.empty_like(x)
    for i in range(x.numel()):
        step = torch.zeros(x.numel(), dtype=x.dtype)
        step[i] = h
        step = step.view_as(x)
        gradient.view(-1)[i] = (loss(x + step) - loss(x - step)) / (2 * h)
    return gradient


@claim(
    "A16",
    "Layer normalization and its backward pass",
    equations=("eq-layer-norm", "eq-layer-norm-jacobian", "eq-layer-norm-backward"),
    kinds="I G C N",
    tolerance=1e-10,
    source="Ba, Kiros and Hinton, Layer Normalization, 2016, arXiv:1607.06450",
    assumptions="central differences are within 1e-6 and not 1e-10",
    subjects=(layer_norm,),
    mutants=(
        Mutant("the variance divides by D - 1", "layer_norm",
               "centered.square().mean(-1, keepdim=True)",
               "centered.square().sum(-1, keepdim=True) / (X.shape[-1] - 1)"),
        Mutant("eps is added to the standard deviation", "layer_norm",
               "torch.rsqrt(variance + eps)", "1 / (variance.sqrt() + eps)"),
        Mutant("the mean is not subtracted", "layer_norm",
               "X - X.mean(-1, keepdim=True)", "X - 0 * X.mean(-1, keepdim=True)"),
        Mutant("the mean is over all features of all positions", "layer_norm",
               "X.mean(-1, keepdim=True)", "X.mean()"),
        Mutant("another eps than torch's", "layer_norm",
               "variance + eps", "variance + eps / 10"),
        Mutant("the shift is scaled as well", "layer_norm",
               "gamma * X_hat + beta", "gamma * (X_hat + beta)"),
        Mutant("the gradient of the mean is missing", "layer_norm_backward",
               "g - g.mean(-1, keepdim=True) - X_hat * along", "g - X_hat * along"),
        Mutant("the gradient of the variance is missing", "layer_norm_backward",
               "g - g.mean(-1, keepdim=True) - X_hat * along",
               "g - g.mean(-1, keepdim=True)"),
        Mutant("the scale is missing in the backward pass", "layer_norm_backward",
               "gamma * Y_bar", "Y_bar"),
        Mutant("the gradient is multiplied by the deviation", "layer_norm_backward",
               "rstd * (g - g.mean(-1, keepdim=True) - X_hat * along)",
               "(g - g.mean(-1, keepdim=True) - X_hat * along) / rstd"),
        Mutant("the gradient of the scale without the features",
               "layer_norm_backward",
               "(Y_bar * X_hat).reshape(-1, len(gamma))",
               "(Y_bar + 0 * X_hat).reshape(-1, len(gamma))"),
        Mutant("the gradient of the shift is averaged", "layer_norm_backward",
               "Y_bar.reshape(-1, len(gamma)).sum(0)",
               "Y_bar.reshape(-1, len(gamma)).mean(0)"),
    ),
)  # fmt: skip
def normalized() -> float:
    """Equals the encoder's layer of torch, autograd, complex steps, differences."""
    X, gamma, beta, Y_bar = example()
    Y, inner = layer_norm.layer_norm(X, gamma, beta)
    back = layer_norm.layer_norm_backward(Y_bar, gamma, inner)
    # The very layer that the encoder uses, with the eps that it has there.
    peer = EncoderLayer(D, 1, 4).norm_1.double()
    peer.load_state_dict({"weight": gamma, "bias": beta})
    leaf = X.clone().requires_grad_()
    theirs = peer(leaf)
    theirs.backward(Y_bar)

    def loss(x: Tensor) -> Tensor:
        return (Y_bar * by_formula(x, gamma, beta)).sum()

    return largest(
        [
            relative(Y, theirs.detach()),
            worst(back, [leaf.grad, peer.weight.grad, peer.bias.grad]),
            relative(back.X, complex_step(loss, X)),
            by_differences(gamma, beta, Y_bar[0]),
            spectrum(),
        ]
    )


def by_differences(gamma: Tensor, beta: Tensor, Y_bar: Tensor) -> float:
    """Return 0 if central differences of the library's forward pass agree."""
    (X,) = normal(1, (N, D))  # with variances near 1, for a step of 1e-5

    def loss(x: Tensor) -> Tensor:
        return (Y_bar * layer_norm.layer_norm(x, gamma, beta)[0]).sum()

    _, inner = layer_norm.layer_norm(X, gamma, beta)
    found = layer_norm.layer_norm_backward(Y_bar, gamma, inner).X
    return holds(relative(found, central(loss, X)) < 1e-8)


def spectrum() -> float:
    """Compare the Jacobian with its formula, and its eigenvalues with theirs."""
    one, zero = torch.ones(D).double(), torch.zeros(D).double()
    residuals = []
    for x in (normal(2, (D,))[0], 2e-3 * normal(3, (D,))[0]):
        _, inner = layer_norm.layer_norm(x, one, zero)
        rows = torch.eye(D).double()
        J = torch.stack(
            [layer_norm.layer_norm_backward(row, one, inner).X for row in rows]
        )
        r = (x.var(correction=0) + EPS) ** -0.5
        x_hat = r * (x - x.mean())
        formula = r * (rows - 1 / D - torch.outer(x_hat, x_hat) / D)
        along = r**3 * EPS
        eigenvalues = torch.cat([zero[:1], along[None], r.expand(D - 2)])
        residuals += [
            relative(J, formula),
            relative(J @ x_hat, along * x_hat),
            relative(torch.linalg.eigvalsh(J), eigenvalues.sort().values),
        ]
    return largest(residuals)
