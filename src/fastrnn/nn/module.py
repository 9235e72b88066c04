# SPDX-License-Identifier: BSD-3-Clause
"""`Module`: parameters in one flat buffer, children, modes, saving and loading.

A module that declares parameters owns a slice of a buffer of parameters and the same
slice of a buffer of gradients.  A module made of others asks them to lie one after the
other in one pair of buffers, so that clipping, the optimiser and saving are each one
pass over memory.
"""

import contextlib
import math
import os
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import safetensors.numpy

from fastrnn.native import core, threads
from fastrnn.native.memory import aligned
from fastrnn.nn import sparse
from fastrnn.nn.attributes import flag
from fastrnn.nn.context import Context
from fastrnn.nn.trainable import Trainable
from fastrnn.util import budget, checks, files, writing


class Module(Trainable):
    """Base of all layers and models.

    A layer declares its parameters with ``_declare`` and defines ``forward`` and
    ``backward``. A model assigns layers to attributes, which registers them as
    children, and calls them in its own ``forward``.

    Attributes
    ----------
    training : bool
        True after `train` (and at first), False after `eval`.
    context : Context or None
        What the last forward kept for backward; None in eval mode.
    trainable : bool
        False leaves the parameters, here and below, as they are: backward computes no
        gradients of them, and neither clipping nor an optimiser sees them.

    Notes
    -----
    `flat_parameters` and `flat_grads` are contiguous over all modules below this one,
    in the order in which they were assigned, each module once however often it is
    used. Views are rebound when a module joins a larger one: fetch
    ``model.parameters["head.weight"]`` again after changing what a model is made of.

    A `backward` of ours that fails, for want of memory say, leaves gradients and
    contexts as they were, in all layers below: it can be called again. A model's own
    `backward` that calls those of several layers does not undo the first ones' when a
    later one fails; call `zero_grad` and run forward again.

    A model may be copied (`copy.deepcopy`) and pickled; the copy has buffers of its own
    and no context.

    Examples
    --------
    >>> from fastrnn.nn.layers import Linear
    >>> class Model(Module):
    ...     def __init__(self):
    ...         self.body = Linear(3, 4)
    ...         self.head = Linear(4, 2)
    ...
    ...     def forward(self, x):
    ...         return self.head(self.body(x))
    >>> model = Model()
    >>> list(model.parameters)
    ['body.weight', 'body.bias', 'head.weight', 'head.bias']
    >>> model.flat_parameters.shape
    (26,)
    """

    training = True
    context = None
    # Whether an output has the steps of its input, so that their mask is its own.
    supports_masking = False
    # The constructor's first argument where it is the size of the input: it may then be
    # None, and `deferred` finds it out.
    _input_size_name = None
    # The constructor's arguments that files of the first version do not have: see
    # `describe.describe`.
    _later_arguments = ()

    # Classes of this package that a saved model's file may name, by their names.
    in_files: ClassVar = {}
    _saved = True  # False, in a class's own body, of one that no file names
    _deferred = None  # `deferred.Unbuilt`, once that module has been imported

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        name = cls.__name__
        if (
            vars(cls).get("_saved", True)
            and cls.__module__.startswith("fastrnn.")
            and name[0] != "_"
        ):
            Module.in_files[name] = cls

    def __new__(cls, *args, **kwargs):
        # Here and not in __init__, so that a model need not call super().__init__().
        name = cls._input_size_name
        if name and (args[0] if args else kwargs.get(name, 0)) is None:
            return Module._deferred(cls, args, kwargs)
        self = super().__new__(cls)
        self.__dict__.update(
            _children={},
            _shapes={},
            _size=0,
            _dtype=None,
            _param={},
            _grad={},
            _buffers=None,
            _start=0,
            _table=None,
        )
        return self

    # -- children ---------------------------------------------------------------------

    _changeable: ClassVar = {"training": flag}
    _child_names = ()  # attributes that hold a module, and nothing else

    def _knows(self, name, value):
        if isinstance(value, Module) and type(self).forward is Module.forward:
            return True  # it computes nothing itself: a bundle of any parts
        return name in type(self)._child_names or super()._knows(name, value)

    def _to_set(self, name, value):
        if name in type(self)._child_names and not isinstance(value, Module):
            raise TypeError(
                f"{type(self).__name__}: {name} must be a Module, "
                f"got {type(value).__name__}"
            )
        return super()._to_set(name, value)

    def __setattr__(self, name, value):
        who, is_child = type(self).__name__, isinstance(value, Module)
        if is_child and "." in name:
            raise ValueError(
                f"{who}: a child's name must not contain a dot, got {name!r}"
            )
        if is_child and any(module is self for module in value.modules()):
            raise ValueError(f"{who}: {name} must not contain the module itself")
        super().__setattr__(name, value)
        if is_child:
            self._children[name] = value
        else:
            self._children.pop(name, None)

    def __delattr__(self, name):
        super().__delattr__(name)
        self._children.pop(name, None)

    def _walk(self):
        """(prefix of names, module) of this module and all below, each once."""
        if not self._children:
            return [("", self)]
        found, seen, waiting = [], set(), [("", self)]
        while waiting:
            prefix, module = waiting.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            found.append((prefix, module))
            for name in reversed(module._children):
                waiting.append((f"{prefix}{name}.", module._children[name]))
        return found

    def modules(self):
        """Iterate over this module and all below it, each once.

        Yields
        ------
        Module
        """
        for _, module in self._walk():
            yield module

    def _leaves(self):
        """(prefix, module) of the modules that have parameters, and their dtype."""
        leaves = [pair for pair in self._walk() if pair[1]._shapes]
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
    def dtype(self):
        """``"float32"`` or ``"float64"``: the type of all parameters."""
        if self._dtype and not self._children:
            return self._dtype
        return self._leaves()[1]

    # -- parameters and gradients -----------------------------------------------------

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
        self._bind(tuple(aligned(self._size, dtype, np.zeros) for _ in range(2)), 0)

    def _bind(self, buffers, start):
        """Let the views be those of a pair of buffers from element `start` on."""
        parameters, grads = self._buffers = buffers
        self._start = start
        if self._table is not None:
            self._table.forget_views()
        for name, shape in self._shapes.items():
            stop = start + math.prod(shape)
            self._param[name] = parameters[start:stop].reshape(shape)
            self._grad[name] = grads[start:stop].reshape(shape)
            start = stop

    def _flat(self):
        """Both flat arrays, once all modules below lie in one pair of buffers.

        A module that is part of a larger one finds its parts in the larger one's
        buffers, in order, and leaves them there.
        """
        if self._shapes and not self._children:  # a layer alone need not look around
            span = slice(self._start, self._start + self._size)
            return self._buffers[0][span], self._buffers[1][span]
        leaves, dtype = self._leaves()
        if not leaves:
            return np.empty(0, dtype), np.empty(0, dtype)
        first = leaves[0][1]
        start = stop = first._start
        together = True
        for _, leaf in leaves:
            together &= leaf._buffers is first._buffers and leaf._start == stop
            stop += leaf._size
        if not together:
            start, stop = 0, stop - start
            new = aligned(stop, dtype, np.zeros), aligned(stop, dtype, np.zeros)
            at = 0
            for _, leaf in leaves:
                old, old_start, size = leaf._buffers, leaf._start, leaf._size
                for into, source in zip(new, old, strict=True):
                    into[at : at + size] = source[old_start : old_start + size]
                leaf._bind(new, at)
                at += size
        parameters, grads = first._buffers
        return parameters[start:stop], grads[start:stop]

    def _settle(self):
        """Let rows of a sparse table take the optimiser's steps that they missed."""
        if self._table is not None:
            self._table.settle(self)

    def _handed_out(self, which, array, leaves):
        """A flat array or one leaf's, watched if it belongs to sparse tables."""
        tables = [leaf for leaf in leaves if leaf._table is not None]
        return sparse.handed_out(which, array, tables) if tables else array

    @property
    def flat_parameters(self):
        """All parameters: ndarray of shape (P,), contiguous, a view."""
        leaves = [leaf for _, leaf in self._leaves()[0]]
        return self._handed_out("_param", self._flat()[0], leaves)

    @property
    def flat_grads(self):
        """All gradients: ndarray of shape (P,), contiguous, a view."""
        leaves = [leaf for _, leaf in self._leaves()[0]]
        return self._handed_out("_grad", self._flat()[1], leaves)

    def _grads_in_use(self, frozen_too=True):
        """Flat gradients, and the spans of them that may not be zero; None for all."""
        grads = self._flat()[1]
        leaves = [leaf for _, leaf in self._leaves()[0]]
        return grads, sparse.spans(leaves, frozen_too)

    def _mark_all(self):
        """Any gradient may be other than zero from now on."""
        for module in self.modules():
            if module._table is not None:
                module._table.mark_all()

    def _views(self, which):
        self._flat()
        views = {
            prefix + name: self._handed_out(which, view, [leaf])
            for prefix, leaf in self._leaves()[0]
            for name, view in getattr(leaf, which).items()
        }
        return MappingProxyType(views)

    @property
    def parameters(self):
        """Mapping of names to arrays that are views into `flat_parameters`."""
        return self._views("_param")

    @property
    def grads(self):
        """Mapping of parameter names to gradients, views into `flat_grads`."""
        return self._views("_grad")

    def zero_grad(self):
        """Set all gradients to zero."""
        grads, spans = self._grads_in_use()
        core.kernels(grads.dtype).clear(threads.for_kernel(), grads, spans)
        for module in self.modules():
            if module._table is not None:
                module._table.cleared()

    # -- modes and calls --------------------------------------------------------------

    def train(self, mode=True):
        """Keep what backward needs from now on, here and in all modules below.

        Parameters
        ----------
        mode : bool
            False does what `eval` does.

        Returns
        -------
        Module
            The module itself.
        """
        mode = checks.flag(f"{type(self).__name__}.train", "mode", mode)
        for module in self.modules():
            # Past __setattr__: this is in every prediction.
            module.__dict__["training"] = mode
        return self

    def eval(self):
        """Keep nothing for backward and drop nothing out, here and below.

        Returns
        -------
        Module
            The module itself.
        """
        return self.train(False)

    @contextlib.contextmanager
    def _evaluating(self):
        """Eval mode within the body; then each module's own mode and context again."""
        before = [(m, m.training, m.context) for m in self.modules()]
        self.eval()
        try:
            yield
        finally:
            for module, training, context in before:
                module.__dict__.update(training=training, context=context)

    def __call__(self, *args, **kwargs):
        return self.forward(*args, **kwargs)

    def forward(self, *args, **kwargs):
        """Compute the module's output; a subclass says how."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    def backward(self, *args, **kwargs):
        """Accumulate gradients and return the input's; a subclass says how."""
        raise NotImplementedError(f"{type(self).__name__} does not define backward")

    def ends_in(self):
        """The part whose output is this module's output, or None where it is not known.

        A model of one's own may define it, so that losses know whether the output is
        logits or probabilities; itself if it is a chain of layers to iterate over.
        """
        return

    def compute_mask(self, x, mask=None):
        """The mask of the output: see `Masking`.

        Parameters
        ----------
        x : array_like
            Input of the layer.
        mask : ndarray of bool, optional
            Mask of `x`, laid out like its first two axes.

        Returns
        -------
        ndarray of bool, or None
            `mask`, if the class has ``supports_masking = True``; a class may define
            this method instead. Else None, with a warning where there is a mask: the
            layers that follow, loss and metrics count all steps then.
        """
        if mask is None or self.supports_masking:
            return mask
        name = type(self).__name__
        warnings.warn(
            f"{name}: a mask ends here; supports_masking = True in the class hands it "
            "on, and compute_mask says what becomes of it",
            stacklevel=2,
        )
        return None

    def _mask_arguments(self, mask):
        """What `forward` is given for a mask laid out like x, if it takes one."""
        return {"mask": mask}

    def _keep(self, saved):
        """Put `saved` aside for backward if in training mode."""
        # Past __setattr__, which looks for children: this is in every call.
        self.__dict__["context"] = Context(self, saved) if self.training else None

    def _context(self, context=None):
        """The context for a backward: the one given, else the last one.

        The caller reads ``.saved`` and, once nothing can fail any more, calls
        ``.release()``, then adds to its gradients; what may fail after that is in the
        block of an `Attempt`.
        """
        who = f"{type(self).__name__}.backward"
        if context is None:
            context = self.context if self.training else None
        if context is None:
            raise RuntimeError(
                f"{type(self).__name__}: backward needs a forward in training mode"
            )
        if not isinstance(context, Context):
            raise TypeError(
                f"{who}: context must be one that forward kept, "
                f"got {type(context).__name__}"
            )
        if context.owner is not self:
            raise ValueError(f"{who}: context must come from this layer's own forward")
        if context.spent:
            raise RuntimeError(
                f"{who}: context was already used; run forward again before a second "
                "backward"
            )
        return context

    # -- copies and files -------------------------------------------------------------

    def __getstate__(self):
        self._settle()
        state = self.__dict__.copy()
        for name in ("_param", "_grad", "_buffers", "_start", "context"):
            state.pop(name, None)
        state.update(_children=self._children.copy(), _shapes=self._shapes.copy())
        if self._table is not None:
            state["_table"] = self._table.copy()
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

    def state_dict(self):
        """Copies of all parameters.

        Returns
        -------
        dict of str to ndarray
            The names are those of `parameters`, and of a `torch.nn` module of the
            same make.
        """
        return {name: view.copy() for name, view in self.parameters.items()}

    def load_state_dict(self, state_dict, strict=True):
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
        views = self.parameters
        for name, value in values.items():
            views[name][...] = value

    def _values(self, who, state_dict, strict=True):
        """Copies of the values in a state dict, once they are known to fit."""
        if not isinstance(state_dict, Mapping):
            raise TypeError(
                f"{who}: state_dict must be a mapping of names to arrays, "
                f"got {type(state_dict).__name__}"
            )
        strict = checks.flag(who, "strict", strict)
        views = self.parameters
        problems = []
        if strict:
            missing = [name for name in views if name not in state_dict]
            unexpected = [str(name) for name in state_dict if name not in views]
            problems += [f"missing {', '.join(missing)}"] if missing else []
            problems += [f"unexpected {', '.join(unexpected)}"] if unexpected else []
        values = {}
        for name, view in views.items():
            if name in state_dict:
                # A copy: the values given may be views of what is written below.
                value = checks.float_array(who, name, state_dict[name], view.dtype)
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

    def save(self, path):
        """Write all parameters to a safetensors file, all of it or nothing.

        Parameters
        ----------
        path : path-like
            File to write; one that exists is replaced at the end, in one step.
        """
        writing.write_atomically(path, safetensors.numpy.save(self.state_dict()))

    def load(self, path):
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

    # -- text -------------------------------------------------------------------------

    def extra_repr(self):
        """The arguments that `repr` shows; a layer says which."""
        return ""

    def __repr__(self):
        head = f"{type(self).__name__}({self.extra_repr()}"
        if not self._children:
            return head + ")"
        lines = [
            f"\n  ({name}): " + repr(child).replace("\n", "\n  ")
            for name, child in self._children.items()
        ]
        return head + "".join(lines) + "\n)"
