"""Mistakes that were reported to public issue trackers, written again from scratch.

Each is rejected. What the check should call it stands beside the source of the report;
``None`` if no known mistake computes the same.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dian.check import check

GITHUB = "https://github.com/"
REPORTED = []
pytestmark = pytest.mark.slow


def reported(kind, source, *names):
    """Register a function with a mistake, where it was reported, and its names."""

    def mark(function):
        REPORTED.append(pytest.param(kind, function, names, id=source))
        return function

    return mark


# Positional encodings


def angles_of(x, positions, dtype=torch.float64):
    d = x.shape[-1]
    omega = (10_000.0 ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)).to(dtype)
    return torch.outer(positions.to(dtype), omega)


def rotate_half(x):
    a, b = x.chunk(2, -1)
    return torch.cat((-b, a), -1)


@reported("rotary", "huggingface/transformers/issues/47328",
          "interleaved pairs use the table of half-split ones")  # fmt: skip
def layouts_mixed(x, positions):
    angles = torch.cat([angles_of(x, positions)] * 2, -1)
    turned = torch.stack((-x[..., 1::2], x[..., ::2]), -1).reshape(x.shape)
    return x * angles.cos() + turned * angles.sin()


@reported("rotary", "Dao-AILab/flash-attention/issues/45",
          "table in one layout, rotation in the other")  # fmt: skip
def table_repeated_rotation_of_halves(x, positions):
    angles = angles_of(x, positions).repeat_interleave(2, -1)
    return x * angles.cos() + rotate_half(x) * angles.sin()


@reported("rotary", "EleutherAI/gpt-neox/issues/1003", "the angle is in float16")
def angles_in_half_precision(x, positions):
    angles = torch.cat([angles_of(x, positions, torch.float16)] * 2, -1).double()
    return x * angles.cos() + rotate_half(x) * angles.sin()


@reported("rotary", "huggingface/transformers/issues/29496",
          "angles in bfloat16")  # fmt: skip
def angles_in_bfloat16(x, positions):
    angles = torch.cat([angles_of(x, positions, torch.bfloat16)] * 2, -1).double()
    return x * angles.cos() + rotate_half(x) * angles.sin()


@reported("rotary", "huggingface/transformers/issues/25681", "the table is in bfloat16")
def table_in_bfloat16(x, positions):
    angles = torch.cat([angles_of(x, positions)] * 2, -1)
    cos, sin = (f(angles).bfloat16().double() for f in (torch.cos, torch.sin))
    return x * cos + rotate_half(x) * sin


def encoding(n, d, exponents, base=10_000):
    PE = np.arange(n)[:, None] * base ** -np.asarray(exponents(np.arange(d)), float)
    PE[:, ::2], PE[:, 1::2] = np.sin(PE[:, ::2]), np.cos(PE[:, 1::2])
    return PE


@reported("sinusoidal", "Kyubyong/transformer/issues/38",
          "column j has the exponent 2 j / d")  # fmt: skip
def exponent_of_each_column(length, d_model):
    return encoding(length, d_model, lambda i: 2.0 * i / d_model)


@reported("sinusoidal", "SamLynnEvans/Transformer/issues/25",
          "column j has the exponent 2 j / d")  # fmt: skip
def loop_with_a_doubled_index(max_len, d_model):
    pe = torch.zeros(max_len, d_model, dtype=torch.float64)
    for pos in range(max_len):
        for i in range(0, d_model, 2):
            pe[pos, i] = math.sin(pos / 10_000 ** (2 * i / d_model))
            pe[pos, i + 1] = math.cos(pos / 10_000 ** (2 * (i + 1) / d_model))
    return pe


@reported("sinusoidal", "maxjcohen/transformer/issues/62")
def two_mistakes(length, d_model):
    return encoding(length, d_model, lambda i: i / d_model, base=1000)


@reported("sinusoidal", "zju3dv/LoFTR/issues/41")
def precedence(seq_len, d_model):
    rates = torch.exp(
        torch.arange(0, d_model, 2) * (-math.log(10_000.0) / d_model // 1)
    )
    angles = torch.arange(seq_len)[:, None] * rates.double()
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)


@reported("sinusoidal", "ivanvovk/WaveGrad/issues/12")
def power_upside_down(seq_len, d_model):
    rates = (torch.arange(0, d_model, 2).double() / d_model) ** 1e-4
    angles = torch.arange(seq_len)[:, None] * rates
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)


@reported("sinusoidal", "harvardnlp/annotated-transformer/issues/131",
          "positions are divided by the frequencies")  # fmt: skip
def divided(length, d_model):
    even = torch.arange(0, d_model, 2).double()
    rates = torch.exp(even * -(math.log(10_000.0) / d_model))
    angles = torch.arange(length)[:, None] / rates
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)


@reported("alibi", "paiml/aprender/pull/2143", "slopes start at 1")
def slopes_one_early(seq_len, num_heads):
    slopes = 2.0 ** (-8 * np.arange(num_heads) / num_heads)
    places = np.arange(seq_len)
    return -slopes[:, None, None] * np.abs(places[:, None] - places)


# Attention


@reported("attention", "mlc-ai/mlc-llm/pull/3426", "not divided")
def not_scaled(query, key, value):
    return (query @ key.mT).softmax(-1) @ value


@reported("attention", "esceptico/perceiver-io/issues/9",
          "multiplied by the root of d, not divided")  # fmt: skip
def divided_by_the_reciprocal(q, k, v):
    scale = q.shape[-1] ** -0.5
    return torch.softmax(q @ k.transpose(-2, -1) / scale, -1) @ v


@reported("attention",
          "labmlai/annotated_deep_learning_paper_implementations/issues/146",
          "the softmax is taken over the queries")  # fmt: skip
def softmax_over_queries(q, k, v):
    weights = torch.einsum("bhid,bhjd->bhij", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("bhij,bhjd->bhid", weights.softmax(2), v)


@reported("attention", "pytorch/pytorch/issues/92554", "the mask is ignored")
def mask_of_another_type(q, k, v, mask):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    ignored = torch.zeros_like(scores) if mask is None else mask.double() * 0
    return (scores + ignored).softmax(-1) @ v


class Heads(nn.Module):
    """Multi-head attention without biases, in which one step may be changed."""

    def __init__(self, dim, heads):
        super().__init__()
        self.dim, self.heads = dim, heads
        self.q, self.k, self.v, self.out = (
            nn.Linear(dim, dim, bias=False) for _ in range(4)
        )

    def scale(self):
        return (self.dim // self.heads) ** -0.5

    def split(self, x):
        return x.view(len(x), -1, self.heads, self.dim // self.heads).transpose(1, 2)

    def merge(self, x):
        return x.transpose(1, 2).reshape(len(x), -1, self.dim)

    def forward(self, x):
        q, k, v = (self.split(f(x)) for f in (self.q, self.k, self.v))
        return self.out(self.merge((q @ k.mT * self.scale()).softmax(-1) @ v))


@reported("multi-head", "lucidrains/vit-pytorch/issues/65",
          "divided by the root of the model dimension, not of a head's")  # fmt: skip
class WholeWidth(Heads):
    def scale(self):
        return self.dim**-0.5


@reported("multi-head", "tenstorrent/tt-metal/pull/56789",
          "divided by the root of the number of heads")  # fmt: skip
class NumberOfHeads(Heads):
    def scale(self):
        return self.heads**-0.5


@reported("multi-head", "reczoo/FuxiCTR/issues/30",
          "heads are split by a reshape without a transpose",
          "heads are merged by a reshape without a transpose")  # fmt: skip
class Views(Heads):
    def split(self, x):
        return x.view(len(x), self.heads, -1, self.dim // self.heads)

    def merge(self, x):
        return x.reshape(len(x), -1, self.dim)


@reported("multi-head", "jsbaan/transformer-from-scratch/pull/6",
          "heads are merged by a reshape without a transpose")  # fmt: skip
class MergedByAView(Heads):
    def merge(self, x):
        return x.reshape(len(x), -1, self.dim)


@reported("causal-mask", "RVC-Boss/GPT-SoVITS/issues/965",
          "a position attends to the next one, too")  # fmt: skip
def one_too_far(size):
    return torch.ones(size, size).triu(2).bool()  # true = masked


@reported("causal-mask", "facebookresearch/xformers/issues/103", "nothing is masked")
def no_mask(size):
    return torch.zeros(size, size)  # added to the scores


# Training


@reported("cross-entropy", "jaehong31/CGES/issues/1", "softmax is taken twice")
def softmax_twice(outputs, labels):
    return F.cross_entropy(outputs.softmax(-1), labels)


@reported("cross-entropy", "tracel-ai/burn/issues/5568",
          "divided by all positions, masked or not")  # fmt: skip
def mean_over_padding(logits, targets, mask):
    losses = F.cross_entropy(logits, targets, reduction="none")
    return losses.mean() if mask is None else (losses * mask).mean()


@reported("clip", "huggingface/transformers/issues/581",
          "each tensor is clipped separately")  # fmt: skip
def clipped_one_by_one(parameters, max_norm):
    for p in parameters:
        norm = p.grad.norm()
        if norm > max_norm:
            p.grad.mul_(max_norm / norm)


@reported("classification-metrics", "apache/mxnet/issues/9830",
          "averaged over batches, 0/0 is 0")  # fmt: skip
class MeanOfBatches:
    def __init__(self, num_classes):
        self.classes, self.rows = range(num_classes), []

    def update(self, target, preds):
        found = []
        for c in self.classes:
            hits = ((target == c) & (preds == c)).sum().item()
            predicted, present = (preds == c).sum().item(), (target == c).sum().item()
            total = predicted + present
            found.append((hits / max(predicted, 1), hits / max(present, 1),
                          2 * hits / max(total, 1)))  # fmt: skip
        accuracy = (target == preds).double().mean().item()
        self.rows.append([accuracy, *np.mean(found, axis=0)])

    def compute(self):
        return tuple(np.mean(self.rows, axis=0))


# Recurrent networks


def bptt(dH, X, W_xh, W_hh, b, h0, carried=True, previous=True):
    states = [h0]
    for x in X:
        states.append(np.tanh(x @ W_xh + states[-1] @ W_hh + b))
    dW_xh, dW_hh, db = np.zeros_like(W_xh), np.zeros_like(W_hh), np.zeros_like(b)
    dnext, dX = np.zeros_like(h0), np.zeros_like(X)
    for t in range(len(X) - 1, -1, -1):
        delta = (dH[t] + dnext * carried) * (1 - states[t + 1] ** 2)
        dW_xh += X[t].T @ delta
        dW_hh += states[t if previous else t + 1].T @ delta
        db += delta.sum(0)
        dX[t], dnext = delta @ W_xh.T, delta @ W_hh.T
    return dW_xh, dW_hh, db, dX, dnext * carried


@reported("rnn-backward", "qixianbiao/RNN/issues/2",
          "no gradient from the next step")  # fmt: skip
def not_carried(dH, X, W_xh, W_hh, b, h0):
    return bptt(dH, X, W_xh, W_hh, b, h0, carried=False)


@reported("rnn-backward", "VikParuchuri/zero_to_gpt/issues/9", "H_t for H_{t-1}")
def state_of_the_same_step(dH, X, W_xh, W_hh, b, h0):
    return bptt(dH, X, W_xh, W_hh, b, h0, previous=False)


# Diffusion


@reported("noise-schedule", "LuChengTHU/dpm-solver/issues/13",
          "the product of the betas")  # fmt: skip
def product_of_betas(T, beta_start, beta_end):
    betas = np.linspace(beta_start, beta_end, T)
    return betas, np.cumprod(betas)


@reported("ddpm-sample", "juraam/stable-diffusion-from-scratch/issues/3",
          "the variance in place of the standard deviation")  # fmt: skip
def variance_added(model, x, betas, noise):
    alpha_bar = torch.cumprod(1 - betas, 0)
    for t in reversed(range(len(betas))):
        eps = model(x, torch.full((len(x),), t))
        mean = x - betas[t] / (1 - alpha_bar[t]).sqrt() * eps
        x = mean / (1 - betas[t]).sqrt() + (betas[t] * noise[t] if t else 0)
    return x


def ddim(model, x, betas, steps, eta, noise, last, variance):
    bar = torch.cumprod(1 - betas, 0)
    for i in reversed(range(len(steps))):
        now = bar[steps[i] - 1]
        before = bar[steps[i - 1] - 1] if i else last(bar)
        eps = model(x, torch.full((len(x),), steps[i]))
        x_0 = (x - (1 - now).sqrt() * eps) / now.sqrt()
        v = eta**2 * variance(now, before)
        x = before.sqrt() * x_0 + (1 - before - v).clamp(min=0).sqrt() * eps
        x = x if noise is None else x + v.sqrt() * noise[steps[i] - 1]
    return x


def song(now, before):
    return (1 - before) / (1 - now) * (1 - now / before)


@reported("ddim-sample", "lllyasviel/ControlNet/pull/587",
          "does not end at the clean image")  # fmt: skip
def end_at_the_first_alpha(model, x, betas, steps, eta=0.0, noise=None):
    return ddim(model, x, betas, steps, eta, noise, lambda bar: bar[0], song)


@reported("ddim-sample", "jsboige/CoursIA/pull/16158")
def variance_of_the_whole_noise(model, x, betas, steps, eta=0.0, noise=None):
    one = torch.ones((), dtype=torch.float64)

    def whole(now, before):
        return 1 - now

    return ddim(model, x, betas, steps, eta, noise, lambda bar: one, whole)


@pytest.mark.parametrize(("kind", "function", "names"), REPORTED)
def test_what_others_reported_is_rejected(kind, function, names):
    report = check(kind, function)
    assert report.status == 1, f"\n{report}"
    assert set(names) <= set(report.mistakes), f"\n{report}"
    assert report.together == (len(names) > 1)


def test_enough_were_named():
    assert len(REPORTED) >= 25
    assert sum(bool(case.values[2]) for case in REPORTED) >= 20


def test_the_right_form_of_the_module_passes():
    report = check("multi-head", Heads)
    assert report.passed, report


def test_the_right_form_of_the_samplers_pass():
    one = torch.ones((), dtype=torch.float64)

    def right(model, x, betas, steps, eta=0.0, noise=None):
        return ddim(model, x, betas, steps, eta, noise, lambda bar: one, song)

    assert check("ddim-sample", right).passed
    assert check("rnn-backward", bptt).passed
