#!/usr/bin/env python3
"""Check functions of well-known libraries; write the record and the page of the table.

The libraries are those of the dependency group ``peers``. The record,
docs/libraries.json, has versions and outcomes, and docs/libraries.md is made from it.
Tests notice if the record is out of date.
"""

import json
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from dian.check import check
from dian.check.report import FAILED, RIGHT, SKIPPED, WARNED

DOCS = Path(__file__).parents[1] / "docs"
RECORD, PAGE = DOCS / "libraries.json", DOCS / "libraries.md"


def llama(q, k, positions):
    """Rotate as Llama does."""
    from transformers.models.llama import modeling_llama as llama

    d = q.shape[-1]
    config = llama.LlamaConfig(hidden_size=d, num_attention_heads=1, head_dim=d)
    cos, sin = llama.LlamaRotaryEmbedding(config)(q, positions[None])
    return llama.apply_rotary_pos_emb(q, k, cos, sin)


def roformer(q, k):
    """Rotate as RoFormer does."""
    from transformers.models.roformer import modeling_roformer as roformer

    module = roformer.RoFormerSinusoidalPositionalEmbedding(64, q.shape[-1])
    module.weight = nn.Parameter(module.create_weight(), requires_grad=False)
    table = module(q.shape[:1] + q.shape[2:3])[None, None]
    rotate = roformer.RoFormerSelfAttention.apply_rotary_position_embeddings
    return rotate(table, q, k)


def rotary_embedding_torch(x):
    """Rotate as lucidrains' library does."""
    from rotary_embedding_torch import RotaryEmbedding

    return RotaryEmbedding(x.shape[-1]).rotate_queries_or_keys(x)


def _scheduler(name: str, betas, **options):
    import diffusers

    return getattr(diffusers, name)(
        len(betas), trained_betas=np.array(betas), **options
    )


def diffusers_add_noise(x_0, t, noise, betas):
    """Add noise with the scheduler of diffusers."""
    return _scheduler("DDPMScheduler", betas).add_noise(x_0, noise, t)


def diffusers_ddpm(variance: str, clip: bool) -> Callable:
    """Return ancestral sampling by diffusers."""

    def sample(model, x, betas, noise):
        options = {"variance_type": variance, "clip_sample": clip}
        scheduler = _scheduler("DDPMScheduler", betas, **options)
        place = "diffusers.schedulers.scheduling_ddpm.randn_tensor"
        for t in reversed(range(len(betas))):
            with mock.patch(place, lambda *_, t=t, **__: noise[t]):
                x = scheduler.step(model(x, torch.tensor([t])), t, x).prev_sample
        return x

    return sample


def diffusers_ddim(model, x, betas, timesteps, eta=0.0, noise=None):
    """Sample with DDIM by diffusers."""
    T, scheduler = len(betas), _scheduler("DDIMScheduler", betas, clip_sample=False)
    for s, t in reversed(list(zip([-1, *timesteps], timesteps, strict=False))):
        # The scheduler computes the previous timestep from the number of steps.
        scheduler.num_inference_steps = T // (t - s)
        z = None if noise is None or not eta else noise[t]
        out = model(x, torch.tensor([t]))
        x = scheduler.step(out, t, x, eta=eta, variance_noise=z).prev_sample
    return x


def _gaussian_diffusion(x, betas):
    import denoising_diffusion_pytorch.denoising_diffusion_pytorch as ddp

    class Model(nn.Module):
        channels = out_dim = x.shape[1]
        self_condition = random_or_learned_sinusoidal_cond = False

    table = betas.double()
    with mock.patch.object(ddp, "linear_beta_schedule", return_value=table):
        options = {"timesteps": len(betas), "beta_schedule": "linear"}
        found = ddp.GaussianDiffusion(Model(), image_size=(2, 2), **options)
    return found.double()


def ddp_q_sample(x_start, t, noise, betas):
    """Add noise as denoising-diffusion-pytorch does."""
    return _gaussian_diffusion(x_start, betas).q_sample(x_start, t, noise)


def ddp_posterior(x_start, x_t, t, betas):
    """Return mean and variance as denoising-diffusion-pytorch does."""
    return _gaussian_diffusion(x_start, betas).q_posterior(x_start, x_t, t)[:2]


class TorchMetrics:
    """Macro metrics of torchmetrics."""

    def __init__(self, num_classes):
        from torchmetrics import classification as c

        options = {"num_classes": num_classes}
        self.metrics = [c.MulticlassAccuracy(**options, average="micro")]
        for metric in (c.MulticlassPrecision, c.MulticlassRecall, c.MulticlassF1Score):
            self.metrics.append(metric(**options, average="macro"))

    def update(self, target, preds):
        """Add a batch."""
        for metric in self.metrics:
            metric.update(preds, target)

    def compute(self):
        """Return the four metrics."""
        return tuple(metric.compute() for metric in self.metrics)


def torchmetrics_matrix(target, preds, num_classes):
    """Count with torchmetrics."""
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    return multiclass_confusion_matrix(preds, target, num_classes)


def sklearn_matrix(y_true, y_pred, n_classes):
    """Count with scikit-learn."""
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(y_true, y_pred, labels=range(n_classes))


def sklearn_metrics(y_true, y_pred):
    """Score with the defaults of scikit-learn."""
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    options = {"average": "macro", "zero_division": 0}
    scores = precision_recall_fscore_support(y_true, y_pred, **options)
    return accuracy_score(y_true, y_pred), *scores[:3]


LIBRARIES = (
    ("torch", "nn.RNN", "rnn", nn.RNN),
    ("torch", "nn.functional.cross_entropy", "cross-entropy",
     lambda logits, target: F.cross_entropy(logits, target)),
    ("torch", "nn.utils.clip_grad_norm_", "clip", nn.utils.clip_grad_norm_),
    ("torch", "scaled_dot_product_attention", "attention",
     lambda query, key, value, attn_mask=None: F.scaled_dot_product_attention(
         query, key, value, attn_mask)),
    ("torch", "nn.MultiheadAttention", "multi-head", nn.MultiheadAttention),
    ("torch", "nn.Transformer.generate_square_subsequent_mask", "causal-mask",
     nn.Transformer.generate_square_subsequent_mask),
    ("transformers", "apply_rotary_pos_emb (Llama)", "rotary", llama),
    ("transformers", "apply_rotary_position_embeddings (RoFormer)", "rotary", roformer),
    ("rotary-embedding-torch", "rotate_queries_or_keys", "rotary",
     rotary_embedding_torch),
    ("diffusers", "DDPMScheduler.add_noise", "q-sample", diffusers_add_noise),
    ("diffusers", "DDPMScheduler.step, fixed_large", "ddpm-sample",
     diffusers_ddpm("fixed_large", False)),
    ("diffusers", "DDPMScheduler.step, fixed_small, clip_sample", "ddpm-sample",
     diffusers_ddpm("fixed_small", True)),
    ("diffusers", "DDIMScheduler.step", "ddim-sample", diffusers_ddim),
    ("denoising-diffusion-pytorch", "q_sample", "q-sample", ddp_q_sample),
    ("denoising-diffusion-pytorch", "q_posterior", "posterior", ddp_posterior),
    ("torchmetrics", "multiclass_confusion_matrix", "confusion-matrix",
     torchmetrics_matrix),
    ("torchmetrics", "MulticlassF1Score and others", "classification-metrics",
     TorchMetrics),
    ("scikit-learn", "confusion_matrix", "confusion-matrix", sklearn_matrix),
    ("scikit-learn", "precision_recall_fscore_support", "classification-metrics",
     sklearn_metrics),
)  # fmt: skip
"""Library, function, kind, and the function or a small adapter."""

WHY = {
    "nn.RNN": "Its weights are the transposed matrices; its two biases are added.",
    "nn.utils.clip_grad_norm_": "Adds 1e-6 to the norm, which avoids a division by 0.",
    "scaled_dot_product_attention": "True means that a key is used.",
    "nn.MultiheadAttention": "True means masked, in contrast to the function.",
    "nn.Transformer.generate_square_subsequent_mask":
        "The mask is added to the scores. Without a dtype it is float32.",
    "apply_rotary_pos_emb (Llama)": "The weights of its checkpoints are permuted.",
    "apply_rotary_position_embeddings (RoFormer)":
        "The layout of the paper. The table has consecutive positions.",
    "rotate_queries_or_keys": "The layout of the paper.",
    "DDPMScheduler.add_noise": "The index of an array is the timestep minus 1.",
    "DDPMScheduler.step, fixed_large": "The variance that the paper calls beta.",
    "DDPMScheduler.step, fixed_small, clip_sample":
        "The variance of the posterior, and the clipping of the authors' code.",
    "DDIMScheduler.step": "Its inner step size assumes evenly spaced timesteps.",
    "q_sample": "As in the authors' code.",
    "q_posterior": "As in the authors' code.",
    "MulticlassF1Score and others":
        "A class that neither occurs nor is predicted is left out of the mean.",
    "precision_recall_fscore_support":
        "Without `labels`, a class that neither occurs nor is predicted is left out.",
}  # fmt: skip
"""Why a convention differs from that of the report."""


def outcome(library: str, name: str, kind: str, function: Callable) -> dict:
    """Check one function; return what the record keeps."""
    report = check(kind, function)
    return {
        "library": library,
        "version": version(library).split("+")[0],
        "function": name,
        "kind": kind,
        "verdict": report.verdict,
        "conventions": list(report.conventions.values()),
        "failed": [x.title for x in report.lines if x.mark == FAILED],
        "warned": [x.title for x in report.lines if x.mark == WARNED],
        "not checked": [x.title for x in report.lines if x.mark == SKIPPED],
        "not returned": report.absent,
        "mistakes": report.mistakes,
        "notes": report.notes + [report.fault] * bool(report.fault),
    }


def row(found: dict) -> str:
    """Return one row of the table."""
    marks = ("failed", "warned", "not checked", "not returned", "mistakes")
    remarks = [f"{mark}: {', '.join(found[mark])}" for mark in marks if found[mark]]
    verdict = [found["verdict"]] * (found["verdict"] != RIGHT)
    said = "; ".join(verdict + remarks + found["notes"]).replace("|", "\\|")
    why = [WHY[found["function"]]] if found["function"] in WHY else []
    said = " ".join([*why, said[:1].upper() + said[1:]]).strip()
    return (
        f"| `{found['function']}` as `{found['kind']}` "
        f"| {'; '.join(found['conventions'])} | {said} |"
    )


def tables(record: list[dict]) -> Iterator[str]:
    """Yield the lines of one table for each library."""
    for library, rows in groupby(record, lambda row: (row["library"], row["version"])):
        yield from ["", f"## {' '.join(library)}", ""]
        yield from ["| Function | Conventions | Remarks |", "|---|---|---|"]
        yield from map(row, rows)


def page(record: list[dict]) -> str:
    """Return the page of the site."""
    right = sum(found["verdict"] == RIGHT for found in record)
    lines = [
        "<!-- Written by `python scripts/check_libraries.py`; do not edit. -->",
        "",
        "# Well-known libraries",
        "",
        "Functions of other libraries, each checked with {doc}`dian check <check>`",
        "through an adapter of a few lines (`scripts/check_libraries.py`).",
        f"{right} of {len(record)} are right. The conventions are those that were",
        "recognized. A property is not checked if the function does not take the",
        "argument that it needs.",
        *tables(record),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the record and the page."""
    record = []
    for library, name, kind, function in LIBRARIES:
        record.append(outcome(library, name, kind, function))
        print(library, name, record[-1]["verdict"], flush=True)
    text = json.dumps(record, indent=1, ensure_ascii=False)
    RECORD.write_text(f"{text}\n", encoding="utf-8")
    PAGE.write_text(page(record), encoding="utf-8")


if __name__ == "__main__":
    main()
