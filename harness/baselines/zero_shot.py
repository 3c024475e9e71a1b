"""The untouched language model, asked in words: the class whose name it finds likeliest as the answer.

The model continues a prompt that holds the text and the names of the classes. The probability of a class is that of
the tokens of its name as the continuation, normalised over the classes. Nothing is learnt.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from harness.baselines import Fitted, Part, Task
from harness.errors import UserError

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


def fit(task: Task) -> Fitted:
    prompt = Prompt.of(task)
    from scipy.special import softmax

    from harness.features.language_model import LanguageModel  # imports PyTorch, which `ftbench list` does without

    model = LanguageModel.of(task.model, task.weights, task.device, task.precision, task.warn)

    def probabilities(part: Part) -> np.ndarray:
        prompts = prompt.around(part, model.backbone.context)
        return softmax(model.likelihoods(prompts, prompt.answers), axis=1)

    return Fitted(probabilities, sum(parameter.numel() for parameter in model.backbone.parameters()), 0)
