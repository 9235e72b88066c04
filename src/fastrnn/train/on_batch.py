# SPDX-License-Identifier: BSD-3-Clause
"""`OnBatch`: a model's steps one by one, for a loop of one's own."""

from collections.abc import Mapping
from typing import Any

from fastrnn.losses import objectives
from fastrnn.nn.module import Module
from fastrnn.train import before_fit, fit
from fastrnn.train.figures import figures_of
from fastrnn.util import checks
from fastrnn.util.words import answering


class OnBatch(Module):
    """Base of `Model`: training, evaluation and prediction of one batch."""

    _saved = False

    @answering
    def train_on_batch(
        self,
        x: Any,
        y: Any,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        *,
        return_dict: bool = False,
    ) -> Any:
        """One step of the optimiser on one batch.

        Parameters
        ----------
        x, y, sample_weight, class_weight
            As for `fit`.
        return_dict : bool
            Whether to return figures by name.

        Returns
        -------
        float, list of float or dict
            As of `evaluate`: before the step, of this batch alone (in Keras 3 they are
            means since `reset_metrics`). A stateful layer goes on.

        Raises
        ------
        ValueError, TypeError, RuntimeError, FloatingPointError
            As for `fit`.
        """
        who = "train_on_batch"
        self._can_train(who)
        return_dict = checks.flag(who, "return_dict", return_dict)
        checks.targets_given(who, "y", y)
        samples = self._samples(who, x, y, sample_weight)
        if class_weight is not None:
            samples.scale_classes(
                lambda y: objectives.class_weights(who, class_weight, self.loss, y)
            )
        self._see(samples.sample())
        before_fit.check_balance(self, class_weight, samples.sample())
        return figures_of(fit.train_on_batch(self, samples), return_dict)

    @answering
    def test_on_batch(
        self,
        x: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        return_dict: bool = False,
    ) -> Any:
        """Loss and metrics of one batch: `evaluate` with all samples in one.

        Parameters
        ----------
        x, y, sample_weight, return_dict
            As for `evaluate`.

        Returns
        -------
        float, list of float or dict
        """
        n = self._samples("test_on_batch", x, y, sample_weight).n
        return self.evaluate(x, y, n, 0, sample_weight, return_dict=return_dict)

    def predict_on_batch(self, x: Any) -> Any:
        """Outputs for one batch: `predict` with all samples in one.

        Parameters
        ----------
        x
            As for `predict`.

        Returns
        -------
        ndarray or list
        """
        return self.predict(x, batch_size=self._samples("predict_on_batch", x).n)
