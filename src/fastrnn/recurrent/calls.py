# SPDX-License-Identifier: BSD-3-Clause
"""`Call`: one forward of a recurrent layer, and the backward that belongs to it."""

import threading

import numpy as np

from fastrnn.nn import joint
from fastrnn.recurrent import flow, states
from fastrnn.recurrent.blocks import Blocks
from fastrnn.recurrent.last import last_states
from fastrnn.recurrent.layerwise import LayerByLayer, OutputPositions
from fastrnn.recurrent.merging import merge, merge_backward


class _Watched(threading.local):
    """Who watches the backwards of each thread; None where nobody does."""

    watcher = None


watched = _Watched()


class watched_by:
    """A `with` block in which a watcher sees all backwards of this thread's calls.

    Parameters
    ----------
    watcher : callable
        ``watcher(call)`` is called before a backward. It returns a callable that takes
        the norms by lag, as ``record_flow="lag"`` gives them, after the backward.
    """

    def __init__(self, watcher):
        self._watcher = watcher

    def __enter__(self):
        self._before, watched.watcher = watched.watcher, self._watcher

    def __exit__(self, *_):
        watched.watcher = self._before


class Call:
    """One forward, of arguments that have been checked; its context keeps it.

    In the plainest call all steps are computed from x as it is, and y is what the
    kernels wrote. Where `rows` says that only some steps are computed, those are
    gathered from x before the run, and their outputs are put where y shows them after
    it. Where only the last outputs are returned, they are taken from the last states;
    in inference the run then drops the outputs of the steps as it goes.

    Parameters
    ----------
    layer : RNN, LSTM or GRU
        Only what users set is read from it; see `Runtime` for all else.
    runtime : Runtime
    plan : arrays.ArrayPlan
        Of x with all its steps.
    rows : Rows or None
        The rows that are computed; None for all steps.
    unbatched : bool
        Whether the caller's arrays have no axis B.
    learned : sequence of (str, int)
        What `states.learned` used.

    Attributes
    ----------
    plan : arrays.ArrayPlan or None
        Of what is computed; None if that is nothing.
    sequences : bool
        Whether y has the outputs of all steps, and not the last ones only.
    use, kept, x, seeds, p, y, draw
        What backward needs of a run that keeps it: the packed weights, the tape or
        the object that runs backward itself, the arrays, the seeds and probability of
        dropout, and what the cells draw.
    dropped : DroppedWeights or None
        The weights that the run has left out.
    last_outputs : ndarray, shape (B, D * S), or None
        Both directions' last outputs, before they are merged, where y is made of them.
    by_position : bool
        Whether a `LayerByLayer` has put the outputs where y shows them.
    adds_at_once : bool
        Whether backward adds to gradients in one kernel call, and then is done. Else it
        may fail when it has added to some of them.
    """

    __slots__ = (
        "adds_at_once",
        "by_position",
        "draw",
        "dropped",
        "kept",
        "last_outputs",
        "layer",
        "learned",
        "p",
        "plan",
        "rows",
        "runtime",
        "seeds",
        "sequences",
        "unbatched",
        "use",
        "x",
        "y",
    )

    def __init__(self, layer, runtime, plan, rows, unbatched, learned):
        self.layer, self.runtime, self.plan, self.rows = layer, runtime, plan, rows
        self.unbatched, self.learned = unbatched, learned
        self.sequences = layer.return_sequences
        self.adds_at_once = rows is None and not learned
        self.kept = self.last_outputs = self.dropped = None

    @property
    def T(self):
        """Steps of x."""
        return self.plan.T if self.rows is None else self.rows.T

    @property
    def B(self):
        """Sequences of x."""
        return self.plan.B if self.rows is None else self.rows.B

    def takes_dy(self, dy):
        """Whether `dy` is at once known to be what the kernels take."""
        if self.rows is not None or self.unbatched or not self.sequences:
            return False
        return self.plan.takes_dy(dy)

    # -- forward ----------------------------------------------------------------------

    def forward(self, x, h0, c0, keeps):
        """y, and the arrays of the last states.

        Parameters
        ----------
        x : ndarray, shape (T, B, I), or (B, T, I) if batch first
        h0 : ndarray, shape (n_cells, B, width), or None for zero
        c0 : ndarray, shape (n_states - 1, n_cells, B, width), or None for zero
        keeps : bool
            Whether a backward may follow. In evaluation it goes back through what
            evaluation computes, which leaves nothing out at random.
        """
        runtime, rows = self.runtime, self.rows
        if rows is not None:
            if not rows.n_steps:
                return self._hand_on(h0, c0)
            h0, c0 = rows.gather_start(h0), rows.gather_start(c0)
            x = rows.gather_x(self.plan, x)
            self.plan = rows.plan(runtime, self.plan)
        plan, parameters = self.plan, runtime.parameters
        if keeps and self.layer.training:
            p = getattr(self.layer, "weight_drop", 0.0)
            if p > 0:
                self.dropped = runtime.drop_weights(plan, p)
                parameters, self.adds_at_once = self.dropped.parameters, False
        use = runtime.packed_weights.take(
            plan.kernels, plan.n_threads, parameters, runtime.start, keeps
        )
        if runtime.is_narrow and h0 is not None:
            h0 = states.widen(h0, runtime.hidden_size)
        from_end = not (self.sequences or runtime.connection)
        if keeps or not from_end:
            y, end = self._run(use, x, h0, c0, keeps)
        else:
            end = last_states(runtime, plan, use, x, h0, c0)
        if runtime.is_narrow:
            end = states.narrow(end, runtime.h_size)
        if from_end:
            self.last_outputs = self._take_last_outputs(end[0])
            y = merge(runtime.merge_mode, self.last_outputs)
        elif rows is not None and self.sequences:
            if self.by_position:
                y = y.reshape(*rows.shape, runtime.y_size)
            else:
                y = rows.return_y(self.plan, y)
        if rows is not None:
            end = [rows.return_end(part) for part in end]
        return y, end

    def _run(self, use, x, h0, c0, keeps):
        """Outputs of the computed steps, and the last states of all rows.

        Where layers run one by one the outputs are those that y consists of.
        """
        runtime, plan = self.runtime, self.plan
        seeds, p, every, draw = None, 0.0, None, None
        layer, in_blocks = self.layer, False
        if layer.dropout > 0 and joint.now.share is not None:
            # The kernels' own dropout does not know of a joint batch.
            in_blocks = runtime.n_layers > 1 and layer.training
            if self.rows is not None and runtime.n_layers > 1:
                raise ValueError(
                    f"{type(layer).__name__}: dropout must be 0 in a distributed run "
                    "where lengths, masks or resets leave out steps, got "
                    f"{layer.dropout:g}"
                )
        if keeps:
            every = layer.checkpoint_every
        if keeps and layer.training:
            if layer.dropout > 0:
                seeds, p = runtime.draw_dropout(layer.dropout)
            if runtime.draws:
                draw = runtime.draw_choices(plan, self.rows)
        end = np.empty(plan.state_shape, runtime.dtype)
        self.by_position = False
        if runtime.layer_by_layer:
            positions = self._positions()
            self.by_position = positions.shown is not None
            every = min(every or plan.T, plan.T)
            self.adds_at_once = False
            kept = LayerByLayer(
                runtime, plan, use, every, seeds, p, draw, keeps, positions
            )
            y = np.empty(kept.y_shape, runtime.dtype)
            kept.forward(plan, x, h0, c0, y, end)
        else:
            # Where rows end early, y is zero after their last steps.
            empty = np.empty if plan.is_whole else np.zeros
            y = empty(plan.y_shape, runtime.dtype)
            in_blocks |= every is not None and every < plan.T and plan.keeps
            if in_blocks:
                self.adds_at_once = False
                every = min(every or plan.T, plan.T)
                kept = Blocks(runtime, plan, use, every, seeds, p, draw)
                use.keep_forward()
                kept.forward(plan, x, h0, c0, y, end)
            else:
                kept = plan.forward(
                    runtime.memory, use, x, 0, h0, c0, seeds, p, y, 0, end, keeps,
                    draw,
                )  # fmt: skip
        if keeps:
            y.setflags(False)  # by position: a keyword takes a tenth of a microsecond
            self.use, self.kept, self.x = use, kept, x
            self.seeds, self.p, self.y, self.draw = seeds, p, y, draw
        return y, end

    def _positions(self):
        """Where a `LayerByLayer` merges and connects outputs."""
        if self.sequences:
            return OutputPositions.of_sequences(self.rows)
        if not self.runtime.connection:  # the last states have the last outputs
            return OutputPositions()
        D = self.runtime.n_directions
        return OutputPositions.of_last_outputs(self.rows, self.T, self.B, D)

    def _hand_on(self, h0, c0):
        """What `forward` returns if no step is computed: last states are the first."""
        runtime, rows = self.runtime, self.rows
        self.plan = None
        end = states.zeros(runtime, rows.n_rows)
        for into, part in zip(end, states.listed(h0, c0), strict=False):
            if part is not None:
                into[...] = rows.gather_start(part)
        if not (self.sequences or runtime.connection):
            self.last_outputs = self._take_last_outputs(end[0])
            y = merge(runtime.merge_mode, self.last_outputs)
        else:
            shape = rows.shape if self.sequences else (self.B,)
            y = np.zeros((*shape, runtime.y_size), runtime.dtype)
        return y, [rows.return_end(part) for part in end]

    def _take_last_outputs(self, h):
        """The last output of each direction (B, D * S), zero where nothing is computed.

        It is the h that a direction of the last layer ends with.
        """
        h = h[-self.runtime.n_directions :]
        if self.rows is not None:
            h = self.rows.last_outputs(h)
        return np.concatenate(list(h), axis=1)

    # -- backward ---------------------------------------------------------------------

    def backward(self, context, dy, dh_n, dc_n, grads, record_flow):
        """dx, the gradients of the initial states, and what the kernels record of flow.

        Parameters
        ----------
        context : Context
            That of this call: released when nothing but the kernels can fail any more.
        dy : ndarray or None
        dh_n : ndarray, shape (n_cells, B, width), or None for zero
        dc_n : ndarray, shape (n_states - 1, n_cells, B, width), or None for zero
        grads : ndarray, 1-D, or None
            The buffer that gradients of parameters are added to; None for none.
        record_flow : bool

        Returns
        -------
        dx : ndarray
        d_start : sequence of ndarray
        squares : ndarray of float64, shape (n_cells, steps, rows), or None
            See `flow_norms`; None unless it is recorded.
        """
        runtime, rows = self.runtime, self.rows
        if rows is not None:
            dh_n, dc_n = rows.gather_d_end(dh_n), rows.gather_d_end(dc_n)
        if dy is not None and self.last_outputs is not None:
            dy = dy.reshape(self.B, runtime.y_size)
            d_last = merge_backward(runtime.merge_mode, self.last_outputs, dy)
            dh_n, dy = self._onto_last(d_last, dh_n), None
        if self.plan is None:
            context.release()
            dx = np.zeros((*rows.shape, self.layer.input_size), runtime.dtype)
            d_start = states.zeros(runtime, rows.n_rows)
            for into, part in zip(d_start, states.listed(dh_n, dc_n), strict=False):
                if part is not None:
                    into[...] = part
            return dx, [rows.return_d_start(part) for part in d_start], None
        plan, n_threads = self.plan, runtime.count_threads()
        if plan.n_threads != n_threads:  # chosen anew, or in a forked child
            plan = runtime.plan_with_threads(plan, n_threads)
        if rows is not None and dy is not None and self.sequences:
            if self.by_position:
                dy = dy.reshape(-1, dy.shape[-1])
            else:
                dy = rows.gather_dy(plan, dy)
        if runtime.is_narrow and dh_n is not None:
            dh_n = states.widen(dh_n, runtime.hidden_size)
        squares = None
        if record_flow:
            squares = np.zeros((runtime.n_cells, plan.length, plan.B))
        found, dropped = grads, self.dropped
        if grads is not None and dropped is not None:
            found = dropped.new_gradients()
        dx, d_start = self._run_back(context, plan, dy, dh_n, dc_n, found, squares)
        if found is not grads:
            dropped.add(plan, found, grads)
        if runtime.is_narrow:
            d_start = states.narrow(d_start, runtime.h_size)
        if rows is not None:
            dx = rows.return_dx(plan, dx)
            d_start = [rows.return_d_start(part) for part in d_start]
        return dx, d_start, squares

    def _run_back(self, context, plan, dy, dh_n, dc_n, grads, squares):
        """Gradients of what the run computed from."""
        runtime, kept = self.runtime, self.kept
        # Where rows end early, dx is zero after their last steps.
        empty = np.empty if plan.is_whole else np.zeros
        dx = empty(plan.x_shape, runtime.dtype)
        d_start = np.empty(plan.state_shape, runtime.dtype)
        context.release()
        try:
            if isinstance(kept, Blocks):  # in an `Attempt`
                kept.backward(plan, self.x, dy, dh_n, dc_n, dx, d_start, grads, squares)
            else:
                plan.backward(
                    runtime.memory, self.use, kept, self.x, 0, self.seeds, self.p,
                    self.y, 0, dy, dh_n, dc_n, dx, d_start, grads, runtime.start,
                    flow=squares, draw=self.draw,
                )  # fmt: skip
        except Exception:  # before anything was added
            context.restore(self)
            raise
        return dx, d_start

    def _onto_last(self, d_last, dh_n):
        """The gradient of the rows' last h, that of the last outputs added to it."""
        runtime, rows, D = self.runtime, self.rows, self.runtime.n_directions
        n_rows = self.B if rows is None else rows.n_rows
        total = np.zeros((runtime.n_cells, n_rows, runtime.h_size), runtime.dtype)
        if dh_n is not None:
            total += dh_n
        d_last = d_last.reshape(self.B, D, runtime.h_size).swapaxes(0, 1)
        if rows is None:
            total[-D:] += d_last
        else:
            rows.add_to_last(total[-D:], d_last)
        return total

    def flow_norms(self, squares, by_lag):
        """Norms of dL/dh (n_cells, T) from the squares that `backward` recorded."""
        if squares is None:  # no step was computed
            return np.zeros((self.runtime.n_cells, self.T))
        D = self.runtime.n_directions
        return flow.norms(squares, self.rows, D, self.T, by_lag)
