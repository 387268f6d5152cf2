r"""Chapter 1: the initial weights."""

import torch
from torch import Tensor

from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, relative
from dian.rnn import initialization, networks, recurrence

GLOROT = "Glorot and Bengio, Understanding the difficulty of training deep feedforward "
GLOROT += "neural networks, 2010, equation 16"
N_IN, N_OUT, GAIN = 211, 307, 1.7


def empty(*shape: int) -> Tensor:
    """A matrix to be filled, in float64."""
    return torch.empty(*shape, dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


@claim(
    "R14a",
    "Variances of the initial weights",
    equations=("eq-xavier", "eq-variance-forward"),
    kinds="M",
    tolerance=5.0,
    source=GLOROT,
    assumptions="weights independent of each other and of x, with mean zero. "
    "The residual counts standard errors",
    subjects=(initialization, recurrence, networks),
    mutants=(
        Mutant("the gain is ignored", "xavier_",
               "nn.init.xavier_uniform_(W, gain, generator)",
               "nn.init.xavier_uniform_(W, 1.0, generator)"),
        Mutant("normal in place of uniform", "xavier_",
               "nn.init.xavier_uniform_(W, gain, generator)",
               "nn.init.xavier_normal_(W, gain, generator)"),
        Mutant("the number of inputs only", "xavier_",
               "nn.init.xavier_uniform_(W, gain, generator)",
               "nn.init.uniform_(W, -gain * (3 / len(W)) ** 0.5, gain * (3 / len(W)) "
               "** 0.5)"),
        Mutant("the Gaussian has the deviation 1 / n", "gaussian_",
               "gain * W.shape[0] ** -0.5", "gain * W.shape[0] ** -1"),
        Mutant("PyTorch's uniform with the number of inputs", "uniform_",
               "bound = W.shape[1] ** -0.5", "bound = W.shape[0] ** -0.5"),
        Mutant("the variance of x in place of its second moment", "variances",
               "(x @ x) / N_IN", "x.var()", module=__name__),
        Mutant("the input weights of a layer are normal, of four times the variance",
               "RNN.__init__", "xavier_(self.W_xh, generator=generator)",
               "nn.init.xavier_normal_(self.W_xh, 2.0, generator)", module=recurrence),
        Mutant("the recurrent weights of a layer have twice the gain", "RNN.__init__",
               "init(self.W_hh, generator=generator)",
               "init(self.W_hh, generator=generator).data.mul_(2)", module=recurrence),
        Mutant("the output weights are normal, of four times the variance",
               "RNNClassifier.__init__", "xavier_(self.W_hq, generator=generator)",
               "nn.init.xavier_normal_(self.W_hq, 2.0, generator)", module=networks),
        Mutant("a layer ignores the initialization that it is given", "RNN.__init__",
               "init(self.W_hh, generator=generator)",
               "xavier_(self.W_hh, generator=generator)", module=recurrence),
        Mutant("the recurrent weights repeat the draws of the input weights",
               "RNN.__init__", "init(self.W_hh, generator=generator)",
               "init(self.W_hh, generator=torch.Generator().manual_seed(0))",
               module=recurrence),
    ),
)  # fmt: skip
def variances() -> float:
    """Measure the variance of the entries, and of products with inputs of any mean."""
    xavier = 2 * GAIN**2 / (N_IN + N_OUT)
    residuals = []
    for fill, variance, kurtosis in (
        (lambda W: initialization.xavier_(W, GAIN, seeded()), xavier, 9 / 5),
        (lambda W: initialization.gaussian_(W, GAIN, seeded()), GAIN**2 / N_IN, 3),
        (lambda W: initialization.uniform_(W, seeded()), 1 / N_OUT / 3, 9 / 5),
    ):
        W = fill(empty(N_IN, N_OUT))
        standard_error = variance * ((kurtosis - 1) / W.numel()) ** 0.5
        residuals.append(abs(W.square().mean() - variance) / standard_error)
        # kurtosis tells a uniform from a normal one; within a tenth
        fourth = W.pow(4).mean() / W.square().mean() ** 2
        residuals.append(holds(bool(abs(fourth / kurtosis - 1) < 0.1)))

    generator = seeded(1)
    x = 1 + torch.randn(N_IN, generator=generator, dtype=torch.float64)
    many = torch.stack(
        [
            x @ initialization.xavier_(empty(N_IN, N_OUT), GAIN, generator)
            for _ in range(40)
        ]
    )
    expected = N_IN * xavier * ((x @ x) / N_IN)
    standard_error = expected * (2 / many.numel()) ** 0.5
    residuals.append(abs(many.square().mean() - expected) / standard_error)
    return largest([*residuals, of_a_network()])


def of_a_network(q: int = 17) -> float:
    """The initial parameters of a classifier: Xavier weights, zero biases."""
    model = networks.RNNClassifier(N_IN, N_OUT, q, generator=seeded())
    start = {name: value.detach().double() for name, value in model.named_parameters()}
    residuals = [start["rnn.b_h"].norm(), start["b_q"].norm()]
    for name, n in (("rnn.W_xh", N_IN), ("rnn.W_hh", N_OUT), ("W_hq", q)):
        W, variance = start[name], 2 / (N_OUT + n)
        standard_error = variance * (0.8 / W.numel()) ** 0.5
        residuals.append(abs(W.square().mean() - variance) / standard_error)
        bound = (3 * variance) ** 0.5 * (1 + 1e-6)  # of the uniform distribution
        residuals.append(holds(bool(W.abs().max() <= bound)))
    # One stream of random numbers: independent matrices are not correlated.
    a, b = (start[f"rnn.W_{end}"][:N_IN].flatten() for end in ("xh", "hh"))
    residuals.append((a @ b).abs() / (a.norm() * b.norm()) * len(a) ** 0.5)
    # The other initializations of recorded runs, which a layer is given by name.
    eye = torch.eye(N_OUT)
    for name in ("orthogonal", "identity"):
        init = initialization.INITS[name]
        W = recurrence.RNN(3, N_OUT, init=init, generator=seeded()).W_hh.detach()
        residuals.append(holds(torch.allclose(W.T @ W, eye, rtol=0, atol=1e-5)))
        residuals.append(holds(torch.equal(W, eye) == (name == "identity")))
    return largest(residuals)


@claim(
    "R14b",
    "Orthogonal initialization",
    equations=("eq-orthogonal",),
    kinds="E",
    tolerance=1e-10,
    source="Saxe et al., Exact solutions to the nonlinear dynamics of learning in deep "
    "linear neural networks, 2014, arXiv:1312.6120",
    assumptions="W^T W = g^2 I needs at least as many rows as columns",
    subjects=(initialization,),
    mutants=(
        Mutant("the gain is ignored", "orthogonal_",
               "W.copy_(Q.T if wide else Q).mul_(gain)",
               "W.copy_(Q.T if wide else Q)"),
        Mutant("columns of norm 1, not orthogonal", "orthogonal_",
               "W.copy_(Q.T if wide else Q).mul_(gain)",
               "W.copy_(draws / draws.norm(dim=0)).mul_(gain)"),
        Mutant("the scale is ignored", "identity_",
               "nn.init.eye_(W).mul_(scale)", "nn.init.eye_(W)"),
        Mutant("1 / n for every shape", "orthogonal",
               "max(shape)", "shape[0]", module=__name__),
        Mutant("the signs of the QR decomposition are kept", "orthogonal_",
               "Q *= R.diagonal().sign()", "pass"),
    ),
)  # fmt: skip
def orthogonal() -> float:
    """Every norm is scaled by the gain, which determines the mean squared entry."""
    residuals = []
    for shape in ((11, 11), (13, 7), (7, 13)):
        W = initialization.orthogonal_(empty(*shape), GAIN, seeded())
        gram = W.T @ W if shape[0] >= shape[1] else W @ W.T
        residuals.append(relative(gram, GAIN**2 * torch.eye(len(gram)).double()))
        residuals.append(abs(W.square().mean() - GAIN**2 / max(shape)))
    W = initialization.orthogonal_(empty(11, 11), GAIN, seeded())
    # The draws of the recorded runs: W is the first factor of their QR decomposition,
    # and the second has a positive diagonal.
    R = W.T @ torch.randn(11, 11, generator=seeded(), dtype=torch.float64)
    residuals.append(relative(R, R.triu()))
    residuals.append(holds(bool((R.diagonal() > 0).all())))
    x = torch.randn(5, 11, generator=seeded(1), dtype=torch.float64)
    residuals.append(relative((x @ W).norm(dim=1), GAIN * x.norm(dim=1)))
    scaled = initialization.identity_(empty(11, 11), GAIN)
    residuals.append(relative(x @ scaled, GAIN * x))
    # Uniformly distributed: the diagonal has either sign equally often, within 5 s.e.
    signs = torch.stack(
        [
            initialization.orthogonal_(empty(3, 3), 1.0, seeded(seed)).diagonal() > 0
            for seed in range(400)
        ]
    )
    share = signs.double().mean(0)
    return largest([*residuals, holds(bool(((share - 0.5).abs() < 5 / 40).all()))])


@claim(
    "R14c",
    "Spectral radius and norm of random initial weights",
    equations=("eq-circular-law",),
    kinds="M E",
    tolerance=0.08,
    source="Bai and Silverstein, Spectral Analysis of Large Dimensional Random "
    "Matrices, 2010, chapters 5 and 11",
    assumptions="square; independent, identically distributed entries of mean zero "
    "with a finite fourth moment; and large: here 400",
    subjects=(initialization,),
    mutants=(
        Mutant("Xavier with twice the gain", "xavier_",
               "nn.init.xavier_uniform_(W, gain, generator)",
               "nn.init.xavier_uniform_(W, 2 * gain, generator)"),
        Mutant("every column is the same", "uniform_",
               "W.uniform_(-bound, bound, generator=generator)",
               "W.uniform_(-bound, bound, generator=generator).copy_(W[:, "
               ":1].clone())"),
        Mutant("the norm is taken to be the radius", "spectrum",
               "2 * radius", "radius", module=__name__),
        Mutant("the mean is assumed to be zero although it is not", "not_centred",
               "0.5 * torch.rand(n, n, generator=seeded(), dtype=torch.float64)",
               "torch.randn(n, n, generator=seeded(), dtype=torch.float64)",
               module=__name__),
    ),
)  # fmt: skip
def spectrum() -> float:
    """The radius is 1 / sqrt 3 for PyTorch's weights, and 1 for the others.

    The norm is twice the radius.
    With a mean that is not zero, the radius is n times the mean.
    """
    n, residuals = 400, []
    variances = {"uniform_": 1 / (3 * n), "xavier_": 1 / n, "gaussian_": 1 / n}
    for name, variance in variances.items():
        W = getattr(initialization, name)(empty(n, n), generator=seeded())
        radius = (n * variance) ** 0.5
        norm = torch.linalg.matrix_norm(W, 2)
        residuals.append(abs(torch.linalg.eigvals(W).abs().max() / radius - 1))
        residuals.append(abs(norm / (2 * radius) - 1))
    return largest([*residuals, not_centred(n)])


def not_centred(n: int) -> float:
    """The assumption of a mean of zero is needed: a mean of 1/4 decides the radius."""
    W = 0.5 * torch.rand(n, n, generator=seeded(), dtype=torch.float64)
    radius = torch.linalg.eigvals(W).abs().max()
    of_the_law = (n / 48) ** 0.5
    return largest([abs(radius / (n / 4) - 1), holds(bool(radius > 10 * of_the_law))])
