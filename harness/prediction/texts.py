"""The rows of runs that are predicted, encoded once for those that make them alike."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.data.encoding import Examples, RowRule, encode_split
from harness.planning.plan import PlannedRun
from harness.planning.strategy import ResolvedStrategy
from harness.planning.workspace import Workspace


@dataclass
class Texts:
    workspace: Workspace
    _known: dict[tuple, dict[str, Examples]] = field(default_factory=dict)

    def of(self, planned: PlannedRun, strategy: ResolvedStrategy) -> dict[str, Examples]:
        model, config = self.workspace.model(planned.model.name), planned.config
        rule = RowRule.of(config.data, model.context - strategy.strategy().positions_before, strategy.pad_to)
        key = planned.model.name, planned.config.data, rule
        if key not in self._known:
            dataset, tokenizer = planned.dataset(self.workspace), self.workspace.tokenizer(planned.model.name)
            self._known[key] = encode_split(dataset.split, tokenizer, dataset.source.classes, rule)
        return self._known[key]
