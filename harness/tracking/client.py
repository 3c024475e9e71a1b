"""The process in which the trackers' libraries run, as a suite sees it.

It is not the one that trains: libraries of hundreds of megabytes and threads of their own would change the memory and
the speed that are measured. A suite waits for it between two runs.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.files import try_writing, write_atomically
from harness.tracking.trackers import FOLDER, NAMES, Tracking

ANSWER_SECONDS = 120.0  # longer than a server that does not answer takes, with the trackers' own repetitions
END_SECONDS = 10.0
OUTPUT = "output.log"


class TrackingClient:
    """Hands what has ended to each tracker, until that fails: then it is left out for the rest of the suite.

    Methods return a line for the user about each tracker that has failed in them.
    """

    def __init__(self, results: Path, tracking: Tracking) -> None:
        self._results, self._tracking = results, tracking
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def run_ended(self, run_id: str, name: str) -> list[str]:
        """Log a run that has its record, unless that is logged. name: for people."""
        return self._log("run_ended", run_id, name)

    def suite_ended(self, run_ids: Sequence[str]) -> list[str]:
        """Log the tables and the report that lie in RESULTS. run_ids: of the suite."""
        return self._log("suite_ended", run_ids)

    def _log(self, event: str, *arguments: Any) -> list[str]:
        names = [name for name in self._tracking.trackers if not _problem_file(self._results, name).exists()]
        answers = {name: self._answer(event, name, *arguments) for name in names}
        problems = {name: problem for name, problem in answers.items() if problem}
        for name, problem in problems.items():
            write_atomically(_problem_file(self._results, name), f"{_without_passwords(problem)}\n")
        return [
            f"tracking with {name} has failed, and the suite goes on without it: "
            f"{_without_passwords(problem).splitlines()[0]}"
            for name, problem in problems.items()
        ]

    def _answer(self, event: str, name: str, *arguments: Any) -> str | None:
        """What went wrong with this tracker, the message first. Others go on, in another process where this one's has
        ended or does not answer."""
        if self._connection is None:
            self._connection = self._start()
        assert self._process is not None
        try:
            self._connection.send((event, name, *arguments))
            if self._connection.poll(ANSWER_SECONDS):
                return self._connection.recv()
            problem = f"no answer within {ANSWER_SECONDS:.0f} s"
            self._process.kill()
        except (EOFError, OSError):
            problem = f"its process ended with exit code {self._process.wait()}"
        self._end()
        return problem

    def _start(self) -> Connection:
        here, there = Pipe()
        module = "harness.tracking.process"
        command = [sys.executable, "-m", module, str(there.fileno()), str(self._results), self._tracking.suite]
        with (self._results / FOLDER / OUTPUT).open("ab") as output:
            # In a new session: Ctrl-C reaches this process only.
            self._process = subprocess.Popen(
                command,
                pass_fds=(there.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        there.close()
        return here

    def _end(self) -> None:
        if self._connection:
            self._connection.close()
        if self._process:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_SECONDS)
            self._process.kill()
            self._process.wait()
        self._connection = self._process = None


def begin_anew(results: Path) -> None:
    """Let trackers that failed in an earlier suite try again. Raises OSError where RESULTS can't be written."""
    try_writing(results / FOLDER)
    for name in NAMES:
        _problem_file(results, name).unlink(missing_ok=True)


def _problem_file(results: Path, name: str) -> Path:
    return results / FOLDER / f"{name}-problem.txt"


def _without_passwords(text: str) -> str:
    """Addresses of servers may have some."""
    return re.sub(r"://[^/\s@]*@", "://", text)
