"""A confusion matrix and the metrics made of it."""

import torch
from torch import Tensor

from benchmarks.cases import Case, Place, Side, Unavailable, against, library
from dian.training import metrics


def classification(place: Place) -> Case:
    """Take the counts, and precision, recall and F1 of each class, of tensors."""
    n, num_classes = place.pick(1_000, 1_000_000), 10
    generator = torch.Generator().manual_seed(0)
    target, preds = torch.randint(num_classes, (2, n), generator=generator).to(
        place.device
    )

    def by_ours() -> list[Tensor]:
        C = metrics.confusion_matrix(
            target=target, preds=preds, num_classes=num_classes
        )
        return [C, metrics.precision(C), metrics.recall(C), metrics.f1(C)]

    def torchmetrics() -> Side:
        peer = library("torchmetrics.functional.classification")
        scores = (
            peer.multiclass_precision,
            peer.multiclass_recall,
            peer.multiclass_f1_score,
        )

        def call() -> list[Tensor]:
            C = peer.multiclass_confusion_matrix(preds, target, num_classes)
            each = (f(preds, target, num_classes, average="none") for f in scores)
            return [C, *each]

        return Side(call, goal=2.0)

    def scikit_learn() -> Side:
        peer = library("sklearn.metrics")
        if place.device.type != "cpu":
            raise Unavailable("scikit-learn computes on the CPU alone")
        arrays = target.numpy(), preds.numpy()

        def call() -> list[Tensor]:
            C = peer.confusion_matrix(*arrays)
            each = peer.precision_recall_fscore_support(*arrays)[:3]
            return [torch.from_numpy(x) for x in (C, *each)]

        return Side(call, goal=5.0)

    peers, skipped = against(
        {"torchmetrics": torchmetrics, "scikit-learn": scikit_learn}
    )
    return Case(
        f"confusion matrix, precision, recall and F1 of {n:,} predictions",
        Side(by_ours),
        peers,
        skipped,
        tolerance=1e-6,
        moved=target.nbytes + preds.nbytes,
    )
