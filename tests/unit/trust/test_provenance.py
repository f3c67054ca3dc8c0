"""Provenance: what is stated, and what never gets in."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from bentotool.build.result import BuildOptions
from bentotool.trust.ci import LOCAL, Run, run_of
from bentotool.trust.contents import Contents, _arguments
from bentotool.trust.provenance import Circumstances, arguments_of, provenance_json
from bentotool.trust.revision import Revision, _foreign, public_url, revision_of

COMMIT = "c" * 40
BEGAN, ENDED = (datetime(2026, 5, 4, 3, 2, second, 999, timezone.utc) for second in (1, 2))
GITHUB = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "org/repo",
    "GITHUB_WORKFLOW_REF": "org/repo/.github/workflows/build.yml@refs/heads/main",
    "GITHUB_RUN_ID": "42",
    "GITHUB_RUN_ATTEMPT": "2",
    "GITHUB_SHA": COMMIT,
    "GITHUB_REF": "refs/heads/main",
    "GITHUB_EVENT_NAME": "push",
    "GITHUB_TOKEN": "ghs_s3cret",
}
GITLAB = {
    "GITLAB_CI": "true",
    "CI_PROJECT_URL": "https://gitlab.example/group/repo",
    "CI_JOB_URL": "https://gitlab.example/group/repo/-/jobs/7",
    "CI_RUNNER_ID": "12",
    "CI_COMMIT_SHA": COMMIT,
    "CI_COMMIT_REF_NAME": "main",
    "CI_JOB_NAME": "build",
    "CI_JOB_TOKEN": "s3cret",
}


@pytest.fixture(autouse=True)
def _no_set_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)


def predicate(contents: Contents, build: Circumstances) -> dict[str, Any]:
    statement = json.loads(provenance_json(contents, build))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert statement["subject"] == [{"name": contents.name, "digest": {"sha256": contents.digest[7:]}}]
    found: dict[str, Any] = statement["predicate"]
    return found


def test_everything_that_went_in_is_named(contents: Contents) -> None:
    revision = Revision(COMMIT, "https://github.com/org/repo", "services/a", True)
    arguments = {"labels": {"a": "b"}}
    found = predicate(contents, Circumstances(BEGAN, ENDED, "bentofile.yaml", arguments, revision, run_of(GITHUB)))
    definition, details = found["buildDefinition"], found["runDetails"]
    assert definition["externalParameters"] == {
        "config": "bentofile.yaml",
        "arguments": arguments,
        "folder": "services/a",
        "run": {
            "workflow": "org/repo/.github/workflows/build.yml@refs/heads/main",
            "ref": "refs/heads/main",
            "event": "push",
        },
    }
    source, lock, runtime, *others = definition["resolvedDependencies"]
    assert source == {
        "name": "source",
        "uri": f"git+https://github.com/org/repo@{COMMIT}",
        "digest": {"gitCommit": COMMIT},
        "annotations": {"dirty": True},
    }
    assert lock == {"name": "bento.lock", "digest": {"sha256": contents.lock_digest[7:]}}
    assert runtime["digest"] == {"sha256": contents.runtime_digest[7:]}
    named = {other["uri"] for other in others}
    assert named == {part.purl for part in (*contents.packages, *contents.models)}
    assert details["builder"]["id"] == "https://github.com/org/repo/.github/workflows/build.yml@refs/heads/main"
    assert details["metadata"] == {
        "invocationId": "https://github.com/org/repo/actions/runs/42/attempts/2",
        "startedOn": "2026-05-04T03:02:01Z",
        "finishedOn": "2026-05-04T03:02:02Z",
    }


def test_template_arguments_are_stated_unless_they_may_be_secrets(contents: Contents) -> None:
    listed = [
        {"name": "size", "type": "int", "secret": False, "value": 3},
        {"name": "key", "type": "str", "secret": True, "value": "s3cret"},
        {"name": "unsaid", "type": "str", "value": "s3cret"},
        {"name": "open", "secret": False},
        "s3cret",
    ]
    stated = replace(contents, arguments=_arguments(listed))
    found = predicate(stated, Circumstances(BEGAN, ENDED))["buildDefinition"]["externalParameters"]
    assert found == {"args": {"size": 3}}
    assert _arguments(None) == {}


def test_a_set_time_makes_it_repeatable(contents: Contents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    one = provenance_json(contents, Circumstances(BEGAN, BEGAN))
    assert one == provenance_json(contents, Circumstances(ENDED, ENDED))
    assert one.count(b"2023-11-14T22:13:20Z") == 2


def test_without_repository_and_service(contents: Contents) -> None:
    found = predicate(contents, Circumstances(BEGAN, ENDED))
    assert found["runDetails"]["builder"]["id"] == LOCAL
    assert found["buildDefinition"]["resolvedDependencies"][0]["name"] == "bento.lock"
    assert "invocationId" not in found["runDetails"]["metadata"]


def test_options_are_named_one_by_one() -> None:
    options = BuildOptions(
        file="/home/ada/secret/bentofile.yaml", name="n", labels={"a": "b"}, locked=True, fresh=True, show_output=True
    )
    found = arguments_of(options)
    assert found == {"file": "bentofile.yaml", "name": "n", "labels": {"a": "b"}, "locked": True, "no-cache": True}
    assert arguments_of(BuildOptions()) == {}


@pytest.mark.parametrize(
    ("environment", "builder", "invocation"),
    [
        (GITLAB, "https://gitlab.example/group/repo/-/runners/12", "https://gitlab.example/group/repo/-/jobs/7"),
        ({**GITHUB, "GITHUB_ACTIONS": ""}, LOCAL, ""),
        ({**GITHUB, "GITHUB_SERVER_URL": "file:///etc"}, LOCAL, ""),
        ({**GITHUB, "GITHUB_WORKFLOW_REF": "a b\n"}, LOCAL, ""),
        ({**GITLAB, "CI_RUNNER_ID": "x"}, LOCAL, ""),
        ({**GITLAB, "CI_PROJECT_URL": ""}, LOCAL, ""),
        ({}, LOCAL, ""),
    ],
)
def test_services_are_known_by_their_environment(environment: dict[str, str], builder: str, invocation: str) -> None:
    found = run_of(environment)
    assert (found.builder, found.invocation) == (builder, invocation)


def test_a_service_gives_the_commit_where_git_does_not(contents: Contents) -> None:
    found = predicate(contents, Circumstances(BEGAN, ENDED, run=run_of(GITLAB)))
    source = found["buildDefinition"]["resolvedDependencies"][0]
    assert source["uri"] == f"git+https://gitlab.example/group/repo@{COMMIT}"
    assert run_of({**GITLAB, "CI_COMMIT_SHA": "HEAD"}).revision is None
    assert "s3cret" not in provenance_json(contents, Circumstances(BEGAN, ENDED, run=run_of(GITHUB))).decode()
    assert Run().revision is None


@pytest.mark.parametrize(
    ("given", "public"),
    [
        ("https://github.com/org/repo.git", "https://github.com/org/repo.git"),
        ("https://ada:s3cret@github.com/org/repo", "https://github.com/org/repo"),
        ("https://s3cret@h.example:8443/r?token=s3cret#s3cret", "https://h.example:8443/r"),
        ("https://a@b@h.example/r", "https://h.example/r"),
        ("ssh://ada@h.example:22/r", "ssh://h.example:22/r"),
        ("git@github.com:org/repo.git", "ssh://github.com/org/repo.git"),
        ("github.com:org/repo", "ssh://github.com/org/repo"),
        ("/home/ada/repo", ""),
        ("../repo", ""),
        ("file:///home/ada/repo", ""),
        ("C:\\Users\\ada\\repo", ""),
        ("C:/Users/ada/repo", ""),
        ("ext::sh -c s3cret", ""),
        ("https://[bad/r", ""),
        ("https://h.example/a b", ""),
        ("", ""),
    ],
)
def test_addresses_lose_what_is_private(given: str, public: str) -> None:
    assert public_url(given) == public


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.example", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, require_tool: Callable[[str], str]) -> Path:
    require_tool("git")
    folder = tmp_path / "repository"
    (folder / "services" / "a").mkdir(parents=True)
    (folder / "services" / "a" / "service.py").write_text("x = 1\n")
    (folder / ".gitignore").write_text("ignored\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "one")
    return folder


def test_the_revision_of_a_folder(repository: Path) -> None:
    project, commit = repository / "services" / "a", git(repository, "rev-parse", "HEAD")
    assert revision_of(project) == Revision(commit, "", "services/a", False)
    git(repository, "remote", "add", "origin", "https://ada:s3cret@github.com/org/repo")
    assert revision_of(repository) == Revision(commit, "https://github.com/org/repo", "", False)
    (project / "bento.lock").write_text("written by the build, and stated by digest\n")
    (repository / "beside.txt").write_text("not of the project\n")
    assert revision_of(project) == Revision(commit, "https://github.com/org/repo", "services/a", False)
    (project / "new.py").write_text("")
    found = revision_of(project)
    assert found is not None
    assert found.dirty is True


def test_no_revision_where_the_repository_does_not_have_the_folder(repository: Path, tmp_path: Path) -> None:
    (repository / "ignored").mkdir()
    assert revision_of(repository / "ignored") is None
    assert revision_of(tmp_path) is None
    (tmp_path / "unborn").mkdir()
    git(tmp_path / "unborn", "init", "--quiet")
    assert revision_of(tmp_path / "unborn") is None


def test_a_repository_runs_nothing_of_its_own(repository: Path, tmp_path: Path, require_tool: Any) -> None:
    require_tool("sh")
    sprung = tmp_path / "sprung"
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {sprung.as_posix()}\n")
    hook.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(hook))
    git(repository, "config", "core.hooksPath", str(tmp_path))
    (repository / "services" / "a" / "service.py").write_text("x = 2\n")
    found = revision_of(repository)
    assert found is not None
    assert found.dirty is True
    assert not sprung.exists()


def test_filters_of_the_repository_are_not_run(repository: Path, tmp_path: Path, require_tool: Any) -> None:
    require_tool("sh")
    sprung, project = tmp_path / "sprung", repository / "services" / "a"
    (repository / ".gitattributes").write_text("*.py filter=lfs\n")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message", "two")
    (project / "service.py").write_text("x = 2\n")
    before = revision_of(project)
    git(repository, "config", "filter.lfs.clean", f"touch {sprung.as_posix()}; cat")
    after = revision_of(project)
    assert before is not None
    assert after is not None
    assert (before.dirty, after.dirty) == (True, None)
    assert before.commit == after.commit
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("line", "foreign"),
    [
        ("global\tfilter.x.clean anything", False),
        ("local\tfilter.lfs.process git-lfs filter-process", False),
        ("local\tfilter.lfs.process git-lfs filter-process; x", True),
        ("worktree\tfilter.x.clean cat", True),
        ("filter.x.clean cat", True),
    ],
)
def test_filters_are_judged_by_where_they_are_set(line: str, foreign: bool) -> None:
    assert _foreign(line) is foreign


def test_without_git_there_is_no_revision(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert revision_of(repository) is None
