r"""
No single test detects every bug of rotary embedding
====================================================

**Question.** One line of a positional encoding is wrong. The output has the right shape
and looks plausible. Which property reveals the bug?

**Answer.** We inject thirteen bugs into attention with rotary embedding, and test eight
properties. No single property detects all bugs. Four together do, and no three:
position 0 changes nothing, shifted positions leave the output unchanged, scores have
their closed form, and decoding with a cache agrees with one pass. For the sinusoidal
encoding, comparing with the formula is enough.

**Source.** Injecting bugs to test the tests (mutation testing) was proposed by DeMillo,
Lipton and Sayward, *Hints on test data selection*, 1978. **Cost.** Seconds on a CPU, no
download; SymPy, which the checks of the report use, comes with PyTorch.
"""

# %%
# A plausible output
# ------------------
# We begin with one wrong variable name, which is the bug in the first row of the second
# figure: the cosine is used twice, and the table of sines not at all. The figure shows
# the attention weights of random queries and keys at 24 positions, without and with the
# bug.

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import torch

from dian.claims import verify as verifier
from dian.claims.positions import bug_matrix
from dian.figures.tables import markdown_table
from dian.positions import rotary
from dian.positions.sinusoidal import frequencies

generator = torch.Generator().manual_seed(0)
q = torch.randn(24, 32, generator=generator, dtype=torch.float64)
k = q + torch.randn(24, 32, generator=generator, dtype=torch.float64)
first = bug_matrix.ROTARY_BUGS[0].mutant
bugged = verifier.load_mutant("dian.positions.rotary", first)

fig, axes = plt.subplots(1, 2, figsize=(7, 4), layout="constrained")
for ax, module, title in zip(
    axes, (rotary, bugged), ("no bug", first.what), strict=True
):
    Q, K = (module.rotate_half_split(x, frequencies(32)) for x in (q, k))
    weights = (Q @ K.T / 32**0.5).softmax(-1)
    ax.imshow(weights.numpy(), cmap="Blues", vmin=0)
    ax.set(title=title, xlabel="position of the key")
    assert Q.shape == q.shape
    assert weights.isfinite().all()
axes[0].set_ylabel("position of the query")
fig.suptitle("Attention weights")
fig.set_label(
    "Attention weights of a correct rotary embedding and of one in which the cosine is "
    "used twice. Both look plausible."
)
plt.show()

# %%
# Eight properties
# ----------------
# Each bug changes one expression of the source: in the rotation with two halves, as it
# is usually written, or in the attention layer around it. Then we measure every
# property on random vectors. A cross marks a property that does not hold.
#
# ============  ==================================================================
# norm          a rotated vector has the same norm
# zero          position 0 changes nothing
# relative      scores do not change if all positions are shifted
# group         two successive rotations equal one by the sum of the positions
# shift         the *output* does not change if all positions are shifted
# same          the score at the same position is the product before the rotation
# golden        a score equals its formula, :eq:`eq-rotary-score`
# cache         decoding token by token agrees with one pass over the sequence
# ============  ==================================================================

right = bug_matrix.rotary_properties()
print(f"largest residual without a bug: {max(right.values()):.0e}")
assert not bug_matrix.seen(right)

found = bug_matrix.matrix(bug_matrix.ROTARY_BUGS)


def show(found, names: list[str], title: str, caption: str, size) -> None:
    """Draw a row for each bug, with a cross for each property that detects it."""
    fig, ax = plt.subplots(figsize=size, layout="constrained")
    detected = np.array([[name in seen for name in names] for seen in found.values()])
    ax.imshow(detected, cmap="Oranges", vmin=0, vmax=2, aspect="auto")
    for row, column in np.argwhere(detected):
        ax.text(column, row, "✗", ha="center", va="center")
    ax.set_xticks(range(len(names)), names, rotation=40, ha="left")
    ax.set_yticks(range(len(found)), list(found))
    ax.xaxis.tick_top()
    fig.suptitle(title)
    fig.set_label(caption)
    plt.show()


names = list(right)
show(
    found,
    names,
    "Which property detects which bug: rotary embedding",
    "A cross marks a property (column) that detects a bug (row) of rotary embedding. "
    "No column has a cross in every row; zero, shift, golden and cache together do.",
    (7, 5.5),
)

# The expected result is listed with each bug, and the tests of the report check it.
assert found == {bug.mutant.what: bug.seen for bug in bug_matrix.ROTARY_BUGS}

# %%
# Nearly all properties detect the bug from above, since it changes norms. Some other
# bugs are detected by a single property. Rotated values change no score, so that only
# *shift*, which tests the output, detects them. A missing offset in decoding is
# detected by *cache* alone, because all other properties process a whole sequence at
# once. If queries and keys rotate in the wrong direction, or with the frequencies of
# another dimension, the encoding is consistent, but differs from that of other
# implementations: a network can be trained with it, and its weights cannot be used
# elsewhere.
#
# Four properties are enough
# --------------------------


def all_detected(chosen) -> bool:
    """Check whether each bug is detected by at least one of these properties."""
    return all(seen & set(chosen) for seen in found.values())


printed = []
for size in range(1, 5):
    enough = [c for c in combinations(names, size) if all_detected(c)]
    which = "; ".join(", ".join(c) for c in enough)
    printed.append((size, len(enough), which))
    assert bool(enough) == (size == 4)
header = ("properties", "choices that detect every bug", "these choices")
print(markdown_table(header, printed))

assert all_detected(("zero", "shift", "golden", "cache"))
alone = [next(iter(seen)) for seen in found.values() if len(seen) == 1]
print("properties that detect a bug that no other detects:", *sorted(set(alone)))

assert set(alone) == {"shift", "golden", "cache"}

# %%
# *Norm*, *relative* and *same* add nothing to these four, and *group* can replace
# *zero*. They remain useful because they point to the cause. The bugs in the first four
# rows of the figure cannot occur in the form with a complex product: it has no second
# table, no half to exchange, and no minus sign.
#
# The sinusoidal encoding
# -----------------------
# We test six properties of the sinusoidal encoding in the same way.
#
# ============  ==================================================================
# norm          the norm of an encoding is :math:`\sqrt{d/2}`
# offset        products do not change if all positions are shifted
# shift         the matrix :math:`M_k` shifts the encoding by :math:`k`
# zero          position 0 is :math:`(0, 1, 0, 1, \dots)`
# product       the product of two encodings is the sum of cosines
# golden        each entry equals the formula
# ============  ==================================================================

right = bug_matrix.sinusoidal_properties()
assert not bug_matrix.seen(right)
found = bug_matrix.matrix(bug_matrix.SINUSOIDAL_BUGS)

show(
    found,
    list(right),
    "Which property detects which bug: sinusoidal encoding",
    "The same for the sinusoidal encoding. The comparison with the formula (golden) "
    "detects every bug.",
    (7, 4),
)

assert found == {bug.mutant.what: bug.seen for bug in bug_matrix.SINUSOIDAL_BUGS}
assert all("golden" in seen for seen in found.values())

# %%
# *Golden* detects every bug, but it requires that the formula is known, including the
# layout and the first position, and implementations differ in these.
#
# A bug that no property shows
# ----------------------------
# Suppose that an encoding is computed once for the longest sequence and cached in a
# dictionary whose keys consist of length and dimension. Later, a second model uses
# another base:

tables: dict[tuple[int, int], torch.Tensor] = {}


def cached_factors(n: int, d: int, base: float) -> torch.Tensor:
    """Return a cached table, under a key without the base."""
    if (n, d) not in tables:
        tables[n, d] = rotary.rotation_factors(torch.arange(n), frequencies(d, base))
    return tables[n, d]


one, other = (cached_factors(16, 8, base) for base in (10_000, 500_000))
print("the tables of two bases are equal:", torch.equal(one, other))
assert torch.equal(one, other)

# %%
# Every property holds for the first base, and in every test that starts with an empty
# cache. This library does not keep tables from one call to the next.
#
# Limits
# ------
# The four properties detect every bug of rotary embedding that was injected here. There
# are other bugs.
