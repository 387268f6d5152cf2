"""The logo and the icon of the site, drawn by code.

A letter D, made of the rows of an image that is read from top to bottom: its rows end
on a half circle, and the row that is read is in another color.
"""

from math import sqrt
from pathlib import Path

from sphinx.application import Sphinx

N_ROW = 5
READ = 3
"""The row that is read, counted from 0; those below it are pale."""
BLUE, ORANGE = "#0072b2", "#d55e00"
BLUE_ON_DARK, ORANGE_ON_DARK = "#56b4e9", "#f0883e"
ICON = "favicon.svg"


def bars(side: float = 64.0) -> list[tuple[float, float, float, float]]:
    """Return the rows of the letter, as x, y, width and height in a square.

    Examples
    --------
    >>> widths = [width for _, _, width, _ in bars()]
    >>> widths == widths[::-1]  # a D is the same upside down
    True
    >>> max(widths) == widths[N_ROW // 2]
    True
    """
    pitch = side / N_ROW
    height = 0.68 * pitch
    left, radius = 0.1 * side, side / 2
    found = []
    for i in range(N_ROW):
        middle = (i + 0.5) * pitch
        reach = sqrt(radius**2 - (middle - radius) ** 2)
        found.append((left, middle - height / 2, 0.3 * side + reach, height))
    return found


def svg(style: str, title: str = "", side: int = 64) -> str:
    """Return the logo as SVG.

    Parameters
    ----------
    style
        Rules of CSS for the classes ``row``, ``read`` and ``next``.
    title
        The text alternative; without one the logo is decoration.
    side
        The width and the height.

    Examples
    --------
    >>> svg("").count("<rect")
    5
    """
    kinds = ["row"] * READ + ["read"] + ["next"] * (N_ROW - READ - 1)
    rows = "".join(
        f'<rect class="{kind}" x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" '
        f'height="{height:.2f}" rx="1.5"/>'
        for kind, (x, y, width, height) in zip(kinds, bars(side), strict=True)
    )
    words = f"<title>{title}</title>" if title else ""
    hidden = "" if title else ' aria-hidden="true"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side} {side}"{hidden}>'
        f"{words}<style>{style}</style>{rows}</svg>"
    )


def icon() -> str:
    """Return the icon, whose colors follow the browser's color scheme."""
    dark = f".row,.next{{fill:{BLUE_ON_DARK}}}.read{{fill:{ORANGE_ON_DARK}}}"
    return svg(
        f".row,.next{{fill:{BLUE}}}.read{{fill:{ORANGE}}}.next{{opacity:.45}}"
        f"@media(prefers-color-scheme:dark){{{dark}}}"
    )


def inline() -> str:
    """Return the logo for the pages, whose colors follow the theme.

    The style sheet of the site has the rules.
    """
    return svg("").replace("<style></style>", "").replace("<svg ", '<svg class="logo" ')


def add_logo(app: Sphinx, pagename, templatename, context, doctree) -> None:
    """Hand the logo to the templates."""
    context["logo_svg"] = inline()
    context["icon_file"] = ICON


def write_icon(app: Sphinx, exception: Exception | None) -> None:
    """Write the icon beside the style sheet."""
    if exception is None and app.builder.format == "html":
        target = Path(app.outdir, "_static", ICON)
        if not target.is_file() or target.read_text("utf-8") != icon():
            target.write_text(icon(), "utf-8")


def connect(app: Sphinx) -> None:
    """Register the logo."""
    app.connect("html-page-context", add_logo)
    app.connect("build-finished", write_icon)
