"""The templates for GitHub Actions and GitLab: what the services document, and their steps as far as they run here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.gate.test_users_gate import write_reviews
from tests.support.runs import ROOT

GITHUB, GITLAB = ROOT / "harness" / "starter" / "github-actions.yml", ROOT / "cluster" / "gitlab-ci.yml"
SUITE = """
model: {name: mini}
data: {name: reviews.csv}
strategy: head_only
training: {epochs: 2}
"""


def keys(text: str) -> set[str]:
    return set(text.split())


# As the services document them; of steps either `uses` or `run`.
WORKFLOW_KEYS = keys("name run-name on permissions env defaults concurrency jobs")
JOB_KEYS = keys(
    """name permissions needs if runs-on environment concurrency outputs env defaults steps timeout-minutes strategy
    continue-on-error container services"""
)
STEP_KEYS = keys("id if name uses run working-directory shell with env continue-on-error timeout-minutes")
GITLAB_JOB_KEYS = keys(
    """after_script allow_failure artifacts before_script cache coverage dependencies environment extends id_tokens
    image inherit interruptible needs pages parallel release resource_group retry rules run script secrets services
    stage tags timeout trigger variables when"""
)


def read(template: Path) -> dict[str, Any]:
    """`on` is a boolean in YAML 1.1, and a key in GitHub's reading."""
    return {"on" if key is True else key: value for key, value in yaml.safe_load(template.read_text()).items()}


def test_githubs_workflow_has_what_the_service_documents() -> None:
    workflow = read(GITHUB)
    assert {"on", "jobs"} <= set(workflow) <= WORKFLOW_KEYS
    assert {"push", "pull_request"} <= set(workflow["on"])
    for name, job in workflow["jobs"].items():
        assert re.fullmatch(r"[A-Za-z_][\w-]*", name)
        assert {"runs-on", "steps"} <= set(job) <= JOB_KEYS
        for step in job["steps"]:
            assert set(step) <= STEP_KEYS
            assert ("uses" in step) != ("run" in step)
            assert re.fullmatch(r"[\w.-]+/[\w./-]+@[\w.]+", step.get("uses", "owner/action@v1"))
    used = [step["uses"].partition("@")[0] for step in workflow["jobs"]["gate"]["steps"] if "uses" in step]
    assert [name.partition("/")[2] for name in used] == ["checkout", "setup-python", "cache", "upload-artifact"]


def test_gitlabs_job_has_what_the_service_documents() -> None:
    jobs = read(GITLAB)
    assert list(jobs) == ["gate"]
    job = jobs["gate"]
    assert "script" in job
    assert set(job) <= GITLAB_JOB_KEYS
    assert set(job["artifacts"]) <= keys("name when paths exclude expire_in expose_as reports untracked")
    assert job["artifacts"]["when"] == "always", "what a red gate has found, too"
    assert set(job["cache"]) <= keys("key paths untracked unprotect when policy fallback_keys")
    assert set(job["cache"]["key"]) == {"prefix", "files"}
    assert all(set(rule) == {"if"} for rule in job["rules"])
    assert job["variables"]["SUITE"] in job["cache"]["key"]["files"]


def _git(*arguments: str, folder: Path) -> None:
    who = {f"GIT_{role}_{part}": "a@b.example" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    subprocess.run(["git", "-C", str(folder), *arguments], env=os.environ | who, check=True, capture_output=True)


@dataclass(frozen=True)
class Service:
    """A repository, and a machine on which ftbench is installed."""

    repository: Path
    programs: Path

    def shell(self, script: str, folder: Path, **variables: str) -> int:
        path = f"{self.programs}:{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "CI": "true"} | variables
        return subprocess.run(["bash", "-e", "-c", script], cwd=folder, env=environment, check=False).returncode

    def checkout(self, folder: Path) -> Path:
        _git("clone", "--quiet", str(self.repository), str(folder), folder=self.repository)
        return folder


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    """The reference is made as the templates' heads say."""
    repository, programs = tmp_path_factory.mktemp("repository"), tmp_path_factory.mktemp("bin")
    program = programs / "ftbench"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m harness "$@"\n')
    program.chmod(0o755)
    write_reviews(repository, 200)
    (repository / "suite.yaml").write_text(SUITE)
    (repository / ".gitignore").write_text("results\n.cache\n")
    found = Service(repository, programs)
    (command,) = {re.search(r"^# +(ftbench gate .*)$", page.read_text(), re.MULTILINE)[1] for page in (GITHUB, GITLAB)}
    assert found.shell(f"{command} --cache .cache", repository) == 0
    _git("init", "--quiet", folder=repository)
    _git("add", ".", folder=repository)
    _git("commit", "--quiet", "--message", "a suite and its reference", folder=repository)
    return found


def github(service: Service, folder: Path) -> tuple[int, str]:
    """The exit code of the gate's step, and the summary of the job."""
    (job,) = read(GITHUB)["jobs"].values()
    workspace, summary = service.checkout(folder / "work"), folder / "summary.md"
    summary.touch()
    variables = {name: value.replace("${{ github.workspace }}", str(workspace)) for name, value in job["env"].items()}
    variables |= {"GITHUB_WORKSPACE": str(workspace), "GITHUB_STEP_SUMMARY": str(summary)}
    install, gate, *after = (step for step in job["steps"] if "run" in step)
    assert "pip install" in install["run"]
    assert all(step["if"] == "always()" for step in after)
    code = service.shell(gate["run"], workspace, **variables)
    assert all(service.shell(step["run"], workspace, **variables) == 0 for step in after)
    (upload,) = (step for step in job["steps"] if "upload-artifact" in step.get("uses", ""))
    assert all((workspace / path).is_file() for path in upload["with"]["path"].split())
    return code, summary.read_text()


def gitlab(service: Service, folder: Path) -> tuple[int, str]:
    """The exit code of the job's script, and the table among its artifacts."""
    job = read(GITLAB)["gate"]
    workspace = service.checkout(folder / "work")
    variables = {name: value.replace("$CI_PROJECT_DIR", str(workspace)) for name, value in job["variables"].items()}
    assert all("pip install" in line for line in job["before_script"])
    code = service.shell("\n".join(job["script"]), workspace, CI_PROJECT_DIR=str(workspace), **variables)
    found = {path: (workspace / path).read_text() for path in job["artifacts"]["paths"]}
    return code, found["results/gate.md"]


@pytest.mark.long
@pytest.mark.parametrize("run", [github, gitlab])
def test_an_unchanged_suite_is_green(run, service: Service, tmp_path: Path) -> None:
    code, told = run(service, tmp_path)
    assert (code, "No regression." in told) == (0, True)


@pytest.mark.long
@pytest.mark.parametrize("run", [github, gitlab])
def test_a_regression_is_red_and_shown(run, service: Service, tmp_path: Path) -> None:
    better = tmp_path / "better"
    service.checkout(better)
    reference = better / "gate" / "reference.json"
    tree = json.loads(reference.read_text())
    tree["runs"][0]["losses"] = [loss - 0.1 for loss in tree["runs"][0]["losses"]]
    reference.write_text(json.dumps(tree))
    _git("commit", "--all", "--quiet", "--message", "a reference with lower losses", folder=better)
    code, told = run(Service(better, service.programs), tmp_path)
    assert (code, "Regression: losses of head_only." in told) == (1, True)
