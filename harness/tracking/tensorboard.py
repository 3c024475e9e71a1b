"""TensorBoard: event files below the folder, one for each run, in a folder for each suite."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]  # generated
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from harness.tracking.logged import LoggedRun, LoggedSuite


class TensorBoard:
    def __init__(self, suite: str, folder: Path) -> None:
        self._suite, self._folder = suite, folder / suite

    def log_run(self, run: LoggedRun) -> None:
        about = f"status: {run.status}\n\n```\n{run.error}\n```" if run.error else f"status: {run.status}"
        with _Events(_free(self._folder, run.name), run.ended) as events:
            events.add(hparams_pb({"run_id": run.run_id, **run.settings}, start_time_secs=run.started))
            events.add(text_pb("settings", f"```\n{json.dumps(run.settings, indent=1)}\n```"))
            events.add(text_pb("status", about))
            for step, values in sorted(run.curves.items()):
                events.add(_scalars(values), step)
            events.add(_scalars(run.figures), run.last_step)

    def log_suite(self, suite: LoggedSuite) -> None:
        """It takes no files but texts, so a page is copied beside its events."""
        folder = _free(self._folder, self._suite)
        with _Events(folder) as events:
            events.add(_scalars(suite.figures))
            for path in suite.artifacts:
                content = path.read_bytes()
                (folder / path.name).write_bytes(content)
                if path.suffix == ".md":
                    events.add(text_pb(path.name, content.decode()))


class _Events:
    """An event file. at: of all events, in seconds since 1970; None: when each is added."""

    def __init__(self, folder: Path, at: float | None = None) -> None:
        self._at = at
        self._writer = EventFileWriter(str(folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def add(self, summary: Summary, step: int = 0) -> None:
        self._writer.add_event(Event(wall_time=self._at or time.time(), step=step, summary=summary))


def _scalars(values: Mapping[str, float]) -> Summary:
    return Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])


def _free(folder: Path, name: str) -> Path:
    """A folder of this name for a run, or with a number where others have it."""
    base = folder / re.sub(r"[^\w ,.()=-]", "_", name)
    others = (base.with_name(f"{base.name} {number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([base], others) if not path.exists())
