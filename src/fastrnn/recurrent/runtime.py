# SPDX-License-Identifier: BSD-3-Clause
"""`Runtime`: what the calls of a recurrent layer need of it, in one place."""

import numpy as np

from fastrnn.native import arrays, memory, threads, weights
from fastrnn.native.draws import Draw
from fastrnn.nn import joint
from fastrnn.recurrent import small_weights
from fastrnn.recurrent.leaving_out import DroppedWeights

# A layer keeps the plans of so many shapes. When one more shape comes, it drops all of
# them and begins anew.
_MOST_PLANS = 32
# Blocks of memory that a layer keeps for its next calls, beside those in which its
# packed weights lie.
_MOST_BLOCKS = 6
# What a copy of a layer makes for itself: plans hold addresses of this process, and the
# copy's parameters are bound to it when it has its own.
_OF_THIS_PROCESS = (
    "count_threads",
    "grads",
    "named",
    "named_grads",
    "parameters",
    "plan",
    "plans",
    "start",
)
# What a copy takes over.
_OF_THE_LAYER = (
    "cell",
    "connection",
    "draws",
    "dropout_seeds",
    "dtype",
    "h_size",
    "hidden_size",
    "is_narrow",
    "layer_by_layer",
    "layout",
    "memory",
    "merge_mode",
    "n_cells",
    "n_directions",
    "n_layers",
    "n_states",
    "options",
    "packed_weights",
    "suffixes",
    "y_size",
)


class Runtime:
    """What a recurrent layer's calls need of it, and what it keeps for the next call.

    A call, and all that it is made of, asks this object for sizes, parameters, memory
    and plans. Of the layer itself it reads only what users set: `training`, `dropout`,
    `checkpoint_every` and `return_sequences`.

    Parameters
    ----------
    layout : layout.Layout
        Where the layer's parameters lie in its flat buffers.
    dtype : str
    merge_mode, connection : str or None
        The layer's arguments of these names.
    dropout_seeds : numpy.random.Generator
        Draws the seeds of dropout masks, and for each call the key of what its cells
        draw. It is the layer's own, which saving finds, so that its state says how many
        calls there were.
    cell : core.Cell
        What the cells are, as their C file says.
    options : core.Options or None
        The cells' options; None where they are plain.
    suffixes : list of str
        What ends the names of each cell's parameters, as in ``weight_ih_l0_reverse``.

    Attributes
    ----------
    n_layers, n_directions, n_cells, n_states : int
        A cell is one direction of one layer; a state has one array (h) or two (h, c).
    hidden_size, h_size, y_size : int
        Width of c, of h (narrower than c with a projection), and of a layer's output.
    is_narrow : bool
        Whether h is narrower than the kernels' states are: see `states`.
    draws : bool
        Whether cells make random choices in training.
    n_cell_weights : int
        The parameters of all cells, which are the first of the layer's.
    layer_by_layer : bool
        Whether there is arithmetic between the layers, which the kernels do not do:
        merged directions or connections. Such layers run one after the other.
    parameters, grads : ndarray, 1-D
        Flat buffers of the model that the layer belongs to. The layer's own parameters
        begin at element `start` of each.
    named, named_grads : dict of str to ndarray
        Views of the layer's parameters and of their gradients, by name.
    memory : memory.Pool
        Tapes and scratch memory, which calls take from here and give back.
    packed_weights : weights.Packer or small_weights.PackedOnce
    count_threads : callable
        How many threads a call may use: fastrnn's number, unless the layer works for
        another library, which has one of its own.
    plan : arrays.ArrayPlan or None
        Plan of the last call's arrays: that of the next call, too, if they are alike.
    """

    __slots__ = _OF_THE_LAYER + _OF_THIS_PROCESS

    def __init__(
        self,
        layout,
        dtype,
        merge_mode,
        connection,
        dropout_seeds,
        *,
        cell,
        options,
        suffixes,
    ):
        self.layout, self.dtype = layout, np.dtype(dtype)
        self.cell, self.options, self.suffixes = cell, options, suffixes
        self.dropout_seeds = dropout_seeds
        self.draws = options is not None and options.draws
        self.merge_mode, self.connection = merge_mode, connection
        self.n_layers, self.n_directions = layout.n_layers, layout.n_directions
        self.n_cells, self.n_states = layout.n_cells, layout.n_states
        self.hidden_size, self.h_size = layout.H, layout.S
        self.is_narrow = layout.S != layout.H
        self.y_size = layout.S * (1 if layout.merged else layout.n_directions)
        self.layer_by_layer = layout.merged or connection is not None
        self.memory = memory.Pool(_MOST_BLOCKS + 4 * layout.n_cells)
        self.packed_weights = weights.Packer(layout, self.memory)
        self.plan, self.plans = None, {}
        self.count_threads = threads.for_kernel

    def __getstate__(self):
        return {name: getattr(self, name) for name in _OF_THE_LAYER}

    def __setstate__(self, state):
        for name, value in state.items():
            setattr(self, name, value)
        self.plan, self.plans = None, {}
        self.count_threads = threads.for_kernel

    def bind(self, buffers, start, named, named_grads):
        """Take note of where the layer's parameters and gradients are from now on."""
        (self.parameters, self.grads), self.start = buffers, start
        self.named, self.named_grads = named, named_grads

    def bind_fixed(self, arrays):
        """Take note of all weights of a layer that training does not change."""
        self.bind((None, None), 0, arrays, {})
        self.packed_weights = small_weights.PackedOnce(self)

    def weights_of(self, cell):
        """All parameters of a cell, with None for those that it lacks.

        They are views of the parameters, in the order in which the kernels pack them.
        """
        names = (
            "weight_ih", None if self.cell.is_scan else "weight_hh", "bias_ih",
            "bias_hh", self.cell.vectors, "weight_hr", "weight_norm_ih",
            "weight_norm_hh", "weight_norm_c", "bias_norm_c",
        )  # fmt: skip
        suffix = self.suffixes[cell]
        return [self.named.get(f"{name}{suffix}") if name else None for name in names]

    def draw_dropout(self, p):
        """Seeds of the dropout masks between layers, or None, and their probability."""
        if self.n_layers == 1:
            return None, 0.0
        return self.dropout_seeds.integers(2**63, size=self.n_layers - 1), p

    @property
    def n_cell_weights(self):
        return sum(
            self.named[name].size
            for name in self.named
            if name not in ("h_0", "c_0") and "_gate_l" not in name
        )

    def part_of(self, buffer, kind, cell):
        """One of a cell's parameters in a buffer that is laid out as the model's is."""
        own = self.named[kind + self.suffixes[cell]]
        distance = own.ctypes.data - self.parameters.ctypes.data
        begin = distance // self.dtype.itemsize
        return buffer[begin : begin + own.size]

    def drop_weights(self, plan, p):
        """The `DroppedWeights` of a call in training, whose `p` is above 0."""
        seeds = self.dropout_seeds.integers(2**63, size=self.n_cells)
        return DroppedWeights(self, plan, p, seeds)

    def draw_choices(self, plan, rows):
        """The `Draw` of a call in training, of cells that have random choices.

        Parameters
        ----------
        plan : arrays.ArrayPlan
            Of what is computed.
        rows : Rows or None
            Which of the caller's steps these are; None for all of them.
        """
        key, share = int(self.dropout_seeds.integers(2**63)), joint.now.share
        first_row = 0
        if share is not None:
            B = plan.B if rows is None else rows.B
            key, first_row = share.seed(key), joint.first_row(B)
        steps = numbers = None
        if rows is not None and not rows.padded:
            steps, numbers = rows.numbers()
            numbers += first_row
        return Draw(key, 0, first_row, steps, numbers)

    def plan_for(
        self,
        kernels,
        n_threads,
        batch_first,
        T,
        B,
        length=0,
        first=0,
        n_cells=0,
        y_inside=False,
    ):
        """The `arrays.ArrayPlan` of these arguments, made when they are first seen.

        Between layers that run one by one sequences are (T, B, width), whatever the
        layer's own are.
        """
        if n_cells and self.layer_by_layer:
            batch_first = False
        which = length, first, n_cells, y_inside
        key = kernels, n_threads, batch_first, T, B, *which
        plan = self.plans.get(key)
        if plan is None:
            if len(self.plans) >= _MOST_PLANS:
                self.plans.clear()
            plan = self.plans[key] = arrays.ArrayPlan(
                kernels,
                n_threads,
                self.layout,
                T,
                B,
                batch_first=batch_first,
                length=length,
                first=first,
                n_cells=n_cells,
                y_inside=y_inside,
            )
        return plan

    def plan_with_threads(self, plan, n_threads):
        """A plan like `plan` for another number of threads."""
        if plan.offsets is None:
            return self.plan_for(
                plan.kernels, n_threads, plan.batch_first, plan.T, plan.B
            )
        return plan.part(0, plan.T, n_threads=n_threads)

    def part_of_plan(self, plan, begin, end, first=0, n_cells=0, y_inside=False):
        """The plan of steps [begin, end) of `plan`, of all cells or from `first` on.

        The plans of a ragged batch are not kept: hardly another batch has its lengths.
        """
        if plan.offsets is None:
            return self.plan_for(
                plan.kernels,
                plan.n_threads,
                plan.batch_first,
                end - begin,
                plan.B,
                plan.T,
                first,
                n_cells,
                y_inside,
            )
        return plan.part(begin, end, first, n_cells, y_inside=y_inside)
