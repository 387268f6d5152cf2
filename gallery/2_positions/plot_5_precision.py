r"""
Sixteen bits are not enough for the angles of positions
=======================================================

**Question.** Networks are often trained in 16 bits. Can the angles of a positional
encoding be computed in 16 bits as well?

**Answer.** No. bfloat16 rounds 257 to 256, so two positions become one. Sines and
cosines are wrong by more than 0.05 at position 100, and by more than 1 at 4096. In
float32 the largest error grows with the position: it is below 0.001 at position 20,000,
and above 0.001 at position 131,072. With angles in float64 and rounded sines and
cosines, only one rounding error remains at every position.

**Source.** The error of a rounded product is in Higham, *Accuracy and Stability of
Numerical Algorithms*, 2002, section 2.2. **Cost.** Seconds on a CPU, no download.
"""

# %%
# Integers that bfloat16 does not represent
# -----------------------------------------
# The significand of bfloat16 has 8 binary digits, and that of float16 has 11. From 256
# and 2048 on, respectively, not every integer can be represented.

import matplotlib.pyplot as plt
import torch

from dian.figures.tables import markdown_table
from dian.positions.rotary import rotation_factors
from dian.positions.sinusoidal import frequencies, sinusoidal_encoding

printed = []
for dtype, last in [(torch.bfloat16, 256), (torch.float16, 2048)]:
    whole = torch.arange(last - 1, last + 4).to(dtype)
    printed.append((str(dtype), *(int(x) for x in whole)))
    assert whole[1] == last == whole[2]
    assert whole[0] != whole[1]
header = ("type", "n - 1", *(f"n{' + ' * bool(i)}{i or ''}" for i in range(4)))
print(markdown_table(header, printed))

# %%
# Rounding errors of the angle
# ----------------------------
# In float32 all integers below :math:`2^{24}` are exact, and rounding a result causes a
# relative error of at most :math:`u = 2^{-24}`. Let an angle be computed as
# :math:`p / \theta^{2i/d}`, and write :math:`\omega_i = e^{-y}` with
# :math:`y = \tfrac{2i}{d} \ln\theta`. Three errors add up:
#
# - The exponent :math:`2i/d` is rounded. A relative error :math:`u` of the exponent
#   changes :math:`y` by :math:`y u`, and therefore the power by the relative error
#   :math:`y u`.
# - The power is computed to within one unit in its last binary digit, a relative error
#   of at most :math:`2u`.
# - The quotient is rounded, with a relative error of at most :math:`u`.
#
# Up to terms of the order :math:`u^2`, the error of the angle is therefore at most
# :math:`p\,\omega_i\,(y + 3)\,u`. The factor :math:`e^{-y}(y + 3)` decreases for
# :math:`y \ge 0`, so it is at most 3, and the error of the angle is at most
# :math:`3\,p\,u`. These are the two bounds of :eq:`eq-angle-error`.
#
# The largest errors that the checks of the report find exceed half of each of these
# bounds, so neither bound could be smaller by a factor of two. Multiplying by
# :math:`1 / \theta^{2i/d}` instead of dividing rounds once more, and 3 becomes 4.
#
# Sine and cosine depend on the angle modulo :math:`2\pi`. Taking the remainder does not
# reduce the error, which is already in the angle.
#
# The figure shows the largest error of any cosine or sine for 128 features, for five
# ways to compute them.

d = 128
omega = frequencies(d)
positions = torch.tensor([10, 100, 257, 1000, 4096, 20_000, 131_072, 1_000_000])
exact = rotation_factors(positions, omega, torch.complex128)


def usual(dtype: torch.dtype) -> torch.Tensor:
    """Compute everything in one dtype, as is often done."""
    slow = 10_000 ** (torch.arange(0, d, 2, dtype=torch.float32) / d)
    angles = positions.to(dtype)[:, None] / slow.to(dtype)
    return torch.complex(angles.cos().double(), angles.sin().double())


def error(found: torch.Tensor) -> torch.Tensor:
    """Return the largest error of a cosine or sine at each position."""
    return torch.view_as_real(found - exact).abs().amax((1, 2))


table = rotation_factors(positions, omega)
coarse = torch.view_as_real(table).bfloat16().double()
errors = {
    "angle float32": error(usual(torch.float32)),
    "angle float16": error(usual(torch.float16)),
    "angle bfloat16": error(usual(torch.bfloat16)),
    "angle float64, table float32": error(table),
    "angle float64, table bfloat16": error(torch.view_as_complex(coarse)),
}

fig, ax = plt.subplots(figsize=(7, 5.5), layout="constrained")
styles = ("o-", "s--", "^:", "D-.", "v-")
for (name, values), style in zip(errors.items(), styles, strict=True):
    ax.loglog(positions, values, style, label=name, markersize=5)
ax.loglog(
    positions, 3 * positions * 2.0**-24, "k-", linewidth=0.8, label="bound, float32"
)
ax.set(xlabel="position", ylabel="largest error of cosine or sine", ylim=(1e-8, 1e4))
ax.set_title("Error of the sines and cosines of an encoding, d = 128")
ax.legend(fontsize=9, ncols=2, loc="upper left")
fig.set_label(
    "Largest error of the sines and cosines of an encoding, by position and dtype. "
    "With angles in 16 bits the error reaches the order of 1 within a few thousand "
    "positions; with angles in float64 it does not grow."
)
plt.show()

at = {p: i for i, p in enumerate(positions.tolist())}
single, half, brain = (errors[f"angle {x}"] for x in ("float32", "float16", "bfloat16"))
assert (single <= 3 * positions * 2.0**-24 + 2.0**-25).all()
assert single[at[131_072]] > 1e-3 > single[at[20_000]]
assert brain[at[100]] > 0.05
assert brain[at[4096]] > 1
assert half[at[131_072]].isnan()
assert (errors["angle float64, table float32"] < 3.1e-8).all()
assert (errors["angle float64, table bfloat16"] < 2.0**-8).all()

# %%
# The curve of float16 ends, because it has no finite number above 65,504, and the
# cosine of infinity is not defined.
#
# Two positions that become one
# -----------------------------
# If the positions are in bfloat16, positions 256 and 257 have the same encoding, and no
# later layer can distinguish them. The library returns bfloat16 on request, but
# computes the angles in double precision.

two = torch.tensor([256, 257])
wrong = sinusoidal_encoding(two.bfloat16(), d, dtype=torch.bfloat16)
right = sinusoidal_encoding(two, d, dtype=torch.bfloat16)
printed = [
    ("positions in bfloat16", f"{(wrong[0] - wrong[1]).abs().max():.2f}"),
    ("angles in float64", f"{(right[0] - right[1]).abs().max():.2f}"),
]
print(markdown_table(("computed with", "difference of the two encodings"), printed))

assert torch.equal(wrong[0], wrong[1])
assert (right[0] - right[1]).abs().max() > 0.5

# %%
# A buffer of a module is cast with the module: ``.bfloat16()`` rounds it. If the buffer
# holds sines and cosines, they are rounded once. If it holds frequencies, their
# rounding errors are multiplied by the position. Therefore no module of the library
# keeps either in a buffer.

kept = torch.nn.Module()
kept.register_buffer("omega", omega.clone())
kept.bfloat16()
angle = 4096 * omega
moved = (4096 * kept.omega.double() - angle).abs().max()
print(f"cast frequencies: error of the angle at position 4096: {moved:.1f} rad")

assert moved > 1

# %%
# Limits
# ------
# How much such errors matter depends on the task. A network that was trained with wrong
# angles has adapted to them, and correcting the angles later changes its outputs.
