"""What a run is: typed, validated, one page. A YAML file says only how it differs from these defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.config.strategy import AttentionKind, Readout

Precision = Literal["auto", "fp32", "bf16", "fp64"]
Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0)]
Percentage = Annotated[float, Field(ge=0, le=100)]
# What every generator that is seeded (pandas' included) takes.
Seed = Annotated[int, Field(ge=0, lt=2**32)]


# Of a model that `transformers` reads.
HubName = Annotated[str, Field(pattern=r"^hf:.")]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelConfig(Part):
    """name: auto, mini, gpt2, gpt2-medium, gpt2-large, gpt2-xl, or hf: and a hub id, a folder or a GGUF file.
    weights: auto, pretrained, random, or a path.

    init and init_seed say how random weights are drawn; the seed of a run draws the head and the order only.
    """

    name: Literal["auto", "mini", "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"] | HubName = "auto"
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
    """AdamW. learning_rate None: 5e-5, the textbook's, for the published sizes; 3e-4 for mini, whose matrices are
    six times narrower: above it the loss of `full` and of `lora` has spikes."""

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
