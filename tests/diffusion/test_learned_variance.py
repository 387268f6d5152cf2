"""`learned_variance`: what the hybrid loss learns."""

import pytest
import torch

from dian.diffusion import gaussian_mixture
from dian.diffusion.learned_variance import hybrid_loss, interpolate_variance
from dian.diffusion.likelihood import log_density
from dian.diffusion.posterior import optimal_variance
from dian.diffusion.process import training_loss
from dian.diffusion.sampling import reverse_variance
from dian.diffusion.schedule import linear_schedule

T = 8
SCHEDULE = linear_schedule(T, 0.02, 0.5)


def test_the_ends_are_the_two_fixed_variances():
    for u, name in ((1.0, "beta"), (0.0, "beta_tilde")):
        table = reverse_variance(SCHEDULE, name)
        t = torch.arange(1, T + 1)
        found = interpolate_variance(SCHEDULE, t, torch.full((T, 1), u).double())
        torch.testing.assert_close(found[:, 0], table[1:])
    outside = torch.tensor([[-3.0, 4.0]])
    assert (interpolate_variance(SCHEDULE, 5, outside) > 0).all()


def test_the_optimum_is_the_optimal_variance(generator):
    """Newton's method on u, with the optimal mean, for each timestep."""
    data = gaussian_mixture.gaussian(0.3, 0.4)
    epsilon_of = gaussian_mixture.optimal_denoiser(data, SCHEDULE.alpha_bar)
    nothing = torch.zeros(T + 1, 1, dtype=torch.float64)
    mmse = gaussian_mixture.posterior_x0(data, nothing, SCHEDULE.alpha_bar).variance
    best = optimal_variance(SCHEDULE, mmse)
    n = 50_000
    x_0 = gaussian_mixture.draw(data, n, generator)
    epsilon = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    for step in range(2, T + 1):
        t = torch.full((n,), step)
        u = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
        for _ in range(8):
            loss = hybrid_loss(
                SCHEDULE,
                lambda x_t, t, u=u: (epsilon_of(x_t, t), u.expand_as(x_t)),
                x_0,
                bound_weight=1.0,
                decoder=log_density,
                draws=(t, epsilon),
            ).mean()
            [slope] = torch.autograd.grad(loss, u, create_graph=True)
            [bend] = torch.autograd.grad(slope, u)
            u = (u - slope / bend).detach().requires_grad_()
        found = interpolate_variance(SCHEDULE, step, u.detach().view(1, 1)).item()
        assert found == pytest.approx(best[step].item(), rel=0.02)
        assert 0 < u < 1


def test_without_the_bound_it_is_the_simple_loss(generator):
    x_0 = torch.rand(5, 2, 3, generator=generator) * 2 - 1

    def predicted(x_t, t):
        return torch.sin(x_t) * t.view(-1, 1, 1)

    def model(x_t, t):
        return predicted(x_t, t), torch.cos(x_t)

    state = generator.get_state()
    found = hybrid_loss(SCHEDULE, model, x_0, bound_weight=0.0, generator=generator)
    generator.set_state(state)
    expected = training_loss(SCHEDULE, predicted, x_0, generator=generator)
    torch.testing.assert_close(found, expected)
    weighted = []
    for options in ({}, {"bound_weight": 0.001}, {"bound_weight": 0.002}):
        generator.set_state(state)
        loss = hybrid_loss(SCHEDULE, model, x_0, generator=generator, **options)
        weighted.append(loss - expected)
    torch.testing.assert_close(weighted[0], weighted[1])
    torch.testing.assert_close(2 * weighted[0], weighted[2], rtol=1e-3, atol=1e-6)
    assert weighted[0].abs().min() > 1e-4


@pytest.mark.parametrize("part", [0, 1])
def test_a_wrong_shape_is_refused(part):
    def model(x_t, t):
        outputs = [x_t, x_t]
        outputs[part] = x_t[:, :1]
        return tuple(outputs)

    name = ("noise", "u")[part]
    with pytest.raises(ValueError, match=rf"must return {name} \(2, 3\), got \(2, 1\)"):
        hybrid_loss(SCHEDULE, model, torch.zeros(2, 3))
