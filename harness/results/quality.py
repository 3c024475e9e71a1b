"""The parts of a record that say how good a run's predictions are, and what became of its language model."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Metrics(Part):
    """loss: mean cross-entropy in nats. interval: 95% Wilson interval of the accuracy (test-set size only).

    f1: of each class, 0 where the class neither occurs nor is predicted. roc_auc: area under the ROC curve, with two
    classes the second's, else the mean over the classes that occur, each against the rest; null where only one
    occurs. calibration_error: expected, over 15 bins of the top probability (Guo et al., 2017). macro_f1,
    balanced_accuracy, mcc: as harness/metrics.py defines them; null in records of versions that lack them.
    """

    loss: float
    accuracy: float
    correct: int
    total: int
    interval: tuple[float, float]
    f1: dict[str, float]
    roc_auc: float | None
    calibration_error: float
    macro_f1: float | None = None
    balanced_accuracy: float | None = None
    mcc: float | None = None


class AllMetrics(Part):
    """test_clean: the test texts that do not stand in the training set verbatim.

    train_batches: the training texts of the last epoch's batches; null where an incomplete one was not dropped.
    """

    train: Metrics
    validation: Metrics
    test: Metrics
    test_clean: Metrics | None
    train_batches: Metrics | None = None


class Calibration(Part):
    """Temperature scaling (Guo et al., 2017): logits divided by the temperature with the least cross-entropy on the
    validation texts.

    not_fitted: why there is no temperature; null where there is one. test_loss, test_calibration_error: as Metrics
    defines them, of the divided logits.
    """

    temperature: float | None = None
    not_fitted: str | None = None
    test_loss: float | None = None
    test_calibration_error: float | None = None


class Forgetting(Part):
    """The language model on the test texts, before the run and with what it has trained in the backbone.

    loss_before, loss_after: mean cross-entropy of a next token, in nats. tokens: that were predicted. not_measured: the
    reason where there is nothing to measure; null where it was.
    """

    loss_before: float | None = None
    loss_after: float | None = None
    tokens: int = 0
    not_measured: str | None = None

    @property
    def rise(self) -> float | None:
        """Of the loss; None where it was not measured."""
        return None if self.loss_before is None or self.loss_after is None else self.loss_after - self.loss_before
