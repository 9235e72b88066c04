# SPDX-License-Identifier: BSD-3-Clause
"""Calls of layers that `torch.fx` traces: each becomes one node of the graph.

A tracer of torch.fx records a call of a *leaf* module as one node, and traces into the
forward of any other module. fastrnn's forward reads sizes and addresses of tensors,
which the tracer's proxies do not have, so fastrnn's modules have to be leaves.
"""

import functools

import torch.fx


def make_leaves(*classes):
    """Let tracers of torch.fx take modules of these classes as leaves.

    A tracer asks its own method `is_leaf_module`, and the only documented way to change
    the answer is to derive a tracer. But tracers are made by users and their tools,
    mostly by `torch.fx.symbolic_trace`, which makes a plain `torch.fx.Tracer`. The
    method of that class takes a module for a leaf if the module's class is defined in
    torch.nn. So the method is replaced here; its answer for all other classes is what
    it was.
    """
    original = torch.fx.Tracer.is_leaf_module

    @functools.wraps(original)
    def is_leaf_module(self, m, module_qualified_name):
        return type(m) in classes or original(self, m, module_qualified_name)

    torch.fx.Tracer.is_leaf_module = is_leaf_module


def _tracer(input, hx):
    """The tracer of torch.fx that made these arguments, or None.

    A tracer calls the modules that it traces with its own `torch.fx.Proxy` objects
    instead of tensors, and each of these knows the tracer.
    """
    for part in (input, *(hx if isinstance(hx, (tuple, list)) else (hx,))):
        if isinstance(part, torch.fx.Proxy):
            return part.tracer
    return None


def record(module, input, hx):
    """Record a call as one node although the tracer does not take the module as a leaf.

    A derived tracer may have an `is_leaf_module` of its own that traces into fastrnn's
    modules. Its proxies then arrive in forward, which records the call itself.

    Returns
    -------
    torch.fx.Proxy or None
        None where no tracer is at work. Also None where a node cannot stand for the
        call: because the module is itself the root of what is traced, or because the
        user's class has a forward that calls this one by ``super()``. PyTorch's forward
        then raises the error that it raises for its own modules.

    Raises
    ------
    RuntimeError
        If the module has forward hooks. They have been traced by now, and the node of
        the module would run them a second time.
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
