# SPDX-License-Identifier: BSD-3-Clause
"""`Module`: what layers and models have in common: parts, modes, forward, backward."""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING, Any, ClassVar, Self

from numpy.typing import ArrayLike

from fastrnn.nn import by_units
from fastrnn.nn.attributes import flag
from fastrnn.nn.context import Context
from fastrnn.nn.observing import observers, tell
from fastrnn.nn.trainable import Trainable
from fastrnn.util import checks
from fastrnn.util.typing import Mask


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

    training: bool = True
    context: Context | None = None
    # Whether an output has the steps of its input, so that their mask is its own.
    supports_masking: bool = False
    # The constructor's first argument where it is the size of the input: it may then be
    # None, and `deferred` finds it out.
    _input_size_name = None
    _input_size_axis = -1  # where the first parameter has it
    # Its number of units, of a class that can be made Keras's way: see `by_units`. The
    # defaults that such a call has.
    _units_name = None
    _keras_defaults: ClassVar = {}
    _cell_functions: ClassVar = ()  # arguments that are functions of a cell
    # The constructor's arguments that files of the first version do not have: see
    # `describe.describe`.
    _later_arguments = ()

    # Classes of this package that a saved model's file may name, by their names.
    in_files: ClassVar[dict[str, type[Module]]] = {}
    _saved = True  # False, in a class's own body, of one that no file names
    # Whether forwards in training mode change the parameters, as of moving means.
    _written_by_forward = False
    _deferred = None  # `deferred.Unbuilt`, once that module has been imported

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        name = cls.__name__
        if (
            vars(cls).get("_saved", True)
            and cls.__module__.startswith("fastrnn.")
            and name[0] != "_"
        ):
            Module.in_files[name] = cls

    if not TYPE_CHECKING:  # a checker shall go by __init__

        def __new__(cls, *args: Any, **kwargs: Any) -> Self:
            name = cls._input_size_name
            if name:
                by_keras = by_units.arguments(cls, args, kwargs)
                if by_keras is not None:
                    return Module._deferred(cls, (), by_keras)
                if (args[0] if args else kwargs.get(name, 0)) is None:
                    return Module._deferred(cls, args, kwargs)
            return super().__new__(cls)

    # Names of the children that forward gives lengths, so that they leave out steps.
    _given_lengths: ClassVar[tuple[str, ...]] = ()

    _changeable: ClassVar = {"training": flag}

    def _knows(self, name, value):
        if isinstance(value, Module) and type(self).forward is Module.forward:
            return True  # it computes nothing itself: a bundle of any parts
        return super()._knows(name, value)

    def __getstate__(self):
        state = super().__getstate__()
        state.pop("context", None)
        return state

    # -- modes and calls --------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
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

    def eval(self) -> Self:
        """Keep nothing for backward and drop nothing out, here and below.

        Returns
        -------
        Module
            The module itself.
        """
        return self.train(False)

    @contextlib.contextmanager
    def _training(self):
        """Training mode within the body; then each module's own mode again."""
        before = [(module, module.training) for module in self.modules()]
        self.train()
        try:
            yield
        finally:
            for module, mode in before:
                module.__dict__["training"] = mode

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

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the module's output; a subclass says how."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward")

    if TYPE_CHECKING:  # each class says so of its own forward
        __call__ = forward
    else:

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            y = self.forward(*args, **kwargs)
            if observers:
                tell(self, y)
            return y

    def backward(self, *args: Any, **kwargs: Any) -> Any:
        """Accumulate gradients and return the input's; a subclass says how."""
        raise NotImplementedError(f"{type(self).__name__} does not define backward")

    def ends_in(self) -> Module | tuple[Module, ...] | None:
        """The part whose output is this module's output, or None where it is not known.

        A model of one's own may define it, so that losses know whether the output is
        logits or probabilities; itself if it is a chain of layers to iterate over, or a
        tuple of layers, the last ones of such a chain.
        """
        return

    def compute_mask(self, x: ArrayLike, mask: ArrayLike | None = None) -> Mask:
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
