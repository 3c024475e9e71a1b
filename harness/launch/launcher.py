"""One command to N processes: in this one where one rank is enough, under torchrun where more are asked for."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil

from harness.config.schema import EngineConfig
from harness.distributed.hosts import SSH_OPTIONS, local_address
from harness.distributed.preflight import meet
from harness.distributed.process_group import device_of
from harness.distributed.signals import StopSignals
from harness.experiment.records import Ending, record_of
from harness.experiment.runner import why_lost
from harness.launch.worker import work
from harness.measure import environment
from harness.measure.memory import kernel_kills
from harness.planning.plan import Plan, PlannedRun
from harness.results.store import Store

# torchrun itself gives its workers 30 seconds, then kills them.
STOP_SECONDS = 45
# torchrun would wait for a lost machine to come back for as long as the network keeps a dead connection.
REUNION_SECONDS = 60.0


def launch(plan: Plan) -> None:
    """Do every run of the plan; each leaves a record. One worker group serves all of them.

    After a lost rank torchrun starts the group again, `engine.restarts` times, and the run goes on from its last
    checkpoint; then it ends as `failed`, and a new group does the rest.
    Raises KeyboardInterrupt where the user stopped it, UserError where machines were asked for different things.
    """
    if not plan.runs:
        return
    engine = plan.runs[0].config.engine
    if engine.processes * engine.nodes == 1 and not plan.hosts.hostfile:
        work(plan, alone=True)
        return
    signals = StopSignals()
    signals.listen()
    store = Store(plan.results)
    if engine.nodes > 1 and not plan.hosts.hostfile and _pending(plan, store):
        meet(engine, plan.hosts, runs=", ".join(run.run_id + " (saved)" * run.save for run in plan.runs))
    while pending := _pending(plan, store):
        kills_before = kernel_kills()
        try:
            exit_code = _run_group(plan, signals)
        except KeyboardInterrupt:
            _record(plan, store, Ending("interrupted", "interrupted"))
            raise
        left = _pending(plan, store)
        if exit_code and left == pending:
            ending = why_lost(kills_before)
            reason = f"{ending.error}: the launcher ended with exit code {exit_code}"
            _record(plan, store, replace(ending, error=reason))
        if not exit_code or engine.nodes > 1:
            return  # several machines would all have to start anew: the same command goes on


def _run_group(plan: Plan, signals: StopSignals) -> int:
    # DeepSpeed's launcher starts processes on other machines, which see the results folder but not this one's /tmp.
    with tempfile.TemporaryDirectory(dir=plan.results if plan.hosts.hostfile else None) as folder:
        path = Path(folder) / "plan.json"
        path.write_text(plan.model_dump_json())
        # In a session of its own: Ctrl-C reaches this process only, which tells the launcher, which tells its workers.
        command = [*_launcher(plan), "-m", "harness.launch.worker", str(path.resolve())]
        variables = _environment(plan.runs[0].config.engine)
        group = subprocess.Popen(command, env=variables, start_new_session=True, preexec_fn=_leave_signals_to_others)
        try:
            return _wait(group, plan.runs[0].config.engine, signals)
        except KeyboardInterrupt:
            _stop(group, signals)
            raise


def _wait(group: subprocess.Popen, engine: EngineConfig, signals: StopSignals) -> int:
    """Its exit code. One of several machines gives up where its ranks ended and the group does not meet again."""
    if engine.nodes == 1:
        return group.wait()
    patience = min(REUNION_SECONDS, engine.timeout_seconds)
    had_workers, alone_since = False, None
    while True:
        try:
            return group.wait(1)
        except subprocess.TimeoutExpired:
            has_workers = any(map(_is_alive, psutil.Process(group.pid).children()))
        had_workers |= has_workers
        lost = had_workers and not has_workers
        alone_since = (alone_since or time.monotonic()) if lost else None
        if alone_since and time.monotonic() - alone_since > patience:
            _stop(group, signals)
            return 1


def _stop(group: subprocess.Popen, signals: StopSignals) -> None:
    with signals.postponed():  # a signal that comes again changes nothing
        group.send_signal(signal.SIGINT)
        try:
            group.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            workers = psutil.Process(group.pid).children(recursive=True)  # in sessions of their own
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


def _leave_signals_to_others() -> None:
    """For the launcher: clusters send theirs to every process, and a second one would end it before its workers.

    This process tells it to stop; the workers listen themselves.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _launcher(plan: Plan) -> list[str]:
    engine, hosts = plan.runs[0].config.engine, plan.hosts
    if hosts.hostfile:
        return _deepspeed_launcher(engine, hosts.hostfile)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--signals-to-handle=SIGINT"]
    sizes = [f"--nproc-per-node={engine.processes}", f"--max-restarts={engine.restarts}"]
    if engine.nodes == 1:
        return [*torchrun, "--standalone", *sizes]
    address, _ = local_address(hosts.rendezvous)
    where = [f"--nnodes={engine.nodes}", f"--node-rank={hosts.node_rank}", f"--local-addr={address}"]
    meeting = [f"--rdzv-endpoint={hosts.rendezvous}", "--rdzv-backend=c10d", f"--rdzv-id={plan.runs[0].run_id}"]
    patience = int(engine.timeout_seconds)
    waiting = f"--rdzv-conf=is_host={int(hosts.node_rank == 0)},join_timeout={patience},read_timeout={patience}"
    return [*torchrun, *where, *meeting, waiting, *sizes]


def _deepspeed_launcher(engine: EngineConfig, hostfile: Path) -> list[str]:
    runner = [sys.executable, "-m", "deepspeed.launcher.runner", "--hostfile", str(hostfile), "--force_multi"]
    sizes = ["--num_nodes", str(engine.nodes), "--num_gpus", str(engine.processes)]
    meeting = ["--master_port", str(_free_port())]
    # It carries few variables to the other machines: those that a rank reads are written into its command.
    variables = [f"{name}={value}" for name, value in _environment_of_ranks(engine).items()]
    return [*runner, *sizes, *meeting, "--no_python", "--no_local_rank", "env", *variables, sys.executable, "-u"]


def _free_port() -> int:
    """Free on this machine, and so most probably on the hostfile's first, where ranks meet: runs do so side by side."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _environment(engine: EngineConfig) -> dict[str, str]:
    own = {"PDSH_SSH_ARGS_APPEND": " ".join(SSH_OPTIONS)}
    return own | os.environ | _environment_of_ranks(engine)


def _environment_of_ranks(engine: EngineConfig) -> dict[str, str]:
    """Each rank gets its share of the cores; torchrun alone would give it one."""
    threads = max(1, environment.cores() // engine.processes)
    # The profiler that measures communication would print its own stages.
    variables = {"OMP_NUM_THREADS": str(threads), "KINETO_LOG_LEVEL": "6", "FTBENCH_ASSETS": ""}
    chosen = {name: os.environ.get(name, default) for name, default in variables.items()}
    return {name: value for name, value in chosen.items() if value}


def _pending(plan: Plan, store: Store) -> list[PlannedRun]:
    return [planned for planned in plan.in_order() if not store.has(planned.run_id)]


def _record(plan: Plan, store: Store, ending: Ending) -> None:
    """The first machine records the run that was under way."""
    for planned in _pending(plan, store)[:1] if plan.hosts.node_rank == 0 else []:
        engine = planned.config.engine
        size = 1 if planned.source.is_baseline else engine.processes * engine.nodes
        store.write(record_of(planned, ending, size, environment.describe(device_of(0))))
