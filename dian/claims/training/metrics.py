"""Chapter 1: metrics from the confusion matrix, and why not to average them."""

import itertools
import math
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, relative
from dian.errors import DianError
from dian.runs.record import load
from dian.training import metrics

N_CLASS = 5
SHARES = (0.55, 0.25, 0.15, 0.05)
"""Of four classes, in the example of the batches."""


def example(seed: int, n: int = 211) -> tuple[Tensor, Tensor]:
    """Targets and predictions; the last class is neither present nor predicted.

    The classes are of different size and errors favour the first one, so that precision
    and recall, of a class and on average, are clearly different numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(n, generator=generator).square().mul(N_CLASS - 1).long()
    guess = torch.rand(n, generator=generator).pow(4).mul(N_CLASS - 1).long()
    right = torch.rand(n, generator=generator) < 0.6
    return target, target.where(right, guess)


@claim(
    "R15",
    "Metrics from the confusion matrix",
    equations=("eq-confusion", "eq-precision-recall", "eq-f1", "eq-macro"),
    kinds="I H T",
    tolerance=1e-12,
    source="Sokolova and Lapalme, A systematic analysis of performance measures for "
    "classification tasks, 2009, table 3",
    assumptions="one label each; a class neither present nor predicted counts as 0",
    subjects=(metrics,),
    mutants=(
        Mutant("rows are predictions", "confusion_matrix",
               "target * num_classes + preds", "target + num_classes * preds"),
        Mutant("precision divides by the true class", "precision",
               "_ratio(C.diagonal(), C.sum(0))", "_ratio(C.diagonal(), C.sum(1))"),
        Mutant("recall divides by the predicted class", "recall",
               "_ratio(C.diagonal(), C.sum(1))", "_ratio(C.diagonal(), C.sum(0))"),
        Mutant("F1 without its 2", "f1", "2 * C.diagonal()", "C.diagonal()"),
        Mutant("0/0 is 1", "_ratio", "part.double()", "(part + (whole == 0)).double()"),
        Mutant("F1 of the means in place of the mean of F1", "summary",
               'f1(C, "macro").item()',
               "float(2 / (1 / precision(C).mean() + 1 / recall(C).mean()))"),
        Mutant("the summary exchanges precision and recall", "summary",
               "precision(C, 'macro').item()", "recall(C, 'macro').item()"),
        Mutant("the summary gives precision as recall", "summary",
               "recall(C, 'macro').item()", "precision(C, 'macro').item()"),
        Mutant("the accuracy of the summary is the mean recall", "summary",
               "accuracy(C).item()", "recall(C, 'macro').item()"),
        Mutant("a macro average leaves the last class out", "_averaged",
               "values.mean()", "values[:-1].mean()"),
        Mutant("a macro average is the best class", "_averaged",
               "values.mean()", "values.max()"),
        Mutant("a batch replaces the ones before", "ConfusionMatrix.update",
               "self.counts += batch.to(self.counts.device)", "self.counts = batch"),
    ),
)  # fmt: skip
def confusion() -> float:
    """The metrics equal scikit-learn's; micro averages are the accuracy.

    The summary, which fills the tables of the report, is compared name by name, and so
    are the recorded values with the recorded matrices.
    """
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
        residuals += [abs(x - summary["accuracy"]) for x in micro[:3]]
        macro = peer.precision_recall_fscore_support(*pair, average="macro", **options)
        named = dict(zip(("precision", "recall", "f1"), macro[:3], strict=True))
        named["accuracy"] = peer.accuracy_score(*pair)
        residuals += [abs(summary[name] - value) for name, value in named.items()]
        residuals.append(holds(summary.keys() == named.keys()))
        for name in ("precision", "recall", "f1"):
            averaged = getattr(metrics, name)(C, average="macro").item()
            residuals.append(abs(averaged - named[name]))
        rows = C.tolist()  # as somebody types a matrix
        residuals.append(holds(metrics.summary(rows) == summary))
        for name in ("precision", "recall", "f1"):
            by_class = (getattr(metrics, name)(matrix) for matrix in (rows, C))
            residuals.append(holds(torch.equal(*by_class)))
        # without a number of classes, that of the classes that occur
        occurring = metrics.confusion_matrix(target=target.tolist(), preds=preds)
        residuals.append(holds(torch.equal(occurring, C[:-1, :-1])))
        added = metrics.ConfusionMatrix(N_CLASS)
        for t, p in zip(target.split(13), preds.split(13), strict=True):
            added.update(target=t, preds=p)
        residuals.append(relative(added.counts.double(), C.double()))
    # one item of a class, and one prediction of another, which is wrong
    single = torch.tensor([[2, 0, 0], [0, 1, 0], [1, 0, 0]])
    precision, recall = metrics.precision(single), metrics.recall(single)
    for found, expected in ((precision, [2 / 3, 1, 0]), (recall, [1, 1, 0])):
        residuals.append(relative(found, torch.tensor(expected, dtype=torch.float64)))
    return largest([*residuals, of_the_record()])


def of_the_record() -> float:
    """The table of the chapter follows from the recorded matrices, by other code."""
    record, residuals = load("rnn-fashion-mnist"), []
    for run, C in enumerate(record.arrays["confusion"].astype(float)):
        right, of_target, predicted = np.diag(C), C.sum(1), C.sum(0)
        expected = {
            "accuracy": right.sum() / C.sum(),
            "precision": np.mean(right / predicted),
            "recall": np.mean(right / of_target),
            "f1": np.mean(2 * right / (of_target + predicted)),
        }
        for name, value in expected.items():
            residuals.append(abs(record.metrics[f"test/{name}"][run] - value))
    return largest(residuals)


def scikit_learn() -> ModuleType:
    """Import scikit-learn when it is needed: the package does not require it."""
    try:
        import sklearn.metrics as peer
    except ModuleNotFoundError:
        raise DianError(
            "scikit-learn is not installed: pip install scikit-learn"
        ) from None
    return peer


@claim(
    "R16",
    "F1 averaged over batches is wrong",
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
        Mutant("0/0 is 1: an absent class counts as right", "_ratio",
               "part.double()", "(part + (whole == 0)).double()"),
        Mutant("a class is in a batch as often as in one item of it", "present",
               "1 - math.comb(n - k, size) / math.comb(n, size)", "k / n",
               module=__name__),
        Mutant("accuracy is a sum", "accuracy",
               "_ratio(C.trace(), C.sum())", "C.trace()"),
    ),
)  # fmt: skip
def batches() -> float:
    """The average depends on the order, and is below 1 for perfect predictions."""
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
    """Macro-F1 of each batch, averaged: the wrong value."""
    return torch.stack([metrics.f1(C).mean() for C in matrices]).mean()


def present(counts: list[int], size: int) -> float:
    """The fraction of classes in a batch, the macro-F1 of perfect predictions."""
    n = sum(counts)
    shares = [1 - math.comb(n - k, size) / math.comb(n, size) for k in counts]
    return sum(shares) / len(shares)


def uneven(metrics) -> float:
    """Even accuracy: four right and one wrong, in batches of 4 and 1."""
    C = torch.tensor([[4, 0], [0, 0]]), torch.tensor([[0, 1], [0, 0]])
    mean = (metrics.accuracy(C[0]) + metrics.accuracy(C[1])) / 2
    return largest([abs(mean - 0.5), abs(metrics.accuracy(C[0] + C[1]) - 0.8)])


def judged(seed: int, n: int = 97) -> tuple[Tensor, Tensor]:
    """Probabilities and targets; the last class is never a target."""
    generator = torch.Generator().manual_seed(seed)
    spread = (0.1, 1.0, 5.0)[seed % 3]
    logits = torch.randn(n, N_CLASS, generator=generator, dtype=torch.float64)
    target = torch.randint(N_CLASS - 1, (n,), generator=generator)
    return (spread * logits).softmax(1), target


@claim(
    "R21",
    "Metrics of predicted probabilities, and balanced accuracy",
    equations=(
        "eq-balanced-accuracy", "eq-top-k", "eq-negative-log-likelihood",
        "eq-calibration-error",
    ),
    kinds="I H",
    tolerance=1e-9,
    source="Guo et al., On calibration of modern neural networks, 2017, "
    "arXiv:1706.04599, equation 3, for the calibration error",
    assumptions="bins closed on the right, with edges in the type of the "
    "probabilities; among equal probabilities the target comes last",
    subjects=(metrics,),
    mutants=(
        Mutant("an absent class has a recall in the mean", "balanced_accuracy",
               "(C.sum(1) > 0).sum()", "(C.sum(1) >= 0).sum()"),
        Mutant("balanced accuracy is the mean precision", "balanced_accuracy",
               "recall(C).sum()", "precision(C).sum()"),
        Mutant("k + 1 predictions are allowed", "top_k_accuracy",
               "(probs >= of_target).sum(1) <= k", "(probs > of_target).sum(1) <= k"),
        Mutant("k - 1 predictions are allowed", "top_k_accuracy",
               "(probs >= of_target).sum(1) <= k", "(probs >= of_target).sum(1) < k"),
        Mutant("the target comes first among equals", "top_k_accuracy",
               "(probs >= of_target).sum(1) <= k", "(probs > of_target).sum(1) < k"),
        Mutant("the least probable classes", "top_k_accuracy",
               "probs >= of_target", "probs <= of_target"),
        Mutant("a sum in place of the mean", "negative_log_likelihood",
               "-probs.gather(1, target.unsqueeze(1)).log().mean()",
               "-probs.gather(1, target.unsqueeze(1)).log().sum()"),
        Mutant("in bits", "negative_log_likelihood",
               "probs.gather(1, target.unsqueeze(1)).log()",
               "probs.gather(1, target.unsqueeze(1)).log2()"),
        Mutant("of the predicted class", "negative_log_likelihood",
               "target.unsqueeze(1)", "probs.argmax(1, keepdim=True)"),
        Mutant("edges in another dtype than the probabilities", "calibration_error",
               "edges.to(given).double()", "edges"),
        Mutant("bins closed on the left", "calibration_error",
               "torch.bucketize(confidence, edges.to(given).double())",
               "torch.bucketize(confidence, edges.to(given).double(), right=True)"),
        Mutant("one bin for all", "calibration_error",
               "by_bin.abs().sum()", "by_bin.sum().abs()"),
        Mutant("the mean over the bins in place of the items", "calibration_error",
               "len(probs)", "n_bins"),
        Mutant("one bin too few", "calibration_error", "n_bins + 1", "n_bins"),
        Mutant("the last two bins are one", "calibration_error",
               "torch.linspace(0, 1, n_bins + 1, dtype=torch.float64)[1:-1]",
               "torch.linspace(0, 1, n_bins + 1, dtype=torch.float64)[1:-2]"),
        Mutant("the first two bins are one", "calibration_error",
               "torch.linspace(0, 1, n_bins + 1, dtype=torch.float64)[1:-1]",
               "torch.linspace(0, 1, n_bins + 1, dtype=torch.float64)[2:-1]"),
        Mutant("the confidence is the probability of the target", "calibration_error",
               "confidence - (preds == target).double()",
               "probs.gather(1, target.unsqueeze(1))[:, 0] - (preds == "
               "target).double()"),
    ),
)  # fmt: skip
def of_probabilities() -> float:
    """Compare with scikit-learn, and the calibration error item by item."""
    peer, residuals = scikit_learn(), []
    labels = list(range(N_CLASS))
    for seed in range(6):
        p, target = judged(seed)
        C = metrics.confusion_matrix(
            target=target, preds=p.argmax(1), num_classes=N_CLASS
        )
        # what balanced_accuracy_score computes, without its warning
        present = {"labels": target.unique(), "average": "macro"}
        balanced = peer.recall_score(target, p.argmax(1), **present)
        residuals.append(abs(metrics.balanced_accuracy(C).item() - balanced))
        for k in range(1, N_CLASS):
            expected = peer.top_k_accuracy_score(target, p, k=k, labels=labels)
            found = metrics.top_k_accuracy(p, target, k).item()
            residuals.append(abs(found - expected))
        expected = peer.log_loss(target, p, labels=labels)
        found = metrics.negative_log_likelihood(p, target).item()
        residuals.append(abs(found - expected))
        for n_bins in (1, 4, 15):
            for dtype in (torch.float64, torch.float32):
                given = p.to(dtype)
                found = metrics.calibration_error(given, target, n_bins).item()
                expected = calibration_by_loops(given, target, n_bins)
                residuals.append(abs(found - expected))
        default = metrics.calibration_error(p, target).item()
        residuals.append(abs(default - calibration_by_loops(p, target, 15)))
    # classes of one item count as much as the others, and absent ones do not
    balanced = metrics.balanced_accuracy([[1, 0, 0], [1, 3, 0], [0, 0, 0]]).item()
    residuals.append(abs(balanced - (1 + 3 / 4) / 2))
    return largest([*residuals, ties(), on_an_edge(), every_edge()])


def calibration_by_loops(p: Tensor, target: Tensor, n_bins: int) -> float:
    """The formula, item by item and bin by bin, in exact numbers of the given type."""
    number = p.numpy().dtype.type
    edges = [float(number(b / n_bins)) for b in range(n_bins + 1)]
    edges[-1] = math.inf  # rounding may make a probability larger than 1
    total = 0.0
    for low, high in itertools.pairwise(edges):
        inside = [
            (max(row), row.index(max(row)) == label)
            for row, label in zip(p.tolist(), target.tolist(), strict=True)
            if low < max(row) <= high
        ]
        if inside:
            confidence = math.fsum(c for c, _ in inside) / len(inside)
            accuracy = sum(right for _, right in inside) / len(inside)
            total += len(inside) / len(target) * abs(accuracy - confidence)
    return total


def ties() -> float:
    """A uniform prediction has a top-k accuracy of 0."""
    even = torch.full((3, 4), 0.25)
    target = torch.tensor([0, 1, 3])
    found = [metrics.top_k_accuracy(even, target, k).item() for k in (1, 3, 4)]
    return largest([found[0], found[1], abs(found[2] - 1)])


def every_edge() -> float:
    """Three bins whose gaps have alternating signs; merging any two would show."""
    p = torch.full((3, 5), 0.0, dtype=torch.float64)
    for n, confidence in enumerate((0.3, 0.5, 0.9)):
        p[n] = (1 - confidence) / 4
        p[n, 0] = confidence
    found = metrics.calibration_error(p, torch.tensor([0, 1, 0]), n_bins=3).item()
    return abs(found - (0.7 + 0.5 + 0.1) / 3)


def on_an_edge() -> float:
    """0.6 in float32 is above 0.6 in float64, and still belongs to the bin below.

    There it is too sure by 0.6, and an item of the bin above too unsure by 0.3; in one
    bin the two would offset each other.
    """
    residuals = []
    for dtype in (torch.float32, torch.float64):
        p = torch.tensor([[0.6, 0.4], [0.7, 0.3]], dtype=dtype)
        found = metrics.calibration_error(p, torch.tensor([1, 0]), n_bins=5).item()
        residuals.append(abs(found - (0.6 + 0.3) / 2))
    # the numbers of float32 are off by up to 2 ** -25
    return largest([max(0.0, r - 2**-24) for r in residuals])
