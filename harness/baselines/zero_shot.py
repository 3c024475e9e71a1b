"""The untouched language model, asked in words: the class whose name it finds likeliest as the answer.

The model continues a prompt that holds the text and the names of the classes. The probability of a class is that of
the tokens of its name as the continuation, normalised over the classes. Nothing is learnt.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor

from harness.baselines import Fitted, Part, Task
from harness.data.batching import batches_by_length
from harness.distributed.process_group import World
from harness.errors import UserError
from harness.features.features import features_of
from harness.features.loader import PrefixLoader
from harness.features.token_budget import TokenBudget
from harness.model.backbone import Backbone
from harness.model.packing import PackedBatch
from harness.model.split import Prefix, PrefixFacts

USES = ("data", "model", "precision", "deterministic", "tf32")


@dataclass(frozen=True)
class Prompt:
    """Token ids: what stands before and after the text, and the answers, one a class."""

    before: list[int]
    after: list[int]
    answers: list[tuple[int, ...]]

    @classmethod
    def of(cls, task: Task) -> Prompt:
        encode = task.tokenizer.encode_ordinary
        question = f"\nIs this text {' or '.join(task.classes)}? It is"
        return cls(
            [*task.tokenizer.template(pair=False).beginning, *encode("Text:\n")],
            encode(question),
            [tuple(encode(f" {name}")) for name in task.classes],
        )

    def around(self, part: Part, context: int) -> list[list[int]]:
        """The prompt of each text, which is cut where prompt and answer would not fit the context."""
        room = context - len(self.before) - len(self.after) - max(map(len, self.answers))
        if room < 1:
            raise UserError(
                f"zero_shot: a prompt that names {len(self.answers)} classes leaves no room for a text in a context of "
                f"{context} tokens: leave zero_shot out, or choose another MODEL."
            )
        ids, offsets = part.examples.token_ids.tolist(), part.examples.offsets.tolist()
        texts = [ids[start : min(end, start + room)] for start, end in pairwise(offsets)]
        return [[*self.before, *text, *self.after] for text in texts]


@dataclass(frozen=True)
class LanguageModel:
    """backbone: frozen. stages: the same as one frozen prefix, in the precision of the run."""

    backbone: Backbone
    stages: Prefix
    device: torch.device
    budget: TokenBudget

    @classmethod
    def of(cls, task: Task) -> LanguageModel:
        backbone = task.model.empty().requires_grad_(False)
        stages = Prefix(backbone.stages(), PrefixFacts(boundary="output", reads=None, cacheable=False, causal=True))
        PrefixLoader(stages, lambda stage: task.weights.fill(backbone, [stage]), task.device, task.precision).load()
        alone = World(0, 1, task.device)
        return cls(backbone, stages, task.device, TokenBudget.of(alone, backbone.hidden, task.precision, task.warn))

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

    def _of_last_tokens(self, rows: list[list[int]], answers: Tensor) -> np.ndarray:
        """answers: [answers, tokens], which end one token after the rows do -> log-probabilities [rows, answers]."""
        lengths = np.array([len(row) for row in rows])
        found = np.empty((len(rows), len(answers)))
        batches = batches_by_length(lengths, self.budget.tokens)
        computed = self.budget.in_parts(batches, lambda indices: self._of_batch([rows[i] for i in indices], answers))
        for indices, of_answers in computed:
            found[indices] = of_answers.double().cpu().numpy()
        return found

    @torch.no_grad()
    def _of_batch(self, rows: list[list[int]], answers: Tensor) -> Tensor:
        """The same of the rows of one batch, on the device."""
        steps = answers.shape[1]
        batch = PackedBatch.packed(np.array([len(row) for row in rows])).to(self.device)
        ids = torch.from_numpy(np.concatenate(rows)).to(self.device)
        hidden, packed = features_of(self.stages, batch.pack(ids), batch)
        read_at = (packed.starts + packed.lengths)[:, None] - torch.arange(steps, 0, -1, device=self.device)
        next_token = self.backbone.next_token_logits(hidden[read_at]).log_softmax(-1)
        return next_token[:, torch.arange(steps), answers].sum(-1)


def fit(task: Task) -> Fitted:
    prompt, model = Prompt.of(task), LanguageModel.of(task)

    def probabilities(part: Part) -> np.ndarray:
        prompts = prompt.around(part, model.backbone.context)
        return softmax(model.likelihoods(prompts, prompt.answers), axis=1)

    return Fitted(probabilities, sum(parameter.numel() for parameter in model.backbone.parameters()), 0)
