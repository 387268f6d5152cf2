"""Values that other libraries got wrong in small types, and inputs they let through."""

import pytest
import torch
from torch import nn

from dian.attention.multi_head import MultiHeadAttention
from dian.attention.transformer import TokenTransformer
from dian.diffusion.ema import EMA, ema_update
from dian.diffusion.sample_metrics import frechet_distance, in_manifold
from dian.diffusion.sampling import evenly_spaced_timesteps
from dian.diffusion.schedule import cosine_schedule, linear_schedule
from dian.positions.alibi import alibi_bias
from dian.positions.learned import LearnedPositions
from dian.positions.rotary import RotaryEmbedding, rotate, rotate_half_split
from dian.positions.sinusoidal import frequencies
from dian.rnn.recurrence import state_at_end
from dian.training.fit import fit
from dian.training.loop import Training
from dian.training.loss import cross_entropy
from dian.training.metrics import calibration_error, f1, negative_log_likelihood

pytestmark = pytest.mark.usefixtures("as_users_run")
SMALL = (torch.float16, torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.float32, *SMALL])
def test_an_average_of_small_weights_moves(dtype):
    ema = EMA([("w", torch.ones(1, dtype=dtype))], decay=0.9999)
    for _ in range(2000):
        ema.update([("w", torch.full((1,), 1.5, dtype=dtype))])
    assert ema.average["w"].item() == pytest.approx(1.5 - 0.5 * 0.9999**2000, abs=1e-4)
    with pytest.raises(ValueError, match="in 16 bits it would not move"):
        ema_update([torch.ones(1).half()], [torch.ones(1)], 0.9)


def test_an_average_keeps_names_and_shapes():
    ema = EMA([("w", torch.zeros(2, 3))], decay=0.5)
    for shape in [(3,), (1, 3), (), (2, 2, 3)]:
        with pytest.raises(ValueError, match=r"of the shape .* of its weight"):
            ema.update([("w", torch.ones(shape))])
        with pytest.raises(ValueError, match=r"w must be .* of shape \(2, 3\)"):
            ema.load_state_dict({"w": torch.ones(shape)})
    for load in (ema.update, lambda p: ema.load_state_dict(dict(p))):
        with pytest.raises(ValueError, match=r"not \['v'\]"):
            load([("w", torch.ones(2, 3)), ("v", torch.ones(1))])
    assert ema.average["w"].shape == (2, 3)
    assert not ema.average["w"].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *SMALL])
def test_a_confidence_on_the_edge_belongs_to_the_lower_bin(dtype):
    p = torch.tensor([[0.6, 0.4]] * 10 + [[0.7, 0.3]] * 10, dtype=dtype)
    target = torch.tensor([0] * 3 + [1] * 7 + [0] * 10)  # 3 of 10, and 10 of 10
    assert calibration_error(p, target, 10).item() == pytest.approx(0.3, abs=4e-3)


def test_probabilities_of_16_bits():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1000, 10, generator=generator)
    target = torch.zeros(1000, dtype=torch.long)
    expected = negative_log_likelihood(logits.softmax(-1), target).item()
    for dtype in SMALL:
        p = logits.to(dtype).softmax(-1)
        found = negative_log_likelihood(p, target).item()
        assert found == pytest.approx(expected, abs=0.01)
    with pytest.raises(ValueError, match="sum that is off by"):
        negative_log_likelihood(1.05 * p, target)


@pytest.mark.parametrize("form", [rotate, rotate_half_split])
@pytest.mark.parametrize(
    ("dtype", "offset"),
    [
        (torch.uint8, 253),
        (torch.int8, 125),
        (torch.bfloat16, 5000),
        (torch.float16, 5000),
        (torch.float32, 2**25),
    ],
)
def test_an_offset_is_added_in_float64(form, dtype, offset):
    x = torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(0))
    found = form(x, frequencies(8), torch.arange(6).to(dtype), offset=offset)
    torch.testing.assert_close(found, form(x, frequencies(8), offset=offset))


def test_frequencies_of_16_bits_are_refused():
    for dtype in SMALL:
        with pytest.raises(ValueError, match="omega must be float32 or float64"):
            rotate(torch.ones(1, 5, 4), frequencies(4).to(dtype))
        with pytest.raises(ValueError, match="omega must be float32 or float64"):
            RotaryEmbedding(4, omega=frequencies(4).to(dtype))


def test_indices_of_one_byte():
    """They would wrap around, or be taken for a mask."""
    few = torch.tensor([0, 3, 1], dtype=torch.uint8)
    wide = few.long()
    assert torch.equal(alibi_bias(few, few, 2), alibi_bias(wide, wide, 2))
    positions, model = (
        LearnedPositions(5, 4),
        TokenTransformer(5, 3, d_model=8, n_head=2),
    )
    assert torch.equal(positions(few), positions(wide))
    assert torch.equal(model(few[None]), model(wide[None]))
    states = torch.randn(4, 3, 2)
    lengths = few + 1
    assert torch.equal(state_at_end(states, lengths), state_at_end(states, wide + 1))
    C = torch.full((2, 2), 100)
    assert torch.equal(f1(C.to(torch.int8)), f1(C))
    target = torch.tensor([156, 0], dtype=torch.uint8)
    found = cross_entropy(torch.zeros(2, 200), target, ignore_index=-100)
    assert found.item() == pytest.approx(5.2983, abs=1e-4)


@pytest.mark.parametrize("T", [1e3, 10.5, -1, 0, True, "10", None])
def test_numbers_of_steps_are_whole(T):
    for schedule in (linear_schedule, cosine_schedule):
        with pytest.raises(
            ValueError, match="T must be a whole number, at least 1, got"
        ):
            schedule(T)
    with pytest.raises(ValueError, match="n must be a whole number, 1 to 1000, got"):
        evenly_spaced_timesteps(1000, T)


def test_a_set_has_no_distance_from_itself():
    X = 30 * torch.randn(20, 512, generator=torch.Generator().manual_seed(0))
    assert 0 <= frechet_distance(X, X).item() < 1e-4 * X.var(0).sum()
    X[3, 7] = torch.nan
    for distance in (frechet_distance, in_manifold):
        with pytest.raises(ValueError, match="X and Y must be finite"):
            distance(X, X)


def test_a_gradient_that_is_wrong_at_the_last_step():
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * torch.nan

    model = nn.Linear(2, 2)
    data = torch.ones(4, 2), torch.zeros(4, dtype=torch.long)
    with pytest.raises(FloatingPointError, match=r"after the last step weight is not"):
        fit(model, data, epochs=1, loss=lambda o, y: cross_entropy(Broken.apply(o), y))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"epochs": 1, "batch_size": 0}, "batch_size must be a whole number"),
        ({"epochs": 1, "batch_size": 2.0}, "batch_size must be a whole number"),
    ],
)
def test_counts_of_a_training_run(options, message):
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=message):
        Training(model, model, (torch.ones(4, 1),), optimizer=optimizer, **options)


def test_a_layer_that_is_not_batch_first_is_refused():
    with pytest.raises(ValueError, match="layer must be batch_first"):
        MultiHeadAttention.from_torch(nn.MultiheadAttention(6, 2))
