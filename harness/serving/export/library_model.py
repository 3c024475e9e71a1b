"""A saved classifier as the class of `transformers` for its model: BertForSequenceClassification and others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness import kernels
from harness.config.strategy import PrefixTuning, PromptTuning
from harness.data.libraries import import_transformers
from harness.errors import UserError
from harness.model.adapters.adapted import AdaptedLinear
from harness.model.gpt2 import GPT2, Embeddings
from harness.model.hub.backbone import HubBlock, HubEmbeddings, family_of
from harness.model.hub.loading import HubModel
from harness.model.named.shapes import SHAPES
from harness.model.named.weights import published_tensors
from harness.serving.classifier import Classifier
from harness.serving.export.heads import OurHead, set_head, why_not

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def library_config(classifier: Classifier, tokenizer: PreTrainedTokenizerBase) -> PretrainedConfig:
    """Of the classifier's model, with its classes and what its exported tokenizer pads with."""
    transformers, model = import_transformers(), classifier.model
    if isinstance(model, HubModel):
        config = transformers.AutoConfig.from_pretrained(model.path, trust_remote_code=False)
    else:
        shape = SHAPES[classifier.about.config.model.name]
        config = transformers.GPT2Config(
            vocab_size=shape.vocabulary,
            n_positions=shape.context,
            n_embd=shape.hidden,
            n_layer=shape.blocks,
            n_head=shape.heads,
            **dict.fromkeys(("bos_token_id", "eos_token_id"), tokenizer.pad_token_id),
        )
    classes = classifier.about.classes
    if classifier.model.attention == "causal":  # the class finds the last token of a text by it
        config.pad_token_id = tokenizer.pad_token_id
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: number for number, name in enumerate(classes)}
    return config


def library_model(classifier: Classifier, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """In float32, on the CPU; uses the classifier up. Its logits are divided by the temperature, as for the
    probabilities of `ftbench predict`; adapters are merged into their matrices.

    Raises UserError where the class can't express the classifier.
    """
    parts = (classifier.prefix, classifier.suffix)
    for part in parts:
        kernels.restore(part)
        part.float().cpu()
    stages = {name: stage for part in parts for name, stage in zip(part.names, part.stages, strict=True)}
    config = library_config(classifier, tokenizer)
    _check_expressible(classifier, config, tokenizer, stages["final_norm"])
    adapted = nn.ModuleDict({"stages": nn.ModuleList(stages.values()), "head": classifier.suffix.head})
    _merge_adapters(adapted)
    model = import_transformers().AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    _fill(model.base_model, classifier, stages)
    weight, bias = (adapted["head"].get_parameter(name).double() for name in ("weight", "bias"))
    temperature = classifier.about.temperature
    set_head(model, OurHead(weight / temperature, bias / temperature, _last_norm(model.base_model, config)))
    return model.eval()


def _check_expressible(
    classifier: Classifier, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, norm: nn.Module
) -> None:
    """Raises UserError for anything but a pretrained model's own attention over a text's tokens, read where its class
    reads."""
    strategy, about, pad = classifier.strategy, classifier.about, tokenizer.pad_token_id
    pretrained = classifier.model.attention
    if strategy.build:
        reason = "its network is built by the strategy's own code"
    elif any(isinstance(adapter, PrefixTuning | PromptTuning) for adapter in strategy.adapt):
        reason = "trained vectors stand before its rows"
    elif strategy.readout != ("last" if pretrained == "causal" else "first"):
        reason = f"its readout is {strategy.readout}"
    elif strategy.readout_layer != -1:
        reason = f"it reads block {strategy.readout_layer}"
    elif strategy.attention != pretrained:
        reason = f"its attention is {strategy.attention}, the model's own {pretrained}"
    elif about.pad_to:
        reason = f"it reads position -1 of rows padded to {about.pad_to}, and attends to the padding"
    elif config.pad_token_id != pad or pad in classifier.tokenizer.template(bool(about.config.data.pair)).ending:
        reason = f"token {pad}, which pads, can't be told from those of a text"
    elif problem := why_not(config.model_type, norm):
        reason = problem
    else:
        return
    raise UserError(
        f"strategy {about.strategy!r} on {about.config.model.name} can't be exported to transformers: {reason}. "
        "Export with --format onnx, which takes any readout, or use `ftbench predict`."
    )


@torch.no_grad()
def _merge_adapters(module: nn.Module) -> None:
    """Replace every adapted layer by a plain one that computes the same."""
    for name, child in module.named_children():
        if isinstance(child, AdaptedLinear):
            weight, bias = child.merged()
            merged = nn.Linear(child.in_features, child.out_features, bias=bias is not None)
            merged.weight.copy_(weight)
            if bias is not None:
                merged.bias.copy_(bias)
            setattr(module, name, merged)
        else:
            _merge_adapters(child)


def _fill(body: nn.Module, classifier: Classifier, stages: dict[str, nn.Module]) -> None:
    """Give the library's model the parameters of ours."""
    if not isinstance(classifier.model, HubModel):
        backbone, embeddings = GPT2(SHAPES[classifier.about.config.model.name]), stages["embeddings"]
        assert isinstance(embeddings, Embeddings)
        backbone.embeddings, backbone.final_norm = embeddings, stages["final_norm"]
        backbone.blocks = nn.ModuleList(stages[f"block.{number}"] for number in range(backbone.shape.blocks))
        body.load_state_dict(published_tensors(backbone))
        return
    family, embeddings = family_of(classifier.model.config), stages["embeddings"]
    assert isinstance(embeddings, HubEmbeddings)
    sources = dict(zip(family.embeddings, embeddings.parts, strict=True))
    for name, stage in stages.items():
        if isinstance(stage, HubBlock):
            sources[f"{family.blocks}.{name.removeprefix('block.')}"] = stage.layer
    if family.final_norm:
        sources[family.final_norm] = stages["final_norm"]
    for name, source in sources.items():
        target = body.get_submodule(name)
        target.load_state_dict(_published(source, target))


def _published(source: nn.Module, target: nn.Module) -> dict[str, Tensor]:
    """The tensors of `source`, those of GPT-2's matrices as the library holds them: [inputs, outputs]."""
    from transformers.pytorch_utils import Conv1D

    turned = {f"{name}.weight" for name, module in target.named_modules() if isinstance(module, Conv1D)}
    return {name: tensor.t() if name in turned else tensor for name, tensor in source.state_dict().items()}


def _last_norm(body: nn.Module, config: PretrainedConfig) -> nn.Module:
    """What the head's input comes from; in an encoder without a final norm the top block's last one."""
    family = family_of(config)
    if family.final_norm:
        return body.get_submodule(family.final_norm)
    (*_, top) = body.get_submodule(family.blocks).children()
    return [module for module in top.modules() if isinstance(module, nn.LayerNorm)][-1]
