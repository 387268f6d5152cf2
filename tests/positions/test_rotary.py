"""`rotary` against readable loops and two other libraries."""

import inspect
import math

import pytest
import torch

from dian.positions.rotary import (
    decay_bound,
    half_split_order,
    rotate,
    rotate_half_split,
    rotation_factors,
    rotation_matrix,
)
from dian.positions.sinusoidal import frequencies

# Distinct primes, but for the width, which must be even.
BATCH, HEADS, N, D = 3, 5, 7, 22
OMEGA = frequencies(D)


@pytest.fixture
def x(generator):
    return torch.randn(BATCH, HEADS, N, D, generator=generator, dtype=torch.float64)


def rotate_by_loops(x, positions, base=10_000.0):
    """One pair at a time, in plain Python arithmetic; neighbours are pairs."""
    rows = x.reshape(-1, N, D).tolist()
    for sequence in rows:
        for m, row in zip(positions, sequence, strict=True):
            for i in range(D // 2):
                a, b = row[2 * i], row[2 * i + 1]
                angle = m * base ** (-2 * i / D)
                row[2 * i] = a * math.cos(angle) - b * math.sin(angle)
                row[2 * i + 1] = a * math.sin(angle) + b * math.cos(angle)
    return torch.tensor(rows, dtype=torch.float64).view(x.shape)


def test_equals_the_loop(x):
    expected = rotate_by_loops(x, range(N))
    torch.testing.assert_close(rotate(x, OMEGA), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("wrong", [frequencies(D, 500.0), -OMEGA])
def test_the_comparison_can_fail(x, wrong):
    expected = rotate_by_loops(x, range(N))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(rotate(x, wrong), expected, rtol=0, atol=1e-14)


def test_the_matrix_does_the_same(x):
    R = rotation_matrix(torch.arange(N), OMEGA)
    assert R.shape == (N, D, D)
    found = (R @ x[..., None]).squeeze(-1)
    torch.testing.assert_close(found, rotate(x, OMEGA), rtol=0, atol=1e-14)


def test_the_layouts_are_one_permutation_apart(x):
    order = half_split_order(D)
    pairs = rotate(x, OMEGA)
    for form in (rotate_half_split, lambda *a: rotate(*a, layout="half")):
        halves = form(x[..., order], OMEGA)
        torch.testing.assert_close(halves, pairs[..., order], rtol=0, atol=1e-14)
        torch.testing.assert_close(halves[..., order.argsort()], pairs)
        assert (form(x, OMEGA) - pairs).abs().max() > 0.1  # they must not be mixed


def test_equals_llama(generator):
    """Of transformers: halves, float32 angles."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import (
        LlamaRotaryEmbedding,
        apply_rotary_pos_emb,
    )

    base = 5_000.0
    config = LlamaConfig(
        hidden_size=HEADS * D,
        num_attention_heads=HEADS,
        rope_parameters={"rope_type": "default", "rope_theta": base},
    )
    q, k = torch.randn(2, BATCH, HEADS, N, D, generator=generator)
    positions = torch.randint(2000, (BATCH, N), generator=generator)
    cos, sin = LlamaRotaryEmbedding(config)(q, positions)
    theirs = apply_rotary_pos_emb(q, k, cos, sin)
    omega = frequencies(D, base)
    for ours, expected in zip((q, k), theirs, strict=True):
        found = rotate(ours, omega, positions[:, None], layout="half")
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
        few = positions < 100  # where float32 angles are good
        torch.testing.assert_close(
            found.transpose(1, 2)[few], expected.transpose(1, 2)[few], rtol=0, atol=3e-5
        )


def test_equals_rotary_embedding_torch(generator):
    """Neighbouring pairs, as in the paper."""
    from rotary_embedding_torch import RotaryEmbedding

    x = torch.randn(BATCH, HEADS, N, D, generator=generator)
    peer = RotaryEmbedding(D, cache_if_possible=False)
    for offset in (0, 11):
        expected = peer.rotate_queries_or_keys(x, offset=offset)
        found = rotate(x, OMEGA, offset=offset)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", ["interleaved", "half"])
def test_an_offset_is_where_the_cache_ends(x, layout):
    whole = rotate(x, OMEGA, layout=layout)
    for m in range(N):
        step = rotate(x[..., m : m + 1, :], OMEGA, offset=m, layout=layout)
        expected = whole[..., m : m + 1, :]
        torch.testing.assert_close(step, expected, rtol=0, atol=1e-15)


def test_positions_may_differ_in_the_batch_and_be_negative_or_between(x, generator):
    positions = torch.rand(BATCH, 1, N, generator=generator) * 100 - 50
    found = rotate(x, OMEGA, positions)
    for sequence, places, expected in zip(x, positions, found, strict=True):
        looped = rotate_by_loops(sequence, places[0].double().tolist())
        torch.testing.assert_close(expected, looped, rtol=0, atol=1e-13)


@pytest.mark.parametrize("layout", ["interleaved", "half"])
def test_views_of_any_stride(x, layout):
    wide = torch.cat([x[..., :1], x, x[..., :2]], dim=-1)
    views = [wide[..., 1 : D + 1], x.transpose(1, 2).contiguous().transpose(1, 2)]
    views += [x.mT.contiguous().mT, x.expand(2, *x.shape)[1]]
    for view in views:
        before = view.clone()
        found = rotate(view, OMEGA, layout=layout)
        torch.testing.assert_close(found, rotate(x, OMEGA, layout=layout))
        assert torch.equal(view, before)  # nothing is changed in place


@pytest.mark.parametrize("layout", ["interleaved", "half"])
def test_the_gradient_is_turned_back(x, layout):
    x.requires_grad_()
    g = torch.randn_like(x)
    (rotate(x, OMEGA, offset=5, layout=layout) * g).sum().backward()
    expected = rotate(g, -OMEGA, offset=5, layout=layout)
    torch.testing.assert_close(x.grad, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("form", [rotate, rotate_half_split])
def test_angles_are_right_in_every_type(form, dtype, generator):
    x = torch.randn(N, D, generator=generator).to(dtype)
    found = form(x, OMEGA, offset=131_072)
    assert found.dtype == dtype
    expected = form(x.double(), OMEGA, offset=131_072)
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(found.double(), expected, rtol=step, atol=2 * step)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_position_257_is_not_256(dtype):
    x = torch.ones(2, D, dtype=dtype)
    found = rotate(x, OMEGA, torch.tensor([256, 257]))
    assert (found[0] - found[1]).abs().max() > 0.5


def test_a_width_of_none_and_a_sequence_of_none():
    assert rotate(torch.ones(0, N, D), OMEGA).shape == (0, N, D)
    assert rotate(torch.ones(BATCH, 0, D), OMEGA).shape == (BATCH, 0, D)


def test_the_bound_by_loops():
    for distance in (0, 1, 18, 1000):
        partial, total = 0j, 0.0
        for omega in OMEGA.tolist():
            partial += complex(math.cos(distance * omega), math.sin(distance * omega))
            total += abs(partial)
        found = decay_bound(torch.tensor([distance]), OMEGA).item()
        assert found == pytest.approx(2 / D * total, rel=1e-12)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (rotate, (torch.ones(N, D + 2), OMEGA), r"\(\.\.\., n, 22\), .* \(7, 24\)"),
        (rotate, (torch.ones(N, 21), OMEGA), r"\(\.\.\., n, 22\), .* got \(7, 21\)"),
        (rotate, (torch.ones(D), OMEGA), r"\(\.\.\., n, 22\), .* got \(22,\)"),
        (rotate_half_split, (torch.ones(N, 2), OMEGA), r"got \(7, 2\)"),
        (
            rotate,
            (torch.ones(N, D), OMEGA, torch.arange(N + 1)),
            r"one entry for each of 7 vectors",
        ),
        (
            rotate,
            (torch.ones(N, D), OMEGA, None, 0, "half"),
            "layout must be one of pairs, halves, got 'half'",
        ),
        (half_split_order, (7,), "d must be positive and even: .* got 7"),
    ],
)
def test_errors(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(function)(*arguments)


def test_the_angles_do_not_obey_a_module(x):
    """Cast the module, and the table stays exact: there is none to be cast."""
    from functools import partial

    layer = torch.nn.Linear(D, D).bfloat16()
    layer.rotate = partial(rotate, omega=OMEGA)
    layer = layer.half().bfloat16()
    positions = torch.tensor([256, 257])
    found = layer.rotate(torch.ones(2, D), positions=positions)
    assert torch.equal(found, rotate(torch.ones(2, D), OMEGA, positions))
    assert rotation_factors(positions, OMEGA.float()).dtype == torch.complex64


def test_positions_of_a_batch_are_not_taken_for_those_of_heads():
    x = torch.ones(2, 2, 3, 4)
    with pytest.raises(ValueError, match="as many axes"):
        rotate(x, torch.ones(2), torch.zeros(2, 3))
