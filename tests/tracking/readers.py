"""What the libraries wrote, read back with their own means, in one form."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass
class Found:
    """curve: by name, value by step. texts: how it ended, as it is written. files: by name."""

    settings: dict[str, str] = field(default_factory=dict)
    curves: dict[str, dict[int, float]] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    ended: str = ""
    files: dict[str, bytes] = field(default_factory=dict)


Runs = dict[str, Found]


def _split(series: dict[str, dict[int, float]], found: Found) -> None:
    found.curves = {name: points for name, points in series.items() if name.startswith("curve/")}
    found.figures = {name: points[max(points)] for name, points in series.items() if name not in found.curves}


def tensorboard(folder: Path) -> Runs:
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, TENSORS, EventAccumulator
    from tensorboard.plugins.hparams import metadata

    runs = {}
    for path in sorted((folder / "my-suite").iterdir()):
        events = EventAccumulator(str(path), size_guidance={SCALARS: 0, TENSORS: 0}).Reload()
        found = runs[path.name] = Found()
        _split({tag: {one.step: one.value for one in events.Scalars(tag)} for tag in events.Tags()["scalars"]}, found)
        if "status" in events.Tags()["tensors"]:
            found.ended = events.Tensors("status")[0].tensor_proto.string_val[0].decode()
        plugin = events.PluginTagToContent("hparams") if metadata.PLUGIN_NAME in events._plugin_to_tag_to_content else {}
        for content in plugin.values():
            hparams = metadata.parse_session_start_info_plugin_data(content).hparams
            found.settings = {key: str(value.string_value or value.number_value) for key, value in hparams.items()}
        found.files = {file.name: file.read_bytes() for file in path.iterdir() if "tfevents" not in file.name}
    return runs


def mlflow(folder: Path) -> Runs:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("my-suite")
    runs = {}
    for run in client.search_runs([experiment.experiment_id]):
        assert run.info.run_name not in runs, "logged twice"
        found = runs[run.info.run_name] = Found(run.data.params)
        history = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
        _split({name: {one.step: one.value for one in points} for name, points in history.items()}, found)
        tags = run.data.tags
        found.ended = f"{run.info.status} {tags.get('ftbench.status')} {tags.get('ftbench.error')}"
        artifacts = Path(run.info.artifact_uri.removeprefix("file://"))
        found.files = {path.name: path.read_bytes() for path in artifacts.glob("*")}
    return runs


def trackio(folder: Path) -> Runs:
    raise NotImplementedError


def wandb(folder: Path) -> Runs:
    raise NotImplementedError


READERS: dict[str, Callable[[Path], Runs]] = {
    "tensorboard": tensorboard,
    "mlflow": mlflow,
    "trackio": trackio,
    "wandb": wandb,
}
