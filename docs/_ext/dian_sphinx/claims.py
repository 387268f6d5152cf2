"""Claims on the pages: a badge under each numbered equation, and the list of claims.

The prefix of an equation's label states its kind: ``def-...`` is a definition, which a
claim may verify; any other label must be verified by a claim of ``dian/claims``. The
build fails if one is not, if a claim verifies an equation that is on no page, or if a
claim does not hold.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from dian.claims import KINDS
from dian.claims import cache as kept_results
from dian_sphinx import records
from dian_sphinx.editions import is_source
from dian_sphinx.equations import find_equation
from dian_sphinx.records import row
from dian_sphinx.wording import CLAIMS, own, said, tr, woven

log = logging.getLogger(__name__)
DEFINITION = "def-"
CHAPTERS = {"rnn": "R", "positions": "P", "attention": "A", "diffusion": "D"}
"""The letter with which the IDs of a chapter's claims begin."""


def results_file(app: Sphinx) -> Path:
    """Where the results are kept from one build to the next."""
    return Path(app.confdir) / "build" / "claims.json"


def verify_all(app: Sphinx) -> None:
    """Verify the claims whose code changed; stop the build if one fails."""
    file = results_file(app)
    kept = kept_results.read(file) if is_source(app.config) else verified(file)
    if is_source(app.config) and kept.keys() != kept_results.chapter_keys().keys():
        # In another process: torch must not have run in one that forks later.
        command = [sys.executable, "-m", "dian", "verify", "--results", str(file)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr.strip())
        kept = kept_results.read(file)
    app.env.claims_before = getattr(app.env, "claims", {})
    # On the environment, which directives and the forked readers have.
    app.env.claims = {one["id"]: one for reports in kept.values() for one in reports}
    app.env.claims_file = str(file)


def verified(file: Path) -> dict[str, list[dict]]:
    """Read the results that the English edition, which is built first, has verified."""
    found = json.loads(file.read_text("utf-8"))
    return {chapter: entry["reports"] for chapter, entry in found.items()}


def claims_of(env: BuildEnvironment, label: str) -> list[dict]:
    """Find the claims that verify an equation."""
    return [one for one in env.claims.values() if label in one["equations"]]


def add_badges(app: Sphinx, doctree: nodes.document) -> None:
    """Put a link to its claims under every numbered equation that states something."""
    for equation in list(doctree.findall(nodes.math_block)):
        label = equation.get("label")
        if not label:
            continue
        badge = nodes.paragraph(classes=["claim-badge"])
        for one in claims_of(app.env, label):
            badge += _link(app, f"claim-{one['id']}", _summary(one))
            badge += nodes.Text(" ")
        if badge.children:
            index = equation.parent.index(equation)
            equation.parent.insert(index + 1, own([badge]))


def reread_badges(app: Sphinx, env, added, changed, removed) -> set[str]:
    """Read the pages again on which a badge is another now."""
    badges = [
        {(label, _summary(one)) for one in found.values() for label in one["equations"]}
        for found in (env.claims_before, env.claims)
    ]
    pages = env.domains.math_domain.equations
    return {pages[label][0] for label, _ in badges[0] ^ badges[1] if label in pages}


def _summary(one: dict) -> str:
    """Return the ID of a claim, with a tick only if it passed."""
    if not one["passed"]:
        return tr("✗ {id} does not hold", id=one["id"])
    return f"✓ {one['id']}"


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
        if not label.startswith(DEFINITION) and not claims_of(env, label):
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
                    "claim %s verifies equation %r, which is on no page",
                    one["id"],
                    label,
                )


def write_numbers(app: Sphinx, exception: Exception | None) -> None:
    """Write the label of each equation by its number, for ``dian verify 17``."""
    if exception:
        return
    labels = {}
    for label, (page, _) in app.env.domains.math_domain.equations.items():
        numbers = app.env.toc_fignumbers.get(page, {}).get("displaymath", {})
        if number := numbers.get(nodes.make_id(f"equation-{label}")):
            labels[".".join(map(str, number))] = label
    file = results_file(app).with_name("equations.json")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(labels, indent=1, sort_keys=True), encoding="utf-8")


class claimed_equation(nodes.General, nodes.Element):
    """A placeholder for an equation of any page until all pages are read."""


class Claims(SphinxDirective):
    """The table of all claims, or a section on each claim of a chapter."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table, or the sections of the chapter in the argument."""
        self.env.note_dependency(self.env.claims_file)
        claims = sorted(self.env.claims.values(), key=_place)
        if not self.arguments:
            lines = _overview(self.env, claims)
            return own(self.parse_text_to_nodes("\n".join(lines)))
        letter = CHAPTERS[self.arguments[0]]
        found = (one for one in claims if one["id"].startswith(letter))
        return own(self.section(one) for one in found)

    def section(self, one: dict) -> nodes.section:
        """Return the equations, the check, the result and the mutants of a claim."""
        title = nodes.title("", f"{one['id']} · {say(self.env, one['title'])}")
        section = nodes.section("", title, names=[f"claim-{one['id']}".lower()])
        section += self.parse_text_to_nodes(say(self.env, one["statement"]))
        section += [claimed_equation(label=label) for label in one["equations"]]
        section += self.parse_text_to_nodes("\n".join(_details(self.env, one)))
        self.state.document.note_explicit_target(section)
        # The search looks into the index: a query for R1 leads to this section.
        entry = ("single", one["id"], section["ids"][0], "main", None)
        section.insert(1, addnodes.index(entries=[entry]))
        return section


def show_equations(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Replace each placeholder by the equation, with a link to where it is derived."""
    for node in list(doctree.findall(claimed_equation)):
        id_ = nodes.make_id(f"equation-{node['label']}")
        found = find_equation(app.env, id_)
        if found is None:
            node.parent.remove(node)  # check_labels warns of it
            continue
        page, number, tex = found
        refuri = f"{app.builder.get_relative_uri(docname, page)}#{id_}"
        link = nodes.reference("", f"({number})", internal=True, refuri=refuri)
        if app.builder.format == "latex":  # which names the labels of equations itself
            link = nodes.Text(f"({number})")
        line = nodes.paragraph("", "", *woven("Equation {link}:", link=link))
        formula = nodes.math_block(tex, tex, number=None, docname=docname)
        formula["no-wrap"] = False
        node.replace_self([line, formula])


class definition_count(nodes.General, nodes.Inline, nodes.Element):
    """A placeholder for the number of definitions until all pages are read."""


def definition_count_role(*_):
    """Write how many numbered equations are definitions."""
    return [definition_count()], []


def count_definitions(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Replace the placeholder by the number."""
    for node in list(doctree.findall(definition_count)):
        labels = app.env.domains.math_domain.equations
        number = sum(
            label.startswith(DEFINITION) and not claims_of(app.env, label)
            for label in labels
        )
        node.replace_self(nodes.Text(str(number)))


def write_renumbered(app: Sphinx, env: BuildEnvironment) -> set[str]:
    """Write all pages again when equations have other numbers, or others are there.

    Sphinx writes again only the pages *with* these equations. Any other page may refer
    to them, and one counts them.
    """
    numbers = {
        (page, id_): number
        for page, found in env.toc_fignumbers.items()
        for id_, number in found.get("displaymath", {}).items()
    }
    old, env.equation_numbers = getattr(env, "equation_numbers", numbers), numbers
    return set() if old == numbers else set(env.found_docs)


class Count(SphinxRole):
    """The number of ``claims``, of ``bugs`` (mutants) or of recorded ``runs``."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Return the number as text."""
        counted = counts(self.env)
        if self.text not in counted:
            log.warning(
                "count %s: expected one of %s",
                self.text,
                ", ".join(counted),
                location=self.get_location(),
            )
            return [nodes.problematic(self.rawtext, self.text)], []
        self.env.note_dependency(self.env.claims_file)
        return [nodes.inline(self.rawtext, str(counted[self.text]))], []


def counts(env: BuildEnvironment) -> dict[str, int]:
    """Count the claims that hold, the killed mutants and the recorded runs."""
    claims = env.claims.values()
    return {
        "claims": sum(one["passed"] for one in claims),
        "bugs": sum(m["caught"] for one in claims for m in one["mutants"]),
        "runs": len(records.names()),
    }


def _place(one: dict) -> tuple[int, int, str]:
    """Return the place of a claim: by chapter, and by number in it.

    >>> ids = ["D1", "R13", "R8a", "R8", "R2"]
    >>> [one["id"] for one in sorted(({"id": id_} for id_ in ids), key=_place)]
    ['R2', 'R8', 'R8a', 'R13', 'D1']
    """
    number = re.search(r"\d+", one["id"])
    letters = "".join(CHAPTERS.values())
    return letters.find(one["id"][0]), int(number[0]), one["id"]


def say(env: BuildEnvironment, text: str) -> str:
    """Translate a title or a statement of a claim, or a kind of check."""
    return said(env, CLAIMS, text)


def _overview(env: BuildEnvironment, claims: list[dict]) -> list[str]:
    planted = [m for one in claims for m in one["mutants"]]
    head = (
        tr("Claim"),
        tr("Statement"),
        tr("Kinds"),
        tr("Residual"),
        tr("Tolerance"),
        tr("Equations"),
        tr("Mutants"),
    )
    return [
        tr(
            "{passed} of {claims} claims hold, and {caught} of {planted} mutants are "
            "detected. The build stops otherwise, so this is a rule of the build and "
            "not a result. The number of equations that are definitions is "
            "{definitions}. Claims by kind of check (a claim may be of several kinds):",
            passed=sum(one["passed"] for one in claims),
            claims=len(claims),
            caught=sum(m["caught"] for m in planted),
            planted=len(planted),
            definitions="{definitions}`all`",
        ),
        "",
        *(
            f"- {kind}, {_count(kind, claims)}: {say(env, what)}"
            for kind, what in KINDS.items()
        ),
        "",
        row(head),
        row("---" for _ in head),
        *(
            row(
                [
                    f"{{ref}}`{one['id']} <claim-{one['id'].lower()}>`",
                    say(env, one["title"]),
                    one["kinds"],
                    _number(one["residual"]) if one["passed"] else tr("does not hold"),
                    _number(one["tolerance"]),
                    tr(", ").join(f"{{eq}}`{label}`" for label in one["equations"]),
                    tr("{n} of {total}", **_mutants(one)),
                ]
            )
            for one in claims
        ),
    ]


def _mutants(one: dict) -> dict[str, int]:
    mutants = one["mutants"]
    return {"n": sum(m["caught"] for m in mutants), "total": len(mutants)}


def _count(kind: str, claims: list[dict]) -> int:
    return sum(kind in one["kinds"].split() for one in claims)


def _details(env: BuildEnvironment, one: dict) -> list[str]:
    found = _number(one["residual"]) if one["passed"] else f"✗ {one['error']}"
    kinds = tr("; ").join(say(env, KINDS[kind]) for kind in one["kinds"].split())
    allowed = _number(one["tolerance"])
    assumptions = one["assumptions"]
    return [
        tr("- Source: {source}", source=one["source"]),
        tr(
            "- Assumptions: {assumptions}",
            assumptions=tr("none") if assumptions == "none" else assumptions,
        ),
        tr(
            "- Residual: {residual}, tolerance {allowed}",
            residual=found,
            allowed=allowed,
        ),
        tr("- Check: {kinds}", kinds=kinds),
        "",
        ":::{dropdown} " + tr("The check, in {file}", file=one["file"]),
        "```python",
        one["code"],
        "```",
        ":::",
        "",
        ":::{dropdown} "
        + tr("{total} mutants, of which {n} are killed", **_mutants(one)),
        row((tr("Mutant"), tr("Original code"), tr("Mutated code"), tr("Killed by"))),
        row("---" for _ in range(4)),
        *(
            row([m["what"], code_cell(m["old"]), code_cell(m["new"]), _killer(m["by"])])
            for m in one["mutants"]
        ),
        ":::",
    ]


def code_cell(text: str) -> str:
    """Write code in a cell of a table; nothing in it may end the cell."""
    line = " ".join(text.split()).replace("|", r"\|")
    return f"`{line}`" if line else tr("nothing")


def _killer(by: str) -> str:
    what, _, value = by.partition(" ")
    return tr("residual {value}", value=value) if what == "residual" else _short(by)


def _short(message: str) -> str:
    """Round the numbers in a message, which would be wider than a column of the PDF.

    >>> _short("got -0.26560758379569394 to 2.4283953519166346e-06")
    'got -0.2656 to 2.4284e-06'
    """
    return re.sub(r"\d+\.\d{5,}", lambda number: f"{float(number[0]):.4f}", message)


def connect(app: Sphinx) -> None:
    """Verify first; then mark, compare and list."""
    app.connect("builder-inited", verify_all, priority=50)
    app.connect("env-get-outdated", reread_badges)
    app.connect("doctree-read", add_badges)
    app.connect("env-check-consistency", check_labels)
    # After Sphinx itself has numbered the equations, which is at priority 500.
    app.connect("env-get-updated", write_renumbered, priority=900)
    app.connect("build-finished", write_numbers)
    app.connect("doctree-resolved", show_equations)
    app.connect("doctree-resolved", count_definitions)
    app.add_node(claimed_equation)
    app.add_node(definition_count)
    app.add_role("definitions", definition_count_role)
    app.add_role("count", Count())
    app.add_directive("claims", Claims)
