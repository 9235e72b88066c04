# SPDX-License-Identifier: BSD-3-Clause
"""A release is cut by one command, which refuses what would have to be taken back."""

import datetime
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SCRIPT = ".ci/release"
CHANGELOG = "CHANGELOG.md"
CONFIG = "src/fastrnn/native/config.py"

pytestmark = [
    pytest.mark.skipif(shutil.which("git") is None, reason="a release is cut with git"),
    pytest.mark.skipif(
        not (PROJECT / SCRIPT).exists(), reason="a source distribution has no .ci"
    ),
]


def git(tree, *words):
    who = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
    done = subprocess.run(
        ["git", *who, *words], cwd=tree, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def release(tree, *words):
    """The exit code, and what the command says."""
    done = subprocess.run(
        [sys.executable, SCRIPT, *words],
        cwd=tree,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def tree(tmp_path):
    """A repository of what a release changes: this project's own files."""
    for name in (SCRIPT, CHANGELOG, CONFIG):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, tmp_path / name)
    log = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- A word → a line.\n"
    (tmp_path / CHANGELOG).write_text(log, encoding="utf-8")
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    git(tmp_path, "config", "user.name", "Somebody")
    git(tmp_path, "config", "user.email", "somebody@example.org")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "Begin")
    return tmp_path


def version_in(tree):
    return re.search(r'^VERSION = "(.*)"$', (tree / CONFIG).read_text(), re.M)[1]


def test_a_release_sets_the_version_the_heading_and_the_tag(tree):
    status, said = release(tree, "7.1.0")
    assert status == 0
    assert "git push --atomic origin main v7.1.0" in said
    today = datetime.datetime.now(datetime.UTC).date()
    assert (tree / CHANGELOG).read_text(encoding="utf-8") == (
        f"# Changelog\n\n## [Unreleased]\n\n## [7.1.0] - {today}\n\n### Added\n\n"
        "- A word → a line.\n"
    )
    assert version_in(tree) == "7.1.0"
    assert git(tree, "status", "--porcelain") == ""
    assert git(tree, "log", "-1", "--format=%s") == "Release 7.1.0"
    assert git(tree, "rev-parse", "v7.1.0^{commit}") == git(tree, "rev-parse", "HEAD")
    assert git(tree, "cat-file", "-t", "v7.1.0") == "tag"
    assert release(tree, "--check", "v7.1.0")[0] == 0


def test_the_version_of_the_tree_is_the_first_that_can_be_released(tree):
    first = version_in(tree)
    assert release(tree, first)[0] == 0
    log = tree / CHANGELOG
    more = log.read_text(encoding="utf-8").replace("ed]\n", "ed]\n\n- More.\n", 1)
    log.write_text(more, encoding="utf-8")
    git(tree, "commit", "--quiet", "--all", "--message", "More")
    status, said = release(tree, first)
    assert status == 1
    assert f"must be above {first}, got {first}" in said


@pytest.mark.parametrize(
    ("version", "rule"),
    [
        ("7.1", "three numbers with dots between, got 7.1"),
        ("v7.1.0", "three numbers with dots between"),
        ("7.01.0", "three numbers with dots between"),
        ("0.0.1", "must be above"),
    ],
)
def test_versions_that_cannot_be_are_refused(tree, version, rule):
    status, said = release(tree, version)
    assert (status, rule in said) == (1, True)
    assert git(tree, "status", "--porcelain") == git(tree, "tag") == ""


def test_a_tree_with_changes_is_refused(tree):
    (tree / "new").write_text("")
    status, said = release(tree, "7.1.0")
    assert status == 1
    assert "the tree must be clean, got:\n?? new" in said


def test_a_tag_that_exists_is_refused(tree):
    git(tree, "tag", "v7.1.0")
    status, said = release(tree, "7.1.0")
    assert (status, "the tag v7.1.0 exists" in said) == (1, True)
    assert git(tree, "status", "--porcelain") == ""


def test_an_empty_release_is_refused(tree):
    assert release(tree, "7.1.0")[0] == 0
    status, said = release(tree, "7.2.0")
    assert (status, "nothing is unreleased" in said) == (1, True)
    assert version_in(tree) == "7.1.0"


@pytest.mark.parametrize("tag", ["v7.1.1", "7.1.0", "v7.1.0rc1"])
def test_a_tag_of_another_version_is_not_published(tree, tag):
    assert release(tree, "7.1.0")[0] == 0
    status, said = release(tree, "--check", tag)
    assert (status, "must be of one version" in said) == (1, True)


def test_a_version_without_its_heading_is_not_published(tree):
    status, said = release(tree, "--check", f"v{version_in(tree)}")
    assert (status, "must be of one version" in said) == (1, True)
