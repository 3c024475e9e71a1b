"""Names of what a strategy trains or adapts: `[stage.][part][.bias]`, each piece optional.

A stage is "embeddings", "block.N" (negative N counts from the top), "final_norm" or "all". A part is "norm", or a name
of the backbone's `parts`, which also stands for those below it: "attention" for "attention.query". So "block.-1.norm"
is the norms of the last block, "attention.query.bias" the biases of all queries, and "bias" every bias.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from harness.errors import UserError, did_you_mean

Stages = Mapping[str, nn.Module]


def selected_parameters(stages: Stages, parts: Mapping[str, str], name: str) -> list[nn.Parameter]:
    """stages: of a backbone, by name. parts: as `Backbone.parts`.

    Raises UserError for a name that matches nothing. A stage that has no parameters is one all the same.
    """
    chosen, part, only_biases = _parsed(stages, name)
    modules = [module for stage in chosen.values() for module in _modules(stage, parts, part)]
    named = [pair for module in modules for pair in module.named_parameters()]
    found = [value for key, value in named if not only_biases or key.rpartition(".")[2] == "bias"]
    if not modules or (only_biases and not found):
        raise _matches_nothing(stages, parts, name)
    return found


def selected_layers(stages: Stages, parts: Mapping[str, str], name: str) -> list[nn.Linear]:
    """The Linear layers of what a name stands for; arguments and errors as above."""
    chosen, part, only_biases = _parsed(stages, name)
    modules = [module for stage in chosen.values() for module in _modules(stage, parts, part)]
    found = [layer for module in modules for layer in module.modules() if isinstance(layer, nn.Linear)]
    if only_biases or not found:
        raise _matches_nothing(stages, parts, name)
    return found


def selected_blocks(stages: Stages, names: Sequence[str]) -> list[nn.Module]:
    """The blocks of what the names, of stages or "all", stand for, each once, from the bottom up.

    Raises UserError for a name without a block.
    """
    chosen: set[str] = set()
    for name in names:
        found = {stage for stage in _stages(stages, name) if stage.startswith("block.")} if name else set()
        if not found:
            count = _blocks(stages)
            raise UserError(
                f"strategy gives a prefix to {name!r}, which is no block of this backbone: expected 'all', or "
                f"'block.N' with N from {-count} to {count - 1}."
            )
        chosen |= found
    return [block for name, block in stages.items() if name in chosen]


def _parsed(stages: Stages, name: str) -> tuple[dict[str, nn.Module], str, bool]:
    """The stages of a name, none where it names one that is not there; its part; whether it means biases alone."""
    words = name.split(".")
    count = {"block": 2, "embeddings": 1, "final_norm": 1, "all": 1}.get(words[0], 0)
    stage, rest = ".".join(words[:count]), words[count:]
    only_biases = rest[-1:] == ["bias"]
    if "" in words:
        return {}, "", only_biases
    return _stages(stages, stage), ".".join(rest[:-1] if only_biases else rest), only_biases


def _stages(stages: Stages, name: str) -> dict[str, nn.Module]:
    if name in ("", "all"):
        return dict(stages)
    kind, _, number = name.partition(".")
    blocks = _blocks(stages)
    if kind == "block" and number.lstrip("-").isdigit() and -blocks <= int(number) < 0:
        name = f"block.{blocks + int(number)}"
    return {name: stages[name]} if name in stages else {}


def _modules(stage: nn.Module, parts: Mapping[str, str], part: str) -> Iterator[nn.Module]:
    """The modules of a part in a stage, which is the part itself where no part is named."""
    if not part:
        yield stage
    elif part == "norm":
        # The library has a class for each family's.
        yield from (module for module in stage.modules() if type(module).__name__.endswith("Norm"))
    else:
        named = dict(stage.named_modules())
        wanted = [where for known, where in parts.items() if known == part or known.startswith(f"{part}.")]
        yield from (named[where] for where in wanted if where in named)


def _blocks(stages: Stages) -> int:
    return sum(stage.startswith("block.") for stage in stages)


def _matches_nothing(stages: Stages, parts: Mapping[str, str], name: str) -> UserError:
    kinds = ["norm", "bias", *dict.fromkeys(part.partition(".")[0] for part in parts), *parts]
    named_stages = [f"block.{number}" for number in range(-_blocks(stages), _blocks(stages))]
    known = ["all", "embeddings", "final_norm", *named_stages, *kinds]
    of_stages = [f"{stage}.{kind}" for stage in named_stages for kind in kinds]
    hint = did_you_mean(name, [*known, *of_stages], most=3)
    return UserError(
        f"strategy names {name!r}, which matches nothing in this backbone: {hint}Expected 'all', 'embeddings', "
        f"'final_norm' or 'block.N' with N from {-_blocks(stages)} to {_blocks(stages) - 1}; one of "
        f"{', '.join(kinds)}; or both, as in 'block.-1.bias'."
    )
