# SPDX-License-Identifier: BSD-3-Clause
"""The kernels as one differentiable operation of TensorFlow.

In a graph the operation is `tf.numpy_function`, whose arguments are NumPy's views of
TensorFlow's memory, and whose results become tensors without a copy where they start on
a cache line. Eagerly, the same functions run on views of the tensors, and no graph is
made. Backward is an operation of its own, which reads what forward has read and put
out, and the tape. So a graph may hold them, or run forward again, as it likes.
"""

import math
import sys

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import record
from tensorflow.python.ops import control_flow_util

from fastrnn.keras.drop_in import tensorflow_again
from fastrnn.native import memory
from fastrnn.recurrent.pure import recurrence

SUPPORTS_JIT = False
SHOWS_INITIAL_STATE = False
# The place of the mask among the inputs that may be missing.
_MASK = 3
# Modules that trace a model to write it to a file, from which another process is to run
# it, without this package.
_EXPORTERS = (
    "keras.src.export.",
    "tensorflow.lite.",
    "tensorflow.python.saved_model.",
    "tf2onnx.",
)
# Strategies whose graphs do not run in this process.
_ELSEWHERE = (
    tf.distribute.TPUStrategy,
    tf.distribute.ParameterServerStrategy,
    tf.distribute.experimental.ParameterServerStrategy,
)


def problem(layer, x, states, mask):
    """Why the kernels cannot run a call on this backend, or None; see `layers`."""
    for what, tensor in (("the input", x), ("the mask", mask)):
        if not isinstance(tensor, tf.Tensor | tf.Variable | None):
            return f"{what} is a {type(tensor).__name__}"
    if tf.config.list_logical_devices("GPU"):
        return "TensorFlow has a GPU"
    strategy = tf.distribute.get_strategy()
    if isinstance(strategy, _ELSEWHERE):
        return f"{type(strategy).__name__} runs graphs in other processes"
    if tf.executing_eagerly():
        return None
    if control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        return "jit_compile=True: XLA compiles the call"
    if exporter := _exporter():
        return f"{exporter} traces the call, for a file that runs without fastrnn"
    return None


def _exporter():
    """The module that traces a call for a file, if one of the callers is such."""
    frame = sys._getframe()
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.startswith(_EXPORTERS):
            return name
        frame = frame.f_back
    return None


def run(form, x, h0, c0, weights, mask, hold, site):
    """Run one layer in one direction, differentiably.

    Parameters
    ----------
    form : fastrnn.recurrent.pure.Form
    x : Tensor, shape (B, T, I)
    h0, c0 : Tensor, shape (B, H), or None
        None is zero; `c0` is None but for an LSTM.
    weights : sequence of Tensor
        In PyTorch's layout and order of gates: `weight_ih`, `weight_hh`, and with a
        bias `bias_ih`, `bias_hh`.
    mask : Tensor of bool, shape (B, T), or None
        False at steps that are left out.
    hold : bool
        Whether y repeats the output before at such steps; else it is zero there.
    site : hashable
        Whose weights these are.

    Returns
    -------
    y : Tensor, shape (B, T, H)
    h_n, c_n : Tensor, shape (B, H)
        `c_n` is None but for an LSTM.
    """
    call = _Call(form, hold, site, x, h0, c0, mask)
    given = [t for t in (x, h0, c0, mask) if t is not None]
    # Of a variable its value now: a step may write to it before backward reads.
    inputs = [tf.convert_to_tensor(t) for t in (*given, *weights)]
    y, h_n, c_n = (*_differentiable(call.run)(*inputs), None)[:3]
    return y, h_n, c_n


def _differentiable(function):
    """A function of tensors that returns their results and the function of gradients.

    TensorFlow copies the graphs of branches and loops. In a copy, gradients of a
    function find the tensors of forward, which those of tensors do not.
    """
    function = tf.custom_gradient(function)
    if tf.executing_eagerly():
        return function
    return tf.function(function, autograph=False)


class _Call:
    """One call of `run`, as functions of NumPy's arrays and of tensors.

    Its inputs, arrays or tensors, come in one order: x, h0, c0 and mask as far as there
    are any, then the weights. Sequences are (B, T, width) for TensorFlow; the kernels
    read and write them as (T, B, width), by their strides.

    Parameters
    ----------
    form, hold, site
        As of `run`.
    x, h0, c0, mask : Tensor or None
        The sizes of x count, and which of the others there are.

    Attributes
    ----------
    keep : bool
        Whether forward keeps a tape. While a graph is built, gradients are asked for
        after forward; then this is set, before the graph runs. Without a tape backward
        runs forward again.
    """

    def __init__(self, form, hold, site, x, h0, c0, mask):
        self.form, self.recurrence = form, recurrence(form)
        self.hold, self.site = hold, site
        self.sizes = x.shape[:2]
        self.present = [t is not None for t in (x, h0, c0, mask)]
        self.n_inputs = sum(self.present) + len(self.recurrence.weight_shapes)
        self.n_gradients = self.n_inputs - self.present[_MASK]
        self.keep = tf.executing_eagerly() and record.could_possibly_record()

    def run(self, *inputs):
        """The results that `run` returns, and the function of their gradients."""
        n_states, H = self.recurrence.n_states, self.form.hidden_size
        y, *states, tape = self._apply(self._forward, inputs, n_states + 2)
        y.set_shape((*self.sizes, H))
        for state in states:
            state.set_shape((self.sizes[0], H))

        def gradient(*dresults):
            self.keep = True
            found = _differentiable(self.run_back)(*inputs, y, tape, *dresults)
            return self._with_mask(found)

        return [y, *states], gradient

    def run_back(self, *tensors):
        """The gradients of the inputs but the mask, and the function of theirs."""
        inputs, dresults = tensors[: self.n_inputs], tensors[self.n_inputs + 2 :]
        differentiable = [t for t in inputs if t.dtype != tf.bool]
        found = self._apply(self._backward, tensors, self.n_gradients)
        for tensor, gradient in zip(differentiable, found, strict=True):
            gradient.set_shape(tensor.shape)

        def second(*seconds):
            weights, *given, mask = self._parts(inputs)
            again = tensorflow_again.gradient_of_gradient(
                self.form, [*given, *weights], mask, self.hold, dresults, seconds
            )
            of_inputs, of_dresults = again[: len(found)], again[len(found) :]
            return [*self._with_mask(of_inputs), None, None, *of_dresults]

        return found, second

    def _apply(self, function, tensors, n_results):
        """Call a function of arrays with tensors, now or when the graph runs."""
        if tf.executing_eagerly():
            return [_as_tensor(a) for a in function(*map(np.asarray, tensors))]
        kinds = [self.form.dtype] * n_results
        return list(tf.numpy_function(function, tensors, kinds, stateful=False))

    def _forward(self, *arrays):
        """y, the last states and the tape, which is empty unless it is kept."""
        weights, x, *optional = self._parts(arrays)
        y, h_n, c_n, tape = self._run(self.keep, weights, x, *optional)
        tape = np.empty(0, x.dtype) if tape is None else tape
        return (y, h_n, tape) if c_n is None else (y, h_n, c_n, tape)

    def _backward(self, *arrays):
        """The gradients of the inputs but the mask."""
        weights, x, h0, c0, mask = self._parts(arrays[: self.n_inputs])
        y, tape, dy, *dstates = arrays[self.n_inputs :]
        B, T, _ = x.shape
        if tape.size < self.recurrence.tape_size(T, B):
            y, _, _, tape = self._run(True, weights, x, h0, c0, mask)
        dx = _empty(x.shape, x.dtype)
        dweights = [_empty(weight.shape, x.dtype) for weight in weights]
        _, dh0, dc0, _ = self.recurrence.backward(
            weights,
            _time_major(x),
            h0,
            c0,
            _time_major(y),
            tape,
            _time_major(dy),
            *dstates,
            mask=_time_major(mask),
            hold=self.hold,
            site=self.site,
            out=(_time_major(dx), None, None, dweights),
        )
        present = self.present[1:_MASK]
        dstates = [d for d, there in zip((dh0, dc0), present, strict=True) if there]
        return dx, *dstates, *dweights

    def _run(self, keep, weights, x, h0, c0, mask):
        """Run the kernels forward."""
        y = _empty((*x.shape[:2], self.form.hidden_size), x.dtype)
        _, h_n, c_n, tape = self.recurrence.forward(
            weights,
            _time_major(x),
            h0,
            c0,
            mask=_time_major(mask),
            hold=self.hold,
            keep=keep,
            site=self.site,
            out=(_time_major(y), None, None, None),
        )
        return y, h_n, c_n, tape

    def _with_mask(self, gradients):
        """Gradients of all inputs from those of all but the mask, which has none."""
        if not self.present[_MASK]:
            return gradients
        at = sum(self.present) - 1
        return [*gradients[:at], None, *gradients[at:]]

    def _parts(self, inputs):
        """The weights, x, h0, c0 and mask among the inputs."""
        rest = iter(inputs)
        parts = [next(rest) if there else None for there in self.present]
        return list(rest), *parts


def _time_major(sequence):
    return None if sequence is None else sequence.swapaxes(0, 1)


def _empty(shape, dtype):
    """An array on a cache line, which TensorFlow takes without a copy."""
    return _results.array(math.prod(shape), dtype).reshape(shape)


def _as_tensor(array):
    """A tensor with the array's memory, which nobody writes to any more."""
    if not array.size or array.ctypes.data % memory.ALIGNMENT:
        return tf.convert_to_tensor(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


_results = memory.shared_pool("results", 64)
