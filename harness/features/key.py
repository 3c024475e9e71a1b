"""What the bits of stored features depend on, as the key of their file."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.config.schema import Precision
from harness.model.device_settings import settings_in_force
from harness.model.split import Prefix


@dataclass(frozen=True)
class FeatureKeys:
    """The keys of a prefix on the rows of a data set.

    modules: of each stage, what its modules are and how they attend, as they are without kernels.
    device: its type, and the settings that change what it computes.
    code: hashes of the code of a third party that built the prefix, else empty, and of the harness.
    """

    names: tuple[str, ...]
    reads: str | None
    modules: tuple[Any, ...]
    rows_sha256: str
    precision: Precision
    device: tuple[str, ...]
    code: tuple[str, str]

    @classmethod
    def of(
        cls, prefix: Prefix, rows_sha256: str, precision: Precision, device: torch.device, code: tuple[str, str]
    ) -> FeatureKeys:
        modules = tuple(
            [
                (type(module).__qualname__, getattr(module, "causal", None), getattr(module, "settings", None))
                for module in stage.modules()
            ]
            for stage in prefix.stages
        )
        return cls(
            names=prefix.names,
            reads=prefix.facts.reads,
            modules=modules,
            rows_sha256=rows_sha256,
            precision=precision,
            device=(device.type, *settings_in_force(device)),
            code=code,
        )

    def key(self, stages: int, tensors: list[str]) -> str:
        """Of the output of the lowest `stages`; tensors: what `hash_stages` gives."""
        parts = (
            tensors[:stages],
            self.names[:stages],
            self.reads if stages == len(self.names) else None,
            self.modules[:stages],
            self.rows_sha256,
            self.precision,
            self.device,
            self.code,
            torch.__version__,
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()


def hash_stages(prefix: Prefix) -> list[str]:
    """A hash of the tensors of each stage, its buffers included."""
    tensors = [(stage, *entry) for stage, module in enumerate(prefix.stages) for entry in module.state_dict().items()]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # hashing releases the interpreter's lock
        hashed = list(pool.map(_hash_tensor, tensors))
    of_stages = [[entry for stage, entry in hashed if stage == number] for number in range(len(prefix.stages))]
    return [hashlib.sha256(repr(entries).encode()).hexdigest() for entries in of_stages]


def _hash_tensor(entry: tuple[int, str, Tensor]) -> tuple[int, tuple[str, str, list[int], str]]:
    stage, name, tensor = entry
    content = tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy()
    return stage, (name, str(tensor.dtype), list(tensor.shape), hashlib.sha256(content.data).hexdigest())
