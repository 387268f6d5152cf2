"""`initialization`: distributions, and determinism from the generator."""

import pytest
import torch
from torch import nn

from dian.rnn import initialization

N_IN, N_OUT, GAIN = 23, 31, 1.7


def empty(*shape):
    return torch.empty(*shape, dtype=torch.float64)


@pytest.mark.parametrize(
    "fill", initialization.INITS.values(), ids=initialization.INITS
)
def test_it_fills_in_place_from_the_generator_alone(fill):
    before = torch.get_rng_state()
    W = empty(N_IN, N_OUT)
    found = fill(W, generator=torch.Generator().manual_seed(1))
    assert found is W
    again = fill(empty(N_IN, N_OUT), generator=torch.Generator().manual_seed(1))
    assert torch.equal(W, again)
    assert torch.equal(torch.get_rng_state(), before)
    other = fill(empty(N_IN, N_OUT), generator=torch.Generator().manual_seed(2))
    assert torch.equal(W, other) == (fill is initialization.identity_)


@pytest.mark.parametrize(
    "fill", initialization.INITS.values(), ids=initialization.INITS
)
def test_it_fills_a_parameter(fill):
    parameter = nn.Parameter(empty(N_IN, N_OUT))
    fill(parameter, generator=torch.Generator())
    assert parameter.requires_grad
    assert parameter.is_leaf


@pytest.mark.parametrize("name", initialization.INITS)
def test_half_precision_is_rounded(name):
    """The draws are those of float32."""
    fill = initialization.INITS[name]
    expected = fill(torch.empty(N_IN, N_OUT), generator=torch.Generator())
    W = torch.full((N_IN, N_OUT), torch.nan, dtype=torch.bfloat16)
    assert fill(W, generator=torch.Generator()) is W
    assert torch.equal(W, expected.bfloat16())


@pytest.mark.parametrize(
    "wrong", [torch.ones(3), torch.ones(0, 3), torch.ones(2, 3, dtype=torch.long)]
)
def test_what_is_no_matrix_is_refused(as_users_run, wrong):
    with pytest.raises(ValueError, match="W must be a matrix of floating-point num"):
        initialization.INITS["uniform"](wrong)


def test_uniform_is_the_initialization_of_torch():
    """The bound of torch.nn.RNN is ours, for a square matrix and for a broad one."""
    peer = nn.RNN(N_IN, N_OUT)
    for theirs in (peer.weight_ih_l0, peer.weight_hh_l0):
        W = initialization.uniform_(empty(theirs.shape[1], N_OUT))
        assert W.abs().max().item() == pytest.approx(
            theirs.abs().max().item(), rel=0.02
        )
        assert W.abs().max() <= N_OUT**-0.5


def test_xavier_and_gaussian_have_their_bounds_and_moments(generator):
    W = initialization.xavier_(empty(211, 307), GAIN, generator)
    assert W.abs().max().item() == pytest.approx(GAIN * (6 / 518) ** 0.5, rel=1e-3)
    W = initialization.gaussian_(empty(211, 307), GAIN, generator)
    # within 5 standard errors
    error = (2 / W.numel()) ** 0.5
    assert W.var().item() == pytest.approx(GAIN**2 / 211, rel=5 * error)


@pytest.mark.parametrize("shape", [(11, 11), (13, 7), (7, 13)])
def test_orthogonal_scales_by_the_gain(generator, shape):
    W = initialization.orthogonal_(empty(*shape), GAIN, generator)
    singular = torch.linalg.svdvals(W)
    torch.testing.assert_close(singular, torch.full_like(singular, GAIN))


def test_identity_ignores_the_generator():
    W = initialization.identity_(empty(3, 3), 0.5, torch.Generator().manual_seed(7))
    assert torch.equal(W, 0.5 * torch.eye(3).double())
