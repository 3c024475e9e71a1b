"""Measures the Hugging Face Trainer."""

from __future__ import annotations

import numpy as np

from benchmarks.gpu.jobs import Job, Result
from benchmarks.gpu.texts import Texts
from benchmarks.peer_trainer import Peer, measured
from benchmarks.processes import precision_of


def of_trainer(job: Job, texts: Texts, model: str) -> Result:
    """The seconds of epochs that are left out are those of the last one that is not: the first warms up."""
    row = job.row
    peer = Peer(
        strategy=row.strategy,
        data=texts.full if row.full_collection else texts.balanced,
        epochs=job.epochs,
        precision=precision_of(model),
        model=model,
        batch_size=row.batch_size,
        compiled=job.side == "Trainer, compiled",
    )
    found = measured(peer, texts.tokenizer(model))
    p50, p95 = np.percentile(found.step_milliseconds, [50, 95])
    return Result(
        job=job,
        step_p50=float(p50),
        step_p95=float(p95),
        tokens=found.tokens_of_epoch / found.epoch_seconds[-1],
        seconds=found.seconds + (row.epochs - job.epochs) * found.epoch_seconds[-1],
        peak_bytes=found.peak_bytes,
        accuracy=found.test_accuracy,
        note=f"{peer.precision}, {found.collation}",
    )
