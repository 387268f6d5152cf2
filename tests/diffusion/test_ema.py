"""`ema` against the closed form, torch's own, and a whole training run."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dian.diffusion.ema import EMA, ema_update

DECAY = 0.9


def test_a_constant_is_reached_as_the_closed_form_says():
    ema = EMA([("w", torch.zeros(3, dtype=torch.float64))], DECAY)
    for n in range(1, 50):
        ema.update([("w", torch.ones(3, dtype=torch.float64))])
        expected = torch.full((3,), 1 - DECAY**n, dtype=torch.float64)
        torch.testing.assert_close(ema.average["w"], expected, rtol=0, atol=1e-14)


def test_it_is_a_weighted_mean_of_all_steps(generator):
    steps = torch.randn(17, 5, generator=generator, dtype=torch.float64)
    ema = EMA([("w", steps[0])], DECAY)
    for step in steps[1:]:
        ema.update([("w", step)])
    weight = [DECAY**16] + [(1 - DECAY) * DECAY ** (16 - n) for n in range(1, 17)]
    expected = sum(w * step for w, step in zip(weight, steps, strict=True))
    torch.testing.assert_close(ema.average["w"], expected, rtol=0, atol=1e-12)


def test_it_is_torchs(generator):
    model = nn.Linear(3, 5)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    theirs.update_parameters(model)  # the first one is copied
    ours = EMA(model.named_parameters(), DECAY)
    for _ in range(7):
        for parameter in model.parameters():
            nn.init.normal_(parameter, generator=generator)
        theirs.update_parameters(model)
        ours.update(model.named_parameters())
    for name, parameter in theirs.module.named_parameters():
        torch.testing.assert_close(ours.average[name], parameter.detach())


def test_it_shares_no_memory_with_the_model_and_goes_on(generator):
    model = nn.Linear(3, 5)
    ema = EMA(model.named_parameters(), DECAY)
    before = model.weight.detach().clone()
    nn.init.normal_(model.weight, generator=generator)
    assert torch.equal(ema.average["weight"], before)

    other = EMA(nn.Linear(3, 5).named_parameters(), DECAY)
    other.load_state_dict(ema.state_dict())
    for one in (ema, other):
        one.update(model.named_parameters())
    assert torch.equal(ema.average["weight"], other.average["weight"])
    assert not ema.average["weight"].requires_grad


def test_what_comes_in_is_not_changed():
    a, b = torch.ones(2), torch.zeros(2)
    ema_update([a], [b], DECAY)
    assert a.tolist() == [1, 1]
    assert b.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: EMA([], 1.0), r"decay must be in \[0, 1\), got 1"),
        (lambda: EMA([], -0.1), r"decay must be in \[0, 1\), got -0\.1"),
        (lambda: EMA([("w", torch.ones(1))], DECAY).load_state_dict({"v": 1}),
         r"the averaged parameters, not \['v', 'w'\]"),
    ],
)  # fmt: skip
def test_what_is_refused(as_users_run, call, message):
    with pytest.raises(ValueError, match=message):
        call()
