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
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from dian.runs import code_hash
from dian.runs.files import sha256
from dian_sphinx.editions import has_reference, is_source
from dian_sphinx.wording import own

FOLDER = "api"  # in docs/
READING_ORDER = ("rnn", "positions", "attention", "diffusion", "training", "runs")
BACKREFERENCES = "backreferences_all.json"
TABLE = (".. list-table::", "   :widths: 55 45", "   :class: modules")
ATTRIBUTES = {"attribute", "data", "property"}
OBJECT = re.compile("<[^<>]*>")


@dataclass
class Module:
    """What the source of a module says."""

    name: str
    path: Path
    doc: str
    members: dict[str, dict[str, str]] = field(default_factory=dict)
    """Of Functions, Classes and Data: each public name, and its docstring."""
    claims: list[tuple[str, str]] = field(default_factory=list)
    """ID and title of each claim in it; their checks are no part of the API."""

    @property
    def short(self) -> str:
        """The name within its package of the first level."""
        return ".".join(self.name.split(".")[2:]) or self.name

    @property
    def row(self) -> list[str]:
        """A row of a table: a link, and the first line of the docstring."""
        return [f"   * - :py:mod:`{self.name}`", f"     - {first_line(self.doc)}"]


def first_line(text: str) -> str:
    """Return the first line of a docstring, or the first paragraph if it is longer."""
    return " ".join(text.strip().partition("\n\n")[0].split())


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
        kind, member, doc = _documented(node, following)
        if doc and not member.startswith("_"):
            module.members.setdefault(kind, {})[member] = doc
    return module


def _documented(
    node: ast.stmt, following: ast.stmt | None
) -> tuple[str, str, str | None]:
    """Return kind, name and docstring of what a statement defines, if it does."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        kind = "Classes" if isinstance(node, ast.ClassDef) else "Functions"
        return kind, node.name, ast.get_docstring(node)
    target = node.targets[0] if isinstance(node, ast.Assign) else None
    target = node.target if isinstance(node, ast.AnnAssign) else target
    text = following.value if isinstance(following, ast.Expr) else None
    if isinstance(target, ast.Name) and isinstance(text, ast.Constant):
        return "Data", target.id, text.value if isinstance(text.value, str) else None
    return "Data", "", None


def _claim(node: ast.stmt) -> tuple[str, str] | None:
    """Return ID and title if a statement is the check of a claim."""
    for call in getattr(node, "decorator_list", ()):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "claim":
            return ast.literal_eval(call.args[0]), ast.literal_eval(call.args[1])
    return None


# --- The pages ------------------------------------------------------------------------


def write_stubs(app: Sphinx) -> None:
    """Write the source of each page that has changed, and remove the others."""
    if not is_source(app.config):
        return
    folder, every = Path(app.srcdir, FOLDER), list(modules())
    folder.mkdir(exist_ok=True)
    inside = groups(every)
    known = [module for module in every if has_page(module, inside)]
    used = _used(app, known)
    for module in known:
        text = stub(module, used[module.name], inside.get(module.name, []))
        file = folder / f"{module.name}.rst"
        if not file.is_file() or file.read_text("utf-8") != text:
            file.write_text(text, "utf-8")
    for file in set(folder.glob("*.rst")) - {folder / f"{m.name}.rst" for m in known}:
        file.unlink()


def has_page(module: Module, inside: dict[str, list[Module]]) -> bool:
    """Return whether a module has members, claims or modules of its own to show."""
    return bool(module.members or module.claims or module.name in inside)


def _used(app: Sphinx, known: list[Module]) -> dict[str, dict]:
    """Return what pages of the gallery use of each module, as sphinx-gallery found.

    It also guesses shorter names for what a script imports; these are no members.
    """
    settings = getattr(app.config, "sphinx_gallery_conf", {})
    file = Path(app.srcdir, settings.get("backreferences_dir") or "", BACKREFERENCES)
    found = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    used: dict[str, dict] = {module.name: {} for module in known}
    for module in known:
        names = {m for members in module.members.values() for m in members}
        for key, pages in sorted(found.items()):
            member = key.removeprefix(f"{module.name}.").partition(".")[0]
            is_member = key.startswith(f"{module.name}.") and member in names
            if is_member or key == module.name:
                used[module.name][key] = pages
    return used


def stub(module: Module, used: dict[str, list], inside: list[Module]) -> str:
    """Write the page of a module in reStructuredText.

    Parameters
    ----------
    module
        The module.
    used
        What pages of the gallery use of it: to each name, sphinx-gallery's entries.
    inside
        If it is a package, the modules in it.
    """
    title = f"``{module.name}``"
    lines = [title, "=" * len(title), "", f".. automodule:: {module.name}"]
    if not module.members:
        lines += ["   :no-members:"]
    for kind in ("Functions", "Classes", "Data"):
        lines += [f"   {line}" for line in _summary(kind, module.members.get(kind, {}))]
    if module.claims:
        lines += ["", ".. rubric:: Claims", ""]
        claims = module.claims
        lines += [f"- :ref:`{id_} <claim-{id_.lower()}>`: {t}" for id_, t in claims]
    lines += ["", *_contents(inside)] if inside else []
    lines += _users(used) if used else []
    return "\n".join([*lines, ""])


def _users(used: dict[str, list]) -> list[str]:
    """Write the pages that use a module: as cards, and in the PDF as a list.

    The directive notes no dependency: a comment changes when one of its entries does.
    """
    entries = sha256(json.dumps(used, sort_keys=True).encode())
    lines = ["", f".. {entries}", "", "Used on these pages", "-" * 19, ""]
    lines += [".. minigallery::", "", *_indented(used), "", ".. only:: not html", ""]
    pages = {
        f"/gallery/{Path(folder).name}/{Path(script).stem}"
        for found in used.values()
        for script, _, folder, *_ in found
    }
    return lines + [f"   - :doc:`{page}`" for page in sorted(pages)]


def _summary(kind: str, members: dict[str, str]) -> list[str]:
    """Write the table of members of one kind."""
    if not members:
        return []
    lines = ["", f".. rubric:: {kind}", ""]
    if kind == "Data":  # autosummary would show the docstring of their type
        lines += [*TABLE, ""]
        for name, doc in members.items():
            lines += [f"   * - :py:data:`{name}`", f"     - {first_line(doc)}"]
        return lines
    return [*lines, ".. autosummary::", "   :nosignatures:", "", *_indented(members)]


def _contents(inside: list[Module]) -> list[str]:
    """Write the table of the modules of a package, and its table of contents."""
    found = {module.name: module for module in inside}
    pages = [module for module in inside if module.members or module.claims]
    lines = []
    for name in sorted(found.keys() - {module.name for module in pages}):
        lines += [f".. py:module:: {name}", "", found[name].doc, ""]
    lines += [*TABLE, "", *(line for module in pages for line in module.row)]
    lines += ["", ".. toctree::", "   :hidden:", ""]
    return [*lines, *_indented(f"{m.short} </{FOLDER}/{m.name}>" for m in pages)]


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"   {line}" for line in lines]


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


def write_objects(app: Sphinx, what, name, obj, options, arguments, returned):
    """Write a default that is an object, such as ``<factory>``, as ``...``.

    Its text is not Python, so Sphinx could not parse the signature.

    >>> text = "(x: list = <factory>, f: Callable = <function A.<lambda>>)"
    >>> write_objects(None, "class", "", None, None, text, None)
    ('(x: list = ..., f: Callable = ...)', None)
    """
    inner = None
    while arguments and arguments != inner:
        inner, arguments = arguments, OBJECT.sub("...", arguments)
    return arguments, returned


def import_library(app: Sphinx, env, docnames: list[str]) -> None:
    """Import the modules before Sphinx forks, if several processes will read them.

    Each of them would import torch for itself. It must not *run* before the fork, and
    it does not.
    """
    names = [name.partition("/")[2] for name in docnames if name.startswith(FOLDER)]
    if len(names) > 5:  # with fewer pages, Sphinx reads in one process
        for name in filter(None, names):
            import_module(name)


# --- The index ------------------------------------------------------------------------


class Modules(SphinxDirective):
    """A section for each package, with the first line of each of its modules."""

    def run(self) -> list[nodes.Node]:
        """Return the sections and the hidden table of contents."""
        every = list(modules())
        for module in every:
            self.env.note_dependency(str(module.path))
        inside = groups(every)
        root = code_hash.PACKAGE.name
        alone = inside.pop(root)
        tree = [f"{package} </{FOLDER}/{package}>" for package in inside]
        tree += [f"{m.name} </{FOLDER}/{m.name}>" for m in alone]
        packages = {module.name: module for module in every}
        sections = [self.section(packages[p], inside[p]) for p in inside]
        sections.append(self.section(Module(root, Path(), ""), alone))
        if not has_reference(self.config):
            return own(sections)
        toctree = ["```{toctree}", ":hidden:", "", *tree, "```"]
        return [*own(sections), *self.parse_text_to_nodes("\n".join(toctree))]

    def section(self, package: Module, inside: list[Module]) -> nodes.section:
        """Return the section of a package."""
        title = nodes.title("", "", nodes.literal("", package.name))
        section = nodes.section("", title, names=[package.name])
        self.state.document.note_implicit_target(section)
        lines = [*TABLE, "", *package.row] if package.doc else [*TABLE, ""]
        shown = (module for module in inside if module.members or module.claims)
        lines += [line for module in shown for line in module.row]
        text = "\n".join(["````{eval-rst}", *lines, "````"])
        section += self.parse_text_to_nodes(text)
        return section


def groups(every: list[Module]) -> dict[str, list[Module]]:
    """Return the modules in each package: the chapters as they are read come first.

    >>> names = "dian.data", "dian.x", "dian.x.b", "dian.rnn", "dian.rnn.a"
    >>> found = groups([Module(name, Path(), "") for name in names])
    >>> {package: [m.name for m in inside] for package, inside in found.items()}
    {'dian.rnn': ['dian.rnn.a'], 'dian.x': ['dian.x.b'], 'dian': ['dian.data']}
    """
    root = code_hash.PACKAGE.name
    top = {".".join(m.name.split(".")[:2]) for m in every if m.name.count(".") > 1}
    first = [f"{root}.{name}" for name in READING_ORDER]
    found: dict[str, list[Module]] = {name: [] for name in first if name in top}
    found |= {name: [] for name in sorted(top)} | {root: []}
    for module in every:
        package = ".".join(module.name.split(".")[:2])
        if module.name not in top:
            found[package if package in top else root].append(module)
    return found


def connect(app: Sphinx) -> None:
    """Write the stubs after sphinx-gallery, which is at priority 500."""
    app.connect("builder-inited", write_stubs, priority=600)
    app.connect("env-before-read-docs", import_library)
    app.add_directive("modules", Modules)
    app.connect("autodoc-skip-member", skip_checks)
    app.connect("autodoc-process-signature", write_objects)
    # Before napoleon, which is at priority 500.
    app.connect("autodoc-process-docstring", keep_colons, priority=400)
