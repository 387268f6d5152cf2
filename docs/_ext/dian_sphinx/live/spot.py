"""The HTML of a puzzle *Spot the bug*, which needs no script."""

import re
from html import escape

from dian_sphinx.wording import joined, mark, tr

CAPTION = mark(
    "Both results are computed while this site is built; one of them is computed by "
    "code with one wrong expression."
)
TEXT = {
    "spot": mark("Spot the bug."),
    "which": mark("Which one is computed by the code with the bug?"),
    "result": mark("Result {place}"),
    "curve": mark("Result {place}: a decreasing curve"),
    "answer": mark("The bug is in {place}"),
    "right": mark("Correct."),
    "wrong": mark("No."),
    "reply": mark(
        "The bug is in {place}: {what}. The check {link} detects it: without the bug, "
        "the two sides of the equation differ by {without}; with the bug, they differ "
        "by {bug}. The tolerance is {tolerance}."
    ),
    "claim": mark("{claim}, {title}"),
}
SUBSCRIPT = re.compile(r"(?<=\w)_(?:\{([^{}]+)\}|(\w))")
LEDGER = {"R": "rnn", "P": "positions", "A": "attention", "D": "diffusion"}
"""The page of the ledger, by the first letter of a claim."""


def spot(puzzle: dict) -> str:
    """Write two results and, behind each, whether it is that of the bug."""
    shown = "".join(result(place, puzzle["shown"][place]) for place in "AB")
    replies = "".join(reply(place, puzzle) for place in "AB")
    name = f"<strong>{say('spot')}</strong>"
    question = puzzle["question"]
    asked = joined(name, escape(tr(question)), say("which"))
    return (
        '<figure class="live spot" data-live="spot">'
        f'<p>{asked}</p><div class="live-pair">{shown}</div>'
        f"{replies}<figcaption>{escape(tr(CAPTION))}</figcaption></figure>"
    )


def say(key: str, **values: str) -> str:
    """Return one of the texts in the language of the edition."""
    text = TEXT[key]
    return tr(text, **values)


def result(place: str, shown: dict) -> str:
    """Write one result, which is a picture or the points of a curve."""
    if "image" in shown:
        name = say("result", place=place)
        drawn = f'<img src="{shown["image"]}" alt="{name}" width="176">'
    else:
        name = say("curve", place=place)
        drawn = (
            f'<svg viewBox="-2 -2 204 104" role="img" aria-label="{name}">'
            f'<path d="M0 0V100H200"/><polyline points="{shown["points"]}"/></svg>'
        )
    return f"<div><p>{place}</p>{drawn}</div>"


def reply(place: str, puzzle: dict) -> str:
    """Write one answer and the reply to it, which names the check."""
    claim, what = puzzle["claim"], puzzle["what"]
    address = f"verification/{LEDGER[claim[0]]}.html#claim-{claim.lower()}"
    title = say("claim", claim=claim, title=escape(puzzle["title"]))
    text = say(
        "reply",
        place=puzzle["place"],
        what=SUBSCRIPT.sub(subscript, escape(tr(what))),
        link=f'<a href="{address}">{title}</a>',
        without=number(puzzle["right"]),
        bug=number(puzzle["wrong"]),
        tolerance=number(puzzle["tolerance"]),
    )
    word = say("right" if place == puzzle["place"] else "wrong")
    answer = say("answer", place=place)
    return f"<details><summary>{answer}</summary><p>{joined(word, text)}</p></details>"


def subscript(match: re.Match) -> str:
    """Write what follows the underscore of a name in HTML.

    >>> SUBSCRIPT.sub(subscript, "H_t for H_{t-1}")
    'H<sub>t</sub> for H<sub>t&minus;1</sub>'
    """
    return f"<sub>{(match[1] or match[2]).replace('-', '&minus;')}</sub>"


def number(text: str) -> str:
    """Write a number of one digit in HTML.

    >>> number("6e-16"), number("1e-10"), number("9e-01"), number("2e+00")
    ('6 &times; 10<sup>&minus;16</sup>', '10<sup>&minus;10</sup>', '0.9', '2')
    """
    digit, _, power = text.partition("e")
    if int(power) >= -2:
        return f"{float(text):g}"
    before = "" if digit == "1" else f"{digit} &times; "
    return f"{before}10<sup>&minus;{-int(power)}</sup>"
