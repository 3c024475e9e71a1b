"""What the bits of stored features depend on, as the key of their file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from harness.config.schema import Precision
from harness.measure.code import features_code_sha256
from harness.model.split import Prefix


def hash_stages(prefix: Prefix) -> list[str]:
    """A hash of the tensors of each stage, its buffers included."""
    tensors = [(stage, *entry) for stage, module in enumerate(prefix.stages) for entry in module.state_dict().items()]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # hashing leaves the interpreter's lock alone
        hashed = list(pool.map(_hash_tensor, tensors))
    of_stages = [[entry for stage, entry in hashed if stage == number] for number in range(len(prefix.stages))]
    return [hashlib.sha256(repr(entries).encode()).hexdigest() for entries in of_stages]


def _hash_tensor(entry: tuple[int, str, Tensor]) -> tuple[int, tuple[str, str, list[int], str]]:
    stage, name, tensor = entry
    content = tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy()
    return stage, (name, str(tensor.dtype), list(tensor.shape), hashlib.sha256(content.data).hexdigest())


def feature_key(
    prefix: Prefix,
    stages: int,
    tensors: Sequence[str],
    own_code: str,
    rows_sha256: str,
    precision: Precision,
    device: torch.device,
) -> str:
    """Of what the lowest `stages` of a prefix make of the rows; tensors: what `hash_stages` gives.

    own_code: hash of the code of a third party that built the prefix, else empty.
    """
    modules = [module for stage in prefix.stages[:stages] for module in stage.modules()]
    parts = (
        list(tensors[:stages]),
        own_code,
        features_code_sha256(),
        torch.__version__,
        prefix.names[:stages],
        prefix.readout if stages == len(prefix.stages) else None,
        [type(module).__qualname__ for module in modules],
        [(getattr(module, "causal", None), getattr(module, "settings", None)) for module in modules],
        precision,
        device.type,
        rows_sha256,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()
