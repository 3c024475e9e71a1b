"""Backbones of `transformers`: its own layers, called so that they work on rows without padding between them.

A model of the library sees one long row that holds all rows of a batch; what keeps them apart is attention, which the
library lets us replace. The same place serves the top block: asked for one token of each row, the layer runs twice,
first over all tokens until its keys and values are known, then over the tokens that are read, with those. So no layer
is copied, and a new family is one entry of `FAMILIES`.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from harness import UserError
from harness.config import ModelConfig
from harness.data.hub_files import read_config, weight_files
from harness.declare import AttentionKind
from harness.model.attention import Attended, attend
from harness.model.backbone import Backbone, Block, Stage
from harness.model.rows import Rows

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

ATTENTION = "ftbench"

Embed = Callable[[Sequence[nn.Module], Tensor, Tensor], Tensor]


def _tokens(parts: Sequence[nn.Module], ids: Tensor, positions: Tensor) -> Tensor:
    return parts[0](ids)


def _tokens_and_positions(parts: Sequence[nn.Module], ids: Tensor, positions: Tensor) -> Tensor:
    return parts[0](ids) + parts[1](positions)


def _opt(parts: Sequence[nn.Module], ids: Tensor, positions: Tensor) -> Tensor:
    return parts[0](ids) + parts[1](None, position_ids=positions)


def _whole(parts: Sequence[nn.Module], ids: Tensor, positions: Tensor) -> Tensor:
    return parts[0](input_ids=ids, position_ids=positions)


def _roberta(parts: Sequence[nn.Module], ids: Tensor, positions: Tensor) -> Tensor:
    return parts[0](input_ids=ids, position_ids=positions + parts[0].padding_idx + 1)


def _without_positions(parts: Sequence[nn.Module], ids: Tensor, positions: Tensor) -> Tensor:
    return parts[0](input_ids=ids)


@dataclass(frozen=True)
class Family:
    """Where models of one architecture keep their parts, by dotted names below the model.

    embeddings: what `embed(parts, ids, positions)` makes hidden states of; ids and positions are [1, tokens].
    rotary: what makes the rotary position embeddings that every block is given; rotary_by_kind: whether they depend on
    the block's kind of attention. attention: the model's own.
    """

    embeddings: tuple[str, ...]
    embed: Embed
    blocks: str
    final_norm: str | None = None
    rotary: str | None = None
    rotary_by_kind: bool = False
    attention: AttentionKind = "causal"


_LLAMA = Family(("embed_tokens",), _tokens, "layers", "norm", "rotary_emb")
_BERT = Family(("embeddings",), _whole, "encoder.layer", attention="full")
FAMILIES = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gpt_neox": Family(("embed_in",), _tokens, "layers", "final_layer_norm", "rotary_emb"),
    "opt": Family(
        ("decoder.embed_tokens", "decoder.embed_positions"), _opt, "decoder.layers", "decoder.final_layer_norm"
    ),
    "gpt2": Family(("wte", "wpe"), _tokens_and_positions, "h", "ln_f"),
    "bert": _BERT,
    "roberta": replace(_BERT, embed=_roberta),
    "distilbert": replace(_BERT, blocks="transformer.layer"),
    "modernbert": Family(("embeddings",), _without_positions, "layers", "final_norm", "rotary_emb", True, "full"),
}


@dataclass
class _Call:
    """What the attention of a layer that runs now is to do. keys_and_values: what it works with instead of its own."""

    attended: Attended
    keys_and_values: tuple[Tensor, Tensor] | None = None
    stop: bool = False


class _Stopped(Exception):
    """Keys and values of a layer are known, and nothing else of it is wanted."""


_CALL: ContextVar[_Call] = ContextVar("call")


@contextmanager
def _calling(call: _Call) -> Iterator[None]:
    token = _CALL.set(call)
    try:
        yield
    finally:
        _CALL.reset(token)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The library's signature: query, key and value [1, heads, tokens, head] -> [1, tokens, heads, head]."""
    call = _CALL.get()
    query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))
    if call.stop:
        call.keys_and_values = key, value
        raise _Stopped
    key, value = call.keys_and_values or (key, value)
    attended = replace(call.attended, window=sliding_window)
    return attend(query, key, value, attended, scaling)[None], None


class Rotary:
    """The cosines and sines of a batch's positions, worked out once for all blocks. No module: it has no parameters,
    and stages come and go without it."""

    def __init__(self, make: nn.Module, by_kind: bool) -> None:
        self._make, self._by_kind = make, by_kind
        self._rows: Rows | None = None
        self._known: dict[Any, tuple[Tensor, Tensor]] = {}

    def __call__(self, hidden: Tensor, rows: Rows, kind: str | None) -> tuple[Tensor, Tensor]:
        """[1, tokens, head] each. kind: of the block's attention, where the positions depend on it."""
        key = kind, hidden.dtype
        if rows is not self._rows:
            self._rows, self._known = rows, {}
        if key not in self._known:
            with torch.no_grad():
                arguments = (kind,) if self._by_kind else ()
                self._known[key] = self._make(hidden, rows.positions()[None], *arguments)
        return self._known[key]


class HubEmbeddings(Stage):
    def __init__(self, parts: Sequence[nn.Module], embed: Embed) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self._embed = embed

    def forward(self, token_ids: Tensor, rows: Rows) -> Tensor:
        """token_ids: [tokens] int64 -> hidden states [tokens, hidden]."""
        return self._embed(self.parts, token_ids[None], rows.positions()[None])[0]


class HubBlock(Block):
    """A layer of the library."""

    def __init__(self, layer: nn.Module, rotary: Rotary | None, causal: bool) -> None:
        super().__init__()
        self.layer, self.causal = layer, causal
        self._rotary = rotary

    def forward(self, hidden: Tensor, rows: Rows, read_at: Tensor | None = None) -> Tensor:
        positions = self._rotary(hidden, rows, getattr(self.layer, "attention_type", None)) if self._rotary else None
        call = _Call(Attended(rows, self.causal, read_at), stop=read_at is not None)
        with _calling(call):
            if read_at is None:
                return self._run(hidden, positions)
            with suppress(_Stopped):
                self._run(hidden, positions)
            call.stop = False
            return self._run(hidden[read_at], positions and tuple(part[:, read_at] for part in positions))

    def _run(self, hidden: Tensor, positions: tuple[Tensor, Tensor] | None) -> Tensor:
        return self.layer(hidden[None], **({"position_embeddings": positions} if positions else {}))[0]


class HubBackbone(Backbone):
    """A model of the library, taken apart into stages."""

    def __init__(self, model: PreTrainedModel) -> None:
        config = model.config
        family = family_of(config)
        super().__init__(config.hidden_size, context_of(config), family.attention)
        part = {name: attrgetter(name)(model) for name in (*family.embeddings, family.blocks)}
        rotary = None
        if family.rotary:
            # Anew: the model may be on the meta device, and its tables are no parameters, which come later.
            with torch.device("cpu"):
                rotary = Rotary(type(attrgetter(family.rotary)(model))(config), family.rotary_by_kind)
        self.embeddings = HubEmbeddings([part[name] for name in family.embeddings], family.embed)
        causal = family.attention == "causal"
        self.blocks = nn.ModuleList(HubBlock(layer, rotary, causal) for layer in part[family.blocks])
        self.final_norm = (family.final_norm and attrgetter(family.final_norm)(model)) or nn.Identity()

    def stages(self) -> dict[str, nn.Module]:
        blocks = {f"block.{index}": block for index, block in enumerate(self.blocks)}
        return {"embeddings": self.embeddings, **blocks, "final_norm": self.final_norm}

    def set_attention(self, kind: AttentionKind) -> None:
        for block in self.blocks:
            block.causal = kind == "causal"

    def next_token_logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.embeddings.parts[0].weight)


def family_of(config: PretrainedConfig) -> Family:
    """Raises UserError where models like it are not mapped."""
    if config.model_type == "opt" and config.word_embed_proj_dim != config.hidden_size:
        raise UserError("this OPT projects its token embeddings to another width, which is not mapped.")
    return FAMILIES[config.model_type]


def context_of(config: PretrainedConfig) -> int:
    """The most tokens of a row. RoBERTa's table of positions begins behind its padding's."""
    first = config.pad_token_id + 1 if config.model_type == "roberta" else 0
    return config.max_position_embeddings - first


@dataclass(frozen=True)
class HubModel:
    """A model of the library by its folder or GGUF file. No code that comes with a model is ever run."""

    path: Path

    @property
    def context(self) -> int:
        return context_of(_config(self.path))

    @property
    def attention(self) -> AttentionKind:
        return family_of(_config(self.path)).attention

    @property
    def is_language_model(self) -> bool:
        """Whether `next_token_logits` can be had: its output layer is the token embedding."""
        return self.attention == "causal" and _config(self.path).tie_word_embeddings

    def empty(self) -> HubBackbone:
        """On the meta device, for `HubWeights.fill`."""
        with torch.device("meta"):
            return HubBackbone(_built(self.path))

    def weights(self, config: ModelConfig, path: Path | None) -> HubWeights:
        return HubWeights(self.path, None if path else config.init_seed)


class HubWeights:
    """The model's own weights, or such as its own code draws (seed). Satisfies harness.model.weights.Weights."""

    def __init__(self, path: Path, seed: int | None) -> None:
        self._path, self._seed = path, seed
        self._left: dict[str, nn.Module] = {}

    @torch.no_grad()
    def fill(self, backbone: HubBackbone, stages: Iterable[str]) -> None:
        """Hands its tensors over: a stage that is asked for again has all of them read again."""
        for name in stages:
            if name not in self._left:
                self._left = HubBackbone(self._read()).stages()
            given, target = self._left.pop(name), backbone.stages()[name]
            # An adapter's tensors are its own: they are not among those that are given.
            _, surplus = target.load_state_dict(given.state_dict(), strict=False, assign=True)
            for buffer, content in given.named_buffers():  # those that checkpoints leave out, too
                owner, _, own_name = buffer.rpartition(".")
                setattr(target.get_submodule(owner), own_name, content)
            assert not surplus
            assert not any(tensor.is_meta for tensor in target.state_dict().values())

    def _read(self) -> PreTrainedModel:
        with torch.random.fork_rng(devices=[]):
            if self._seed is not None:
                torch.manual_seed(self._seed)
                return _built(self._path)
            return _loaded(self._path)


@functools.cache
def _config(path: Path) -> PretrainedConfig:
    """Without dropout: this harness trains without it. Raises UserError for what is not mapped."""
    transformers = _library()
    transformers.AttentionInterface.register(ATTENTION, _attention)
    if path.is_dir():
        written = read_config(path)
        _check_mapped(path, written)
    config = transformers.AutoConfig.from_pretrained(*_where(path)[0], **_where(path)[1])
    _check_mapped(path, config.to_dict())
    for name, value in config.to_dict().items():
        if ("drop" in name) and isinstance(value, float):
            setattr(config, name, 0.0)
    family_of(config)
    return config


def _check_mapped(path: Path, written: dict[str, Any]) -> None:
    kind = written.get("model_type")
    if written.get("auto_map"):
        raise UserError(
            f"MODEL=hf:{path}: it brings code of its own (`auto_map`), which is never run; choose a model without."
        )
    if written.get("is_encoder_decoder"):
        raise UserError(f"MODEL=hf:{path}: {kind} is an encoder-decoder, which has no one stack of blocks to cut.")
    if kind not in FAMILIES:
        raise UserError(
            f"MODEL=hf:{path}: models of type {kind!r} are not mapped; expected one of {', '.join(FAMILIES)}. "
            "docs/backbones.md says how to add one."
        )


def _library() -> ModuleType:
    # It imports deepspeed where that is installed, which would look for a device, and tell.
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            "MODEL=hf:...: the package transformers is not installed; `pip install 'ftbench[hf]'` brings it, "
            "`make setup` too."
        ) from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def _where(path: Path) -> tuple[tuple[Path], dict[str, Any]]:
    """The library's arguments for a folder or a GGUF file."""
    if path.is_dir():
        return (path,), {"trust_remote_code": False}
    return (path.parent,), {"gguf_file": path.name, "trust_remote_code": False}


def check_hub_weights(path: Path) -> None:
    """Read headers only. Raises UserError where there are no weights that can be read, or where a file is not whole."""
    files = weight_files(path)
    if not files:
        raise UserError(
            f"MODEL=hf:{path}: it has no .safetensors file, and pickles, which can run code, are not read; save it "
            "with transformers' save_pretrained, or use WEIGHTS=random."
        )
    for file in files:
        try:
            if file.suffix == ".gguf":
                _gguf_reader()(file)
            else:
                with safe_open(file, framework="pt"):
                    pass
        except (SafetensorError, ValueError, IndexError, KeyError) as error:
            raise UserError(f"{file} is truncated or damaged ({error}): download it again.") from error


def _gguf_reader() -> type:
    try:
        import gguf
    except ImportError as error:
        raise UserError(
            "a GGUF file needs the package gguf; `pip install 'ftbench[hf]'` brings it, `make setup` too."
        ) from error
    return gguf.GGUFReader


def _built(path: Path) -> PreTrainedModel:
    model = _library().AutoModel.from_config(_config(path), attn_implementation=ATTENTION, dtype=torch.float32)
    return _with_linear_layers(model)


def _loaded(path: Path) -> PreTrainedModel:
    (where,), options = _where(path)
    model, info = _library().AutoModel.from_pretrained(
        where,
        config=_config(path),
        dtype=torch.float32,
        use_safetensors=True,
        attn_implementation=ATTENTION,
        output_loading_info=True,
        **options,
    )
    used = {id(parameter) for stage in HubBackbone(model).stages().values() for parameter in stage.parameters()}
    missing = [name for name in info["missing_keys"] if id(model.get_parameter(name)) in used]
    if missing:
        raise UserError(
            f"MODEL=hf:{path}: its weights lack {missing[0]!r} ({len(missing)} such names in all): download it again, "
            "or use WEIGHTS=random."
        )
    return _with_linear_layers(model)


def _with_linear_layers(model: PreTrainedModel) -> PreTrainedModel:
    """GPT-2's matrices, which the library holds as [inputs, outputs], as Linear: what can be adapted and stored in
    bfloat16."""
    from transformers.pytorch_utils import Conv1D

    for module in model.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, Conv1D):
                with torch.device("meta"):
                    linear = nn.Linear(*child.weight.shape)
                linear.weight = nn.Parameter(child.weight.detach().t().contiguous())
                linear.bias = child.bias
                setattr(module, name, linear)
    return model
