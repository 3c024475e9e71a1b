"""Turn pytest-benchmark's JSON into the table that people read: `python benchmarks/report.py perf.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table


def main(path: Path) -> None:
    content = json.loads(path.read_text())
    infos = [entry["extra_info"] for entry in content["benchmarks"]]
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table(
        title=f"Seconds from the data to the final evaluation ({content['machine_info']['cpu']['brand_raw']})"
    )
    for title in ("strategy", "against", "theirs", "ours", "times faster", "spread"):
        table.add_column(title, justify="left" if title in ("strategy", "against") else "right")
    for info in infos:
        if "ratio" in info:
            table.add_row(
                info["strategy"],
                {"plain": "plain path", "trainer": "Hugging Face Trainer"}[info["peer"]],
                f"{_median(info['peer_seconds']):.1f}",
                f"{_median(info['seconds']):.1f}",
                f"{info['ratio']:.1f}",
                f"{min(info['ratios']):.1f} to {max(info['ratios']):.1f}",
            )
    console.print(table)
    for info in infos:
        if "teraflops" in info:
            console.print(f"ceiling, {info['dtype']} matrix products: {info['teraflops']:.2f} TFLOP/s")
        if "gigabytes_per_second" in info:
            console.print(f"ceiling, memory: {info['gigabytes_per_second']:.1f} GB/s")
    console.print(f"Wrote {path}.")


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
