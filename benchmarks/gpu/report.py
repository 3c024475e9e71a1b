"""The table of all results: for people as Markdown and in the terminal, for programs as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.gpu.jobs import ROWS, Result
from benchmarks.gpu.worker import Peaks
from benchmarks.report import table_of, write_markdown

COLUMNS = (
    *("strategy", "batch", "side", "step p50 ms", "p95 ms", "kernels a step", "device busy", "real tokens/s"),
    *("utilisation", "data to evaluation s", "peak GB", "test %", "note"),
)


def as_line(result: Result) -> str:
    """A result as it is shown when it ends."""
    shown = zip(COLUMNS[3:], cells(result, None)[3:], strict=True)
    return f"{result.job.title}: " + ", ".join(f"{name} {cell}" for name, cell in shown if cell not in ("-", ""))


def cells(result: Result, peaks: Peaks | None) -> list[str]:
    job, flops = result.job, result.flops
    utilisation = "-" if flops is None or not peaks else " / ".join(f"{flops / r:.1%}" for r in peaks.rates.values())
    seconds = "-" if result.seconds is None else f"{result.seconds:.1f}"
    if result.seconds is not None and job.epochs != job.row.epochs:
        seconds += f" ({job.epochs} of {job.row.epochs} epochs run)"
    elif result.seconds is not None:
        seconds += f" ({job.epochs} epochs)"
    return [
        job.row.strategy,
        str(job.row.batch_size),
        job.side,
        _number(result.step_p50, ".2f"),
        _number(result.step_p95, ".2f"),
        _number(result.kernels, ".0f"),
        _number(result.busy, ".0%"),
        _number(result.tokens, ",.0f"),
        utilisation,
        seconds,
        _number(result.peak_bytes and result.peak_bytes / 1e9, ".2f"),
        _number(result.accuracy and 100 * result.accuracy, ".1f"),
        result.note,
    ]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def table(results: list[Result], peaks: Peaks | None, model: str) -> Table:
    device = f"{peaks.device}, PyTorch {peaks.torch}" if peaks else "unknown device"
    made = table_of(f"{model}, random weights, on {device}", *COLUMNS)
    for row in ROWS:
        for result in results:
            if result.job.row == row:
                made.add_row(*cells(result, peaks))
    return made


def notes(peaks: Peaks | None, about: str) -> list[str]:
    lines = [
        f"texts: {about}",
        "kernels, device busy: of up to 20 steps after the run; their time over that of the steps without the profiler",
        "data to evaluation: with cold features; epochs that were not run take as long as the last that was",
        "utilisation: the products that training needs over real tokens, relative to each of the peaks",
    ]
    if peaks:
        rates = ", ".join(f"{name} {rate / 1e12:.0f} TFLOP/s" for name, rate in peaks.rates.items())
        lines.append(f"peaks, bfloat16 products in the same call: {rates}")
    return lines


def write(folder: Path, results: list[Result], peaks: Peaks | None, model: str, about: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "perf_gpu.json"
    content = {"model": model, "texts": about, "peaks": peaks and peaks.model_dump()}
    content["results"] = [result.model_dump() for result in results]
    path.write_text(json.dumps(content, indent=2))
    return [path, write_markdown(path.with_suffix(".md"), [table(results, peaks, model)], notes(peaks, about), 400)]


def show(console: Console, results: list[Result], peaks: Peaks | None, model: str, about: str) -> None:
    console.print(table(results, peaks, model))
    console.print(*(f"- {line}" for line in notes(peaks, about)), sep="\n")
