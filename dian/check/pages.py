"""The pages of the site on which a mistake is shown, with the section of each page."""

from collections.abc import Iterable

RNN = "gallery/1_rnn/"
BUGS = f"{RNN}plot_8_how_it_breaks.html#the-bugs"
METRICS = f"{RNN}plot_6_metrics.html"
LOSS = "rnn.html#the-loss-and-its-gradient-with-respect-to-the-logits"
PROPERTIES = "gallery/2_positions/plot_7_how_it_breaks.html"
PRECISION = "gallery/2_positions/plot_5_precision.html#rounding-errors-of-the-angle"
ATTENTION = "gallery/3_attention/plot_8_how_attention_breaks.html"
TRAINED = f"{ATTENTION}#training-losses-with-injected-bugs"
MASKS = "gallery/3_attention/plot_5_masks.html"
SCALE = "attention.html#why-scores-are-divided-by-the-square-root-of-the-dimension"
DIFFUSION = "gallery/4_diffusion/plot_9_how_it_breaks.html"
NOISING = "gallery/4_diffusion/plot_1_noising.html"

OF_SCORES = (("divided by", SCALE), ("not divided", SCALE), ("root of d", SCALE),
             ("minus a billion", f"{MASKS}#a-fully-masked-query"),
             ("-10 instead", f"{MASKS}#a-fully-masked-query"),
             ("mask is inverted", f"{MASKS}#polarity-what-true-means"),
             ("mask", f"{MASKS}#five-masks"))  # fmt: skip
OF_TABLES = (("a sum in place of", f"{DIFFUSION}#a-sum-in-place-of-a-product"),)

SECTIONS: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "rnn": (BUGS, ()),
    "rnn-backward": (BUGS, ()),
    "cross-entropy": (LOSS, (("all positions", BUGS),)),
    "clip": (f"{RNN}plot_4_clipping.html#three-forms-of-clipping", ()),
    "confusion-matrix": (f"{METRICS}#the-confusion-matrix", ()),
    "classification-metrics": (f"{METRICS}#the-confusion-matrix", (
        ("batch", f"{METRICS}#averages-over-batches"),
        ("F1 of the means", f"{METRICS}#two-definitions-of-macro-f1"),
        ("micro", f"{METRICS}#micro-averages-equal-the-accuracy"))),
    "sinusoidal": (f"{PROPERTIES}#the-sinusoidal-encoding", (
        ("float", PRECISION),)),
    "rotary": (f"{PROPERTIES}#eight-properties", (
        ("cosine is used twice", f"{PROPERTIES}#a-plausible-output"),
        ("float", PRECISION), ("single precision", PRECISION),
        ("layout", "positions_rotary.html#two-layouts"),
        ("interleaved", "positions_rotary.html#two-layouts"),
        ("neighbors", "positions_rotary.html#two-layouts"))),
    "alibi": ("positions_length.html#alibi", ()),
    "attention": (TRAINED, OF_SCORES),
    "attention-backward": (TRAINED, OF_SCORES),
    "multi-head": (TRAINED, (
        ("projection", "gallery/3_attention/plot_3_multi_head.html"
                       "#one-projection-for-all-heads"),
        *OF_SCORES)),
    "causal-mask": (f"{MASKS}#five-masks", (
        ("aligned", f"{MASKS}#alignment-of-the-causal-mask"),
        ("next one", f"{ATTENTION}#a-loss-that-is-too-good"),
        ("nothing is masked", f"{ATTENTION}#a-loss-that-is-too-good"))),
    "noise-schedule": (f"{NOISING}#step-by-step-and-directly", (
        *OF_TABLES, ("reach its end", f"{NOISING}#the-remaining-signal"))),
    "q-sample": ("diffusion.html#the-forward-process", OF_TABLES),
    "posterior": ("diffusion.html#the-posterior-of-the-forward-process", OF_TABLES),
    "ddpm-loss": (f"{DIFFUSION}#the-list", OF_TABLES),
    "ddpm-sample": (f"{DIFFUSION}#the-list", OF_TABLES),
    "ddim-sample": ("diffusion_sampling.html#fewer-steps-ddim", (
        ("no timestep embedding", f"{DIFFUSION}#the-list"), *OF_TABLES)),
    "denoiser": (f"{DIFFUSION}#the-list", ()),
}  # fmt: skip
"""For each kind the usual section, and those of mistakes that contain certain words."""

CHAPTERS = {"R": "rnn", "P": "positions", "A": "attention", "D": "diffusion"}


def sections(kind: str, mistakes: Iterable[str], claims: Iterable[str]) -> list[str]:
    """Return the pages that show these mistakes, and the first of the claims.

    Parameters
    ----------
    kind
        Name of the contract.
    mistakes
        What a function was found to do; if empty, the usual section is returned.
    claims
        IDs of the claims that have these mistakes among their mutants.

    Examples
    --------
    >>> page, claim = sections("clip", ["each tensor is clipped separately"], ["R13"])
    >>> page
    'gallery/1_rnn/plot_4_clipping.html#three-forms-of-clipping'
    >>> claim
    'verification/rnn.html#claim-r13'
    """
    usual, special = SECTIONS[kind]
    found = [next((s for w, s in special if w in m), usual) for m in mistakes]
    return list(dict.fromkeys([*(found or [usual]), *map(claim_section, claims)]))


def claim_section(claim: str) -> str:
    """Return the section of the page on verification with a claim and its mutants."""
    return f"verification/{CHAPTERS[claim[0]]}.html#claim-{claim.lower()}"
