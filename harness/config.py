"""What a run is: typed, validated, one page. A YAML file says only how it differs from these defaults."""

from __future__ import annotations

import difflib
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness import UserError
from harness.declare import AttentionKind, Readout

Precision = Literal["auto", "fp32", "bf16", "fp64"]
Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0)]
# What every generator that is seeded (pandas' included) takes.
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelConfig(Part):
    """name: auto, mini, gpt2, gpt2-medium, gpt2-large, gpt2-xl. weights: auto, pretrained, random, or a path.

    init and init_seed say how random weights are drawn; the seed of a run draws the head and the order only.
    """

    name: Literal["auto", "mini", "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"] = "auto"
    weights: str = "auto"
    init: Literal["gpt2", "pytorch"] = "gpt2"
    init_seed: Seed = 123


class DataConfig(Part):
    """name: auto, synthetic, sms_spam, or a path to a csv, tsv or jsonl file.

    balance: as many texts of each class as the smallest has; None: yes for sms_spam (the textbook's), else no.
    split: random, or grouped (near-duplicates on one side of the cut). size: how many texts synthetic generates.
    """

    name: str = "auto"
    text_column: str = "text"
    label_column: str = "label"
    balance: bool | None = None
    split: Literal["random", "grouped"] = "random"
    split_seed: Seed = 123
    size: int = Field(3000, ge=10)


class EngineConfig(Part):
    """processes: ranks on each machine. nodes: machines.

    zero_stage: what the ranks share, deepspeed's; None: 2. offload_optimizer: keep its state in the CPU's memory.
    restarts: how often a group that lost a rank starts again, from the last checkpoint. timeout_seconds: how long
    a rank waits for another.
    """

    name: Literal["ddp", "deepspeed"] = "ddp"
    processes: Positive = 1
    nodes: Positive = 1
    zero_stage: Annotated[int, Field(ge=0, le=3)] | None = None
    offload_optimizer: bool = False
    restarts: Annotated[int, Field(ge=0)] = 3
    timeout_seconds: Annotated[float, Field(gt=0)] = 1800.0


class Hosts(Part):
    """How the machines of a run find each other; no part of its configuration, since it changes no result.

    node_rank: this machine's number. rendezvous: HOST:PORT of the machine with number 0. hostfile: for DeepSpeed's
    launcher, which starts the other machines itself.
    """

    node_rank: Annotated[int, Field(ge=0)] = 0
    rendezvous: str | None = None
    hostfile: Path | None = None


ONE_MACHINE = Hosts()


class FeaturesConfig(Part):
    """limit_gigabytes: of stored prefix features on disk, all together; beyond it they are computed each time."""

    limit_gigabytes: Fraction = 20.0


class OptimizerConfig(Part):
    """AdamW. learning_rate None: 5e-5, the textbook's, for the published sizes; 1e-3 for mini, whose matrices are
    six times narrower."""

    learning_rate: Annotated[float, Field(gt=0)] | None = None
    weight_decay: Fraction = 0.1
    clip_norm: Annotated[float, Field(gt=0)] | None = None


class TrainingConfig(Part):
    """micro_batch_size: rows of one forward pass on one rank; None: the rank's whole share of the batch.

    checkpoint_steps: how many steps lie between two checkpoints; None: one is written only where a run is stopped.
    """

    epochs: Annotated[int, Field(ge=0)] = 5
    batch_size: Positive = 8
    micro_batch_size: Positive | None = None
    drop_last: bool = True
    checkpoint_steps: Positive | None = 500


class AdapterConfig(Part):
    rank: Positive | None = None
    alpha: float | None = None


class RunConfig(Part):
    """One strategy, one seed, one configuration. What is None is as the strategy declares it.

    plain: the reference path: rows padded to the longest text, float32, every layer recomputed at every position
    in each step, AdamW as PyTorch gives it by default.
    """

    strategy: str = "last_block"
    seed: Seed = 0
    readout: Readout | None = None
    attention: AttentionKind | None = None
    pad_to: Annotated[int, Field(ge=1, strict=True)] | Literal["longest"] | None = None
    adapter: AdapterConfig = AdapterConfig()
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    engine: EngineConfig = EngineConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    features: FeaturesConfig = FeaturesConfig()
    precision: Precision = "auto"
    plain: bool = False


class SuiteConfig(Part):
    """The runs that are compared in one table: every strategy with every seed on one configuration.

    reference: the strategy that the others are compared with; None: last_block, or else the first.
    """

    strategies: list[str]
    seeds: list[int]
    base: RunConfig
    reference: str | None = None

    def runs(self) -> list[RunConfig]:
        return [
            self.base.model_copy(update={"strategy": strategy, "seed": seed})
            for strategy in self.strategies
            for seed in self.seeds
        ]


def load_suite(file: Path | None, options: dict[str, Any], assignments: list[str]) -> SuiteConfig:
    """The configuration of a suite: the file's differences, then the options', then `a.b=c` assignments.

    options: dotted keys; None leaves a key as it is. `strategy` and `seed` may hold lists; `reference` is one of
    the strategies.
    Raises UserError for what is unknown or of the wrong type, with the nearest name.
    """
    tree = _read_file(file) if file else {}
    for key, value in options.items():
        if value is not None:
            _set(tree, key, value)
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise UserError(f'SET={assignment!r}: expected key=value, such as SET="optimizer.learning_rate=1e-4".')
        _set(tree, key, _scalar(value))
    strategies, seeds = _as_list(tree.pop("strategy", "last_block")), _as_list(tree.pop("seed", 0))
    reference = tree.pop("reference", None)
    if reference is not None and reference not in strategies:
        given = ", ".join(map(str, strategies))
        raise UserError(f"REFERENCE={reference!r} is none of the strategies of this suite: expected one of {given}.")
    for what, values in (("strategy", strategies), ("seed", seeds)):
        if not values:
            raise UserError(f"configuration key {what!r} is an empty list: name at least one {what}.")
    twice = [value for values in (strategies, seeds) for value in values if values.count(value) > 1]
    if twice:
        raise UserError(f"{twice[0]!r} is given twice: name each strategy and each seed once.")
    try:
        base = RunConfig.model_validate(tree)
        checked = [RunConfig.model_validate({"strategy": s, "seed": n}) for s in strategies for n in seeds]
    except ValidationError as error:
        raise UserError(_explain(error)) from error
    return SuiteConfig(
        strategies=list(dict.fromkeys(run.strategy for run in checked)),
        seeds=list(dict.fromkeys(run.seed for run in checked)),
        base=base,
        reference=reference,
    )


def parse_seeds(given: str) -> list[int]:
    """`0,1,2` or `0..9`."""
    try:
        first, dots, last = given.partition("..")
        seeds = list(range(int(first), int(last) + 1)) if dots else [int(part) for part in given.split(",")]
    except ValueError:
        seeds = []
    if not seeds:
        raise UserError(f"SEEDS={given!r}: expected whole numbers such as 0,1,2 or a range such as 0..9.")
    return seeds


def split_assignments(given: list[str]) -> list[str]:
    """`a=1 b='two words'` -> its assignments; quotes as in a shell."""
    try:
        return [assignment for text in given for assignment in shlex.split(text)]
    except ValueError as error:
        raise UserError(f"SET={' '.join(given)!r}: {error}; close the quotes.") from error


def _read_file(file: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"configuration file {str(file)!r} can't be read: {error}.") from error
    except yaml.YAMLError as error:
        raise UserError(f"configuration file {str(file)!r} is not YAML: {error}.") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"configuration file {str(file)!r}: expected keys and values, such as `strategy: full`.")
    return tree


def _set(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        if tree.get(parent) is None:
            tree[parent] = {}
        tree = tree[parent]
        if not isinstance(tree, dict):
            raise UserError(f"configuration key {parent!r} is {tree!r}: expected keys below it, such as {dotted!r}.")
    tree[last] = value


def _scalar(text: str) -> Any:
    """A value as YAML reads it; numbers such as 1e-4, which YAML 1.1 takes for text, count as numbers."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _explain(error: ValidationError) -> str:
    """One line a mistake: the key, what was given, what was expected; the alternatives of a union on one line."""
    known, expected = _fields(RunConfig), {}
    for mistake in error.errors():
        key = _key_of(mistake, known)
        if mistake["type"] in ("extra_forbidden", "invalid_key"):
            expected[f"unknown configuration key {key!r}: {_nearest_keys(key, known)}"] = []
        else:
            given = f"configuration key {key!r} is {mistake['input']!r}: expected "
            expected.setdefault(given, []).append(_expectation(key, mistake, known))
    return "\n".join(given + " or ".join(alternatives) for given, alternatives in expected.items())


def _key_of(mistake: dict[str, Any], known: list[str]) -> str:
    """Unions add a step per alternative to the location of a wrong value: only steps that are keys count."""
    steps = [str(step) for step in mistake["loc"]]
    if mistake["type"] != "extra_forbidden":
        while len(steps) > 1 and ".".join(steps) not in known:
            steps.pop()
    return ".".join(steps)


def _nearest_keys(key: str, known: list[str]) -> str:
    parent, _, name = key.rpartition(".")
    siblings = {other.rpartition(".")[2]: other for other in known if parent and other.startswith(f"{parent}.")}
    near = [other for other in known if other.rpartition(".")[2] == name]
    near = near or [siblings[other] for other in difflib.get_close_matches(name, siblings, n=1)]
    if not near and not siblings:
        near = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known keys are {', '.join(siblings.values() or known)}."


def _expectation(key: str, mistake: dict[str, Any], known: list[str]) -> str:
    if mistake["type"] == "model_type":
        return f"keys below it: {', '.join(other for other in known if other.startswith(f'{key}.'))}"
    given, hint = mistake["input"], ""
    if mistake["type"] == "literal_error" and isinstance(given, str):
        options = [option.strip("'") for option in mistake["ctx"]["expected"].replace(" or ", ", ").split(", ")]
        near = difflib.get_close_matches(given, options, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
    return mistake["msg"].removeprefix("Input should be ") + hint


def _fields(model: type[BaseModel], prefix: str = "") -> list[str]:
    names: list[str] = []
    for name, field in model.model_fields.items():
        nested = field.annotation
        is_part = isinstance(nested, type) and issubclass(nested, Part)
        names += _fields(nested, f"{prefix}{name}.") if is_part else [prefix + name]
    return names
