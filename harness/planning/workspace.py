"""What the runs of a suite share: its folders, and what was loaded from them once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.config.places import is_hub
from harness.config.schema import DataConfig
from harness.config.strategy import Strategy
from harness.data.dataset import Dataset, load_dataset
from harness.data.downloads import assets_folder
from harness.data.model_files.hub import locate
from harness.data.model_files.model_folder import content_sha256
from harness.data.tokenizer import Tokenizer, hub_tokenizer, load_tokenizer
from harness.measure.code import features_code_sha256, results_code_sha256
from harness.model.meta import on_meta_device
from harness.model.named.models import Model, model_of
from harness.planning.strategy import split_without_tensors


@dataclass(frozen=True)
class Workspace:
    """cache: the folder of downloads and stored features. features: another folder for the latter; None: in the cache.

    known_tensors: hashes of the prefixes that this process has loaded (see features.store.FeatureStore).
    """

    cache: Path
    features: Path | None = None
    known_tensors: dict[str, list[str]] = field(default_factory=dict)
    _loaded: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def dataset(self, config: DataConfig) -> Dataset:
        """Raises UserError for data that can't be used, NotAvailable where it can't be had."""
        dataset: Dataset = self.once(("dataset", config), lambda: load_dataset(config, self.cache))
        self._loaded.setdefault(("dataset", dataset.config), dataset)
        return dataset

    def tokenizer(self, model: str) -> Tokenizer:
        """Raises NotAvailable where its vocabulary can't be had."""

        def load() -> Tokenizer:
            folder = self.folder(model)
            return hub_tokenizer(model, folder) if folder else load_tokenizer(model, self.cache, assets_folder())

        return self.once(("tokenizer", model), load)

    def folder(self, model: str) -> Path | None:
        """Of a model that `transformers` reads; None for a GPT-2 of a known size.

        Raises NotAvailable where the hub can't be reached, UserError where there is no such model.
        """
        return self.once(("folder", model), lambda: locate(model, self.cache)) if is_hub(model) else None

    def model(self, name: str) -> Model:
        """The model `name`, which is resolved. Raises UserError, or NotAvailable, where it is not usable."""
        return self.once(("model", name), lambda: model_of(name, self.folder(name)))

    def blocks(self, name: str) -> int:
        """How many the model `name` has."""
        with on_meta_device():
            return self.once(("blocks", name), lambda: len(self.model(name).empty().blocks))

    def parameters(self, name: str) -> int:
        """How many the backbone of the model `name` has."""
        with on_meta_device():
            return self.once(
                ("parameters", name), lambda: sum(one.numel() for one in self.model(name).empty().parameters())
            )

    def content_sha256(self, model: str, weights: bool) -> str | None:
        """Of the files of a model that `transformers` reads; None for a GPT-2 of a known size."""
        folder = self.folder(model)
        return self.once(("content", folder, weights), lambda: content_sha256(folder, weights)) if folder else None

    def use_folder(self, model: str, folder: Path | None) -> None:
        """Take the folder that a plan has found for a model, instead of looking for it again."""
        self._loaded.setdefault(("folder", model), folder)

    def code_sha256(self) -> str:
        """Of all code that can change results, as it was when this was first asked."""
        return self.once("code", results_code_sha256)

    def features_code_sha256(self) -> str:
        """The same of features."""
        return self.once("features code", features_code_sha256)

    def frozen_stages(self, strategy: Strategy, model: str, classes: int) -> int:
        """How many stages the prefix has; 0 where only third-party code knows.

        Raises UserError where the strategy names a stage that the backbone does not have.
        """
        if strategy.build:
            return 0
        key = ("frozen stages", strategy, model, classes)
        return self.once(key, lambda: len(split_without_tensors(strategy, self.model(model), classes)[0].stages))

    def once(self, key: Hashable, load: Callable[[], Any]) -> Any:
        """What `load` gives, which is called for each key once."""
        if key not in self._loaded:
            self._loaded[key] = load()
        return self._loaded[key]
