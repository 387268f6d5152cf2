"""Stubs to fill in, and the descriptions of the contracts, made from the contracts."""

from dian.check.contract import ANY, Argument, Contract
from dian.check.registry import KINDS, find


def template(kind: str) -> str:
    """Return a function to fill in, with shapes in its docstring.

    >>> print(template("clip"))
    def clip(gradients, max_norm):
        \"\"\"Gradient clipping by norm.
    ...
    """
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
    """Return the descriptions of all contracts."""
    return "\n".join(described(find(kind)) for kind in KINDS)
