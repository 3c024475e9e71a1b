"""Checkpoints: what a run needs to resume, whatever its engine and number of ranks.

A checkpoint is two files: the tensors (safetensors: trained parameters, optimizer state, random states, the best
epoch's parameters where they are kept) and a manifest with their hash, the curve so far and the configuration. Each is
written under another name and renamed; the manifest comes last, so a checkpoint without one does not exist. The last
two are kept: a damaged one is skipped for the other.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.config.places import without_places
from harness.config.tree import differences
from harness.distributed.process_group import World
from harness.distributed.signals import StopSignals
from harness.errors import UserError
from harness.files import file_sha256, write_atomically
from harness.results.record import EpochScore, TrainingCurve
from harness.training.engines.protocol import Engine
from harness.training.micro_batch import MicroBatch
from harness.training.selection import Selection

KEPT = 2
# Begins the names of the best epoch's parameters.
BEST = "best/"


class Manifest(BaseModel):
    """curve: of every step so far; its length is the data position. scores: of the epochs so far, where they are
    judged. seconds: of training so far."""

    sha256: str
    curve: TrainingCurve
    scores: list[EpochScore] = []
    seconds: float
    config: dict[str, Any]

    @property
    def step(self) -> int:
        return len(self.curve)


@dataclass
class Checkpoints:
    """The checkpoints of one run. every_steps: None where only one of `signals` asks for one."""

    folder: Path
    config: dict[str, Any]
    every_steps: int | None
    signals: StopSignals = field(default_factory=StopSignals)
    warnings: list[str] = field(default_factory=list)

    def due(self, step: int) -> bool:
        return self.every_steps is not None and step % self.every_steps == 0

    def save(self, engine: Engine, world: World, curve: TrainingCurve, selection: Selection, seconds: float) -> None:
        """Every rank must call it; the first writes.

        Raises UserError where the file can't be written: those before it stay.
        """
        tensors = engine.save() | {f"{BEST}{name}": value for name, value in selection.values.items()}
        for rank, states in enumerate(world.gather(_random_states(world.device))):
            tensors |= {f"random_state/{rank}/{kind}": state for kind, state in states.items()}
        problem = self._write(tensors, curve, selection.scores, seconds) if world.rank == 0 else None
        problem = world.first(problem)
        if problem:
            raise UserError(problem)

    def resume(
        self, engine: Engine, world: World, selection: Selection, warm_up: Callable[[], list[MicroBatch]]
    ) -> Manifest | None:
        """Bring engine and selection to where the newest complete checkpoint was written; None where there is none.

        warm_up: gives a batch of the run's own shape (see `Engine.load`). Every rank must call it.
        """
        manifest = world.gather(self._newest_complete() if world.rank == 0 else None)[0]
        if manifest is None:
            return None
        tensors = self._read(manifest.step)
        best = {name: tensors.pop(name) for name in list(tensors) if name.startswith(BEST)}
        engine.load({name: tensor for name, tensor in tensors.items() if "random_state/" not in name}, warm_up())
        selection.scores = manifest.scores
        if world.rank == 0:
            selection.values = {name.removeprefix(BEST): value for name, value in best.items()}
        # A rank that is new, or on another kind of device, keeps the states that it has.
        if (state := tensors.get(f"random_state/{world.rank}/cpu")) is not None:
            torch.set_rng_state(state)
        if (state := tensors.get(f"random_state/{world.rank}/cuda")) is not None and world.device.type == "cuda":
            torch.cuda.set_rng_state(state, world.device)
        return manifest

    def remove(self) -> None:
        for path in self._manifests():  # first: a folder that is half removed holds no checkpoint
            path.unlink()
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def check_configuration(self) -> None:
        """Raises UserError where a checkpoint was written by a run of another configuration."""
        for path in self._manifests():
            manifest = _read_manifest(path)
            if manifest and (different := differences(*map(without_places, (manifest.config, self.config)))):
                changes = [f"{key}: {theirs!r}, here {ours!r}" for key, (theirs, ours) in sorted(different.items())]
                raise UserError(
                    f"checkpoint {str(path)!r} belongs to another configuration ({'; '.join(changes)}): "
                    "move its folder away, or run the configuration that it is of."
                )

    def _write(
        self, tensors: dict[str, Tensor], curve: TrainingCurve, scores: list[EpochScore], seconds: float
    ) -> str | None:
        path = self._tensors(len(curve))
        partial = path.with_suffix(".partial")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
            manifest = Manifest(
                sha256=file_sha256(partial), curve=curve, scores=scores, seconds=seconds, config=self.config
            )
            partial.replace(path)
            write_atomically(path.with_suffix(".json"), manifest.model_dump_json())
        except (OSError, SafetensorError) as error:
            partial.unlink(missing_ok=True)
            return f"checkpoint {str(path)!r} can't be written ({error}): free space, or name another RESULTS folder."
        for old in self._manifests()[KEPT:]:
            old.unlink()
            old.with_suffix(".safetensors").unlink(missing_ok=True)
        return None

    def _newest_complete(self) -> Manifest | None:
        for path in self._manifests():
            manifest = _read_manifest(path)
            tensors = path.with_suffix(".safetensors")
            if manifest and tensors.exists() and file_sha256(tensors) == manifest.sha256:
                return manifest
            self.warnings.append(f"checkpoint {path} is damaged: skipped for the one before.")
        return None

    def _read(self, step: int) -> dict[str, Tensor]:
        path = self._tensors(step)
        if not path.exists():
            raise UserError(f"checkpoint {str(path)!r} is not on this machine: RESULTS must be a folder that all see.")
        return load_file(path)

    def _manifests(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob("step-*.json"), reverse=True)

    def _tensors(self, step: int) -> Path:
        return self.folder / f"step-{step:08}.safetensors"


def _random_states(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    return states | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def _read_manifest(path: Path) -> Manifest | None:
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError:
        return None
