r"""
A language model with a loss below the entropy sees the future
==============================================================

**Question.** Which value does the loss of a causal language model approach, what does
perplexity mean, and how does a leak of the targets show?

**Answer.** The loss approaches the entropy of the source, the random process that
generates the data, from above; the difference is a Kullback-Leibler divergence. A small
transformer trained for seconds comes within a few hundredths of a nat. Without the
causal mask, or with targets that are not shifted, the loss falls *below* the entropy;
without access to the targets, no model can do so on average.

**Source.** Bengio et al., *A Neural Probabilistic Language Model*, 2003; the entropy of
a source is from Shannon, *A Mathematical Theory of Communication*, 1948. The experiment
is our own. **Cost.** Seconds on a CPU, no download.
"""

# %%
# Training and generation
# -----------------------
# In training, one pass computes the predictions at all positions. In generation, each
# token needs one new row of attention, because keys and values are cached.

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
from dian.figures import attention_diagrams
from dian.figures.tables import markdown_table
from dian.positions.registry import encoding
from dian.training.loop import Training
from dian.training.loss import cross_entropy

fig, axes = plt.subplots(1, 2, figsize=(7, 4), layout="constrained")
attention_diagrams.decoding(*axes)
fig.suptitle("Causal attention in training and in generation")
fig.set_label(
    "Causal attention. Training (left): all rows are computed in one pass, and each "
    "predicts the next token. Generation (right): only the last row is computed; the "
    "keys and values of earlier tokens (blue) are cached, and those of the new token "
    "(orange) are added."
)
plt.show()

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
# and can be computed exactly. We also know the larger cross-entropy of the best model
# that uses only the last token, or none.

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
printed = [(name, f"{x:.4f}", f"{np.exp(x):.3f}") for name, x in known.items()]
header = ("context of the model", "cross-entropy (nats)", "perplexity")
print(markdown_table(header, printed))
print(f"best mean loss over sequences of {length}: {best:.4f} nats")


def draw(n: int) -> torch.Tensor:
    """Draw sequences from the source, after a burn-in."""
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
# We train a correct causal transformer, and two with a common bug: no causal mask, and
# targets that equal the inputs. In the correct one, inputs and targets are the same
# sequence, shifted by one (teacher forcing), so one pass trains all positions.

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

fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
styles = {"causal": "-", "no mask": "--", "targets not shifted": ":"}
for name, found in losses.items():
    ax.plot(np.arange(1, len(found) + 1), found, styles[name], label=name)
for name, side in (("the last token", "bottom"), ("both tokens (entropy rate)", "top")):
    ax.axhline(known[name], color="gray", linewidth=0.8)
    ax.text(200, known[name], name, ha="right", va=side, fontsize=9)
ax.set(xlabel="training step", ylabel="loss, nats per token", ylim=(0, 1.9))
ax.set_title("Training loss of a correct model and of two with a leak")
ax.legend(loc="center right", bbox_to_anchor=(1, 0.3))
fig.set_label(
    "Horizontal lines: cross-entropy of the best models with one and with two tokens "
    "of context. Only the causal model stays above the lower line."
)
plt.show()

printed = [(name, f"{loss:.3f}", f"{best:.3f}") for name, loss in final.items()]
header = ("training", "loss of the last steps (nats)", "best possible (nats)")
print(markdown_table(header, printed))

assert best < final["causal"] < known["the last token"]
assert final["no mask"] < best / 2
assert final["targets not shifted"] < 0.01

# %%
# Both models with a bug copy the target. The one without a mask attends to the next
# position, whose token is the target; with targets that are not shifted, the input of a
# position is its own target. Their losses look excellent, but the models are useless.
#
# Evaluation
# ----------
# On held-out sequences, the true probabilities give the smallest possible expected
# loss. We evaluate them and the model on the same tokens. The difference of the two
# losses estimates the Kullback-Leibler divergence from the source to the model, and its
# standard error is that of the paired differences.

model = cases["causal"][0]
inputs, targets = next_token_pairs(test)
with torch.no_grad():
    nll = token_nll(model(inputs), targets)
    first_two = test[:, :-2], test[:, 1:-1], test[:, 2:]
    true_nll = -transition[first_two].log()
excess = (nll[:, 1:] - true_nll).mean(1)
error = (excess.std() / len(excess) ** 0.5).item()
printed = [
    ("model, all tokens", f"{perplexity(nll):.3f}"),
    ("model, without the first token", f"{perplexity(nll[:, 1:]):.3f}"),
    ("true probabilities", f"{perplexity(true_nll):.3f}"),
]
print(markdown_table(("test sequences", "perplexity"), printed))
print(f"divergence {excess.mean():.4f} nats per token, standard error {error:.4f}")

assert 0 < excess.mean() < 0.06
assert perplexity(true_nll) < perplexity(nll[:, 1:]) < np.exp(known["the last token"])

# %%
# Decoding with a cache
# ---------------------
# In generation there are no true tokens: each token is drawn from the prediction of the
# model, and is its next input. With the KV cache, a new token costs the computation of
# one position. The logits equal those of one pass over the whole sequence,
# :eq:`eq-decoding`.

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
sample_nll = -transition[text[:, :-2], text[:, 1:-1], text[:, 2:]].log().mean(1)
spread = (sample_nll.std() / len(sample_nll) ** 0.5).item()
print(f"NLL of the samples under the source: {sample_nll.mean():.3f} +- {spread:.3f}")

assert 2 * spread < sample_nll.mean() - entropy_rate < 0.1

# %%
# For sequences drawn from the source itself, the expected NLL per token is the entropy
# rate. The NLL of the samples is larger: they are slightly less probable under the
# source than its own sequences are.
#
# Limits
# ------
# The source has a context of two tokens and five symbols. The entropy of natural
# language is not known, so a perplexity can only be compared with that of other models
# *with the same tokens*: the mean is per token, and if tokens are longer, the same text
# has fewer of them.
