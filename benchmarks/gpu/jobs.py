"""What is measured, and what a measurement gives."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

Side = Literal["ftbench", "plain path", "Trainer", "Trainer, compiled"]


class Row(BaseModel):
    """A comparison. full_collection: all texts instead of the textbook's balanced ones. epochs: that seconds are of."""

    strategy: str
    batch_size: int = 8
    epochs: int = 5
    full_collection: bool = False


class Job(BaseModel):
    """One measurement. epochs: that are run; the seconds of those left out are those of the last one that is not."""

    row: Row
    side: Side
    epochs: int

    @property
    def title(self) -> str:
        return f"{self.row.strategy}, batch {self.row.batch_size}, {self.side}"


class Result(BaseModel):
    """Null is what was not measured.

    step_p50, step_p95: milliseconds. kernels, busy: device kernels in a step, and the share of a step's time that the
    device spends in them. tokens: real ones a second, in training. flops: that the model needs, a second. seconds: from
    the data to the evaluation, of `job.row.epochs`. peak_bytes: above what was held before. note: what else to know.
    """

    job: Job
    step_p50: float | None = None
    step_p95: float | None = None
    kernels: float | None = None
    busy: float | None = None
    tokens: float | None = None
    flops: float | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    accuracy: float | None = None
    note: str = ""


ROWS = [
    Row(strategy="head_only"),
    Row(strategy="last_block"),
    Row(strategy="last_padded"),
    Row(strategy="full"),
    Row(strategy="full", batch_size=64, epochs=2, full_collection=True),
    Row(strategy="full", batch_size=512, full_collection=True),
    Row(strategy="lora"),
]
# Those that the Trainer has: it knows neither adapters nor attended padding.
OF_TRAINER = ("head_only", "last_block", "full")


def jobs_in_order() -> list[Job]:
    """First what matters most: the time may not suffice for all. Few epochs where all would take too long."""
    ours = [Job(row=row, side="ftbench", epochs=row.epochs) for row in ROWS]
    plain = [Job(row=row, side="plain path", epochs=1) for row in ROWS]
    trainer = [Job(row=row, side="Trainer", epochs=2) for row in ROWS if row.strategy in OF_TRAINER]
    full = next(row for row in ROWS if row.strategy == "full")
    return [*ours, *trainer, *plain, Job(row=full, side="Trainer, compiled", epochs=2)]
