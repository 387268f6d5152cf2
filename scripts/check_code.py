r"""Check the claims and run the examples whose code changed since they last passed.

``python scripts/check_code.py`` is the first step of ``make html``. Examples are the
doctests of the library and of the extension, and the blocks of the pages that are
marked ``python``. Those of a file run again when they have changed, or a module, a
record or a version that they use; a better sentence on a page runs nothing. With
``--passed`` all examples are noted as passed: ``make test`` has just run them.
"""

import doctest
import functools
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from dian.claims import cache
from dian.runs.files import sha256
from dian_sphinx.gallery import dependencies

ROOT = Path(__file__).parents[1]
PASSED = ROOT / "build/examples.json"
CLAIMS = ROOT / "build/claims.json"
SHARED = ("conftest.py", "tests/conftest.py", "pyproject.toml", "scripts/check_code.py")
BLOCK = re.compile(r"^ *(`{3,}|:{3,})(?:python|\{doctest\})(.*?)^ *\1", re.M | re.S)


def files() -> Iterator[Path]:
    """Yield the files that have examples."""
    for pattern in ("dian/**/*.py", "docs/_ext/**/*.py", "docs/*.md"):
        yield from (f for f in sorted(ROOT.glob(pattern)) if code_of(f)[1])


def code_of(file: Path) -> tuple[str, str]:
    """Return what the examples of a file are part of, and the code of the examples."""
    text = file.read_text("utf-8")
    if file.suffix == ".py":
        return text, doctests(text)
    blocks = [match[2] for match in BLOCK.finditer(text)]
    return "".join(blocks), "".join(doctests(b) if ">>>" in b else b for b in blocks)


def doctests(text: str) -> str:
    r"""Return the code of the doctests in a text.

    >>> doctests("Text.\n\n>>> x = 1\n>>> x\n1\n")
    'x = 1\nx\n'
    """
    return "".join(one.source for one in doctest.DocTestParser().get_examples(text))


def key(file: Path) -> str:
    """Hash everything that the outcome of a file's examples depends on."""
    text, examples = code_of(file)
    module = text if file.suffix == ".py" else ""
    parts = [dependencies("examples", examples), dependencies("module", module), text]
    return sha256(json.dumps([parts, shared()], sort_keys=True).encode())


@functools.cache
def shared() -> list:
    """Return what the examples of every file depend on."""
    return [
        *((ROOT / name).read_text("utf-8") for name in SHARED),
        *(version(name) for name in ("pytest", "sybil", "jaxtyping", "beartype")),
    ]


def run(commands: list[list[str]]) -> bool:
    """Run modules of Python side by side, and return whether all succeeded."""
    with ExitStack() as stack:
        jobs = []
        for command in commands:
            print(f"python -m {' '.join(command[:3])} ...", flush=True)
            output = stack.enter_context(tempfile.TemporaryFile("w+"))
            call = [sys.executable, "-m", *command]
            both = {"stdout": output, "stderr": subprocess.STDOUT}
            jobs.append((subprocess.Popen(call, cwd=ROOT, **both), output))
        failed = [output for job, output in jobs if job.wait()]
        for output in failed:
            output.seek(0)
            print(output.read(), file=sys.stderr)
    return not failed


def main() -> int:
    """Run what is outdated, and note the examples that have passed."""
    try:
        passed = json.loads(PASSED.read_text("utf-8"))
    except (OSError, ValueError):
        passed = {}
    keys = {str(file.relative_to(ROOT)): key(file) for file in files()}
    outdated = [file for file in keys if keys[file] != passed.get(file)]
    commands = []
    if "--passed" not in sys.argv:
        if cache.read(CLAIMS).keys() != cache.chapter_keys().keys():
            commands.append(["dian", "verify", "--results", str(CLAIMS)])
        if outdated:
            commands.append(["pytest", "-q", *outdated])
    if not run(commands):
        return 1
    PASSED.parent.mkdir(exist_ok=True)
    PASSED.write_text(json.dumps(keys, indent=1), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
