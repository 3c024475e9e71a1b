"""From one command to N ranks: in this process where one is enough, else under torchrun or DeepSpeed's launcher."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil

from harness.config.schema import EngineConfig
from harness.distributed.hosts import SSH_OPTIONS, free_port, local_address
from harness.distributed.preflight import run_preflight
from harness.distributed.process_group import device_of
from harness.distributed.signals import StopSignals
from harness.experiment.records.record import Ending, record_of
from harness.experiment.runner import why_lost
from harness.launch.cores import part_of_cores
from harness.launch.jobs import launch_jobs
from harness.launch.libraries import variables
from harness.launch.worker import work
from harness.measure.environment import describe
from harness.measure.kernel_kills import kernel_kills
from harness.planning.plan import Plan, PlannedRun
from harness.planning.workspace import Workspace
from harness.results.store import Store

# torchrun gives its workers 30 seconds to stop, then kills them.
STOP_SECONDS = 45
# Without a limit torchrun waits for a lost machine for as long as the network keeps a dead connection.
REJOIN_SECONDS = 60.0


def launch(plan: Plan, workspace: Workspace | None = None) -> None:
    """Do every run of the plan; each leaves a record. One group of ranks does all of them, or as many processes as the
    plan has jobs.

    After a lost rank torchrun restarts the group, up to `engine.restarts` times, and the run resumes from its last
    checkpoint; after that its record says `failed`, and a new group does the rest.
    workspace: what planning has loaded; other processes load it again.
    Raises KeyboardInterrupt where the user stopped it, UserError where machines were asked for different things.
    """
    store = Store(plan.results)
    if not _pending(plan, store):
        return
    if plan.jobs > 1:
        launch_jobs(plan, workspace or Workspace(plan.cache, plan.features))
        return
    engine = plan.runs[0].config.engine
    if engine.world_size == 1 and not plan.hosts.hostfile:
        work(plan, workspace or Workspace(plan.cache, plan.features), alone=True)
        return
    stop_signals = StopSignals()
    stop_signals.listen()
    if engine.nodes > 1 and not plan.hosts.hostfile:
        run_preflight(engine, plan.hosts, runs=", ".join(run.run_id + " (saved)" * run.save for run in plan.runs))
    while pending := _pending(plan, store):
        kills_before = kernel_kills()
        exit_code = _run_group(plan, engine, store, stop_signals)
        if exit_code and _pending(plan, store) == pending:
            ending = why_lost(kills_before)
            reason = f"{ending.error}: the launcher ended with exit code {exit_code}"
            _record_first_pending(plan, store, replace(ending, error=reason))
        if not exit_code or engine.nodes > 1:
            return  # a new group would need all machines: the same command, on each, goes on


def _run_group(plan: Plan, engine: EngineConfig, store: Store, stop_signals: StopSignals) -> int:
    """Start a launcher and wait for its ranks; returns its exit code.

    Raises KeyboardInterrupt where the user stopped it: the run in progress has its record then.
    """
    # Ranks on other machines see the results folder, but not this machine's /tmp.
    with tempfile.TemporaryDirectory(dir=plan.results if plan.hosts.hostfile else None) as folder:
        path = Path(folder) / "plan.json"
        path.write_text(plan.model_dump_json())
        command = [*_launcher(plan, engine), "-m", "harness.launch.worker", str(path.resolve())]
        # In a new session: Ctrl-C reaches this process only, which stops the launcher, which stops its workers.
        group = subprocess.Popen(
            command, env=_environment(engine), start_new_session=True, preexec_fn=_ignore_stop_signals
        )
        try:
            return _wait(group, engine, stop_signals)
        except KeyboardInterrupt:
            pending = _pending(plan, store)
            _stop(group, stop_signals)
            _record_interrupted(plan, store, pending)
            raise


def _wait(group: subprocess.Popen, engine: EngineConfig, stop_signals: StopSignals) -> int:
    """Returns the launcher's exit code. One of several machines gives up where its ranks are gone and no new ones
    start."""
    if engine.nodes == 1:
        return group.wait()
    timeout = min(REJOIN_SECONDS, engine.timeout_seconds)
    had_workers, lost_since = False, None
    while True:
        try:
            return group.wait(1)
        except subprocess.TimeoutExpired:
            has_workers = any(map(_is_alive, psutil.Process(group.pid).children()))
        had_workers |= has_workers
        lost = had_workers and not has_workers
        lost_since = (lost_since or time.monotonic()) if lost else None
        if lost_since and time.monotonic() - lost_since > timeout:
            _stop(group, stop_signals)
            return 1


def _stop(group: subprocess.Popen, stop_signals: StopSignals) -> None:
    with stop_signals.postponed():  # another signal changes nothing
        group.send_signal(signal.SIGINT)
        try:
            group.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            workers = psutil.Process(group.pid).children(recursive=True)  # each in its own session
            os.killpg(group.pid, signal.SIGKILL)
            group.wait()
            for worker in workers:
                with suppress(psutil.NoSuchProcess):
                    worker.kill()


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _ignore_stop_signals() -> None:
    """For the launcher: clusters signal every process, and a second signal would end it before its workers.

    This process stops the launcher; the workers handle signals themselves.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _launcher(plan: Plan, engine: EngineConfig) -> list[str]:
    hosts = plan.hosts
    if hosts.hostfile:
        return _deepspeed_launcher(engine, hosts.hostfile)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--signals-to-handle=SIGINT"]
    sizes = [f"--nproc-per-node={engine.processes}", f"--max-restarts={engine.restarts}"]
    if engine.nodes == 1:
        return [*torchrun, "--standalone", *sizes]
    assert hosts.rendezvous is not None, "check_hosts"
    address, _ = local_address(hosts.rendezvous)
    machine = [f"--nnodes={engine.nodes}", f"--node-rank={hosts.node_rank}", f"--local-addr={address}"]
    endpoint = [f"--rdzv-endpoint={hosts.rendezvous}", "--rdzv-backend=c10d", f"--rdzv-id={plan.runs[0].run_id}"]
    timeout, is_first = int(engine.timeout_seconds), int(hosts.node_rank == 0)
    settings = f"--rdzv-conf=is_host={is_first},join_timeout={timeout},read_timeout={timeout}"
    return [*torchrun, *machine, *endpoint, settings, *sizes]


def _deepspeed_launcher(engine: EngineConfig, hostfile: Path) -> list[str]:
    runner = [sys.executable, "-m", "deepspeed.launcher.runner", "--hostfile", str(hostfile), "--force_multi"]
    sizes = ["--num_nodes", str(engine.nodes), "--num_gpus", str(engine.processes)]
    # Probably free on the hostfile's first machine, too, where ranks connect.
    port = ["--master_port", str(free_port())]
    # It forwards few environment variables to other machines: what a rank needs is written into its command.
    variables = [f"{name}={value}" for name, value in _environment_of_ranks(engine).items()]
    return [*runner, *sizes, *port, "--no_python", "--no_local_rank", "env", *variables, sys.executable, "-u"]


def _environment(engine: EngineConfig) -> dict[str, str]:
    """Of the launcher; torchrun's ranks inherit it."""
    # Without what another launcher's torchrun was to read: its command line says all.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PET_")}
    return {"PDSH_SSH_ARGS_APPEND": " ".join(SSH_OPTIONS)} | inherited | _environment_of_ranks(engine)


def _environment_of_ranks(engine: EngineConfig) -> dict[str, str]:
    """What the user has set stays. Each rank gets an equal part of the cores, where torchrun would give it one."""
    # Level 6: the profiler, which measures communication, prints nothing.
    defaults = part_of_cores(engine.processes) | {"KINETO_LOG_LEVEL": "6", "FTBENCH_ASSETS": ""}
    chosen = {name: os.environ.get(name, default) for name, default in defaults.items()}
    return {name: value for name, value in chosen.items() if value} | variables()


def _pending(plan: Plan, store: Store) -> list[PlannedRun]:
    return [planned for planned in plan.in_order() if not store.has(planned.run_id)]


def _record_interrupted(plan: Plan, store: Store, pending: list[PlannedRun]) -> None:
    """pending: when the user stopped the group. A rank that stops later than another may record that as a loss."""
    for run in pending:
        record = store.read(run.run_id)
        if record and record.status == "failed":
            store.remove(run.run_id)
    _record_first_pending(plan, store, Ending("interrupted", "interrupted"))


def _record_first_pending(plan: Plan, store: Store, ending: Ending) -> None:
    """Write the record of the run that was in progress; only the first machine does."""
    pending = _pending(plan, store)
    if plan.hosts.node_rank or not pending:
        return
    engine = pending[0].config.engine
    size = 1 if pending[0].source.is_baseline else engine.world_size
    store.write(record_of(pending[0], ending, size, describe(device_of(0), plan.code_sha256, plan.jobs)))
