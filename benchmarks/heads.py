"""A training step of multi-head self-attention."""

import torch
from torch import Tensor, nn

from benchmarks.cases import Case, Place, Side
from dian.attention.multi_head import MultiHeadAttention


def step(place: Place, *, weights: bool, goal: float) -> Case:
    """Forward and backward pass; with ``weights``, return those of each head, too."""
    shape = place.pick((2, 5, 12), (4, 512, 512), (16, 1024, 1024))
    (batch, n, D), heads = shape, place.pick(3, 8, 16)
    theirs = nn.MultiheadAttention(D, heads, batch_first=True)
    generator = torch.Generator().manual_seed(0)
    for parameter in theirs.parameters():
        # so that the softmax is neither uniform nor one-hot
        nn.init.normal_(parameter, std=D**-0.5, generator=generator)
    ours = MultiHeadAttention.from_torch(theirs).to(place.device)
    theirs = theirs.to(place.device)
    X, G = place.normal(*shape), place.normal(*shape, seed=1)

    def by_ours() -> tuple[Tensor, ...]:
        ours.zero_grad()
        found = ours(X, need_weights=weights)
        outputs = found if weights else (found,)
        (outputs[0] * G).sum().backward()
        return outputs

    def by_theirs() -> tuple[Tensor, ...]:
        theirs.zero_grad()
        output, P = theirs(X, X, X, need_weights=weights, average_attn_weights=False)
        (output * G).sum().backward()
        return (output, P) if weights else (output,)

    def with_gradients(outputs: tuple[Tensor, ...]) -> list[Tensor]:
        W, b = ([getattr(ours, f"{x}_{y}").grad for y in "QKV"] for x in "Wb")
        # The biases together: the gradient of the key bias is 0 up to rounding.
        return [*outputs, *W, torch.cat(b), ours.W_O.grad, ours.b_O.grad]

    def in_our_layout(outputs: tuple[Tensor, ...]) -> list[Tensor]:
        W, b, W_O, b_O = (p.grad for p in theirs.parameters())
        return [*outputs, *(x.T for x in W.chunk(3)), b, W_O.T, b_O]

    projections, products = 4 * 2 * batch * n * D**2, 2 * 2 * batch * n**2 * D
    return Case(
        f"multi-head attention training step {shape}, {heads} heads"
        + (", weights returned" if weights else ""),
        Side(by_ours, with_gradients),
        {"nn.MultiheadAttention": Side(by_theirs, in_our_layout, goal)},
        # The backward pass costs twice as much, except three gradients of the input.
        flops=3 * (projections + products) - 3 / 4 * projections,
        tolerance=1e-3,
    )
