"""Chapter 1: metrics from the confusion matrix, and what averaging them spoils."""

import math

import torch
from torch import Tensor

from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, relative
from dian.errors import DianError
from dian.training import metrics

N_CLASS = 5
SHARES = (0.55, 0.25, 0.15, 0.05)
"""Of four classes, in the example of the batches."""


def example(seed: int, n: int = 211) -> tuple[Tensor, Tensor]:
    """Targets and predictions; the last class is neither present nor predicted."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(N_CLASS - 1, (n,), generator=generator)
    guess = torch.randint(N_CLASS - 1, (n,), generator=generator)
    right = torch.rand(n, generator=generator) < 0.6
    return target, target.where(right, guess)


@claim(
    "R15",
    "Metrics from the confusion matrix",
    equations=("eq-confusion", "eq-precision-recall", "eq-f1", "eq-macro"),
    kinds="I H",
    tolerance=1e-12,
    source="Sokolova and Lapalme, A systematic analysis of performance measures for "
    "classification tasks, 2009, table 3",
    assumptions="one label each; a class neither present nor predicted counts as 0",
    subjects=(metrics,),
    mutants=(
        Mutant("rows are what was predicted", "confusion_matrix",
               "target * num_classes + preds", "target + num_classes * preds"),
        Mutant("precision by the true class", "precision",
               "_ratio(C.diagonal(), C.sum(0))", "_ratio(C.diagonal(), C.sum(1))"),
        Mutant("recall by the predicted class", "recall",
               "_ratio(C.diagonal(), C.sum(1))", "_ratio(C.diagonal(), C.sum(0))"),
        Mutant("F1 without its 2", "f1", "2 * C.diagonal()", "C.diagonal()"),
        Mutant("0/0 is 1", "_ratio", "part.double()", "(part + (whole == 0)).double()"),
        Mutant("F1 of the means in place of the mean of F1", "summary",
               'f1(C, "macro").item()',
               "float(2 / (1 / precision(C).mean() + 1 / recall(C).mean()))"),
        Mutant("an absent class has a recall in the mean", "balanced_accuracy",
               "(C.sum(1) > 0).sum()", "(C.sum(1) >= 0).sum()"),
    ),
)  # fmt: skip
def confusion() -> float:
    """Those of scikit-learn; micro averages are accuracy; and batches add up."""
    peer, residuals = scikit_learn(), []
    for seed in range(5):
        pair = target, preds = example(seed)
        C = metrics.confusion_matrix(target=target, preds=preds, num_classes=N_CLASS)
        labels = list(range(N_CLASS))
        options = {"labels": labels, "zero_division": 0}
        by_class = peer.precision_recall_fscore_support(*pair, **options)
        for found, expected in zip(
            (metrics.precision(C), metrics.recall(C), metrics.f1(C), C.sum(1)),
            by_class,
            strict=True,
        ):
            residuals.append(relative(found.double(), torch.tensor(expected).double()))
        summary = metrics.summary(C)
        micro = peer.precision_recall_fscore_support(*pair, average="micro", **options)
        balanced = metrics.balanced_accuracy(C).item()
        residuals += [abs(x - summary["accuracy"]) for x in micro[:3]]
        residuals.append(abs(balanced - peer.balanced_accuracy_score(*pair)))
        residuals.append(abs(summary["f1"] - by_class[2].mean()))
        added = metrics.ConfusionMatrix(N_CLASS)
        for t, p in zip(target.split(13), preds.split(13), strict=True):
            added.update(target=t, preds=p)
        residuals.append(relative(added.counts.double(), C.double()))
    return largest(residuals)


def scikit_learn():
    """Import the peer only where it is asked: the package does without it."""
    try:
        import sklearn.metrics as peer
    except ModuleNotFoundError:
        raise DianError(
            "scikit-learn is not installed: pip install scikit-learn"
        ) from None
    return peer


@claim(
    "R16",
    "Averaging F1 over batches gives another number",
    equations=("eq-batch-average",),
    kinds="H E M",
    tolerance=1e-12,
    source="Forman and Scholz, Apples-to-apples in cross-validation studies, 2010",
    subjects=(metrics,),
    mutants=(
        Mutant("the whole set is averaged over its batches, too", "whole",
               "return metrics.f1(sum(matrices)).mean()",
               "return torch.stack([metrics.f1(C).mean() for C in matrices]).mean()",
               module=__name__),
        Mutant("0/0 is 1: what is absent is always right", "_ratio",
               "part.double()", "(part + (whole == 0)).double()"),
        Mutant("a class is in a batch as often as in one item of it", "present",
               "1 - math.comb(n - k, size) / math.comb(n, size)", "k / n",
               module=__name__),
        Mutant("accuracy is a sum", "accuracy",
               "_ratio(C.trace(), C.sum())", "C.trace()"),
    ),
)  # fmt: skip
def batches() -> float:
    """It hangs on the order of the data, and a perfect classifier does not score 1."""
    n, size = 4096, 8
    counts = [round(share * n) for share in SHARES]
    target = torch.arange(len(SHARES)).repeat_interleave(torch.tensor(counts))
    generator = torch.Generator().manual_seed(0)
    wrong = torch.randint(len(SHARES), (len(target),), generator=generator)
    right = torch.rand(len(target), generator=generator) < 0.8
    preds = target.where(right, wrong)

    def both(order: Tensor, preds: Tensor) -> tuple[Tensor, Tensor]:
        parts = zip(target[order].split(size), preds[order].split(size), strict=True)
        matrices = [
            metrics.confusion_matrix(target=t, preds=p, num_classes=len(SHARES))
            for t, p in parts
        ]
        return whole(metrics, matrices), averaged(metrics, matrices)

    orders = [torch.randperm(len(target), generator=generator) for _ in range(6)]
    told = torch.tensor([both(order, preds) for order in orders]).double()
    in_order = both(torch.arange(len(target)), preds)
    perfect = torch.stack([both(order, target)[1] for order in orders])
    expected, spread = present(counts, size), perfect.std() / len(perfect) ** 0.5
    return largest(
        [
            told[:, 0].max() - told[:, 0].min(),
            abs(in_order[0] - told[0, 0]),
            holds(bool((told[:, 1] < told[:, 0] - 0.05).all())),
            holds(bool(in_order[1] < told[:, 1].min() - 0.1)),
            holds(bool(abs(perfect.mean() - expected) < 5 * spread)),
            holds(bool(perfect.max() < 0.8)),
            uneven(metrics),
        ]
    )


def whole(metrics, matrices: list[Tensor]) -> Tensor:
    """Macro-F1 of everything."""
    return metrics.f1(sum(matrices)).mean()


def averaged(metrics, matrices: list[Tensor]) -> Tensor:
    """Macro-F1 of each batch, averaged: what this claim is about."""
    return torch.stack([metrics.f1(C).mean() for C in matrices]).mean()


def present(counts: list[int], size: int) -> float:
    """The share of all classes that a batch holds, so what perfection scores there."""
    n = sum(counts)
    shares = [1 - math.comb(n - k, size) / math.comb(n, size) for k in counts]
    return sum(shares) / len(shares)


def uneven(metrics) -> float:
    """Even accuracy: four right and one wrong, in batches of 4 and 1."""
    C = torch.tensor([[4, 0], [0, 0]]), torch.tensor([[0, 1], [0, 0]])
    mean = (metrics.accuracy(C[0]) + metrics.accuracy(C[1])) / 2
    return largest([abs(mean - 0.5), abs(metrics.accuracy(C[0] + C[1]) - 0.8)])
