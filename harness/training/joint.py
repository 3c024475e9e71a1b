"""Several runs trained as one batched model: the same suffix and stored features, other seeds and learning rates.

Their trained parameters are stacked, [runs, ...], and one forward and backward pass does a step of all of them
(torch.func.vmap). Each run keeps its own batches, rate and weight decay; none depends on another, so the numbers are
those of the runs one by one but for rounding. What it saves is the overhead of small steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, vmap

from harness.config.schema import OptimizerConfig, Precision
from harness.kernels import read_in_top_block
from harness.model.packing import TOKENS_MULTIPLE, BatchShape, PackedBatch
from harness.model.precision import InPrecision
from harness.model.split import Suffix
from harness.results.record import TrainingCurve
from harness.training.batches import TrainingBatches
from harness.training.engines.optimizer import trained_parameters
from harness.training.schedule import learning_rate

SHOW_EVERY_STEPS = 50  # until then losses stay on the device


@dataclass(frozen=True)
class Member:
    """One of the runs. suffix: with the parameters that its seed has drawn. optimizer: its learning rate among them."""

    suffix: Suffix
    batches: TrainingBatches
    optimizer: OptimizerConfig


@dataclass(frozen=True)
class TrainedMember:
    """values: of the trained parameters by name, on the CPU, as `Engine.set_values` takes them."""

    values: dict[str, Tensor]
    curve: TrainingCurve


def train_jointly(
    members: Sequence[Member],
    precision: Precision,
    is_asked_to_stop: Callable[[], bool],
    on_progress: Callable[[int, int, float, float], None],
) -> list[TrainedMember]:
    """Train all members, whose configurations differ in seed and learning rate alone, for as many steps each.

    on_progress: receives steps done, steps in all, and the last loss and accuracy, means over members.
    Raises KeyboardInterrupt where it is asked to stop.
    """
    device = members[0].batches.world.device
    model = _JointModel(members, precision, device)
    epochs = [member.batches.of_all_epochs() for member in members]
    steps = len(epochs[0])
    results: list[Tensor] = []
    for step in range(steps):
        rates = [learning_rate(member.optimizer, step, steps) for member in members]
        results.append(model.step(_Batch.of(members, [order[step] for order in epochs]), rates))
        if (step + 1) % SHOW_EVERY_STEPS == 0 or step + 1 == steps:
            on_progress(step + 1, steps, *results[-1].mean(dim=1).tolist())
            if is_asked_to_stop():
                raise KeyboardInterrupt
    curves = torch.stack(results).cpu().double() if results else torch.zeros(0, 2, len(members))
    return [
        TrainedMember(
            values={name: value[number].detach().cpu().clone() for name, value in model.parameters.items()},
            curve=TrainingCurve(losses=curves[:, 0, number].tolist(), accuracies=curves[:, 1, number].tolist()),
        )
        for number in range(len(members))
    ]


@dataclass(frozen=True)
class _Batch:
    """A batch of each member, all of one shape. features: [runs, tokens, hidden]. starts, lengths, labels, weights:
    [runs, rows]. slots: [runs, tokens]; None where tokens fill the rectangle."""

    shape: BatchShape
    features: Tensor
    starts: Tensor
    lengths: Tensor
    slots: Tensor | None
    labels: Tensor
    weights: Tensor
    label_smoothing: float

    @classmethod
    def of(cls, members: Sequence[Member], indices: list[np.ndarray]) -> _Batch:
        every = [member.batches for member in members]
        own = [BatchShape.of(one.features.lengths[rows]) for one, rows in zip(every, indices, strict=True)]
        shape = _common_shape(own)
        laid_out = [one.features.layout(rows, shape) for one, rows in zip(every, indices, strict=True)]
        sources = torch.from_numpy(np.stack([source for source, _ in laid_out]))
        features = every[0].features
        device, batches = features.device, [batch for _, batch in laid_out]
        rows = features.fetch(sources.flatten().to(features.flat.device)).view(*sources.shape, -1)
        slots = [batch.slots for batch in batches if batch.slots is not None]
        labels = np.stack([one.examples.labels[rows] for one, rows in zip(every, indices, strict=True)])
        weights = [
            np.ones(len(rows), np.float32) if one.weights is None else one.weights[rows].astype(np.float32)
            for one, rows in zip(every, indices, strict=True)
        ]
        return cls(
            shape=shape,
            features=rows.to(device),
            starts=torch.stack([batch.starts for batch in batches]).to(device),
            lengths=torch.stack([batch.lengths for batch in batches]).to(device),
            slots=torch.stack(slots).to(device) if slots else None,
            labels=torch.from_numpy(labels).to(device),
            weights=torch.from_numpy(np.stack(weights)).to(device, rows.dtype),
            label_smoothing=every[0].config.label_smoothing,
        )


def _common_shape(shapes: list[BatchShape]) -> BatchShape:
    """The smallest that each batch fits in."""
    first = shapes[0]
    if all(shape == first for shape in shapes):
        return first
    tokens, width = max(shape.tokens for shape in shapes), max(shape.width for shape in shapes)
    return BatchShape(first.rows, tokens + -tokens % TOKENS_MULTIPLE, width)


class _JointModel:
    """The suffix of all members: their trained parameters stacked; what is frozen is the same in each."""

    def __init__(self, members: Sequence[Member], precision: Precision, device: torch.device) -> None:
        for member in members:
            read_in_top_block(member.suffix)
        placed = [InPrecision(member.suffix, precision, device) for member in members]
        named = [trained_parameters(member.suffix) for member in members]
        self._suffix, self._precision, self._device = placed[0], precision, device
        self.parameters = {name: torch.stack([one[name].detach() for one in named]) for name in named[0]}
        for parameter in self.parameters.values():
            parameter.requires_grad_()
        factors = [members[0].suffix.rate_factor(name) for name in self.parameters]
        self._optimizer = _JointAdamW(list(self.parameters.values()), factors, members[0].optimizer)

    def step(self, batch: _Batch, rates: Sequence[float]) -> Tensor:
        """One step of each member; returns [loss, accuracy] before it, [2, runs]."""
        slots = None if batch.slots is None else 0
        losses, right = vmap(self._score, in_dims=(0, 0, 0, 0, slots, 0, 0, None))(
            self.parameters,
            batch.features,
            batch.starts,
            batch.lengths,
            batch.slots,
            batch.labels,
            batch.weights,
            batch,
        )
        gradients = torch.autograd.grad(losses.sum(), list(self.parameters.values()))
        self._optimizer.step(gradients, torch.tensor(rates, dtype=losses.dtype, device=losses.device))
        return torch.stack([losses.detach(), right])

    def _score(
        self,
        parameters: dict[str, Tensor],
        features: Tensor,
        starts: Tensor,
        lengths: Tensor,
        slots: Tensor | None,
        labels: Tensor,
        weights: Tensor,
        batch: _Batch,
    ) -> tuple[Tensor, Tensor]:
        """Mean loss and accuracy of one member."""
        boundaries = torch.zeros(0, dtype=torch.int32)  # of attention by cumulative lengths, which no member has
        packed = PackedBatch(starts, lengths, batch.shape.width, slots, boundaries)
        logits = functional_call(
            self._suffix, {f"suffix.{name}": value for name, value in parameters.items()}, (features, packed)
        )
        losses = F.cross_entropy(logits, labels, reduction="none", label_smoothing=batch.label_smoothing)
        return (losses * weights).sum() / len(labels), (logits.argmax(dim=1) == labels).to(losses.dtype).mean()


class _JointAdamW:
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101, algorithm 2) of stacked parameters, each run with its own rate
    and its own clipping; the formulas of `torch.optim.AdamW`."""

    def __init__(self, stacked: list[Tensor], factors: list[float], config: OptimizerConfig) -> None:
        """factors: of the rate of each parameter."""
        self._config, self._parameters, self._factors = config, stacked, factors
        self._means = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._steps = 0

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], rates: Tensor) -> None:
        """rates: [runs]."""
        config, (beta1, beta2) = self._config, self._config.betas
        self._steps += 1
        gradients = [gradient * _by_run(self._clipping(gradients), gradient) for gradient in gradients]
        for parameter, factor, gradient, mean, square in zip(
            self._parameters, self._factors, gradients, self._means, self._squares, strict=True
        ):
            rate = _by_run(rates * factor, parameter)
            decays = config.decay_norms_and_biases or parameter.ndim > 2
            parameter *= 1 - rate * (config.weight_decay if decays else 0.0)
            mean.lerp_(gradient, 1 - beta1)
            square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            scale = (square / (1 - beta2**self._steps)).sqrt_().add_(config.eps)
            parameter -= rate / (1 - beta1**self._steps) * mean / scale

    def _clipping(self, gradients: Sequence[Tensor]) -> Tensor:
        """What each run's gradients are multiplied by, [runs], as `torch.nn.utils.clip_grad_norm_` has it."""
        norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
        if self._config.clip_norm is None:
            return torch.ones_like(norms)
        return (self._config.clip_norm / (norms + 1e-6)).clamp(max=1.0)


def _by_run(values: Tensor, like: Tensor) -> Tensor:
    """[runs] in a shape that multiplies [runs, ...]."""
    return values.view(-1, *[1] * (like.ndim - 1))
