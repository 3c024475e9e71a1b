"""Forgetting: what fine-tuning costs the language model, its loss on the test texts before and after."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from harness.config.schema import Precision
from harness.config.strategy import PrefixTuning, PromptTuning
from harness.data.encoding import RowRule, encode_split
from harness.experiment.context import Context
from harness.features.language_model import LanguageModel
from harness.model.adapters.prefix import remove_prefixes
from harness.model.backbone import Backbone
from harness.model.split import split
from harness.planning.plan import PlannedRun
from harness.planning.strategy import ResolvedStrategy
from harness.results.quality import Forgetting
from harness.training.engines.optimizer import trained_parameters


def forgetting(
    planned: PlannedRun, strategy: ResolvedStrategy, trained: dict[str, Tensor], context: Context
) -> Forgetting | None:
    """On the first rank alone, None on others. trained: as `Engine.values` gives it, with the full token embedding.

    In float32, or float64 where the run is: what a run forgets may be less than what bfloat16 rounds away.
    """
    if context.world.rank:
        return None
    workspace = context.workspace
    model = workspace.model(planned.model.name)
    if not model.is_language_model:
        reason = f"{planned.model.name} is no language model with an output layer tied to its token embeddings"
        return Forgetting(not_measured=reason)
    if not any(name.startswith("stages.") for name in trained):
        return Forgetting(not_measured="it leaves the backbone as it was")
    before_rows = any(isinstance(adapter, PrefixTuning | PromptTuning) for adapter in strategy.adapt)
    if before_rows and not (strategy.trainable or strategy.builds):
        return Forgetting(not_measured="without its trained vectors the backbone is as it was")
    rows = held_out_rows(planned, context)
    if not rows:
        return Forgetting(not_measured="no test text has two tokens")
    precision: Precision = "fp64" if planned.config.precision == "fp64" else "fp32"
    device, warn = context.world.device, context.observer.warning

    def before() -> float:
        weights = model.weights(planned.model.config, planned.model.weights_path)
        return LanguageModel.of(model, weights, device, precision, warn).loss(rows)

    backbone = trained_backbone(planned, strategy, trained, context)
    return Forgetting(
        loss_before=workspace.once(
            ("language model's loss", planned.model.config, planned.config.data, planned.data_sha256, precision), before
        ),
        loss_after=LanguageModel.of_backbone(backbone, device, precision, warn).loss(rows),
        tokens=sum(len(row) - 1 for row in rows),
    )


def held_out_rows(planned: PlannedRun, context: Context) -> list[np.ndarray]:
    """The token ids of the test texts that have two or more, without padding, cut as the run's rows are."""
    dataset, workspace = planned.dataset(context.workspace), context.workspace
    rule = RowRule.of(planned.config.data, workspace.model(planned.model.name).context)
    split_, tokenizer = {"test": dataset.split["test"]}, workspace.tokenizer(planned.model.name)
    test = encode_split(split_, tokenizer, dataset.source.classes, rule)["test"]
    rows = [test.token_ids[start:end] for start, end in pairwise(test.offsets.tolist())]
    return [row for row in rows if len(row) > 1]


def trained_backbone(
    planned: PlannedRun, strategy: ResolvedStrategy, trained: dict[str, Tensor], context: Context
) -> Backbone:
    """All of the backbone, blocks above the readout's included, with what was trained in it, under the causal mask and
    without what stands before rows."""
    model = context.workspace.model(planned.model.name)
    torch.manual_seed(planned.config.seed)  # code of a third party may draw what it does not train
    backbone = model.empty()
    model.weights(planned.model.config, planned.model.weights_path).fill(backbone, backbone.stages())
    classes = planned.dataset(context.workspace).source.classes
    _, suffix = split(backbone, strategy.strategy(), len(classes))
    for name, parameter in trained_parameters(suffix).items():
        parameter.data = trained[name]
    remove_prefixes(backbone)
    backbone.set_attention("causal")
    return backbone
