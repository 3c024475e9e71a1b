"""What exists for speed alone. A kernel takes the place of plain modules and computes the same, faster.

`optimize` puts them in before a run, `restore` takes them out. Each has a test of equality with what it replaces in
tests/kernels, and a line in the ablation table of `make perf` (docs/performance.md).
"""

from __future__ import annotations

import torch
from torch import nn

from harness.config.schema import Precision
from harness.kernels.cpu import onednn
from harness.kernels.cpu.attention import CPUAttention
from harness.kernels.cpu.few_rows import few_rows
from harness.kernels.cpu.packed_linear import packed
from harness.kernels.gpu.fused_block import fused
from harness.kernels.gpu.fused_lora import fused_lora
from harness.kernels.one_query import OneQueryBlock, ReadingBlock
from harness.kernels.one_query_hub import OneQueryHubBlock
from harness.kernels.replacing import is_as_built, replace_below, restore_below
from harness.model.attention import DotProductAttention
from harness.model.backbone import Block
from harness.model.gpt2 import GPT2Block, SelfAttention
from harness.model.hub.backbone import HubBlock
from harness.model.readout import ReadToken
from harness.model.split import Part, Prefix

ONE_QUERY: dict[type[nn.Module], type[ReadingBlock]] = {GPT2Block: OneQueryBlock, HubBlock: OneQueryHubBlock}


def optimize(part: Part, device: torch.device, precision: Precision) -> None:
    """Replace modules of a prefix that has its parameters, or of a suffix, by faster ones for `device`."""
    read_in_top_block(part)
    if device.type != "cpu":
        if has_attention_by_lengths(device):
            attend_by_lengths(part)
        fuse(part)
        return
    attend_row_by_row(part)
    if precision == "bf16" and onednn.is_available():
        if isinstance(part, Prefix):
            pack_matrices(part)
        else:
            multiply_few_rows_in_float32(part)


def restore(part: Part) -> None:
    """Put the plain modules back, with their present parameters."""
    for stage in part.stages:
        if isinstance(stage, ReadingBlock):
            part.readout = ReadToken(stage.position)
    restore_below(part)


def read_in_top_block(part: Part) -> None:
    """Where a part reads one token of each row, its top block computes no other: above it nothing mixes positions."""
    blocks = [index for index, stage in enumerate(part.stages) if isinstance(stage, Block)]
    if not blocks or not isinstance(part.readout, ReadToken):
        return
    block = part.stages[blocks[-1]]
    replacement = ONE_QUERY.get(type(block))
    if replacement and _attends_as_built(block):
        part.stages[blocks[-1]] = replacement.reading(block, part.readout.position)
        part.readout = None


def _attends_as_built(block: nn.Module) -> bool:
    """Whether a strategy's code has left a block, and how it attends, as it is."""
    if not is_as_built(block, type(block)):
        return False
    if isinstance(block, GPT2Block):
        if not is_as_built(block.attention, SelfAttention):
            return False
        return is_as_built(block.attention.attend, DotProductAttention)
    return isinstance(block, HubBlock) and is_as_built(block.attend, DotProductAttention)


def attend_row_by_row(part: Part) -> None:
    replace_below(part, lambda module: CPUAttention.of(module) if is_as_built(module, DotProductAttention) else None)


def has_attention_by_lengths(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def attend_by_lengths(part: Part) -> None:
    # Here, as it brings PyTorch's compiler, which takes 2 s.
    from harness.kernels.gpu.varlen_attention import VarlenAttention

    replace_below(part, lambda module: VarlenAttention.of(module) if is_as_built(module, DotProductAttention) else None)


def fuse(part: Part) -> None:
    """What saves launches."""
    replace_below(part, fused_lora)
    replace_below(part, fused)


def pack_matrices(prefix: Prefix) -> None:
    replace_below(prefix.stages, packed)


def multiply_few_rows_in_float32(suffix: Part) -> None:
    """In a block that computes one token of each row."""
    replace_below(nn.ModuleList(stage for stage in suffix.stages if isinstance(stage, OneQueryBlock)), few_rows)
