"""`dian.diffusion.likelihood` against sums one can check by eye."""

import math

import pytest
import torch

from dian.diffusion import gaussian_mixture
from dian.diffusion.likelihood import (
    Bound,
    bits_per_dimension,
    bound_term,
    bound_weight,
    discrete_log_probability,
    gaussian_kl,
    log_density,
    prior_term,
    rate_distortion,
    total_bits,
    variational_bound,
)
from dian.diffusion.pixels import signed
from dian.diffusion.posterior import posterior
from dian.diffusion.process import q_sample
from dian.diffusion.sampling import Denoiser
from dian.diffusion.schedule import linear_schedule

T, BATCH, ROW, COLUMN = 7, 5, 3, 2
SCHEDULE = linear_schedule(T, 0.01, 0.5)


def network(x, t):
    return torch.sin(3 * x) + 0.1 * t.to(x).view(-1, *[1] * (x.ndim - 1))


@pytest.fixture
def bytes_(generator):
    return torch.randint(
        256, (BATCH, 1, ROW, COLUMN), generator=generator, dtype=torch.uint8
    )


def kl_by_hand(m_1, v_1, m_2, v_2):
    return 0.5 * (math.log(v_2 / v_1) - 1 + (v_1 + (m_1 - m_2) ** 2) / v_2)


def decoder_by_hand(x, mean, sigma):
    """The integral by the error function; good where nothing is far out."""

    def below(y):
        return 0.5 * (1 + math.erf((y - mean) / (sigma * math.sqrt(2))))

    lower = 0.0 if x < -0.999 else below(x - 1 / 255)
    upper = 1.0 if x > 0.999 else below(x + 1 / 255)
    return math.log(upper - lower)


def test_the_bound_entry_by_entry(bytes_):
    """Every term of every image, one number at a time."""
    x_0 = signed(bytes_).double()
    shown = []

    def model(x, t):
        shown.append(x)
        return network(x, t)

    bound = variational_bound(
        SCHEDULE,
        model,
        x_0,
        generator=torch.Generator().manual_seed(0),
    )
    assert bound.terms.shape == bound.square.shape == (T + 1, BATCH)
    assert not bound.terms[0].any()
    c_0, c_1, beta_tilde = posterior(SCHEDULE)
    for step, x_t in zip(range(1, T + 1), shown, strict=True):
        t = torch.full((BATCH,), step)
        a = SCHEDULE.alpha_bar[step]
        x_0_hat = (x_t - (1 - a).sqrt() * network(x_t, t)) / a.sqrt()
        mean = c_0[step] * x_0_hat.clamp(-1, 1) + c_1[step] * x_t
        for i in range(BATCH):
            total = 0.0
            for x, noisy, mu in zip(
                x_0[i].flatten().tolist(),
                x_t[i].flatten().tolist(),
                mean[i].flatten().tolist(),
                strict=True,
            ):
                beta = SCHEDULE.beta[step].item()
                if step == 1:
                    total -= decoder_by_hand(x, mu, math.sqrt(beta))
                else:
                    true = c_0[step].item() * x + c_1[step].item() * noisy
                    total += kl_by_hand(true, beta_tilde[step].item(), mu, beta)
            assert bound.terms[step, i].item() == pytest.approx(total, rel=1e-9)
    a = SCHEDULE.alpha_bar[-1].item()
    for i in range(BATCH):
        total = sum(
            kl_by_hand(math.sqrt(a) * x, 1 - a, 0.0, 1.0)
            for x in x_0[i].flatten().tolist()
        )
        assert bound.prior[i].item() == pytest.approx(total, rel=1e-9)
    d = ROW * COLUMN
    bits = total_bits(bound, d)
    expected = (bound.prior + bound.terms.sum(0)) / d / math.log(2)
    torch.testing.assert_close(bits, expected)


def test_the_bound_holds(generator):
    """It is above the entropy of the data, and by less when the model is better."""
    data = gaussian_mixture.ring(3, radius=0.7, variance=0.02)
    exact = gaussian_mixture.optimal_denoiser(data, SCHEDULE.alpha_bar)
    x_0 = gaussian_mixture.draw(data, 4000, generator)
    best, worse = (
        variational_bound(
            SCHEDULE,
            Denoiser(model, clip=None),
            x_0,
            decoder=log_density,
            generator=generator,
        )
        for model in (exact, lambda x, t: 0.8 * exact(x, t))
    )
    one = torch.ones(4000, dtype=torch.float64)
    entropy = -gaussian_mixture.log_parts(data, x_0, one).logsumexp(-1)
    total = best.prior + best.terms.sum(0)
    above = total - entropy
    assert above.mean() > 5 * above.std() / 4000**0.5
    more = worse.prior + worse.terms.sum(0) - total
    assert more.mean() > 5 * more.std() / 4000**0.5


def test_the_first_step_alone_is_decoded(bytes_):
    x_0, t = signed(bytes_), torch.tensor([1, 2, 1, T, 3])
    asked = []

    def decoder(x, mean, variance):
        asked.append((x, variance.flatten()))
        return torch.full_like(x, -100.0)

    epsilon = torch.zeros_like(x_0)
    terms = bound_term(
        SCHEDULE, network, x_0, t, epsilon, variance="beta_tilde", decoder=decoder
    )
    large = terms.nats == 100 * ROW * COLUMN
    assert large.tolist() == [True, False, True, False, False]
    [(decoded, variance)] = asked
    assert torch.equal(decoded, x_0[[0, 2]])
    # beta-tilde is 0 at the first step, and its neighbor takes its place
    expected = posterior(SCHEDULE).beta_tilde[2].float()
    assert variance.tolist() == [expected, expected]


def test_the_squared_error_is_that_of_the_clipped_image(bytes_):
    x_0 = signed(bytes_)
    t, epsilon = torch.full((BATCH,), T), torch.zeros_like(x_0)
    for clip, largest in [(1.0, 4.0), (None, math.inf)]:
        denoiser = Denoiser(lambda x, t: x - 50, clip=clip)
        found = bound_term(SCHEDULE, denoiser, x_0, t, epsilon).square
        assert (found <= largest).all()
        assert (found > 0).all()
    assert (found > 4).all()
    perfect = Denoiser(lambda x, t: x_0, "x_0")
    assert not bound_term(SCHEDULE, perfect, x_0, t, epsilon).square.any()


def test_training_on_the_bound_is_the_bound(bytes_, generator):
    """The weighted loss of Algorithm 1 differs from the term by a constant alone."""
    x_0 = signed(bytes_).double()
    epsilon = torch.randn(x_0.shape, generator=generator, dtype=torch.float64)
    t = torch.tensor([2, 3, 5, T, 4])
    x_t = q_sample(SCHEDULE, x_0, t, epsilon)
    differences = []
    for model in (network, lambda x, t: 0 * x):
        term = bound_term(SCHEDULE, Denoiser(model, clip=None), x_0, t, epsilon).nats
        error = (epsilon - model(x_t, t)).square().flatten(1).sum(1)
        differences.append(term - bound_weight(SCHEDULE)[t] * error)
    torch.testing.assert_close(*differences)


def test_rates_are_sums_from_the_far_end():
    prior, terms = torch.tensor([0.5, 1.5]), torch.arange(16.0).view(8, 2)
    terms[0] = 0
    square = torch.linspace(0, 1, 16).view(8, 2)
    rate, distortion = rate_distortion(Bound(prior, terms, square), d=3)
    for t in range(8):
        nats = 1.0 + sum(terms[s].mean().item() for s in range(t + 1, 8))
        assert rate[t].item() == pytest.approx(nats / 3 / math.log(2))
        assert distortion[t].item() == pytest.approx(square[t].mean().item() ** 0.5)


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("mean", [-0.9, 0.05, 0.99])
def test_the_decoder_by_the_error_function(sigma, mean):
    x = signed(torch.arange(256, dtype=torch.uint8)).double()
    near = (x - mean).abs() < 4 * sigma
    found = discrete_log_probability(
        x, torch.full_like(x, mean), torch.tensor(sigma**2, dtype=torch.float64)
    )
    for i in torch.nonzero(near).flatten().tolist():
        expected = decoder_by_hand(x[i].item(), mean, sigma)
        assert found[i].item() == pytest.approx(expected, rel=1e-7)


def test_the_decoder_takes_images_in_float32():
    """Rounded bytes still find their open ends."""
    x = signed(torch.arange(256, dtype=torch.uint8))
    mean = torch.zeros_like(x)
    total = discrete_log_probability(x, mean, torch.tensor(0.09)).exp().sum()
    assert abs(total - 1) < 1e-6


def test_random_bytes_cost_8_bits_or_more(bytes_):
    x_0 = signed(bytes_)
    bound = variational_bound(
        linear_schedule(200, 0.0005, 0.1),
        lambda x, t: 0 * x,
        x_0,
        generator=torch.Generator().manual_seed(0),
    )
    assert total_bits(bound, ROW * COLUMN).mean() > 8


def test_prior_and_bits(bytes_):
    nothing = torch.zeros(2, 3, dtype=torch.float64)
    a = SCHEDULE.alpha_bar[-1].item()
    expected = 3 * kl_by_hand(0.0, 1 - a, 0.0, 1.0)
    assert prior_term(SCHEDULE, nothing)[1].item() == pytest.approx(expected)
    assert bits_per_dimension(torch.tensor(math.log(2) * 6), 3) == 2
    one = torch.ones(1)
    assert gaussian_kl(one, one, one, one) == 0


X, T_1 = torch.zeros(5, 2), torch.ones(5).long()
BYTES = X.byte()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bound_weight(SCHEDULE, "eps"), "v, mu, score, got 'eps'"),
        (lambda: bound_weight(SCHEDULE, "v", "tilde"), "or a table, got 'tilde'"),
        (lambda: bound_term(SCHEDULE, network, X, T_1 - 1, X), "from 1 to 7, got 0"),
        (lambda: bound_term(SCHEDULE, network, X, T_1 + 7, X), "to 7, got 8 to 8"),
        (lambda: bound_term(SCHEDULE, network, X, T_1[:2], X), "5 integers in a row"),
        (lambda: bound_term(SCHEDULE, network, X, T_1, X[:1]), r"epsilon must be \(5,"),
        # on another scale each would get a number, and a wrong one
        (lambda: prior_term(SCHEDULE, BYTES), "uint8; see pixels.signed"),
        (lambda: variational_bound(SCHEDULE, network, BYTES), "uint8; see pixels"),
        (lambda: discrete_log_probability(BYTES, X, X), "uint8; see pixels.signed"),
    ],
)
def test_what_is_refused(as_users_run, call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
