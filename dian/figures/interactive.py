"""Figures that a reader can move: numbers in, and the browser draws.

A script of the site draws them. Without it, in a terminal or without JavaScript,
nothing is shown, so the static figures of a page must be complete on their own.
"""

import json
from html import escape
from typing import Any


class Interactive:
    """The data of an interactive figure.

    Parameters
    ----------
    name
        Which figure: a name that ``docs/_static/interactive.js`` knows.
    caption
        What it shows, and what can be moved.
    data
        Finite numbers and strings, in lists and dictionaries.

    Examples
    --------
    >>> Interactive("rotary", "Drag the slider.", omega=[1.0, 0.1])
    <Interactive figure 'rotary'>
    """

    def __init__(self, name: str, caption: str, **data: Any):
        self.name, self.caption = name, caption
        # Without "<", so that no string can end the script element that contains it.
        text = json.dumps(data, allow_nan=False, separators=(",", ":"))
        self.json = text.replace("<", r"\u003c")

    def __repr__(self) -> str:
        return f"<Interactive figure {self.name!r}>"

    def _repr_html_(self) -> str:
        """Return the element that the script fills and shows."""
        return (
            f'<figure class="interactive" data-figure="{escape(self.name)}" hidden>'
            f'<script type="application/json">{self.json}</script>'
            f"<figcaption>{escape(self.caption)}</figcaption></figure>"
        )
