"""Right functions pass whatever their conventions are, and the report names these."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dian.check import check

RIGHT = []


def right(kind, *conventions):
    """Register a right function, and the conventions that the report must name."""

    def mark(function):
        name = f"{kind}-{getattr(function, '__name__', function)}"
        RIGHT.append(pytest.param(kind, function, conventions, id=name))
        return function

    return mark


# Recurrent networks


@right("rnn", "(time, d)", "W of shape (h, d), as torch", "H_0 to H_T")
def columns(X, U, W_hh, b, h0):
    states = [h0]
    for x in X:
        states.append(np.tanh(np.dot(U, x) + np.dot(W_hh, states[-1]) + b))
    return np.array(states)


@right("rnn", "(batch, time, d)", "H_T alone")
def last_state(inputs, W_xh, W_hh, bias, h0):
    for t in range(inputs.shape[1]):
        h0 = torch.tanh(inputs[:, t] @ W_xh + h0 @ W_hh + bias)
    return h0


right("rnn")(nn.RNN)


@right("rnn", "(batch, time, d)")
class BatchFirst(nn.Module):
    def __init__(self, d, h):
        super().__init__()
        self.cell = nn.RNN(d, h, batch_first=True)

    def forward(self, X, h0):
        return self.cell(X, h0)


@right("rnn-backward", "returns X, W_xh, W_hh, b_h, H_0", "(batch, time, d)")
def by_autograd(dH, X, W_xh, W_hh, b, h0):
    leaves = [x.detach().requires_grad_() for x in (X, W_xh, W_hh, b, h0)]
    x, W, V, c, h = leaves
    states = []
    for t in range(X.shape[1]):
        h = torch.tanh(x[:, t] @ W + h @ V + c)
        states.append(h)
    return torch.autograd.grad(torch.stack(states, 1), leaves, dH)


# Training


@right("cross-entropy", "one-hot targets", "NumPy arrays", "gradient alone",
       "sum over what counts")  # fmt: skip
def gradient(logits, y):
    p = np.exp(logits - np.max(logits, axis=1, keepdims=True))
    return p / np.sum(p, axis=1, keepdims=True) - y


@right("cross-entropy", "a loss for each position", "integer targets")
def losses(logits, labels):
    return F.cross_entropy(logits, labels, reduction="none")


@right("cross-entropy", "mask: true = ignored")
def padded(logits, labels, mask=None):
    labels = labels if mask is None else labels.masked_fill(mask, -100)
    return F.cross_entropy(logits, labels)


@right("clip", "changes gradients in place", "theta / norm")
def in_place(grads, theta):
    norm = torch.cat([g.flatten() for g in grads]).norm()
    for g in grads:
        g *= theta / norm if norm > theta else 1


right("clip", "changes .grad of parameters", "as torch")(nn.utils.clip_grad_norm_)


@right("confusion-matrix", "rows are predicted classes")
def counted(y_true, y_pred, n_classes):
    C = np.zeros((n_classes, n_classes), dtype=int)
    np.add.at(C, (y_pred, y_true), 1)
    return C


@right("classification-metrics", "all labels at once")
def f1_of_lists(y_true, y_pred, n_classes):
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    options = {"average": "macro", "zero_division": 0, "labels": range(n_classes)}
    scores = precision_recall_fscore_support(y_true, y_pred, **options)[:3]
    names = ("precision", "recall", "f1")
    found = dict(zip(names, scores, strict=True))
    return {"accuracy": accuracy_score(y_true, y_pred), **found}


# Positions


@right("rotary", "(batch, n, head, d)", "interleaved layout")
def complex_product(xq, base=10_000.0):
    rates = base ** (-torch.arange(0, xq.shape[-1], 2).double() / xq.shape[-1])
    angles = torch.arange(xq.shape[1]).double()[:, None, None] * rates
    z = torch.view_as_complex(xq.reshape(*xq.shape[:-1], -1, 2))
    return torch.view_as_real(z * torch.exp(1j * angles)).flatten(3)


@right("rotary", "half-split layout")
def both_at_once(q, k, position_ids):
    d = q.shape[-1]
    angles = position_ids[:, None] / 10_000 ** (torch.arange(0, d, 2) / d)
    angles = torch.cat((angles, angles), -1).double()

    def turned(x):
        a, b = x.chunk(2, -1)
        return x * angles.cos() + torch.cat((-b, a), -1) * angles.sin()

    return turned(q), turned(k)


@right("sinusoidal", "sines first", "number of positions")
def two_halves(seq_len, d_model):
    rates = np.power(10_000.0, -np.arange(0, d_model, 2) / d_model)
    angles = np.outer(np.arange(seq_len), rates)
    return np.multiply(1, np.concatenate([np.sin(angles), np.cos(angles)], axis=1))


@right("alibi", "relative to the query, a row of keys")
def as_in_bloom(seq_len, num_heads):
    slopes = torch.tensor([2 ** (-8 * (h + 1) / num_heads) for h in range(num_heads)])
    return (slopes.double()[:, None] * torch.arange(seq_len)).view(num_heads, 1, -1)


# Attention


@right("attention", "(n, d)", "mask: true = masked")
def one_matrix(Q, K, V, mask=None):
    S = np.dot(Q, np.transpose(K)) / np.sqrt(Q.shape[-1])
    if mask is not None:
        S = np.where(mask, -1e30, S)
    P = np.exp(S - np.max(S, axis=1, keepdims=True))
    P /= np.sum(P, axis=1, keepdims=True)
    return np.dot(P, V)


@right("attention", "mask: 0 or minus infinity, added", "weights first")
def weights_first(query, key, value, attn_mask=None):
    scores = torch.einsum("bhid,bhjd->bhij", query, key) / math.sqrt(query.shape[-1])
    scores = scores if attn_mask is None else scores + attn_mask
    weights = scores.softmax(-1)
    return weights, weights @ value


right("attention", "mask: true = attend")(F.scaled_dot_product_attention)


@right("attention-backward", "(n, d)")
def by_hand(dO, Q, K, V):
    scale = Q.shape[-1] ** -0.5
    P = (Q @ K.T * scale).softmax(-1)
    dP = dO @ V.T
    dS = P * (dP - (dP * P).sum(-1, keepdim=True))
    return dS @ K * scale, dS.T @ Q * scale, P.T @ dO


right("multi-head")(nn.MultiheadAttention)


@right("multi-head", "X W^T, as torch.nn.Linear", "(n, D)")
def loop_over_heads(x, Wq, Wk, Wv, Wo, heads):
    q, k, v = (F.linear(x, W).chunk(heads, -1) for W in (Wq, Wk, Wv))
    scale = q[0].shape[-1] ** -0.5
    each = [(a @ b.T * scale).softmax(-1) @ c for a, b, c in zip(q, k, v, strict=True)]
    return F.linear(torch.cat(each, -1), Wo)


right("causal-mask", "0 = attend, a low number = masked")(
    nn.Transformer.generate_square_subsequent_mask
)


@right("causal-mask", "true = masked")
def upper(size):
    return torch.ones(1, 1, size, size).triu(1).bool()


# Diffusion


@right("q-sample", "t from 0")
def add_noise(x_start, t, noise, betas):
    a = torch.cumprod(1 - betas, 0)[t].reshape(-1, *[1] * (x_start.ndim - 1))
    return a.sqrt() * x_start + (1 - a).sqrt() * noise


@right("q-sample", "one timestep for all", "t from 1")
def by_steps(x_0, t, eps, betas):
    a = math.prod((1 - b).item() for b in betas[:t])
    return a**0.5 * x_0 + (1 - a) ** 0.5 * eps


@right("posterior", "t from 0", "log-variance")
def as_by_the_authors(x_start, x_t, t, betas):
    a = torch.cumprod(1 - betas, 0)
    before = torch.cat([torch.ones(1).to(a), a[:-1]])
    variance = betas * (1 - before) / (1 - a)
    c = [betas * before.sqrt() / (1 - a), (1 - before) * (1 - betas).sqrt() / (1 - a)]
    c_0, c_1 = (x[t].view(-1, *[1] * (x_t.ndim - 1)) for x in c)
    return c_0 * x_start + c_1 * x_t, variance[t].clamp(min=1e-20).log()


@right("ddpm-loss", "t from 0", "sum over an image, mean over the batch")
def simple_loss(model, x0, t, noise, betas):
    a = torch.cumprod(1 - betas, 0)[t].reshape(-1, *[1] * (x0.ndim - 1))
    error = noise - model(a.sqrt() * x0 + (1 - a).sqrt() * noise, t)
    return (error**2).flatten(1).sum(1).mean()


def sampler(clip, small, falling):
    def sample(model, x, betas, noise):
        T, a_bar = len(betas), torch.cumprod(1 - betas, 0)
        for i, t in enumerate(reversed(range(T))):
            eps, now = model(x, torch.full((len(x),), t)), a_bar[t]
            before = a_bar[t - 1] if t else torch.ones(()).double()
            x_0 = (x - (1 - now).sqrt() * eps) / now.sqrt()
            x_0 = x_0.clamp(-1, 1) if clip else x_0
            c_0 = before.sqrt() * betas[t] / (1 - now)
            c_1 = (1 - betas[t]).sqrt() * (1 - before) / (1 - now)
            tilde = (1 - before) / (1 - now) * betas[t]
            sigma = (tilde if small else betas[t]).sqrt() * (t > 0)
            x = c_0 * x_0 + c_1 * x + sigma * noise[i if falling else t]
        return x

    return sample


for clip in (False, True):
    for small in (False, True):
        said = f"beta{'-tilde' * small}, {'x_0 clipped' if clip else 'no clipping'}"
        order = "noise in the order of use" if small else "noise[t - 1]"
        right("ddpm-sample", f"variance {said}", order, "t from 0")(
            sampler(clip, small, falling=small)
        )


@right("noise-schedule", "T + 1 entries", "betas, alphas, alpha_bars")
def with_a_first_entry(T, beta_start, beta_end):
    betas = np.append(0, np.linspace(beta_start, beta_end, T))
    return betas, 1 - betas, np.cumprod(1 - betas)


@right("ddim-sample", "t from 0", "falling timesteps", "x_0 clipped to [-1, 1]")
def as_in_diffusers(model, x, betas, timesteps):
    a_bar = torch.cumprod(1 - betas, 0)
    pairs = zip(timesteps, [*timesteps[1:], None], strict=True)
    for t, s in pairs:
        before = torch.ones(()).double() if s is None else a_bar[s]
        x_0 = (x - (1 - a_bar[t]).sqrt() * model(x, torch.tensor([t]))) / a_bar[
            t
        ].sqrt()
        x_0 = x_0.clamp(-1, 1)
        eps = (x - a_bar[t].sqrt() * x_0) / (1 - a_bar[t]).sqrt()
        x = before.sqrt() * x_0 + (1 - before).sqrt() * eps
    return x


@pytest.mark.parametrize(("kind", "function", "conventions"), RIGHT)
def test_conventions_are_found(kind, function, conventions):
    report = check(kind, function)
    assert report.passed, f"\n{report}"
    assert not report.mistakes
    for convention in conventions:
        assert convention in report.head(), f"\n{report}"
