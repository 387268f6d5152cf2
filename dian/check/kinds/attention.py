"""Contracts of chapter 3: attention, its backward pass, and the causal mask."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dian.attention.dot_product import (
    attention_backward,
    scaled_dot_product_attention,
)
from dian.attention.masks import causal_mask
from dian.check.contract import (
    ANY,
    Argument,
    Case,
    Contract,
    Convention,
    Function,
    Mistake,
    Option,
    Outputs,
    Property,
    converting,
    returning,
)
from dian.claims.compare import normal, relative

Q = Argument("Q", "batch head n d_key", "queries", ("query", "queries", "xq"))
K = Argument("K", "batch head m d_key", "keys", ("key", "keys", "xk"))
V = Argument("V", "batch head m d_value", "values", ("value", "values", "xv"))


def all_true(given: Any) -> Tensor:
    """Return the mask that masks nothing, for functions that must be given one."""
    Q = given["Q"]
    return Q.new_ones(Q.shape[-2], given["K"].shape[-2], dtype=torch.bool)


MASK = Argument("mask", "n m", "true where a query may attend to a key",
                ("attn_mask", "attention_mask"), None, fill=all_true)  # fmt: skip
TENSORS = ("Q", "K", "V", "grad_O", "P", "dropout")


def _attention(Q, K, V, mask=None) -> Outputs:
    return scaled_dot_product_attention(Q, K, V, mask=mask)


def additive(low: float) -> Callable[[Tensor], Tensor]:
    """Return a function that turns a mask into numbers to add to the scores."""

    def convert(mask: Tensor) -> Tensor:
        zeros = torch.zeros(mask.shape, dtype=torch.float64)
        return zeros.masked_fill(~mask, low)

    return convert


def mask_convention(needs: str = "mask") -> Convention:
    """Return the conventions of masks."""
    return Convention("mask", (
        Option("mask: true = attend"),
        Option("mask: true = masked", converting(mask=torch.logical_not)),
        Option("mask: 0 or minus infinity, added",
               converting(mask=additive(-torch.inf))),
        Option("mask: 1 = attend, numbers", converting(mask=lambda m: m.double())),
        Option("mask: 1 = masked, numbers", converting(mask=lambda m: (~m).double())),
    ), needs=needs)  # fmt: skip


def _heads_last(function: Function) -> Function:
    def wrapped(**given) -> Outputs:
        turned = {
            name: x.transpose(1, 2) if name in TENSORS and x is not None else x
            for name, x in given.items()
        }
        return tuple(x.transpose(1, 2) for x in function(**turned))

    return wrapped


def _folded(axes: int):
    """Wrap a function of fewer axes: ``(batch, n, d)`` or ``(n, d)``."""

    def wrap(function: Function) -> Function:
        def wrapped(**given) -> Outputs:
            batch = given["Q"].shape[:-2]
            flat = {
                name: x.flatten(0, -3) if name in TENSORS and x is not None else x
                for name, x in given.items()
            }
            if axes == 3:
                found = function(**flat)
            else:
                rows = [
                    function(**{n: x[i] if n in TENSORS and x is not None else x
                                for n, x in flat.items()})
                    for i in range(batch.numel())
                ]  # fmt: skip
                found = tuple(map(torch.stack, zip(*rows, strict=True)))
            return tuple(x.reshape(*batch, *x.shape[-2:]) for x in found)

        return wrapped

    return wrap


AXES = Convention("axes", (
    Option("(batch, head, n, d)"),
    Option("(batch, n, head, d)", _heads_last),
    Option("(batch, n, d)", _folded(3)),
    Option("(n, d)", _folded(2)),
), layout=True)  # fmt: skip


def _weights_first(found: Outputs, arguments: Any) -> Outputs:
    return found[1], found[0]


def _draw(seed: int, b: int, h: int, n: int, m: int, d: int, e: int) -> dict:
    Q, K, V = normal(seed, (b, h, n, d), (b, h, m, d), (b, h, m, e))
    return {"Q": 1.5 * Q, "K": K, "V": V}


def _mask(n: int, m: int) -> Tensor:
    """Mask a third of the keys, not the same for all queries, and never all."""
    rows, columns = torch.arange(n)[:, None], torch.arange(m)
    return (rows * 2 + columns * columns) % 3 != 1


def _case(words: str, sizes: tuple, mask: Tensor | None = None) -> Case:
    return Case(words, {**_draw(sum(sizes), *sizes), "mask": mask})


def _hull(f: Function) -> float:
    """Equal values come back unchanged, whatever the scores are."""
    given = _draw(1, 1, 2, 4, 5, 3, 6)
    given["V"] = given["V"][:, :, :1].expand_as(given["V"])
    (found, *_) = f(**given)
    return relative(found, given["V"][:, :, :1].expand_as(found))


def _permuted(f: Function) -> float:
    given = _draw(2, 1, 2, 4, 5, 3, 6)
    order = torch.tensor([3, 0, 4, 2, 1])
    turned = {
        "Q": given["Q"],
        "K": given["K"][:, :, order],
        "V": given["V"][:, :, order],
    }
    return relative(f(**{**given, **turned})[0], f(**given)[0])


def _shifted(f: Function) -> float:
    """A vector added to all keys adds a constant to each row of scores."""
    given = _draw(3, 1, 2, 4, 5, 3, 6)
    more = {**given, "K": given["K"] + torch.tensor([1.0, -2.0, 0.5]).double()}
    return relative(f(**more)[0], f(**given)[0])


def _hidden(f: Function) -> float:
    """What a masked key and its value are does not matter."""
    given, mask = _draw(4, 1, 2, 4, 6, 3, 5), torch.ones(4, 6).bool()
    mask[:, -2:] = False
    (before, *_) = f(**given, mask=mask)
    K, V = given["K"].clone(), given["V"].clone()
    K[:, :, -2:], V[:, :, -2:] = 7.0, -50.0
    return relative(f(Q=given["Q"], K=K, V=V, mask=mask)[0], before)


def _prefix(f: Function) -> float:
    """Under a causal mask, the outputs of a prefix do not change."""
    given, mask = _draw(5, 1, 2, 6, 6, 3, 5), torch.ones(6, 6).bool().tril()
    (whole, *_) = f(**given, mask=mask)
    part = {name: x[:, :, :4] for name, x in given.items()}
    return relative(f(**part, mask=mask[:4, :4])[0], whole[:, :, :4])


def _dead(m: int = 5) -> Case:
    mask = torch.ones(3, m).bool()
    mask[1] = False
    return _case("a query that may attend to nothing", (1, 2, 3, m, 4, 6), mask)


def _mistaken(scores: Callable, weights: Callable | None = None):
    """Return attention with other scores, or with other weights."""

    def function(Q, K, V, mask=None) -> Outputs:
        S = scores(Q, K)
        if mask is not None:
            S = S.masked_fill(~mask, -1e30)
        P = S.softmax(-1) if weights is None else weights(S, mask)
        if mask is not None and weights is None:
            P = P.masked_fill(~mask, 0.0)
        return P @ V, P

    return function


def _scaled(Q: Tensor, K: Tensor) -> Tensor:
    return Q @ K.mT / math.sqrt(Q.shape[-1])


def _wrong_axis(S: Tensor, mask) -> Tensor:
    return S.softmax(1)


def _no_maximum(S: Tensor, mask) -> Tensor:
    """Overflow where scores are large."""
    return S.exp() / S.exp().sum(-1, keepdim=True)


def _zero_scores(Q, K, V, mask=None) -> Outputs:
    """Multiply scores by the mask: a masked score is 0, not minus infinity."""
    S = _scaled(Q, K)
    P = (S if mask is None else S * mask).softmax(-1)
    return P @ V, P


def _masked_values(Q, K, V, mask=None) -> Outputs:
    """Mask the weights after the softmax, and not divide again."""
    P = _scaled(Q, K).softmax(-1)
    P = P if mask is None else P * mask
    return P @ V, P


def _mask_ignored(Q, K, V, mask=None) -> Outputs:
    return _attention(Q, K, V)


def attention() -> Contract:
    """Return the contract of scaled dot-product attention."""
    return Contract(
        kind="attention",
        title="Scaled dot-product attention",
        arguments=(Q, K, V, MASK),
        returns=(("O", "batch head n d_value", "the weighted averages of the values"),
                 ("P", "batch head n m", "the weights")),
        ours=(_attention,),
        conventions=(
            AXES,
            mask_convention(),
            Convention("returns", (Option("output first"),
                                   Option("weights first", returning(_weights_first)))),
        ),
        properties=(
            Property("A4", "is softmax(Q K^T / sqrt(d)) V", (
                _case("1 query, 2 keys, d = 2", (1, 1, 1, 2, 2, 1)),
                _case("3 queries, 5 keys, d = 4", (1, 2, 3, 5, 4, 6)),
                _case("7 queries, 6 keys, d = 9", (2, 3, 7, 6, 9, 4)),
            )),
            Property("A8", "applies the mask", (
                _case("2 queries, 3 keys, masked", (1, 1, 2, 3, 2, 4), _mask(2, 3)),
                _case("6 queries, 7 keys, masked", (2, 3, 6, 7, 5, 4), _mask(6, 7)),
            ), needs=("mask",)),
            Property("A4", "is finite for scores of 1000", (_large(),)),
            Property("A4", "averages: equal values come back", law=_hull),
            Property("A11", "does not depend on the order of the keys", law=_permuted),
            Property("A7", "ignores a vector added to all keys", law=_shifted),
            Property("A8", "masked keys have no influence", law=_hidden,
                     needs=("mask",)),
            Property("A8", "sees no future under a causal mask", law=_prefix,
                     needs=("mask",)),
            Property("A9", "returns 0 for a fully masked query", (_dead(),),
                     needs=("mask",), advice=True),
        ),
        chapter="attention",
        pitfalls="gallery/3_attention/plot_8_how_attention_breaks",
        ledger=("attention.dot_product", "attention.masks",
                "attention.score_statistics"),
        mistakes=(
            Mistake("softmax over the heads", _mistaken(_scaled, _wrong_axis)),
            Mistake("the softmax overflows", _mistaken(_scaled, _no_maximum)),
            Mistake("masked scores are 0, not minus infinity", _zero_scores),
            Mistake("the mask is applied after the softmax", _masked_values),
            Mistake("the mask is ignored", _mask_ignored),
            Mistake("multiplied by the root of d, not divided",
                    _mistaken(lambda Q, K: Q @ K.mT * math.sqrt(Q.shape[-1]))),
            Mistake("divided by the root of the dimension of all heads", _mistaken(
                lambda Q, K: Q @ K.mT / math.sqrt(Q.shape[-1] * Q.shape[1]))),
            Mistake("divided by the root of the dimension of the values",
                    lambda Q, K, V, mask=None: _mistaken(
                        lambda q, k: q @ k.mT / math.sqrt(V.shape[-1]))(Q, K, V, mask)),
            Mistake("no softmax at all", _mistaken(_scaled, lambda S, mask: S)),
        ),
    )  # fmt: skip


def _large() -> Case:
    given = _draw(6, 1, 2, 3, 5, 4, 6)
    return Case("scores of about 1000", {**given, "Q": 1000 * given["Q"], "mask": None})


# The backward pass


def _backward(grad_O, Q, K, V, mask=None, P=None) -> Outputs:
    _, weights = scaled_dot_product_attention(Q, K, V, mask=mask)
    found = attention_backward(grad_O, Q, K, V, weights)
    return found.Q, found.K, found.V


def _weights(given: Any) -> Tensor:
    inputs = (given[name] for name in ("Q", "K", "V"))
    return scaled_dot_product_attention(*inputs, mask=given.get("mask"))[1]


def _backward_case(words: str, sizes: tuple, mask: Tensor | None = None) -> Case:
    given = {**_draw(sum(sizes), *sizes), "mask": mask}
    b, h, n, _, _, e = sizes
    (grad,) = normal(9, (b, h, n, e))
    P = scaled_dot_product_attention(given["Q"], given["K"], given["V"], mask=mask)[1]
    return Case(words, {"grad_O": grad, **given, "P": P})


def _keys_sum(f: Function) -> float:
    """The gradients of the keys add up to zero."""
    case = _backward_case("", (1, 2, 4, 5, 3, 6)).arguments
    return f(**case)[1].sum(-2).abs().max().item()


def _value_rows(f: Function) -> float:
    """The gradients of the values add up to that of the output: rows of P sum to 1."""
    case = _backward_case("", (1, 2, 4, 5, 3, 6)).arguments
    return relative(f(**case)[2].sum(-2), case["grad_O"].sum(-2))


def _parts(change: Callable):
    """Write the backward pass step by step, with one step changed."""

    def function(grad_O, Q, K, V, mask=None, P=None) -> Outputs:
        _, P = scaled_dot_product_attention(Q, K, V, mask=mask)
        return change(grad_O, Q, K, V, P, 1 / math.sqrt(Q.shape[-1]))

    return function


def _steps(D=True, weighted=True, scale_q=True, scale_k=True):
    def change(dO, Q, K, V, P, scale) -> Outputs:
        dP = dO @ V.mT
        mean = (dP * P if weighted else dP / P.shape[-1]).sum(-1, keepdim=True)
        dS = P * (dP - mean) if D else P * dP
        return (
            dS @ K * (scale if scale_q else 1),
            dS.mT @ Q * (scale if scale_k else 1),
            P.mT @ dO,
        )

    return _parts(change)


def _sigmoid_slope(dO, Q, K, V, P, scale) -> Outputs:
    """Differentiate the softmax entry by entry: p (1 - p)."""
    dS = (dO @ V.mT) * P * (1 - P)
    return dS @ K * scale, dS.mT @ Q * scale, P.mT @ dO


def _no_weights(dO, Q, K, V, P, scale) -> Outputs:
    """Leave out the weights in front: dP - D in place of P (dP - D)."""
    dP = dO @ V.mT
    dS = dP - (dP * P).sum(-1, keepdim=True)
    return dS @ K * scale, dS.mT @ Q * scale, P.mT @ dO


def _square_only(dO, Q, K, V, P, scale) -> Outputs:
    """Send the scores back to both inputs through the queries and keys exchanged."""
    dP = dO @ V.mT
    dS = P * (dP - (dP * P).sum(-1, keepdim=True))
    return dS @ K * scale**2, dS.mT @ Q * scale**2, P.mT @ dO


def attention_backward_() -> Contract:
    """Return the contract of the backward pass of attention."""
    outputs = (("Q", "batch head n d_key"), ("K", "batch head m d_key"),
               ("V", "batch head m d_value"))  # fmt: skip
    return Contract(
        kind="attention-backward",
        title="Attention: backward pass",
        arguments=(
            Argument("grad_O", "batch head n d_value", "gradient of the loss with "
                     "respect to the output",
                     ("O_bar", "dO", "grad_output", "upstream", "dout", "do")),
            Q, K, V, MASK,
            Argument("P", "batch head n m", "the weights of the forward pass",
                     ("weights", "attn", "A", "attn_weights"), ANY, fill=_weights),
        ),
        returns=tuple((n, s, f"gradient with respect to {n}") for n, s in outputs),
        ours=(_backward,),
        conventions=(AXES, mask_convention()),
        properties=(
            Property("A5", "is the gradient", (
                _backward_case("1 query, 2 keys, d = 2", (1, 1, 1, 2, 2, 1)),
                _backward_case("3 queries, 5 keys, d = 4", (1, 2, 3, 5, 4, 6)),
                _backward_case("7 queries, 6 keys, d = 9", (2, 3, 7, 6, 9, 4)),
            )),
            Property("A5", "is the gradient under a mask", (
                _backward_case("6 queries, 7 keys, masked", (2, 3, 6, 7, 5, 4),
                               _mask(6, 7)),
            ), needs=("mask",)),
            Property("A5", "gradients of the keys add up to zero", law=_keys_sum),
            Property("A5", "gradients of the values add up to those of the output",
                     law=_value_rows),
        ),
        chapter="attention",
        pitfalls="gallery/3_attention/plot_8_how_attention_breaks",
        ledger=(
            "attention.dot_product",
            "attention.softmax",
            "attention.masks",
            "attention.score_statistics",
        ),
        mistakes=(
            Mistake("the softmax is differentiated entry by entry: p (1 - p)",
                    _parts(_sigmoid_slope)),
            Mistake("the gradient of the scores without the weights in front",
                    _parts(_no_weights)),
            Mistake("the queries are not scaled", _steps(scale_q=False)),
            Mistake("neither queries nor keys are scaled",
                    _steps(scale_q=False, scale_k=False)),
            Mistake("divided by d in place of its root", _parts(_square_only)),
            Mistake("the mean of the gradient is not weighted", _steps(weighted=False)),
        ),
    )  # fmt: skip


# The causal mask


def _causal(n, m=None) -> Outputs:
    return (causal_mask(n, m).double(),)


def _squeezed(found: Outputs, arguments: Any) -> Tensor:
    n = arguments["n"]
    m = n if arguments.get("m") is None else arguments["m"]
    return found[0].reshape(n, m)


def _plain(found: Outputs, arguments: Any) -> Outputs:
    return (_squeezed(found, arguments),)


def _inverted(found: Outputs, arguments: Any) -> Outputs:
    return (1 - _squeezed(found, arguments),)


def _added(found: Outputs, arguments: Any) -> Outputs:
    """Read 0 as attend, and minus infinity or a number far below as masked."""
    mask = _squeezed(found, arguments)
    known = (mask == 0) | (mask <= -1e4)
    return (torch.where(known, (mask == 0).double(), torch.nan),)


def _top_left(found: Outputs, arguments: Any) -> Outputs:
    """Move a mask that is aligned at the first key to the last one."""
    mask = found[0]
    n, m = mask.shape
    first = torch.ones(n, m).tril().double()
    return (torch.where(mask == first, _causal(n, m)[0], torch.nan),)


def causal_mask_() -> Contract:
    """Return the contract of the causal mask."""

    def case(words: str, n: int, m: int | None = None) -> Case:
        return Case(words, {"n": n, "m": m})

    def prefix(f: Function) -> float:
        return relative(f(n=4)[0], f(n=6)[0][:4, :4])

    return Contract(
        kind="causal-mask",
        title="Causal mask",
        arguments=(
            Argument("n", "int", "number of queries",
                     ("n_query", "size", "seq_len", "length", "sz")),
            Argument("m", "int", "number of keys", ("n_key", "total"), None,
                     fill=lambda given: given["n"]),
        ),
        returns=(("mask", "n m", "true where a query may attend to a key"),),
        ours=(_causal,),
        conventions=(
            Convention("alignment", (
                Option("the last query at the last key"),
                Option("the first query at the first key", returning(_top_left)),
            ), needs="m"),
            Convention("values", (
                Option("true = attend", returning(_plain)),
                Option("true = masked", returning(_inverted)),
                Option("0 = attend, a low number = masked", returning(_added)),
            )),
        ),
        properties=(
            Property("A8", "lets a query attend up to its own position", (
                case("1 position", 1), case("3 positions", 3), case("7 positions", 7))),
            Property("A8", "is right for more keys than queries", (
                case("2 queries, 5 keys", 2, 5),), needs=("m",)),
            Property("A8", "that of a prefix is a part of it", law=prefix),
        ),
        chapter="attention",
        pitfalls="gallery/3_attention/plot_5_masks",
        ledger=(
            "attention.masks",
            "attention.language_model",
        ),
        mistakes=(
            Mistake("a position attends to the next one, too",
                    lambda n, m=None: (torch.ones(n, m or n).tril(1).double(),)),
            Mistake("a position does not attend to itself",
                    lambda n, m=None: (torch.ones(n, m or n).tril(-1).double(),)),
            Mistake("the past is masked, not the future",
                    lambda n, m=None: (torch.ones(n, m or n).triu().double(),)),
            Mistake("each position attends to itself alone",
                    lambda n, m=None: (torch.eye(n, m or n).double(),)),
            Mistake("nothing is masked",
                    lambda n, m=None: (torch.ones(n, m or n).double(),)),
        ),
    )  # fmt: skip
