"""The configuration of a run, typed and validated. A YAML file holds only its differences from these defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from harness.config.places import HUB_PREFIX, is_hub
from harness.config.strategy import AttentionKind, Readout
from harness.metrics import MetricName

Precision = Literal["auto", "fp32", "bf16", "fp64"]
Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0)]
_BelowOne = Annotated[float, Field(ge=0, lt=1)]
Percentage = Annotated[float, Field(ge=0, le=100)]
# The range that NumPy's legacy generators, which pandas uses, take.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
AUTO = "auto"


def _joined(given: Any) -> Any:
    """A list of columns, or the number of one, as it is written on a command line."""
    if isinstance(given, list):
        return ",".join(map(str, given))
    return str(given) if type(given) in (int, float) else given


def _sizes(given: Any) -> Any:
    """Three sizes from `70/10/20`."""
    return given.split("/") if isinstance(given, str) else given


def _complete(sizes: tuple[float, float, float]) -> tuple[float, float, float]:
    if abs(sum(sizes) - 100) > 1e-9:
        raise ValueError(f"the sizes add up to {sum(sizes):g}, expected 100, such as 70/10/20")
    return sizes


ColumnNames = Annotated[str, BeforeValidator(_joined)]
_Size = Annotated[float, Field(gt=0, lt=100)]
SplitSizes = Annotated[tuple[_Size, _Size, _Size], BeforeValidator(_sizes), AfterValidator(_complete)]


def _hub_name(given: str) -> str:
    if not is_hub(given) or given == HUB_PREFIX:
        raise PydanticCustomError("hub_name", "hf: and a hub id, a folder or a GGUF file")
    return given


# A model that `transformers` reads.
HubName = Annotated[str, AfterValidator(_hub_name)]


class Part(BaseModel):
    """A part of a configuration: immutable, without unknown keys, infinities or NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelConfig(Part):
    """The pretrained model.

    name: auto, a size of GPT-2, or hf: and a hub id, a folder or a GGUF file.
    weights: auto, pretrained, random, or a path.
    init, init_seed: how random weights are drawn. The seed of a run draws only the head and the order of examples.
    """

    name: Literal["auto", "mini", "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"] | HubName = "auto"
    weights: str = "auto"
    init: Literal["gpt2", "pytorch"] = "gpt2"
    init_seed: Seed = 123


class DataConfig(Part):
    """The labelled texts and their split.

    name: auto, sms_spam, an embedded task (synthetic, negation, ...), a path to a file, a folder or an archive, or hf:
        and a data set of the hub.
    subset, revision: of a data set of the hub.
    text_column, label_column: by name, or by number without a header; several texts with commas between them.
    pair: two texts are a pair, which a tokenizer encodes as one; else they are joined. None: where their names say so.
    header: whether a file begins with names; None: found out. encoding: of a file.
    quoting: minimal: quotation marks quote what holds a delimiter; none: they are part of the text.
    balance: undersample every class to the size of the smallest; None: for sms_spam only, as the textbook does.
    split: official, the data's own; random; stratified, each class alike; or grouped, which keeps near-duplicates in
        one part. auto: official where there is one, random for embedded data, else stratified.
    split_sizes: percentages of train, validation and test texts.
    max_tokens: of a row, special ones included; None: as many as the model takes.
    cut: which part is kept of a text that is longer than a row.
    size: number of texts of an embedded task.
    """

    name: str = AUTO
    subset: str | None = None
    revision: str | None = None
    text_column: ColumnNames = AUTO
    label_column: ColumnNames = AUTO
    pair: bool | None = None
    header: bool | None = None
    encoding: str = AUTO
    quoting: Literal["auto", "minimal", "none"] = AUTO
    balance: bool | None = None
    split: Literal["auto", "official", "random", "stratified", "grouped"] = AUTO
    split_sizes: SplitSizes = (70, 10, 20)
    split_seed: Seed = 123
    max_tokens: Positive | None = None
    cut: Literal["head", "tail", "middle"] = "head"
    size: Annotated[int, Field(ge=10)] = 3000


class EngineConfig(Part):
    """What exchanges gradients and shards state.

    processes: ranks on each machine.
    nodes: machines.
    zero_stage: of deepspeed, which shards optimizer state (1), gradients (2) and parameters (3); None: 2.
    offload_optimizer: keep the optimizer's state in the CPU's memory (deepspeed).
    shard_frozen: shard the frozen parameters of the suffix, too (fsdp); else every rank holds them in full.
    restarts: how often a group that lost a rank starts again, from its last checkpoint.
    timeout_seconds: how long a rank waits for another.
    """

    name: Literal["ddp", "deepspeed", "fsdp"] = "ddp"
    processes: Positive = 1
    nodes: Positive = 1
    zero_stage: Annotated[int, Field(ge=0, le=3)] | None = None
    offload_optimizer: bool = False
    shard_frozen: bool = False
    restarts: Annotated[int, Field(ge=0)] = 3
    timeout_seconds: Annotated[float, Field(gt=0)] = 1800.0

    @property
    def world_size(self) -> int:
        """Ranks on all machines."""
        return self.processes * self.nodes


class Hosts(Part):
    """How the machines of a run find each other; not part of RunConfig, since it changes no result.

    node_rank: this machine's, from 0.
    rendezvous: HOST:PORT of the machine with rank 0.
    hostfile: for DeepSpeed's launcher, which starts the other machines itself.
    """

    node_rank: Annotated[int, Field(ge=0)] = 0
    rendezvous: str | None = None
    hostfile: Path | None = None


ONE_MACHINE = Hosts()


class FeaturesConfig(Part):
    """limit_gigabytes: disk space for the stored features of all prefixes; what exceeds it is computed each time."""

    limit_gigabytes: Fraction = 20.0


class OptimizerConfig(Part):
    """AdamW.

    learning_rate: the highest; None: 5e-5, the textbook's; for mini 3e-4, above which `full` and `lora` are unstable.
    schedule: how it falls after the warm-up: to zero in a straight line or as a cosine, or not at all.
    warmup: the part of all steps in which it rises from zero, 0.1 for a tenth.
    decay_norms_and_biases: False: weight decay for matrices only; vectors are norms and biases.
    clip_norm: largest norm of all gradients together; None: no clipping.
    """

    learning_rate: Annotated[float, Field(gt=0)] | None = None
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: _BelowOne = 0.0
    betas: tuple[_BelowOne, _BelowOne] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Fraction = 0.1
    decay_norms_and_biases: bool = True
    clip_norm: Annotated[float, Field(gt=0)] | None = None


class TrainingConfig(Part):
    """batch_size: rows of a step, on all ranks together.

    texts: train on so many of the training texts: a stratified part, drawn by the seed, that holds the smaller parts of
        the same seed; None: all.
    micro_batch_size: rows of one forward pass on one rank; None: the rank's full slice of the batch.
    drop_last: leave out the incomplete batch at the end of an epoch.
    class_weights: factors of the rows' losses; balanced: for each class in inverse proportion to its training texts.
        The loss of a step stays the sum over its rows divided by their number.
    label_smoothing: the part of each label that is spread evenly over all classes, as in PyTorch's cross_entropy.
    dropout: the part of the hidden state that the head reads which is set to zero in each step.
    gradient_checkpointing: keep only what enters each block of the suffix, and compute the rest again in the backward
        pass: less memory for a third more computation.
    keep: the parameters of the last epoch, or of the best one by the validation texts.
    patience: end training after as many epochs without a better one by the validation texts; None: never.
    validation_metric: what is better for both, ties broken by the loss; None: METRIC.
    checkpoint_steps: steps between two checkpoints; None: one is written only where a run is interrupted.
    """

    epochs: Annotated[int, Field(ge=0)] = 5
    batch_size: Positive = 8
    texts: Positive | None = None
    micro_batch_size: Positive | None = None
    drop_last: bool = True
    class_weights: Literal["none", "balanced"] = "none"
    label_smoothing: _BelowOne = 0.0
    dropout: _BelowOne = 0.0
    gradient_checkpointing: bool = False
    keep: Literal["last", "best"] = "last"
    patience: Positive | None = None
    validation_metric: MetricName | None = None
    checkpoint_steps: Positive | None = 500

    @property
    def judges_epochs(self) -> bool:
        """Whether the validation texts are asked after each epoch."""
        return self.keep == "best" or self.patience is not None

    def steps_of_epoch(self, texts: int) -> int:
        """texts: for training."""
        return texts // self.batch_size if self.drop_last else -(-texts // self.batch_size)


class AdapterConfig(Part):
    """What replaces rank and alpha of the strategy's adapter; None: as declared."""

    rank: Positive | None = None
    alpha: float | None = None


class RunConfig(Part):
    """A run: one strategy, one seed, one configuration.

    readout, readout_layer, attention, pad_to: None: as the strategy declares.
    plain: the reference path: rows padded to the longest text, float32, all layers computed at all positions in each
        step, PyTorch's default AdamW.
    deterministic: only algorithms that give the same bits each time, at the cost of speed; a CPU's do anyway.
    tf32: float32 products of a GPU in TF32, with ten bits of mantissa.
    forgetting: measure the language model's loss on the test texts before and after.
    """

    strategy: str = "last_block"
    seed: Seed = 0
    readout: Readout | None = None
    readout_layer: int | None = None
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
    deterministic: bool = False
    tf32: bool = False
    forgetting: bool = False
