"""The options of the command line: the one place from which `ftbench`, the Makefile and docs/variables.md take them.

After a change: `python -m tools.variables_reference`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path


@dataclass(frozen=True)
class Option:
    """An option of `ftbench run`, and the variable of make that is passed on as it: `node-rank` is `NODE_RANK`.

    help: Markdown, without links. key: what it sets in the configuration; None where it changes no result of a run.
    type: of its value; bool for a flag. default: None where the configuration has it. default_text: the default in
    words, where neither has a value to show. minimum: the least value. see: a link for docs/variables.md. targets: of
    make, which pass it on; bench is `ftbench run`.
    """

    name: str
    help: str
    key: str | None = None
    type: Any = str
    default: Any = None
    default_text: str = ""
    minimum: int | None = None
    see: str = ""
    targets: tuple[str, ...] = ("bench",)

    @property
    def parameter(self) -> str:
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        return self.parameter.upper()

    @property
    def is_flag(self) -> bool:
        return self.type is bool


OPTIONS = (
    Option("strategy", "a name, a comma list, a path to a `.py` file, or `all` (with baselines)", key="strategy"),
    Option(
        "model",
        "`auto`, `mini`, `gpt2`, `gpt2-medium`, `gpt2-large`, `gpt2-xl`, or `hf:` with a hub id, folder or GGUF file",
        key="model.name",
        see="[other backbones](backbones.md)",
        targets=("bench", "data"),
    ),
    Option(
        "weights",
        "`auto`, `pretrained`, `random`, or a path to a `.safetensors` file or its folder",
        key="model.weights",
    ),
    Option(
        "data",
        "`auto`, `sms_spam`, an embedded task such as `synthetic`, `hf:` and a data set of the hub, or a path to a "
        "file, a folder or an archive; several with commas between them",
        key="data.name",
        see="[your own data](data.md)",
    ),
    Option(
        "readout",
        "`first`, `last`, `mean`, `max` or `attention`",
        key="readout",
        default_text="the strategy's",
    ),
    Option("engine", "`ddp`, `deepspeed` or `fsdp`", key="engine.name", see="[engines](engines.md)"),
    Option("zero", "DeepSpeed's ZeRO stage, `0` to `3`", key="engine.zero_stage", type=int, default_text="`2`"),
    Option("nproc", "ranks on each machine", key="engine.processes", type=int),
    Option("nnodes", "machines", key="engine.nodes", type=int),
    Option("node-rank", "the number of this machine, from `0`", type=int, default=0, minimum=0),
    Option("rdzv", "`HOST:PORT` of machine 0, the same on every machine", default_text="none: one machine"),
    Option(
        "hostfile",
        "machines for DeepSpeed's launcher, `HOST slots=N` a line",
        type=Path,
        default_text="none",
    ),
    Option("seeds", "a list such as `0,1,2` or a range such as `0..9`", key="seed"),
    Option(
        "reference",
        "the strategy that the others are compared with; of `make gate` the folder of its reference",
        key="reference",
        default_text="`last_block`, or else the first",
        targets=("bench", "report", "gate"),
    ),
    Option(
        "metric",
        "what decides, in verdicts and between learning rates, epochs and classifiers: `accuracy`, `macro_f1`, "
        "`balanced_accuracy` or `mcc`",
        key="metric",
        default_text="`accuracy`",
        see="[unbalanced classes](data.md#balance)",
        targets=("bench", "report"),
    ),
    Option(
        "tune",
        "`lr`: each strategy also at its own best learning rate of a small grid, chosen on the validation texts",
        key="tune",
        default_text="none",
    ),
    Option(
        "sizes",
        "numbers of training texts, such as `32,100,316,all`: each strategy and baseline on stratified parts of them",
        key="sizes",
        default_text="`all`",
        see="[how many labels](statistics.md#how-many-labels)",
    ),
    Option(
        "layers",
        "`all`, or numbers such as `0,3,6`: each strategy read at each of these blocks",
        key="layers",
        default_text="the strategy's",
        see="[layers](strategies.md#layers)",
    ),
    Option("epochs", "passes over the training texts", key="training.epochs", type=int),
    Option(
        "precision",
        "`auto` (bfloat16 where the processor or GPU has units for it), `fp32`, `bf16` or `fp64`",
        key="precision",
    ),
    Option(
        "config",
        "a YAML file that says how a run, or each row of a suite, differs from the defaults; or the name of one in "
        "`configs/`",
        type=Path,
        default_text="none",
        see="[a suite from a file](#a-suite-from-a-file)",
        targets=("bench", "gate"),
    ),
    Option(
        "set",
        "`key=value` for any key of `harness/config/schema.py`, such as `optimizer.learning_rate=1e-4`; several with "
        "spaces between them",
        type=list[str],
        default_text="none",
        targets=("bench", "data"),
    ),
    Option(
        "results",
        "the folder for records and tables",
        type=Path,
        default=Path("results"),
        targets=("bench", "report", "gate"),
    ),
    Option(
        "cache",
        "the folder for downloads and stored features",
        type=Path,
        default=user_cache_path("ftbench", appauthor=False),
        default_text="the user's cache folder",
        targets=("bench", "report", "gate", "data"),
    ),
    Option(
        "jobs",
        "runs of a suite that are done side by side on this machine: a number, or `auto`",
        default="1",
        see="[side by side](engines.md#runs-side-by-side)",
    ),
    Option(
        "force",
        "run again what is done; otherwise a finished run is found by configuration, content hashes and code",
        type=bool,
        default=False,
    ),
    Option(
        "save",
        "keep the classifier that is best, by `METRIC`, on the validation texts, in `RESULTS/classifier`",
        type=bool,
        default=False,
        see="[using it](serving.md)",
    ),
    Option(
        "track",
        "trackers that runs are logged to: `tensorboard`, `mlflow`, `trackio`, `wandb`, or several with commas between "
        "them",
        default_text="none",
        see="[trackers](tracking.md)",
    ),
    Option(
        "forgetting",
        "measure the language model's loss on the test texts before and after, at the cost of two passes",
        key="forgetting",
        type=bool,
        see="[forgetting](measuring.md#forgetting)",
    ),
    Option(
        "device",
        "the device to plan for: `h100` or `h200`",
        default_text="this machine",
        see="[before the run](planning.md)",
        targets=("plan",),
    ),
    Option(
        "price",
        "what an hour of one device costs, such as `2.5/h`: a GPU, or without GPUs a machine; tables show `cost`",
        default_text="none: no costs",
        see="[energy and money](measuring.md#energy-and-money)",
        targets=("bench", "report"),
    ),
    Option("quiet", "print the tables and what went wrong, no progress", type=bool, default=False),
)


def option_named(name: str) -> Option:
    return next(option for option in OPTIONS if option.name == name)


def options_of(target: str) -> list[Option]:
    """What a target of make passes on. `make plan` takes all that `make bench` does."""
    wanted = {"bench", "plan"} if target == "plan" else {target}
    return [option for option in OPTIONS if wanted & set(option.targets)]
