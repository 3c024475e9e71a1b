"""The same run with the Hugging Face Trainer and its best settings, as a process of its own.

    python -m benchmarks.peer_trainer STRATEGY DATA EPOCHS PRECISION MODEL

Dynamic padding, length grouping, bfloat16, fused AdamW; the same architecture (a GPT-2 with random weights, or a
pretrained decoder hf:...), texts, batch, epochs and evaluation of the three splits as `ftbench run`. Prints one line of
JSON: seconds from the data to the final evaluation.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from operator import attrgetter

import torch
from platformdirs import user_cache_path
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

from harness.config.schema import DataConfig
from harness.data.dataset import load_dataset
from harness.data.downloads import assets_folder
from harness.data.hub import is_hub, locate
from harness.data.tokenizer import load_tokenizer
from harness.model.hub.backbone import FAMILIES


def main(strategy: str, data: str, epochs: int, precision: str, model_name: str) -> None:
    cache = user_cache_path("ftbench", appauthor=False)
    started = time.perf_counter()
    dataset = load_dataset(DataConfig(name=data), cache)
    tokenizer = load_tokenizer(model_name, cache, assets_folder())
    classes = dataset.source.classes
    parts = {
        name: [
            {"input_ids": ids, "attention_mask": [1] * len(ids), "length": len(ids), "labels": classes.index(label)}
            for ids, label in zip(tokenizer.encode_rows(part["text"].tolist(), True), part["label"], strict=True)
        ]
        for name, part in dataset.split.items()
    }
    torch.manual_seed(0)
    model = _model(model_name, len(classes), tokenizer.pad_token)
    if strategy != "full":
        model.requires_grad_(False)
        model.score.requires_grad_(True)
    if strategy == "last_block":
        family = FAMILIES[model.config.model_type]
        attrgetter(family.blocks)(model.base_model)[-1].requires_grad_(True)
        attrgetter(family.final_norm)(model.base_model).requires_grad_(True)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=8,
            per_device_eval_batch_size=64,
            learning_rate=5e-5,
            weight_decay=0.1,
            lr_scheduler_type="constant",
            max_grad_norm=0,
            optim="adamw_torch_fused",
            bf16=precision == "bf16",
            bf16_full_eval=precision == "bf16",
            train_sampling_strategy="group_by_length",
            dataloader_drop_last=True,
            dataloader_pin_memory=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            seed=0,
        )
        trainer = Trainer(model, arguments, _collator(tokenizer.pad_token), train_dataset=parts["train"])
        trainer.train()
        arguments.dataloader_drop_last = False
        predictions = {name: trainer.predict(part) for name, part in parts.items()}
    seconds = time.perf_counter() - started
    test = predictions["test"]
    accuracy = float((test.predictions.argmax(-1) == test.label_ids).mean())
    assert len(test.label_ids) == len(parts["test"])
    print(json.dumps({"seconds": seconds, "test_accuracy": accuracy}))


def _model(name: str, classes: int, pad_token: int) -> nn.Module:
    if not is_hub(name):
        config = GPT2Config(num_labels=classes, pad_token_id=pad_token, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
        return GPT2ForSequenceClassification(config)
    folder = locate(name, user_cache_path("ftbench", appauthor=False))
    settings = {"num_labels": classes, "pad_token_id": pad_token, "dtype": torch.float32}
    return AutoModelForSequenceClassification.from_pretrained(folder, **settings)


def _collator(pad_token: int) -> DataCollatorWithPadding:
    from tokenizers import Tokenizer, models

    vocabulary = Tokenizer(models.WordLevel({"<pad>": pad_token}, unk_token="<pad>"))
    return DataCollatorWithPadding(PreTrainedTokenizerFast(tokenizer_object=vocabulary, pad_token="<pad>"))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5])
