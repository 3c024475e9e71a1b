"""The data set of a run: `auto` resolved, and what is found out of the texts. Without PyTorch, which takes seconds."""

from __future__ import annotations

from collections.abc import Callable

from harness.config.places import is_hub
from harness.config.schema import AUTO, DataConfig
from harness.data.dataset import Dataset
from harness.data.downloads import NotAvailable
from harness.data.reading.content import EXPECTED, is_data_path
from harness.data.sources import BUILT_IN, SMS_SPAM_NAME
from harness.data.tasks import SYNTHETIC_NAME
from harness.errors import UserError


def resolve_data(config: DataConfig, load: Callable[[DataConfig], Dataset]) -> tuple[Dataset, str]:
    """The data set, and why its name was chosen. load: as `harness.data.dataset.load_dataset`.

    Raises UserError for data that can't be had or used.
    """
    name, reason = config.name, "as asked"
    if name == AUTO:
        try:
            return load(config.model_copy(update={"name": SMS_SPAM_NAME})), "auto: at hand"
        except NotAvailable as error:
            name, reason = SYNTHETIC_NAME, f"auto: {error}"
    elif name not in BUILT_IN and not is_hub(name) and not is_data_path(name):
        raise UserError(
            f"DATA={name!r}: expected auto, {', '.join(BUILT_IN)}, hf: and a data set of the hub, or {EXPECTED}."
        )
    try:
        return load(config.model_copy(update={"name": name})), reason
    except NotAvailable as error:
        raise UserError(
            f"DATA={name}: {error}. Connect to the network once, set FTBENCH_ASSETS to a folder that has it, "
            "or use DATA=synthetic."
        ) from error


def check_row_length(max_tokens: int | None, model: str, context: int) -> None:
    """context: the most tokens that the model takes."""
    if max_tokens and max_tokens > context:
        raise UserError(f"data.max_tokens={max_tokens} is beyond the context of {model}: at most {context}.")
