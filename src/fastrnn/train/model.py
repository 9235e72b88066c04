# SPDX-License-Identifier: BSD-3-Clause
"""`Model`: compile, fit, evaluate, predict, save.

Above 600 lines for the docstrings of these methods, which are the manual of `fit`: what
the methods do is short, and most of it is in the files beside this one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, Unpack, overload

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.data import batches
from fastrnn.data.samples import Data, Samples
from fastrnn.distributed.protocol import Communicator
from fastrnn.losses import metrics as _metrics
from fastrnn.losses import naming, objectives
from fastrnn.losses.base import Loss
from fastrnn.nn import axis_rule, computing
from fastrnn.nn.attributes import Elsewhere, flag, instance_of
from fastrnn.nn.deferred import is_built
from fastrnn.nn.embedding import Embedding
from fastrnn.train import before_fit, fit, resuming, saving, stateful, summary
from fastrnn.train.compiling import (
    DecodeOptions,
    LossLike,
    MetricLike,
    OptimizerLike,
    OptimizerOptions,
    in_either_order,
    optimizer_of,
    options_of,
)
from fastrnn.train.figures import figures_of
from fastrnn.train.history import History, format_logs
from fastrnn.train.hooks import Callback, Callbacks
from fastrnn.train.input_shape import sample_shape, without_samples
from fastrnn.train.on_batch import OnBatch
from fastrnn.train.optimizer import Optimizer
from fastrnn.train.reduction import reduction_of
from fastrnn.util import checks
from fastrnn.util.keras_names import ATTRIBUTES
from fastrnn.util.typing import Mask, PathLike, Seed
from fastrnn.util.words import answering

# Methods that a subclass defines, in which all layers take samples first.
_TAKE_SAMPLES = ("forward", "forward_from", "backward", "_outputs")


def _set_by_compile(model, name, value):
    """The rule of `metrics`: what `compile` makes of them, and nothing else."""
    if isinstance(value, tuple) and all(isinstance(m, _metrics.Metric) for m in value):
        return value
    raise TypeError(
        f"{type(model).__name__}: {name} are set by compile(..., metrics=), got "
        f"{value!r}"
    )


class Model(OnBatch):
    """A module that is trained by `fit`: derive from it, or use `Sequential`.

    A subclass defines ``forward(x)``, which returns the output (or a tuple that begins
    with it), and ``backward(dy)``.

    Attributes
    ----------
    optimizer : Optimizer or None
        From `compile`; its ``model`` is None until all input sizes are known.
    history : History or None
        Of the last `fit`.
    stop_training : bool
        A callback sets it to end the run after the epoch.
    output_mask : ndarray of bool or None
        Which rows of the last forward's output count: see `Masking`. `Sequential` sets
        it; ``forward`` of a subclass with a layer that makes a mask must.

    Notes
    -----
    A model takes samples first: arrays are (N, ...), and sequences (N, T, F), in `fit`,
    `evaluate` and `predict` and where the model itself is called, whatever its layers'
    ``batch_first`` says. A layer that is called by itself, also one that is part of a
    model, goes by its own ``batch_first``. `fit`, `evaluate` and `predict` want a model
    to themselves: one thread at a time.

    Examples
    --------
    >>> class Doubled(Model):
    ...     def __init__(self):
    ...         self.head = fastrnn.Linear(1, 1, bias=False, seed=0)
    ...
    ...     def forward(self, x):
    ...         return self.head(x)
    ...
    ...     def backward(self, dy):
    ...         return self.head.backward(dy)
    >>> model = Doubled()
    >>> model.compile("mse", "sgd", lr=0.1)
    >>> x = np.linspace(-1, 1, 32)[:, None]
    >>> history = model.fit(x, 2 * x, epochs=200, seed=0, verbose=0)
    >>> model.predict([[3.0]]).round(3)
    array([[6.]], dtype=float32)
    """

    _changeable: ClassVar = {
        "loss": instance_of(Loss),
        "optimizer": instance_of(Optimizer),
        "metrics": _set_by_compile,
        "stop_training": flag,
    }
    loss: Loss | None = None
    output_mask: Mask = None
    _default_loss = None
    metrics: tuple[_metrics.Metric, ...] = ()
    if TYPE_CHECKING:  # None only before `compile` and `fit`
        optimizer: Optimizer
        history: History
    else:
        optimizer = None
        history = None
    stop_training: bool = False
    _seen = None  # the first sample, for `summary`
    _gives_several = False  # whether the output is a tuple of several

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        if cls is Model and (args or kwargs):
            raise TypeError(
                "Model() takes no inputs and outputs; a chain of layers is "
                "Sequential([...]), a model with branches or several inputs "
                "fastrnn.Functional(inputs, calls, outputs), and any other a class "
                "that derives from Model, with forward and backward"
            )
        return super().__new__(cls, *args, **kwargs)

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name not in ATTRIBUTES]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # When the class is made, not in a call: so whoever derives from this class need
        # not know of the rule, and a call costs nothing to find it out.
        for name in _TAKE_SAMPLES:
            if name in vars(cls):
                setattr(cls, name, axis_rule.of_a_model(vars(cls)[name]))

    @in_either_order
    def compile(
        self,
        loss: LossLike | OptimizerLike | None = None,
        optimizer: OptimizerLike | LossLike = "adam",
        metrics: MetricLike | Sequence[MetricLike] | None = (),
        *,
        from_logits: bool | None = None,
        compute: str | None = None,
        **optimizer_options: Unpack[OptimizerOptions],
    ) -> None:
        """Say what to train for and how.

        Parameters
        ----------
        loss : str, Loss or callable
            A name: ``"mse"``, ``"mae"``, ``"huber"``, ``"mape"``, ``"msle"``,
            ``"log_cosh"`` (or Keras's long name of one), ``"binary_crossentropy"``,
            ``"categorical_crossentropy"`` or ``"sparse_categorical_crossentropy"``;
            ``"crf"`` for a model that ends in a `CRF` and ``"ctc"`` for scores of
            labels, both of whole sequences; an object of
            `fastrnn.objectives`; or a function ``(pred, target) -> (loss, dpred)``.
            `EncoderDecoder` and `Generator` need none: theirs is
            ``"sparse_categorical_crossentropy"``.
        optimizer : str, class, Optimizer or None
            ``"sgd"``, ``"rmsprop"``, ``"adagrad"``, ``"adam"``, ``"adamw"``, or its
            class, or one made for this model or for none yet: ``Adam(0.01)``. Loss and
            optimiser may come in either order. None is for a model that is evaluated
            alone, such as one of `quantize`.
        metrics : sequence of str, Metric or callable
            ``"accuracy"`` (``"acc"``), ``"mae"``, ``"mse"``, ``"mape"``, ``"msle"``,
            ``"root_mean_squared_error"``, ``"binary_accuracy"``, ``"precision"``,
            ``"recall"``, ``"auc"``, ``"perplexity"``, ``"top_5_accuracy"`` (any
            number), ``"label_error_rate"`` with the loss ``"ctc"``, objects of
            `fastrnn.metrics`, or functions ``(pred, target) -> number``. The figure is
            called as it is asked for.
        from_logits : bool, optional
            For a cross-entropy or ``"ctc"`` by name: whether the model's output is
            logits or probabilities. Default: probabilities where the last layer is a
            `Sigmoid`, a `Softmax` or one with such an ``activation``, else logits.
        compute : {"float32", "bfloat16", "bfloat16-fast"}, optional
            Sets ``compute`` of all recurrent and `Linear` layers, which is saved with
            them: "bfloat16" rounds what they multiply, and nothing else, and
            "bfloat16-fast" sums it in any order. Default: the layers stay as they are.
        **optimizer_options
            Arguments of the optimiser, such as ``lr`` (or ``learning_rate``).

        Raises
        ------
        ValueError, TypeError
            If a name is unknown or an argument is not as described, or the last layer
            is another function, such as a `ReLU`, before a cross-entropy.

        Notes
        -----
        Where the last layer is the sigmoid of a binary cross-entropy or the softmax of
        the others, loss and gradient are computed from what that layer is given, which
        is exact for outputs of 0 and 1, too. Other probabilities are brought into
        [1e-7, 1 - 1e-7] first, as in Keras.

        A model of one's own may say in a method ``ends_in`` which of its layers makes
        the output; if not, it is watched on a sample. Dropout is looked through.
        """
        who = f"{type(self).__name__}.compile"
        options = options_of(optimizer_options)
        loss = self._default_loss if loss is None else loss
        loss = objectives.by_name(who, loss, from_logits)
        if isinstance(metrics, (str, _metrics.Metric)) or callable(metrics):
            metrics = [metrics]
        metrics = tuple(naming.by_name(who, one, loss) for one in metrics or ())
        loss.attach(self)
        made = optimizer_of(who, self, optimizer, options)
        if compute is not None:
            computing.set_compute(who, self, compute)
        self.loss, self.metrics, self.optimizer = loss, metrics, made

    def build(self, input_shape: Sequence[int]) -> Self:
        """Let layers with an input size of None have parameters.

        Parameters
        ----------
        input_shape : tuple of int
            Of one sample: (T, F), or (T,) for indices of an `Embedding`. T may be None.
            Before it there may be None for the axis of samples, as in Keras.

        Returns
        -------
        Model
            Itself.
        """
        who = f"{type(self).__name__}.build"
        shape = sample_shape(who, "input_shape", input_shape)
        shape = without_samples(self, shape)
        known = [1 if size is None else size for size in shape]
        indices = isinstance(next(iter(self._leaf_layers()), None), Embedding)
        inputs = (np.zeros((1, *known), np.int64 if indices else "f"),)
        if is_built(self):
            self._try(inputs)  # raises where the layers do not fit such samples
        self._see(inputs)
        if None in shape:
            self._seen = None  # `summary` must not show a size that was made up
        return self

    def _leaf_layers(self):
        return (module for module in self.modules() if not module._children)

    def _see(self, inputs):
        """Build what is not, for inputs like these, and make the optimiser."""
        before_fit.check_axes(self, inputs[0])
        if not is_built(self):
            with self._evaluating():
                self(*(one[:1] for one in inputs))
            stateful.reset_states(self)
            self._leaves()  # raises when dtypes differ
        self._attach_loss(inputs)
        if self.optimizer is not None and self.optimizer.model is None:
            self.optimizer._attach(self)
        self._seen = tuple(np.array(one[:1]) for one in inputs)
        return self

    def _try(self, inputs):
        """Output for the first of some samples, nothing being changed."""
        one = (part[:1] for part in inputs)
        with self._evaluating(), stateful.states_of_their_own(self):
            y = self(*one)
        return y[0] if isinstance(y, tuple) else y

    def _attach_loss(self, inputs):
        """Let the loss see what the model is now, and what it gives for such inputs."""
        if self.loss is not None:
            self.loss.attach(self)
            self.loss.observe(self, lambda: self._try(inputs))

    def _example(self, zeros):
        """Inputs that `forward` takes, from zeros in their shapes."""
        return zeros

    def _compiled(self, who):
        if self.loss is None:
            raise RuntimeError(
                f"{who}: the model must be compiled first: model.compile(loss)"
            )

    def _can_train(self, who):
        """Refuse to train what is for inference, or without an optimiser."""
        for layer in self.modules():
            if layer._fixed:
                raise ValueError(
                    f"{who}: a model that is trained must have whole weights, got "
                    f"{layer!r}"
                )
        self._compiled(who)
        if self.optimizer is None:
            raise RuntimeError(
                f"{who}: the model must be compiled with an optimizer, got None"
            )

    @answering
    def fit(
        self,
        x: Data | Iterable[Any],
        y: Data | None = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int | str = 1,
        callbacks: Callback | Sequence[Callback] | None = (),
        validation_split: float = 0.0,
        validation_data: Iterable[Any] | None = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | str | None = None,
        sample_weight: ArrayLike | Sequence[ArrayLike] | None = None,
        *,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        tbptt: int | None = None,
        gradient_accumulation_steps: int = 1,
        seed: Seed = None,
        resume: PathLike | None = None,
        distributed: Communicator | None = None,
        sharded: bool = False,
    ) -> History:
        """Train.

        Parameters
        ----------
        x : array_like, shape (N, ...), or list of array_like, shape (T_i, F)
            Samples. A list may have sequences of many lengths: each batch then has
            sequences of one length, and nothing is padded. A tuple of arrays is several
            inputs, for a model whose ``forward`` takes so many. Instead of arrays, and
            then without `y`: what gives batches ``(x, y)`` or ``(x, y, sample_weight)``
            when it is iterated over, such as a generator, a PyTorch ``DataLoader``, a
            ``tf.data.Dataset`` or a Keras ``PyDataset``; its order is its own.
        y : array_like, shape (N, ...), or list of array_like
            Targets, as the loss takes them.
        batch_size : int, optional
            Samples in a step of the optimiser. Default: 32.
        epochs : int
            Passes over the samples, those of a resumed run included.
        validation_data : (x, y) or (x, y, sample_weight), or what gives batches
            Evaluated after every epoch.
        validation_split : float in [0, 1)
            Instead: the last so many of the samples, which are not trained on. They
            keep their part of `sample_weight`.
        shuffle : bool
            Whether every epoch has an order of its own.
        callbacks : sequence of Callback
            See `fastrnn.callbacks` and `fastrnn.schedules`.
        class_weight : mapping of int to float, or "balanced", optional
            Weight of each class's samples (or steps), of those that are trained on:
            validation is not weighted, and "balanced" does not count its samples. A
            mapping where the output has a mask.
        sample_weight : array_like, shape (N,) or (N, T), optional
            Weight of each sample (or step, then a list for sequences of many lengths).
            Multiplied with the class's. The weighted
            sum of losses is divided by their number, not by the sum of the weights.
        verbose : {0, 1, 2, "auto"}
            1 and "auto": a line an epoch on standard error, and before it a bar on a
            terminal or in a notebook; 2: a line an epoch on standard output.
        steps_per_epoch, validation_steps : int, optional
            Batches to take for an epoch, and from `validation_data`, where these are
            iterated over; an epoch goes on where the one before ended. Default: all.
        clip_norm : float, optional
            Gradients are scaled down to this norm, all as one vector.
        clip_value : float, optional
            Before that, each is brought into ``[-clip_value, clip_value]``.
        tbptt : int, optional
            Steps that gradients go back through: sequences are cut into windows of so
            many, each with a step of the optimiser, the state carried on. For targets
            at every step.
        gradient_accumulation_steps : int
            Batches that share a step of the optimiser, along the gradient of the mean
            over all of their rows: memory of one for the step of many. A callback's
            "batch" is all that share a step.
        seed : int, optional
            For the order of samples: the same seed, data and initial weights give the
            same weights, bit by bit, for any number of threads.
        resume : path-like, optional
            A checkpoint of `ModelCheckpoint` to go on from, with the same arguments as
            the run that wrote it; the result is that of an unbroken run. What a run
            changes as it goes, the learning rate and which layers are `trainable`, is
            as in the checkpoint, whatever it was before.
        distributed : Communicator, optional
            Of the processes that train this model together, all of which call `fit`
            alike: see `fastrnn.distributed` and the notes.
        sharded : bool
            Whether each of them has other samples, which are all of them together.

        Returns
        -------
        History
            Also ``model.history``.

        Raises
        ------
        ValueError, TypeError
            If arguments do not go together: known before the first step, and nothing
            has changed then, but that layers have found their input sizes.
        FloatingPointError
            If the loss or the gradient is not finite; parameters are as before that
            step.
        RuntimeError
            If the model was not compiled.

        Notes
        -----
        A layer that is `stateful` goes on from batch to batch, with ``shuffle=False``
        and batches of one size. It begins anew with every epoch (Keras goes on: there a
        callback has to reset), and validation has a state of its own.

        Steps that a mask leaves out (see `Masking`) count neither in the loss nor in
        metrics, whatever their weights and targets.

        Ctrl-C ends the run, as soon as the layer at hand is through its forward or
        backward of a batch: the model has the parameters of the best epoch (by
        ``val_loss``, else ``loss``; those of the last step before there is one), a line
        says so unless `verbose` is 0, and ``history.interrupted`` is True.

        With `distributed`, `batch_size` is that of the joint batch, of which each
        process has some rows. Every process ends with the same weights: those of one
        process with the joint batches, to rounding, and for one number of processes the
        same bits in every run. The first one prints and writes files. All begin with
        its parameters, generators and seed. An error or Ctrl-C on one ends all.
        """
        who = "fit"
        reduction = reduction_of(who, distributed, sharded)
        with reduction.agreeing():
            self._can_train(who)
            steps_per_epoch = batches.steps_of(
                who, "steps_per_epoch", steps_per_epoch, x
            )
            batch_size = self._batch_size(who, batch_size, x)
            options = fit.FitOptions(
                batch_size, shuffle, clip_norm, clip_value, tbptt,
                gradient_accumulation_steps,
            )  # fmt: skip
            epochs = checks.positive_int(who, "epochs", epochs)
            verbose = fit.verbosity(who, verbose, 1)
            share = checks.real_in(who, "validation_split", validation_split, "[0, 1)")
            callbacks = Callbacks(() if callbacks is None else callbacks)
            if batches.is_batches(x):
                before_fit.check_iterable(
                    x, y=y, validation_split=share, sample_weight=sample_weight,
                    tbptt=tbptt, resume=resume, class_weight=class_weight,
                )  # fmt: skip
                train = self._batches(who, x, steps_per_epoch, "steps_per_epoch")
                train.check_epochs(epochs)
            else:
                checks.targets_given(who, "y", y)
                train = self._samples(who, x, y, sample_weight)
            validation = before_fit.validation(
                self, validation_data, share, validation_steps
            )
            if share:
                train, validation = train.split(share)
            reduction.check_data((train, validation), class_weight)
            if class_weight is not None:
                train.scale_classes(
                    lambda y: objectives.class_weights(who, class_weight, self.loss, y)
                )
            if tbptt is not None:
                if not self.loss.steps:
                    raise ValueError(
                        f"{who}: tbptt must be None with the loss {self.loss.name!r}, "
                        "which is of whole sequences"
                    )
                train.check_steps()
            self._see(train.sample())
            before_fit.check_balance(self, class_weight, train.sample())
            run = fit.Run(
                self, train, validation, epochs, options,
                before_fit.seed_of(who, seed), callbacks, History(), verbose, reduction,
            )  # fmt: skip
            go_on = None if resume is None else resuming.resume(resume, run, seed)
            callbacks.attach(self, run)
            before_fit.check(run)
            reduction.check_model(self, train)
        if go_on is not None:
            with reduction.agreeing():
                go_on()
        reduction.settle(run)
        self.history = run.history
        with reduction.of_run():
            run.run()
        return run.history

    def _samples(self, who, x, y=(), weight=None):
        """The samples in what the user gave; without `y`, for `predict`."""
        if self.loss is not None and not (isinstance(y, tuple) and not y):
            y = self.loss.targets(who, y)
        return Samples(who, x, y, weight)

    def _batches(self, who, x, steps, name, *, targets=True, anew=False):
        """The batches that an iterable gives, read as samples."""
        steps = batches.steps_of(who, name, steps, x)

        def read(x, y, weight):
            return (
                self._samples(who, x, y, weight) if targets else self._samples(who, x)
            )

        return batches.Batches(who, x, steps, read, targets=targets, anew=anew)

    def _batch_size(self, who, batch_size, x):
        """The number of samples in a batch, which an iterable must not be given."""
        if batch_size is None:
            return fit.FitOptions.batch_size
        if batches.is_batches(x):
            raise ValueError(
                f"{who}: batch_size must be None where x gives batches, got "
                f"{batch_size!r}"
            )
        return checks.positive_int(who, "batch_size", batch_size)

    @overload
    def evaluate(
        self,
        x: Data | Iterable[Any],
        y: Data | None = ...,
        batch_size: int | None = ...,
        verbose: int | str = ...,
        sample_weight: ArrayLike | Sequence[ArrayLike] | None = ...,
        steps: int | None = ...,
        *,
        return_dict: Literal[True],
        distributed: Communicator | None = ...,
        sharded: bool = ...,
    ) -> dict[str, float]: ...
    @overload
    def evaluate(
        self,
        x: Data | Iterable[Any],
        y: Data | None = ...,
        batch_size: int | None = ...,
        verbose: int | str = ...,
        sample_weight: ArrayLike | Sequence[ArrayLike] | None = ...,
        steps: int | None = ...,
        *,
        return_dict: bool = ...,
        distributed: Communicator | None = ...,
        sharded: bool = ...,
    ) -> Any: ...
    @answering
    def evaluate(
        self,
        x: Data | Iterable[Any],
        y: Data | None = None,
        batch_size: int | None = None,
        verbose: int | str = 0,
        sample_weight: ArrayLike | Sequence[ArrayLike] | None = None,
        steps: int | None = None,
        *,
        return_dict: bool = False,
        distributed: Communicator | None = None,
        sharded: bool = False,
    ) -> Any:
        """Loss and metrics on samples; stateful layers go on, as in `predict`.

        Parameters
        ----------
        x, y, sample_weight
            As for `fit`.
        batch_size : int, optional
            Default: 32.
        verbose : {0, 1, 2, "auto"}
            1: a bar and a line on standard error; 2: a line on standard output.
        steps : int, optional
            Batches to take, where `x` gives batches.
        return_dict : bool
            Whether to return figures by name.
        distributed, sharded
            As for `fit`: the figures are those of all processes' samples.

        Returns
        -------
        float, or list of float
            The loss; or loss and each metric, in order, if there are metrics. With
            `return_dict` a dict of these by name, which older versions always returned.

        Raises
        ------
        ValueError, TypeError, RuntimeError
            As for `fit`.
        """
        who = "evaluate"
        reduction = reduction_of(who, distributed, sharded)
        with reduction.agreeing():
            self._compiled(who)
            verbose = fit.verbosity(who, verbose, 0) if reduction.main else 0
            return_dict = checks.flag(who, "return_dict", return_dict)
            steps = batches.steps_of(who, "steps", steps, x)
            batch_size = self._batch_size(who, batch_size, x)
            if batches.is_batches(x):
                before_fit.check_iterable(x, who, y=y, sample_weight=sample_weight)
                samples = self._batches(who, x, steps, "steps", anew=True)
            else:
                checks.targets_given(who, "y", y)
                samples = self._samples(who, x, y, sample_weight)
            reduction.check_data((samples,))
            self._see(samples.sample())
            reduction.check_stateful(who, self, samples, batch_size, True)
            reduction.check_model(self, samples)
        with fit.shown(verbose, samples, batch_size) as bar, reduction.of_run():
            found = fit.evaluate(
                self, samples, batch_size, bar=bar, reduction=reduction
            )
            bar.done = f"evaluate  {format_logs(found)}"
        return figures_of(found, return_dict)

    def predict(
        self,
        x: Data | Iterable[Any],
        batch_size: int | None = None,
        verbose: int | str = 0,
        steps: int | None = None,
        *,
        decode: bool = True,
        **options: Unpack[DecodeOptions],
    ) -> Any:
        """Outputs for samples: what the last layer gives.

        These are logits after a plain `Linear`, probabilities after a `Sigmoid` or
        `Softmax` (or a `Linear` with such an ``activation``), whatever the loss. Steps
        that a mask leaves out have an output, too.

        Layers that are `stateful` go on from the state that the call before left, batch
        after batch, until `reset_states`.

        Parameters
        ----------
        x
            As for `fit`. Batches that are iterated over may have targets, which are not
            looked at.
        batch_size : int, optional
            Default: 32. Does not change a bit of the result, but for stateful layers:
            these take row i of a batch as what follows row i of the batch before.
        verbose : {0, 1, 2, "auto"}
            1: a bar and a line on standard error; 2: a line on standard output.
        steps : int, optional
            Batches to take, where `x` gives batches.
        decode : bool
            With the losses ``"crf"`` and ``"ctc"``: the best tags, and the labels of
            each sequence; if not, emissions and logits.
        **options
            With ``"ctc"``: ``beam_width``, of a beam search instead of the best
            alignment.

        Returns
        -------
        ndarray, shape (N, ...)
            Or a list of arrays (T_i, K) where sequences of many lengths have an output
            for every step, and of labels always. A tuple for a `Functional` that has
            several outputs.

        Raises
        ------
        ValueError, TypeError
            If `x` is not as described; no state has changed then.
        """
        who = "predict"
        steps = batches.steps_of(who, "steps", steps, x)
        batch_size = self._batch_size(who, batch_size, x)
        verbose = fit.verbosity(who, verbose, 0)
        decode = checks.flag(who, "decode", decode)
        decoder = fit.decoder_of(self, decode, options)
        if batches.is_batches(x):
            samples = self._batches(who, x, steps, "steps", targets=False, anew=True)
        else:
            samples = self._samples(who, x)
        one = samples.sample()
        if is_built(self):
            before_fit.check_axes(self, one[0])
            if decoder is not None:
                self._attach_loss(one)
        else:
            self._see(one)
        stateful.check_batches(who, self, samples, batch_size, True)
        if not verbose:
            return fit.predict(self, samples, batch_size, decoder)
        with fit.shown(verbose, samples, batch_size) as bar:
            found = fit.predict(self, samples, batch_size, decoder, bar)
            bar.done = f"predict  {len(found)} samples"
        return found

    def reset_states(self) -> None:
        """Let stateful layers begin anew, from zero or what they learned."""
        stateful.reset_states(self)

    # -- text and files ---------------------------------------------------------------

    @answering
    def summary(self) -> None:
        """Print each layer's output shape, parameters and memory.

        Raises
        ------
        ValueError
            If an input size is not known yet.
        """
        print(summary.table(self))

    def _outputs(self, inputs):
        """Name, layer and output of each part; None for those that are not called."""
        return summary.noted_outputs(self, inputs)

    @answering
    def save(self, path: PathLike) -> None:
        """Write the whole model to one safetensors file, all of it or nothing.

        `load_model` makes it anew; `load` reads the parameters alone.

        Parameters
        ----------
        path : path-like
            File to write; one that exists is replaced at the end, in one step.

        Raises
        ------
        TypeError
            If a layer does not keep its constructor's arguments in attributes.
        ValueError
            If the path ends as those of another library's files do.
        """
        saving.check_path(f"{type(self).__name__}.save", path)
        saving.save_model(self, path)

    def load(self, path: PathLike) -> None:
        """Read all parameters from a file of `save`, or of `Module.save`.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is not such a file, or names or shapes do not match; nothing has
            changed then.
        """
        who = f"{type(self).__name__}.load"
        self._load(f"{who}: {os.fspath(path)}", saving.read_parameters(who, path))


# Not by `__getattr__`, with which every attribute of a model would be slower to read.
for _name, _here in ATTRIBUTES.items():
    setattr(Model, _name, Elsewhere(_name, _here))
