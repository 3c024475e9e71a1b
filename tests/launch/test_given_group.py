"""A group of ranks that another launcher has started: it is joined, and does what NPROC would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.config.schema import Hosts
from harness.config.suite import load_suite
from harness.errors import UserError
from harness.launch.given_group import GivenGroup, asked_of_torchrun, given_group
from harness.results.record import Record
from harness.results.store import Store
from tests.support.runs import SMALL_RUN, command, losses_of, run_command

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
GROUP = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}
# A program of each rank that says when its interpreter shuts down.
TELLS_SHUTDOWN = """
import atexit, os
if "RANK" in os.environ:
    atexit.register(print, "rank", os.environ["RANK"], "shut down")
"""


def _records(results: Path) -> dict[str, Record]:
    return {record.strategy: record for record in Store(results).all()}


def test_a_group_of_torchrun_does_the_runs_of_nproc(tmp_path: Path) -> None:
    """NPROC=2 then finds them done, and the losses are those of one process."""
    run = ["run", *SMALL_RUN, "--precision=fp64"]
    _, _, *arguments = command(tmp_path, *run)
    (tmp_path / "sitecustomize.py").write_text(TELLS_SHUTDOWN, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    given = subprocess.run([*TORCHRUN, *arguments], capture_output=True, text=True, check=False, env=environment)
    assert given.returncode == 0, given.stderr
    assert given.stdout.count("reference") == 1, "the first rank alone prints the table"
    assert "shut down" not in given.stdout, "gloo's threads abort a rank in a shutdown now and then"
    records = _records(tmp_path / "results")
    assert records["last_block"].engine.world_size == 2
    run_command(tmp_path, *run, "--nproc=2")
    assert _records(tmp_path / "results") == records
    run_command(tmp_path / "alone", *run)
    alone = _records(tmp_path / "alone" / "results")["last_block"]
    losses = losses_of(tmp_path / "results", records["last_block"])
    assert losses == pytest.approx(losses_of(tmp_path / "alone" / "results", alone), abs=1e-9)


@pytest.mark.long
def test_wrong_input_ends_every_rank_and_is_told_once(tmp_path: Path) -> None:
    _, _, *arguments = command(tmp_path, "run", *SMALL_RUN, "--set=engine.processes=3")
    refused = subprocess.run([*TORCHRUN, *arguments], capture_output=True, text=True, check=False)
    assert refused.returncode == 1, "of torchrun"
    assert "NPROC=3, NNODES=1 in a group of 2 ranks" in refused.stderr
    _, _, *arguments = command(tmp_path, "run", "--model=mini", "--strategy=nothing")
    refused = subprocess.run([*TORCHRUN, *arguments], capture_output=True, text=True, check=False)
    assert refused.stderr.count("unknown strategy 'nothing'") == 1
    assert "exitcode: 2" in refused.stderr


def test_a_group_is_read_from_the_environment() -> None:
    assert given_group({}) is None
    assert given_group({"RANK": "0", "WORLD_SIZE": "1"}) is None
    group = given_group(GROUP)
    assert group == GivenGroup(rank=3, processes=2, nodes=2, rendezvous="127.0.0.1:29500")
    assert group.hosts == Hosts(node_rank=1, rendezvous="127.0.0.1:29500")
    suite = group.taken_over(load_suite(None, {}, []))
    assert [(run.engine.processes, run.engine.nodes) for run in suite.runs()] == [(2, 2)]
    group.taken_over(load_suite(None, {"engine.processes": 2, "engine.nodes": 2}, []))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"LOCAL_RANK": ""}, "without LOCAL_RANK"),
        ({"RANK": "first"}, "RANK='first' in the environment"),
        ({"WORLD_SIZE": "3"}, "WORLD_SIZE=3 with LOCAL_WORLD_SIZE=2"),
        ({"LOCAL_WORLD_SIZE": "0"}, "WORLD_SIZE=4 with LOCAL_WORLD_SIZE=0"),
        ({"LOCAL_RANK": "x"}, "LOCAL_RANK='x' in the environment"),
        ({"MASTER_PORT": "abc"}, "MASTER_PORT='abc' in the environment"),
        ({"RANK": "4"}, "RANK=4 of WORLD_SIZE=4"),
        ({"LOCAL_RANK": "2"}, "LOCAL_RANK=2 of LOCAL_WORLD_SIZE=2"),
    ],
)
def test_half_a_group_is_refused(changes: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        given_group(GROUP | changes)


def test_what_torchrun_would_read_asks_for_ranks() -> None:
    assert asked_of_torchrun({}) is None
    assert asked_of_torchrun({"PET_NNODES": "1", "PET_NPROC_PER_NODE": "1"}) is None
    several = {"PET_NNODES": "2", "PET_NPROC_PER_NODE": "4", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "node-0"}
    engine, hosts = asked_of_torchrun(several | {"PET_MASTER_PORT": "29400"})
    assert engine == {"processes": 4, "nodes": 2}
    assert hosts == Hosts(node_rank=1, rendezvous="node-0:29400")
    engine, _ = asked_of_torchrun(several | {"PET_NPROC_PER_NODE": "cpu"})
    assert engine["processes"] == os.cpu_count()
    with pytest.raises(UserError, match="PET_NODE_RANK='first' in the environment"):
        asked_of_torchrun(several | {"PET_NODE_RANK": "first"})
    with pytest.raises(UserError, match="PET_NPROC_PER_NODE='several'"):
        asked_of_torchrun({"PET_NPROC_PER_NODE": "several"})
