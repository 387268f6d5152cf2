"""Our autograd functions among the tools of autograd: peers are the plain formulas."""

import pickle

import pytest
import torch
from torch.nn import functional as F

from dian.attention.blockwise import online_attention
from dian.attention.dot_product import attention, scaled_dot_product_attention
from dian.attention.multi_head import MultiHeadAttention
from dian.attention.transformer import Encoder
from dian.positions.registry import ENCODINGS, encoding
from dian.positions.rotary import rotation_matrix
from dian.positions.sinusoidal import frequencies, offset_product
from dian.rnn.recurrence import ACTIVATIONS, RNN, rnn

pytestmark = pytest.mark.usefixtures("as_users_run")
ATTENTION = (attention, online_attention)


def by_formula(Q, K, V, **options):
    return scaled_dot_product_attention(Q, K, V, **options)[0]


def by_loop(X, W_xh, W_hh, b_h, H_0):
    states = [H_0]
    for X_t in X:
        states.append(torch.tanh(X_t @ W_xh + states[-1] @ W_hh + b_h))
    return torch.stack(states[1:]), states[-1]


def normal(*shapes, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draws = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return [x.to(dtype).requires_grad_() for x in draws]


def of_rnn(dtype=torch.float64):
    return normal((5, 2, 3), (3, 4), (4, 4), (4,), (2, 4), dtype=dtype)


def of_attention(dtype=torch.float64):
    return normal((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 6), dtype=dtype)


CASES = {
    "attention": (attention, by_formula, of_attention),
    "online_attention": (online_attention, by_formula, of_attention),
    "rnn": (rnn, by_loop, of_rnn),
}
cases = pytest.mark.parametrize(("ours", "plain", "inputs"), CASES.values(), ids=CASES)


def total(output):
    return sum(x.sum() for x in output) if isinstance(output, tuple) else output.sum()


def penalty(function, inputs):
    """The gradient of a loss plus its squared gradient, as in a gradient penalty."""
    out = total(function(*inputs))
    first = torch.autograd.grad(out, inputs, create_graph=True)
    return torch.autograd.grad(out + sum(x.square().sum() for x in first), inputs)


@cases
def test_the_gradient_of_a_gradient(ours, plain, inputs):
    found, expected = (penalty(f, inputs()) for f in (ours, plain))
    torch.testing.assert_close(found, expected)
    given = [x.detach()[..., :2, :2].clone().requires_grad_() for x in of_attention()]
    if ours is not rnn:
        assert torch.autograd.gradgradcheck(ours, given)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_gradient_of_a_gradient_with_every_activation(activation):
    inputs = normal((3, 2, 2), (2, 3), (3, 3), (3,), (2, 3))
    assert torch.autograd.gradgradcheck(lambda *x: rnn(*x, activation), inputs)


def test_one_tensor_may_be_queries_keys_and_values():
    X = normal((2, 5, 4))[0]
    for ours in ATTENTION:
        found, expected = (
            penalty(lambda X, f=f: f(X, X, X), [X]) for f in (ours, by_formula)
        )
        torch.testing.assert_close(found, expected)


@cases
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("inside", [False, True])
def test_autocast(ours, plain, inputs, dtype, inside):
    """The result has the dtype of autocast, and the error is its rounding alone."""
    given, wide = inputs(torch.float32), inputs()
    expected = plain(*wide)
    exact = torch.autograd.grad(total(expected), wide)
    with torch.autocast("cpu", dtype):
        output = ours(*given)
        if inside:
            found = torch.autograd.grad(total(output), given)
    if not inside:
        found = torch.autograd.grad(total(output), given)
    first = output[0] if isinstance(output, tuple) else output
    assert first.dtype == dtype
    eps = torch.finfo(dtype).eps
    for a, b in zip(found, exact, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() <= eps * b.norm() + 1e-5


def test_layers_under_autocast():
    for name in ENCODINGS:
        generator = torch.Generator().manual_seed(0)
        encoder = Encoder(
            8, 2, 1, generator=generator, **encoding(name, 8, 2, n_position=5)
        )
        X = torch.randn(2, 5, 8, generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            encoder(X).sum().backward()
        assert all(p.grad.isfinite().all() for p in encoder.parameters())
    layer = RNN(3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.ones(5, 2, 3))[1].sum().backward()
    assert layer.W_hh.grad.isfinite().all()


@pytest.mark.parametrize("ours", ATTENTION)
@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 4, 5, 8), (2, 1, 6, 8), (2, 1, 6, 8)),
        ((1, 5, 8), (3, 6, 8), (3, 6, 8)),
        ((5, 8), (3, 6, 8), (1, 6, 7)),
        ((2, 1, 5, 8), (1, 4, 6, 8), (2, 4, 6, 8)),
    ],
)
def test_shared_axes_get_the_summed_gradient(ours, shapes):
    outputs = [f(*normal(*shapes)) for f in (ours, by_formula)]
    torch.testing.assert_close(*outputs)
    found, expected = (
        torch.autograd.grad(f(*x).square().sum(), x)
        for f, x in ((f, normal(*shapes)) for f in (ours, by_formula))
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("ours", ATTENTION)
def test_axes_that_do_not_fit_are_refused(ours):
    with pytest.raises(ValueError, match="share their leading axes, got"):
        ours(*(x.detach() for x in normal((2, 5, 8), (3, 6, 8), (3, 6, 8))))


@pytest.mark.parametrize("shape", [(0, 5, 3, 7), (2, 0, 3, 7), (2, 5, 0, 7)])
def test_nothing_to_attend_to(shape):
    n_batch, n, m, _ = shape
    for ours in ATTENTION:
        inputs = normal((n_batch, n, 4), (n_batch, m, 4), (n_batch, m, 6))
        output = ours(*inputs)
        gradients = torch.autograd.grad(output.sum(), inputs)
        assert output.shape == (n_batch, n, 6)
        assert all(not g.any() for g in gradients[:2])
    layer = MultiHeadAttention(8, 2)
    source = torch.ones(n_batch, m, 8)
    assert layer(torch.ones(n_batch, n, 8), source).shape == (n_batch, n, 8)


def test_a_recurrence_of_no_sequences():
    inputs = normal((5, 0, 3), (3, 4), (4, 4), (4,), (0, 4))
    states, last = rnn(*inputs)
    assert states.shape == (5, 0, 4)
    gradients = torch.autograd.grad(states.sum() + last.sum(), inputs)
    assert [g.shape for g in gradients] == [x.shape for x in inputs]


@cases
def test_transforms_of_torch_func(ours, plain, inputs):
    given = [x.detach() for x in inputs()]
    places = tuple(range(len(given)))
    found, expected = (
        torch.func.grad(lambda *x, f=f: total(f(*x)), places)(*given)
        for f in (ours, plain)
    )
    torch.testing.assert_close(found, expected)
    batch = [torch.stack([x, 2 * x]) for x in given]
    found, expected = (torch.func.vmap(f)(*batch) for f in (ours, plain))
    torch.testing.assert_close(found, expected)


@cases
def test_a_batch_of_gradients(ours, plain, inputs):
    def both(function):
        given = inputs()
        output = function(*given)
        first = output[0] if isinstance(output, tuple) else output
        grads = torch.stack([torch.ones_like(first), first.detach()])
        return torch.autograd.grad(first, given, grads, is_grads_batched=True)

    torch.testing.assert_close(both(ours), both(plain))


@cases
def test_compiled(ours, plain, inputs):
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    given = inputs()
    found = torch.autograd.grad(total(compiled(*given)), given)
    torch.testing.assert_close(found, torch.autograd.grad(total(plain(*given)), given))


def test_masks_under_transforms():
    Q, K, V = (x.detach() for x in of_attention())
    mask = torch.ones(5, 7, dtype=torch.bool).tril()
    for ours in ATTENTION:
        found = torch.func.vmap(lambda *x, f=ours: f(*x, mask=mask))(Q, K, V)
        torch.testing.assert_close(found, F.scaled_dot_product_attention(Q, K, V, mask))


@cases
def test_another_device(ours, plain, inputs):
    given = [x.detach().to("meta").requires_grad_() for x in inputs()]
    gradients = torch.autograd.grad(total(ours(*given)), given)
    assert {g.device.type for g in gradients} == {"meta"}


def test_positions_on_another_device():
    positions = torch.arange(5, device="meta")
    assert offset_product(positions, 8).device.type == "meta"
    assert rotation_matrix(positions, frequencies(8)).device.type == "meta"


@pytest.mark.parametrize("name", ENCODINGS)
def test_networks_can_be_sent_to_another_process(name):
    network = Encoder(8, 2, 1, **encoding(name, 8, 2, n_position=5))
    X = torch.ones(1, 5, 8)
    assert torch.equal(pickle.loads(pickle.dumps(network))(X), network(X))
