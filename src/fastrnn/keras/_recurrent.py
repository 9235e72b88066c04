# SPDX-License-Identifier: BSD-3-Clause
"""`RecurrentBuilder`: fastrnn's recurrent layers from Keras's."""

from fastrnn.keras._options import (
    FOR_INFERENCE,
    SEQUENCE,
    TWO_DIRECTIONS,
    cell_arguments,
    dropout_arguments,
    refuse,
    sequence_arguments,
)
from fastrnn.keras._weights import recurrent_state
from fastrnn.recurrent import GRU, LSTM, RNN
from fastrnn.recurrent.bidirectional import Bidirectional

CLASSES = {"SimpleRNN": RNN, "LSTM": LSTM, "GRU": GRU}


class RecurrentBuilder:
    """The part of a `Builder` that knows recurrent layers, and what all parts need.

    Attributes
    ----------
    who, version, dtype, inference
        As `Builder` takes them.
    """

    def _check(self, layer, config, options, hint=""):
        """Refuse values of options other than those accepted, as in `_options`."""
        if layer.kind == "Dropout":
            if self.inference:
                return
            hint = FOR_INFERENCE
        for option, accepted in options.items():
            value = config.get(option, accepted[0])
            refuse(self.who, layer, option, value, accepted, hint)

    def _filled(self, layer, module, state):
        """Load weights, named as fastrnn's, into the module that stands for a layer."""
        try:
            module.load_state_dict(state)
        except ValueError as error:
            raise ValueError(f"{self.who}: {layer}: {error}") from error
        return module

    def _arrays(self, layer, *counts):
        """The arrays of a layer, whose number must be one of `counts`."""
        if len(layer.arrays) not in counts:
            raise ValueError(
                f"{self.who}: {layer} must have {' or '.join(map(str, counts))} "
                f"weights, got {len(layer.arrays)}"
            )
        return layer.arrays

    def _recurrent(self, layer):
        arguments = self._arguments(layer, layer.kind, layer.config)
        return [self._cell(layer, layer.kind, layer.config, 1, arguments)]

    def _arguments(self, layer, kind, config, directions=1):
        """The arguments of fastrnn's layer for the options of a layer of Keras."""
        self._check(layer, config, SEQUENCE)
        dropouts = {}
        if not self.inference:
            dropouts = dropout_arguments(self.who, layer, kind, config)
        return {
            "bias": config.get("use_bias", True),
            **sequence_arguments(config, directions),
            **cell_arguments(self.who, layer, kind, config, self.version),
            **dropouts,
        }

    def _cell(self, layer, kind, config, directions, arguments):
        """The recurrent layer of fastrnn, with weights, for a layer of Keras."""
        has_bias = arguments["bias"]
        arrays = self._arrays(layer, directions * (2 + has_bias))
        if any(array.ndim != 2 for array in arrays[:2]):
            raise ValueError(f"{self.who}: {layer}: kernels must be matrices")
        found, state = recurrent_state(f"{self.who}: {layer}", arrays)
        if found != kind or config["units"] != arrays[1].shape[0]:
            raise ValueError(
                f"{self.who}: {layer}: weights must be those of {config['units']} "
                f"units, got a recurrent kernel of shape {arrays[1].shape}"
            )
        if kind == "GRU" and has_bias:
            after = arguments.get("reset_after", True)
            if (arrays[2].ndim == 2) != after:
                raise ValueError(
                    f"{self.who}: {layer}: the bias must have {1 + after} axes with "
                    f"reset_after={after}, got shape {arrays[2].shape}"
                )
        module = CLASSES[kind](
            arrays[0].shape[0],
            config["units"],
            batch_first=True,
            bidirectional=directions == 2,
            dtype=self.dtype,
            **arguments,
        )
        return self._filled(layer, module, state)

    def _bidirectional(self, layer):
        inner = layer.config["layer"]
        kind, config = inner["class_name"], inner["config"]
        if kind not in CLASSES:
            raise ValueError(
                f"{self.who}: {layer}: its layer must be one of "
                f"{', '.join(CLASSES)}, got {kind}"
            )
        self._check(layer, config, TWO_DIRECTIONS)
        other = layer.config.get("backward_layer", inner)
        if other["class_name"] != kind:
            raise ValueError(
                f"{self.who}: {layer}: both directions must be of one class, "
                f"got {kind} and {other['class_name']}"
            )
        arguments, others = (
            {
                "units": one["units"],
                **self._arguments(layer, kind, {**one, "go_backwards": False}, 2),
            }
            for one in (config, other["config"])
        )
        for name in {**arguments, **others}:
            if arguments.get(name) != others.get(name):
                raise ValueError(
                    f"{self.who}: {layer}: both directions must have the same {name}, "
                    f"got {config.get(name)!r} and {other['config'].get(name)!r}"
                )
        del arguments["units"]
        module = self._cell(layer, kind, config, 2, arguments)
        mode = layer.config.get("merge_mode", "concat")
        return [module if mode == "concat" else Bidirectional(module, mode)]
