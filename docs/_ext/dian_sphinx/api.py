"""The API reference: an index by package, and one page for each module.

Both are made of the modules that exist. They are found and read without importing
them, so a build in which no module has changed does not wait for torch; that is why the
stubs, which are not committed, are written here and not by ``autosummary_generate``.

A page has the docstring of the module, a summary table (:rst:dir:`autosummary`), all
members, and the pages of the gallery that use one of them, as sphinx-gallery found out.
"""

import ast
import json
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from dian.runs import code_hash
from dian.runs.files import sha256

FOLDER = "api"  # in docs/
READING_ORDER = ("rnn", "positions", "attention", "diffusion", "training", "runs")
ATTRIBUTES = {"attribute", "data", "property"}


@dataclass
class Module:
    """What the source of a module says."""

    name: str
    path: Path
    doc: str
    members: dict[str, list[str]] = field(default_factory=dict)
    """Public names with a docstring, in their order: Functions, Classes and Data."""
    claims: list[tuple[str, str]] = field(default_factory=list)
    """ID and title of each claim in it; their checks are no part of the API."""

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.doc.partition("\n")[0]


def modules() -> Iterator[Module]:
    """Read every module of the library, packages included."""
    root = code_hash.PACKAGE
    for name in _names(root, root.name):
        yield read(name, code_hash.module_path(name))


def _names(folder: Path, package: str) -> Iterator[str]:
    for info in pkgutil.iter_modules([str(folder)]):
        if info.name != "__main__":
            yield f"{package}.{info.name}"
        if info.ispkg:
            yield from _names(folder / info.name, f"{package}.{info.name}")


def read(name: str, path: Path) -> Module:
    """Read the docstring of a module and the names that it documents."""
    tree = ast.parse(path.read_text("utf-8"))
    module = Module(name, path, ast.get_docstring(tree) or "")
    for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if claim := _claim(node):
            module.claims.append(claim)
            continue
        kind, member = _documented(node, following)
        if member and not member.startswith("_"):
            module.members.setdefault(kind, []).append(member)
    return module


def _documented(node: ast.stmt, following: ast.stmt | None) -> tuple[str, str | None]:
    """Return kind and name of a statement if it defines something with a docstring."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        kind = "Classes" if isinstance(node, ast.ClassDef) else "Functions"
        return kind, node.name if ast.get_docstring(node) else None
    target = node.targets[0] if isinstance(node, ast.Assign) else None
    target = node.target if isinstance(node, ast.AnnAssign) else target
    text = following.value if isinstance(following, ast.Expr) else None
    is_text = isinstance(text, ast.Constant) and isinstance(text.value, str)
    return "Data", target.id if isinstance(target, ast.Name) and is_text else None


def _claim(node: ast.stmt) -> tuple[str, str] | None:
    """Return ID and title if a statement is the check of a claim."""
    for call in getattr(node, "decorator_list", ()):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "claim":
            return ast.literal_eval(call.args[0]), ast.literal_eval(call.args[1])
    return None


# --- The page of a module -----------------------------------------------------------


def write_stubs(app: Sphinx) -> None:
    """Write the source of each page that has changed, and remove the others."""
    folder, known = Path(app.srcdir, FOLDER), [m for m in modules() if has_page(m)]
    folder.mkdir(exist_ok=True)
    used = _used(app, [module.name for module in known])
    for module in known:
        file, text = folder / f"{module.name}.rst", stub(module, used[module.name])
        if not file.is_file() or file.read_text("utf-8") != text:
            file.write_text(text, "utf-8")
    for file in set(folder.glob("*.rst")) - {folder / f"{m.name}.rst" for m in known}:
        file.unlink()


def has_page(module: Module) -> bool:
    """Return whether there is more to say of a module than the index does."""
    return bool(module.members or module.claims)


def _used(app: Sphinx, names: list[str]) -> dict[str, dict]:
    """Return what pages of the gallery use of each module, as sphinx-gallery found."""
    settings = getattr(app.config, "sphinx_gallery_conf", {})
    file = Path(app.srcdir, settings.get("backreferences_dir") or "", BACKREFERENCES)
    found = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    used: dict[str, dict] = {name: {} for name in names}
    for key, pages in sorted(found.items()):
        owners = [n for n in names if key == n or key.startswith(f"{n}.")]
        if owners:
            used[max(owners, key=len)][key] = pages
    return used


BACKREFERENCES = "backreferences_all.json"


def stub(module: Module, used: dict[str, list]) -> str:
    """Write the page of a module in reStructuredText.

    Parameters
    ----------
    module
        The module.
    used
        What pages of the gallery use of it: to each name, sphinx-gallery's entries.
    """
    title = f"``{module.name}``"
    lines = [title, "=" * len(title), "", f".. automodule:: {module.name}"]
    if not module.members:
        lines += ["   :no-members:"]
    for kind, members in module.members.items():
        lines += ["", f"   .. rubric:: {kind}", "", "   .. autosummary::"]
        lines += ["      :nosignatures:", ""]
        lines += [f"      {member}" for member in members]
    if module.claims:
        lines += ["", ".. rubric:: Claims", ""]
        lines += [
            f"- :ref:`{id_} <claim-{id_.lower()}>`: {title}"
            for id_, title in module.claims
        ]
    if used:
        # The directive notes no dependency: the page changes when its entries do.
        entries = sha256(json.dumps(used, sort_keys=True).encode())
        lines += ["", f".. {entries}", "", "Used on these pages", "-" * 19, ""]
        lines += [".. minigallery::", "", *(f"   {key}" for key in used)]
    return "\n".join([*lines, ""])


def skip_checks(app: Sphinx, what, name, obj, skip, options) -> bool | None:
    """Leave out checks of claims, and fields of named tuples (in the signature)."""
    text = getattr(obj, "__doc__", None) or ""
    is_check = hasattr(obj, "claim") and what == "module"
    return True if is_check or text.startswith("Alias for field number") else None


def keep_colons(app: Sphinx, what, name, obj, options, lines: list[str]) -> None:
    """Keep napoleon from reading "When it started: date and time" as type and text.

    It expects that in the first line of an attribute's docstring; ours have their types
    in the code. So the first line becomes an empty comment.
    """
    if what in ATTRIBUTES and lines:
        lines[:0] = ["..", ""]


def write_factories(app: Sphinx, what, name, obj, options, arguments, returned):
    """Write a field's default that a factory makes as ``...``.

    The text of dataclasses is not Python, so Sphinx could not parse the signature.

    >>> write_factories(None, "class", "", None, None, "(x: list = <factory>)", None)
    ('(x: list = ...)', None)
    """
    return arguments and arguments.replace("<factory>", "..."), returned


# --- The index ------------------------------------------------------------------------


class Modules(SphinxDirective):
    """A section for each package, with the first line of each of its modules."""

    def run(self) -> list[nodes.Node]:
        """Return the sections and the hidden table of contents."""
        every = list(modules())
        for module in every:
            self.env.note_dependency(str(module.path))
        pages = [f"{FOLDER}/{module.name}" for module in every if has_page(module)]
        tree = ["```{toctree}", ":hidden:", "", *pages, "```"]
        found = groups(every)
        sections = [self.section(package, found[package]) for package in found]
        return [*sections, *self.parse_text_to_nodes("\n".join(tree))]

    def section(self, package: str, members: list[Module]) -> nodes.section:
        """Return the section of a package."""
        title = nodes.title("", "", nodes.literal("", package))
        section = nodes.section("", title, names=[package])
        self.state.document.note_implicit_target(section)
        lines = ["````{eval-rst}"]
        for module in members:
            if not has_page(module):  # then its docstring is here
                lines += [f".. py:module:: {module.name}", "", module.doc, ""]
        lines += [".. list-table::", "   :widths: 45 55", "   :class: modules", ""]
        for module in members:
            if has_page(module):
                lines += [f"   * - :py:mod:`{module.name}`", f"     - {module.summary}"]
        section += self.parse_text_to_nodes("\n".join([*lines, "````"]))
        return section


def groups(every: list[Module]) -> dict[str, list[Module]]:
    """Group modules by package: the chapters as they are read, and then the others.

    >>> names = "dian.data", "dian.rnn.a", "dian.x.b"
    >>> list(groups([Module(name, Path(), "") for name in names]))
    ['dian.rnn', 'dian.x', 'dian']
    """
    root = code_hash.PACKAGE.name
    packages = {m.name.rpartition(".")[0] for m in every} - {root}
    top = {f"{root}.{name.split('.')[1]}" for name in packages}
    order = [f"{root}.{name}" for name in READING_ORDER]
    found: dict[str, list[Module]] = {name: [] for name in order if name in top}
    found |= {name: [] for name in sorted(top)}
    found[root] = []
    for module in every:
        first = ".".join(module.name.split(".")[:2])
        found[first if first in top else root].append(module)
    return found


def connect(app: Sphinx) -> None:
    """Write the stubs after sphinx-gallery, which is at priority 500."""
    app.connect("builder-inited", write_stubs, priority=600)
    app.add_directive("modules", Modules)
    app.connect("autodoc-skip-member", skip_checks)
    app.connect("autodoc-process-signature", write_factories)
    # Before napoleon, which is at priority 500.
    app.connect("autodoc-process-docstring", keep_colons, priority=400)
