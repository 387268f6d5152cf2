"""Claims on the pages: a badge under each numbered equation, and the ledger of all.

The label of an equation says what it is: ``def-...`` defines something and states
nothing; any other label must be vouched for by a claim of ``dian/claims``. The build
fails if one is not, if a claim vouches for an equation that is on no page, or if a
claim does not hold.
"""

import re
import subprocess
import sys
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from dian.claims import KINDS, require_expected
from dian.claims import cache as ledger
from dian.errors import DianError

log = logging.getLogger(__name__)
LEDGER = "verification"  # the page with the directive
DEFINITION = "def-"
CHAPTERS = "RPAD"  # how the names of claims begin, in the order of the chapters


def results_file(app: Sphinx) -> Path:
    """Where the results are kept from one build to the next."""
    return Path(app.confdir) / "build" / "claims.json"


def verify_all(app: Sphinx) -> None:
    """Have the claims checked where the code changed; stop if one fails or is gone."""
    file = results_file(app)
    kept = ledger.read(file)
    if kept.keys() != ledger.chapter_keys().keys():
        # Another process: torch must not have run in one that forks later.
        command = [sys.executable, "-m", "dian", "verify", "--results", str(file)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr.strip())
        kept = ledger.read(file)
    # On the environment, where directives and the forked readers find them.
    app.env.claims = {one["id"]: one for reports in kept.values() for one in reports}
    try:
        require_expected({id_: len(x["mutants"]) for id_, x in app.env.claims.items()})
    except DianError as error:
        raise SystemExit(f"dian: {error}") from None
    app.env.claims_file = str(file)


def vouching(env: BuildEnvironment, label: str) -> list[dict]:
    """Find the claims that vouch for an equation."""
    return [one for one in env.claims.values() if label in one["equations"]]


def add_badges(app: Sphinx, doctree: nodes.document) -> None:
    """Put a line of text with a link under every numbered equation of a page."""
    for equation in list(doctree.findall(nodes.math_block)):
        label = equation.get("label")
        if not label:
            continue
        app.env.note_dependency(app.env.claims_file)
        badge = nodes.paragraph(classes=["claim-badge"])
        if label.startswith(DEFINITION):
            badge += nodes.Text("Definition")
        for one in vouching(app.env, label):
            badge += _link(app, f"claim-{one['id']}", _summary(one))
        if badge.children:
            index = equation.parent.index(equation)
            equation.parent.insert(index + 1, badge)


def _summary(one: dict) -> str:
    """Say what a check found; only a claim that passed says that it holds."""
    if not one["passed"]:
        return f"✗ {one['id']} does not hold"
    allowed = f"{_number(one['tolerance'])} allowed"
    return f"✓ {one['id']} holds: residual {_number(one['residual'])}, {allowed}"


def _number(residual: float) -> str:
    return f"{residual:.1e}".replace(".0e", "e") if residual else "0"


def _link(app: Sphinx, target: str, text: str) -> addnodes.pending_xref:
    return addnodes.pending_xref(
        "",
        nodes.inline("", text),
        refdomain="std",
        reftype="ref",
        reftarget=target.lower(),
        refexplicit=True,
        refwarn=True,
        refdoc=app.env.docname,
    )


def check_labels(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of every equation without a claim, and every claim without an equation."""
    equations = env.domains.math_domain.equations
    for label, (docname, _) in equations.items():
        if not label.startswith(DEFINITION) and not vouching(env, label):
            log.warning(
                "equation %r has no claim: write its check in dian/claims, or name it "
                "%s... if it defines something and states nothing",
                label,
                DEFINITION,
                location=docname,
            )
    for one in env.claims.values():
        for label in one["equations"]:
            if label not in equations:
                log.warning(
                    "claim %s vouches for equation %r, which is on no page",
                    one["id"],
                    label,
                )


class Ledger(SphinxDirective):
    """All claims: what holds, how it was checked, and which bugs were caught."""

    def run(self) -> list[nodes.Node]:
        """Return the table, and a section for each claim."""
        self.env.note_dependency(self.env.claims_file)
        claims = sorted(self.env.claims.values(), key=_place)
        return [
            *self.parse_text_to_nodes("\n".join(_overview(claims))),
            *map(self.section, claims),
        ]

    def section(self, one: dict) -> nodes.section:
        """Tell all of one claim."""
        title = nodes.title("", f"{one['id']} · {one['title']}")
        section = nodes.section("", title, names=[f"claim-{one['id']}".lower()])
        section += self.parse_text_to_nodes("\n".join(_details(one)))
        self.state.document.note_explicit_target(section)
        # The search looks into the index: whoever types R1 gets to this section.
        entry = ("single", one["id"], section["ids"][0], "main", None)
        section.insert(1, addnodes.index(entries=[entry]))
        return section


class definition_count(nodes.General, nodes.Inline, nodes.Element):
    """Stands for the number of definitions until all pages are read."""


def definition_count_role(*_):
    """Write how many numbered equations define and state nothing."""
    return [definition_count()], []


def count_definitions(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Replace the placeholder on the ledger by the number."""
    for node in list(doctree.findall(definition_count)):
        labels = app.env.domains.math_domain.equations
        number = sum(label.startswith(DEFINITION) for label in labels)
        node.replace_self(nodes.Text(str(number)))


def rewrite_ledger(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Write the ledger again after every change of a page: it counts them all."""
    return [LEDGER] if LEDGER in env.found_docs else []


def _place(one: dict) -> tuple[int, int, str]:
    """Where a claim stands: by chapter, and by number in it.

    >>> ids = ["D1", "R13", "R8a", "R8", "R2"]
    >>> [one["id"] for one in sorted(({"id": id_} for id_ in ids), key=_place)]
    ['R2', 'R8', 'R8a', 'R13', 'D1']
    """
    number = re.search(r"\d+", one["id"])
    return CHAPTERS.find(one["id"][0]), int(number[0]), one["id"]


def _overview(claims: list[dict]) -> list[str]:
    planted = [m for one in claims for m in one["mutants"]]
    caught = sum(m["caught"] for m in planted)
    head = ("Claim", "Statement", "Kinds", "Residual", "Allowed", "Equations", "Bugs")
    return [
        f"**{sum(one['passed'] for one in claims)} of {len(claims)} claims hold, and "
        f"{caught} of {len(planted)} planted bugs were caught.** "
        "Equations that define and state nothing: {definitions}`all`. "
        "How many are checked in which way (a claim may be in several):",
        "",
        *(f"- {kind}, {_count(kind, claims)}: {what}" for kind, what in KINDS.items()),
        "",
        _row(head),
        _row("---" for _ in head),
        *(
            _row(
                [
                    f"{{ref}}`{one['id']} <claim-{one['id'].lower()}>`",
                    one["title"],
                    one["kinds"],
                    _number(one["residual"]) if one["passed"] else "does not hold",
                    _number(one["tolerance"]),
                    ", ".join(f"{{eq}}`{label}`" for label in one["equations"]),
                    f"{sum(m['caught'] for m in one['mutants'])}"
                    f" of {len(one['mutants'])}",
                ]
            )
            for one in claims
        ),
    ]


def _count(kind: str, claims: list[dict]) -> int:
    return sum(kind in one["kinds"].split() for one in claims)


def _details(one: dict) -> list[str]:
    found = _number(one["residual"]) if one["passed"] else f"✗ {one['error']}"
    return [
        one["statement"],
        "",
        f"- Equations: {', '.join(f'{{eq}}`{label}`' for label in one['equations'])}",
        f"- Source: {one['source']}",
        f"- Assumptions: {one['assumptions']}",
        f"- Residual: {found}, allowed {_number(one['tolerance'])}",
        f"- Kinds: {one['kinds']}",
        "",
        f":::{{dropdown}} The check, in {one['file']}",
        "```python",
        one["code"],
        "```",
        ":::",
        "",
        _row(("Planted bug", "In place of", "stands", "Caught")),
        _row("---" for _ in range(4)),
        *(
            _row([m["what"], _code(m["old"]), _code(m["new"]), m["by"]])
            for m in one["mutants"]
        ),
    ]


def _code(text: str) -> str:
    """Write code in a cell of a table; nothing in it may end the cell."""
    line = " ".join(text.split()).replace("|", r"\|")
    return f"`{line}`" if line else "nothing"


def _row(cells) -> str:
    return f"| {' | '.join(cells)} |"


def setup(app: Sphinx) -> dict:
    """Check first; then mark, compare and list."""
    app.connect("builder-inited", verify_all, priority=50)
    app.connect("doctree-read", add_badges)
    app.connect("env-check-consistency", check_labels)
    app.connect("env-updated", rewrite_ledger)
    app.connect("doctree-resolved", count_definitions)
    app.add_node(definition_count)
    app.add_role("definitions", definition_count_role)
    app.add_directive("claims", Ledger)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
