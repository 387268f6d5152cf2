"""Contracts of the loss and of gradient clipping."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dian.check.adapters import Skipped
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
    returning,
)
from dian.claims.compare import largest, normal, relative
from dian.training import loss
from dian.training.clipping import clip_by_norm

# Cross-entropy


def _cross_entropy(logits, target, mask=None) -> Outputs:
    value = loss.cross_entropy(logits, target, mask)
    return value, loss.cross_entropy_backward(logits, target, mask)


def _reduced(reduce: Callable[[Tensor], Tensor]):
    """Undo another reduction: multiply by a number of positions."""

    def convert(found: Outputs, arguments: Any) -> Outputs:
        mask = arguments.get("mask")
        n = arguments["target"].numel() if mask is None else int(mask.sum())
        return tuple(x / reduce(n, arguments) for x in found)

    return returning(convert)


def _each(found: Outputs, arguments: Any) -> Outputs:
    """Average losses that were returned one by one."""
    mask = arguments.get("mask")
    if not found[0].ndim:
        raise ValueError("one loss, not one for each position")
    each = found[0] if mask is None else found[0][mask]
    return (each.mean(), *found[1:])


def _one_hot(function: Function) -> Function:
    def wrapped(logits, target, **rest) -> Outputs:
        hot = F.one_hot(target, logits.shape[-1]).to(logits.dtype)
        return function(logits=logits, target=hot, **rest)

    return wrapped


def _gradient_alone(function: Function) -> Function:
    def wrapped(logits, target, mask=None) -> Outputs:
        (found, *_) = function(logits=logits, target=target, mask=mask)
        return loss.cross_entropy(logits, target, mask), found

    return wrapped


def _loss_case(words: str, n: int, classes: int, masked: bool, size: float = 1) -> Case:
    (logits,) = normal(n, (n, classes))
    generator = torch.Generator().manual_seed(n)
    target = torch.randint(classes, (n,), generator=generator)
    mask = torch.rand(n, generator=generator) < 0.6
    mask[0], mask[-1] = True, False
    arguments = {"logits": size * logits, "target": target}
    return Case(words, {**arguments, "mask": mask if masked else None})


def _uniform(f: Function) -> float:
    logits, target = torch.zeros(6, 7).double(), torch.arange(6)
    return abs(f(logits=logits, target=target)[0].item() - math.log(7))


def _shifted(f: Function) -> float:
    (logits,), target = normal(1, (5, 4)), torch.tensor([0, 3, 1, 2, 2])
    a, b = (f(logits=x, target=target) for x in (logits, logits + 3))
    return max(relative(x, y) for x, y in zip(a, b, strict=True))


def _rows_sum_to_zero(f: Function) -> float:
    (logits,), target = normal(2, (5, 4)), torch.tensor([0, 3, 1, 2, 2])
    found = f(logits=logits, target=target)
    if len(found) < 2:
        raise Skipped("gradient")
    return found[1].sum(-1).abs().max().item()


def _mistaken(value: Callable, gradient: Callable | None = None):
    """Return the loss of ``value`` and its gradient by autograd."""

    def function(logits, target, mask=None) -> Outputs:
        leaf = logits.detach().clone().requires_grad_()
        found = value(leaf, target, mask)
        grad = torch.zeros_like(logits)
        if found.requires_grad:
            (grad,) = torch.autograd.grad(found, leaf)
        return found.detach(), grad

    return function


def _kept(x, mask):
    return x if mask is None else x[mask]


def _double_softmax(o, y, m):
    return F.cross_entropy(_kept(o.softmax(-1), m), _kept(y, m))


def _mask_ignored(o, y, m):
    return F.cross_entropy(o, y)


def _base_two(o, y, m):
    return F.cross_entropy(_kept(o, m), _kept(y, m)) / math.log(2)


def _over_batch(o, y, m):
    o, y = _kept(o, m), _kept(y, m)
    return -o.log_softmax(0).gather(1, y[:, None]).mean()


def _over_entries(o, y, m):
    return F.cross_entropy(_kept(o, m), _kept(y, m)) / o.shape[-1]


def _logits_as_probabilities(o, y, m):
    o, y = _kept(o, m), _kept(y, m)
    return -o.gather(1, y[:, None]).mean()


def _clamped(o, y, m):
    p = o.exp() / o.exp().sum(-1, keepdim=True)
    return -torch.log(_kept(p, m).gather(1, _kept(y, m)[:, None]) + 1e-8).mean()


def _masked_logits(o, y, m):
    o = o if m is None else o * m[:, None]
    return F.cross_entropy(o, y)


def _sum_gradient(logits, target, mask=None) -> Outputs:
    value, gradient = _cross_entropy(logits, target, mask)
    return value, gradient * (target.numel() if mask is None else mask.sum())


def cross_entropy() -> Contract:
    """Return the contract of the masked cross-entropy and its gradient."""

    def count(n, arguments):
        return n

    return Contract(
        kind="cross-entropy",
        title="Softmax and cross-entropy, value and gradient",
        arguments=(
            Argument("logits", "n c", "unnormalized log-probabilities",
                     ("outputs", "scores", "preds", "input", "o", "y_hat", "x",
                      "y_pred")),
            Argument("target", "n", "class of each position, integers",
                     ("targets", "labels", "y", "label", "y_true")),
            Argument("mask", "n", "true where a position counts", ("m", "valid"), None,
                     fill=lambda given: torch.ones_like(given["target"]).bool()),
        ),
        returns=(("loss", "", "mean over the positions that count"),
                 ("gradient", "n c", "with respect to the logits")),
        ours=(_cross_entropy,),
        conventions=(
            Convention("target", (
                Option("integer targets"), Option("one-hot targets", _one_hot))),
            Convention("reduction", (
                Option("mean over what counts"),
                Option("sum over what counts", _reduced(count)),
                Option("a loss for each position", returning(_each)),
            )),
            Convention("mask", (
                Option("mask: true = counts"),
                Option("mask: true = ignored", converting(mask=torch.logical_not)),
                Option("mask of 0 and 1", converting(mask=lambda m: m.double())),
            ), needs="mask"),
            Convention("returns", (
                Option("value first"), Option("gradient alone", _gradient_alone))),
        ),
        properties=(
            Property("R3", "is the mean negative log-probability", (
                _loss_case("1 position, 3 classes", 1, 3, False),
                _loss_case("8 positions, 5 classes", 8, 5, False),
            )),
            Property("R3", "averages over the positions that count", (
                _loss_case("5 positions, some masked", 5, 4, True),
                _loss_case("11 positions, some masked", 11, 3, True),
            ), needs=("mask",)),
            Property("R4", "is finite for logits of 10,000", (
                _loss_case("logits of 10,000", 6, 5, False, 1e4),)),
            Property("R4", "is ln C for a uniform prediction", law=_uniform),
            Property("R4", "ignores a constant added to all logits", law=_shifted),
            Property("R4", "rows of the gradient add up to zero",
                     law=_rows_sum_to_zero),
        ),
        chapter="rnn",
        pitfalls="gallery/1_rnn/plot_8_how_it_breaks",
        ledger=("rnn.recurrence", "training.loop"),
        mistakes=(
            Mistake("the gradient is that of a sum, the value a mean", _sum_gradient),
            Mistake("softmax is taken twice", _mistaken(_double_softmax)),
            Mistake("the mask is ignored", _mistaken(_mask_ignored)),
            Mistake("in bits", _mistaken(_base_two)),
            Mistake("the softmax is taken over the batch", _mistaken(_over_batch)),
            Mistake("divided by the number of classes, too", _mistaken(_over_entries)),
            Mistake("no softmax at all", _mistaken(_logits_as_probabilities)),
            Mistake("1e-8 is added inside the logarithm", _mistaken(_clamped)),
            Mistake("masked logits are set to zero, and count",
                    _mistaken(_masked_logits)),
        ),
    )  # fmt: skip


# Clipping by norm


def _clip(gradients, max_norm) -> Outputs:
    parameters = [nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = g.detach().clone()
    clip_by_norm(parameters, max_norm)
    return tuple(p.grad for p in parameters)


def _into(make: Callable[[list[Tensor]], list], read: Callable[[Any], Tensor]):
    """Wrap a function that writes into its arguments."""

    def wrap(function: Function) -> Function:
        def wrapped(gradients, max_norm) -> Outputs:
            given = make([g.clone() for g in gradients])
            function.write(given, max_norm)
            return tuple(read(x).detach().clone() for x in given)

        return wrapped

    return wrap


def _dictionary(function: Function) -> Function:
    """Wrap a function of a dictionary of gradients, which it returns."""
    return converting(gradients=_named)(function)


def _into_dictionary(function: Function) -> Function:
    """Wrap a function that changes a dictionary of gradients."""

    def wrapped(gradients, max_norm) -> Outputs:
        given = _named([g.clone() for g in gradients])
        changed = function.write(given, max_norm)
        return tuple(torch.as_tensor(x).detach().clone() for x in changed.values())

    return wrapped


def _named(gradients: list[Tensor]) -> dict[str, Tensor]:
    return dict(zip(("W_xh", "W_hh", "b_h"), gradients, strict=True))


def _parameters(gradients: list[Tensor]) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = g
    return parameters


def _torch_epsilon(function: Function) -> Function:
    """Undo the 1e-6 that torch adds to the norm."""

    def wrapped(gradients, max_norm) -> Outputs:
        found = function(gradients=gradients, max_norm=max_norm)
        norm = _norm(gradients)
        factor = (norm + 1e-6) / norm if max_norm < norm + 1e-6 else 1.0
        return tuple(x * factor for x in found)

    return wrapped


def _norm(gradients) -> float:
    return math.hypot(*(g.double().norm().item() for g in gradients))


def _draw(seed: int, size: float = 1.0) -> list[Tensor]:
    return [size * g for g in normal(seed, (3,), (2, 4), (1, 5))]


def _clip_case(words: str, size: float, max_norm: float) -> Case:
    return Case(words, {"gradients": _draw(7, size), "max_norm": max_norm})


def _direction(f: Function) -> float:
    gradients = _draw(1)
    found = f(gradients=gradients, max_norm=0.5)
    a, b = (torch.cat([x.flatten() for x in xs]) for xs in (gradients, found))
    return abs(torch.cosine_similarity(a, b, 0).item() - 1)


def _norm_is_limit(f: Function) -> float:
    found = f(gradients=_draw(2), max_norm=0.25)
    return abs(_norm(found) / 0.25 - 1)


def _idempotent(f: Function) -> float:
    once = f(gradients=_draw(3), max_norm=0.5)
    twice = f(gradients=[x.double() for x in once], max_norm=0.5)
    return largest(relative(a, b) for a, b in zip(once, twice, strict=True))


def _by_value(gradients, max_norm) -> Outputs:
    return tuple(g.clamp(-max_norm, max_norm) for g in gradients)


def _always(gradients, max_norm) -> Outputs:
    norm = _norm(gradients)
    return tuple(g * max_norm / norm if norm else g for g in gradients)


def _unit(gradients, max_norm) -> Outputs:
    """Divide by the norm, and forget the limit."""
    norm = _norm(gradients)
    return tuple(g / norm if norm > max_norm else g for g in gradients)


def _max_norm(gradients, max_norm) -> Outputs:
    norm = max(g.abs().max().item() for g in gradients)
    return tuple(g * min(1.0, max_norm / norm) if norm else g for g in gradients)


def clip() -> Contract:
    """Return the contract of clipping by norm."""
    return Contract(
        kind="clip",
        title="Gradient clipping by norm",
        arguments=(
            Argument("gradients", "list of arrays", "gradients of three parameters",
                     ("grads", "parameters", "params", "g")),
            Argument("max_norm", "float", "the maximum norm",
                     ("theta", "threshold", "clip", "max", "clip_value")),
        ),
        returns=tuple(
            (f"g_{i}", "...", "the clipped gradient") for i in (1, 2, 3)
        ),
        ours=(_clip,),
        conventions=(
            Convention("how", (
                Option("returns gradients"),
                Option("changes gradients in place",
                       _into(list, lambda g: g), in_place=True),
                Option("changes .grad of parameters",
                       _into(_parameters, lambda p: p.grad), in_place=True),
                Option("returns a dictionary", _dictionary),
                Option("changes a dictionary", _into_dictionary, in_place=True),
            )),
            Convention("epsilon", (
                Option("theta / norm"),
                Option("theta / (norm + 1e-6), as torch", _torch_epsilon),
            )),
        ),
        properties=(
            Property("R13", "scales all gradients to the norm", (
                _clip_case("norm about 4, limit 1", 1.0, 1.0),
                _clip_case("norm about 400, limit 5", 100.0, 5.0),
                _clip_case("norm about 0.04, limit 0.001", 0.01, 0.001),
            )),
            Property("R13", "leaves short gradients as they are", (
                _clip_case("norm about 0.4, limit 1", 0.1, 1.0),
            )),
            Property("R13", "leaves zero as it is", (
                _clip_case("gradients of zero", 0.0, 1.0),
            )),
            Property("R13", "keeps the direction", law=_direction),
            Property("R13", "the norm is the limit", law=_norm_is_limit),
            Property("R13", "clipping twice is clipping once", law=_idempotent),
        ),
        chapter="rnn",
        pitfalls="gallery/1_rnn/plot_8_how_it_breaks",
        ledger=(
            "training.clipping",
            "training.optimizers",
        ),
        mistakes=(
            Mistake("nothing is clipped",
                    lambda gradients, max_norm: tuple(gradients)),
            Mistake("each value is clipped", _by_value),
            Mistake("scaled to the limit, also if the norm is smaller", _always),
            Mistake("divided by the norm, without the limit", _unit),
            Mistake("the largest entry in place of the norm", _max_norm),
        ),
    )  # fmt: skip
