# SPDX-License-Identifier: BSD-3-Clause
"""Which class of ours stands for a class of PyTorch's, or for one derived from it."""

import copy
import types
import weakref

import torch
from torch.nn.utils import parametrize

from fastrnn.torch.cells import GRUCell, LSTMCell, RNNCell
from fastrnn.torch.modules import GRU, LSTM, RNN

OURS = {
    torch.nn.RNN: RNN,
    torch.nn.LSTM: LSTM,
    torch.nn.GRU: GRU,
    torch.nn.RNNCell: RNNCell,
    torch.nn.LSTMCell: LSTMCell,
    torch.nn.GRUCell: GRUCell,
}
THEIRS = {ours: theirs for theirs, ours in OURS.items()}
BASES = (torch.nn.RNNBase, torch.nn.modules.rnn.RNNCellBase)
# What PyTorch's forward calls or reads of its object and ours does without: a derived
# class that changes one of these changes the results.
_READ = (
    "_flat_weights",
    "_flat_weights_names",
    "_update_flat_weights",
    "_weights_have_changed",
    "check_forward_args",
    "check_hidden_size",
    "check_input",
    "get_expected_cell_size",
    "get_expected_hidden_size",
    "permute_hidden",
)


class Served:
    """Second base of a class that is a user's own class on our kernels.

    Such a class derives from the user's, this one and ours, in this order: methods of
    the user's class come first, and what they reach by ``super()`` is ours. Python lets
    an object have another class only where both are laid out alike, and for that the
    first base counts.
    """

    def __reduce_ex__(self, protocol):
        """Copy and pickle by the user's class: this one has no name to be found by."""
        make, arguments, *rest = super().__reduce_ex__(max(protocol, 2))
        own = own_class(type(self))
        parts = [own if part is type(self) else part for part in (make, *arguments)]
        return _make, (own, *parts), *rest

    def __prepare_scriptable__(self):
        """Give `torch.jit.script`, which reads sources, the user's class."""
        twin = copy.copy(self)
        twin.__class__ = own_class(type(self))
        return twin


def _make(own, *parts):
    """What `Served.__reduce_ex__` has taken apart."""
    make, *arguments = [served(own) if part is own else part for part in parts]
    return make(*arguments)


_served = weakref.WeakKeyDictionary()  # a user's class: a weak reference to ours of it


def served(own):
    """The class that is `own`, a user's class derived from PyTorch's, on our kernels.

    Raises
    ------
    TypeError
        If the user's metaclass does not allow it.
    """
    made = _served[own]() if own in _served else None
    if made is None:
        names = {
            name: getattr(own, name)
            for name in ("__module__", "__qualname__", "__doc__")
        }
        bases = (own, Served, OURS[torch_class(own)])
        made = types.new_class(
            own.__name__, bases, exec_body=lambda ns: ns.update(names)
        )
        _served[own] = weakref.ref(made)
    return made


def own_class(cls):
    """The user's class behind a class of `Served`; None behind any other."""
    for base in cls.__mro__:
        if base.__bases__[1:2] == (Served,):
            return base.__bases__[0]
    return None


def torch_class(cls):
    """PyTorch's class of layers or cells that `cls` is or derives from, or None."""
    return next((base for base in cls.__mro__ if base in OURS), None)


def class_of(module):
    """A module's class, without what a parametrization has put before it."""
    # A parametrization gives a module a class of its own, derived from its class.
    wrapped = parametrize.is_parametrized(module)
    return type(module).__bases__[0] if wrapped else type(module)


def set_class(module, cls):
    """Give a module another class, and keep its parametrizations."""
    if parametrize.is_parametrized(module):
        # Not by changing the bases of the class that there is: copies share it.
        old = type(module)
        content = {
            name: value
            for name, value in vars(old).items()
            if name not in ("__dict__", "__weakref__")
        }
        cls = types.new_class(
            old.__name__, (cls,), exec_body=lambda ns: ns.update(content)
        )
    module.__class__ = cls


def own_forward(module):
    """Say in what way a module's forward is neither PyTorch's nor ours, or None."""
    if "forward" in vars(module):
        return "its forward was set on the object"
    cls = class_of(module)
    home = getattr(cls.forward, "__module__", None) or ""
    if home.startswith(("fastrnn.torch.", "torch.nn.")):
        return None
    return f"{cls.__name__} has a forward of its own"


def calls_super(module):
    """Whether a forward of the module's own class goes on to ``super().forward``."""
    if "forward" in vars(module):
        return False
    code = getattr(class_of(module).forward, "__code__", None)
    return code is not None and {"super", "forward"} <= set(code.co_names)


def problem(module):
    """Why a module of PyTorch's bases cannot have a class of ours, or None.

    A forward of the user's own that goes on to ``super().forward`` comes to ours.
    """
    cls = class_of(module)
    theirs = torch_class(cls)
    if theirs is None:
        return f"{cls.__name__} is a class of its own"
    if (reason := own_forward(module)) and not calls_super(module):
        return reason
    for base in cls.__mro__[: cls.__mro__.index(theirs)]:
        for name in _READ:
            if name in vars(base):
                return f"{base.__name__} has a {name} of its own"
    return None
