# SPDX-License-Identifier: BSD-3-Clause
"""Which class of fastrnn replaces a class of PyTorch, or a class derived from it."""

import copy
import sys
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
# Methods and attributes that PyTorch's forward uses of its module, and the forward of
# fastrnn's classes does not. A derived class that overrides one of them changes what
# PyTorch's forward computes, so such a class cannot run on the kernels.
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
    """Second base of the classes that put a user's class on fastrnn's kernels.

    Such a class derives from the user's class, from `Served` and from fastrnn's class,
    in this order. The methods of the user's class come first, and ``super()`` in these
    methods reaches the methods of fastrnn's class. The user's class is also the first
    base because Python lets an object change its class only if both classes lay out
    their objects alike, and the first base decides the layout.
    """

    def __reduce_ex__(self, protocol):
        """Copy and pickle by the name of the user's class.

        The class of the object itself is made at run time, and no module has it under a
        name by which pickle could find it.
        """
        make, arguments, *rest = super().__reduce_ex__(max(protocol, 2))
        own = own_class(type(self))
        parts = [own if part is type(self) else part for part in (make, *arguments)]
        return _make, (own, *parts), *rest

    def __prepare_scriptable__(self):
        """A copy in the user's class, whose source `torch.jit.script` can read."""
        twin = copy.copy(self)
        twin.__class__ = own_class(type(self))
        return twin


def _make(own, *parts):
    """Rebuild an object from what `Served.__reduce_ex__` returned."""
    make, *arguments = [served(own) if part is own else part for part in parts]
    return make(*arguments)


# From a user's class to a weak reference to the class of `Served` that was made for it.
_served = weakref.WeakKeyDictionary()


def served(own):
    """The class that runs a user's class on the kernels, made at the first request.

    Parameters
    ----------
    own : type
        The user's class, derived from a recurrent class of PyTorch.

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
    """The user's class that a class made by `served` puts on the kernels, or None."""
    for base in cls.__mro__:
        if base.__bases__[1:2] == (Served,):
            return base.__bases__[0]
    return None


def torch_class(cls):
    """The recurrent class of PyTorch that `cls` is or derives from, or None."""
    return next((base for base in cls.__mro__ if base in OURS), None)


def _wrapped(cls):
    """The class from which a tool of PyTorch derived `cls` for its modules, or None.

    A parametrization derives a class from a module's class alone. `fully_shard` and
    `replicate` derive it from a class of torch.distributed, which is no module, and
    from the module's class.
    """
    *others, last = cls.__bases__
    if not others:
        return last if cls.__module__ == parametrize.__name__ else None
    of_tool = others[0].__module__.startswith("torch.distributed.")
    is_wrapper = of_tool and not issubclass(others[0], torch.nn.Module)
    return last if is_wrapper and len(others) == 1 else None


def class_of(module):
    """The class that a module had before tools of PyTorch derived others from it."""
    cls = type(module)
    while (inner := _wrapped(cls)) is not None:
        cls = inner
    return cls


def set_class(module, cls):
    """Give a module another class, and keep what tools of PyTorch derived from it.

    Assigning to ``__class__`` is Python's documented way to do this. PyTorch has no
    function for it, and does the same where it parametrizes or shards a module. Every
    other way to replace a module makes a new object: the references to the old one that
    the user holds, hooks and the optimiser's view of the model would be left behind.
    """
    module.__class__ = _wrap_as(type(module), cls)


def _wrap_as(old, cls):
    """The class `cls`, or one derived from it as the class `old` is by PyTorch's tools.

    Modules may share `old`, as a copy shares the class of a parametrized module, so its
    bases must not be changed: the module gets a new class with the same attributes.
    """
    inner = _wrapped(old)
    if inner is None:
        return cls
    content = {
        name: value
        for name, value in vars(old).items()
        if name not in ("__dict__", "__weakref__")
    }
    bases = (*old.__bases__[:-1], _wrap_as(inner, cls))
    return types.new_class(old.__name__, bases, exec_body=lambda ns: ns.update(content))


def is_sharded(module):
    """Whether `torch.distributed.fsdp.fully_shard` was called with this very module.

    Such a module has its whole weights only while its forward or backward runs.
    """
    # Where nobody has imported this, nobody has sharded; importing it takes a second.
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return isinstance(module, getattr(fsdp, "FSDPModule", ()))


def is_in_shards(module):
    """Whether `fully_shard` shards the weights of this module, as its own or a part."""
    return getattr(module, "_is_fsdp_managed_module", False)


def own_forward(module):
    """How a module got a forward that is neither PyTorch's nor fastrnn's, or None."""
    if "forward" in vars(module):
        return "its forward was set on the object"
    cls = class_of(module)
    home = getattr(cls.forward, "__module__", None) or ""
    if home.startswith(("fastrnn.torch.", "torch.nn.")):
        return None
    return f"{cls.__name__} has a forward of its own"


def calls_super(module):
    """Whether the forward of the module's class calls ``super().forward``."""
    if "forward" in vars(module):
        return False
    code = getattr(class_of(module).forward, "__code__", None)
    return code is not None and {"super", "forward"} <= set(code.co_names)


def problem(module):
    """Why a module cannot get a class that runs on fastrnn's kernels, or None.

    A user's class may have a forward of its own if that calls ``super().forward``: in
    the new class, the call reaches the forward of fastrnn's class.

    Parameters
    ----------
    module : torch.nn.RNNBase or torch.nn.modules.rnn.RNNCellBase
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
