r"""
Five of nine bugs in a recurrent network do not show in training
================================================================

**Question.** One line of a recurrent network is wrong. Does the training curve show it?
If not, what detects it?

**Answer.** Not necessarily. Of nine networks with one bug each, one stops because its
gradient is not finite, one learns nothing, two learn less in the same number of steps,
and five end within 0.1 nats of the correct one. Without its curve beside theirs, none
of the last seven would be noticed. A comparison with a second computation of the same
quantity detects every bug.

**Source.** Mutation testing, the injection of bugs to test the tests, is due to
DeMillo, Lipton and Sayward, *Hints on test data selection*, 1978. **Cost.** Seconds on
a CPU, no download; SymPy, which the checks of the report use, is installed with
PyTorch.
"""

# %%
# The bugs
# --------
# Checks verify the equations of the report: each measures the difference between two
# computations of the same quantity. For each check there are mutants, copies of the
# source with one wrong expression, which it must detect (:doc:`/verification` lists
# all). This page uses the mutants of this chapter that resemble common mistakes; the
# first is defined here. The table shows the difference that the check measures for each
# mutant, and the tolerance.

import math
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np
import torch

from dian import data
from dian.claims import Mutant
from dian.claims import verify as verifier
from dian.claims.rnn import recurrence, truncated
from dian.claims.training import clipping, metrics
from dian.figures.tables import markdown_table
from dian.rnn.networks import RNNClassifier, as_sequence
from dian.training import loop
from dian.training.clipping import clip_by_norm
from dian.training.loop import Training
from dian.training.loss import cross_entropy


def planted(check, what: str) -> Mutant:
    """Find the mutant of a check by its description."""
    return next(mutant for mutant in check.claim.mutants if mutant.what == what)


slope_of_A = Mutant(
    what="1 - A² in place of 1 - H²",
    at="ACTIVATIONS",
    old="torch.addcmul(H.new_ones(()), H, H, value=-1)",
    new="1 - H.atanh() ** 2",
)
of_the_checks = [
    (recurrence.bptt, "the derivative with H in place of H squared"),
    (recurrence.many_to_one, "the recurrent matrix is not transposed"),
    (recurrence.many_to_one, "only the last step is differentiated"),
    (recurrence.bptt, "H_t for H_{t-1}"),
    (recurrence.bptt, "the derivative of tanh of the previous step"),
    (recurrence.bptt, "the bias gets the mean"),
    (recurrence.forward, "the bias is added twice"),
]
in_the_layer = [(recurrence.bptt, slope_of_A)]
in_the_layer += [(check, planted(check, what)) for check, what in of_the_checks]
each_tensor = planted(clipping.by_norm, "each tensor is clipped separately")
masked = planted(recurrence.cross_entropy, "divided by all positions, masked or not")
carried = planted(
    truncated.kept_terms, "the state is carried over without detaching it"
)
averaged = planted(metrics.batches, "the whole set is averaged over its batches, too")

# Names for the figures.
short = {
    slope_of_A.what: "$1 - A^2$ for $1 - H^2$",
    "the derivative with H in place of H squared": "$1 - H$ for $1 - H^2$",
    "the recurrent matrix is not transposed": "not transposed",
    "only the last step is differentiated": "last step only",
    "H_t for H_{t-1}": "$H_t$ for $H_{t-1}$",
    "the derivative of tanh of the previous step": "derivative of other step",
    "the bias gets the mean": "mean for the bias",
    "the bias is added twice": "bias added twice",
    each_tensor.what: "clipped by tensor",
    "no bug": "no bug",
}

bugs = [
    *in_the_layer,
    (clipping.by_norm, each_tensor),
    (recurrence.cross_entropy, masked),
    (truncated.kept_terms, carried),
    (metrics.batches, averaged),
]
printed = []
for check, mutant in bugs:
    result = verifier.run_mutant(check.claim, mutant)
    found = "error" if result.error else f"{result.residual:.0e}"
    tolerance = f"{check.claim.tolerance:.0e}"
    printed.append((mutant.what, check.claim.id, found, tolerance))
    assert verifier.killed(mutant, result)
    assert result.error or result.residual > 1e6 * check.claim.tolerance
print(markdown_table(("bug", "check", "residual", "tolerance"), printed))

# %%
# Without a bug, the same checks find differences of the size of rounding errors.

printed = []
for check in dict.fromkeys(check for check, _ in bugs):
    result = verifier.verify(check.claim)
    printed.append((check.claim.id, check.claim.title, f"{result.residual:.0e}"))
    assert result.passed
print(markdown_table(("check", "title", "residual"), printed))

# %%
# Training with a bug
# -------------------
# Nine of the bugs affect the training of an image classifier. The layer with the bug
# replaces the correct one, with the same initial weights and the same images in the
# same order, for 6 epochs on the 1,000 training images of the sample with three seeds.

train, test = data.sample("train"), data.sample("test")
width, epochs, batch_size, n_seed = 64, 6, 25, 3


def with_layer(model: RNNClassifier, mutant: Mutant | None) -> RNNClassifier:
    """Replace the recurrent layer by one with a bug and the same weights."""
    if mutant is not None:
        layer = verifier.load_mutant("dian.rnn.recurrence", mutant).RNN(28, width)
        layer.load_state_dict(model.rnn.state_dict())
        model.rnn = layer
    return model


def training(mutant: Mutant | None, seed: int, clip) -> tuple[list[float], float]:
    """Train a network with a bug, and return its losses and its test accuracy."""
    generator = torch.Generator().manual_seed(seed)
    model = with_layer(RNNClassifier(28, width, 10, generator=generator), mutant)
    losses: list[float] = []
    steps = Training(
        model,
        lambda images, labels: cross_entropy(model(images), labels),
        (train.unit(), train.labels),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.2),
        schedule="cosine",
        max_norm=1.0,
        batch_size=batch_size,
        epochs=epochs,
        generator=generator,
    )
    try:
        with patch.object(loop, "clip_by_norm", clip):
            for step in steps:
                losses.append(step.loss)
    except FloatingPointError as error:  # the gradient is not finite
        print(f"{mutant.what}: stopped at", str(error).partition(":")[0])
    with torch.no_grad():
        guessed = model(test.unit()).argmax(1)
    return losses, (guessed == test.labels).double().mean().item()


per_tensor = verifier.load_mutant("dian.training.clipping", each_tensor).clip_by_norm
variants = {"no bug": (None, clip_by_norm)}
variants |= {mutant.what: (mutant, clip_by_norm) for _, mutant in in_the_layer}
variants[each_tensor.what] = (None, per_tensor)
runs = {
    what: [training(mutant, seed, clip) for seed in range(n_seed)]
    for what, (mutant, clip) in variants.items()
}

# %%
# Five of the curves look plausible, and two more look wrong only beside the correct
# one.


def smooth(losses: list[float], window: int = 20) -> np.ndarray:
    """Return the moving average over some steps."""
    return np.convolve(losses, np.ones(window) / window, mode="valid")


n_step = epochs * len(train) // batch_size
shows = [mutant.what for _, mutant in in_the_layer[:4]]
hidden = [what for what in runs if what not in ("no bug", *shows)]

fig, axes = plt.subplots(
    1, 2, figsize=(7, 4), layout="constrained", sharex=True, sharey=True
)
for ax, names in zip(axes, (shows, hidden), strict=True):
    ax.plot(smooth(runs["no bug"][0][0]), "k-", linewidth=4, alpha=0.3, label="no bug")
    for what, style in zip(names, ("-", "--", "-.", ":", (0, (6, 2))), strict=False):
        curve = smooth(runs[what][0][0])
        (line,) = ax.plot(curve, linestyle=style, label=short[what], linewidth=1.5)
        if len(runs[what][0][0]) < n_step:
            ax.plot(len(curve) - 1, curve[-1], "X", color=line.get_color())
    ax.axhline(math.log(10), color="gray", linewidth=0.8)
    ax.text(n_step - 20, math.log(10), "uniform", ha="right", va="bottom")
    ax.set(xlabel="step", ylim=(0, 4.4))
    ax.legend(loc="upper right", fontsize=8)
axes[0].set(ylabel="training loss (nats)")
axes[0].set_title("The bug shows (cross: stopped)")
axes[1].set_title("The bug does not show")
fig.set_label(
    "The training loss of networks with one bug each, first of three seeds, and that "
    "of the correct network (gray). Left: four bugs that show. Right: five that do not."
)
plt.show()

# %%
# Why the curves look plausible
# -----------------------------
# Gradient descent tolerates errors of the direction: a small step decreases the loss
# whenever the cosine of the wrong gradient with the correct one is positive, and
# clipping controls the step size. The figure shows the cosine of each wrong gradient
# with the correct one at the initial weights, and the accuracy after training, for each
# of the three seeds.


def gradient(what: str, seed: int) -> torch.Tensor:
    """Return the initial gradient, clipped, in double precision."""
    mutant, clip = variants[what]
    generator = torch.Generator().manual_seed(seed)
    model = with_layer(
        RNNClassifier(28, width, 10, generator=generator), mutant
    ).double()
    cross_entropy(model(train[:100].unit().double()), train.labels[:100]).backward()
    clip(model.parameters(), max_norm=1.0)
    return torch.cat([p.grad.flatten() for p in model.parameters()])


cosines = {
    what: [
        torch.cosine_similarity(
            gradient(what, seed), gradient("no bug", seed), dim=0
        ).item()
        for seed in range(n_seed)
    ]
    for what in runs
}
accuracies = {what: [share for _, share in rows] for what, rows in runs.items()}

fig, axes = plt.subplots(1, 2, figsize=(7, 4), layout="constrained", sharey=True)
for position, what in enumerate(runs):
    marker = "kD" if what == "no bug" else "C0o" if what in hidden else "C1X"
    for ax, values in zip(axes, (cosines, accuracies), strict=True):
        ax.plot(values[what], n_seed * [position], marker, fillstyle="none")
        ax.grid(axis="y", alpha=0.3)
axes[0].set_yticks(range(len(runs)), [short[what] for what in runs])
axes[0].invert_yaxis()
axes[0].set(xlabel="cosine with the correct gradient", xlim=(-0.5, 1.05))
axes[0].set_title("Initial direction")
axes[1].axvline(0.1, color="gray", linestyle=":")
axes[1].text(0.11, 0.1, "chance level", color="gray")
axes[1].set(xlabel="accuracy on 500 test images", xlim=(0, 1))
axes[1].set_title("After training")
fig.set_label(
    "Left: the cosine of the gradient of each network with the correct one, at the "
    "initial weights. Right: the test accuracy after training. Three seeds each."
)
plt.show()

# %%
# With the bias added twice, the cosine is 1: the bias is initially zero, so adding it
# twice does not change the states, and the bug does not affect the backward pass. For
# this reason the checks of the forward pass and of BPTT use biases that are not zero.
# The network with this bug need not be less accurate, but its weights define another
# function in code without the bug. With the wrong derivative :math:`1 - A^2`, the
# gradient has nearly the correct direction for at least one of the three
# initializations, but for another its direction is very different. Therefore a check
# compares every entry, and not only the direction.

ends = {
    what: np.mean([np.mean(losses[-20:]) for losses, _ in rows])
    for what, rows in runs.items()
}
printed = []
for what in runs:
    means = np.mean(cosines[what]), ends[what], np.mean(accuracies[what])
    printed.append((what, *(f"{x:.2f}" for x in means)))
header = ("means of three seeds", "cosine", "loss (nats)", "accuracy")
print(markdown_table(header, printed))

assert max(len(losses) for losses, _ in runs[shows[0]]) < n_step
assert max(accuracies[shows[0]]) < 0.4
assert max(accuracies[shows[1]]) < 0.2  # twice the chance level
for what in shows[2:]:
    assert ends[what] > ends["no bug"] + 0.15
    assert min(accuracies[what]) > 0.3  # three times the chance level
for what in hidden:
    assert ends[what] < ends["no bug"] + 0.1
    assert min(cosines[what]) > 0.9
assert all(math.isclose(c, 1) for c in cosines["the bias is added twice"])
assert min(cosines[slope_of_A.what]) < 0.2 < 0.9 < max(cosines[slope_of_A.what])

# %%
# Three bugs outside the recurrent layer
# --------------------------------------
# **The state is carried over without being detached.** A long sequence is read in
# chunks. The state is passed from one chunk to the next, but no gradient may be passed
# back. Without ``detach``, the second backward pass enters the graph of the first
# chunk, which has been freed. PyTorch's message suggests ``retain_graph=True``, which
# is the wrong solution: then every backward pass runs through all previous chunks.


def layers_walked(last: torch.Tensor) -> int:
    """Count the chunks through which the gradient of a state is propagated."""
    seen, todo = set(), [last.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [following for following, _ in node.next_functions]
    return sum("BackpropagationThroughTime" in node.name() for node in seen)


layer = RNNClassifier(28, width, 10, generator=torch.Generator().manual_seed(0)).rnn
chunks = train[:25].unit().transpose(0, 1).split(7)  # 4 chunks of 7 rows
printed = []
for detach in (True, False):
    state, walked = torch.zeros(25, width), []
    for chunk in chunks:
        _, last = layer(chunk, state)
        walked.append(layers_walked(last))
        state = last.detach() if detach else last
    printed.append(("detached" if detach else "carried", *walked))
    assert walked == ([1, 1, 1, 1] if detach else [1, 2, 3, 4])
header = ("state", *(f"chunks in the graph after chunk {i}" for i in range(1, 5)))
print(markdown_table(header, printed))

try:
    state = torch.zeros(25, width)
    for chunk in chunks:
        _, state = layer(chunk, state)
        state.sum().backward()
except RuntimeError as error:
    print(str(error).partition(" (or")[0])
else:
    raise AssertionError("the graph of the first chunk was still there")

# %%
# **The loss of a padded batch is divided by the number of all positions.** Sequences of
# different lengths are padded to the longest, and a mask marks the positions that
# count. In this example five labels count, and the amount of padding increases. The
# correct loss does not change. The wrong loss shrinks as if the network had learned,
# and so does every step of SGD.

wrong_loss = verifier.load_mutant("dian.training.loss", masked).cross_entropy
generator = torch.Generator().manual_seed(0)
logits = torch.randn(50, 10, generator=generator)
labels = torch.randint(10, (50,), generator=generator)
printed = []
for n in (5, 10, 50):
    mask = torch.arange(n) < 5
    losses = [
        loss(logits[:n], labels[:n], mask) for loss in (cross_entropy, wrong_loss)
    ]
    printed.append((n - 5, *(f"{loss:.3f}" for loss in losses)))
    assert math.isclose(losses[1], losses[0] * 5 / n, rel_tol=1e-5)
header = ("padded positions", "correct loss (nats)", "wrong loss (nats)")
print(markdown_table(header, printed))

# %%
# **The metrics are averaged over batches.** The network is correct, and the number is
# wrong: see :doc:`/gallery/1_rnn/plot_6_metrics`.
#
# A network that is not recurrent
# -------------------------------
# In the last example every line is correct. We train one network that receives each
# image as 28 steps of 28 values, and another that receives it as one step of 784
# values. In this single run the second network is more accurate. However, with
# :math:`H_0 = 0` and one step, the gradient with respect to :math:`W_{hh}` is
# :math:`H_0^\top \delta_1 = 0`: the matrix never changes, and nothing is recurrent.
# This is a network with one hidden layer. Inspecting the gradient of each parameter
# reveals it.

printed = []
for d in (28, 784):
    generator = torch.Generator().manual_seed(0)
    sequences = as_sequence(train.unit(), d), as_sequence(test.unit(), d)
    model = RNNClassifier(d, width, 10, generator=generator)
    start = model.rnn.W_hh.detach().clone()
    steps = Training(
        model,
        lambda x, labels, model=model: cross_entropy(model(x), labels),
        (sequences[0], train.labels),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.2),
        schedule="cosine",
        max_norm=1.0,
        batch_size=batch_size,
        epochs=epochs,
        generator=generator,
    )
    for _ in steps:
        pass
    with torch.no_grad():
        accuracy = (model(sequences[1]).argmax(1) == test.labels).double().mean().item()
    moved = (model.rnn.W_hh.detach() - start).norm().item()
    printed.append((784 // d, f"{accuracy:.2f}", f"{moved:.2f}"))
    assert (moved == 0) == (d == 784)
print(markdown_table(("steps", "accuracy", "norm of the change of W_hh"), printed))

# %%
# Limits
# ------
# These are short training runs of a small network on a small sample, with three seeds.
# The margins in the assertions (0.1 nats for the five, 0.15 nats for the two that learn
# less) were chosen after the results were known, so the page illustrates what can
# happen and does not estimate how often. On all the data, some of the five may differ
# visibly from the correct curve; but in practice there is no correct curve to compare
# with. Finally, a check that detects all bugs of a list need not detect others.
