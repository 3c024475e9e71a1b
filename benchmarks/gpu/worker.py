"""Does jobs, one after the other, and prints a line of JSON for each: `python -m benchmarks.gpu.worker PLAN`."""

from __future__ import annotations

import gc
import sys
import traceback
from pathlib import Path

import torch
from pydantic import BaseModel

from benchmarks.gpu.jobs import Job, Result
from benchmarks.gpu.measure import of_harness, rate_of_product
from benchmarks.gpu.texts import Texts

# What a line of results begins with: libraries print others.
MARK = "RESULT "
# A square product that a GPU reaches its peak in, and the MLP's own.
PRODUCTS = {"8192 cubed": (8192, 8192, 8192), "16384x768x3072": (16384, 768, 3072)}


class Plan(BaseModel):
    """products: sizes divided by this, for a CPU; 0: none are measured."""

    jobs: list[Job]
    texts: Texts
    model: str
    products: int


class Peaks(BaseModel):
    """FLOP/s of bfloat16 products."""

    device: str
    torch: str
    rates: dict[str, float]


def main(plan: Plan) -> None:
    if plan.products:
        rates = {name: rate_of_product(*(size // plan.products for size in sizes)) for name, sizes in PRODUCTS.items()}
        _print(Peaks(device=_device_name(), torch=torch.__version__, rates=rates))
    for job in plan.jobs:
        try:
            _print(_measured(job, plan))
        except Exception as problem:  # the next one may do
            traceback.print_exc()
            _print(Result(job=job, note=f"failed: {type(problem).__name__}: {str(problem).splitlines()[0][:120]}"))
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _measured(job: Job, plan: Plan) -> Result:
    if not job.side.startswith("Trainer"):
        return of_harness(job, plan.texts, plan.model)
    try:
        from benchmarks.gpu.trainer import of_trainer
    except ImportError as missing:
        return Result(job=job, note=f"skipped: {missing}")
    return of_trainer(job, plan.texts, plan.model)


def _device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def _print(line: BaseModel) -> None:
    print(f"{MARK}{line.model_dump_json()}", flush=True)


if __name__ == "__main__":
    main(Plan.model_validate_json(Path(sys.argv[1]).read_bytes()))
