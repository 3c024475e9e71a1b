"""What strategies declare is what is trained; a third party's plug in by path and by entry point."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import strategies
from harness import UserError, cli
from harness.decide import trainable_parameters
from harness.declare import Adapter, Input, Strategy
from harness.launch import launch
from harness.model.adapters import LoRALinear, adapt
from harness.model.gpt2 import GPT2, SHAPES
from harness.model.models import GPT2Model
from harness.model.split import parameter_counts, split
from harness.plan import resolve
from harness.records import Store
from harness.suite_file import load_suite

# Trained parameters of the 124M model with two classes, and the first stage above the cut. Embeddings alone are no
# prefix worth keeping.
EXPECTED = {
    "head_only": (1_538, "head"),
    "last_block": (7_090_946, "block.11"),
    "last_two_blocks": (14_178_818, "block.10"),
    "full": (124_441_346, "embeddings"),
    "lora": (2_668_066, "embeddings"),
    "first_token": (7_090_946, "block.11"),
    "mean_pool": (7_090_946, "block.11"),
    "last_padded": (7_090_946, "block.11"),
    "no_causal_mask": (7_090_946, "block.11"),
}


def meta(model: str) -> GPT2:
    with torch.device("meta"):
        return GPT2(SHAPES[model])


def test_every_built_in_strategy_is_expected_here() -> None:
    assert set(strategies.built_in_names()) == set(EXPECTED)
    assert all(strategies.load(name).description.endswith(".") for name in EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_what_is_trained_and_where_the_cut_lies(name: str) -> None:
    declared = strategies.load(name).strategy
    expected, boundary = EXPECTED[name]
    assert trainable_parameters(declared, GPT2Model("gpt2"), 2) == expected
    with torch.device("meta"):
        prefix, suffix = split(meta("gpt2"), declared, 2)
    head = 768 * 2 + 2
    adapters = expected - head if name == "lora" else 0
    assert parameter_counts(prefix, suffix) == (124_439_808 + head + adapters, expected)
    assert prefix.boundary == boundary
    assert not any(parameter.requires_grad for parameter in prefix.parameters()), "a prefix never changes"
    assert all(parameter.requires_grad for parameter in suffix.head.parameters())


@pytest.mark.parametrize("model", SHAPES)
def test_every_strategy_fits_every_size(model: str) -> None:
    for name in EXPECTED:
        assert trainable_parameters(strategies.load(name).strategy, GPT2Model(model), 5) > 0


def test_the_head_has_a_row_for_each_class() -> None:
    assert trainable_parameters(Strategy(), GPT2Model("gpt2"), 7) == 7 * 768 + 7


@pytest.mark.parametrize(
    ("trainable", "boundary"),
    [
        ((), "head"),
        (("final_norm",), "final_norm"),
        (("block.3",), "block.3"),
        (("block.-4",), "embeddings"),  # block.0 of four: nothing but the embeddings lies below
        (("block.2", "block.1"), "block.1"),
        (("embeddings",), "embeddings"),
        (("all",), "embeddings"),
    ],
)
def test_the_cut_follows_from_what_is_trained(trainable: tuple[str, ...], boundary: str) -> None:
    prefix, _ = split(GPT2(SHAPES["mini"]), Strategy(trainable=trainable), 2)
    assert prefix.boundary == boundary


def test_the_second_name_of_a_block_is_the_same_block() -> None:
    trained = []
    for name in ("block.-1", "block.3"):
        _, suffix = split(GPT2(SHAPES["mini"]), Strategy(trainable=(name,)), 2)
        trained.append([name for name, parameter in suffix.named_parameters() if parameter.requires_grad])
    assert trained[0] == trained[1]


@pytest.mark.parametrize("stage", ["block.12", "block.-13", "block.x", "block.", "blocks.1", "head", "norm", ""])
def test_a_stage_that_does_not_exist_is_named(stage: str) -> None:
    with pytest.raises(UserError, match=r"'block\.N' with N from -12 to 11") as caught:
        trainable_parameters(Strategy(trainable=(stage,)), GPT2Model("gpt2"), 2)
    assert repr(stage) in str(caught.value)


# Adapters


@pytest.mark.parametrize(("rank", "alpha"), [(1, 1.0), (4, 0.5), (16, 16.0)])
def test_an_adapted_layer_adds_alpha_times_the_low_rank_product(rank: int, alpha: float) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(12, 7)
    weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
    adapted = LoRALinear(layer, Adapter(rank, alpha)).double()
    hidden = torch.randn(5, 12, dtype=torch.float64)
    assert torch.equal(adapted(hidden), nn.functional.linear(hidden, weight, bias)), "it starts as what it adapts"
    with torch.no_grad():
        adapted.up.normal_()
    a, b = adapted.down, adapted.up  # stored as Linear stores: [outputs, inputs]
    assert (tuple(a.shape), tuple(b.shape)) == ((rank, 12), (7, rank))
    expected = torch.stack([weight @ row + bias + alpha * (b @ (a @ row)) for row in hidden])
    torch.testing.assert_close(adapted(hidden), expected, rtol=1e-12, atol=1e-12)


def test_adapters_are_what_is_trained_and_every_linear_has_one() -> None:
    model = GPT2(SHAPES["mini"]).requires_grad_(False)
    linears = sum(isinstance(module, nn.Linear) for module in model.modules())
    adapt(model, Adapter(rank=2))
    adapted = [module for module in model.modules() if isinstance(module, LoRALinear)]
    assert len(adapted) == linears == 4 * 6
    trained = {name.rpartition(".")[2] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"down", "up"}
    assert all(module.down.abs().sum() > 0 for module in adapted), "with both at zero nothing would ever be learned"


@pytest.mark.parametrize("rank", [1, 8, 32])
def test_adapter_parameters_grow_with_the_rank(rank: int) -> None:
    head, of_rank_16 = 1_538, 2_668_066
    trained = trainable_parameters(Strategy(adapt=(Adapter(rank),)), GPT2Model("gpt2"), 2)
    assert trained - head == (of_rank_16 - head) // 16 * rank


def test_untrained_lora_answers_as_the_untrained_model(run_here: Callable, tmp_path: Path) -> None:
    options = {"data__size": 50, "training__epochs": 0, "precision": "fp64"}
    records = run_here(strategy=["head_only", "lora"], **options)
    frames = [pd.read_csv(tmp_path / "results" / "runs" / r.run_id / "predictions.csv") for r in records]
    pd.testing.assert_frame_equal(*frames, rtol=1e-12, atol=1e-12)


def test_the_rank_of_a_run_can_be_changed(run_here: Callable) -> None:
    options = {"data__size": 50, "training__epochs": 0}
    records = [run_here(strategy=["lora"], adapter__rank=rank, **options)[0] for rank in (2, 4)]
    small, large = (record.model.trainable_parameters for record in records)
    head = 128 * 2 + 2
    assert large - head == 2 * (small - head)


# A third party's strategies

OWN = '''"""Only the biases."""

from harness.declare import Strategy


def build(backbone):
    for name, parameter in backbone.named_parameters():
        if name.startswith("blocks.2") and name.endswith("bias"):
            parameter.requires_grad_(True)


strategy = Strategy(build=build, readout="mean")
'''


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "biases.py"
    path.write_text(OWN)
    return path


def test_a_strategy_by_path(own: Path) -> None:
    entry = strategies.load(str(own))
    assert (entry.name, entry.description, entry.strategy.readout) == ("biases", "Only the biases.", "mean")
    assert entry.origin == f"file {own}"
    assert entry.sha256 == hashlib.sha256(own.read_bytes()).hexdigest()


def test_a_strategy_with_code_is_cut_above_what_it_leaves_frozen(own: Path) -> None:
    prefix, suffix = split(GPT2(SHAPES["mini"]), strategies.load(str(own)).strategy, 2)
    assert prefix.boundary == "block.2"
    trained = [name for name, parameter in suffix.named_parameters() if parameter.requires_grad]
    assert all(name.endswith("bias") or name == "head.weight" for name in trained)
    shape = SHAPES["mini"]
    in_biases = 2 * shape.hidden + 4 * shape.hidden + (4 + 1) * shape.hidden  # norms, attention, MLP
    assert parameter_counts(prefix, suffix)[1] == in_biases + 2 * shape.hidden + 2


def test_code_may_put_another_module_in_place_of_a_stages_own() -> None:
    def build(backbone: GPT2) -> None:
        backbone.blocks[3].mlp.contract = nn.Linear(4 * 128, 128)

    prefix, suffix = split(GPT2(SHAPES["mini"]), Strategy(build=build), 2)
    assert prefix.boundary == "block.3"
    assert parameter_counts(prefix, suffix)[1] == 4 * 128 * 128 + 128 + 258


def test_values_that_code_changes_stay_changed(run_here: Callable, tmp_path: Path) -> None:
    source = """from harness.declare import Strategy

def build(backbone):
    for block in backbone.blocks:
        block.mlp.contract.weight.data.mul_({factor})

strategy = Strategy(build=build, trainable=("block.-1",))
"""
    losses = []
    for factor in (0, 1):
        path = tmp_path / f"times_{factor}.py"
        path.write_text(source.format(factor=factor))
        (record,) = run_here(strategy=[str(path)], data__size=50, training__epochs=0)
        losses.append(record.metrics.test.loss)
    assert losses[0] != pytest.approx(losses[1], rel=1e-6)


def test_a_run_tells_whose_code_it_ran(own: Path, run_here: Callable, tmp_path: Path) -> None:
    (record,) = run_here(strategy=[str(own)], data__size=50, training__epochs=1)
    assert record.status == "ok"
    assert record.strategy == "biases"
    assert record.strategy_source.origin == f"file {own}"
    assert record.strategy_source.sha256 == hashlib.sha256(own.read_bytes()).hexdigest()
    assert record.prefix.boundary == "block.2"
    assert f"Biases ran code from outside the harness: file {own}" in (tmp_path / "results" / "table.md").read_text()


def test_another_file_under_the_same_name_is_another_run(own: Path, run_here: Callable) -> None:
    options = {"strategy": [str(own)], "data__size": 50, "training__epochs": 0}
    assert len(run_here(**options)) == 1
    assert run_here(**options) == []
    own.write_text(OWN.replace("Only the biases.", "Only the biases of a block."))
    assert len(run_here(**options)) == 1


def test_a_file_that_has_changed_since_the_plan_does_not_run(own: Path, tmp_path: Path) -> None:
    """Its result would stand under the hash of another file."""
    options = {"strategy": [str(own)], "model.name": "mini", "data.name": "synthetic", "data.size": 50}
    plan = resolve(load_suite(None, options, []), tmp_path / "results", tmp_path / "cache")
    own.write_text(OWN + "# changed")
    store = Store(tmp_path / "results")
    store.check_writable()
    launch(plan.model_copy(update={"quiet": True}))
    (record,) = store.all()
    assert record.status == "failed"
    assert "has changed since this suite began: give the command again" in record.error


def test_a_file_may_declare_dataclasses(tmp_path: Path) -> None:
    """These look their module up by name."""
    path = tmp_path / "settings.py"
    declared = "@dataclass\nclass Settings:\n    rate: float = 0.5\n\n\nstrategy = Strategy()\n"
    imports = "from dataclasses import dataclass\nfrom harness.declare import Strategy\n"
    path.write_text(f"from __future__ import annotations\n{imports}{declared}")
    assert strategies.load(str(path)).name == "settings"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], None]:
    """Install a distribution as pip would: a package and a dist-info folder on the path."""

    def put(package: str, source: str, entry_points: str) -> None:
        site = tmp_path / "site"
        (site / package).mkdir(parents=True)
        (site / package / "__init__.py").write_text(source)
        info = site / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[ftbench.strategies]\n{entry_points}\n")
        monkeypatch.syspath_prepend(site)

    return put


def test_a_strategy_by_entry_point(install: Callable, tmp_path: Path, capsys, monkeypatch) -> None:
    assert "ours" not in strategies.names()
    install("acme_strategies", OWN, "ours = acme_strategies")
    assert strategies.names()[-1] == "ours"
    assert "ours" not in strategies.built_in_names(), "STRATEGY=all runs nobody else's code"
    entry = strategies.load("ours")
    assert (entry.name, entry.strategy.readout) == ("ours", "mean")
    assert entry.origin == "entry point acme_strategies"
    (tmp_path / "site" / "acme_strategies" / "used.py").write_text("# what it imports")
    assert strategies.load("ours").sha256 != entry.sha256

    monkeypatch.setattr("sys.argv", ["ftbench", "list", "--model", "mini"])
    with pytest.raises(SystemExit) as exited:
        cli.main()
    listed = capsys.readouterr().out
    assert exited.value.code in (0, None)
    assert all(name in listed for name in [*EXPECTED, "ours"])
    assert "acme_strategies" in listed


def test_an_installed_strategy_runs(install: Callable, run_here: Callable, tmp_path: Path) -> None:
    install("acme_other", OWN, "other = acme_other")
    (record,) = run_here(strategy=["other"], data__size=50, training__epochs=0)
    assert (record.status, record.strategy_source.origin) == ("ok", "entry point acme_other")
    assert [other.status for other in Store(tmp_path / "results").all()] == ["ok"]


BROKEN = {
    "no Python": ("def (", "SyntaxError"),
    "fails": ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
    "fails oddly": ("{}['key']", "KeyError"),
    "divides": ("1 / 0", "ZeroDivisionError"),
    "leaves": ("import sys; sys.exit(0)", "SystemExit"),
    "needs what is not there": ("import no_such_module_anywhere", "no_such_module_anywhere"),
    "declares nothing": ("x = 1", "strategy = Strategy(...)"),
    "declares something else": ("strategy = 'full'", "strategy = Strategy(...)"),
    "unknown readout": ("from harness.declare import *\nstrategy = Strategy(readout='lst')", "readout='lst'"),
    "unknown attention": ("from harness.declare import *\nstrategy = Strategy(attention='both')", "attention='both'"),
    "unknown field": ("from harness.declare import *\nstrategy = Strategy(train=())", "train"),
    "one string": ("from harness.declare import *\nstrategy = Strategy(trainable='all')", "trainable='all'"),
    "no tuple": ("from harness.declare import *\nstrategy = Strategy(adapt=Adapter())", "adapt=Adapter"),
    "number as input": ("from harness.declare import *\nstrategy = Strategy(input=120)", "input=120"),
    "pads to nothing": ("from harness.declare import *\nstrategy = Strategy(input=Input(0))", "pad_to=0"),
    "pads to a word": ("from harness.declare import *\nstrategy = Strategy(input=Input('long'))", "pad_to='long'"),
    "half a rank": ("from harness.declare import *\nstrategy = Strategy(adapt=(Adapter(0.5),))", "rank=0.5"),
    "bytes": ("\0", "null bytes"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_module_is_named_with_its_mistake(what: str, tmp_path: Path) -> None:
    source, mistake = BROKEN[what]
    path = tmp_path / "broken.py"
    path.write_text(source)
    with pytest.raises(UserError) as caught:
        strategies.load(str(path))
    assert str(path) in str(caught.value)
    assert mistake in str(caught.value)


@pytest.mark.parametrize(
    ("entry_points", "part"),
    [
        ("broken = acme_broken_absent", "acme_broken_absent"),
        ("broken = acme_broken:nothing_there", "nothing_there"),
        ("broken = acme_broken:strategy", "strategy = Strategy(...)"),  # the object instead of its module
    ],
)
def test_a_broken_installation_is_named(install: Callable, entry_points: str, part: str) -> None:
    install("acme_broken", OWN, entry_points)
    with pytest.raises(UserError, match="'broken'") as caught:
        strategies.load("broken")
    assert part in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.py"):
        strategies.load(str(tmp_path / "absent.py"))


def test_declarations_are_frozen() -> None:
    declared = strategies.load("last_block").strategy
    with pytest.raises(AttributeError):
        declared.readout = "first"
    assert hash(Strategy(adapt=(Adapter(),), input=Input("longest")))
