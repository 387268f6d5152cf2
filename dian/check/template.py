"""Stubs to fill in, and the descriptions of the contracts, made from the contracts."""

import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from dian.check.contract import ANY, Argument, Contract
from dian.check.registry import KINDS, find
from dian.errors import DianError, did_you_mean

SOURCE = "en"
LANGUAGES = (SOURCE, "zh_CN")
"""Those of the templates. Each but English has a table of words beside this file."""

TASKS = {
    "task-1": (
        "A recurrent network",
        "rnn rnn-backward cross-entropy clip confusion-matrix classification-metrics",
    ),
    "task-2": ("Positional encodings", "sinusoidal rotary"),
    "task-3": ("Multi-head attention", "attention causal-mask multi-head"),
    "task-4": (
        "A diffusion model",
        "noise-schedule q-sample posterior ddpm-loss ddpm-sample",
    ),
}
"""The tasks of the study guide: title, and the kinds of the functions to write."""


def template(kind: str, language: str = SOURCE) -> str:
    """Return a function to fill in, with shapes in its docstring.

    The name of a task of the study guide, such as ``task-1``, gives all its functions.

    Parameters
    ----------
    kind
        Name of the contract or of the task.
    language
        That of the docstring: ``en`` or ``zh_CN``.

    Raises
    ------
    DianError
        If there is no such kind or language; the nearest are listed.

    Examples
    --------
    >>> print(template("clip"))
    def clip(gradients, max_norm):
        \"\"\"Gradient clipping by norm.
    ...
    """
    if language == SOURCE:
        return written(kind, str)
    if language not in LANGUAGES:
        near = did_you_mean(language, LANGUAGES)
        raise DianError(f"no language {language!r}; {near}")
    return written(kind, words(language).__getitem__)


@cache
def words(language: str) -> dict[str, str]:
    """Return each text of the templates with its translation."""
    return tomllib.loads(table(language).read_text("utf-8"))


def table(language: str) -> Path:
    """Return the file with the words of a language."""
    return Path(__file__).with_name(f"{language}.toml")


def written(kind: str, tr: Callable[[str], str]) -> str:
    """Return a template; each of its texts goes through a function."""
    if kind in TASKS:
        title, kinds = TASKS[kind]
        heading = tr("{title}.").format(title=tr(title))
        stubs = [f'"""{heading}"""\n', *(written(one, tr) for one in kinds.split())]
        return "\n\n".join(stubs)
    contract = find(kind)
    taken = [a for a in contract.arguments if a.default is not ANY]
    names = ", ".join(a.name if a.required else f"{a.name}=None" for a in taken)
    lines = [
        f"def {kind.replace('-', '_')}({names}):",
        f'    """{tr("{title}.").format(title=tr(contract.title))}',
        "",
        *(f"    {_line(a.name, a.shape, a.words, tr)}" for a in taken),
        "",
        f"    {tr('Returns')}",
        *(f"    {_line(*output, tr)}" for output in contract.returns),
        '    """',
        "    raise NotImplementedError",
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _line(name: str, shape: str, meaning: str, tr: Callable[[str], str]) -> str:
    # Axes and types are code in each language.
    shape = tr(shape or "a number") if not shape or " of " in shape else shape
    form = tr("{name} ({shape}): {words}")
    return form.format(name=name, shape=shape, words=tr(meaning))


def listing() -> str:
    """Return one line for each kind: its name and signature.

    >>> listing().splitlines()[0]
    'rnn                     (X, W_xh, W_hh, b_h, H_0)'
    """
    return "\n".join(f"{kind:24}{signature(find(kind))}" for kind in KINDS)


def signature(contract: Contract) -> str:
    """Return the arguments of a contract; optional ones in brackets."""
    names = (a.name if a.required else f"[{a.name}]" for a in contract.arguments)
    return f"({', '.join(names)})"


def described(contract: Contract) -> str:
    """Return the description of a contract for the site, in Markdown."""
    rows = [_row(a) for a in contract.arguments]
    lines = [
        f"### `{contract.kind}`: {contract.title}",
        "",
        f"`{contract.kind.replace('-', '_')}{signature(contract)}`",
        "",
        "| Argument | Shape or type | Meaning |",
        "|---|---|---|",
        *rows,
        *(
            f"| returns `{name}` | `{shape or 'number'}` | {words} |"
            for name, shape, words in contract.returns
        ),
        "",
    ]
    for one in contract.conventions:
        names = "; ".join(option.name for option in one.options)
        lines.append(f"- Conventions of {one.name}: {names}.")
    if contract.module is not None:
        lines.append("- A class of `torch.nn.Module` is accepted as well.")
    lines += [f"- {note}" for note in contract.notes]
    lines += ["", "Properties:", ""]
    for one in contract.properties:
        kind = " (a warning only)" if one.advice else ""
        lines.append(f"- {one.title} ({{ref}}`{one.claim} <claim-{one.claim.lower()}>`)"
                     f"{kind}")  # fmt: skip
    page = contract.pitfalls.replace("/", "_")
    lines += ["", f"Chapter: {{doc}}`{contract.chapter}`; known mistakes: "
              f"{{ref}}`sphx_glr_{page}.py`.", ""]  # fmt: skip
    return "\n".join(lines)


def _row(argument: Argument) -> str:
    words = argument.words if argument.required else f"{argument.words} (optional)"
    return f"| `{argument.name}` | `{argument.shape}` | {words} |"


def contracts_page() -> str:
    """Return the page of the site that describes all contracts and tasks."""
    lines = [
        "<!-- Written by `python scripts/write_contracts.py`; do not edit. -->",
        "",
        "# Contracts and templates",
        "",
        "Each kind of function that {doc}`dian check <check>` knows, with its",
        "arguments, the conventions that are recognized and the properties that are",
        "checked.",
        "",
        "## Templates for the four tasks",
        "",
        "The functions of each task of the {doc}`study guide <study>`, to fill in.",
        "`python -m dian check task-1 --template` prints the first, and with",
        "`--language zh_CN` in Chinese.",
        "",
    ]
    for task, (title, _) in TASKS.items():
        lines += [f":::{{dropdown}} {task}: {title}", "```python"]
        lines += [template(task).rstrip(), "```", ":::", ""]
    lines += ["## Contracts", ""]
    return "\n".join([*lines, *(described(find(kind)) for kind in KINDS)])
