# SPDX-License-Identifier: BSD-3-Clause
"""`explain`: whether fastrnn's kernels or PyTorch's operators run a call, and why."""

import copy
import sys
from typing import Any, NamedTuple

import torch
from torch.nn.utils.rnn import PackedSequence

from fastrnn.torch import _autocast, _classes, _compile, _path
from fastrnn.torch.layers import Layer

_CELL = torch.nn.modules.rnn.RNNCellBase
_IN_SHARDS = (
    "fully_shard gathers this layer's weights only while the model runs that it was "
    "called with: explain that model"
)


class Path(NamedTuple):
    """The implementation that runs a call, and the reason for it.

    Attributes
    ----------
    name : {"fastrnn", "PyTorch"}
        "fastrnn" for the kernels, "PyTorch" for PyTorch's own operators.
    reason : str
    """

    name: str
    reason: str

    def __str__(self):
        return f"{self.name}: {self.reason}"


class Paths(dict):
    """The `Path` of every recurrent layer and cell in a model, by the layer's name.

    Its ``str`` has a line for each layer.
    """

    def __str__(self):
        return "\n".join(f"{name}: {path}" for name, path in self.items())


def explain(module: torch.nn.Module, input: Any, hx: Any = None) -> Path:
    """Say which implementation would run ``module(input, hx)`` now, and why.

    Parameters
    ----------
    module : torch.nn.Module
        A layer or a cell, fastrnn's (also of `layers`) or PyTorch's, or a model that
        holds some. It may have been returned by `torch.compile`.
    input : Tensor or PackedSequence
    hx : Tensor or pair of Tensor, optional

    Returns
    -------
    Path
        For a layer or a cell. Its ``str`` is one line.
    dict of str to Path
        For a model: the path of every recurrent layer and cell inside, by the name of
        the layer. Its ``str`` has a line for each.

    Raises
    ------
    TypeError
        If `module` neither is nor holds a recurrent layer or cell, or if it holds some
        and has no forward, as a `torch.nn.ModuleList`.

    Notes
    -----
    For a layer or a cell nothing is computed. For a model, `explain` runs a copy of the
    model once, because the inputs of its layers are known only in a run. The buffers of
    the model itself and the state of PyTorch's random numbers stay as they are. A model
    that Python cannot copy is run itself. Where a model calls a layer several times in
    different ways, the path has the reasons of all calls.

    The answer is for the modes that are active now (autocast, torch.func). Tracing,
    `torch.export` and ONNX export record PyTorch's own operators, and PyTorch's own
    operators compute second derivatives.

    Examples
    --------
    >>> import torch, fastrnn.torch
    >>> gru = fastrnn.torch.GRU(3, 5)
    >>> print(explain(gru, torch.randn(7, 2, 3)))
    fastrnn: float32 on the CPU
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), gru)
    >>> print(explain(model, torch.randn(7, 2, 4)))
    1: fastrnn: float32 on the CPU
    >>> print(explain(gru.half(), torch.randn(7, 2, 3).half()))
    PyTorch: the input is torch.float16
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(
            "explain: module must be a recurrent layer or cell, or a model that holds "
            f"some, got {type(module).__name__}"
        )
    inner, compiled = _compiled_from(module)
    if isinstance(inner, Layer):
        return _explain_layer(inner, input)
    if not isinstance(inner, _classes.BASES):
        return _explain_inside(module, input, hx)
    if _classes.is_sharded(inner):
        # Not by a run: the first module that runs is the root of all for fully_shard.
        inner.unshard()
        try:
            return _explain(inner, input, hx, compiled)
        finally:
            inner.reshard()
    path = _explain(inner, input, hx, compiled)
    if path.name == "PyTorch" and _classes.is_in_shards(inner):
        path = Path(path.name, f"{path.reason}; {_IN_SHARDS}")
    return path


def _compiled_from(module):
    """The module that a module was compiled from, and whether it was compiled.

    The first is `module` itself unless it is a wrapper that `torch.compile` returned.
    """
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    if dynamo is not None and isinstance(module, dynamo.OptimizedModule):
        return module._orig_mod, True
    return module, getattr(module, "_compiled_call_impl", None) is not None


def _explain(module, input, hx=None, compiled=False):
    """The `Path` of a call of one layer or cell."""
    kind = _classes.class_of(module).__name__
    where = ""
    if not isinstance(module, tuple(_classes.THEIRS)):
        return Path("PyTorch", f"{kind} is not one of fastrnn.torch's modules")
    if reason := _classes.own_forward(module):
        if not _classes.calls_super(module):
            return Path("PyTorch", reason)
        where = f", where the forward of {kind} calls super().forward"
    if problem := _path.must_be_recorded():
        return Path("PyTorch", problem)
    is_cell, options = isinstance(module, _CELL), ()
    if autocast := torch.is_autocast_enabled("cpu"):
        options = _autocast.dtypes(), torch.float32
    if is_cell:
        weights, problem_of = _path.cell_weights(module), _path.cell_problem
    else:
        weights, problem_of = _path.layers_weights(module), _path.layers_problem
    half = not autocast and _autocast.are_half(weights)
    if half:
        options = ((torch.bfloat16,),)
    if problem := problem_of(module, input, hx, weights, *options):
        return Path("PyTorch", problem)
    if compiled and not isinstance(input, PackedSequence):
        if is_cell or (not (autocast or half) and _compile.is_one_step(module, input)):
            return Path(
                "PyTorch", "the compiler fuses a single step with what is around it"
            )
        where += "" if autocast or half else " as one operator of compiled code"
    if autocast or half:
        compute = _autocast.compute_of(module, input, hx, weights)
        if compute == "PyTorch":
            return Path("PyTorch", _autocast.why_torch(weights))
        where += " inside autocast" if autocast else ""
        if compute == "bfloat16-fast" or not half:
            where += _products(compute)
    dtype = str(weights[0].dtype).removeprefix("torch.")
    return Path("fastrnn", f"{dtype} on the CPU{where}")


def _explain_layer(module, input):
    """The `Path` of a call of one of fastrnn's own layers, which PyTorch has not."""
    layer = module._engine.layer
    x = input.data if isinstance(input, PackedSequence) else input
    dtype = None if torch.is_autocast_enabled("cpu") else module._engine.dtype
    problem = _path.transform_problem() or _path.tensor_problem("the input", x, dtype)
    if problem:
        return Path("fastrnn", f"the call would raise an error: {problem}")
    weights = "" if layer._quantized is None else f" with weights of {layer._quantized}"
    how = weights or _products(layer.compute)
    return Path("fastrnn", f"{layer.dtype} on the CPU{how}")


def _products(compute):
    """What to add about products that round their operands."""
    if compute is None:
        return ""
    on_tiles = compute == "bfloat16-fast" and _autocast.has_tiles()
    return ", products of bfloat16" + (" on AMX" if on_tiles else "")


def _explain_inside(model, input, hx):
    """The `Paths` of the layers in a model, found by running a copy of the model."""
    names, compiled = {}, {}
    for name, module in model.named_modules():
        parent = name.rpartition(".")[0]
        is_compiled = _compiled_from(module)[1] or compiled.get(parent, False)
        compiled[name] = is_compiled
        if isinstance(module, (*_classes.BASES, Layer)):
            names[name] = name.removeprefix("_orig_mod.").replace("._orig_mod", "")
    if not names:
        raise TypeError(
            "explain: module must be a recurrent layer or cell, or a model that holds "
            f"some, got {type(model).__name__}"
        )
    if type(_compiled_from(model)[0]).forward is torch.nn.Module.forward:
        raise TypeError(
            f"explain: module must have a forward, which a {type(model).__name__} has "
            f"not; explain what it holds: {', '.join(names.values())}"
        )
    seen, hooks = {name: [] for name in names}, []
    try:
        twin = copy.deepcopy(model)
    # A tensor that is a result of autograd raises RuntimeError, a lock TypeError, and a
    # sharded module AssertionError.
    except (RuntimeError, TypeError, AssertionError):
        twin = model
    for name in names:

        def look(module, args, kwargs, name=name):
            path = _explain_call(module, args, kwargs, compiled[name])
            if path not in seen[name]:
                seen[name].append(path)

        layer = twin.get_submodule(name)
        hooks.append(layer.register_forward_pre_hook(look, with_kwargs=True))
    states = () if hx is None else (hx,)
    try:
        with (
            torch.random.fork_rng(devices=[]),
            torch.compiler.set_stance("force_eager"),
        ):
            twin(input, *states)
    finally:
        for hook in hooks:
            hook.remove()
        for module in filter(_classes.is_sharded, twin.modules()):
            module.reshard()  # what a backward would do, which does not come
    return Paths((names[name], _together(paths)) for name, paths in seen.items())


def _explain_call(module, args, kwargs, compiled):
    """The `Path` of a call, from the arguments that a forward pre-hook is given."""
    given = dict(zip(("input", "hx"), args, strict=False)) | kwargs
    if isinstance(module, Layer):
        return _explain_layer(module, given.get("input"))
    if set(given) <= {"input", "hx"}:
        return _explain(module, compiled=compiled, **given)
    # The user's own forward may have other arguments, which do not say with what it
    # will call super().forward.
    kind = _classes.class_of(module).__name__
    if _classes.calls_super(module) and isinstance(module, tuple(_classes.THEIRS)):
        return Path("fastrnn", f"where the forward of {kind} calls super().forward")
    return Path("PyTorch", _classes.own_forward(module))


def _together(paths):
    """One `Path` for all the paths that the calls of one layer took."""
    if not paths:
        return Path("PyTorch", "it was not called")
    if len(paths) == 1:
        return paths[0]
    name = "PyTorch" if any(path.name == "PyTorch" for path in paths) else "fastrnn"
    return Path(name, "; and ".join(map(str, paths)))
