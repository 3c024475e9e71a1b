"""One rank of a worker group: joins the group and does the runs of a plan. Started by `harness.launch`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from harness.engine.world import connect, disconnect
from harness.measure.memory import keep_freed_memory
from harness.plan import Plan
from harness.report.progress import observer_for
from harness.suite import RankLost, execute


def work(plan: Plan) -> None:
    """Raises KeyboardInterrupt where the suite was interrupted; SIGTERM counts as that."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    keep_freed_memory()
    world = connect()
    execute(plan, world, observer_for(world.rank))
    disconnect()


if __name__ == "__main__":
    try:
        work(Plan.model_validate_json(Path(sys.argv[1]).read_bytes()))
    except (KeyboardInterrupt, RankLost):
        sys.exit(1)  # the record tells why
