"""GPT-2 124M in float32: none of the levers moves a result by more than the last bit of the weights does."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import strategies
from harness import kernels
from harness.config.schema import DataConfig, OptimizerConfig, TrainingConfig
from harness.data.dataset import load_dataset
from harness.data.downloads import assets_folder
from harness.data.encoding import Examples, RowRule, encode_split, longest_row
from harness.data.tokenizer import load_tokenizer
from harness.distributed.process_group import World
from harness.features.features import Features
from harness.features.loader import PrefixLoader
from harness.features.store import FeatureStore
from harness.measure.clock import Clock
from harness.model.gpt2 import GPT2
from harness.model.named.shapes import SHAPES
from harness.model.named.weights import RandomWeights, filled_backbone
from harness.model.split import Prefix, Suffix, split
from harness.results.store import Store
from harness.training.batches import TrainingBatches
from harness.training.checkpoints import Checkpoints
from harness.training.engines.ddp import DDPEngine
from harness.training.evaluation import predict
from harness.training.loop import train
from harness.training.selection import Selection
from tests.support.runs import losses_of

CPU = torch.device("cpu")
WORLD = World(0, 1, CPU)
OPTIMIZER = OptimizerConfig(learning_rate=5e-5)


ENGINES = {
    "one process": [],
    "DDP, 2 ranks": ["--nproc", "2"],
    "DDP, 4 ranks": ["--nproc", "4"],
    **{f"ZeRO {stage}, 2 ranks": ["--engine", "deepspeed", "--zero", str(stage), "--nproc", "2"] for stage in range(4)},
    **{f"FSDP, {ranks} ranks": ["--engine", "fsdp", "--nproc", str(ranks)] for ranks in (2, 4)},
}


@pytest.fixture
def file_of_messages(assets: Path, tmp_path: Path) -> Path:
    """686 real messages, of which 480 are for training."""
    file = tmp_path / "messages.csv"
    load_dataset(DataConfig(name="sms_spam"), tmp_path).split["train"].iloc[:686].to_csv(file, index=False)
    return file


@pytest.fixture
def messages(file_of_messages: Path, tmp_path: Path) -> Callable[[int], Examples]:
    def first(count: int) -> Examples:
        part = load_dataset(DataConfig(name=str(file_of_messages)), tmp_path).split["train"].iloc[:count]
        tokenizer = load_tokenizer("gpt2", tmp_path, assets_folder())
        return encode_split({"train": part}, tokenizer, ["ham", "spam"], RowRule(SHAPES["gpt2"].context))["train"]

    return first


def _cut(strategy: str, plain: bool, ulps: int | None = None) -> tuple[GPT2, Prefix, Suffix]:
    """ulps: seed of a perturbation that moves every weight to a neighbouring float32."""
    backbone = filled_backbone("gpt2", RandomWeights("gpt2", 123))
    if ulps is not None:
        generator = torch.Generator().manual_seed(ulps)
        for parameter in backbone.parameters():
            towards = torch.randint(0, 2, parameter.shape, generator=generator) * 2.0 - 1
            parameter.data = torch.nextafter(parameter.data, towards * torch.inf)
    torch.manual_seed(0)
    prefix, suffix = split(backbone, strategies.load(strategy).strategy, 2)
    if not plain:
        kernels.optimize(suffix, CPU, "fp32")
    return backbone, prefix, suffix


def _stored(folder: Path, prefix: Prefix, examples: Examples) -> Features:
    loader = PrefixLoader(prefix, None, CPU, "fp32")
    store = FeatureStore(folder, 10**10, WORLD)
    features, report = store.open(loader, {"train": examples}, SHAPES["gpt2"].hidden, recipe=None)
    assert report.not_stored is None
    return features["train"]


def _computed(prefix: Prefix, examples: Examples, width: int | None, plain: bool) -> Features:
    PrefixLoader(prefix, None, CPU, "fp32", plain).load()
    return Features.computed(prefix, examples, CPU, width)


def _engine(suffix: Suffix, plain: bool) -> DDPEngine:
    engine = DDPEngine(WORLD, "fp32", fused=not plain)
    engine.prepare(suffix, OPTIMIZER)
    return engine


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["head_only", "last_block", "first_token"])
def test_logits_with_and_without_each_lever(messages: Callable, tmp_path: Path, strategy: str) -> None:
    examples = messages(48)
    width = longest_row({"train": examples})

    def logits(stored: bool, reads: bool, packed: bool) -> np.ndarray:
        _, prefix, suffix = _cut(strategy, plain=not reads)
        features = (
            _stored(tmp_path, prefix, examples)
            if stored
            else _computed(prefix, examples, None if packed else width, plain=not reads)
        )
        return predict(_engine(suffix, plain=False), features, WORLD)

    plain = logits(stored=False, reads=False, packed=False)
    for levers in ((False, True, False), (False, False, True), (False, True, True), (True, False, True), (True,) * 3):
        assert np.abs(logits(*levers) - plain).max() < 1e-5, levers


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["last_block", "full"])
def test_60_losses_lie_within_what_one_ulp_opens(
    ftbench: Callable, file_of_messages: Path, messages: Callable, tmp_path: Path, strategy: str
) -> None:
    """Those of the plain path, and those of every engine and number of ranks."""
    examples = messages(480)

    def losses(plain: bool, ulps: int | None = None) -> np.ndarray:
        _, prefix, suffix = _cut(strategy, plain, ulps)
        if plain:
            features = _computed(prefix, examples, longest_row({"train": examples}), plain)
        else:
            features = (
                _stored(tmp_path, prefix, examples) if prefix.stages else _computed(prefix, examples, None, plain)
            )
        engine = _engine(suffix, plain)
        config = TrainingConfig(epochs=1)
        checkpoints = Checkpoints(tmp_path / "checkpoints", {}, None)
        clock, selection = Clock(CPU), Selection(config, validate=lambda: pytest.fail("no epoch is judged"))
        batches = TrainingBatches(features, examples, config, 0, WORLD)
        curve, _ = train(engine, batches, OPTIMIZER, selection, checkpoints, clock, lambda *_: None)
        return np.array(curve.losses)

    def arranged(options: list[str]) -> np.ndarray:
        of_file = ["--strategy", strategy, "--data", str(file_of_messages), "--epochs", "1", *options]
        done = ftbench("run", "--model", "gpt2", "--weights", "random", "--precision", "fp32", *of_file, timeout=1800)
        assert done.returncode == 0, done.stderr
        (record,) = Store(tmp_path / "results").all()
        found = losses_of(tmp_path / "results", record)
        shutil.rmtree(tmp_path / "results")
        return np.array(found)

    ours = losses(plain=False)
    assert len(ours) == 60
    envelope = max(np.abs(losses(plain=False, ulps=seed) - ours).max() for seed in range(8))
    print(f"{strategy}: one ulp opens {envelope:.2e}", flush=True)
    deviations = {"plain path": np.abs(losses(plain=True) - ours).max()}
    for name, options in ENGINES.items():
        deviations[name] = np.abs(arranged(options) - ours).max()
        print(f"{strategy}: {name} differs by {deviations[name]:.2e}", flush=True)
    assert all(deviation <= envelope for deviation in deviations.values()), (envelope, deviations)


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["head_only", "last_block"])
def test_bfloat16_is_as_accurate_as_float32(ftbench: Callable, tmp_path: Path, assets: Path, strategy: str) -> None:
    common = ["run", "--strategy", strategy, "--model", "gpt2", "--weights", "random", "--data", "sms_spam"]
    means = {}
    for precision in ("fp32", "bf16"):
        done = ftbench(*common, "--seeds", "0..4", "--precision", precision, timeout=1800)
        assert done.returncode == 0, done.stderr
        records = [record for record in Store(tmp_path / "results").all() if record.precision == precision]
        assert len(records) == 5
        means[precision] = np.mean([record.metrics.test.accuracy for record in records])
    print(f"{strategy}: mean test accuracy of 5 seeds {means}")
    assert abs(means["bf16"] - means["fp32"]) <= 0.01
