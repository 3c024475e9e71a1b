"""The record of a run whose process the kernel kills, out of memory: it can write nothing then, so it leaves the record
that it would have written before it begins, and the next command that looks at the results finds it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from pydantic import BaseModel, ValidationError

from harness.files import write_atomically
from harness.measure.kernel_kills import kernel_kills
from harness.results.record import Record
from harness.results.store import Store

_FILE = "if_killed.json"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
# A process's start is read from the machine's clock, which may be set meanwhile; process ids are not reused so soon.
_CLOCK_STEP_SECONDS = 60.0


class _Provision(BaseModel):
    """process, began: the process's number and start. boot: of which machine, and since when it is up.

    kernel_kills: how many there were before the run.
    """

    process: int
    began: float
    boot: str
    kernel_kills: int
    record: Record

    def is_under_way(self) -> bool:
        try:
            return abs(psutil.Process(self.process).create_time() - self.began) < _CLOCK_STEP_SECONDS
        except psutil.NoSuchProcess:
            return False


@contextmanager
def provided_for(store: Store, record: Record) -> Iterator[None]:
    """Inside, `record` is what stays of the run if the kernel kills this process, out of memory."""
    here = psutil.Process()
    provision = _Provision(
        process=here.pid,
        began=here.create_time(),
        boot=_boot(),
        kernel_kills=kernel_kills(),
        record=record,
    )
    path = store.runs / record.run_id / _FILE
    write_atomically(path, provision.model_dump_json())
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def settle(store: Store) -> list[str]:
    """Give runs that were killed their record; returns their ids. Those killed for another reason just run again."""
    killed = []
    for path in store.runs.glob(f"*/{_FILE}"):
        provision = _read(path)
        if provision is None or provision.boot != _boot() or provision.is_under_way():
            continue  # another machine's, or just ended well
        if kernel_kills() > provision.kernel_kills and not store.has(provision.record.run_id):
            store.write(provision.record)
            killed.append(provision.record.run_id)
        path.unlink(missing_ok=True)
    return killed


def _boot() -> str:
    return _BOOT.read_text().strip() if _BOOT.exists() else ""


def _read(path: Path) -> _Provision | None:
    try:
        return _Provision.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:  # of another version of the harness, or cut short: the run just runs again
        path.unlink(missing_ok=True)
        return None
