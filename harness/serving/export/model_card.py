"""The model card of an export: what a reader must know of the classifier, and the metadata that the hub reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import yaml

from harness import __version__
from harness.config.places import HUB_PREFIX, is_hub
from harness.data.libraries import import_huggingface_hub
from harness.metrics import METRICS
from harness.model.hub.loading import HubModel
from harness.model.named.weights import HUB_REPOSITORIES
from harness.results import saved_classifier
from harness.results.names import printable
from harness.results.record import Record
from harness.results.saved_classifier import SavedClassifier
from harness.serving.classifier import Classifier
from harness.statistics import metric_interval

# Of the sizes of GPT-2, by their cards on the hub, and of the embedded model.
_LICENCE = {"license": "mit"}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_IN_THE_METADATA = {"accuracy": "accuracy", "macro_f1": "f1", "mcc": "matthews_correlation"}


def model_card(classifier: Classifier, folder: Path, exported: str) -> str:
    """folder: of the saved classifier, with its run's record. exported: the file or class of the export.

    Raises UserError where the record is damaged.
    """
    about, (record, predictions) = classifier.about, saved_classifier.origin(folder, classifier.about)
    intervals = _intervals(about, predictions)
    licence = _licence_of_base(classifier)
    metadata = _metadata(about, record, intervals, licence, exported)
    sections = [
        _introduction(about, licence),
        _data(about, record),
        _training(about, record),
        _results(about, record, intervals),
        _use(classifier, exported),
    ]
    body = "\n\n".join("\n".join(lines) for lines in sections)
    return f"---\n{metadata}\n---\n\n{body}\n"


def markdown(text: str) -> str:
    """The text as Markdown that shows it as it is, on one line: names come from users' files."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", one_line(text))


def one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def _intervals(
    about: SavedClassifier, predictions: pd.DataFrame | None
) -> dict[str, tuple[float, tuple[float, float]]]:
    """The value of each metric with its 95% interval; none where the predictions are not here."""
    if predictions is None:
        return {}
    labels, predicted = (
        pd.Index(about.classes).get_indexer(pd.Index(predictions[name])) for name in ("label", "predicted")
    )
    return {
        name: (float(metric(labels, predicted)), metric_interval(metric, labels, np.asarray([predicted])))
        for name, metric in METRICS.items()
    }


def _licence_of_base(classifier: Classifier) -> dict[str, str]:
    """What the hub's metadata say of the licence; empty where it is not known."""
    config = classifier.about.config.model
    if not isinstance(classifier.model, HubModel):
        return _LICENCE if config.weights == "pretrained" else {}
    card = classifier.model.path / "README.md"
    if not card.is_file():
        return {}
    try:
        written = import_huggingface_hub().metadata_load(card) or {}
    except (yaml.YAMLError, ValueError):  # a stranger's file: its licence stays unknown, and the card says so
        return {}
    keys = ("license", "license_name", "license_link")
    return {key: one_line(written[key]) for key in keys if isinstance(written.get(key), str)}


def _metadata(
    about: SavedClassifier,
    record: Record | None,
    intervals: dict[str, tuple[float, tuple[float, float]]],
    licence: dict[str, str],
    exported: str,
) -> str:
    hub, config = import_huggingface_hub(), about.config
    data = one_line(record.ok_data.name if record else Path(config.data.name).name)
    task = {
        "task_type": "text-classification",
        "dataset_type": _id_of(config.data.name) or re.sub(r"[^\w.-]+", "-", data).strip("-") or "data",
        "dataset_name": data or "data",
        "dataset_split": _measured_on(about),
    }
    results = [
        hub.EvalResult(
            **task,
            metric_type=_IN_THE_METADATA[name],
            metric_value=round(value, 6),
            metric_name=METRICS[name].title,
            metric_args={"confidence_interval": [round(end, 6) for end in ends], "confidence_level": 0.95},
        )
        for name, (value, ends) in intervals.items()
        if name in _IN_THE_METADATA
    ]
    return hub.ModelCardData(
        base_model=_base(about),
        datasets=[found] if (found := _id_of(config.data.name)) else None,
        eval_results=results or [hub.EvalResult(**task, metric_type="accuracy", metric_value=_accuracy(about))],
        library_name="onnx" if exported.endswith(".onnx") else "transformers",
        model_name=one_line(f"{about.strategy} on {config.model.name}"),
        pipeline_tag="text-classification",
        tags=["text-classification", "ftbench"],
        metrics=[_IN_THE_METADATA[name] for name in intervals if name in _IN_THE_METADATA] or ["accuracy"],
        **licence,
    ).to_yaml()


def _measured_on(about: SavedClassifier) -> Literal["test", "validation"]:
    """The part of the data that its figures are of."""
    return "test" if about.is_tested else "validation"


def _accuracy(about: SavedClassifier) -> float:
    return about.validation_accuracy if about.test_accuracy is None else about.test_accuracy


def _id_of(name: str) -> str | None:
    """The hub's id of a model or data set that is not a folder of this machine."""
    found = name.removeprefix(HUB_PREFIX)
    is_id = is_hub(name) and _HUB_ID.fullmatch(found) and not Path(found).exists()
    return found if is_id else None


def _base(about: SavedClassifier) -> str | None:
    """The hub's id; None for random weights, and for those of a file or folder."""
    model = about.config.model
    if model.weights != "pretrained":
        return None
    return HUB_REPOSITORIES.get(model.name) or _id_of(model.name)


def _introduction(about: SavedClassifier, licence: dict[str, str]) -> Iterator[str]:
    config = about.config
    yield f"# {markdown(about.strategy)} on {markdown(_named(config.model.name))}"
    yield ""
    yield f"A text classifier with {len(about.classes)} classes, trained and exported by ftbench {__version__}:"
    yield ""
    yield from (f"- {markdown(name)}" for name in about.classes)
    yield ""
    base = f"{markdown(_named(config.model.name))}, {markdown(_named(config.model.weights))} weights"
    known = ", ".join(licence.values())
    yield f"Base model: {base}. " + (
        f"Licence of the base: {markdown(known)}." if known else "The licence of the base is not known to ftbench."
    )


def _named(name: str) -> str:
    """Without the folders of the machine that it was trained on."""
    return name if _id_of(name) else Path(name.removeprefix(HUB_PREFIX)).name or name


def _data(about: SavedClassifier, record: Record | None) -> Iterator[str]:
    data = about.config.data
    yield "## Data"
    yield ""
    if record is None:
        yield f"{markdown(_named(data.name))}. The record of the run is not with the classifier: no more is known."
        return
    facts = record.ok_data
    sizes = ", ".join(f"{count:,} {part}" for part, count in facts.sizes.items())
    yield f"{markdown(facts.name)} (sha256 {facts.sha256[:12]}): {sizes} texts."
    if about.is_tested:
        yield f"Split: {data.split}, seed {data.split_seed}."
    part = _measured_on(about)
    yield (
        f"Of the {facts.sizes[part]:,} {part} texts {facts.test_in_train:,} stand in the training set verbatim, "
        f"{facts.test_near_train:,} when digits and punctuation are ignored."
    )
    yield f"{facts.cut_texts:,} texts were longer than a row may be, and were cut."
    yield from (f"Note: {markdown(note)}." for note in facts.notes)


def _training(about: SavedClassifier, record: Record | None) -> Iterator[str]:
    config, strategy = about.config, about.resolved
    yield "## Strategy and training"
    yield ""
    yield f"Strategy {markdown(about.strategy)} (code of sha256 {about.strategy_source.sha256[:12]}):"
    yield ""
    for key in ("trainable", "adapt", "readout", "attention"):
        value = strategy.get(key)
        yield f"- {key}: {markdown(', '.join(map(str, value)) if isinstance(value, list | tuple) else str(value))}"
    yield ""
    optimizer, training = config.optimizer, config.training
    yield (
        f"AdamW, learning rate {optimizer.learning_rate:g}, weight decay {optimizer.weight_decay:g}, schedule "
        f"{optimizer.schedule}; epochs: {training.epochs}, batch {training.batch_size}, seed {config.seed}, "
        f"{config.precision}."
    )
    if record:
        model, environment = record.model, record.environment
        trained = f"{model.trainable_parameters:,} of {model.parameters:,} parameters trained"
        device = environment.get("device")
        yield f"{trained}, in {record.seconds.total:.1f} s on {markdown(str(device))} ({record.finished_at[:10]})."


def _results(
    about: SavedClassifier, record: Record | None, intervals: dict[str, tuple[float, tuple[float, float]]]
) -> Iterator[str]:
    part = _measured_on(about)
    yield "## Results"
    yield ""
    if not intervals:
        yield (
            f"{part.title()} accuracy {100 * _accuracy(about):.2f}%, without an interval: the predictions of the run "
            "are not with the classifier."
        )
    else:
        yield f"| on the {part} texts | value | 95% interval |"
        yield "| --- | ---: | ---: |"
        for name, (value, (low, high)) in intervals.items():
            yield f"| {METRICS[name].title} | {value:.4f} | {low:.4f} to {high:.4f} |"
        yield ""
        yield f"The intervals say what other {part} texts would give, not what training again would."
    if record is None:
        return
    metrics, calibration = record.ok_metrics, record.calibration
    clean = metrics.test_clean
    if clean and record.ok_data.test_in_train:
        low, high = clean.interval
        yield (
            f"Without the {part} texts that stand in the training set: accuracy {clean.accuracy:.4f} ({low:.4f} to "
            f"{high:.4f}) on {clean.total:,} texts."
        )
    if calibration and calibration.temperature:
        yield (
            f"Logits are divided by the temperature {calibration.temperature:.4g}, fitted on the validation texts. "
            f"Expected calibration error on the {part} texts: {calibration.test_calibration_error:.4f}, without it "
            f"{metrics.test.calibration_error:.4f}."
        )
    else:
        yield f"Not calibrated. Expected calibration error on the {part} texts: {metrics.test.calibration_error:.4f}."


def _use(classifier: Classifier, exported: str) -> Iterator[str]:
    rule, pair = classifier.row_rule, classifier.about.config.data.pair
    yield "## Use"
    yield ""
    yield "```python"
    yield from _CODE["onnx" if exported.endswith(".onnx") else "transformers"]
    yield "```"
    yield ""
    yield "The softmax of the logits gives the probabilities of the classes, in the order of `id2label` in config.json."
    if pair:
        yield "It classifies pairs: give the tokenizer two lists, `tokenizer(first, second, ...)`."
    if rule.cut == "middle":
        yield "Longer texts were cut in the middle for training; this tokenizer cuts their end."


_CODE = {
    "transformers": [
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
        "",
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
        'model = AutoModelForSequenceClassification.from_pretrained("FOLDER")',
        'batch = tokenizer(["a text"], padding=True, truncation=True, return_tensors="pt")',
        "logits = model(**batch).logits",
    ],
    "onnx": [
        "import onnxruntime",
        "from transformers import AutoTokenizer",
        "",
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")',
        'session = onnxruntime.InferenceSession("FOLDER/model.onnx")',
        'batch = tokenizer(["a text"], padding=True, truncation=True, return_tensors="np")',
        "inputs = {one.name: batch[one.name] for one in session.get_inputs()}",
        '(logits,) = session.run(["logits"], inputs)',
    ],
}
