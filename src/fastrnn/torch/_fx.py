# SPDX-License-Identifier: BSD-3-Clause
"""What a call is while `torch.fx` traces symbolically: one node, as PyTorch's is."""

import functools

import torch.fx


def make_leaves(*classes):
    """Let tracers take modules of these classes as wholes, as they do torch.nn's."""
    original = torch.fx.Tracer.is_leaf_module

    @functools.wraps(original)
    def is_leaf_module(self, m, module_qualified_name):
        return type(m) in classes or original(self, m, module_qualified_name)

    torch.fx.Tracer.is_leaf_module = is_leaf_module


def _tracer(input, hx):
    """Who traces a call with these arguments, or None."""
    for part in (input, *(hx if isinstance(hx, (tuple, list)) else (hx,))):
        if isinstance(part, torch.fx.Proxy):
            return part.tracer
    return None


def record(module, input, hx):
    """The node of a call in the graph of a tracer with a rule of its own for leaves.

    Returns
    -------
    torch.fx.Proxy or None
        None where nobody traces, or where there is no such node, and PyTorch says so:
        the module is all that is traced, or has a forward of its own that calls ours.

    Raises
    ------
    RuntimeError
        If the module has hooks: they have run already, and would run again with it.
    """
    tracer = _tracer(input, hx)
    if tracer is None or tracer.root is module:
        return None
    if not type(module).forward.__module__.startswith("fastrnn.torch."):
        return None
    path = tracer.path_of_module(module)
    if module._forward_hooks or module._forward_pre_hooks:
        raise RuntimeError(
            f"fastrnn.torch: {type(tracer).__name__} traces into {path}, which has "
            "forward hooks; its is_leaf_module must return True for it"
        )
    return tracer.create_proxy("call_module", path, (input, hx), {})
