"""`rotary` against readable loops and two other libraries."""

import copy
import inspect
import io
import math
import re
import subprocess
import sys

import pytest
import torch

from dian.positions.rotary import (
    RotaryEmbedding,
    consecutive_rotation_factors,
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


@pytest.mark.parametrize("lead", [(), (2,), (3, 2)])
def test_rows_of_odd_strides(generator, lead):
    """They cannot be viewed as complex numbers."""
    x = torch.randn(*lead, 4, D + 1, generator=generator)[..., :D]
    assert x.stride(-2) % 2
    torch.testing.assert_close(rotate(x, OMEGA), rotate(x.contiguous(), OMEGA))


def test_consecutive_positions_start_at_zero():
    found = consecutive_rotation_factors(N, OMEGA)
    torch.testing.assert_close(found, rotation_factors(torch.arange(N), OMEGA))


@pytest.mark.parametrize("layout", ["interleaved", "half"])
def test_frequencies_follow_the_input_to_its_device(layout):
    for positions in (None, torch.arange(N)):
        x = torch.ones(BATCH, N, D, device="meta")
        assert rotate(x, OMEGA, positions, layout=layout).is_meta


@pytest.mark.parametrize("layout", ["interleaved", "half"])
def test_the_gradient_is_rotated_back(x, layout):
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


def test_an_empty_batch_and_an_empty_sequence():
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
        whole = decay_bound(torch.full((2, 3), distance), OMEGA)
        torch.testing.assert_close(whole, torch.full((2, 3), found).double())


@pytest.mark.parametrize("layout", ["interleaved", "half"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_result_may_go_into_a_given_tensor(x, layout, dtype):
    x = x.to(dtype)
    expected = rotate(x, OMEGA, offset=3, layout=layout)
    odd = torch.zeros(x.numel() + 1, dtype=dtype)[1:].view(x.shape)  # at an odd place
    for out in (torch.zeros_like(x), odd, x.mT.contiguous().mT.zero_(), x):
        found = rotate(x.clone(), OMEGA, offset=3, layout=layout, out=out)
        assert found is out
        assert torch.equal(out, expected)
    x = rotate(x, -OMEGA, offset=3, layout=layout)
    assert rotate(x, OMEGA, offset=3, layout=layout, out=x) is x  # in place


def test_in_place_needs_no_memory_for_the_result():
    x = torch.ones(4, 3, 512, 64)

    def allocated(out):
        with torch.profiler.profile(profile_memory=True) as profile:
            rotate(x, frequencies(64), out=out)
        return sum(max(0, e.self_cpu_memory_usage) for e in profile.key_averages())

    table = allocated(x)
    assert table < x.nbytes
    assert allocated(None) == pytest.approx(table + x.nbytes, rel=0.01)


@pytest.mark.parametrize("layout", ["interleaved", "half"])
def test_the_layer_rotates_queries_and_keys(x, layout):
    layer = RotaryEmbedding(D, base=500.0, layout=layout)
    q, k = x, x[:, :1] + 1  # grouped keys
    found = layer(q, k, offset=3)
    for one, expected in zip(found, (q, k), strict=True):
        omega = frequencies(D, 500.0)
        assert torch.equal(one, rotate(expected, omega, offset=3, layout=layout))
    assert torch.equal(layer.rotate(q, 3), found[0])


def test_position_ids_belong_to_the_first_axis(x):
    """Also where there are as many heads as sequences."""
    layer, square = RotaryEmbedding(D), x[:, :BATCH]
    ids = torch.tensor([[9 * i + m for m in range(N)] for i in range(BATCH)])
    found, _ = layer(square, square, ids)
    for sequence, places, rotated in zip(square, ids, found, strict=True):
        assert torch.equal(rotated, rotate(sequence, OMEGA, places))
    alike, _ = layer(square, square, torch.arange(N), offset=5)
    torch.testing.assert_close(alike, layer(square, square, offset=5)[0])
    shared, _ = layer(square, square, torch.arange(N)[None], offset=5)
    assert torch.equal(shared, alike)


@pytest.mark.parametrize("ids", [None, torch.arange(BATCH * N).view(BATCH, N)])
def test_heads_may_come_after_positions(x, ids):
    expected, _ = RotaryEmbedding(D)(x, x, ids)
    turned = x.transpose(1, 2)
    found, _ = RotaryEmbedding(D, seq_dim=1)(turned, turned, ids)
    assert torch.equal(found.transpose(1, 2), expected)


def test_positions_may_come_first(x):
    first = x.movedim(-2, 0)
    found, _ = RotaryEmbedding(D, seq_dim=0)(first, first)
    assert torch.equal(found.movedim(0, -2), rotate(x, OMEGA))


def test_the_layer_scales_and_takes_other_frequencies(x):
    layer = RotaryEmbedding(D, omega=OMEGA / 4, attention_factor=2.0)
    for ids in (None, torch.arange(N)):
        found, _ = layer(x, x, ids)
        torch.testing.assert_close(found, 2 * rotate(x, OMEGA / 4))


def test_the_layer_describes_itself():
    described = repr(RotaryEmbedding(D, layout="half", seq_dim=1))
    assert described == "RotaryEmbedding(22, layout='half', seq_dim=1)"


def test_the_layer_in_place(x):
    expected = RotaryEmbedding(D)(x, x + 1)
    q, k = x.clone(), x + 1
    found = RotaryEmbedding(D, inplace=True)(q, k)
    for a, b, c in zip(found, (q, k), expected, strict=True):
        assert a.data_ptr() == b.data_ptr()
        assert torch.equal(b, c)


def test_the_layer_can_be_saved_copied_and_cast(x):
    """And its angles stay exact in bfloat16."""
    layer, file = torch.nn.ModuleDict({"rotary": RotaryEmbedding(D)}), io.BytesIO()
    assert not layer.state_dict()
    torch.save(layer, file)
    file.seek(0)
    ids = torch.tensor([256, 257])
    q = torch.ones(2, D)
    expected = rotate(q, OMEGA, ids)
    for other in (torch.load(file, weights_only=False), copy.deepcopy(layer)):
        found, _ = other.bfloat16()["rotary"](q, q, ids)
        assert torch.equal(found, expected)


COMPILED = """
import torch
from dian.positions.rotary import RotaryEmbedding

def backend(graph, _):
    for node in graph.graph.nodes:
        value = node.meta.get("example_value")
        assert not (isinstance(value, torch.Tensor) and value.is_complex()), node
    return graph

q, k = torch.randn(2, 3, 5, 7, 22)
ids = torch.arange(21).view(3, 7)
for layout in ("interleaved", "half"):
    layer = RotaryEmbedding(22, layout=layout)
    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    for options in ({}, {"offset": 300}, {"position_ids": ids}):
        for ours, theirs in zip(compiled(q, k, **options), layer(q, k, **options)):
            torch.testing.assert_close(ours, theirs)
"""


def test_the_layer_compiles_to_one_graph_without_complex_numbers():
    """In a process without shape checks, which torch.compile cannot see through."""
    call = [sys.executable, "-W", "error", "-c", COMPILED]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


LAYER = RotaryEmbedding(D)
X = torch.ones(3, 5, N, D)


def rotated(x, *arguments):
    # Without the shape checks of the tests, so that this is what a user sees.
    return inspect.unwrap(rotate)(x, OMEGA, *arguments)


def layer(*arguments):
    return inspect.unwrap(RotaryEmbedding.rotate)(LAYER, X, 0, *arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rotated(torch.ones(N, D + 2)), "x must be (..., n, 22) for 11 freq"),
        (lambda: rotated(torch.ones(N, 21)), "got torch.float32 of shape (7, 21)"),
        (lambda: rotated(torch.ones(D)), "got torch.float32 of shape (22,)"),
        (lambda: inspect.unwrap(rotate_half_split)(X[..., 1:], OMEGA), "x must be"),
        (lambda: rotated(X, 5), "positions must be a tensor of shape (7,), (batch, 7)"),
        (lambda: layer(5), "positions must be a tensor of shape (7,), .* got 5"),
        (lambda: layer(torch.arange(N + 1)), "got torch.int64 of shape (8,)"),
        (lambda: layer(torch.tensor(5)), "got torch.int64 of shape ()"),
        (lambda: layer(torch.ones(3, 1)), "got torch.float32 of shape (3, 1)"),
        (lambda: layer(torch.ones(4, N)), "got torch.float32 of shape (4, 7)"),
        (lambda: layer(torch.ones(1, 3, 5, N)), "got torch.float32 of shape (1, 3, 5"),
        (lambda: rotated(X, None, 0, "pairs"), "interleaved, half, got 'pairs'"),
        (lambda: rotated(X, None, 0, "half", X[0]), "out must have the shape (3, 5"),
        (lambda: half_split_order(7), "d must be positive and even: .* got 7"),
        (lambda: RotaryEmbedding(7), "d must be positive and even: .* got 7"),
        (lambda: RotaryEmbedding(D, layout="pairs"), "interleaved, half, got 'pairs'"),
        (lambda: RotaryEmbedding(D, inplace=True)(X, X), "q and k must be two ten"),
        (lambda: rotated(X.long()), "x must be floating-point numbers, got torch.int"),
    ],
)
def test_wrong_arguments(call, message):
    pattern = ".*".join(map(re.escape, message.split(".*")))
    with pytest.raises(ValueError, match=pattern):
        call()
