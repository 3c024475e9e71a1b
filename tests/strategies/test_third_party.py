"""A third party's strategies: by path, as a plug-in, and broken ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

import strategies
from harness import Strategy, cli
from harness.config.suite import load_suite
from harness.errors import UserError
from harness.launch.launcher import launch
from harness.model.gpt2 import GPT2
from harness.model.named.shapes import SHAPES
from harness.model.split import parameter_counts, split
from harness.planning.plan import resolve
from harness.planning.workspace import Workspace
from harness.results.store import Store
from tests.strategies.test_built_in import EXPECTED

OWN = '''"""Only the biases."""

from harness import Strategy


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
    assert prefix.facts.boundary == "block.2"
    trained = [name for name, parameter in suffix.named_parameters() if parameter.requires_grad]
    assert all(name.endswith("bias") or name == "head.weight" for name in trained)
    shape = SHAPES["mini"]
    in_biases = 2 * shape.hidden + 4 * shape.hidden + (4 + 1) * shape.hidden  # norms, attention, MLP
    assert parameter_counts(prefix, suffix)[1] == in_biases + 2 * shape.hidden + 2


def test_code_may_put_another_module_in_place_of_a_stages_own() -> None:
    def build(backbone: GPT2) -> None:
        backbone.blocks[3].mlp.contract = nn.Linear(4 * 128, 128)

    prefix, suffix = split(GPT2(SHAPES["mini"]), Strategy(build=build), 2)
    assert prefix.facts.boundary == "block.3"
    assert parameter_counts(prefix, suffix)[1] == 4 * 128 * 128 + 128 + 258


def test_code_may_use_a_block_twice(run_here: Callable, tmp_path: Path) -> None:
    """And be an object that can't be hashed."""
    path = tmp_path / "twice.py"
    path.write_text("""from dataclasses import dataclass

from harness import Strategy


@dataclass
class Twice:
    block: int

    def __call__(self, backbone):
        backbone.blocks[self.block + 1] = backbone.blocks[self.block]


strategy = Strategy(build=Twice(0), trainable=("block.-1",))
""")
    (record,) = run_here(strategy=[str(path)], data__size=50, training__epochs=0)
    assert (record.status, record.prefix.boundary) == ("ok", "block.3")


def test_values_that_code_changes_stay_changed(run_here: Callable, tmp_path: Path) -> None:
    source = """from harness import Strategy

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
    plan = resolve(load_suite(None, options, []), tmp_path / "results", Workspace(tmp_path / "cache"))
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
    imports = "from dataclasses import dataclass\nfrom harness import Strategy\n"
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


def test_a_plug_in_with_the_name_of_a_built_in_strategy_is_refused(install: Callable, run_here: Callable) -> None:
    install("acme_twin", OWN, "last_block = acme_twin")
    with pytest.raises(UserError, match="plug-in 'acme_twin' has the name of the built-in strategy 'last_block'"):
        run_here(strategy=["head_only"], data__size=50, training__epochs=0)


BROKEN = {
    "no Python": ("def (", "SyntaxError"),
    "fails": ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
    "fails oddly": ("{}['key']", "KeyError"),
    "divides": ("1 / 0", "ZeroDivisionError"),
    "leaves": ("import sys; sys.exit(0)", "SystemExit"),
    "needs what is not there": ("import no_such_module_anywhere", "no_such_module_anywhere"),
    "declares nothing": ("x = 1", "strategy = Strategy(...)"),
    "declares something else": ("strategy = 'full'", "strategy = Strategy(...)"),
    "unknown readout": ("from harness import *\nstrategy = Strategy(readout='lst')", "readout='lst'"),
    "unknown attention": (
        "from harness import *\nstrategy = Strategy(attention='both')",
        "attention='both'",
    ),
    "unknown field": ("from harness import *\nstrategy = Strategy(train=())", "train"),
    "one string": ("from harness import *\nstrategy = Strategy(trainable='all')", "trainable='all'"),
    "a list": ("from harness import *\nstrategy = Strategy(trainable=['all'])", "trainable=['all']"),
    "two adapters": (
        "from harness import *\nstrategy = Strategy(adapt=(Adapter(), Adapter()))",
        "at most",
    ),
    "no tuple": ("from harness import *\nstrategy = Strategy(adapt=Adapter())", "adapt=Adapter"),
    "number as input": ("from harness import *\nstrategy = Strategy(input=120)", "input=120"),
    "pads to nothing": ("from harness import *\nstrategy = Strategy(input=Input(0))", "pad_to=0"),
    "pads to a word": (
        "from harness import *\nstrategy = Strategy(input=Input('long'))",
        "pad_to='long'",
    ),
    "half a rank": ("from harness import *\nstrategy = Strategy(adapt=(Adapter(0.5),))", "rank=0.5"),
    "scale by a word": ("from harness import *\nstrategy = Strategy(adapt=(Adapter(scale='rank'),))", "scale='rank'"),
    "one target": ("from harness import *\nstrategy = Strategy(adapt=(Adapter(targets='mlp'),))", "targets='mlp'"),
    "rescales nothing": ("from harness import *\nstrategy = Strategy(adapt=(IA3(),))", "that IA3 rescales"),
    "empty prompt": ("from harness import *\nstrategy = Strategy(adapt=(PromptTuning(0),))", "length=0: expected how"),
    "half a prefix": ("from harness import *\nstrategy = Strategy(adapt=(PrefixTuning(0.5),))", "length=0.5: expected"),
    "half a layer": ("from harness import *\nstrategy = Strategy(readout_layer=0.5)", "readout_layer=0.5"),
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
