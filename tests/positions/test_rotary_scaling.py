"""`rotary_scaling` against the formulas of the papers, and transformers."""

import inspect
import math

import pytest
import torch

from dian.positions.rotary_scaling import (
    ntk_aware,
    position_interpolation,
    yarn,
    yarn_attention_factor,
)
from dian.positions.sinusoidal import frequencies

D, LENGTH = 64, 2048
OMEGA = frequencies(D)


def of_transformers(rope_type, **parameters):
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(
        head_dim=D,
        max_position_embeddings=LENGTH,
        rope_parameters={
            "rope_type": rope_type,
            "rope_theta": 10_000.0,
            "original_max_position_embeddings": LENGTH,
            **parameters,
        },
    )
    return ROPE_INIT_FUNCTIONS[rope_type], config


def test_interpolation_divides_the_positions():
    p = torch.arange(7).double()
    torch.testing.assert_close(
        p[:, None] * position_interpolation(OMEGA, 8.0), (p / 8)[:, None] * OMEGA
    )
    init, config = of_transformers("linear", factor=8.0)
    theirs, _ = init(config, device="cpu")
    torch.testing.assert_close(position_interpolation(OMEGA, 8.0).float(), theirs)


def test_ntk_is_another_base():
    base = 10_000 * 8.0 ** (D / (D - 2))
    torch.testing.assert_close(ntk_aware(OMEGA, 8.0), frequencies(D, base))
    torch.testing.assert_close(ntk_aware(OMEGA, 8.0)[-1], OMEGA[-1] / 8)
    assert ntk_aware(OMEGA, 8.0)[0] == 1


def test_ntk_equals_transformers_and_rotary_embedding_torch():
    """Their "dynamic" scale follows the length: f n / L - (f - 1), with f = 2 here."""
    from rotary_embedding_torch import RotaryEmbedding

    init, config = of_transformers("dynamic", factor=2.0)
    n = 4 * LENGTH
    theirs, _ = init(config, device="cpu", seq_len=n)
    scale = 2 * n / LENGTH - 1
    torch.testing.assert_close(ntk_aware(OMEGA, scale).float(), theirs)
    peer = RotaryEmbedding(D, theta_rescale_factor=scale)
    torch.testing.assert_close(ntk_aware(OMEGA, scale).float(), peer.freqs.detach())


def test_yarn_by_loops():
    s = 8.0
    found = yarn(OMEGA, s, LENGTH)
    for i, omega in enumerate(OMEGA.tolist()):
        wavelength = 2 * math.pi / omega
        r = LENGTH / wavelength
        gamma = 0 if r < 1 else 1 if r > 32 else (r - 1) / 31
        expected = (1 - gamma) * omega / s + gamma * omega
        assert found[i].item() == pytest.approx(expected, rel=1e-12)


def test_yarn_and_transformers_agree_outside_the_ramp():
    """Where all is slowed and where nothing is; between them their ramp is another."""
    init, config = of_transformers("yarn", factor=8.0, truncate=False)
    theirs, factor = init(config, device="cpu")
    ours = yarn(OMEGA, 8.0, LENGTH).float()
    r = LENGTH * OMEGA / (2 * math.pi)
    outside = (r <= 1) | (r >= 32)
    assert 0 < outside.sum() < len(r)
    torch.testing.assert_close(ours[outside], theirs[outside], rtol=1e-5, atol=0)
    between = (theirs / ours)[~outside]
    assert (between > 1.0001).any()  # another ramp indeed
    assert factor == pytest.approx(yarn_attention_factor(8.0))


def test_a_factor_of_one_changes_nothing():
    for scaled in (position_interpolation, ntk_aware):
        torch.testing.assert_close(scaled(OMEGA, 1.0), OMEGA)
    torch.testing.assert_close(yarn(OMEGA, 1.0, LENGTH), OMEGA)
    assert yarn_attention_factor(1.0) == 1


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (position_interpolation, (OMEGA, 0.5), "factor must be at least 1, got 0.5"),
        (ntk_aware, (OMEGA, 0.5), "factor must be at least 1, got 0.5"),
        (ntk_aware, (OMEGA[:1], 2.0), "omega must have two entries or more, got 1"),
        (yarn, (OMEGA, math.nan, 16), "factor must be at least 1, got nan"),
        (yarn, (OMEGA, 4.0, 16, 8.0, 1.0), "beta_slow must be positive and below beta"),
        (yarn, (OMEGA, 4.0, 16, 0.0, 1.0), "beta_fast, got 0.0, 1.0"),
        (yarn, (OMEGA, 4.0, 16, 2.0, 2.0), "beta_fast, got 2.0, 2.0"),
        (yarn_attention_factor, (0.0,), "factor must be at least 1, got 0.0"),
    ],
)
def test_wrong_arguments(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        inspect.unwrap(function)(*arguments)
