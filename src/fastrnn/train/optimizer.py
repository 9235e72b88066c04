# SPDX-License-Identifier: BSD-3-Clause
"""`Optimizer`: what all optimisers share, whatever their formula."""

from __future__ import annotations

import copy
import numbers
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from fastrnn.native import core, optimizers, threads
from fastrnn.nn.attributes import Attributes
from fastrnn.nn.module import Module
from fastrnn.nn.sparse import Steps
from fastrnn.util import checks
from fastrnn.util.typing import Array
from fastrnn.util.words import arguments_of, owners_of, taken


class Optimizer(Attributes):
    """Base of the optimisers: the model, the learning rate, the step count, the state.

    A subclass lists its hyperparameters in ``_hyperparameters``, name to rule (an
    interval, or bool), in ``_own_state`` the arrays that it keeps between steps and
    what they begin with (a number, or the name of a hyperparameter), in
    ``_optional_state`` those that it keeps only if a hyperparameter is not zero, names
    its kernel in ``_kernel``, and defines the arguments that the kernel takes:
    ``_arrays``, ``_rates``, ``_options``.

    Attributes
    ----------
    lr : float
        Learning rate; may be set between steps, as the other hyperparameters may. One
        that needs an array kept between steps can be turned off and on again, but not
        on for the first time.
    n_steps : int
        Steps taken so far, whichever layers were trainable.

    Notes
    -----
    A step leaves layers that are not `trainable` as they are, and what is kept of them
    between steps; they join in again when they are trainable again.
    """

    _hyperparameters: ClassVar = {}
    _own_state: ClassVar = {}
    _optional_state: ClassVar = {}
    _kernel: ClassVar = ""
    model: Module  # None only before `compile` or the first batch says which
    _first_only: ClassVar = ()  # hyperparameters that only the first step is due to

    # What differs where the optimiser is made without a model, as in Keras; and what to
    # write for a weight_decay, which is another thing there.
    _keras_defaults: ClassVar = {}
    _keras_decay: ClassVar = "AdamW decays weights as Keras does"

    def __init__(self, model: Module | None, lr: float, **hyperparameters: Any) -> None:
        vars(self)["model"] = None  # it is set once, by `_attach`
        self.lr = lr
        for name, value in hyperparameters.items():
            setattr(self, name, value)
        self.n_steps: int = 0
        self._made_for, self._steps, self._state = None, None, {}
        self._first = {}  # what arrays kept between steps begin with, by name
        for name, option in self._optional_state.items():
            if getattr(self, option):
                self._first[name] = 0.0
        for name, first in self._own_state.items():
            self._first[name] = getattr(self, first) if first in vars(self) else first
        if model is not None:
            self._attach(model)

    def _as_here(self, args, kwargs):
        """Keras's way, without a model: `compile` says which."""
        is_rate = bool(args) and isinstance(args[0], numbers.Real)
        if "model" in kwargs or (args and not is_rate):
            return args, kwargs
        who = type(self).__name__
        if len(args) > 1:
            raise TypeError(
                f"{who}: arguments after the learning rate must be given by name, got "
                f"{args[1]!r}"
            )
        given = kwargs | ({"learning_rate": args[0]} if is_rate else {})
        if given.get("weight_decay") and self._keras_decay:
            raise TypeError(
                f"{who}: weight_decay must not be given without a model; use "
                f"{self._keras_decay}"
            )
        betas = self._keras_betas(given)
        known = arguments_of(type(self).__init__)
        given = taken(who, owners_of(type(self)), known, given)
        return (None,), {**self._keras_defaults, **betas, **given}

    def _keras_betas(self, given):
        """Taken out of `given`: Adam's betas, which are two arguments in Keras."""
        if "betas" not in self._hyperparameters:
            return {}
        names = {"beta_1": 0.9, "beta_2": 0.999}
        if not names.keys() & given.keys():
            return {}
        return {"betas": tuple(given.pop(name, b) for name, b in names.items())}

    def _attach(self, model):
        """Be the optimiser of a model, with the arrays that are kept between steps."""
        who = type(self).__name__
        if not isinstance(model, Module):
            raise TypeError(
                f"{who}: model must be a Module, got {type(model).__name__}"
            )
        size = model._flat()[0].size
        if size == 0:
            raise ValueError(
                f"{who}: model must have parameters, got none; compile takes "
                "optimizer=None for a model that is evaluated alone"
            )
        dtype = model.dtype
        state = {n: np.full(size, value, dtype) for n, value in self._first.items()}
        vars(self)["model"] = model
        self._made_for, self._state = (size, dtype), state
        self._steps = Steps(self._kernel, dtype)

    def _attached(self, what):
        """Refuse what an optimiser cannot do before it has a model."""
        if self.model is None:
            who = type(self).__name__
            raise RuntimeError(
                f"{who}.{what}: the optimiser must have a model: {who}(model), or "
                "model.compile(optimizer=...) and a first batch"
            )

    _others = ("n_steps",)

    def _to_set(self, name, value):
        if name not in self._hyperparameters:
            return super()._to_set(name, value)
        value = self._checked(name, value)
        return super()._to_set(name, value) if name in self._first_only else value

    @property
    def lr(self) -> float:
        """Learning rate, in [0, inf)."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = checks.real_in(type(self).__name__, "lr", value, "[0, inf)")

    @property
    def learning_rate(self) -> float:
        """Keras's name of `lr`."""
        return self.lr

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.lr = value

    def _checked(self, name, value):
        who, rule = type(self).__name__, self._hyperparameters[name]
        if rule is bool:
            return checks.flag(who, name, value)
        if name != "betas":
            return checks.real_in(who, name, value, rule)
        values = np.asarray(value).tolist() if isinstance(value, np.ndarray) else value
        if not isinstance(values, (tuple, list)) or len(values) != 2:
            raise ValueError(f"{who}: betas must be two numbers, got {value!r}")
        return tuple(
            checks.real_in(who, f"betas[{i}]", beta, rule)
            for i, beta in enumerate(values)
        )

    def step(self) -> None:
        """Change the model's parameters by one step along its gradients.

        Raises
        ------
        ValueError
            If the model's parameters are not as many, or not of the type, as when the
            optimiser was made, or a hyperparameter set since then needs what was not
            kept; nothing is changed.
        """
        self._attached("step")
        who = f"{type(self).__name__}.step"
        layers, parameters, grads = self.model._gathered()
        found = self.model.dtype
        if (parameters.size, found) != self._made_for:
            size, dtype = self._made_for
            raise ValueError(
                f"{who}: the model has {parameters.size} {found} "
                f"parameters, but had {size} {dtype} when the optimiser was made"
            )
        for name, option in self._optional_state.items():
            value = getattr(self, option)
            if value and name not in self._state:
                raise ValueError(
                    f"{who}: {option} was set to {value!r}, but the optimiser was made "
                    f"without and keeps no {name}; make one with {option}={value!r}"
                )
        self._check_options(who, ValueError)
        step, n_threads = getattr(optimizers, self._kernel), threads.for_kernel()
        kernels = core.kernels(found)
        core.prepare(n_threads)
        self.__dict__["n_steps"] += 1  # past __setattr__: this is in every step
        rates, arrays, options = self._rates(), self._arrays(), self._options()
        try:
            spans = self._steps.take(layers, rates, arrays, options)
        except Exception:  # no row has taken the step
            self.n_steps -= 1
            raise
        for span in spans:
            state = [None if array is None else array[span] for array in arrays]
            step(
                kernels,
                n_threads,
                parameters[span],
                grads[span],
                state,
                rates,
                *options,
            )
        for layer in layers:
            if layer._is_constrained and layer._trainable:
                layer.constrain()

    def _check_options(self, who, error):
        """Raise `error` if hyperparameters do not go together."""

    def _kept(self, name):
        """The array of ``_optional_state``, or None where its option is off."""
        return self._state[name] if getattr(self, self._optional_state[name]) else None

    def _arrays(self):
        """Arrays kept between steps, in the kernel's order; None where turned off."""
        raise NotImplementedError(f"{type(self).__name__} must define _arrays")

    def _rates(self):
        """What changes from step to step, in the kernel's order."""
        return (self.lr,)

    def _options(self):
        """The kernel's other arguments, in order."""
        raise NotImplementedError(f"{type(self).__name__} must define _options")

    def __getstate__(self):
        if self._steps is not None:
            self._steps.settle()
        state = self.__dict__.copy()
        del state["_steps"]
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)
        made_for = self._made_for
        steps = None if made_for is None else Steps(self._kernel, made_for[1])
        self._steps = steps

    def zero_grad(self) -> None:
        """Set the model's gradients to zero."""
        self._attached("zero_grad")
        self.model.zero_grad()

    def state_dict(self) -> dict[str, Array]:
        """Everything that the next steps depend on, besides the model.

        Returns
        -------
        dict of str to ndarray
            Copies: ``step``, the hyperparameters and ``lr`` as small arrays, and the
            flat arrays kept between steps. Can be saved with safetensors as it is.
        """
        self._attached("state_dict")
        self._steps.settle()
        scalars = {
            name: getattr(self, name)
            for name in self._hyperparameters
            if name != "initial_accumulator_value"
        }
        return {
            "step": np.array(self.n_steps, np.int64),
            "lr": np.array(self.lr, np.float64),
            **{name: np.array(value) for name, value in scalars.items()},
            **{name: array.copy() for name, array in self._state.items()},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave; hyperparameters become those saved.

        Parameters
        ----------
        state_dict : mapping of str to array_like
            From an optimiser of the same kind, with the same options, for a model with
            as many parameters.

        Raises
        ------
        ValueError
            If names or sizes differ, or a value is out of range.
        TypeError
            If a value is of the wrong type. Nothing is changed in either case.
        """
        self._set_state(self._checked_state(state_dict))

    def _checked_state(self, state_dict):
        """Step count, hyperparameters and arrays, once they are known to fit."""
        who = f"{type(self).__name__}.load_state_dict"
        if not isinstance(state_dict, Mapping):
            raise TypeError(
                f"{who}: state_dict must be a mapping of names to arrays, got "
                f"{type(state_dict).__name__}"
            )
        wanted = self.state_dict()
        if set(state_dict) != set(wanted):
            raise ValueError(
                f"{who}: state_dict lacks {sorted(set(wanted) - set(state_dict))} and "
                f"has {sorted(set(state_dict) - set(wanted))} that this optimiser has "
                "not"
            )
        arrays = {name: checks.as_array(who, name, state_dict[name]) for name in wanted}
        for name, array in arrays.items():
            checks.same_shape(who, name, array, "its own", wanted[name].shape)
            if array.dtype.kind not in "fiub":
                raise TypeError(f"{who}: {name} must be numbers, got {array.dtype}")
        step = checks.integer(who, "step", arrays["step"].tolist())
        if step < 0:
            raise ValueError(f"{who}: step must be >= 0, got {step}")
        lr = checks.real_in(who, "lr", arrays["lr"].tolist(), "[0, inf)")
        values = {
            name: self._checked(name, arrays[name].tolist())
            for name in self._hyperparameters
            if name in arrays
        }
        trial = copy.copy(self)
        for name, value in values.items():
            setattr(trial, name, value)
        trial._check_options(who, ValueError)
        kept = {name: arrays[name].astype(self._made_for[1]) for name in self._state}
        return step, {"lr": lr, **values}, kept

    def _set_state(self, checked):
        """Become what `_checked_state` gave."""
        self._steps.settle()
        self.n_steps, hyperparameters, arrays = checked
        for name, value in hyperparameters.items():
            setattr(self, name, value)
        for name, array in self._state.items():
            array[:] = arrays[name]

    def __repr__(self):
        values = ((name, getattr(self, name)) for name in self._hyperparameters)
        listed = "".join(f", {name}={value}" for name, value in values)
        return f"{type(self).__name__}(lr={self.lr}{listed})"
