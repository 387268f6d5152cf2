"""The puzzles *Spot the bug*: of two results, one is computed by code with a bug.

The bug is a mutant of a claim, so that the answer can name the check that detects it.
This module imports no torch; ``puzzle_results`` computes the results.
"""

from typing import NamedTuple

from dian_sphinx.wording import mark


class Puzzle(NamedTuple):
    """One puzzle."""

    question: str
    module: str
    """The module that contains the bug in one of the results."""
    claims: str
    """The module of the claim."""
    check: str
    """The function in it whose claim has the mutant."""
    what: str
    """The mutant, by its description."""
    place: str
    """The result with the bug, A or B."""


PUZZLES = {
    "rnn": Puzzle(
        mark(
            "Two curves show the training loss of a recurrent network on 1,000 "
            "images, by step."
        ),
        module="dian.rnn.recurrence",
        claims="dian.claims.rnn.recurrence",
        check="bptt",
        what=mark("H_t for H_{t-1}"),
        place="B",
    ),
    "positions": Puzzle(
        mark(
            "Two pictures show the attention weights of 24 queries and keys with "
            "rotary embedding; dark is large."
        ),
        module="dian.positions.rotary",
        claims="dian.claims.positions.rotary",
        check="forms",
        what=mark("the cosine is used twice"),
        place="A",
    ),
    "attention": Puzzle(
        mark(
            "Two pictures show the attention weights of 24 random queries and keys "
            "with 16 features; dark is large."
        ),
        module="dian.attention.dot_product",
        claims="dian.claims.attention.dot_product",
        check="plain",
        what=mark("divided by the square root of the number of keys"),
        place="B",
    ),
    "diffusion": Puzzle(
        mark(
            "Two pictures show 2,000 samples of a ring of eight Gaussians, drawn "
            "with the optimal denoiser."
        ),
        module="dian.diffusion.sampling",
        claims="dian.claims.diffusion.sampling",
        check="gaussian_oracle",
        what=mark("variance in place of deviation"),
        place="A",
    ),
}
"""The puzzle of each chapter."""
