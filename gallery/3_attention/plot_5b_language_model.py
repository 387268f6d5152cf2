r"""
A language model cannot beat the entropy of its source, unless it sees the future
=================================================================================

**Question.** What does the loss of a causal language model approach, what does
perplexity mean, and how does a leak show?

**Answer.** The loss approaches the entropy of the source from above; the difference is
a Kullback-Leibler divergence. A small transformer trained for seconds on a source of
known entropy comes within a few hundredths of a nat. Without the causal mask, or with
targets that are not shifted, the loss falls *below* the entropy, which is impossible
for an honest model. Decoding with a cache gives the same logits as one pass over the
whole sequence.

**Source.** Bengio et al., *A Neural Probabilistic Language Model*, 2003; the entropy of
a source is Shannon's, *A Mathematical Theory of Communication*, 1948. The experiment is
our own. **Cost.** Seconds on a CPU, no download.
"""

# %%
# A source of known entropy
# -------------------------
# Each token depends on the two before it: a Markov chain of second order with five
# tokens and random transition probabilities. Its entropy rate is the mean entropy of
# the next token under the stationary distribution of pairs,
#
# .. math::
#
#    \mathcal H = -\sum_{i,j} \pi_{ij} \sum_k p(k \mid i, j) \ln p(k \mid i, j),
#
# and can be computed exactly. A model that uses only the last token, or none at all,
# has a larger cross-entropy, which is known as well.

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from dian.attention.language_model import (
    next_token_pairs,
    perplexity,
    sample_tokens,
    token_nll,
)
from dian.attention.transformer import TokenTransformer
from dian.positions.registry import encoding
from dian.training.loop import Training
from dian.training.loss import cross_entropy

vocab, length = 5, 24
generator = torch.Generator().manual_seed(0)
transition = torch.softmax(
    2 * torch.randn(vocab, vocab, vocab, generator=generator, dtype=torch.float64), -1
)

pair = torch.full((vocab, vocab), vocab**-2.0, dtype=torch.float64)
for _ in range(500):  # the stationary distribution of (x_{t-1}, x_t)
    pair = torch.einsum("ij,ijk->jk", pair, transition)


def cross_entropy_of(q: torch.Tensor) -> float:
    """Return the mean of -ln q(k | i, j) under the source."""
    return -torch.einsum("ij,ijk,ijk->", pair, transition, q.log()).item()


two = torch.einsum("ij,ijk->jk", pair, transition)  # of (x_t, x_{t+1})
entropy_rate = cross_entropy_of(transition)
known = {
    "both tokens (entropy rate)": entropy_rate,
    "the last token": cross_entropy_of(
        (two / two.sum(1, keepdim=True)).expand(5, 5, 5)
    ),
    "no token": cross_entropy_of(two.sum(0).expand(5, 5, 5)),
    "uniform": cross_entropy_of(torch.full((5, 5, 5), 1 / vocab).double()),
}
# A sequence has no pair before its first prediction, so the best mean loss is larger.
best = (known["the last token"] + (length - 2) * entropy_rate) / (length - 1)
for name, nats in known.items():
    print(f"{name:28} {nats:.4f} nats, perplexity {np.exp(nats):.3f}")
print(f"best mean loss over sequences of {length}: {best:.4f} nats")


def draw(n: int) -> torch.Tensor:
    """Draw sequences from the source, after a start that is long enough."""
    tokens = torch.randint(vocab, (n, 2), generator=generator)
    for _ in range(length + 20):
        p = transition[tokens[:, -2], tokens[:, -1]]
        following = torch.multinomial(p, 1, generator=generator)
        tokens = torch.cat([tokens, following], 1)
    return tokens[:, -length:]


train, test = draw(6400), draw(500)

# %%
# Training
# --------
# One causal transformer as it should be, and two with a bug that a student might make:
# no causal mask, and targets that are the inputs themselves. Inputs and targets are the
# same sequence, shifted by one (teacher forcing), so one pass trains all positions.

D, H = 32, 2


def model_of(causal: bool) -> TokenTransformer:
    """Build a small transformer; all have the same initial weights."""
    seeded = torch.Generator().manual_seed(0)
    shape = {"d_model": D, "n_head": H, "n_layer": 2}
    rotary = encoding("rotary", D, H)
    return TokenTransformer(
        vocab, vocab, **shape, causal=causal, generator=seeded, **rotary
    )


def trained(model: nn.Module, shift: int) -> list[float]:
    """Train for one epoch, and return the loss of each step."""
    inputs, targets = next_token_pairs(train)
    targets = targets if shift else inputs
    steps = Training(
        model,
        lambda inputs, targets: cross_entropy(model(inputs), targets),
        (inputs, targets),
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-2),
        schedule="one-cycle",
        batch_size=32,
        epochs=1,
        generator=torch.Generator().manual_seed(0),
    )
    return [step.loss for step in steps]


cases = {
    "causal": (model_of(True), 1),
    "no mask": (model_of(False), 1),
    "targets not shifted": (model_of(True), 0),
}
losses = {name: trained(model, shift) for name, (model, shift) in cases.items()}
final = {name: np.mean(found[-20:]) for name, found in losses.items()}

fig, ax = plt.subplots(figsize=(6.8, 3.8), layout="constrained")
styles = {"causal": "-", "no mask": "--", "targets not shifted": ":"}
for name, found in losses.items():
    ax.plot(np.arange(1, len(found) + 1), found, styles[name], label=name)
for name in ("the last token", "both tokens (entropy rate)"):
    ax.axhline(known[name], color="gray", linewidth=0.8)
    ax.text(1, known[name], name, va="bottom", fontsize=8)
ax.set(xlabel="training step", ylabel="loss, nats per token", ylim=(0, 1.9))
ax.legend(fontsize=8, loc="lower left")
plt.show()

for name, loss in final.items():
    print(f"{name:20} loss of the last steps {loss:.3f}; best possible {best:.3f}")

assert best < final["causal"] < known["the last token"]
assert final["no mask"] < best / 2
assert final["targets not shifted"] < 0.01

# %%
# The horizontal lines are the cross-entropies of the best models that use one and two
# tokens of context. Only the causal model stays above the lower one. The other two read
# the answer: without a mask from the next position, and without a shift from the
# position itself. Their losses look excellent, and the models are useless.
#
# Evaluation
# ----------
# On held-out sequences, the true probabilities give the smallest possible expected
# loss. Scored on the same tokens, the difference of the two losses estimates the
# Kullback-Leibler divergence from the source to the model; its standard error is that
# of the paired differences.

model = cases["causal"][0]
inputs, targets = next_token_pairs(test)
with torch.no_grad():
    nll = token_nll(model(inputs), targets)
    first_two = test[:, :-2], test[:, 1:-1], test[:, 2:]
    true_nll = -transition[first_two].log()
excess = (nll[:, 1:] - true_nll).mean(1)
error = (excess.std() / len(excess) ** 0.5).item()
print(f"perplexity on the test sequences {perplexity(nll):.3f}")
print(f"  without the first token        {perplexity(nll[:, 1:]):.3f}")
print(f"  of the true probabilities      {perplexity(true_nll):.3f}")
print(f"divergence {excess.mean():.4f} nats per token, standard error {error:.4f}")

assert 0 < excess.mean() < 0.06
assert perplexity(true_nll) < perplexity(nll[:, 1:]) < np.exp(known["the last token"])

# %%
# Decoding with a cache
# ---------------------
# At generation time there are no true tokens to read: each token is drawn, and read
# next. With the key-value cache one token costs one position. The logits are those of
# one pass over the whole sequence, equation :eq:`eq-decoding`.

with torch.no_grad():
    whole, caches, parts = model(inputs[:8]), None, []
    for token in inputs[:8].split(1, 1):
        logits, caches = model.decode(token, caches)
        parts.append(logits)
apart = (torch.cat(parts, 1) - whole).abs().max()
print(f"one token at a time: {apart:.0e} from one pass")
assert apart < 1e-4

seeded = torch.Generator().manual_seed(0)
drawn = torch.stack(list(sample_tokens(model, test[:400, :2], 22, seeded)), 1)
text = torch.cat([test[:400, :2], drawn], 1)
for sequence in text[:3].tolist():
    print(" ".join(map(str, sequence)))
surprise = -transition[text[:, :-2], text[:, 1:-1], text[:, 2:]].log().mean(1)
spread = (surprise.std() / len(surprise) ** 0.5).item()
print(f"-ln p of the samples under the source: {surprise.mean():.3f} +- {spread:.3f}")

assert abs(surprise.mean() - entropy_rate) < 0.1

# %%
# Sequences of the source itself have the entropy rate as their mean. The samples are
# slightly less probable under the source, since the model is not perfect.
#
# Limits
# ------
# The source has a context of two tokens and five symbols. In natural language the
# entropy is not known, so a perplexity can only be compared with that of other models
# *with the same tokens*: the mean is per token, and a vocabulary with longer tokens has
# fewer of them.
