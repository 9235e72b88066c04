# SPDX-License-Identifier: BSD-3-Clause
"""`Parameters`: arrays that training changes, all of a model's in one flat buffer.

A module that declares parameters owns a slice of a buffer of parameters and the same
slice of a buffer of gradients.  A module made of others asks them to lie one after the
other in one pair of buffers, so that clipping, the optimiser and saving are each one
pass over memory.  This file is longer than others: it has all that is stored of a
module, and its files.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import safetensors.numpy
from numpy.typing import ArrayLike

from fastrnn.native import core, threads
from fastrnn.native.memory import aligned
from fastrnn.nn import sparse
from fastrnn.nn.tree import Structure, Tree, structure_changed
from fastrnn.util import budget, checks, files, writing
from fastrnn.util.typing import Array, PathLike


class Parameters(Tree):
    """Base of modules: their parameters and gradients, and the files of these.

    Attributes
    ----------
    _shapes : dict of str to tuple of int
        Name and shape of each of this module's own parameters, in order.
    _size : int
        How many numbers they are together.
    _fixed : dict of str to ndarray
        Arrays that no training changes, such as weights of fewer bytes: they are saved
        and loaded with the parameters, and have no gradients.
    _param, _grad : dict of str to ndarray
        Views of them and of their gradients in the buffers.
    _buffers : pair of ndarray
        The flat buffers that have them, from element `_start` on.
    _own : pair of ndarray
        This module's own parts of them.
    _table : fastrnn.nn.sparse.Table or None
        Which rows are in use, of a layer whose one parameter is a sparse table.
    _is_constrained : bool
        Whether `constrain`, which such a module has, is to follow each step of an
        optimiser.
    """

    _trainable = True  # whether training changes them: see `trainable`
    _table = None
    _is_constrained = False

    if not TYPE_CHECKING:  # a checker shall go by __init__

        def __new__(cls, *args: Any, **kwargs: Any) -> Self:
            self = super().__new__(cls)
            self.__dict__.update(
                _shapes={},
                _fixed={},
                _size=0,
                _dtype=None,
                _param={},
                _grad={},
                _buffers=None,
                _start=0,
            )
            return self

    def _leaves(self):
        """(prefix, module) of the modules that have parameters, and their dtype.

        A step asks several times, so the answer is kept until some tree's structure
        changes.
        """
        kept = self.__dict__.get("_found")
        if kept is not None and kept[0] is Structure.now:
            return kept[1:]
        structure = Structure.now
        leaves, dtype = self._find_leaves()
        if not self._shapes:  # else it would refer to itself
            self.__dict__["_found"] = structure, leaves, dtype
        return leaves, dtype

    def _find_leaves(self):
        leaves = tuple(pair for pair in self._walk() if pair[1]._shapes)
        if not leaves:
            return leaves, "float32"
        dtype = leaves[0][1]._dtype
        if any(leaf._dtype != dtype for _, leaf in leaves):
            found = ", ".join(f"{p[:-1] or 'itself'} {m._dtype}" for p, m in leaves)
            raise ValueError(
                f"{type(self).__name__}: all layers must have one dtype, got {found}"
            )
        return leaves, dtype

    @property
    def dtype(self) -> str:
        """``"float32"`` or ``"float64"``: the type of all parameters."""
        if self._dtype and not self._children:
            return self._dtype
        return self._leaves()[1]

    def _declare(self, shapes, dtype="float32"):
        """Make this module's parameters and gradients, all zero.

        Parameters
        ----------
        shapes : mapping of str to tuple of int
            Name and shape of each parameter, in order.
        dtype : {"float32", "float64"}
            Type of all of them.
        """
        who = type(self).__name__
        if self._shapes:
            raise RuntimeError(f"{who}: parameters are declared once")
        dtype = checks.dtype_name(who, dtype)
        size = sum(math.prod(shape) for shape in shapes.values())
        budget.take(who, size, len(shapes), np.dtype(dtype).itemsize)
        self._dtype, self._size = dtype, size
        self._shapes.update({name: tuple(shape) for name, shape in shapes.items()})
        structure_changed()
        self._bind(tuple(aligned(self._size, dtype, np.zeros) for _ in range(2)), 0)

    def _fix(self, shapes, dtype="float32"):
        """Make arrays that no training changes, all zero.

        Parameters
        ----------
        shapes : mapping of str to (tuple of int, str)
            Shape of each array, and the type of its numbers.
        dtype : {"float32", "float64"}
            The layer's own.
        """
        who = type(self).__name__
        itemsizes = {
            name: np.dtype(kind).itemsize for name, (_, kind) in shapes.items()
        }
        n_bytes = sum(math.prod(shapes[name][0]) * n for name, n in itemsizes.items())
        budget.take(who, n_bytes, len(shapes), 1)
        self._dtype = dtype
        self._fixed.update({name: np.zeros(*shapes[name]) for name in shapes})

    def _set_fixed(self, values):
        """Write to what `_fix` has made."""
        for name, value in values.items():
            self._fixed[name][...] = value
        self._fixed_changed()

    def _fixed_changed(self):
        """Forget what was made of `_fixed`, whose numbers are others now."""

    def _bind(self, buffers, start):
        """Let the views be those of a pair of buffers from element `start` on."""
        parameters, grads = self._buffers = buffers
        self._start = start
        self._own = tuple(b[start : start + self._size] for b in buffers)
        sparse.forget_views(self)
        for name, shape in self._shapes.items():
            stop = start + math.prod(shape)
            self._param[name] = parameters[start:stop].reshape(shape)
            self._grad[name] = grads[start:stop].reshape(shape)
            start = stop

    def _gathered(self):
        """The modules that have parameters, and both flat arrays that these lie in.

        A module that is part of a larger one finds its parts in the larger one's
        buffers, in order, and leaves them there.

        Returns
        -------
        leaves : list of Parameters
        parameters, grads : ndarray, shape (P,)
        """
        if self._shapes and not self._children:  # a layer alone need not look around
            return [self], *self._own
        leaves, dtype = self._leaves()
        if not leaves:
            return [], np.empty(0, dtype), np.empty(0, dtype)
        leaves = [leaf for _, leaf in leaves]
        buffers = leaves[0]._buffers
        start = stop = leaves[0]._start
        together = True
        for leaf in leaves:
            together &= leaf._buffers is buffers and leaf._start == stop
            stop += leaf._size
        if not together:
            start, stop = 0, stop - start
            buffers = aligned(stop, dtype, np.zeros), aligned(stop, dtype, np.zeros)
            at = 0
            for leaf in leaves:
                old, old_start, size = leaf._buffers, leaf._start, leaf._size
                for into, source in zip(buffers, old, strict=True):
                    into[at : at + size] = source[old_start : old_start + size]
                leaf._bind(buffers, at)
                at += size
        parameters, grads = buffers
        return leaves, parameters[start:stop], grads[start:stop]

    def _flat(self):
        """Both flat arrays, of parameters and of gradients."""
        return self._gathered()[1:]

    def _spans_in_use(self):
        """Where this module's own gradients may not be zero: spans of the buffer."""
        spans = None if self._table is None else sparse.spans([self])
        if spans is None:
            return [(self._start, self._start + self._size)]
        return (spans + self._start).tolist()

    @property
    def flat_parameters(self) -> Array:
        """All parameters: ndarray of shape (P,), contiguous, a view."""
        leaves, parameters, _ = self._gathered()
        return sparse.handed_out("_param", parameters[:], leaves)

    @property
    def flat_grads(self) -> Array:
        """All gradients: ndarray of shape (P,), contiguous, a view."""
        leaves, _, grads = self._gathered()
        return sparse.handed_out("_grad", grads[:], leaves)

    def _trained_grads(self):
        """Flat gradients, and the spans of them that clipping is about; None for all.

        These are the gradients of trainable modules that may be other than zero.
        """
        leaves, _, grads = self._gathered()
        return grads, sparse.spans(leaves, frozen_too=False)

    def _use_all_grads(self):
        """Take any gradient for one that may not be zero, from now on."""
        sparse.mark_all(self.modules())

    def _views(self, which):
        self._flat()
        views = {
            prefix + name: sparse.handed_out(which, view, [leaf])
            for prefix, leaf in self._leaves()[0]
            for name, view in getattr(leaf, which).items()
        }
        return MappingProxyType(views)

    @property
    def parameters(self) -> Mapping[str, Array]:
        """Mapping of names to arrays that are views into `flat_parameters`."""
        return self._views("_param")

    @property
    def grads(self) -> Mapping[str, Array]:
        """Mapping of parameter names to gradients, views into `flat_grads`."""
        return self._views("_grad")

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        leaves, _, grads = self._gathered()
        spans = sparse.spans(leaves)
        core.kernels(grads.dtype).clear(threads.for_kernel(), grads, spans)
        sparse.note_cleared(leaves)

    # -- copies and files -------------------------------------------------------------

    def __getstate__(self):
        sparse.settle([self])
        state = self.__dict__.copy()
        for name in ("_param", "_grad", "_buffers", "_start", "_own", "_found"):
            state.pop(name, None)
        state.update(
            _children=self._children.copy(),
            _shapes=self._shapes.copy(),
            _fixed={name: array.copy() for name, array in self._fixed.items()},
            _table=copy.copy(self._table),
        )
        if self._shapes:
            span = slice(self._start, self._start + self._size)
            state["_values"] = tuple(buffer[span].copy() for buffer in self._buffers)
        return state

    def __setstate__(self, state):
        state = dict(state)
        values = state.pop("_values", ())
        self.__dict__.update(state)
        if values:
            new = tuple(aligned(v.size, v.dtype) for v in values)
            for into, value in zip(new, values, strict=True):
                into[...] = value
            self._bind(new, 0)

    def _stored(self):
        """All that files have of this module and those below, by name: no copies."""
        fixed = {
            prefix + name: array
            for prefix, module in self._walk()
            for name, array in module._fixed.items()
        }
        return {**self.parameters, **fixed}

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters, and of weights that `quantize` has made.

        Returns
        -------
        dict of str to ndarray
            The names are those of `parameters`, and of a `torch.nn` module of the
            same make.
        """
        return {name: view.copy() for name, view in self._stored().items()}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True
    ) -> None:
        """Set the parameters to given values.

        Parameters
        ----------
        state_dict : mapping of str to array_like
            Values by parameter name; numbers of any real type. A `torch.nn` module's
            state dict will do.
        strict : bool
            False passes over names that are missing or not known.

        Raises
        ------
        ValueError
            If names or shapes do not match; nothing has changed then.
        TypeError
            If a value is not an array of real numbers; nothing has changed then.
        """
        self._load(f"{type(self).__name__}.load_state_dict", state_dict, strict)

    def _load(self, who, state_dict, strict=True):
        self._set(self._values(who, state_dict, strict))

    def _set(self, values):
        """Write what `_values` gave."""
        views = self._stored()
        for name, value in values.items():
            views[name][...] = value
        for _, module in self._walk():
            if module._fixed:
                module._fixed_changed()

    def _values(self, who, state_dict, strict=True):
        """Copies of the values in a state dict, once they are known to fit."""
        if not isinstance(state_dict, Mapping):
            raise TypeError(
                f"{who}: state_dict must be a mapping of names to arrays, "
                f"got {type(state_dict).__name__}"
            )
        strict = checks.flag(who, "strict", strict)
        views = self._stored()
        problems = []
        if strict:
            missing = [name for name in views if name not in state_dict]
            unexpected = [str(name) for name in state_dict if name not in views]
            problems += [f"missing {', '.join(missing)}"] if missing else []
            problems += [f"unexpected {', '.join(unexpected)}"] if unexpected else []
        values = {}
        for name, view in views.items():
            if name in state_dict:
                value = state_dict[name]
                if getattr(value, "dtype", None) == np.uint16 != view.dtype:
                    problems.append(
                        f"{name} must be numbers, got the bits of bfloat16 that a "
                        "layer with quantized='bfloat16' has"
                    )
                if view.dtype.kind == "f":
                    value = checks.float_array(who, name, value, view.dtype)
                else:
                    value = checks.as_array(who, name, value)
                    if value.dtype != view.dtype:
                        problems.append(
                            f"{name} must be of type {view.dtype}, got {value.dtype}"
                        )
                # A copy: the values given may be views of what is written below.
                values[name] = value.copy()
                if value.shape != view.shape:
                    problems.append(
                        f"{name} must have shape {view.shape}, got {value.shape}"
                    )
        if problems:
            raise ValueError(
                f"{who}: names and shapes must be those of the parameters, got "
                + "; ".join(problems)
            )
        return values

    def get_weights(self) -> list[Array]:
        """Copies of all parameters, in their order, for `set_weights`.

        Shapes are those of `parameters`, and so PyTorch's, not Keras's.

        Returns
        -------
        list of ndarray
        """
        return list(self.state_dict().values())

    def set_weights(self, weights: Sequence[ArrayLike]) -> None:
        """Set all parameters to values in their order, as `get_weights` gives them.

        Parameters
        ----------
        weights : sequence of array_like
            `fastrnn.keras.layer_weights` makes a state dict for `load_state_dict` of
            what a layer of Keras's gives.

        Raises
        ------
        ValueError, TypeError
            If numbers or shapes do not match; nothing has changed then.
        """
        who, views = f"{type(self).__name__}.set_weights", self._stored()
        names, shapes = list(views), [view.shape for view in views.values()]
        if len(weights) != len(names) or shapes != [np.shape(one) for one in weights]:
            raise ValueError(
                f"{who}: weights must have the shapes {shapes}, got "
                f"{[np.shape(one) for one in weights]}; of a layer of Keras's, "
                "load_state_dict(fastrnn.keras.layer_weights(weights)) takes them"
            )
        self._load(who, dict(zip(names, weights, strict=True)))

    def save(self, path: PathLike) -> None:
        """Write all parameters to a safetensors file, all of it or nothing.

        Parameters
        ----------
        path : path-like
            File to write; one that exists is replaced at the end, in one step.
        """
        writing.write_atomically(path, safetensors.numpy.save(self.state_dict()))

    def load(self, path: PathLike) -> None:
        """Read all parameters from a safetensors file.

        Parameters
        ----------
        path : path-like
            File written by `save`, or by safetensors from a `torch.nn` module of the
            same make.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is not a safetensors file or is damaged, or if names or shapes do not
            match; nothing has changed then.
        """
        who = f"{type(self).__name__}.load"
        state_dict = files.read_safetensors(who, path)
        self._load(f"{who}: {os.fspath(path)}", state_dict)
