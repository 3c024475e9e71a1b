"""Manifests of clusters: the YAML with which Kubeflow's Trainer or SkyPilot starts `ftbench run`.

Either starts the same command on every machine. The environment says which of them a machine is: `ftbench run` reads
what Kubeflow's torch runtime sets (PET_...), and gets SkyPilot's variables as options.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import yaml

import strategies
from harness import baselines
from harness.config.command_line import data_names
from harness.config.options import option_named, options_of
from harness.config.places import HUB_PREFIX
from harness.config.schema import EngineConfig, RunConfig
from harness.config.suite import SuiteConfig
from harness.errors import UserError
from harness.files import write_atomically
from harness.planning.resolve import check_engine
from harness.planning.validate import check_ranks

Platform = Literal["kubeflow", "skypilot"]
# The group of the image's user, who writes to the volume.
GROUP_ID = 1000
VOLUME = PurePosixPath("/volume")
# Where SkyPilot's machines meet; Kubeflow has its own.
PORT = 29400

_PLACED = ("nproc", "nnodes", "node-rank", "rdzv", "hostfile", "jobs", "results", "cache")
_GPUS = re.compile(r"(?:(?P<kind>[A-Za-z][\w-]*):)?(?P<count>[1-9]\d*)")


@dataclass(frozen=True)
class ClusterJob:
    """What is started on a cluster.

    arguments: of `ftbench`, but for ranks and machines. processes: ranks on each machine. gpus: on each machine; 0: it
    has none. gpu_kind: as SkyPilot names it. volume: what is mounted at VOLUME; None: nothing.
    """

    arguments: list[str]
    processes: int
    nodes: int
    image: str
    gpus: int
    gpu_kind: str | None
    volume: str | None


def manifest_of(
    platform: Platform,
    given: Mapping[str, Any],
    suite: SuiteConfig,
    image: str,
    gpus: str | None,
    volume: str | None,
) -> str:
    """The YAML that has a cluster run the suite.

    given: the options of `ftbench run`, by parameter, that describe the suite. gpus: of each machine, 8 or H100:8.
    Raises UserError for options that only make sense on a machine at hand, for results that would be lost, for GPUs in
    a form that the platform does not take, or fewer or more than ranks, and for runs that could not begin there.
    """
    job = _job(platform, given, suite, image, gpus, volume)
    tree = _train_job(job) if platform == "kubeflow" else _sky_task(job)
    return yaml.safe_dump(tree, sort_keys=False, width=sys.maxsize)


def write(content: str, output: Path | None) -> None:
    """To the file; None: to the standard output. Raises UserError where the file can't be written."""
    if output is None:
        print(content, end="")
        return
    try:
        write_atomically(output, content)
    except OSError as error:
        raise UserError(f"--output {output} can't be written ({error.strerror}): name another file.") from error


def local_files(suite: SuiteConfig, config: Path | None) -> list[str]:
    """What the runs read of this machine's files, which the image or the volume must hold, too."""
    named = [str(config)] if config else []
    for run in suite.runs():
        strategy = [run.strategy] if run.strategy.endswith(".py") else []
        named += [*strategy, run.model.name.removeprefix(HUB_PREFIX), run.model.weights, *data_names(run.data.name)]
    return [name for name in dict.fromkeys(named) if Path(name).exists()]


def _job(
    platform: Platform,
    given: Mapping[str, Any],
    suite: SuiteConfig,
    image: str,
    gpus: str | None,
    volume: str | None,
) -> ClusterJob:
    _check_places(given)
    engine = suite.runs()[0].engine
    processes, nodes = engine.processes, engine.nodes
    kind, count = _gpus(platform, gpus)
    if count and (given["nproc"] or processes > 1) and processes != count:
        raise UserError(f"NPROC={processes} with --gpus {gpus}: one rank a GPU; leave NPROC out.")
    for run in suite.runs():
        _check_runs_there(run, run.engine.model_copy(update={"processes": count or processes, "nodes": nodes}))
    arguments = ["run", *_arguments(given), *_folders(given, volume)]
    return ClusterJob(arguments, count or processes, nodes, image, count, kind, volume)


def _check_runs_there(run: RunConfig, engine: EngineConfig) -> None:
    """engine: as the cluster starts it. What only the cluster can know, such as its files, is not looked at."""
    check_engine(engine, run.precision)
    check_ranks(run.model_copy(update={"engine": engine}))
    if run.strategy not in baselines.NAMES and not run.strategy.endswith(".py"):
        strategies.load(run.strategy)


def _check_places(given: Mapping[str, Any]) -> None:
    places = [option_named(name) for name in ("node-rank", "rdzv", "hostfile")]
    if asked := [option.variable for option in places if given[option.parameter]]:
        raise UserError(
            f"{', '.join(asked)} in a manifest: the cluster numbers its machines, and starts each; leave it out. "
            "ENGINE=deepspeed needs no HOSTFILE there."
        )
    if given["jobs"] != "1":
        raise UserError(
            f"JOBS={given['jobs']} in a manifest: it starts ranks of one run; write a manifest for each job."
        )


def _gpus(platform: Platform, given: str | None) -> tuple[str | None, int]:
    if given is None:
        return None, 0
    found = _GPUS.fullmatch(given)
    if found and bool(found["kind"]) == (platform == "skypilot"):
        return found["kind"], int(found["count"])
    form = "KIND:NUMBER, such as H100:8" if platform == "skypilot" else "their number on each machine, such as 8"
    raise UserError(f"--gpus {given!r} in a manifest of {platform}: expected {form}.")


def _arguments(given: Mapping[str, Any]) -> list[str]:
    """The options as they were given, but for those that have another place in a manifest."""
    words = []
    for option in options_of("bench"):
        value = given[option.parameter]
        if option.name in _PLACED or value == option.default:
            continue
        values = value if isinstance(value, list) else [value]
        words += [f"--{option.name}" if option.is_flag else f"--{option.name}={each}" for each in values]
    return words


def _folders(given: Mapping[str, Any], volume: str | None) -> list[str]:
    """RESULTS and CACHE; both on the volume unless an absolute path says otherwise."""
    results, cache = given["results"], given["cache"]
    if volume is None and not results.is_absolute():
        raise UserError(
            f"RESULTS={results} without --volume: what a container writes is gone with it; name a volume, or the "
            "absolute path of a folder that all machines mount."
        )
    if cache == option_named("cache").default:
        cache = "cache" if volume else None
    folders = {"results": results, "cache": cache}
    return [f"--{name}={VOLUME / folder if volume else folder}" for name, folder in folders.items() if folder]


def _train_job(job: ClusterJob) -> dict[str, Any]:
    """A TrainJob of Kubeflow's Trainer v2."""
    trainer = {
        "image": job.image,
        "command": ["ftbench"],
        "args": job.arguments,
        "numNodes": job.nodes,
        "numProcPerNode": job.processes,
    }
    if job.gpus:  # with limits alone the runtime starts one rank
        trainer["resourcesPerNode"] = {part: {"nvidia.com/gpu": str(job.gpus)} for part in ("limits", "requests")}
    patches = [{"manager": "ftbench", "trainingRuntimeSpec": spec}] if (spec := _runtime_patch(job)) else []
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"generateName": "ftbench-"},
        "spec": {"runtimeRef": {"name": "torch-distributed"}, "trainer": trainer}
        | ({"runtimePatches": patches} if patches else {}),
    }


def _runtime_patch(job: ClusterJob) -> dict[str, Any] | None:
    """What the pods have beyond the runtime's template; None: nothing."""
    volumes, mounts, pod = [], [], {}
    if job.volume:
        volumes.append({"name": "volume", "persistentVolumeClaim": {"claimName": job.volume}})
        mounts.append({"name": "volume", "mountPath": str(VOLUME)})
        pod["securityContext"] = {"fsGroup": GROUP_ID}
    if job.gpus > 1:  # NCCL exchanges through it, and a container has 64 MB
        volumes.append({"name": "shared-memory", "emptyDir": {"medium": "Memory"}})
        mounts.append({"name": "shared-memory", "mountPath": "/dev/shm"})
    if not volumes:
        return None
    pod |= {"containers": [{"name": "node", "volumeMounts": mounts}], "volumes": volumes}
    node = {"name": "node", "template": {"spec": {"template": {"spec": pod}}}}
    return {"template": {"spec": {"replicatedJobs": [node]}}}


def _sky_task(job: ClusterJob) -> dict[str, Any]:
    """A task of SkyPilot. Its image must be one in which SkyPilot is root."""
    resources = {"image_id": f"docker:{job.image}"}
    if job.gpus:
        resources["accelerators"] = f"{job.gpu_kind}:{job.gpus}"
    volumes = {"volumes": {str(VOLUME): job.volume}} if job.volume else {}
    return {"name": "ftbench", "resources": resources, "num_nodes": job.nodes, **volumes, "run": _sky_command(job)}


def _sky_command(job: ClusterJob) -> str:
    processes = '"$SKYPILOT_NUM_GPUS_PER_NODE"' if job.gpus else job.processes
    command = f"{shlex.join(['ftbench', *job.arguments])} --nproc={processes}"
    if job.nodes == 1:
        return command
    first = f'"$(echo "$SKYPILOT_NODE_IPS" | head -n 1):{PORT}"'
    return f'{command} --nnodes="$SKYPILOT_NUM_NODES" --node-rank="$SKYPILOT_NODE_RANK" --rdzv={first}'
