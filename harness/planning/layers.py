"""LAYERS: every strategy at several layers of the backbone, which shows where the answer can be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from harness import baselines
from harness.config.schema import ModelConfig, RunConfig
from harness.config.suite import SuiteConfig, SuiteRow
from harness.errors import UserError


def at_layers(suite: SuiteConfig, blocks_of: Callable[[ModelConfig], int]) -> SuiteConfig:
    """The suite with every strategy at each of its layers; as it is where it names none.

    blocks_of: how many blocks a model has. Raises UserError for a layer that it has not, and where something else
    decides on the layers or the rates.
    """
    if suite.layers is None:
        return suite
    if any(row.name for row in suite.rows):
        raise UserError(
            "LAYERS with a file that lists rows: `readout_layer` of a row says its layer; leave LAYERS out."
        )
    if suite.tune:
        raise UserError("LAYERS with TUNE=lr: a rate would be tuned for each layer; leave one of them out.")
    runs = [run for given in suite.runs() for run in _at_each(given, suite.layers, blocks_of)]
    return suite.model_copy(update={"rows": [SuiteRow(name=None, runs=runs)], "layers": None})


def _at_each(
    run: RunConfig, layers: tuple[int, ...] | str, blocks_of: Callable[[ModelConfig], int]
) -> Iterator[RunConfig]:
    if run.strategy in baselines.NAMES:
        yield run
        return
    if run.readout_layer is not None:
        raise UserError(f"LAYERS with readout_layer={run.readout_layer}: both say which layer is read; give one.")
    blocks = blocks_of(run.model)
    wanted = range(blocks) if isinstance(layers, str) else layers
    for layer in wanted:
        if not -blocks <= layer < blocks:
            raise UserError(
                f"LAYERS={layer}: this backbone has {blocks} blocks; expected {-blocks} to {blocks - 1}, or all."
            )
    for layer in dict.fromkeys(layer % blocks for layer in wanted):
        yield run.model_copy(update={"readout_layer": layer})
