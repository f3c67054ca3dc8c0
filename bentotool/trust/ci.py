"""What runs a build, as continuous integration says in its environment.

Sources: GitHub's *Default environment variables* and its attestations of builds, GitLab's *Predefined CI/CD variables*
and its runner's provenance, read in November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bentotool.trust.revision import Revision, public_url

__all__ = ["LOCAL", "Run", "run_of"]

LOCAL = "https://github.com/bentotool/bentotool/blob/main/docs/sbom.md#local-build"
"""Builder of what was not built by a known service."""
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}", re.ASCII)
_WORD = re.compile(r"[\w./@+-]{1,300}", re.ASCII)


@dataclass(frozen=True)
class Run:
    """A run of a builder.

    Args:
        builder: URI that says who is to be believed.
        invocation: URI of this run; empty where nobody can look it up.
        revision: the commit that the service checked out, for where git does not answer.
        parameters: what started it: the workflow and the ref.
    """

    builder: str = LOCAL
    invocation: str = ""
    revision: Revision | None = None
    parameters: Mapping[str, str] | None = None


def run_of(environment: Mapping[str, str]) -> Run:
    """The run that an environment speaks of; what is not of the expected form is left out."""
    if environment.get("GITHUB_ACTIONS") == "true":
        return _github(environment)
    if environment.get("GITLAB_CI") == "true":
        return _gitlab(environment)
    return Run()


def _github(environment: Mapping[str, str]) -> Run:
    def word(name: str) -> str:
        value = environment.get(f"GITHUB_{name}", "")
        return value if _WORD.fullmatch(value) else ""

    server = public_url(environment.get("GITHUB_SERVER_URL", "")).rstrip("/")
    repository, workflow, number = word("REPOSITORY"), word("WORKFLOW_REF"), word("RUN_ID")
    if not (server and repository and workflow):
        return Run()
    attempt = f"/attempts/{word('RUN_ATTEMPT')}" if word("RUN_ATTEMPT") else ""
    url = f"{server}/{repository}"
    return Run(
        f"{server}/{workflow}",
        f"{url}/actions/runs/{number}{attempt}" if number else "",
        _revision(word("SHA"), url),
        _named({"workflow": workflow, "ref": word("REF"), "event": word("EVENT_NAME")}),
    )


def _gitlab(environment: Mapping[str, str]) -> Run:
    url, job = public_url(environment.get("CI_PROJECT_URL", "")), public_url(environment.get("CI_JOB_URL", ""))
    runner = environment.get("CI_RUNNER_ID", "")
    if not (url and runner.isascii() and runner.isdigit()):
        return Run()
    words = {key: environment.get(name, "") for key, name in (("ref", "CI_COMMIT_REF_NAME"), ("job", "CI_JOB_NAME"))}
    words["event"] = environment.get("CI_PIPELINE_SOURCE", "")
    return Run(
        f"{url}/-/runners/{runner}",
        job,
        _revision(environment.get("CI_COMMIT_SHA", ""), url),
        _named({key: value for key, value in words.items() if _WORD.fullmatch(value)}),
    )


def _revision(commit: str, url: str) -> Revision | None:
    return Revision(commit, url) if _COMMIT.fullmatch(commit) else None


def _named(words: Mapping[str, str]) -> dict[str, str] | None:
    return {key: value for key, value in words.items() if value} or None
