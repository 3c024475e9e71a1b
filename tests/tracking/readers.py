"""What the libraries wrote, read back with their own means, in one form."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK, WHOLE, LAST = 32768, 1, 4  # of LevelDB's log format


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
        plugin = (
            events.PluginTagToContent("hparams") if metadata.PLUGIN_NAME in events._plugin_to_tag_to_content else {}
        )
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
    runs: Runs = {}
    with closing(sqlite3.connect(folder / "my-suite.db")) as database:
        for name, content in database.execute("SELECT run_name, config FROM configs"):
            assert name not in runs, "logged twice"
            settings = json.loads(content)
            runs[name] = Found(settings, ended=f"{settings.get('status')} {settings.get('error')}")
        for name, found in runs.items():
            series: dict[str, dict[int, float]] = {}
            for step, content in database.execute("SELECT step, metrics FROM metrics WHERE run_name = ?", [name]):
                for key, value in json.loads(content).items():
                    series.setdefault(key, {})[step] = float(value)
            _split(series, found)
        ((manifest,),) = database.execute("SELECT manifest FROM artifact_versions")
    blobs = folder / "artifacts" / "my-suite" / "blobs" / "sha256"
    for entry in json.loads(manifest):
        digest = entry["digest"].removeprefix("sha256:")
        runs["my-suite"].files[entry["path"]] = (blobs / digest[:2] / digest).read_bytes()
    return runs


def wandb(folder: Path) -> Runs:
    runs: Runs = {}
    for path in (folder / "wandb").glob("offline-run-*/*.wandb"):
        found, series, name, ended = Found(), {}, "", []
        for record in _wandb_records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                name = record.run.display_name
                found.settings = {one.key: json.loads(one.value_json) for one in record.run.config.update}
            elif kind == "history":
                row = {
                    one.nested_key[0] if one.nested_key else one.key: json.loads(one.value_json)
                    for one in record.history.item
                }
                for key, value in row.items():
                    series.setdefault(key, {})[row["_step"]] = float(value)
            elif kind == "summary":
                found.figures |= {
                    (one.key or one.nested_key[0]): json.loads(one.value_json) for one in record.summary.update
                }
            elif kind == "exit":
                ended.append(str(record.exit.exit_code))
            elif kind == "artifact":
                for entry in record.artifact.manifest.contents:
                    found.files[entry.path] = Path(entry.local_path).read_bytes()
        found.curves = {key: points for key, points in series.items() if key.startswith("curve/")}
        found.ended = " ".join([*ended, *(str(found.figures.get(key)) for key in ("status", "error"))])
        assert name not in runs, "logged twice"
        runs[name] = found
    return runs


def _wandb_records(path: Path) -> Iterator[Any]:
    """Its file is a log of LevelDB's format after a header of seven bytes: blocks, in which a record may have parts."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, offset, parts = path.read_bytes(), 7, b""
    while offset + 7 <= len(data):
        room = BLOCK - offset % BLOCK
        if room < 7:
            offset += room
            continue
        length, kind = struct.unpack_from("<HB", data, offset + 4)
        parts += data[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if kind in (WHOLE, LAST):
            yield Record.FromString(parts)
            parts = b""


READERS: dict[str, Callable[[Path], Runs]] = {
    "tensorboard": tensorboard,
    "mlflow": mlflow,
    "trackio": trackio,
    "wandb": wandb,
}
