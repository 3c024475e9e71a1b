"""The same run with the Hugging Face Trainer and its best settings, as a process of its own.

    python -m benchmarks.peer_trainer STRATEGY DATA EPOCHS PRECISION MODEL

Length grouping with dynamic padding, on a GPU no padding where FlashAttention is installed; bfloat16, fused AdamW; the
same architecture (a GPT-2 with random weights, or a pretrained decoder hf:...), texts, batch, epochs and evaluation of
the three splits as `ftbench run`. Prints one line of JSON: seconds from the data to the final evaluation.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from platformdirs import user_cache_path
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    GPT2Config,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.utils import is_flash_attn_2_available

from benchmarks.padding_free import Flat, Flatten
from harness.config.places import is_hub
from harness.config.schema import DataConfig
from harness.data.dataset import load_dataset
from harness.data.downloads import assets_folder
from harness.data.model_files.hub import locate
from harness.data.tokenizer import Tokenizer, load_tokenizer
from harness.measure.clock import WARM_UP_STEPS
from harness.model.hub.families import FAMILIES
from harness.model.named.shapes import SHAPES

CACHE = user_cache_path("ftbench", appauthor=False)
# What is faster on a GPU alone; the check for losses that are no number would wait for the device in each step.
ON_GPU = {
    "dataloader_pin_memory": True,
    "dataloader_num_workers": 2,
    "dataloader_persistent_workers": True,
    "logging_nan_inf_filter": False,
    "logging_strategy": "no",
    "per_device_eval_batch_size": 256,
}


@dataclass(frozen=True)
class Peer:
    """A run. compiled: by torch.compile. padding_free: rows one after the other; None: where FlashAttention serves."""

    strategy: str
    data: DataConfig
    epochs: int
    precision: str
    model: str
    batch_size: int = 8
    compiled: bool = False
    padding_free: bool | None = None

    @property
    def on_gpu(self) -> bool:
        return torch.cuda.is_available()

    @property
    def has_flash_attention(self) -> bool:
        return self.on_gpu and self.precision == "bf16" and is_flash_attn_2_available()

    @property
    def is_flat(self) -> bool:
        return self.has_flash_attention if self.padding_free is None else self.padding_free


@dataclass(frozen=True)
class Found:
    """seconds: from the data to the final evaluation. epoch_seconds: of training. step_milliseconds: without the first.

    tokens_of_epoch: real ones. peak_bytes: of a GPU, above what was held before. collation: in words.
    """

    seconds: float
    test_accuracy: float
    epoch_seconds: list[float]
    step_milliseconds: list[float]
    tokens_of_epoch: float
    peak_bytes: int | None
    collation: str


@dataclass
class _Clock(TrainerCallback):
    """marks: the end of each step of the epoch under way, and its start."""

    epochs: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    marks: list[float] = field(default_factory=list)

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        self.marks = [_now()]

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.marks.append(time.perf_counter())

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        self.epochs.append(_now() - self.marks[0])
        self.steps += np.diff(self.marks).tolist()


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _rows(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    around = tokenizer.template(pair=False)
    return [[*around.beginning, *ids, *around.ending] for ids in tokenizer.encode(texts)]


def measured(peer: Peer, tokenizer: Tokenizer | None = None) -> Found:
    held = _start_of_memory()
    started = _now()
    dataset = load_dataset(peer.data, CACHE)
    tokenizer = tokenizer or load_tokenizer(peer.model, CACHE, assets_folder())
    classes = dataset.source.classes
    parts = {
        name: [
            {"input_ids": ids, "attention_mask": [1] * len(ids), "length": len(ids), "labels": classes.index(label)}
            for ids, label in zip(_rows(tokenizer, part["text"].tolist()), part["label"], strict=True)
        ]
        for name, part in dataset.split.items()
    }
    torch.manual_seed(0)
    model = _model(peer, len(classes), tokenizer.pad_token)
    _freeze(model, peer.strategy)
    collate = Flatten() if peer.is_flat else _padding(tokenizer.pad_token)
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = _arguments(folder, peer)
        trainer = Trainer(
            Flat(model) if peer.is_flat else model,
            arguments,
            collate,
            train_dataset=parts["train"],
            callbacks=[clock],
        )
        trainer.train()
        arguments.dataloader_drop_last = False
        predictions = {name: trainer.predict(part) for name, part in parts.items()}
    seconds, test = _now() - started, predictions["test"]
    assert len(test.label_ids) == len(parts["test"])
    lengths = [row["length"] for row in parts["train"]]
    return Found(
        seconds=seconds,
        test_accuracy=float((test.predictions.argmax(-1) == test.label_ids).mean()),
        epoch_seconds=clock.epochs,
        step_milliseconds=[1000 * step for step in clock.steps[WARM_UP_STEPS:] or clock.steps],
        tokens_of_epoch=float(np.mean(lengths)) * (len(lengths) // peer.batch_size) * peer.batch_size,
        peak_bytes=None if held is None else torch.cuda.max_memory_allocated() - held,
        collation=("padding-free" if peer.is_flat else "padded by length") + (", compiled" if peer.compiled else ""),
    )


def _start_of_memory() -> int | None:
    """Bytes held now on the GPU, from where its peak counts anew; None where there is none."""
    if not torch.cuda.is_available():
        return None
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _freeze(model: nn.Module, strategy: str) -> None:
    if strategy != "full":
        model.requires_grad_(False)
        model.score.requires_grad_(True)
    if strategy == "last_block":
        family = FAMILIES[model.config.model_type]
        attrgetter(family.blocks)(model.base_model)[-1].requires_grad_(True)
        attrgetter(family.final_norm)(model.base_model).requires_grad_(True)


def _arguments(folder: str, peer: Peer) -> TrainingArguments:
    settings: dict[str, Any] = {
        "num_train_epochs": peer.epochs,
        "per_device_train_batch_size": peer.batch_size,
        "per_device_eval_batch_size": 64,
        "learning_rate": 5e-5,
        "weight_decay": 0.1,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0,
        "optim": "adamw_torch_fused",
        "bf16": peer.precision == "bf16",
        "bf16_full_eval": peer.precision == "bf16",
        "train_sampling_strategy": "random" if peer.is_flat else "group_by_length",
        "dataloader_drop_last": True,
        "dataloader_pin_memory": False,
        "torch_compile": peer.compiled,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": not peer.on_gpu,
        "seed": 0,
    }
    if peer.on_gpu:
        # The argument `tf32` sets half of PyTorch's two switches; torch.compile refuses to start then.
        torch.set_float32_matmul_precision("high")
    return TrainingArguments(folder, **settings | (ON_GPU if peer.on_gpu else {}))


def _model(peer: Peer, classes: int, pad_token: int) -> nn.Module:
    attention = {"attn_implementation": "flash_attention_2"} if peer.is_flat and peer.has_flash_attention else {}
    if not is_hub(peer.model):
        shape = SHAPES[peer.model]
        sizes = {"vocab_size": shape.vocabulary, "n_positions": shape.context, "n_embd": shape.hidden}
        sizes |= {"n_layer": shape.blocks, "n_head": shape.heads, "num_labels": classes}
        config = GPT2Config(**sizes, pad_token_id=pad_token, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
        return AutoModelForSequenceClassification.from_config(config, **attention)
    settings = {"num_labels": classes, "pad_token_id": pad_token, "dtype": torch.float32, **attention}
    return AutoModelForSequenceClassification.from_pretrained(locate(peer.model, CACHE), **settings)


def _padding(pad_token: int) -> DataCollatorWithPadding:
    from tokenizers import Tokenizer, models

    vocabulary = Tokenizer(models.WordLevel({"<pad>": pad_token}, unk_token="<pad>"))
    return DataCollatorWithPadding(PreTrainedTokenizerFast(tokenizer_object=vocabulary, pad_token="<pad>"))


if __name__ == "__main__":
    strategy, data, epochs, precision, model_name = sys.argv[1:]
    print(json.dumps(asdict(measured(Peer(strategy, DataConfig(name=data), int(epochs), precision, model_name)))))
