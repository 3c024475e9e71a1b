"""A saved classifier, whatever its strategy and backbone, as one ONNX graph for any number of padded rows."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from harness import kernels
from harness.data.libraries import one_line
from harness.data.tokenizer import SECOND_TEXT
from harness.errors import UserError
from harness.model.hub.loading import HubModel
from harness.model.packing import PackedBatch
from harness.serving.classifier import Classifier

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILE = "model.onnx"
LABELS = "labels"
OPSET = 18
# Largest difference of a logit, absolute below 1, relative above.
TOLERANCE = 1e-4
# Of the rows that the graph is recorded with and of those that it is checked with, where the model takes as many.
_RECORDED, _CHECKED = (2, 8), ((1, 1), (3, 5), (2, 13))


class Graph(nn.Module):
    """Prefix and suffix as one network, on rows padded on the right.

    pad_to: what rows are padded to, with tokens that are attended to, where the strategy pads.
    """

    def __init__(self, classifier: Classifier, pad_token: int) -> None:
        super().__init__()
        self.prefix, self.suffix = classifier.prefix, classifier.suffix
        self.temperature = classifier.about.temperature
        self.pad_to, self.pad_token = classifier.about.pad_to, pad_token

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """All [rows, tokens] int64 -> logits [rows, classes], divided by the temperature.

        token_type_ids: 1 for tokens of a pair's second text; None where the model does not tell them apart.
        """
        ids = input_ids if token_type_ids is None else input_ids + SECOND_TEXT * token_type_ids
        lengths = attention_mask.sum(dim=1)
        if self.pad_to:
            ids = ids.masked_fill(attention_mask == 0, self.pad_token)[:, : self.pad_to]
            padding = ids.new_full((ids.shape[0], self.pad_to - ids.shape[1]), self.pad_token)
            ids, lengths = torch.cat([ids, padding], dim=1), torch.full_like(lengths, self.pad_to)
        rows, width = ids.shape
        starts = torch.arange(rows) * width
        batch = PackedBatch(starts, lengths, width, None, starts)
        features = self.prefix.hidden_states(ids.flatten(), batch)
        if self.prefix.facts.reads:  # it hands over one vector of each row
            batch = PackedBatch.one_token_each(rows, ids.device)
        return self.suffix(features, batch) / self.temperature


def graph_of(classifier: Classifier, tokenizer: PreTrainedTokenizerBase) -> Graph:
    """In float32, on the CPU; uses the classifier up."""
    for part in (classifier.prefix, classifier.suffix):
        kernels.restore(part)
    pad_token = tokenizer.pad_token_id
    assert isinstance(pad_token, int), "`exported_tokenizer` sees to it"
    return Graph(classifier, pad_token).float().cpu().eval().requires_grad_(False)


def write(graph: Graph, classifier: Classifier, folder: Path) -> None:
    """Write FILE, checked on rows of other numbers and lengths than it was recorded with. Its metadata hold the classes
    as JSON under LABELS.

    Raises UserError where the network can't be recorded, or the file gives other logits.
    """
    import onnx
    import onnxruntime

    path, about = folder / FILE, classifier.about
    try:
        _record(graph, classifier, path)
    except OSError:
        raise
    except Exception as error:  # whatever the exporter makes of a stranger's code
        raise _refused(classifier, f"its network can't be recorded ({one_line(error)})") from error
    model = onnx.load(path, load_external_data=False)
    onnx.helper.set_model_props(model, {LABELS: json.dumps(about.classes), "run_id": about.run_id})
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for rows, tokens in _CHECKED:
        inputs = _example(classifier, rows, min(tokens, _most_tokens(classifier)))
        with torch.no_grad():
            expected = graph(*inputs.values()).numpy()
        try:
            found = np.asarray(session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0])
        except Exception as error:  # the runtime has a type for each of its errors, and no common one
            raise _refused(classifier, f"for {rows} rows of {tokens} tokens it fails ({one_line(error)})") from error
        if not np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE):
            difference = np.abs(found - expected).max()
            raise _refused(classifier, f"for {rows} rows of {tokens} tokens a logit differs by {difference:.2g}")


def _record(graph: Graph, classifier: Classifier, path: Path) -> None:
    """By tracing: what depends on shapes in Python is recorded as it goes for the example.

    So the example is longer than any window of attention. The exporter that does without tracing takes ten times as
    long, and gives a graph that ONNX runtimes refuse where trained vectors stand before the rows.
    """
    rows, tokens = _RECORDED
    config = classifier.model.config if isinstance(classifier.model, HubModel) else None
    windows = [getattr(config, name, None) or 0 for name in ("sliding_window", "local_attention")]
    inputs = _example(classifier, rows, min(max(tokens, *windows) + 1, _most_tokens(classifier)))
    axes = {name: {0: "rows", 1: "tokens"} for name in inputs}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # pyright: ignore[reportPrivateImportUsage]
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            graph,
            tuple(inputs.values()),
            path,
            input_names=list(inputs),
            output_names=["logits"],
            dynamic_axes=axes | {"logits": {0: "rows"}},
            opset_version=OPSET,
            dynamo=False,
        )


def _example(classifier: Classifier, rows: int, tokens: int) -> dict[str, Tensor]:
    """Rows of random tokens, the first one of full length."""
    random = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, tokens + 1, (rows,), generator=random)
    lengths[0] = tokens
    mask = (torch.arange(tokens) < lengths[:, None]).long()
    ids = torch.randint(classifier.model.vocabulary, (rows, tokens), generator=random)
    inputs = {"input_ids": ids, "attention_mask": mask}
    if classifier.tokenizer.template(bool(classifier.about.config.data.pair)).second:
        inputs["token_type_ids"] = (torch.arange(tokens) >= lengths[:, None] / 2).long() * mask
    return inputs


def _most_tokens(classifier: Classifier) -> int:
    rule = classifier.row_rule
    return min(rule.most_tokens, classifier.about.pad_to or rule.most_tokens)


def _refused(classifier: Classifier, reason: str) -> UserError:
    return UserError(
        f"strategy {classifier.about.strategy!r} can't be exported to ONNX: {reason}. Write its code without Python "
        "that depends on values or shapes, or use `ftbench predict`."
    )
