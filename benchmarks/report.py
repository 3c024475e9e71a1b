"""Turn pytest-benchmark's JSON into the tables that people read: `python -m benchmarks.report perf.json`."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

PEERS = {
    "plain": "plain path",
    "trainer": "Hugging Face Trainer",
    "single": "single calls",
    "library": "single calls of transformers",
}
# Columns of words.
TEXTS = ("strategy", "command", "against", "phase", "value", "observer", "side", "note")


def main(path: Path) -> None:
    content = json.loads(path.read_text())
    infos = [entry["extra_info"] for entry in content["benchmarks"]]
    processor = content["machine_info"]["cpu"].get("brand_raw", "unknown processor")
    tables = [_speed(infos, processor), _phases(infos), *(_growth(info) for info in infos if "rows" in info)]
    tables += [_observers(info) for info in infos if "observers" in info]
    tables += [_ablation(kernels)] if (kernels := [info for info in infos if "kernel" in info]) else []
    tables += [_start_up(commands)] if (commands := [info for info in infos if "start_up_seconds" in info]) else []
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(*tables, *_ceilings(infos), sep="\n")
    console.print(f"Wrote {path} and {write_markdown(path.with_suffix('.md'), tables, _ceilings(infos))}.")


def write_markdown(path: Path, tables: list[Table], lines: list[str], width: int = 200) -> Path:
    with path.open("w", encoding="utf-8") as file:
        console = Console(file=file, width=width)
        for table in tables:
            title, table.title, table.box = table.title, None, box.MARKDOWN
            console.print(f"**{title}**\n", table, markup=False)
        console.print(*(f"- {line}" for line in lines), sep="\n")
    return path


def _ceilings(infos: list[dict[str, Any]]) -> list[str]:
    rates = [
        f"ceiling, {info['precision']} matrix products: {info['teraflops']:.2f} TFLOP/s"
        for info in infos
        if "teraflops" in info
    ]
    memory = [
        f"ceiling, memory: {info['gigabytes_per_second']:.1f} GB/s" for info in infos if "gigabytes_per_second" in info
    ]
    return rates + memory


def _ablation(infos: list[dict[str, Any]]) -> Table:
    table = table_of("What each kernel saves: seconds of a row", "kernel", "row", "without", "with", "saved")
    for info in infos:
        seconds, without = info["seconds"], info["without"]
        saved = f"{1 - seconds / without:.0%}"
        table.add_row(info["kernel"], info["row"], f"{without:.1f}", f"{seconds:.1f}", saved)
    return table


def _start_up(infos: list[dict[str, Any]]) -> Table:
    table = table_of("Seconds until a command has answered", "command", "rounds", "median", "fastest", "slowest")
    for info in infos:
        seconds = info["start_up_seconds"]
        figures = (f"{of(seconds):.2f}" for of in (statistics.median, min, max))
        table.add_row(info["command"], str(len(seconds)), *figures)
    return table


def _speed(infos: list[dict[str, Any]], processor: str) -> Table:
    table = table_of(
        f"Seconds from the data to the final evaluation ({processor})",
        *("strategy", "against", "rounds", "theirs", "ours", "times faster", "spread"),
    )
    for info in infos:
        if "ratio" in info:
            theirs, ours = statistics.median(info["peer_seconds"]), statistics.median(info["seconds"])
            spread = (
                f"{min(info['ratios']):.1f} to {max(info['ratios']):.1f}" if len(info["ratios"]) > 1 else "one round"
            )
            rounds = str(len(info["ratios"]))
            ratio = f"{info['ratio']:.1f}"
            table.add_row(info["strategy"], PEERS[info["peer"]], rounds, f"{theirs:.1f}", f"{ours:.1f}", ratio, spread)
    return table


def _phases(infos: list[dict[str, Any]]) -> Table:
    table = table_of(
        "Model FLOPs utilisation: products needed per second, over the ceiling measured beside the run",
        *("strategy", "phase", "seconds", "TFLOP/s", "ceiling", "utilisation"),
    )
    for info in infos:
        for name, phase in info.get("phases", {}).items():
            rate, ceiling = f"{phase['teraflops']:.2f}", f"{phase['ceiling_teraflops']:.2f}"
            share = f"{phase['utilisation']:.0%}"
            table.add_row(info["strategy"], name, f"{phase['seconds']:.2f}", rate, ceiling, share)
    return table


def _growth(info: dict[str, Any]) -> Table:
    phases = ("features", "train", "evaluate")
    marginal = any("marginal" in row for row in info["rows"])
    titles = ["value", *(f"{phase} s" for phase in (*phases, "total")), "memory MB"]
    table = table_of(f"Growth with {info['grows']}", *titles, *([f"{phase} ms/token" for phase in phases] * marginal))
    for row in info["rows"]:
        cells = [row["value"], *(f"{row[phase]:.2f}" for phase in (*phases, "total")), f"{row['memory_megabytes']:.0f}"]
        # Seconds for a thousand tokens more are milliseconds for one.
        more = [f"{row['marginal'][phase]:.3g}" if "marginal" in row else "" for phase in phases] if marginal else []
        table.add_row(*cells, *more)
    return table


def _observers(info: dict[str, Any]) -> Table:
    table = table_of(f"What telling of a run costs ({info['run']})", *("observer", "more seconds", "more CPU seconds"))
    for name, costs in info["observers"].items():
        table.add_row(name, f"{costs['seconds']:+.2%}", f"{costs['processor']:+.2%}")
    table.add_row("live, by itself", "", f"{info['own_share']:+.2%}")
    return table


def table_of(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="left" if column in TEXTS else "right")
    return table


if __name__ == "__main__":
    main(Path(sys.argv[1]))
