"""Manifests of clusters: what they hold, and that their command lines do what NPROC does."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubeflow_trainer_api.models.trainer_v1alpha1_train_job import TrainerV1alpha1TrainJob

from harness.launch.manifests import GROUP_ID
from harness.results.record import Record
from harness.results.store import Store
from tests.support.runs import ROOT, SMALL_RUN, command, losses_of, predicted_by

SHARDED = ["--engine=fsdp", "--nnodes=2", "--volume=claim"]
# The keys of a task that SkyPilot's reference lists.
SKY_TASK = {"name", "workdir", "num_nodes", "resources", "envs", "secrets", "volumes", "file_mounts", "setup", "run"}


@pytest.fixture
def manifest(run_cli: Callable) -> Callable[..., Any]:
    """The tree that `ftbench manifest` prints."""

    def tree(*arguments: str) -> Any:
        code, out, _ = run_cli("manifest", *arguments, results=None)
        assert code == 0
        return yaml.safe_load(out)

    return tree


def test_a_train_job_has_the_types_of_kubeflow(manifest: Callable) -> None:
    job = manifest("kubeflow", *SMALL_RUN, *SHARDED, "--gpus=4", "--save")
    typed = TrainerV1alpha1TrainJob.from_dict(job)
    assert typed is not None
    assert typed.to_dict() == job, "a key that the types don't have would be left out"
    trainer = job["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 4)
    assert trainer["resourcesPerNode"]["limits"] == trainer["resourcesPerNode"]["requests"] == {"nvidia.com/gpu": "4"}
    folders = ["--results=/volume/results", "--cache=/volume/cache"]
    assert sorted(trainer["args"]) == sorted(["run", *SMALL_RUN, "--engine=fsdp", "--save", *folders])
    (node,) = job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = node["template"]["spec"]["template"]["spec"]
    mounted = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounted == {"volume": "/volume", "shared-memory": "/dev/shm"}
    assert {volume["name"] for volume in pod["volumes"]} == set(mounted)


def test_a_task_of_sky_pilot_has_the_keys_of_its_reference(manifest: Callable) -> None:
    task = manifest("skypilot", *SMALL_RUN, *SHARDED, "--gpus=H100:4", "--image=registry/ftbench:1")
    assert set(task) <= SKY_TASK
    assert task["resources"] == {"image_id": "docker:registry/ftbench:1", "accelerators": "H100:4"}
    assert (task["num_nodes"], task["volumes"]) == (2, {"/volume": "claim"})
    assert '--nproc="$SKYPILOT_NUM_GPUS_PER_NODE"' in task["run"]


def test_a_manifest_is_written_to_a_file(run_cli: Callable, tmp_path: Path) -> None:
    path = tmp_path / "new" / "job.yaml"
    assert run_cli("manifest", "kubeflow", "--output", str(path)) == (0, "", "")
    assert yaml.safe_load(path.read_text())["kind"] == "TrainJob"
    code, _, told = run_cli("manifest", "kubeflow", "--output", str(tmp_path))
    assert code == 2
    assert f"--output {tmp_path} can't be written" in told


def test_files_of_this_machine_are_named(run_cli: Callable, tmp_path: Path) -> None:
    strategy = tmp_path / "own.py"
    strategy.touch()
    code, _, told = run_cli("manifest", "kubeflow", "--strategy", f"{strategy},full")
    assert code == 0
    assert told.splitlines() == [
        f"{strategy} is a file of this machine: the image or the volume must have it at the same path."
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["kubeflow"], "RESULTS=results without --volume"),
        (["kubeflow", "--rdzv=host:1", "--node-rank=1", "--nnodes=2"], "NODE_RANK, RDZV in a manifest"),
        (["kubeflow", "--engine=deepspeed", "--hostfile=hosts.txt"], "HOSTFILE in a manifest"),
        (["kubeflow", "--jobs=auto"], "JOBS=auto in a manifest"),
        (["kubeflow", "--volume=claim", "--gpus=H100:8"], "--gpus 'H100:8' in a manifest of kubeflow"),
        (["kubeflow", "--volume=claim", "--gpus=0"], "their number on each machine, such as 8"),
        (["skypilot", "--volume=claim", "--gpus=8"], "expected KIND:NUMBER, such as H100:8"),
        (["kubeflow", "--volume=claim", "--gpus=8", "--nproc=1"], "NPROC=1 with --gpus 8: one rank a GPU"),
        (["kubeflow", "--volume=claim", "--nnodes=2", "--gpus=8"], "NNODES=2 x NPROC=8 ranks can't share a batch of 8"),
        (["kubeflow", "--volume=claim", "--engine=ddp", "--zero=3"], "ZERO=3: ddp has no stages"),
        (["kubeflow", "--volume=claim", "--engine=deepspeed", "--precision=fp64"], "PRECISION=fp64 with ENGINE=deeps"),
        (["skypilot", "--volume=claim", "--strategy=last_blok"], "did you mean 'last_block'?"),
        (["skypilot", "--volume=claim", "--price=abc"], "PRICE='abc'"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_what_can_not_run_on_a_cluster_is_refused(run_cli: Callable, arguments: list[str], message: str) -> None:
    code, out, told = run_cli("manifest", *arguments, results=None)
    assert (code, out) == (2, "")
    assert message in told


def _kubeflow(job: dict[str, Any], node: int, port: int) -> tuple[list[str], dict[str, str]]:
    """Command and variables of a pod, as Kubeflow's torch runtime sets them."""
    trainer = job["spec"]["trainer"]
    variables = {
        "PET_NNODES": str(trainer["numNodes"]),
        "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
        "PET_NODE_RANK": str(node),
        "PET_MASTER_ADDR": "localhost",
        "PET_MASTER_PORT": str(port),
    }
    return [*trainer["command"], *trainer["args"]], variables


def _sky_pilot(task: dict[str, Any], node: int, port: int) -> tuple[list[str], dict[str, str]]:
    """Shell and variables of a machine, as SkyPilot sets them where there is no GPU."""
    variables = {
        "SKYPILOT_NUM_NODES": str(task["num_nodes"]),
        "SKYPILOT_NODE_RANK": str(node),
        "SKYPILOT_NODE_IPS": "\n".join(["127.0.0.1"] * task["num_nodes"]),
        "SKYPILOT_NUM_GPUS_PER_NODE": "0",
    }
    return ["bash", "-c", task["run"].replace(":29400", f":{port}")], variables


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of SMALL_RUN with NPROC=2."""
    folder = tmp_path_factory.mktemp("asked")
    subprocess.run(command(folder, "run", *SMALL_RUN, "--nproc=2"), capture_output=True, check=True)
    return folder / "results"


LAUNCHERS = {"kubeflow": _kubeflow, "skypilot": _sky_pilot}


@pytest.mark.long
@pytest.mark.parametrize(("platform", "nodes"), [("kubeflow", 1), ("kubeflow", 2), ("skypilot", 1), ("skypilot", 2)])
def test_the_command_line_gives_the_records_of_nproc(
    manifest: Callable, tmp_path: Path, asked: Path, platform: str, nodes: int
) -> None:
    ranks = [f"--nproc={2 // nodes}", f"--nnodes={nodes}"]
    results = tmp_path / "results"
    tree = manifest(platform, *SMALL_RUN, *ranks, f"--results={results}", f"--cache={tmp_path / 'cache'}")
    _start_and_wait(tree, LAUNCHERS[platform], nodes, tmp_path)
    given, expected = _by_strategy(results), _by_strategy(asked)
    assert given["majority"].identity == expected["majority"].identity
    # Ranks on two machines are another arrangement.
    assert (given["last_block"].identity == expected["last_block"].identity) == (nodes == 1)
    assert given["last_block"].engine.world_size == 2
    assert losses_of(results, given["last_block"]) == losses_of(asked, expected["last_block"])
    assert predicted_by(results, given["last_block"]) == predicted_by(asked, expected["last_block"])


def _start_and_wait(tree: Any, launcher: Callable, nodes: int, folder: Path) -> None:
    """Each machine is a process here; `ftbench` is this checkout's."""
    program = folder / "bin" / "ftbench"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m harness "$@"\n')
    program.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    path = {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": ROOT}
    machines = []
    for node in range(nodes):
        words, variables = launcher(tree, node, port)
        machines.append(subprocess.Popen(words, env=os.environ | path | variables, **pipes))
    outputs = [machine.communicate(timeout=180)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0] * nodes, outputs


def _by_strategy(results: Path) -> dict[str, Record]:
    return {record.strategy: record for record in Store(results).all()}


def test_what_the_dockerfile_copies_and_installs_exists() -> None:
    instructions = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text()).splitlines()
    copied = {part for line in instructions if line.startswith("COPY") for part in line.split()[1:-1]}
    assert "harness" in copied
    assert all((ROOT / name).exists() for name in copied)
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == copied
    (extras,) = (found[1].split(",") for line in instructions if (found := re.search(r"\.\[([\w,]+)\]", line)))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras) <= set(project["optional-dependencies"])
    assert f"useradd --uid {GROUP_ID} " in " ".join(instructions), "who may write to the volume"
