"""A backbone at what it was pretrained for: likelihoods of continuations, and its loss on texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from harness.config.schema import Precision
from harness.data.batching import batches_by_length, token_indices
from harness.distributed.process_group import World
from harness.features.features import features_of
from harness.features.loader import PrefixLoader
from harness.features.token_budget import TokenBudget
from harness.model.backbone import Backbone
from harness.model.named.models import Model
from harness.model.named.weights import Weights
from harness.model.packing import PackedBatch
from harness.model.split import Prefix, PrefixFacts

# A row's token ids.
Row = list[int] | np.ndarray
# Positions whose logits, one for each token of the vocabulary, are held at a time.
LOGITS_AT_ONCE = 512


@dataclass(frozen=True)
class LanguageModel:
    """backbone: frozen. stages: the same as one frozen prefix, in the precision of the run."""

    backbone: Backbone
    stages: Prefix
    device: torch.device
    budget: TokenBudget

    @classmethod
    def of(
        cls, model: Model, weights: Weights, device: torch.device, precision: Precision, warn: Callable[[str], None]
    ) -> LanguageModel:
        """As it was pretrained."""
        backbone = model.empty()
        return cls.of_backbone(backbone, device, precision, warn, lambda stage: weights.fill(backbone, [stage]))

    @classmethod
    def of_backbone(
        cls,
        backbone: Backbone,
        device: torch.device,
        precision: Precision,
        warn: Callable[[str], None],
        fill: Callable[[str], None] | None = None,
    ) -> LanguageModel:
        """The backbone is used up. fill: gives a stage, by name, its parameters; None where they are there already."""
        backbone.requires_grad_(False)
        stages = Prefix(backbone.stages(), PrefixFacts(boundary="output", reads=None, cacheable=False, causal=True))
        PrefixLoader(stages, fill, device, precision).load().eval()
        alone = World(0, 1, device)
        return cls(backbone, stages, device, TokenBudget.of(alone, backbone.hidden, precision, warn))

    def likelihoods(self, prompts: list[list[int]], answers: list[tuple[int, ...]]) -> np.ndarray:
        """Log-probabilities [prompts, answers] that a prompt is continued by each answer.

        Answers that differ in their last token only share a pass over the prompts: all whose names are one token.
        """
        found = np.empty((len(prompts), len(answers)))
        for begun in sorted({answer[:-1] for answer in answers}):
            alike = [number for number, answer in enumerate(answers) if answer[:-1] == begun]
            rows = [[*prompt, *begun] for prompt in prompts]
            found[:, alike] = self._of_last_tokens(rows, torch.tensor([answers[number] for number in alike]))
        return found

    def _of_last_tokens(self, rows: Sequence[Row], answers: Tensor) -> np.ndarray:
        """answers: [answers, tokens], which end one token after the rows do -> log-probabilities [rows, answers]."""
        lengths = np.array([len(row) for row in rows])
        found = np.empty((len(rows), len(answers)))
        batches = batches_by_length(lengths, self.budget.tokens)
        computed = self.budget.in_parts(batches, lambda indices: self._of_batch([rows[i] for i in indices], answers))
        for indices, of_answers in computed:
            found[indices] = of_answers.double().cpu().numpy()
        return found

    @torch.no_grad()
    def _of_batch(self, rows: Sequence[Row], answers: Tensor) -> Tensor:
        """The same of the rows of one batch, on the device."""
        steps = answers.shape[1]
        hidden, packed = self._hidden_states(rows)
        read_at = (packed.starts + packed.lengths)[:, None] - torch.arange(steps, 0, -1, device=self.device)
        next_token = self.backbone.next_token_logits(hidden[read_at]).log_softmax(-1)
        return next_token[:, torch.arange(steps), answers].sum(-1)

    def loss(self, rows: Sequence[Row]) -> float:
        """The mean cross-entropy, in nats, of all tokens of the rows but the first of each, given those before it.

        rows: of two tokens or more, no longer than the context.
        """
        lengths = np.array([len(row) for row in rows])
        batches = batches_by_length(lengths, self.budget.tokens)
        parts = self.budget.in_parts(batches, lambda indices: self._summed_loss([rows[i] for i in indices]))
        return sum(found for _, found in parts) / int((lengths - 1).sum())

    @torch.no_grad()
    def _summed_loss(self, rows: Sequence[Row]) -> float:
        hidden, packed = self._hidden_states(rows)
        given = token_indices(packed.starts.cpu().numpy(), packed.lengths.cpu().numpy() - 1)
        next_ids = torch.from_numpy(np.concatenate([row[1:] for row in rows])).long().to(self.device)
        positions = torch.from_numpy(given).to(self.device)
        total = 0.0
        for at, ids in zip(positions.split(LOGITS_AT_ONCE), next_ids.split(LOGITS_AT_ONCE), strict=True):
            logits = self.backbone.next_token_logits(hidden[at])
            total += cross_entropy(logits.double(), ids, reduction="sum").item()
        return total

    def _hidden_states(self, rows: Sequence[Row]) -> tuple[Tensor, PackedBatch]:
        """Of the rows of one batch after the final norm, [tokens, hidden], on the device, and where they lie in it."""
        batch = PackedBatch.packed(np.array([len(row) for row in rows])).to(self.device)
        ids = torch.from_numpy(np.concatenate(rows)).long().to(self.device)
        return features_of(self.stages, batch.pack(ids), batch)
