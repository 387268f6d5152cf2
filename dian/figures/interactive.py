"""Figures that a reader can move: numbers in, and the browser draws.

The drawing is done by a small script of the site. Where there is none, in a terminal or
without JavaScript, nothing is shown: the pictures of the page stand without it.
"""

import json
from html import escape
from typing import Any


class Interactive:
    """Numbers for one of the figures that the site knows how to draw.

    Parameters
    ----------
    name
        Of the figure: ``rotary``, ``attention``, ``noising`` or ``gradient``.
    caption
        What it shows, and what can be moved.
    data
        Numbers and texts in lists and dictionaries.

    Raises
    ------
    ValueError
        If a number is not finite: JSON has no name for it.

    Examples
    --------
    >>> Interactive("rotary", "Turn it.", omega=[1.0, 0.1])
    <the interactive figure 'rotary'>
    """

    def __init__(self, name: str, caption: str, **data: Any):
        self.name, self.caption = name, caption
        # No "<" in it, so no text can end the script element that it stands in.
        text = json.dumps(data, allow_nan=False, separators=(",", ":"))
        self.json = text.replace("<", r"\u003c")

    def __repr__(self) -> str:
        return f"<the interactive figure {self.name!r}>"

    def _repr_html_(self) -> str:
        """Return the element that the script fills and shows."""
        return (
            f'<figure class="interactive" data-figure="{escape(self.name)}" hidden>'
            f'<script type="application/json">{self.json}</script>'
            f"<figcaption>{escape(self.caption)}</figcaption></figure>"
        )
