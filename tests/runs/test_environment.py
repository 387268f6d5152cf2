"""A record names the commit of its code, or there is a line that says why it cannot."""

import logging
import shutil
import subprocess

import pytest

from dian.runs import environment
from dian.runs.environment import git_commit


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with one commit, in the place of this one; and its commit."""
    for name in ("DIAN_COMMIT", "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    package = tmp_path / "project/dian"
    commit = make_repository(package)
    monkeypatch.setattr(environment, "PACKAGE", package)
    environment._log_unknown.cache_clear()
    return package, commit


def make_repository(folder):
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(f"# {folder}")

    def git(*arguments):
        user = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        command = ["git", *user, "-C", folder.parent, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True)

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "one")
    return git("rev-parse", "HEAD").stdout.strip()


def lines(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def test_the_commit_and_whether_files_differ_from_it(repository, caplog):
    package, commit = repository
    assert git_commit() == commit
    (package / "__init__.py").write_text("# changed")
    assert git_commit() == f"{commit}+changes"
    assert not lines(caplog)


def test_a_repository_that_is_named_to_git_is_not_ours(
    repository, tmp_path, monkeypatch
):
    """As where `make` is called in a hook."""
    _, commit = repository
    assert make_repository(tmp_path / "other/dian") != commit
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "other/.git/index"))
    assert git_commit() == commit


def owned_by_another(package, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")


def without_git(package, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")


def outside(package, monkeypatch):
    shutil.rmtree(package.parent / ".git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(package.parents[1]))


def installed_in(package, monkeypatch):
    (package.parent / "site").mkdir()
    monkeypatch.setattr(environment, "PACKAGE", package.parent / "site")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (owned_by_another, "detected dubious ownership in repository at"),
        (without_git, "git: No such file or directory"),
        (outside, "not a git repository"),
        (installed_in, "git does not track "),
    ],
)
def test_why_a_commit_is_unknown_is_said_once(
    repository, monkeypatch, caplog, change, reason
):
    change(repository[0], monkeypatch)
    assert [git_commit(), git_commit()] == ["unknown", "unknown"]
    (line,) = lines(caplog)
    assert "\n" not in line
    assert f"the commit is recorded as unknown ({reason}" in line.replace("fatal: ", "")
    assert line.endswith("DIAN_COMMIT")
    monkeypatch.setenv("DIAN_COMMIT", "abc")
    assert git_commit() == "abc"
