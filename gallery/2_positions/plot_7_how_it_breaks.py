r"""
How positions break
===================

**Question.** One line of a positional encoding is wrong. The output has the right
shape, and looks plausible. Which property gives it away?

**Answer.** No single one. Of thirteen bugs in attention with rotary embedding none of
eight properties notices all, and one bug is noticed by nothing but the last property
that one would think of. Four properties together notice all thirteen: that position 0
leaves a vector alone, that the output stays when all positions are shifted, that a
score is the one in closed form, and that decoding with a cache is the same as doing all
at once. No three do. For the sinusoidal encoding a comparison with the formula is
enough; the others tell what is wrong.

**Source.** Bugs are planted to test the tests since DeMillo, Lipton and Sayward, *Hints
on test data selection*, 1978. **Cost.** Seconds on a CPU, no download; SymPy, which the
checks of the report use, comes with PyTorch.
"""

# %%
# It looks plausible
# ------------------
# The first bug on the list below, a slip of one letter: the cosine is used twice, and
# the table of sines not at all. Here are the weights of attention for random queries
# and keys of 24 positions, without and with the bug.

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import torch

from dian.claims import verify as verifier
from dian.claims.positions import bug_matrix
from dian.positions import rotary
from dian.positions.sinusoidal import frequencies

generator = torch.Generator().manual_seed(0)
q = torch.randn(24, 32, generator=generator, dtype=torch.float64)
k = q + torch.randn(24, 32, generator=generator, dtype=torch.float64)
first = bug_matrix.ROTARY_BUGS[0].mutant
bugged = verifier.load_mutant("dian.positions.rotary", first)

fig, axes = plt.subplots(1, 2, figsize=(7.4, 3.5), layout="constrained")
for ax, module, title in zip(
    axes, (rotary, bugged), ("no bug", first.what), strict=True
):
    Q, K = (module.rotate_half_split(x, frequencies(32)) for x in (q, k))
    weights = (Q @ K.T / 32**0.5).softmax(-1)
    ax.imshow(weights.numpy(), cmap="Blues", vmin=0)
    ax.set(title=title, xlabel="is read", ylabel="reads")
    assert Q.shape == q.shape
    assert weights.isfinite().all()
fig.suptitle("Weights of attention")
plt.show()

# %%
# Eight properties
# ----------------
# Each bug is a change of one expression in the source: in the rotation with two halves,
# as it is usually written, or in the layer of attention around it. Then every property
# is measured on random vectors, and a cross stands where it does not hold.
#
# ============  ==================================================================
# norm          a rotated vector is as long as before
# zero          at position 0 nothing changes
# relative      scores stay when all positions are shifted
# group         to be turned twice is to be turned once, by the sum
# shift         the *output* stays when all positions are shifted
# same          a query and a key at the same position have their plain product
# golden        a score is the one in closed form
# cache         decoding one by one is the same as doing all at once
# ============  ==================================================================

right = bug_matrix.rotary_properties()
print("without a bug:", {name: f"{residual:.0e}" for name, residual in right.items()})
assert not bug_matrix.seen(right)

found = bug_matrix.matrix(bug_matrix.ROTARY_BUGS)


def show(found: dict[str, frozenset[str]], names: list[str], title: str) -> None:
    """Draw a row for each bug: a cross where a property notices it."""
    size = (8.4, 0.34 * len(found) + 1.2)
    ax = plt.figure(figsize=size, layout="constrained").subplots()
    noticed = np.array([[name in seen for name in names] for seen in found.values()])
    ax.imshow(noticed, cmap="Oranges", vmin=0, vmax=2, aspect="auto")
    for row, column in np.argwhere(noticed):
        ax.text(column, row, "✗", ha="center", va="center")
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(range(len(found)), list(found))
    ax.xaxis.tick_top()
    ax.set_title(title)
    plt.show()


def table(found: dict[str, frozenset[str]], names: list[str]) -> None:
    """Print the same."""
    print(f"{'':50}", *names)
    for what, seen in found.items():
        marks = (("x" if name in seen else ".").center(len(name)) for name in names)
        print(f"{what:50}", *marks)


names = list(right)
show(found, names, "Which property notices which bug: rotary embedding")
table(found, names)

# What stands beside each bug, and what the tests of the report demand.
assert found == {bug.mutant.what: bug.seen for bug in bug_matrix.ROTARY_BUGS}

# %%
# The bug from above is noticed by nearly all, since the lengths change. Others are
# noticed by one property each: values that are rotated, too, by the output alone; a
# forgotten offset by nothing that looks at a whole text at once. When both query and
# key turn the wrong way, or with the frequencies of another width, everything is
# consistent, and only different from what everybody else computes: a network can be
# trained so, and its weights are worthless elsewhere.
#
# Four are enough
# ---------------


def all_noticed(chosen) -> bool:
    """Tell whether every bug is noticed by one of these properties at least."""
    return all(seen & set(chosen) for seen in found.values())


for size in range(1, 5):
    enough = [c for c in combinations(names, size) if all_noticed(c)]
    print(f"{size} properties: {len(enough)} choices notice every bug", *enough)
    assert bool(enough) == (size == 4)

assert all_noticed(("zero", "shift", "golden", "cache"))
alone = [next(iter(seen)) for seen in found.values() if len(seen) == 1]
print("the only one to notice some bug:", *sorted(set(alone)))

assert set(alone) == {"shift", "golden", "cache"}

# %%
# Norm, relative and same add nothing to these; they are kept, because they point at the
# cause. The form with a complex product has no place for the first four bugs of
# the list: there is no second table, no half that could stay where it is, and no minus.
#
# The sinusoidal encoding
# -----------------------
# ============  ==================================================================
# norm          an encoding has the length :math:`\sqrt{d/2}`
# offset        products stay when all positions are shifted
# shift         the matrix :math:`M_k` moves the encoding by :math:`k`
# zero          position 0 is :math:`(0, 1, 0, 1, \dots)`
# product       the product of two is the sum of cosines
# golden        each entry is the one of the formula
# ============  ==================================================================

right = bug_matrix.sinusoidal_properties()
assert not bug_matrix.seen(right)
found = bug_matrix.matrix(bug_matrix.SINUSOIDAL_BUGS)

show(found, list(right), "Which property notices which bug: sinusoidal encoding")
table(found, list(right))

assert found == {bug.mutant.what: bug.seen for bug in bug_matrix.SINUSOIDAL_BUGS}
assert all("golden" in seen for seen in found.values())

# %%
# "Golden" notices all; so it has to. But it presupposes that one knows what is right,
# to the layout and the first position, and most disagreements are about these.
#
# One that nobody's property shows
# --------------------------------
# An encoding computed once for the longest text and kept. Under which key? Width and
# length come to mind. Then somebody asks for another base:

kept: dict[tuple[int, int], torch.Tensor] = {}


def remembered(n: int, d: int, base: float) -> torch.Tensor:
    """Return a table from memory, under a key that forgets the base."""
    if (n, d) not in kept:
        kept[n, d] = rotary.rotation_factors(torch.arange(n), frequencies(d, base))
    return kept[n, d]


one, other = (remembered(16, 8, base) for base in (10_000, 500_000))
print("two bases, one table:", torch.equal(one, other))
assert torch.equal(one, other)

# %%
# Each property holds, for the first base, and in a test that starts afresh. In this
# library nothing is kept from one call to the next.
#
# Limits
# ------
# The four properties notice every bug on this list. There are bugs that nobody thought
# of.
