"""A saved classifier as a folder of `transformers`: GPT2ForSequenceClassification with its tokenizer."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from harness import kernels
from harness.config.strategy import PrefixTuning, PromptTuning
from harness.data.libraries import import_transformers
from harness.data.tokenizer import END_OF_TEXT, BytePairs, Tokenizer
from harness.errors import UserError
from harness.model.adapters.adapted import AdaptedLinear
from harness.model.gpt2 import GPT2, Embeddings
from harness.model.shapes import SHAPES
from harness.model.weights import published_tensors
from harness.serving.classifier import Classifier

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Absolute error of the head's bias as the final norm expresses it.
BIAS_TOLERANCE = 1e-5


def write_folder(classifier: Classifier, folder: Path) -> None:
    """Write weights, configuration and tokenizer in the format of `transformers`.

    Raises UserError where GPT2ForSequenceClassification can't express the classifier, or the folder is not empty.
    """
    _check_expressible(classifier)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{str(folder)!r} exists and is not an empty folder: name another.")
    transformers, about = import_transformers(), classifier.about
    shape = SHAPES[about.config.model.name]
    config = transformers.GPT2Config(
        vocab_size=shape.vocabulary,
        n_positions=shape.context,
        n_embd=shape.hidden,
        n_layer=shape.blocks,
        n_head=shape.heads,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), classifier.tokenizer.pad_token),
        id2label=dict(enumerate(about.classes)),
        label2id={name: number for number, name in enumerate(about.classes)},
    )
    model = transformers.GPT2ForSequenceClassification(config)
    model.load_state_dict(_tensors(classifier))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as partial:
            model.save_pretrained(partial)
            library_tokenizer(classifier.tokenizer, shape.context).save_pretrained(partial)
            for file in Path(partial).iterdir():
                file.replace(folder / file.name)
    except (OSError, SafetensorError) as error:  # safetensors wraps errors of the system
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{str(folder)!r} can't be written ({reason}): name another.") from error


def _check_expressible(classifier: Classifier) -> None:
    """Raises UserError for anything but causal attention over a GPT-2's tokens of the text, read at the last one."""
    strategy, about = classifier.strategy, classifier.about
    model = about.config.model.name
    if model not in SHAPES:
        reason = f"{model} is no GPT-2"
    elif strategy.build:
        reason = "its network is built by the strategy's own code"
    elif any(isinstance(adapter, PrefixTuning | PromptTuning) for adapter in strategy.adapt):
        reason = "trained vectors stand before its rows"
    elif strategy.readout != "last":
        reason = f"its readout is {strategy.readout}"
    elif strategy.readout_layer != -1:
        reason = f"it reads block {strategy.readout_layer}"
    elif strategy.attention != "causal":
        reason = "its tokens see those after them"
    elif about.pad_to:
        reason = f"it reads position -1 of rows padded to {about.pad_to}, and attends to the padding"
    else:
        return
    raise UserError(
        f"strategy {about.strategy!r} can't be exported: {reason}, which GPT2ForSequenceClassification does "
        "not compute; `ftbench predict` does."
    )


def _tensors(classifier: Classifier) -> dict[str, Tensor]:
    """All parameters in float32 under the names of `transformers`, with adapters merged into their matrices.

    Logits are divided by the temperature, as for the probabilities of `ftbench predict`. The library's head has no bias
    b: that of the final norm is shifted by d, the shortest vector with W d = b.
    """
    prefix, suffix = classifier.prefix, classifier.suffix
    for part in (prefix, suffix):
        kernels.restore(part)
    stages = dict(zip((*prefix.names, *suffix.names), (*prefix.stages, *suffix.stages), strict=True))
    backbone = GPT2(SHAPES[classifier.about.config.model.name])
    embeddings = stages["embeddings"]
    assert isinstance(embeddings, Embeddings)
    backbone.embeddings, backbone.final_norm = embeddings, stages["final_norm"]
    backbone.blocks = nn.ModuleList(stages[f"block.{number}"] for number in range(backbone.shape.blocks))
    model = nn.ModuleDict({"backbone": backbone, "head": suffix.head}).float()
    _merge_adapters(model)
    head = model["head"]
    assert isinstance(head, nn.Linear)
    temperature = classifier.about.temperature
    weight, bias = (part.detach().double() / temperature for part in (head.weight, head.bias))
    shift = torch.linalg.pinv(weight) @ bias
    if not torch.allclose(weight @ shift, bias, atol=BIAS_TOLERANCE):
        raise UserError(
            "the head's bias can't be expressed by GPT2ForSequenceClassification, which has none: the rows of its "
            "matrix depend on each other. Train with other seeds, or fewer classes."
        )
    tensors = {f"transformer.{name}": tensor.cpu() for name, tensor in published_tensors(backbone).items()}
    tensors["transformer.ln_f.bias"] = (tensors["transformer.ln_f.bias"].double() + shift.cpu()).float()
    return tensors | {"score.weight": weight.float().cpu()}


@torch.no_grad()
def _merge_adapters(module: nn.Module) -> None:
    """Replace every adapted layer by a plain one that computes the same."""
    for name, child in module.named_children():
        if isinstance(child, AdaptedLinear):
            merged = nn.Linear(child.in_features, child.out_features)
            for own, parameter in zip((merged.weight, merged.bias), child.merged(), strict=True):
                assert parameter is not None, "GPT-2's have biases"
                own.copy_(parameter)
            setattr(module, name, merged)
        else:
            _merge_adapters(child)


def library_tokenizer(tokenizer: Tokenizer, context: int) -> PreTrainedTokenizerFast:
    """The same byte pairs for `transformers`, which wants the two parts of each token in place of its rank."""
    import tokenizers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    assert isinstance(tokenizer, BytePairs), "a GPT-2's"
    characters = bytes_to_unicode()
    ranks = tokenizer._mergeable_ranks
    spelled = {token: "".join(characters[byte] for byte in token) for token in ranks}
    merges = [
        tuple(spelled[part] for part in _parts(ranks, token))
        for token in sorted(ranks, key=ranks.__getitem__)
        if len(token) > 1
    ]
    vocabulary = {spelled[token]: rank for token, rank in ranks.items()} | {END_OF_TEXT: tokenizer.pad_token}
    pairs = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    pairs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = tokenizers.decoders.ByteLevel()
    return import_transformers().PreTrainedTokenizerFast(
        tokenizer_object=pairs,
        **dict.fromkeys(("pad_token", "bos_token", "eos_token"), END_OF_TEXT),
        model_max_length=context,
        split_special_tokens=True,  # text that looks like a special token is text
    )


def _parts(ranks: dict[bytes, int], token: bytes) -> list[bytes]:
    """The two tokens that `token` was merged from, found by applying all merges of lower rank to its bytes."""
    parts = [token[index : index + 1] for index in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(first + second, ranks[token]) for first, second in itertools.pairwise(parts)]
        best = pairs.index(min(pairs))
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts
