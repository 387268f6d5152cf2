"""Contract of multi-head attention."""

import inspect
import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dian.attention.dot_product import scaled_dot_product_attention
from dian.attention.multi_head import (
    Projections,
    merge_heads,
    multi_head_attention,
    split_heads,
)
from dian.check.adapters import Fault
from dian.check.contract import (
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
)
from dian.check.kinds.attention import mask_convention
from dian.claims.compare import normal, relative

NAMES = ("W_Q", "W_K", "W_V", "W_O")
HEADS = {"n_head", "n_heads", "num_heads", "heads", "nhead", "num_attention_heads", "h"}
WIDTHS = {"d_k", "d_v", "dim_head", "head_dim", "d_head"}
"""Names of the number of heads and of the features of each, where a class has them."""


def _heads(X, W_Q, W_K, W_V, W_O, n_head, mask=None) -> Outputs:
    zero = X.new_zeros(X.shape[-1])
    weights = Projections(W_Q, W_K, W_V, W_O, *[zero] * 4)
    output, inner = multi_head_attention(X, X, weights, n_head, mask=mask)
    return output, inner.P


def _transposed(function: Function) -> Function:
    return converting(**{name: lambda W: W.T for name in NAMES})(function)


def _one_sequence(function: Function) -> Function:
    def wrapped(X, **rest) -> Outputs:
        found = [function(X=x, **rest)[0] for x in X]
        return (torch.stack(found),)

    return wrapped


def _time_first(function: Function) -> Function:
    def wrapped(X, **rest) -> Outputs:
        (found, *_) = function(X=X.transpose(0, 1), **rest)
        return (found.transpose(0, 1),)

    return wrapped


def _draw(seed: int, batch: int, n: int, D: int, n_head: int) -> dict:
    X, *weights = normal(seed, (batch, n, D), *[(D, D)] * 4)
    scaled = [W / D**0.5 for W in weights]
    return {"X": X, **dict(zip(NAMES, scaled, strict=True)), "n_head": n_head}


def _case(words: str, sizes: tuple, mask: Tensor | None = None) -> Case:
    return Case(words, {**_draw(sum(sizes), *sizes), "mask": mask})


def _permuted(f: Function) -> float:
    given, order = _draw(1, 2, 5, 6, 3), torch.tensor([3, 0, 4, 2, 1])
    (found, *_) = f(**{**given, "X": given["X"][:, order]})
    return relative(found, f(**given)[0][:, order])


def _independent(f: Function) -> float:
    given = _draw(2, 3, 5, 6, 2)
    (found, *_) = f(**{**given, "X": given["X"][1:2]})
    return relative(found, f(**given)[0][1:2])


def _of_heads(f: Function) -> float:
    """Heads that are permuted with the rows of W_O give the same."""
    given = _draw(3, 1, 4, 6, 3)
    order = torch.tensor([4, 5, 0, 1, 2, 3])
    more = {name: given[name][:, order] for name in NAMES[:3]}
    more["W_O"] = given["W_O"][order]
    return relative(f(**{**given, **more})[0], f(**given)[0])


def _causal(f: Function) -> float:
    given, mask = _draw(4, 1, 6, 4, 2), torch.ones(6, 6).bool().tril()
    (whole, *_) = f(**given, mask=mask)
    (part, *_) = f(**{**given, "X": given["X"][:, :4]}, mask=mask[:4, :4])
    return relative(part, whole[:, :4])


def _built(change: Callable):
    """Attend with heads that ``change`` computes from queries, keys and values."""

    def function(X, W_Q, W_K, W_V, W_O, n_head, mask=None) -> Outputs:
        return (change(X, (X @ W_Q, X @ W_K, X @ W_V), W_O, n_head, mask),)

    return function


def _plain(projected, n_head, mask) -> Tensor:
    Q, K, V = (split_heads(x, n_head) for x in projected)
    return scaled_dot_product_attention(Q, K, V, mask=mask)[0]


def _no_output(X, projected, W_O, n_head, mask) -> Tensor:
    return merge_heads(_plain(projected, n_head, mask))


def _one_head(X, projected, W_O, n_head, mask) -> Tensor:
    return merge_heads(_plain(projected, 1, mask)) @ W_O


def _whole_width(X, projected, W_O, n_head, mask) -> Tensor:
    """Divide by the root of the model dimension, not of a head's."""
    Q, K, V = projected
    return merge_heads(_plain((Q / n_head**0.5, K, V), n_head, mask)) @ W_O


def _count_of_heads(X, projected, W_O, n_head, mask) -> Tensor:
    Q, K, V = projected
    scale = (X.shape[-1] / n_head / n_head) ** 0.5
    return merge_heads(_plain((Q * scale, K, V), n_head, mask)) @ W_O


def _over_heads(X, projected, W_O, n_head, mask) -> Tensor:
    """Attend over the heads of one position: heads and positions are not exchanged."""
    Q, K, V = (x.unflatten(-1, (n_head, -1)) for x in projected)
    return scaled_dot_product_attention(Q, K, V)[0].flatten(-2) @ W_O


def _residual(X, projected, W_O, n_head, mask) -> Tensor:
    return X + merge_heads(_plain(projected, n_head, mask)) @ W_O


def _shared(X, projected, W_O, n_head, mask) -> Tensor:
    """Give all heads the projection of the first."""
    d = X.shape[-1] // n_head
    projected = [x[..., :d].repeat(1, 1, n_head) for x in projected]
    return merge_heads(_plain(projected, n_head, mask)) @ W_O


def _mean_of_heads(X, projected, W_O, n_head, mask) -> Tensor:
    heads = _plain(projected, n_head, mask)
    return merge_heads(heads.mean(1, keepdim=True).expand_as(heads)) @ W_O


def _mask_ignored(X, projected, W_O, n_head, mask) -> Tensor:
    return merge_heads(_plain(projected, n_head, None)) @ W_O


PATTERNS = (
    ("W_Q", r"(^|[._])(w?_?q|q_?proj|query|to_q|w_?q|linear_?q|q_?linear|wq)([._]|$)"),
    ("W_K", r"(^|[._])(w?_?k|k_?proj|key|to_k|w_?k|linear_?k|k_?linear|wk)([._]|$)"),
    ("W_V", r"(^|[._])(w?_?v|v_?proj|value|to_v|w_?v|linear_?v|v_?linear|wv)([._]|$)"),
    ("W_O", r"(^|[._])(w?_?o|o_?proj|out|out_?proj|to_out|fc|wo|proj|output)([._]|$)"),
)  # fmt: skip


def module_as_function(module: type[nn.Module]) -> Callable:
    """Return a function of weights of a module made as ``module(D, n_head)``.

    Its matrices are recognized by their names, or else by their order: queries, keys,
    values, output; one of three times the size holds the first three. Biases are set to
    zero. A matrix of :class:`torch.nn.Linear` is transposed.
    """
    named = _mask_name(module.forward)

    def heads(X, W_Q, W_K, W_V, W_O, n_head, mask=None):
        layer = _made(module, X.shape[-1], n_head).to(X.dtype).eval()
        _fill(layer, dict(zip(NAMES, (W_Q, W_K, W_V, W_O), strict=True)), X.shape[-1])
        options = {} if mask is None else {named: mask}
        found = _forward(layer, X, options)
        return found[0] if isinstance(found, tuple) else found

    return heads if named else _unmasked(heads)


def class_as_function(made: type) -> Callable:
    """Return a function of weights of a class made as ``made(D, n_head)``.

    Its matrices are attributes, such as ``W_q``, which are recognized by their names.
    """

    def heads(X, W_Q, W_K, W_V, W_O, n_head, mask=None):
        layer = _made(made, X.shape[-1], n_head)
        weights = dict(zip(NAMES, (W_Q, W_K, W_V, W_O), strict=True))
        for key, pattern in PATTERNS:
            names = [n for n in vars(layer) if re.search(pattern, n.lower())]
            if len(names) != 1:
                raise Fault("module", f"has no attribute for {key}, such as {key}")
            setattr(layer, names[0], weights[key])
        call = layer if callable(layer) else layer.forward
        options = {} if mask is None else {named: mask}
        found = _forward(call, X, options)
        return found[0] if isinstance(found, tuple) else found

    named = _mask_name(getattr(made, "forward", made.__call__))
    return heads if named else _unmasked(heads)


def _unmasked(heads: Callable) -> Callable:
    def without_mask(X, W_Q, W_K, W_V, W_O, n_head):
        return heads(X, W_Q, W_K, W_V, W_O, n_head)

    return without_mask


def _adapted(function: Callable) -> tuple[Callable, str]:
    plain = inspect.isclass(function) and not issubclass(function, nn.Module)
    if plain and (hasattr(function, "forward") or "__call__" in vars(function)):
        return class_as_function(function), "a class with weights as attributes"
    return function, ""


def _made(module: type[nn.Module], D: int, n_head: int) -> nn.Module:
    sizes = _sizes(module, D, n_head)
    for options in ({"batch_first": True}, {}):
        try:
            return module(**sizes, **options) if sizes else module(D, n_head, **options)
        except Exception as error:
            last = error
    line = " ".join(str(last).split())[:120]
    raise Fault("module", f"cannot be made as module({D}, {n_head}): {line}")


def _sizes(module: type, D: int, n_head: int) -> dict[str, int]:
    """Return the arguments by name, if that of the number of heads is a usual one."""
    known = dict.fromkeys(HEADS, n_head) | dict.fromkeys(WIDTHS, D // n_head)
    names = list(inspect.signature(module).parameters)
    width = next((name for name in names if name not in known), None)
    if width is None or not HEADS & {*names}:
        return {}
    return {width: D} | {name: known[name] for name in names if name in known}


def _fill(layer: nn.Module, weights: dict[str, Tensor], D: int) -> None:
    """Copy the weights into the parameters of a layer."""
    linear = {id(m.weight) for m in layer.modules() if isinstance(m, nn.Linear)}
    linear |= {id(p) for n, p in layer.named_parameters() if n.startswith("in_proj")}
    left = dict(weights)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if parameter.ndim < 2:
                parameter.zero_()
                continue
            turned = id(parameter) in linear
            if parameter.shape in ((3 * D, D), (D, 3 * D)):
                value = torch.cat([left.pop(key) for key in NAMES[:3]], 1)
                turned = parameter.shape == (3 * D, D)
            elif parameter.shape == (2 * D, D) and {"W_K", "W_V"} <= {*left}:
                value = torch.cat([left.pop("W_K"), left.pop("W_V")], 1)
            elif parameter.shape == (D, D) and left:
                value = left.pop(_meant(name, left))
            else:
                shape = tuple(parameter.shape)
                raise Fault("module", f"cannot map its parameter {name} of {shape}")
            parameter.copy_(value.T if turned else value)
    if left:
        raise Fault("module", f"has no parameter for {', '.join(left)}")


def _meant(name: str, left: dict[str, Tensor]) -> str:
    """Return which of the matrices that are left a parameter is."""
    for key, pattern in PATTERNS:
        if key in left and re.search(pattern, name.removesuffix("weight").lower()):
            return key
    return next(iter(left))


def _mask_name(forward: Callable) -> str | None:
    """Return the name of the parameter for a mask, if there is one."""
    names = inspect.signature(forward).parameters
    known = ("mask", "attn_mask", "attention_mask")
    return next((name for name in known if name in names), None)


def _forward(layer: Callable, X: Tensor, options: dict):
    try:
        return layer(X, **options)
    except TypeError:  # takes queries, keys and values
        inputs = X, X, X
    try:
        return layer(*inputs, **options)
    except (IndexError, RuntimeError):  # takes a mask for each sequence
        each = {k: mask.expand(len(X), *mask.shape) for k, mask in options.items()}
        return layer(*inputs, **each)


def multi_head() -> Contract:
    """Return the contract of multi-head attention."""
    mask = (torch.arange(5)[:, None] * 2 + torch.arange(5) ** 2) % 3 != 1
    D = "D D"
    return Contract(
        kind="multi-head",
        title="Multi-head attention (self-attention, no biases)",
        arguments=(
            Argument("X", "batch n D", "the sequence", ("inputs",)),
            Argument("W_Q", D, "projection to queries", ("Wq", "WQ")),
            Argument("W_K", D, "projection to keys", ("Wk", "WK")),
            Argument("W_V", D, "projection to values", ("Wv", "WV")),
            Argument("W_O", D, "projection of the output", ("Wo", "WO")),
            Argument("n_head", "int", "number of heads",
                     ("num_heads", "heads", "n_heads", "h")),
            Argument("mask", "n n", "true where a query may attend to a key",
                     ("attn_mask", "attention_mask"), None, fill=lambda given:
                     torch.ones(2 * given["X"].shape[1:2], dtype=torch.bool)),
        ),
        returns=(("Y", "batch n D", "the output"),),
        ours=(_heads,),
        conventions=(
            Convention("axes", (
                Option("(batch, n, D)"), Option("(n, batch, D)", _time_first),
                Option("(n, D)", _one_sequence),
            ), layout=True),
            Convention("weights", (
                Option("X W"), Option("X W^T, as torch.nn.Linear", _transposed))),
            mask_convention(),
        ),
        properties=(
            Property("A6", "attends with every head, and projects", (
                _case("2 positions, width 4, 2 heads", (1, 2, 4, 2)),
                _case("5 positions, width 12, 3 heads", (2, 5, 12, 3)),
                _case("7 positions, width 8, 4 heads", (3, 7, 8, 4)),
            )),
            Property("A8", "applies the mask", (
                _case("5 positions, masked", (2, 5, 6, 3), mask),), needs=("mask",)),
            Property("A11", "is equivariant to the order of positions", law=_permuted),
            Property("A6", "does not mix the sequences of a batch", law=_independent),
            Property("A7", "heads may change places", law=_of_heads),
            Property("A8", "sees no future under a causal mask", law=_causal,
                     needs=("mask",)),
        ),
        chapter="attention",
        pitfalls="gallery/3_attention/plot_8_how_attention_breaks",
        ledger=(
            "attention.multi_head",
            "attention.dot_product",
            "attention.masks",
            "attention.score_statistics",
        ),
        mistakes=(
            Mistake("the output projection is missing", _built(_no_output)),
            Mistake("a single head of the model dimension", _built(_one_head)),
            Mistake("divided by the root of the model dimension, not of a head's",
                    _built(_whole_width)),
            Mistake("divided by the root of the number of heads",
                    _built(_count_of_heads)),
            Mistake("attends over the heads of one position", _built(_over_heads)),
            Mistake("the input is added to the output", _built(_residual)),
            Mistake("one projection for all heads", _built(_shared)),
            Mistake("the heads are averaged", _built(_mean_of_heads)),
            Mistake("the mask is ignored", _built(_mask_ignored)),
        ),
        module=module_as_function,
        adapt=_adapted,
        notes=(
            "A class made as `Class(D, n_head)`, with the matrices as attributes such "
            "as `W_q`, is accepted as well.",
        ),
    )  # fmt: skip
