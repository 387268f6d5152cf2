r"""
In what precision angles have to be
===================================

**Question.** Networks compute in 16 bits. May the angles of an encoding be computed so,
too?

**Answer.** No. In bfloat16 there is no number 257, and positions 256 and 257 are one;
at position 100 sines and cosines are already wrong by more than five per cent, and at
4096 they are noise. In float32 the error grows in proportion to the position, and
passes one thousandth between positions 20,000 and 131,072. With angles in double
precision, and the sines and cosines rounded afterwards, the error is that of the
rounding at every position.

**Source.** The error of a rounded product is in Higham, *Accuracy and Stability of
Numerical Algorithms*, 2002, section 2.2. **Cost.** Seconds on a CPU, no download.
"""

# %%
# Integers that are not there
# ---------------------------
# A floating-point number has so many digits. bfloat16 keeps 8 binary ones, and float16
# has 11: from 256, or 2048, on, not every integer is among them.

import matplotlib.pyplot as plt
import torch

from dian.positions.rotary import rotation_factors
from dian.positions.sinusoidal import frequencies, sinusoidal_encoding

for dtype, last in [(torch.bfloat16, 256), (torch.float16, 2048)]:
    whole = torch.arange(last - 1, last + 4).to(dtype)
    print(f"{dtype!s:15}", [int(x) for x in whole])
    assert whole[1] == last == whole[2]
    assert whole[0] != whole[1]

# %%
# How large the error is
# ----------------------
# In float32 all integers below :math:`2^{24}` are exact, and rounding a result changes
# it by a relative error of at most :math:`u = 2^{-24}`. Let an angle be computed as
# :math:`p / \theta^{2i/d}`, and write :math:`\omega_i = e^{-y}` with
# :math:`y = \tfrac{2i}{d} \ln\theta`. Three errors add up:
#
# - The exponent :math:`2i/d` is rounded. A relative error :math:`u` of the exponent is
#   a relative error :math:`y u` of the power.
# - The power is computed to within one unit in the last place, which is at most
#   :math:`2u`.
# - The quotient is rounded, by at most :math:`u`.
#
# Up to terms of the order :math:`u^2`, the error of the angle is therefore at most
# :math:`p\,\omega_i\,(y + 3)\,u`. The factor :math:`e^{-y}(y + 3)` falls for
# :math:`y \ge 0`, so that it is at most 3:
#
# .. math::
#    :label: eq-angle-error
#
#    | \operatorname{fl}(p\,\omega_i) - p\,\omega_i |
#    \le \Big(3 + \ln\frac{1}{\omega_i}\Big)\, p\,\omega_i\,2^{-24}
#    \le 3\,p\,2^{-24} .
#
# Both bounds hold for all widths that the report checks, and the largest errors reach
# more than half of each. Multiplying by :math:`1 / \theta^{2i/d}` instead of dividing
# rounds once more, and 3 becomes 4.
#
# An angle matters by its remainder after full turns. So the error is an error of the
# result, and it does not get smaller by taking the remainder afterwards.
#
# Here is the largest error of any cosine or sine for 128 features, at five positions,
# for five ways to compute them.

d = 128
omega = frequencies(d)
positions = torch.tensor([10, 100, 257, 1000, 4096, 20_000, 131_072, 1_000_000])
exact = rotation_factors(positions, omega, torch.complex128)


def usual(dtype: torch.dtype) -> torch.Tensor:
    """Compute everything in one type, as is often done."""
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

fig, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
styles = ("o-", "s--", "^:", "D-.", "v-")
for (name, values), style in zip(errors.items(), styles, strict=True):
    ax.loglog(positions, values, style, label=name, markersize=5)
ax.loglog(
    positions, 3 * positions * 2.0**-24, "k-", linewidth=0.8, label="bound, float32"
)
ax.set(xlabel="position", ylabel="largest error of cosine or sine", ylim=(1e-8, 30))
ax.set_title("Error of the table, d = 128")
ax.legend(fontsize=8, ncols=2)
plt.show()

print(f"{'position':30}", *(f"{p:9}" for p in positions.tolist()))
for name, values in errors.items():
    print(f"{name:30}", *(f"{x:9.1e}" for x in values))

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
# The curve of float16 ends: a position above 65,504 is infinite there, and the cosine
# of infinity is no number.
#
# Two positions that become one
# -----------------------------
# What this means: positions 256 and 257 are encoded alike, and no matrix that comes
# after can tell them apart. The library returns bfloat16 if it is asked to, and
# computes the angles in double precision before.

two = torch.tensor([256, 257])
wrong = sinusoidal_encoding(two.bfloat16(), d, dtype=torch.bfloat16)
right = sinusoidal_encoding(two, d, dtype=torch.bfloat16)
print(f"positions in bfloat16: apart by {(wrong[0] - wrong[1]).abs().max():.2f}")
print(f"angles in float64:     apart by {(right[0] - right[1]).abs().max():.2f}")

assert torch.equal(wrong[0], wrong[1])
assert (right[0] - right[1]).abs().max() > 0.5

# %%
# A table that a module keeps in a buffer obeys the module: ``.bfloat16()`` casts it,
# too. What then happens depends on what the buffer holds. Sines and cosines lose a few
# digits; frequencies lose them before they are multiplied by the position. In the
# library no module keeps either.

kept = torch.nn.Module()
kept.register_buffer("omega", omega.clone())
kept.bfloat16()
angle = 4096 * omega
moved = (4096 * kept.omega.double() - angle).abs().max()
print(f"angles at position 4096 after a cast of the frequencies: wrong by {moved:.1f}")

assert moved > 1

# %%
# Limits
# ------
# How much of this a network notices depends on what it needs. One that was trained with
# wrong angles has learned to live with them, and to correct them later is to change it.
