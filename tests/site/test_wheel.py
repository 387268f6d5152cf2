"""What a reader who has installed the package alone can run.

One script of each chapter runs here, against the wheel; the others run in every build
of the site, with the same figures and assertions.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = [
    ROOT / "gallery" / script
    for script in (
        "1_rnn/plot_5_fashion_mnist.py",
        "2_positions/plot_6_extrapolation.py",
        "3_attention/plot_7_rows.py",
        "4_diffusion/plot_5_samples.py",
    )
]
"""Each of them reads records with their weights."""
TOOLS = ["beartype", "hypothesis", "pytest", "sklearn", "sphinx", "sybil"]
"""What comes with the tests and the site, and not with the package."""


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """What `pip install .` puts into site-packages, and none of the tools."""
    folder, source = map(tmp_path_factory.mktemp, ("installed", "source"))
    # A copy, since setuptools leaves what it built beside what it built from.
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "dian", source / "dian", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    # Without isolation: the build tools are those of the lock, and nothing is fetched.
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*build, "--quiet", "--wheel-dir", folder, source],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    # Python imports it by itself at every start.
    hide = f"import sys\n\nsys.modules.update(dict.fromkeys({TOOLS}))\n"
    (folder / "sitecustomize.py").write_text(hide)
    return folder


def run(script, installed, cwd):
    environment = os.environ | {"PYTHONPATH": str(installed), "MPLBACKEND": "agg"}
    return subprocess.run(
        [sys.executable, "-W", "error", script],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script(script, installed, tmp_path):
    """From a folder that has nothing to do with the project, as after a download."""
    done = run(script, installed, tmp_path)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cwd", [ROOT, SCRIPTS[0].parent], ids=["root", "own folder"])
def test_script_from_the_repository(cwd, installed):
    done = run(SCRIPTS[0].relative_to(cwd), installed, cwd)
    assert done.returncode == 0, done.stderr


def test_the_package_is_whole(installed):
    """Everything that is committed under dian/ is installed, and nothing else."""
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "dian"], capture_output=True, text=True
    )
    there = {
        path.relative_to(installed).as_posix()
        for path in (installed / "dian").rglob("*")
        if path.is_file() and path.suffix != ".pyc"  # written when it is imported
    }
    assert there == set(listed.stdout.split())


def test_the_package_is_used_where_it_is_installed(installed, tmp_path):
    code = "import dian, sys; sys.exit(not dian.__file__.startswith(sys.argv[1]))"
    script = tmp_path / "where.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, script, str(installed)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
    )
    assert done.returncode == 0


@pytest.mark.parametrize("tool", TOOLS)
def test_a_script_that_needs_more_than_is_installed_fails(tool, installed, tmp_path):
    script = tmp_path / "needs.py"
    script.write_text(f"import {tool}\n")
    assert f"import of {tool} halted" in run(script, installed, tmp_path).stderr


def test_verify_needs_only_what_is_installed_but_for_two_claims(installed, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "dian", "verify", "metrics"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    reason = "scikit-learn is not installed: pip install scikit-learn"
    told = ", ".join(f"{claim} ({reason})" for claim in ("R15", "R21"))
    assert done.stderr.strip() == f"dian: claims that do not hold: {told}"
    assert "1 claims hold" in done.stdout
