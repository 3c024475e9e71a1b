"""Our head, logits = W h + b, in the classes of `transformers` for sequences, whose heads are others.

Each is set so that it computes the same up to float32's rounding; where that is impossible the reason is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from harness.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Absolute error of the head's bias as the final norm expresses it.
BIAS_TOLERANCE = 1e-5
# tanh(x) is x (1 - x^2 / 3 + ...): below 2^-13 the difference is less than half of float32's last digit.
LINEAR_BELOW = -13

NO_PLACE_FOR_A_BIAS = "the class's head has no bias, nor has the final norm, which could take it"
NORM_IN_THE_HEAD = "the class's head has a norm, which forgets the size of what it is given"


@dataclass(frozen=True)
class OurHead:
    """weight: [classes, hidden], bias: [classes], both float64 and divided by the temperature. norm: the last one below
    it."""

    weight: Tensor
    bias: Tensor
    norm: nn.Module


def set_head(model: PreTrainedModel, head: OurHead) -> None:
    """Make the head of `model`, which has all other parameters, give our logits.

    Raises UserError where these very parameters can't be expressed.
    """
    with torch.no_grad():
        HEADS[model.config.model_type](model, head)


def _without_bias(model: PreTrainedModel, head: OurHead) -> None:
    """logits = W h: the bias of the final norm is shifted by d, the shortest vector with W d = b."""
    shift = torch.linalg.pinv(head.weight) @ head.bias
    if not torch.allclose(head.weight @ shift, head.bias, atol=BIAS_TOLERANCE):
        raise UserError(
            "the head's bias can't be expressed by transformers' class, whose head has none: the rows of its matrix "
            "depend on each other. Train with other seeds, or fewer classes, or export with --format onnx."
        )
    model.get_parameter("score.weight").copy_(head.weight)
    norm = head.norm.get_parameter("bias")
    norm.copy_(norm.double() + shift)


def _tanh(dense: str, output: str) -> Callable[[PreTrainedModel, OurHead], None]:
    """logits = W2 tanh(W1 h + b1) + b2: the dense layer gives our logits times 2^-k, so small that tanh leaves them as
    they are, and the output layer multiplies by 2^k. Powers of two are exact."""

    def set_both(model: PreTrainedModel, head: OurHead) -> None:
        power = 2.0 ** (math.ceil(math.log2(_largest_logit(head))) - LINEAR_BELOW)
        _set_layers(model, dense, output, head.weight / power, head.bias / power, _one_each(len(head.bias)) * power)

    return set_both


def _relu(dense: str, output: str) -> Callable[[PreTrainedModel, OurHead], None]:
    """logits = W2 relu(W1 h + b1) + b2: the dense layer gives our logits and their negatives, as
    z = relu(z) - relu(-z)."""

    def set_both(model: PreTrainedModel, head: OurHead) -> None:
        one = _one_each(len(head.bias))
        weight, bias = torch.cat([head.weight, -head.weight]), torch.cat([head.bias, -head.bias])
        _set_layers(model, dense, output, weight, bias, torch.cat([one, -one], dim=1))

    return set_both


def _set_layers(model: PreTrainedModel, dense: str, output: str, weight: Tensor, bias: Tensor, back: Tensor) -> None:
    """weight, bias: of the first units of the dense layer; the others give 0. back: [classes, units]."""
    first, second = model.get_submodule(dense), model.get_submodule(output)
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    units = len(bias)
    if units > first.out_features:
        raise UserError(
            f"the {len(back)} classes need {units} units of the head of transformers' class, which has "
            f"{first.out_features}: export with --format onnx."
        )
    for parameter in (*first.parameters(), *second.parameters()):
        parameter.zero_()
    first.weight[:units], first.bias[:units], second.weight[:, :units] = weight.float(), bias.float(), back.float()


def _one_each(classes: int) -> Tensor:
    return torch.eye(classes, dtype=torch.float64)


def _largest_logit(head: OurHead) -> float:
    """A bound on its absolute value, for whatever the norm is given: a normalised vector is as long as the square root
    of its width."""
    factors, shift = (head.norm.get_parameter(name).double() for name in ("weight", "bias"))
    length = factors.abs().max() * math.sqrt(len(factors)) + shift.norm()
    return float((head.weight.norm(dim=1) * length + head.bias.abs()).max().clamp(min=torch.finfo(torch.float32).tiny))


HEADS: Mapping[str, Callable[[PreTrainedModel, OurHead], None]] = {
    "gpt2": _without_bias,
    "gpt_neox": _without_bias,
    "opt": _without_bias,
    "bert": _tanh("bert.pooler.dense", "classifier"),
    "roberta": _tanh("classifier.dense", "classifier.out_proj"),
    "distilbert": _relu("pre_classifier", "classifier"),
}


def why_not(kind: str, norm: nn.Module) -> str | None:
    """Why the class of `transformers` for models of type `kind` can't have our head; None where it can.

    norm: the final one.
    """
    if kind == "modernbert":
        return NORM_IN_THE_HEAD
    if kind not in HEADS or (HEADS[kind] is _without_bias and getattr(norm, "bias", None) is None):
        return NO_PLACE_FOR_A_BIAS
    return None
