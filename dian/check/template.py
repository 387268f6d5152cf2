"""Stubs to fill in, and the descriptions of the contracts, made from the contracts."""

from dian.check.contract import ANY, Argument, Contract
from dian.check.registry import KINDS, find

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


def template(kind: str) -> str:
    """Return a function to fill in, with shapes in its docstring.

    The name of a task of the study guide, such as ``task-1``, gives all its functions.

    >>> print(template("clip"))
    def clip(gradients, max_norm):
        \"\"\"Gradient clipping by norm.
    ...
    """
    if kind in TASKS:
        title, kinds = TASKS[kind]
        stubs = [f'"""{title}."""\n', *map(template, kinds.split())]
        return "\n\n".join(stubs)
    contract = find(kind)
    taken = [a for a in contract.arguments if a.default is not ANY]
    names = ", ".join(a.name if a.required else f"{a.name}=None" for a in taken)
    lines = [
        f"def {kind.replace('-', '_')}({names}):",
        f'    """{contract.title}.',
        "",
        *(f"    {_line(a.name, a.shape, a.words)}" for a in taken),
        "",
        "    Returns",
        *(f"    {_line(*output)}" for output in contract.returns),
        '    """',
        "    raise NotImplementedError",
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _line(name: str, shape: str, words: str) -> str:
    return f"{name} ({shape or 'a number'}): {words}"


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
        "`python -m dian check task-1 --template` prints the first.",
        "",
    ]
    for task, (title, _) in TASKS.items():
        lines += [f":::{{dropdown}} {task}: {title}", "```python"]
        lines += [template(task).rstrip(), "```", ":::", ""]
    lines += ["## Contracts", ""]
    return "\n".join([*lines, *(described(find(kind)) for kind in KINDS)])
