"""Contracts of chapter 1: the recurrent network and backpropagation through time."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

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
    returning,
)
from dian.claims.compare import normal, relative
from dian.rnn.recurrence import rnn_backward, rnn_forward

WEIGHTS = (
    Argument("W_xh", "d h", "input weights", ("W_ih", "Wxh", "weight_ih", "W_x", "U")),
    Argument("W_hh", "h h", "recurrent weights", ("Whh", "weight_hh", "W_h")),
)
INPUT = Argument("X", "time batch d", "the input sequences", ("inputs", "xs"))
BIAS = Argument("b_h", "h", "bias", ("bias", "b", "bh"))
START = Argument("H_0", "batch h", "the initial state", ("h0", "h_0", "state", "H0"))


def _states(X, W_xh, W_hh, b_h, H_0) -> Outputs:
    return (rnn_forward(X, W_xh, W_hh, b_h, H_0)[1:],)


def example(time: int, batch: int, d: int, h: int) -> dict[str, Tensor]:
    """Draw inputs and weights; the states are far from zero."""
    shapes = (time, batch, d), (d, h), (h, h), (h,), (batch, h)
    X, W_xh, W_hh, b_h, H_0 = normal(time + batch, *shapes)
    W_xh, W_hh = W_xh / d**0.5, W_hh / h**0.5
    return {"X": X, "W_xh": W_xh, "W_hh": W_hh, "b_h": b_h, "H_0": H_0}


def _case(words: str, *sizes: int) -> Case:
    return Case(words, example(*sizes))


def _transposed_weights(function: Function) -> Function:
    return converting(W_xh=lambda W: W.T, W_hh=lambda W: W.T)(function)


def _batch_first(function: Function) -> Function:
    def wrapped(X, **rest) -> Outputs:
        (found, *_) = function(X=X.transpose(0, 1), **rest)
        return (found.transpose(0, 1) if found.ndim == 3 else found,)

    return wrapped


def _one_sequence(function: Function) -> Function:
    """Wrap a function of one sequence, ``(time, d)``, with a state ``(h,)``."""

    def wrapped(X, H_0, **rest) -> Outputs:
        pairs = zip(X.unbind(1), H_0, strict=True)
        rows = [function(X=x, H_0=h, **rest)[0] for x, h in pairs]
        return (torch.stack([row.reshape(-1, H_0.shape[-1]) for row in rows], 1),)

    return wrapped


def _without_start(found: Outputs, arguments: Any) -> Outputs:
    return (found[0][1:],)


def _last_alone(function: Function) -> Function:
    """Wrap a function that returns the last state: run it on every prefix."""

    def wrapped(X, **rest) -> Outputs:
        last = [function(X=X[:t], **rest)[0] for t in range(1, len(X) + 1)]
        return (torch.stack([x.reshape(X.shape[1], -1) for x in last]),)

    return wrapped


def _prefix(f: Function) -> float:
    """The states of a prefix do not depend on what follows."""
    inputs = example(6, 2, 3, 4)
    (whole, *_) = f(**inputs)
    (part, *_) = f(**{**inputs, "X": inputs["X"][:4]})
    return relative(part, whole[:4])


def _in_pieces(f: Function) -> float:
    """A sequence in two pieces, the state handed on, gives the same."""
    inputs = example(7, 2, 3, 4)
    (whole, *_) = f(**inputs)
    (first, *_) = f(**{**inputs, "X": inputs["X"][:3]})
    (second, *_) = f(**{**inputs, "X": inputs["X"][3:], "H_0": first[-1]})
    return relative(torch.cat([first, second]), whole)


def _independent(f: Function) -> float:
    """Each sequence is computed as if it were alone."""
    inputs = example(5, 3, 2, 4)
    (whole, *_) = f(**inputs)
    one = {**inputs, "X": inputs["X"][:, :1], "H_0": inputs["H_0"][:1]}
    return relative(f(**one)[0], whole[:, :1])


def _no_recurrence(X, W_xh, W_hh, b_h, H_0) -> Outputs:
    return (torch.tanh(X @ W_xh + H_0 @ W_hh + b_h),)


def _outputs_of(phi: Callable[[Tensor], Tensor]):
    def states(X, W_xh, W_hh, b_h, H_0) -> Outputs:
        found, state = [], H_0
        for x in X:
            state = phi(x @ W_xh + state @ W_hh + b_h)
            found.append(state)
        return (torch.stack(found),)

    return states


def _last_input_first(X, W_xh, W_hh, b_h, H_0) -> Outputs:
    return (_states(X.flip(0), W_xh, W_hh, b_h, H_0)[0].flip(0),)


def module_as_function(module: type[nn.Module]) -> Callable:
    """Return a function of weights of a module that is made as ``module(d, h)``.

    The weights are found by their shapes, which are all different; a second bias and
    whatever else has one dimension is set to zero.
    """

    def states(X, W_xh, W_hh, b_h, H_0):
        d, h = W_xh.shape
        try:
            layer = module(d, h).to(X.dtype)
        except Exception as error:
            line = " ".join(str(error).split())[:120]
            raise Fault(
                "module", f"cannot be made as module({d}, {h}): {line}"
            ) from None
        given = {(d, h): W_xh, (h, d): W_xh.T, (h,): b_h}
        with torch.no_grad():
            for name, parameter in layer.named_parameters():
                shape = tuple(parameter.shape)
                square = shape == (h, h)
                if not square and shape not in given:
                    raise Fault("module", f"cannot map its parameter {name} of {shape}")
                turned = any(tuple(p.shape) == (h, d) for p in layer.parameters())
                value = (W_hh.T if turned else W_hh) if square else given[shape]
                parameter.copy_(value)
                if shape == (h,):
                    given[(h,)] = torch.zeros_like(b_h)
        for start in (H_0, H_0[None]):
            try:
                found = layer(X, start)
                break
            except Exception as error:
                last = error
        else:
            line = " ".join(str(last).split())[:120]
            raise Fault("raises", f"raises {type(last).__name__}: {line}")
        return found[0] if isinstance(found, tuple) else found

    return states


def rnn() -> Contract:
    """Return the contract of the forward pass."""
    return Contract(
        kind="rnn",
        title="Recurrent network: forward pass",
        arguments=(INPUT, *WEIGHTS, BIAS, START),
        returns=(("H", "time batch h", "the states H_1 to H_T"),),
        ours=(_states,),
        conventions=(
            Convention("axes", (
                Option("(time, batch, d)"),
                Option("(batch, time, d)", _batch_first),
                Option("(time, d)", _one_sequence),
            ), layout=True),
            Convention("weights", (
                Option("W of shape (d, h)"),
                Option("W of shape (h, d), as torch", _transposed_weights),
            )),
            Convention("states", (
                Option("H_1 to H_T"),
                Option("H_0 to H_T", returning(_without_start)),
                Option("H_T alone", _last_alone),
            )),
        ),
        properties=(
            Property("R1", "is tanh(X_t W_xh + H_{t-1} W_hh + b_h)", (
                _case("1 step, 1 sequence, d = 2, h = 3", 1, 1, 2, 3),
                _case("2 steps, 1 sequence, d = 2, h = 3", 2, 1, 2, 3),
                _case("7 steps, 5 sequences, d = 4, h = 6", 7, 5, 4, 6),
            )),
            Property("R1", "does not look ahead", law=_prefix),
            Property("R1", "continues from the state that is given", law=_in_pieces),
            Property("R1", "does not mix the sequences of a batch", law=_independent),
        ),
        chapter="rnn",
        pitfalls="gallery/1_rnn/plot_8_how_it_breaks",
        ledger=(
            "rnn.recurrence",
            "rnn.vanishing",
            "rnn.networks",
            "rnn.truncated",
            "attention.complexity",
        ),
        mistakes=(
            Mistake("the state is not passed to the next step", _no_recurrence),
            Mistake("ReLU in place of tanh", _outputs_of(torch.relu)),
            Mistake("no activation", _outputs_of(lambda a: a)),
            Mistake("reads the sequence from its end", _last_input_first),
        ),
        module=module_as_function,
    )  # fmt: skip


# Backpropagation through time


def _gradients(grad_H, X, W_xh, W_hh, b_h, H_0) -> Outputs:
    H = rnn_forward(X, W_xh, W_hh, b_h, H_0)
    found = rnn_backward(grad_H, None, X, H, W_xh, W_hh)
    return found.W_xh, found.W_hh, found.b_h, found.X, found.H_0


def _backward_case(words: str, *sizes: int) -> Case:
    inputs = example(*sizes)
    time, batch, _, h = sizes
    (grad_H,) = normal(9, (time, batch, h))
    return Case(words, {"grad_H": grad_H, **inputs})


def _grad_batch_first(function: Function) -> Function:
    def wrapped(X, grad_H, **rest) -> Outputs:
        X, grad_H = X.transpose(0, 1), grad_H.transpose(0, 1)
        found = function(X=X, grad_H=grad_H, **rest)
        return tuple(x.transpose(0, 1) if i == 3 else x for i, x in enumerate(found))

    return wrapped


def _grad_transposed(function: Function) -> Function:
    def wrapped(**arguments) -> Outputs:
        found = _transposed_weights(function)(**arguments)
        return tuple(x.T if i < 2 else x for i, x in enumerate(found))

    return wrapped


def _input_first(found: Outputs, arguments: Any) -> Outputs:
    X, W_xh, W_hh, b_h, *rest = found
    return W_xh, W_hh, b_h, X, *rest


def _linear(f: Function) -> float:
    """The gradient is linear in what arrives from the outputs."""
    case = _backward_case("", 5, 2, 3, 4).arguments
    once = f(**case)
    twice = f(**{**case, "grad_H": 2 * case["grad_H"]})
    return max(relative(b, 2 * a) for a, b in zip(once, twice, strict=True))


def _batch_sum(f: Function) -> float:
    """The gradients of the weights add up over the batch."""
    case = _backward_case("", 4, 3, 2, 5).arguments
    whole, parts = f(**case), []
    for i in range(3):
        one = {name: case[name][:, i : i + 1] for name in ("X", "grad_H")}
        parts.append(f(**{**case, **one, "H_0": case["H_0"][i : i + 1]}))
    count = min(3, len(whole))
    return max(relative(whole[k], sum(p[k] for p in parts)) for k in range(count))


def _clock_wrong(change: Callable[[dict], dict], average: bool = False):
    """Backpropagate by autograd, with one thing changed."""

    def gradients(grad_H, X, W_xh, W_hh, b_h, H_0) -> Outputs:
        found = _gradients(grad_H, X, W_xh, W_hh, b_h, H_0)
        return tuple(change(dict(enumerate(found)), X).values())

    return gradients


def _per_step(grad_H, X, W_xh, W_hh, b_h, H_0) -> Outputs:
    return _clock_wrong(
        lambda g, X: {i: x / len(X) if i < 3 else x for i, x in g.items()}
    )(grad_H, X, W_xh, W_hh, b_h, H_0)


def _per_sequence(grad_H, X, W_xh, W_hh, b_h, H_0) -> Outputs:
    return _clock_wrong(
        lambda g, X: {i: x / X.shape[1] if i < 3 else x for i, x in g.items()}
    )(grad_H, X, W_xh, W_hh, b_h, H_0)


def _last_step(grad_H, X, W_xh, W_hh, b_h, H_0) -> Outputs:
    """Overwrite the gradients of the weights at each step instead of adding up."""
    H = rnn_forward(X, W_xh, W_hh, b_h, H_0)
    whole, Gamma = rnn_backward(grad_H, None, X, H, W_xh, W_hh), 0
    for t in reversed(range(len(X))):
        delta = (grad_H[t] + Gamma) * (1 - H[t + 1] ** 2)
        Gamma = delta @ W_hh.T
    return X[0].T @ delta, H[0].T @ delta, delta.sum(0), whole.X, whole.H_0


def _no_slope(grad_H, X, W_xh, W_hh, b_h, H_0) -> Outputs:
    """Leave out the derivative of tanh."""
    H = rnn_forward(X, W_xh, W_hh, b_h, H_0)
    found = rnn_backward(grad_H, None, X, H, W_xh, W_hh, "identity")
    return found.W_xh, found.W_hh, found.b_h, found.X, found.H_0


def rnn_backward_() -> Contract:
    """Return the contract of backpropagation through time."""
    names = ("W_xh", "d h"), ("W_hh", "h h"), ("b_h", "h"), ("X", "time batch d")
    return Contract(
        kind="rnn-backward",
        title="Backpropagation through time",
        arguments=(
            Argument("grad_H", "time batch h", "gradient of the loss with respect to "
                     "each state, as far as it does not go through later states",
                     ("dH", "grad_states", "dhs", "G", "upstream", "grad_output")),
            INPUT, *WEIGHTS, BIAS, START,
        ),
        returns=(*((n, s, f"gradient with respect to {n}") for n, s in names),
                 ("H_0", "batch h", "gradient with respect to H_0")),
        ours=(_gradients,),
        conventions=(
            Convention("order", (
                Option("returns W_xh, W_hh, b_h, X, H_0"),
                Option("returns X, W_xh, W_hh, b_h, H_0", returning(_input_first)),
            )),
            Convention("axes", (
                Option("(time, batch, d)"),
                Option("(batch, time, d)", _grad_batch_first),
            ), layout=True),
            Convention("weights", (
                Option("W of shape (d, h)"),
                Option("W of shape (h, d), as torch", _grad_transposed),
            )),
        ),
        properties=(
            Property("R5", "is the gradient, through all steps", (
                _backward_case("1 step, 1 sequence, d = 2, h = 3", 1, 1, 2, 3),
                _backward_case("2 steps, 1 sequence, d = 2, h = 3", 2, 1, 2, 3),
                _backward_case("7 steps, 5 sequences, d = 4, h = 6", 7, 5, 4, 6),
            )),
            Property("R6", "is right if the last output alone is read", (
                _last_read(5, 2, 3, 4),
            )),
            Property("R5", "is linear in the gradient that arrives", law=_linear),
            Property("R5", "adds up over the batch", law=_batch_sum),
        ),
        chapter="rnn",
        pitfalls="gallery/1_rnn/plot_8_how_it_breaks",
        ledger=(
            "rnn.recurrence",
            "rnn.vanishing",
            "rnn.networks",
            "rnn.truncated",
            "attention.complexity",
        ),
        mistakes=(
            Mistake("the weights get the mean over the steps", _per_step),
            Mistake("the weights get the mean over the batch", _per_sequence),
            Mistake("the gradient of each step overwrites the sum",
                    _last_step),
            Mistake("the derivative of tanh is left out", _no_slope),
        ),
    )  # fmt: skip


def _last_read(*sizes: int) -> Case:
    case = _backward_case("a gradient at the last state alone", *sizes)
    grad_H = case.arguments["grad_H"].clone()
    grad_H[:-1] = 0
    return Case(case.words, {**case.arguments, "grad_H": grad_H})
