"""The classifier's tokenizer for `transformers`, which makes the rows that it was trained on."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from harness.data.libraries import import_transformers
from harness.data.tokenizer import END_OF_TEXT, BytePairs
from harness.errors import UserError
from harness.model.hub.loading import HubModel
from harness.serving.classifier import Classifier

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast


def exported_tokenizer(classifier: Classifier) -> PreTrainedTokenizerBase:
    """Pads on the right, and cuts with `truncation=True` what the classifier would cut; of cut="middle" the end.

    Raises UserError where it has nothing to pad with.
    """
    rows = classifier.row_rule
    settings: dict[str, Any] = {
        "model_max_length": min(rows.most_tokens, classifier.about.pad_to or rows.most_tokens),
        "padding_side": "right",
        "truncation_side": "left" if rows.cut == "tail" else "right",
        "split_special_tokens": True,  # text that looks like a special token is text
    }
    if not isinstance(classifier.model, HubModel):
        assert isinstance(classifier.tokenizer, BytePairs), "a GPT-2's"
        return byte_pairs(classifier.tokenizer, **settings)
    tokenizer = import_transformers().AutoTokenizer.from_pretrained(
        classifier.model.path, trust_remote_code=False, **settings
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise UserError(
            f"MODEL={classifier.about.config.model.name}: its tokenizer has no token to pad with, which an exported "
            "classifier needs for texts of several lengths: name one (`pad_token`) in its tokenizer_config.json."
        )
    return tokenizer


def byte_pairs(tokenizer: BytePairs, **settings: Any) -> PreTrainedTokenizerFast:
    """The same byte pairs for `transformers`, which wants the two parts of each token in place of its rank."""
    import tokenizers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

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
    special = dict.fromkeys(("pad_token", "bos_token", "eos_token"), END_OF_TEXT)
    return import_transformers().PreTrainedTokenizerFast(tokenizer_object=pairs, **special, **settings)


def _parts(ranks: dict[bytes, int], token: bytes) -> list[bytes]:
    """The two tokens that `token` was merged from, found by applying all merges of lower rank to its bytes."""
    parts = [token[index : index + 1] for index in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(first + second, ranks[token]) for first, second in itertools.pairwise(parts)]
        best = pairs.index(min(pairs))
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts
