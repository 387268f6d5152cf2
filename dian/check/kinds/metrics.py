"""Contracts of the confusion matrix, and of the metrics computed from it."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
    returning,
)
from dian.claims.compare import relative
from dian.training import metrics

TARGET = Argument("target", "n", "true classes, integers",
                  ("targets", "y_true", "labels", "y", "true"))  # fmt: skip
PREDS = Argument("preds", "n", "predicted classes, integers",
                 ("predictions", "y_pred", "pred", "predicted", "y_hat"))  # fmt: skip
CLASSES = Argument("num_classes", "int", "number of classes",
                   ("n_classes", "c", "n_class", "classes"))  # fmt: skip


def _matrix(target, preds, num_classes) -> Outputs:
    options = {"target": target, "preds": preds, "num_classes": num_classes}
    return (metrics.confusion_matrix(**options).double(),)


def _draw(seed: int, n: int, classes: int, absent: int | None = None) -> dict:
    """Draw classes of different frequency, and predictions that lean to one side."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.arange(1, classes + 1, dtype=torch.float64) ** 2
    if absent is not None:
        weights[absent] = 0
    target = torch.multinomial(weights, n, True, generator=generator)
    shifted = (target + 1).clamp(max=classes - 1)
    wrong = torch.rand(n, generator=generator) < 0.4
    preds = torch.where(wrong, shifted, target)
    if absent is not None:
        preds = torch.where(preds == absent, target, preds)
    return {"target": target, "preds": preds, "num_classes": classes}


def _case(words: str, *sizes: int) -> Case:
    return Case(words, _draw(sum(sizes), *sizes))


def _columns(found: Outputs, arguments: Any) -> Outputs:
    return (found[0].T,)


def _fractions(total: Callable[[Tensor], Tensor]):
    """Undo a division: by the number of items, or by that of each true class."""

    def convert(found: Outputs, arguments: Any) -> Outputs:
        (counts,) = _matrix(**arguments)
        return (torch.where(counts >= 0, found[0] * total(counts), torch.nan),)

    return returning(convert)


def _additive(f: Function) -> float:
    given = _draw(3, 30, 4)
    parts = []
    for part in (slice(0, 11), slice(11, None)):
        pair = {name: given[name][part] for name in ("target", "preds")}
        parts.append(f(**{**given, **pair})[0])
    return relative(sum(parts), f(**given)[0])


def _support(f: Function) -> float:
    given = _draw(4, 25, 3)
    return relative(
        f(**given)[0].sum(1), given["target"].bincount(minlength=3).double()
    )


def confusion_matrix() -> Contract:
    """Return the contract of the confusion matrix."""

    def diagonal(target, preds, num_classes) -> Outputs:
        return (_matrix(target, preds, num_classes)[0].diagonal().diag(),)

    def assigned(target, preds, num_classes) -> Outputs:
        """``C[target, preds] += 1`` counts each pair once."""
        C = torch.zeros(num_classes, num_classes, dtype=torch.float64)
        C[target, preds] += 1
        return (C,)

    def symmetric(target, preds, num_classes) -> Outputs:
        (C,) = _matrix(target, preds, num_classes)
        return (C + C.T,)

    return Contract(
        kind="confusion-matrix",
        title="Confusion matrix",
        arguments=(TARGET, PREDS, CLASSES),
        returns=(("C", "c c", "counts: true class (row), predicted class (column)"),),
        ours=(_matrix,),
        conventions=(
            Convention("rows", (
                Option("rows are true classes"),
                Option("rows are predicted classes", returning(_columns)))),
            Convention("entries", (
                Option("counts"),
                Option("fractions of all items", _fractions(lambda C: C.sum())))),
        ),
        properties=(
            Property("R15", "counts every pair", (
                _case("3 items, 2 classes", 3, 2), _case("20 items, 3 classes", 20, 3),
                _case("200 items, 5 classes", 200, 5),
            )),
            Property("R15", "has a row for an absent class", (
                _case("class 2 is absent", 40, 4, 2),
                _case("the last class is absent", 40, 4, 3),
            )),
            Property("R15", "adds up over batches", law=_additive),
            Property("R15", "rows sum to the number of items of a class",
                     law=_support),
        ),
        chapter="rnn",
        pitfalls="gallery/1_rnn/plot_6_metrics",
        ledger=("training.metrics",),
        mistakes=(
            Mistake("only the right answers are counted", diagonal),
            Mistake("repeated pairs are counted once (C[i, j] += 1)", assigned),
            Mistake("both directions are counted", symmetric),
        ),
    )  # fmt: skip


# Accuracy, and macro precision, recall and F1


def _metrics(batches, num_classes) -> Outputs:
    total = metrics.ConfusionMatrix(num_classes)
    for target, preds in batches:
        total.update(target=target, preds=preds)
    return _summary(total.counts)


def _summary(C: Tensor) -> Outputs:
    found = metrics.summary(C)
    values = torch.tensor(list(found.values()), dtype=torch.float64)
    return tuple(values.unbind())


def _present_only(found: Outputs, arguments: Any) -> Outputs:
    """Undo that classes which do not occur are left out of the means."""
    C = sum(
        _matrix(*batch, arguments["num_classes"])[0] for batch in arguments["batches"]
    )
    occurs = ((C.sum(0) + C.sum(1)) > 0).sum()
    factor = occurs / arguments["num_classes"]
    return (found[0], *(x * factor for x in found[1:]))


def _batches(seed: int, sizes: list[int], classes: int, absent=None) -> Case:
    given = _draw(seed, sum(sizes), classes, absent)
    parts = zip(given["target"].split(sizes), given["preds"].split(sizes), strict=True)
    words = f"{len(sizes)} batches of {sizes}, {classes} classes"
    words += "" if absent is None else ", one absent"
    return Case(words, {"batches": list(parts), "num_classes": classes})


def _order(f: Function) -> float:
    """The order of the items does not matter."""
    given = _batches(5, [7, 9, 4], 3).arguments
    target, preds = (torch.cat(x) for x in zip(*given["batches"], strict=True))
    order = target.argsort()
    parts = (x[order].split([7, 9, 4]) for x in (target, preds))
    again = list(zip(*parts, strict=True))
    a, b = f(**given), f(batches=again, num_classes=3)
    return max(relative(x, y) for x, y in zip(a, b, strict=True))


def _perfect(f: Function) -> float:
    batches = [(torch.tensor(x), torch.tensor(x)) for x in ([0, 0, 1], [2, 1], [3])]
    found = f(batches=batches, num_classes=4)
    return max(abs(x.item() - 1) for x in found)


def _averaged(weight: Callable[[Tensor], float] = lambda t: 1.0, drop: bool = False):
    """Average the metrics of each batch."""

    def function(batches, num_classes) -> Outputs:
        rows, weights = [], []
        for target, preds in batches:
            found = torch.stack(_metrics([(target, preds)], num_classes))
            if drop:
                case = {"batches": [(target, preds)], "num_classes": num_classes}
                C = _matrix(target, preds, num_classes)[0]
                occurs = ((C.sum(0) + C.sum(1)) > 0).sum()
                found[1:] *= case["num_classes"] / occurs
            rows.append(found)
            weights.append(weight(target))
        w = torch.tensor(weights, dtype=torch.float64)
        mean = (torch.stack(rows) * w[:, None]).sum(0) / w.sum()
        return tuple(mean.unbind())

    return function


def _from_counts(change: Callable[[Tensor], tuple]):
    def function(batches, num_classes) -> Outputs:
        C = sum(_matrix(*batch, num_classes)[0] for batch in batches)
        return tuple(torch.as_tensor(x).double() for x in change(C))

    return function


def _ratios(C: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    hits, rows, columns = C.diagonal(), C.sum(1), C.sum(0)
    precision, recall = hits / columns.clamp(min=1), hits / rows.clamp(min=1)
    f1 = 2 * hits / (rows + columns).clamp(min=1)
    return hits.sum() / C.sum(), precision, recall, f1


def _macro_of_means(C: Tensor) -> tuple:
    accuracy, p, r, _ = _ratios(C)
    p, r = p.mean(), r.mean()
    return accuracy, p, r, 2 * p * r / (p + r)


def _weighted(C: Tensor) -> tuple:
    accuracy, *rest = _ratios(C)
    share = C.sum(1) / C.sum()
    return (accuracy, *((x * share).sum() for x in rest))


def _micro(C: Tensor) -> tuple:
    accuracy = _ratios(C)[0]
    return accuracy, accuracy, accuracy, accuracy


def _exchanged(C: Tensor) -> tuple:
    accuracy, p, r, f = (x.mean() for x in _ratios(C))
    return accuracy, r, p, f


def _last_batch(batches, num_classes) -> Outputs:
    return _metrics(batches[-1:], num_classes)


def _adapted(function: Callable) -> tuple[Callable, str]:
    """Accept a function of all labels, and a class with ``update`` and ``compute``."""
    if inspect.isclass(function) and hasattr(function, "update"):
        return _accumulated(function), "a class with update and compute"
    try:
        names = [n.lower() for n in inspect.signature(function).parameters]
    except (TypeError, ValueError):
        return function, ""
    known = {name for a in (TARGET, PREDS) for name in (a.name, *a.aliases)}
    order = [n for n in names if n in known]
    if "batches" in names or not (len(order) == 2 or len(names) == 3):
        return function, "list of batches"
    swapped = len(order) == 2 and order[0] in (PREDS.name, *PREDS.aliases)

    def at_once(batches, num_classes):
        pairs = zip(*batches, strict=True)
        target, preds = (
            torch.cat(x) if isinstance(x[0], Tensor) else np.concatenate(x)
            for x in pairs
        )
        pair = (preds, target) if swapped else (target, preds)
        return function(*pair, num_classes) if len(names) > 2 else function(*pair)

    return at_once, "all labels at once"


def _accumulated(metric: type) -> Callable:
    def over_batches(batches, num_classes):
        found = metric(num_classes)
        for target, preds in batches:
            found.update(target, preds)
        return found.compute()

    return over_batches


def classification_metrics() -> Contract:
    """Return the contract of accuracy and macro precision, recall and F1."""
    names = "accuracy", "precision", "recall", "f1"
    return Contract(
        kind="classification-metrics",
        title="Accuracy and macro precision, recall and F1",
        arguments=(
            Argument("batches", "list of (target, preds)",
                     "true and predicted classes of each batch", ("data",)),
            CLASSES,
        ),
        returns=tuple((name, "", f"{name}, over all classes") for name in names),
        ours=(_metrics,),
        adapt=_adapted,
        conventions=(
            Convention("absent classes", (
                Option("0/0 is 0, means over all classes"),
                Option("means over the classes that occur", returning(_present_only)),
            )),
        ),
        properties=(
            Property("R15", "is computed from all items", (
                _batches(1, [9], 3), _batches(2, [5, 7], 3),
                _batches(3, [20, 20, 3], 5),
            )),
            Property("R15", "counts a class that does not occur as 0", (
                _batches(4, [15, 9], 4, 2),)),
            Property("R16", "does not depend on the order of the items", law=_order),
            Property("R16", "is 1 for a perfect classifier", law=_perfect),
        ),
        chapter="rnn",
        pitfalls="gallery/1_rnn/plot_6_metrics",
        ledger=("training.metrics",),
        mistakes=(
            Mistake("averaged over batches, 0/0 is 0", _averaged()),
            Mistake("averaged over batches, weighted by their size", _averaged(len)),
            Mistake("averaged over batches, over the classes of each",
                    _averaged(drop=True)),
            Mistake("F1 of the means in place of the mean of F1",
                    _from_counts(_macro_of_means)),
            Mistake("weighted by the size of each class", _from_counts(_weighted)),
            Mistake("micro averages", _from_counts(_micro)),
            Mistake("precision and recall are exchanged", _from_counts(_exchanged)),
            Mistake("the last batch alone", _last_batch),
        ),
        notes=(
            "A function `(target, preds, num_classes)` of all labels is accepted as "
            "well, and a class made as `Metric(num_classes)` with `update(target, "
            "preds)` and `compute()`.",
        ),
    )  # fmt: skip
