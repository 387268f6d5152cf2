"""What `make` does wherever it is called, and what it keeps when something fails.

The Makefile and its scripts are the real ones, in a folder with a space and an umlaut.
Python, pip and npm are small shell scripts, which install nothing.
"""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
SYSTEM = "/usr/bin:/bin"
PYTHON = f"""#!/bin/sh
case "$1 $2 $3" in
"-m venv "*)
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python"
    echo "made by venv" >"$3/pyvenv.cfg" ;;
"-m pip --version") ;;
"-m pip "*)
    [ ! -e offline ] || exit 1
    bin=$(dirname "$0")
    rm -f "$bin/tool"
    echo "#!$PWD/$bin/python" >"$bin/tool"
    # As pip does, which writes no file in place.
    cat "$bin/../pip.log" >"$bin/../new.log" 2>/dev/null || :
    echo "$*" >>"$bin/../new.log"
    mv "$bin/../new.log" "$bin/../pip.log" ;;
*) exec "{sys.executable}" "$@" ;;
esac
"""
NPM = """#!/bin/sh
[ ! -e "$npm_offline" ] || exit 1
echo "$*" >npm.log
mkdir -p .node_modules.new/node_modules/katex
cp package-lock.json .node_modules.new/node_modules/.package-lock.json
"""


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def project(tmp_path):
    """A copy of everything that the Makefile reads, without an environment."""
    folder = tmp_path / "Größe a b"
    (folder / "scripts").mkdir(parents=True)
    names = ("Makefile", "pyproject.toml", "constraints.txt", ".npmrc", "conftest.py")
    for name in (*names, "package.json", "package-lock.json"):
        shutil.copy(ROOT / name, folder)
    for script in ROOT.glob("scripts/*"):
        if script.is_file():
            shutil.copy(script, folder / "scripts")
    for name in ("dian", "docs", "tests/browser"):
        (folder / name).mkdir(parents=True)
    (folder / "tests/conftest.py").write_text("")
    executable(tmp_path / "bin/python3", PYTHON)
    return folder


def path(project: Path) -> str:
    """Return a search path on which the Python is the small script."""
    return f"{project.parent / 'bin'}:{SYSTEM}"


def make(project: Path, *arguments: str, **variables: str):
    """Run `make` in the project, with no other variables than these."""
    return subprocess.run(
        ["make", *arguments],
        cwd=project,
        env={"PATH": path(project), "HOME": str(project.parent)} | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


def environment(project: Path) -> str:
    """Have `make` see to the environment, and return what it says."""
    done = make(project, ".venv/.current")
    assert done.returncode == 0, done.stderr
    return done.stderr


def is_current(project: Path) -> bool:
    return make(project, "-q", ".venv/.current").returncode == 0


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


@pytest.fixture
def made(project):
    """The project with its environment, in which there is a file of the user's."""
    environment(project)
    (project / ".venv/mine").write_text("six gigabytes")
    return project


# --- The environment ------------------------------------------------------------------


def test_an_environment_is_made_once(project):
    assert not is_current(project)
    environment(project)
    assert is_current(project)
    assert "--group dev" in (project / ".venv/pip.log").read_text()
    tool = project / ".venv/bin/tool"
    assert tool.read_text() == f"#!{project}/.venv/bin/python\n"
    assert not list(project.glob(".venv.*"))


def test_times_and_comments_and_other_tools_do_not_count(made):
    edit(made / "constraints.txt", "# The exact", "# All exact")
    edit(made / "pyproject.toml", "line-length = 88", "line-length = 99")
    for name in ("pyproject.toml", "constraints.txt", "scripts/environment.sh"):
        os.utime(made / name, (2**32, 2**32))
    assert is_current(made)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("constraints.txt", "numpy==", "numpy==9."),
        ("pyproject.toml", '"numpy>=2.0"', '"numpy>=9.0"'),
        ("pyproject.toml", '"sybil>=10"', '"sybil>=99"'),
    ],
)
def test_other_versions_count_and_what_is_installed_is_the_beginning(
    made, file, old, new
):
    edit(made / file, old, new)
    os.utime(made / file, (0, 0))
    assert not is_current(made)
    assert environment(made) == ""
    assert is_current(made)
    assert (made / ".venv/mine").exists()


def test_without_a_network_the_environment_is_kept(made):
    edit(made / "constraints.txt", "numpy==", "numpy==9.")
    (made / "offline").touch()
    before = (made / ".venv/.current").read_text()
    for _ in range(2):
        done = make(made, ".venv/.current")
        assert done.returncode
        assert "make: .venv is kept as it was" in done.stderr
        assert (made / ".venv/mine").exists()
        assert (made / ".venv/.current").read_text() == before
        assert (made / ".venv/bin/tool").exists()
    (made / "offline").unlink()
    environment(made)
    assert is_current(made)


def test_a_first_environment_that_fails_leaves_none_that_looks_whole(project):
    (project / "offline").touch()
    assert make(project, ".venv/.current").returncode
    assert not (project / ".venv").exists()


def test_after_a_kill_between_the_two_renames_the_old_one_comes_back(made):
    (made / ".venv").rename(made / ".venv.old")
    (made / ".venv.new").mkdir()
    environment(made)
    assert (made / ".venv/mine").exists()


def test_a_folder_that_was_moved_is_noticed(made):
    moved = made.with_name("another")
    made.rename(moved)
    assert not is_current(moved)
    (moved / "offline").touch()
    assert "kept" in make(moved, ".venv/.current").stderr
    assert (moved / ".venv/mine").exists()
    (moved / "offline").unlink()
    assert environment(moved) == (
        f"make: .venv is made anew: it was made in another folder, {made}\n"
    )
    assert "/another/.venv/bin/python" in (moved / ".venv/bin/tool").read_text()
    assert is_current(moved)


@pytest.mark.parametrize("mark", ["new", "old"])
def test_a_python_that_is_gone_is_noticed(made, mark):
    python = made / ".venv/bin/python"
    python.unlink()
    python.symlink_to("/nonexistent/python3")
    if mark == "old":
        (made / ".venv/.current").write_text("")
    assert not is_current(made)
    assert environment(made) == (
        "make: .venv is made anew: its Python is gone, or has no pip\n"
    )
    assert is_current(made)


def test_an_environment_of_an_earlier_version_is_taken_over(made):
    (made / ".venv/.current").write_text("")  # newer than the files
    (made / "offline").touch()
    assert environment(made) == ""
    os.utime(made / "constraints.txt", (2**32, 2**32))
    assert is_current(made)


def test_a_link_to_an_environment_elsewhere_is_not_written_through(made):
    (made / ".venv").rename(made.parent / "disk")
    (made / ".venv").symlink_to(made.parent / "disk")
    before = (made.parent / "disk/pip.log").read_text()
    edit(made / "constraints.txt", "numpy==", "numpy==9.")
    environment(made)
    assert (made.parent / "disk/pip.log").read_text() == before
    assert (made / ".venv/mine").exists()


def test_two_commands_make_the_environment_once(project):
    command, variables = ["sh", "scripts/environment.sh"], {"PATH": path(project)}
    both = [subprocess.Popen(command, cwd=project, env=variables) for _ in range(2)]
    assert [one.wait(60) for one in both] == [0, 0]
    assert (project / ".venv/pip.log").read_text().count("--group dev") == 1


def test_a_python_that_will_not_do_is_one_line(project):
    done = make(project, ".venv/.current", "PYTHON=no-such-python")
    assert done.returncode
    assert done.stderr.startswith(
        "make: there is no no-such-python; install Python 3.11 or later, or: make PYT"
    )


def test_every_locked_package_takes_the_oldest_python_that_the_readme_promises():
    """Debian 12 has 3.11.2."""
    assert "Python 3.11 or later" in (ROOT / "README.md").read_text("utf-8")
    locked = re.findall(r"^(.+)==", (ROOT / "constraints.txt").read_text(), re.M)
    wanted = {
        name: distribution(name).metadata.get("Requires-Python") for name in locked
    }
    refused = [n for n, w in wanted.items() if w and "3.11.0" not in SpecifierSet(w)]
    assert not refused


# --- The packages of Node -------------------------------------------------------------


@pytest.fixture
def node(made):
    """The project with the packages of Node, and the name of a file that fails npm."""
    executable(made / ".venv/bin/npm", NPM.replace("$npm_offline", "offline"))
    target = "node_modules/.package-lock.json"
    assert make(made, target).returncode == 0
    (made / "node_modules/mine").touch()
    return made, target


def test_development_packages_are_installed_whatever_npm_is_set_to(node):
    project, _ = node
    given = (project / "npm.log").read_text().split()
    assert {"ci", "--include=dev", "--global=false", "--dry-run=false"} <= set(given)
    assert (project / "node_modules/katex").is_dir()


def test_without_a_network_the_packages_of_node_are_kept(node):
    project, target = node
    lock = project / "package-lock.json"
    os.utime(lock, (2**32, 2**32))
    assert make(project, "-q", target).returncode == 0
    edit(lock, "sha512-j", "sha512-k")
    os.utime(lock, (0, 0))
    (project / "offline").touch()
    assert make(project, target).returncode
    assert (project / "node_modules/mine").exists()
    assert not (project / ".node_modules.new").exists()
    (project / "offline").unlink()
    assert make(project, target).returncode == 0
    assert not (project / "node_modules/mine").exists()
    assert make(project, "-q", target).returncode == 0


# --- The environment of the caller ----------------------------------------------------


def probe(project: Path, command: str, **variables: str) -> str:
    """Return what a command prints as a recipe of the Makefile."""
    (project / "probe.mk").write_text(f"include Makefile\nprobe:\n\t@{command}\n")
    done = make(project, "-s", "-f", "probe.mk", "probe", **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


LEAKS = {
    **dict.fromkeys(("PYTHONOPTIMIZE", "PYTHONSAFEPATH", "PYTHONHASHSEED"), "1"),
    **dict.fromkeys(("PYTHONDEVMODE", "PYTHONDONTWRITEBYTECODE"), "1"),
    **dict.fromkeys(("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP"), "/mine"),
    "PYTHONWARNINGS": "error",
    "PYTHONIOENCODING": "ascii",
    **dict.fromkeys(("RUFF_CONFIG", "MATPLOTLIBRC", "JUPYTER_PATH"), "/mine"),
    **dict.fromkeys(("PYTEST_ADDOPTS", "NODE_OPTIONS"), "--nonsense"),
    **dict.fromkeys(("PIP_TARGET", "PIP_CONSTRAINT", "PIP_PREFIX"), "/mine"),
    **dict.fromkeys(("PIP_USER", "PIP_DRY_RUN", "PIP_NO_DEPS"), "1"),
    **dict.fromkeys(("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"), "/mine"),
    "NODE_ENV": "production",
    "CDPATH": "/",
    "VIRTUAL_ENV": "/mine",
    "LANGUAGE": "tr",
    "LC_TIME": "xx_YY",
    "FORCE_COLOR": "1",
    "COLUMNS": "20",
    "JAXTYPING_DISABLE": "1",
}


def test_what_the_caller_has_set_for_others_does_not_count(project):
    seen = probe(project, "env", **LEAKS)
    names = {line.partition("=")[0] for line in seen.splitlines()}
    assert not names & LEAKS.keys()


def test_where_packages_come_from_and_what_is_ours_does_count(project):
    kept = {
        "PIP_INDEX_URL": "https://example.org",
        "PIP_CERT": "/c",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": "/wheels",
        "npm_config_registry": "https://example.org",
        "https_proxy": "http://proxy",
        "DIAN_COMMIT": "abc",
        "DIAN_DATA": "/data",
        "CUDA_VISIBLE_DEVICES": "0",
        "GIT_CONFIG_COUNT": "0",
    }
    seen = probe(project, "env", **kept).splitlines()
    assert {f"{name}={value}" for name, value in kept.items()} <= set(seen)


@pytest.mark.parametrize("variable", ["LC_ALL", "LANG", "LC_CTYPE"])
def test_a_locale_that_is_not_installed(project, variable):
    code = 'import locale; print(locale.setlocale(locale.LC_ALL, ""))'
    command = f"{sys.executable} -c '{code}'"
    assert probe(project, command, **{variable: "xx_YY.UTF-8"}) == "C.UTF-8\n"


def test_assertions_count(made):
    code = "import sys; print(__debug__, sys.flags.optimize)"
    seen = probe(made, f"$(PY) -c '{code}'", PYTHONOPTIMIZE="2")
    assert seen == "True 0\n"


def test_the_site_is_not_built_without_assertions():
    done = subprocess.run(
        [sys.executable, "-O", ROOT / "conf.py"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert re.fullmatch(r"conf\.py: .*assert.*PYTHONOPTIMIZE.*\n", done.stderr)


@pytest.mark.parametrize("home", ["", "/nonexistent"])
def test_a_user_without_a_home_and_a_name_gets_both(project, home):
    seen = probe(project, "env", HOME=home).splitlines()
    assert f"HOME={project}/build/home" in seen
    assert "USER=dian" in seen
    assert (project / "build/home").is_dir()
    mine = str(project.parent)
    assert f"HOME={mine}" in probe(project, "env", HOME=mine).splitlines()


def test_settings_of_figures_and_cells_are_those_of_the_project(project):
    seen = dict(line.split("=", 1) for line in probe(project, "env").splitlines())
    for name in (
        "MPLCONFIGDIR",
        "IPYTHONDIR",
        "JUPYTER_CONFIG_DIR",
        "JUPYTER_DATA_DIR",
    ):
        assert seen[name].startswith(f"{project}/build/")


def test_a_folder_for_temporary_files_that_is_not_there(project):
    assert "TMPDIR" not in probe(project, "env", TMPDIR="/nonexistent")
    mine = str(project.parent)
    assert f"TMPDIR={mine}" in probe(project, "env", TMPDIR=mine).splitlines()


def test_the_address_of_the_site_can_be_opened(node):
    project, _ = node
    page = project / "build/html/index.html"
    chinese = project / "build/html/zh_CN/index.html"
    chinese.parent.mkdir(parents=True)
    for file, tag, up in ((page, "en", ""), (chinese, "zh-CN", "../")):
        there = {"en": f"{up}index.html", "zh-CN": f"{up}zh_CN/index.html"}
        file.write_text(
            f'<!doctype html><html lang="{tag}"><title>Dian</title><h1>Dian</h1>'
            + "".join(
                f'<link rel="alternate" hreflang="{key}" href="{href}">'
                f'<a class="edition" href="{href}" hreflang="{key}">{key}</a>'
                for key, href in there.items()
            )
        )
    catalogue = Path("locale/zh_CN/LC_MESSAGES/sphinx.po")
    (project / catalogue.parent).mkdir(parents=True)
    shutil.copy(ROOT / catalogue, project / catalogue)
    (project / "locale/zh_CN/whole.txt").write_text("sphinx\n")
    (project / "build/.checked").touch()
    os.utime(project / "build/.checked", (2**32, 2**32))
    done = make(project, "html", "SPHINX=:")
    assert done.returncode == 0, done.stderr
    assert f"open {page.as_uri()}\n" in done.stdout
    assert " " not in page.as_uri()


@pytest.mark.parametrize("language", ["de", ""])
def test_a_pdf_in_a_language_that_is_none_of_the_editions(project, language):
    (project / "locale/zh_CN").mkdir(parents=True)
    done = make(project, "pdf", f"LANGUAGE={language}")
    assert done.returncode
    said, *stopped = done.stderr.splitlines()
    assert said == f"make pdf: no edition in '{language}'; there are: en zh_CN"
    assert all("Error" in line for line in stopped)
    assert not (project / ".venv").exists()


def test_where_the_site_is_hosted_is_noted_with_all_signs(project):
    def noted(**variables: str) -> str:
        done = make(project, "build/.hosted", **variables)
        assert done.returncode == 0, done.stderr
        return (project / "build/.hosted").read_text("utf-8")

    assert 'it\'s "ours" & $(x)' in noted(DIAN_REPOSITORY='it\'s "ours" & $(x)')
    pdf, chinese = project / "dian.pdf", project / "dian-zh_CN.pdf"
    pdf.write_text("a")
    before = noted(DIAN_PDF="dian.pdf")
    chinese.write_text("b")
    assert noted(DIAN_PDF="dian.pdf") != before


# --- Two commands at once -------------------------------------------------------------


@pytest.mark.parametrize("target", ["html", "pdf", "test", "linkcheck", "clean"])
def test_a_second_build_waits_for_the_first_and_says_so(project, target):
    (project / "build").mkdir()
    (project / "build/mine").touch()
    with (project / "Makefile").open() as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        second = subprocess.Popen(
            ["make", target],
            cwd=project,
            env={"PATH": SYSTEM},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        told = second.stderr.readline()
        assert told == (
            "make: another build is at work in this folder; waiting for its end\n"
        )
        assert second.poll() is None
        assert (project / "build/mine").exists()
        if target != "clean":
            os.killpg(second.pid, signal.SIGTERM)
    second.communicate(timeout=30)
    assert (project / "build").exists() == (target != "clean")


@pytest.mark.parametrize("status", [0, 1, 3])
def test_a_command_that_is_alone_runs_at_once_with_its_own_status(project, status):
    command = ["sh", "scripts/alone.sh", "sh", "-c", f"exit {status}"]
    done = subprocess.run(command, cwd=project, capture_output=True)
    assert (done.returncode, done.stderr) == (status, b"")
