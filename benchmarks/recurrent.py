"""A training step of the recurrent layer: forward, backward, every gradient."""

import torch
from torch import Tensor, nn

from benchmarks.cases import Case, Place, Side, graphed
from dian.rnn.recurrence import RNN


def step(
    place: Place,
    *,
    time: int,
    batch: int,
    d: int,
    goal: float | None,
    graph: bool = False,
) -> Case:
    """Read the loss off the last state, as the report's classifier does."""
    h = place.pick(11, 128)
    time, batch, d = place.pick((3, 5, min(d, 7)), (time, batch, d))
    ours = RNN(d, h, generator=torch.Generator().manual_seed(0)).to(place.device)
    theirs = nn.RNN(d, h).to(place.device)
    with torch.no_grad():
        # two biases of theirs are one of ours
        for parameter, value in zip(
            theirs.parameters(), (ours.W_xh.T, ours.W_hh.T, ours.b_h, 0), strict=True
        ):
            parameter.copy_(torch.as_tensor(value))
    X, G = place.normal(time, batch, d), place.normal(batch, h, seed=1)

    def by_ours() -> list[Tensor]:
        ours.zero_grad()
        _, last = ours(X)
        (last * G).sum().backward()
        return [last, *(p.grad for p in ours.parameters())]

    def by_theirs() -> list[Tensor]:
        theirs.zero_grad()
        _, last = theirs(X)
        (last[0] * G).sum().backward()
        return [last, *(p.grad for p in theirs.parameters())]

    def in_our_layout(found: list[Tensor]) -> list[Tensor]:
        last, W_xh, W_hh, b, _ = found
        return [last[0], W_xh.T, W_hh.T, b]

    how = ", ours as a CUDA graph" if graph else ""
    return Case(
        f"RNN training step, batch {batch}, {time} steps of {d}, hidden {h}{how}",
        Side(graphed(by_ours, place) if graph else by_ours),
        {"nn.RNN": Side(by_theirs, in_our_layout, goal)},
        # forward: the input and the state; backward: each weight, and the state
        flops=2 * time * batch * h * (2 * d + 3 * h),
    )
