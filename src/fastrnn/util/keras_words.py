# SPDX-License-Identifier: BSD-3-Clause
"""The table of Keras's words: arguments, classes and functions, and what is here.

`KEYWORDS` has arguments by the function or class here that is given them; classes that
derive from one have its words, too. `NAMES` has what Keras's modules contain and this
package does not. `fastrnn.util.words` looks things up, and COMING_FROM_KERAS.md is
written from here.
"""

from collections.abc import Callable
from typing import Any, NamedTuple


class Word(NamedTuple):
    """What a word of Keras's is here.

    Attributes
    ----------
    here : str or None
        The argument that has this meaning; None if there is none.
    answer : str
        What to write instead, or what is different.
    convert : callable or None
        Makes the value for `here` of the value given.
    same : tuple
        Values that ask for what is done in any case, and are taken as that.
    unless : str or None
        The argument that decides the same, beside which no value is taken as that.
    """

    here: str | None = None
    answer: str = ""
    convert: Callable[[Any], Any] | None = None
    same: tuple[object, ...] = ()
    unless: str | None = None

    def changes_nothing(self, value: object) -> bool:
        """Whether a value asks for what is done in any case."""
        return any(type(value) is type(one) and value == one for one in self.same)


def _is(here: str, convert: Callable[[Any], Any] | None = None) -> Word:
    return Word(here, "", convert)


def _no(answer: str, *same: object) -> Word:
    return Word(None, answer, None, same)


# What Keras's layers call their arrays.
_ARRAYS = ("kernel", "recurrent", "bias", "embeddings", "beta", "gamma")


def _of_arrays(what: str) -> list[str]:
    return [f"{array}_{what}" for array in _ARRAYS]


_SHAPE = "_input_shape"  # kept of a layer, for the model that it is the first one of
_REGULARIZER = _no("weights are decayed by the optimiser: weight_decay=", None)
_CONSTRAINT = _no("set layer.parameters in a callback's on_train_batch_end", None)
_INITIALIZER = _no("layer.parameters[...][...] = sets what it begins with, once built")
_CLIP = "fit(clip_norm=) scales the gradient, all of it as one vector"
_LEAVE = "leave it out"


def _first(argument: str, *same: object) -> Word:
    """A word for first values, which `init` decides here."""
    return Word(
        None, f"{argument}; functions of fastrnn.init do, too", None, same, "init"
    )


_KERNEL = ("glorot_uniform", "GlorotUniform")
_ZEROS = ("zeros", "Zeros")
_OF_WEIGHT = {
    "kernel_initializer": _first(
        "init={'weight': 'keras'} is glorot_uniform", *_KERNEL
    ),
    "bias_initializer": _first("init={'bias': 0} is zeros", *_ZEROS),
}
_DATA_FORMAT = {"data_format": _no("features are the last axis", "channels_last", None)}


def _without_samples(shape: Any) -> Any:
    return shape[1:] if isinstance(shape, tuple | list) else shape


_WORKERS = _no(f"{_LEAVE}: batches are made on this thread", None, 1, False, 10)
_PREDICTION = {
    "callbacks": _no("callbacks are those of fit", None),
    "workers": _WORKERS,
    "use_multiprocessing": _WORKERS,
    "max_queue_size": _WORKERS,
}
_BATCH = {"reset_metrics": _no(f"{_LEAVE}: figures are of this batch alone", True)}

KEYWORDS: dict[str, dict[str, Word]] = {
    "Module": {
        "input_shape": _is(_SHAPE),
        "batch_input_shape": _is(_SHAPE, _without_samples),
        "name": _no("layers are named by their place in the model: '0', '1'", None),
        "trainable": _no("set layer.trainable = False when it is made", True),
        "autocast": _no("give dtype='float32' or 'float64'", True),
        "activity_regularizer": _no("there is none; Dropout, or weight_decay=", None),
        **dict.fromkeys(_of_arrays("initializer"), _INITIALIZER),
        **dict.fromkeys(_of_arrays("regularizer"), _REGULARIZER),
        **dict.fromkeys(_of_arrays("constraint"), _CONSTRAINT),
        "weights": _no("layer.set_weights(arrays) sets them once it is built", None),
    },
    "Recurrent": {
        "units": _is("hidden_size"),
        "kernel_initializer": _first(
            "init={'weight_ih': 'keras'} is glorot_uniform", *_KERNEL
        ),
        "recurrent_initializer": _first(
            "init={'weight_hh': 'keras'} is orthogonal", "orthogonal", "Orthogonal"
        ),
        "bias_initializer": _first("init={'bias_ih': 0} is zeros", *_ZEROS),
        "use_bias": _is("bias"),
        "input_dim": _is(_SHAPE, lambda width: (None, width)),
        "return_state": _no(
            "called by itself a layer always returns its state: y, (h_n, c_n) = "
            "layer(x)",
            False,
        ),
        # An argument here, too, with PyTorch's meaning: see `fastrnn.nn.by_units`.
        "dropout": _no(
            "Keras's drops the inputs, as input_dropout does; here dropout acts "
            "between the layers of LSTM(input_size, hidden_size, num_layers)",
            0,
            0.0,
        ),
        "unroll": _no(f"{_LEAVE}: the kernels run over all steps", False),
        "implementation": _no(f"{_LEAVE}: there is one", 0, 1, 2),
        "use_cudnn": _no(f"{_LEAVE}: everything runs on the CPU", "auto", False),
        "time_major": _no("batch_first=False is (T, B, features)", False),
    },
    "RNN": {"recurrent_activation": _no("this cell has no gates")},
    "LSTM": {
        "reset_after": _no("this is an option of GRU", True),
        "unit_forget_bias": _no("an LSTM has forget_bias=1.0"),
    },
    "Linear": {
        "units": _is("out_features"),
        **_OF_WEIGHT,
        "use_bias": _is("bias"),
        "input_dim": _is(_SHAPE, lambda width: (width,)),
    },
    "Embedding": {
        "input_dim": _is("num_embeddings"),
        "output_dim": _is("embedding_dim"),
        "embeddings_initializer": _first(
            "init='keras' is uniform, N(0, 1) the default"
        ),
        "input_length": _is(_SHAPE, lambda length: (length,)),
    },
    "Dropout": {
        "rate": _is("p"),
        "noise_shape": _no("SpatialDropout1D drops a feature at all steps", None),
    },
    "Activation": {"activation": _is("function")},
    "LayerNorm": {
        "epsilon": _is("eps"),
        "axis": _no("normalized_shape says which last axes", -1),
        "center": _is("bias"),
        "scale": _is("elementwise_affine"),
    },
    "Bidirectional": {
        "backward_layer": _no("the other direction is one of the same kind", None),
    },
    "BatchNormalization": {
        "beta_initializer": Word(None, _INITIALIZER.answer, None, _ZEROS),
        "gamma_initializer": Word(None, _INITIALIZER.answer, None, ("ones", "Ones")),
        "moving_mean_initializer": Word(None, _INITIALIZER.answer, None, _ZEROS),
        "moving_variance_initializer": Word(
            None, _INITIALIZER.answer, None, ("ones", "Ones")
        ),
        "synchronized": _no(f"{_LEAVE}: everything runs in one process", False),
    },
    "Conv1D": {
        **_OF_WEIGHT,
        **_DATA_FORMAT,
        "groups": _no("every filter is of all features", 1),
    },
    "Flatten": _DATA_FORMAT,
    "_Pooling": _DATA_FORMAT,
    "_Global": _DATA_FORMAT,
    "Optimizer": {
        "learning_rate": _is("lr"),
        "epsilon": _is("eps"),
        "decay": _no("a schedule of fastrnn.schedules among fit's callbacks", 0, 0.0),
        "clipnorm": _no(f"{_CLIP}; each array alone is not clipped", None),
        "global_clipnorm": _no(_CLIP, None),
        "clipvalue": _no("fit(clip_value=) brings every number into bounds", None),
        "name": _no(_LEAVE, None),
        "weight_decay": _no("AdamW decays weights as Keras does", None),
        "use_ema": _no("there is no moving average of weights", False),
        "ema_momentum": _no("there is no moving average of weights", 0.99),
        "ema_overwrite_frequency": _no("there is no average of weights", None),
        "loss_scale_factor": _no("computing is in float32 and float64", None),
        "gradient_accumulation_steps": _no("it is an argument of fit", None),
    },
    "Adam": {
        "beta_1": _no("betas=(beta_1, beta_2)"),
        "beta_2": _no("betas=(beta_1, beta_2)"),
    },
    "RMSprop": {"rho": _is("alpha")},
    "Metric": {
        "dtype": _no(f"{_LEAVE}: sums are in float64", None),
    },
    "_AtThreshold": {
        "thresholds": _is("threshold"),
        "top_k": _no("all numbers of the output count", None),
        "class_id": _no("all numbers of the output count", None),
    },
    "AUC": {
        "curve": _no("it is that of ROC", "ROC"),
        "summation_method": _no("it is Keras's interpolation", "interpolation"),
        "thresholds": _no("num_thresholds are spread evenly", None),
        "multi_label": _no("all numbers count alike", False),
        "num_labels": _no("all numbers count alike", None),
        "label_weights": _no("all numbers count alike", None),
        "from_logits": _no("it is known from the loss", False),
    },
    "Loss": {
        "reduction": _no("it is the mean over rows", "sum_over_batch_size", "auto"),
        "name": _no(_LEAVE, None),
        "dtype": _no(f"{_LEAVE}: it is that of the model", None),
        "label_smoothing": _no("smooth the targets of one_hot yourself", 0, 0.0),
        "axis": _no("classes are the last axis", -1),
        "ignore_class": _no("targets of -100 do not count; masks, too", None),
    },
    "Tokenizer": {
        "num_words": _no("fit(texts, max_size=) keeps the most frequent tokens", None),
        "oov_token": _no("number 1 of specials stands for unknown tokens", None),
        "char_level": _no("a CharTokenizer has a token for each character"),
        "filters": _no(
            "fastrnn.keras.preprocessing.text.Tokenizer is Keras's; a WordTokenizer "
            "has tokens for punctuation"
        ),
        "split": _no("tokens are words, numbers and marks of punctuation", " "),
    },
    "ModelCheckpoint": {
        "filepath": _is("path"),
        "save_weights_only": _no(
            "the whole model is written; model.load(path) reads its weights", False
        ),
        "save_freq": _no("it writes after every epoch", "epoch"),
        "period": _no("it writes after every epoch", 1),
        "initial_value_threshold": _no("the first epoch is the best so far", None),
    },
    "CSVLogger": {
        "filename": _is("path"),
        "separator": _no("it is a comma", ","),
    },
    "ReduceLROnPlateau": {"epsilon": _is("min_delta")},
    "compile": {
        "loss_weights": _no(
            "a model has one loss; a function may add up several", None
        ),
        "weighted_metrics": _no("metrics count all rows alike, as in Keras", None, []),
        "run_eagerly": _no(f"{_LEAVE}: nothing is compiled", None, False, True),
        "steps_per_execution": _no(_LEAVE, None, 1),
        "jit_compile": _no(f"{_LEAVE}: the kernels are compiled", "auto", None, False),
        "auto_scale_loss": _no(_LEAVE, True),
        "sample_weight_mode": _no("sample_weight may be (N,) or (N, T)", None),
    },
    "fit": {
        "initial_epoch": _no("fit(resume=path) goes on from a checkpoint", 0),
        "validation_batch_size": _no("it is batch_size", None),
        "validation_freq": _no("validation follows every epoch", 1),
        "nb_epoch": _is("epochs"),
        "workers": _WORKERS,
        "use_multiprocessing": _WORKERS,
        "max_queue_size": _WORKERS,
    },
    "evaluate": _PREDICTION,
    "predict": _PREDICTION
    | {"verbose": _no("a model that writes shows nothing", 0, "auto")},
    "train_on_batch": _BATCH,
    "test_on_batch": _BATCH,
    "save": {
        "overwrite": _no("a file that exists is replaced", True),
        "include_optimizer": _no("ModelCheckpoint keeps the optimiser's state"),
        "save_format": _no("it is safetensors"),
        "zipped": _no("it is safetensors", None),
    },
    "summary": {
        "line_length": _no(_LEAVE, None),
        "positions": _no(_LEAVE, None),
        "print_fn": _no("it prints; str of fastrnn.train.summary.table(model)", None),
        "expand_nested": _no("layer.summary() of a nested model", False),
        "show_trainable": _no("the last line counts what is trainable", False),
        "layer_range": _no(_LEAVE, None),
    },
    "pad_sequences": {
        "dtype": _no(
            "it is that of the sequences; Keras's pad_sequences, an array with the "
            "padding first, is fastrnn.keras.utils.pad_sequences"
        ),
    },
}
