"""What attention costs beside recurrence: counted, not quoted."""

import math

import torch
from torch import Tensor

from dian.attention import complexity
from dian.attention.blockwise import online_attention
from dian.attention.dot_product import attention
from dian.attention.multi_head import MultiHeadAttention
from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, normal, relative
from dian.rnn.recurrence import RNN

SIZES = ((5, 12, 3), (8, 6, 2), (31, 6, 2), (64, 8, 4))
"""Positions, model dimension, heads."""


@claim(
    "A18",
    "Complexity and path length beside recurrence",
    equations=("eq-complexity-flops", "eq-complexity-memory", "eq-complexity-path"),
    kinds="E",
    tolerance=0.0,
    source="Vaswani et al., Attention Is All You Need, 2017, arXiv:1706.03762, "
    "section 4 and Table 1",
    assumptions="a multiply-add counts as 2, the softmax as 0; the state of the "
    "recurrent layer has as many features as its input; "
    "several heads, each of several features; float32; batch of 1",
    subjects=(complexity,),
    mutants=(
        Mutant("products in place do not count", "count_flops",
               "{torch.ops.aten.addmm_: _addmm_flops}", "{}"),
        Mutant("a multiply-add in place counts as 1", "_addmm_flops",
               "2 * a_shape.numel() * b_shape[1]", "a_shape.numel() * b_shape[1]"),
        Mutant("the parameters count as memory", "saved_bytes",
               "storage.data_ptr() not in parameters", "True"),
        Mutant("a tensor that is kept twice counts twice", "saved_bytes",
               "kept[storage.data_ptr()] = storage.nbytes()",
               "kept[len(kept)] = storage.nbytes()"),
        Mutant("a dependence through one feature alone is overlooked", "depends_on",
               "(J != 0).any(3).any(1)", "(J != 0).all(3).all(1)"),
        Mutant("rows are keys", "depends_on",
               "(J != 0).any(3).any(1)", "(J != 0).any(3).any(1).T"),
        Mutant("the weights are kept twice", "_Attention.forward",
               "ctx.save_for_backward(Q, K, V, mask, bias, P)",
               "ctx.save_for_backward(Q, K, V, mask, bias, torch.cat([P, P])"
               "[: len(P)])",
               module="dian.attention.dot_product"),
        Mutant("the scores are kept, although blockwise", "_BlockwiseAttention.forward",
               "ctx.save_for_backward(Q, K, V, mask, bias, *found)",
               "ctx.save_for_backward(Q, K, V, mask, bias, *found, Q @ K.mT)",
               module="dian.attention.blockwise"),
        Mutant("a second product at every step", "rnn_forward",
               "state = activate_(A.addmm_(state, W_hh))",
               "state = activate_(A.addmm_(state, W_hh).addmm_(state, 0 * W_hh))",
               module="dian.rnn.recurrence"),
        Mutant("keys are projected for each head", "MultiHeadAttention._project",
               "K = split_heads(_affine(source, self.W_K, self.b_K), self.n_kv_head)",
               "K = split_heads(_affine(source, self.W_K, self.b_K), self.n_kv_head)\n"
               "_affine(source, self.W_K, self.b_K)",
               module="dian.attention.multi_head"),
    ),
)  # fmt: skip
def costs() -> float:
    """Counted FLOPs, kept numbers and dependencies equal the formulas."""
    residuals = []
    for n, D, H in SIZES:
        X = torch.rand(1, n, D)
        plain, online = (
            MultiHeadAttention(D, H, attention_fn=function)
            for function in (attention, online_attention)
        )
        recurrent, over_time = RNN(D, D), X.transpose(0, 1)
        pairs = [
            (complexity.count_flops(plain, X), 8 * n * D**2 + 4 * n**2 * D),
            (complexity.count_flops(recurrent, over_time), 4 * n * D**2),
            (complexity.saved_bytes(plain, X), 4 * (5 * n * D + H * n**2)),
            (complexity.saved_bytes(online, X), 4 * (6 * n * D + H * n)),
            (complexity.saved_bytes(recurrent, over_time), 4 * (2 * n * D + 2 * D)),
        ]
        residuals += [abs(counted - formula) for counted, formula in pairs]
    residuals += [one_feature(), recurrent_path(5, 3)]
    return largest([*residuals, *map(attention_path, (2, 3, 7))])


def one_feature() -> float:
    """Return 0 if a dependence through one feature of several is seen."""
    (X,) = normal(2, (3, 2))
    found = complexity.depends_on(lambda X: torch.stack([X[:-1, 0], X[1:, 0]], 1), X)
    expected = torch.tensor([[True, True, False], [False, True, True]])
    return holds(torch.equal(found, expected))


def recurrent_path(n: int, D: int) -> float:
    """Update all states at once, again and again: each round reaches one step back."""
    layer = RNN(D, D, generator=torch.Generator().manual_seed(0)).double()
    (X,) = normal(0, (n, D))

    def rounds(k: int, X: Tensor) -> Tensor:
        states = torch.zeros_like(X)
        for _ in range(k):
            before = torch.cat([torch.zeros_like(X[:1]), states[:-1]])
            states = layer(X[None], before)[0][0]
        return states

    lag = torch.arange(n)[:, None] - torch.arange(n)
    residuals = []
    for k in range(1, n + 1):
        found = complexity.depends_on(lambda X, k=k: rounds(k, X), X)
        residuals.append(holds(torch.equal(found, (lag >= 0) & (lag < k))))
    in_turn, _ = layer(X[:, None])
    residuals.append(holds(relative(rounds(n, X), in_turn[:, 0]) < 1e-14))
    return largest(residuals)


def attention_path(window: int, n: int = 7, D: int = 4) -> float:
    """Stack causal layers until the last position depends on the first."""
    generator, (X,) = torch.Generator().manual_seed(0), normal(1, (n, D))
    layer = MultiHeadAttention(D, 2, attention_fn=attention, generator=generator)
    layer, lag = layer.double(), torch.arange(n)[:, None] - torch.arange(n)
    mask = (lag >= 0) & (lag < window)

    def stack(depth: int, X: Tensor) -> Tensor:
        for _ in range(depth):
            X = layer(X[None], mask=mask)[0]
        return X

    needed = math.ceil((n - 1) / (window - 1))
    reached = [
        complexity.depends_on(lambda X, d=d: stack(d, X), X)[-1, 0].item()
        for d in (needed - 1, needed)
    ]
    return holds(reached == [False, True])
