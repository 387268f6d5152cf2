"""`ema` against the closed form, torch's own, and a whole training run."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dian.diffusion.ema import EMA, ema_update

MU = 0.9


def test_a_constant_is_reached_as_the_closed_form_says():
    ema = EMA([("w", torch.zeros(3, dtype=torch.float64))], MU)
    for n in range(1, 50):
        ema.update([("w", torch.ones(3, dtype=torch.float64))])
        expected = torch.full((3,), 1 - MU**n, dtype=torch.float64)
        torch.testing.assert_close(ema.average["w"], expected, rtol=0, atol=1e-14)


def test_it_is_a_weighted_mean_of_all_steps(generator):
    steps = torch.randn(17, 5, generator=generator, dtype=torch.float64)
    ema = EMA([("w", steps[0])], MU)
    for step in steps[1:]:
        ema.update([("w", step)])
    share = torch.tensor([MU**16] + [(1 - MU) * MU ** (16 - n) for n in range(1, 17)])
    torch.testing.assert_close(share.sum().item(), 1.0)
    expected = (share.double()[:, None] * steps).sum(0)
    torch.testing.assert_close(ema.average["w"], expected, rtol=0, atol=1e-7)


def test_it_is_torchs(generator):
    model = nn.Linear(3, 5)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(MU))
    theirs.update_parameters(model)  # the first one is copied
    ours = EMA(model.named_parameters(), MU)
    for _ in range(7):
        for parameter in model.parameters():
            nn.init.normal_(parameter, generator=generator)
        theirs.update_parameters(model)
        ours.update(model.named_parameters())
    for name, parameter in theirs.module.named_parameters():
        torch.testing.assert_close(ours.average[name], parameter.detach())


def test_it_shares_no_memory_with_the_model_and_goes_on(generator):
    model = nn.Linear(3, 5)
    ema = EMA(model.named_parameters(), MU)
    before = model.weight.detach().clone()
    nn.init.normal_(model.weight, generator=generator)
    assert torch.equal(ema.average["weight"], before)

    other = EMA(nn.Linear(3, 5).named_parameters(), MU)
    other.load_state_dict(ema.state_dict())
    for one in (ema, other):
        one.update(model.named_parameters())
    assert torch.equal(ema.average["weight"], other.average["weight"])
    assert not ema.average["weight"].requires_grad


def test_errors():
    with pytest.raises(ValueError, match=r"mu must be in \[0, 1\), got 1"):
        EMA([], 1.0)
    with pytest.raises(
        ValueError, match=r"the 1 names that are averaged, got .*: v, w"
    ):
        EMA([("w", torch.ones(1))], MU).load_state_dict({"v": torch.ones(1)})


def test_what_comes_in_is_not_changed():
    a, b = torch.ones(2), torch.zeros(2)
    ema_update([a], [b], MU)
    assert a.tolist() == [1, 1]
    assert b.tolist() == [0, 0]
