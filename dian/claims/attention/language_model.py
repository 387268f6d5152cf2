"""Causal language modeling: factorization, perplexity, blindness and decoding."""

from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from dian.attention import language_model, masks, transformer
from dian.attention.complexity import depends_on
from dian.attention.transformer import TokenTransformer
from dian.claims import Mutant, claim
from dian.claims.compare import holds, largest, normal, relative
from dian.positions.registry import ENCODINGS, encoding

VOCAB, N, D, HEADS, LAYERS = 3, 5, 8, 2, 2
VASWANI = (
    "Vaswani et al., Attention Is All You Need, 2017, arXiv:1706.03762, section 3.2.3"
)


def causal_model(name: str = "sinusoidal", vocab: int = VOCAB) -> TokenTransformer:
    """Return a causal model as in the recorded runs, with no parameter at zero."""
    generator = torch.Generator().manual_seed(0)
    options = encoding(name, D, HEADS, n_position=N + 1, generator=generator)
    model = TokenTransformer(
        vocab, vocab, d_model=D, n_head=HEADS, n_layer=LAYERS, causal=True,
        generator=generator, **options,
    ).double()  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * normal(parameter.numel(), tuple(parameter.shape))[0]
    return model


def log_probability(model: TokenTransformer, sequence: tuple[int, ...]) -> Tensor:
    """Add up one conditional after the other, each from its prefix alone."""
    total = torch.zeros(()).double()
    for t in range(1, len(sequence)):
        logits = model(torch.tensor([sequence[:t]]))[0, -1]
        total = total + (logits[sequence[t]].exp() / logits.exp().sum()).log()
    return total


@claim(
    "A19",
    "Causal language modeling",
    equations=("eq-language-model", "eq-token-nll", "eq-perplexity", "eq-blind"),
    kinds="E I",
    tolerance=1e-10,
    source="Bengio et al., A Neural Probabilistic Language Model, 2003; " + VASWANI,
    subjects=(language_model, transformer),
    mutants=(
        Mutant("the target is the input itself", "next_token_pairs",
               "tokens[:, 1:]", "tokens[:, :-1]"),
        Mutant("the target is the token before", "next_token_pairs",
               "NextToken(tokens[:, :-1], tokens[:, 1:])",
               "NextToken(tokens[:, 1:], tokens[:, :-1])"),
        Mutant("a position attends to the next one", "causal_mask",
               "ones.tril(n_key - n_query)", "ones.tril(n_key - n_query + 1)",
               module=masks),
        Mutant("a position does not attend to itself", "causal_mask",
               "ones.tril(n_key - n_query)", "ones.tril(n_key - n_query - 1)",
               module=masks),
        Mutant("no causal mask", "Encoder._layers",
               "self.causal", "False", module=transformer),
        Mutant("the normalizer is missing", "token_nll",
               "logits.logsumexp(-1) - of_target", "-of_target"),
        Mutant("base 2", "token_nll",
               "logits.logsumexp(-1) - of_target",
               "(logits.logsumexp(-1) - of_target) / 0.6931471805599453"),
        Mutant("the mean over the sequences", "perplexity",
               "nll.mean().exp()", "(nll.sum() / len(nll)).exp()"),
        Mutant("padding counts as certain", "perplexity",
               "nll[mask]", "nll * mask"),
        Mutant("padding counts as tokens", "perplexity", "nll[mask]", "nll"),
        Mutant("the mean of the exponentials", "perplexity",
               "nll.mean().exp()", "nll.exp().mean()"),
        Mutant("the mean of each sequence first", "perplexity",
               "nll = nll[mask]",
               "nll = (nll * mask).sum(1) / mask.sum(1)"),
    ),
)  # fmt: skip
def language_modeling() -> float:
    """Probabilities of all sequences sum to one; one pass equals prefix by prefix."""
    model = causal_model()
    with torch.no_grad():
        rest = list(product(range(VOCAB), repeat=3))
        tokens = torch.tensor([(1, *each) for each in rest])
        inputs, targets = language_model.next_token_pairs(tokens)
        nll = language_model.token_nll(model(inputs), targets)
        by_prefix = torch.stack([log_probability(model, (1, *each)) for each in rest])
        residuals = [
            relative(-nll.sum(1), by_prefix),
            relative(by_prefix.exp().sum(), torch.ones(()).double()),
            relative(nll.mean(), F.cross_entropy(model(inputs).mT, targets)),
            perplexities(nll, by_prefix),
        ]
    residuals += [blind(name) for name in ENCODINGS]
    return largest(residuals)


def perplexities(nll: Tensor, log_p: Tensor) -> float:
    """Compare the perplexity with a product of probabilities, and with padding."""
    n_token = nll[:2].numel()
    of_two = log_p[:2].sum().exp() ** (-1 / n_token)
    # Sequences of three, two and one tokens, one after the other.
    mask = torch.tensor([[True] * 3, [True, True, False], [True, False, False]])
    counted = [*nll[0], *nll[1][:2], nll[2][0]]
    of_counted = torch.stack(counted).neg().exp().prod() ** (-1 / 6)
    uniform = language_model.token_nll(
        torch.full((1, 2, 7), 0.3).double(), torch.tensor([[6, 0]])
    )
    return largest(
        [
            relative(language_model.perplexity(nll[:2]), of_two),
            relative(language_model.perplexity(nll[:3], mask), of_counted),
            relative(language_model.perplexity(uniform), torch.tensor(7.0).double()),
        ]
    )


def blind(name: str) -> float:
    """Return 0 if no position sees a later token, exactly, and each sees all others."""
    model, (X,) = causal_model(name), normal(1, (N, D))
    attend, i = model.encoder.layers[0].attention, torch.arange(N)
    # In the whole model the residual connections reach a position itself in any case.
    functions = (
        lambda X: model.leave(model.encoder(X[None]))[0],
        lambda X: attend(X[None], is_causal=True)[0],
    )
    found = (depends_on(function, X) for function in functions)
    return holds(all(torch.equal(each, i[None] <= i[:, None]) for each in found))


@claim(
    "A19b",
    "Decoding with a cache equals teacher forcing",
    equations=("eq-decoding",),
    kinds="I",
    tolerance=1e-10,
    source="Shazeer, Fast Transformer Decoding, 2019, arXiv:1911.02150",
    subjects=(language_model, transformer),
    mutants=(
        Mutant("added positions start from 0", "Encoder.decode",
               "self.encode(torch.cat([past, X], 1))[:, n_past:]", "self.encode(X)",
               module=transformer),
        Mutant("the bias is that of the first positions", "Encoder.decode",
               "self._bias(n, n_past + n, X)",
               "None if self.bias is None else self._bias(n_past + n, n_past + n, "
               "X)[:, :n]", module=transformer),
        Mutant("all layers share a cache", "Encoder.decode",
               "caches or [None] * len(self.layers)",
               "[caches and caches[0]] * len(self.layers)",
               module=transformer),
        Mutant("the final normalization is missing", "Encoder.decode",
               "(self.norm(X), new)", "(X, new)",
               module=transformer),
        Mutant("a residual connection is missing", "EncoderLayer.decode",
               "X + attended", "attended", module=transformer),
        Mutant("the cache is not used", "EncoderLayer.decode",
               "self.attention.decode(self.norm_1(X), cache, bias=bias)",
               "self.attention.decode(self.norm_1(X), bias=bias)",
               module=transformer, raises="ValueError"),
        Mutant("the drawn token is not read", "sample_tokens",
               "read = token", "read = read"),
        Mutant("the most probable token, not a draw", "sample_tokens",
               "torch.multinomial(p, 1, generator=generator)",
               "p.argmax(-1, keepdim=True)"),
        Mutant("drawn from the first position", "sample_tokens",
               "logits[:, -1]", "logits[:, 0]"),
    ),
)  # fmt: skip
def decoding() -> float:
    """Equals one pass over the whole sequence, for any parts, and so do samples."""
    residuals = []
    for name in ENCODINGS:
        model = causal_model(name, vocab=7)
        tokens = torch.randint(7, (3, N), generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            whole = model(tokens)
            for parts in ([1] * N, [2, 1, 2], [N]):
                caches, found = None, []
                for part in tokens.split(parts, 1):
                    logits, caches = model.decode(part, caches)
                    found.append(logits)
                residuals.append(relative(torch.cat(found, 1), whole))
            residuals.append(samples(model, tokens[:, :2]))
    return largest(residuals)


def samples(model: TokenTransformer, prompt: Tensor) -> float:
    """Return 0 if the samples are those drawn without a cache."""
    drawn = language_model.sample_tokens(
        model, prompt, N - 2, torch.Generator().manual_seed(2)
    )
    found, generator = torch.stack(list(drawn), 1), torch.Generator().manual_seed(2)
    read = prompt
    for _ in range(N - 2):
        p = model(read)[:, -1].softmax(-1)
        token = torch.multinomial(p, 1, generator=generator)
        read = torch.cat([read, token], 1)
    return holds(torch.equal(found, read[:, 2:]))
