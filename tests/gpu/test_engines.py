"""Both engines with one rank under the device's own communication library: NCCL, in the rehearsal gloo."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from harness.config.suite import load_suite
from harness.distributed.process_group import connect, disconnect
from harness.experiment.runner import prepare_store
from harness.launch.worker import work
from harness.model.named.weights import RandomWeights, filled_backbone
from harness.model.packing import PackedBatch
from harness.model.precision import InPrecision
from harness.model.split import split
from harness.planning.plan import resolve
from harness.planning.workspace import Workspace
from strategies import built_in_names, load
from tests.support.device_runs import SMALL, Finished, Runs
from tests.support.runs import losses_of

pytestmark = pytest.mark.gpu

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="the package deepspeed is not installed"
)
CHOSEN = ["last_block", "full", "lora"]
ZERO = [(2, name) for name in built_in_names()] + [(stage, name) for stage in (1, 3) for name in CHOSEN]


@pytest.fixture
def one_rank(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment in which a launcher starts the only rank of a group."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
    for name, value in {**ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    yield
    disconnect()


def test_a_rank_of_a_group_does_every_strategy(one_rank: None, runs: Runs, of_device: dict[str, Finished]) -> None:
    suite = load_suite(None, SMALL | {"strategy": built_in_names()}, [])
    plan = resolve(suite, runs.folder / "rank", Workspace(runs.folder / "cache")).model_copy(update={"quiet": True})
    store = runs.store("rank")
    store.check_writable()
    plan, _ = prepare_store(plan, store, force=False)
    work(plan, Workspace(plan.cache))
    records = {record.strategy: record for record in store.all()}
    assert {name: record.error for name, record in records.items()} == dict.fromkeys(built_in_names())
    for name, record in records.items():
        assert losses_of(store.results, record) == pytest.approx(of_device[name].losses, abs=1e-3), name


@pytest.mark.parametrize("name", CHOSEN)
def test_gradients_go_through_the_groups_all_reduce(one_rank: None, device: torch.device, name: str) -> None:
    world = connect(60)
    assert dist.get_backend() == ("nccl" if device.type == "cuda" else "gloo")
    batch = PackedBatch.one_token_each(6, device)
    gradients = []
    for wrapped in (False, True):
        torch.manual_seed(1)
        _, suffix = split(filled_backbone("mini", RandomWeights("gpt2", 0)), load(name).strategy, classes=2)
        model = InPrecision(suffix, "fp32", world.device)
        if wrapped:
            model = DistributedDataParallel(model, device_ids=[0] if device.type == "cuda" else None)
        if name == "last_block":
            inputs = torch.randn(6, 128, generator=torch.Generator().manual_seed(2)).to(device)
        else:
            inputs = torch.arange(6, device=device)
        F.cross_entropy(model(inputs, batch), torch.arange(6, device=device) % 2).backward()
        gradients.append([one.grad for one in suffix.parameters() if one.requires_grad])
    for alone, reduced in zip(*gradients, strict=True):
        torch.testing.assert_close(reduced, alone, atol=1e-5, rtol=1e-4)


@needs_deepspeed
@pytest.mark.parametrize(("stage", "name"), ZERO)
def test_zero_gives_the_same_losses(runs: Runs, of_device: dict[str, Finished], stage: int, name: str) -> None:
    found = runs.finished("zero", [name], engine__name="deepspeed", engine__zero_stage=stage)[name]
    assert found.record.engine.zero_stage == stage
    assert found.losses == pytest.approx(of_device[name].losses, abs=1e-3)


@needs_deepspeed
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_in_bfloat16(runs: Runs, of_device: dict[str, Finished], stage: int) -> None:
    options = {"engine__name": "deepspeed", "engine__zero_stage": stage, "precision": "bf16"}
    found = runs.finished("zero", ["last_block"], **options)["last_block"]
    assert found.losses == pytest.approx(of_device["last_block"].losses, abs=0.02)
