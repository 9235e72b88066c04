# SPDX-License-Identifier: BSD-3-Clause
"""What a run does with the other processes of a joint batch: `Ranks`, or `Alone`.

`fit` is written for any number of processes: it asks a reduction for this process's
part of each batch, lets it add up gradients and figures over all, and prints and writes
where ``main`` is true.
"""

from __future__ import annotations

import contextlib

import numpy as np

from fastrnn.data.batches import Batches
from fastrnn.distributed import launch, protocol
from fastrnn.distributed.exchange import Exchange
from fastrnn.distributed.shares import Shares
from fastrnn.losses import objectives
from fastrnn.native import core, threads
from fastrnn.nn import joint, masking
from fastrnn.nn.batch_norm import BatchNormalization
from fastrnn.train import stateful
from fastrnn.train.before_ranks import check_dropout, check_summed, facts_of
from fastrnn.train.step import Diverged
from fastrnn.util import checks


class Alone:
    """The reduction of a single process: there is nobody to ask."""

    rank, size, main = 0, 1, True

    def epoch(self, samples, batch_size, rng=None):
        """Share (None), inputs, targets and weights, batch by batch."""
        for batch in samples.epoch(batch_size, rng):
            yield None, *batch

    def count(self, samples, batch_size):
        """Batches in an epoch, or None."""
        return samples.count_batches(batch_size)

    def unit(self, divisor):
        """What the gradients of a first batch with so many rows are divided by."""
        return divisor

    def reduce(self, step):
        """Let gradients be those of the mean loss over a step's batches.

        Returns
        -------
        list of (float, int)
            Loss and rows of each batch; empty if there is no step to take.
        """
        records = step.records
        if len(records) > 1:
            total = sum(record.divisor for record in records)
            if total != step.unit:
                _scale(step.model, step.unit / total if total else 0.0)
        return [(record.loss, record.n) for record in records]

    def means(self, means, records):
        """Let means of `evaluate` be those of all rows."""
        for record in records:
            means.add(record.loss, record.n)

    def from_main(self, value):
        """The value that the process has which prints and writes."""
        return value

    def of_run(self):
        """Within this context the run takes its steps."""
        return contextlib.nullcontext()

    # -- before a run -----------------------------------------------------------------

    def agreeing(self):
        """Within this context arguments are looked at; an error is one of all."""
        return contextlib.nullcontext()

    def check_data(self, samples, class_weight=None):
        """Refuse samples that do not go with how processes share them."""

    def check_model(self, model, samples):
        """Refuse a model that cannot be trained by several processes."""

    def check_stateful(self, who, model, samples, batch_size, goes_on):
        """Refuse samples that a stateful model could not take batch after batch."""
        stateful.check_batches(who, model, samples, batch_size, goes_on)

    def settle(self, run):
        """Let all processes begin alike: the first exchange."""
        run.count_steps()


class Ranks(Alone):
    """The reduction of one of several processes.

    Parameters
    ----------
    who : str
        Whom errors name.
    comm : Communicator
    sharded : bool
        Whether every process has samples of its own.

    Raises
    ------
    TypeError
        If `comm` is no communicator.
    """

    def __init__(self, who, comm, sharded):
        self._comm = protocol.check(f"{who}", comm)
        self._who, self._sharded = who, sharded
        self.rank, self.size = comm.rank, comm.size
        self.main = comm.rank == 0
        self._early, self._exchanges, self._shares = False, {}, []

    # -- before a run -----------------------------------------------------------------

    @contextlib.contextmanager
    def agreeing(self):
        error = None
        try:
            yield
        except Exception as raised:
            error = raised
        launch.agree(self._who, self._comm, error)

    def check_data(self, samples, class_weight=None):
        if self.size == 1:
            return
        who = self._who
        if not self._sharded and any(isinstance(one, Batches) for one in samples):
            raise ValueError(
                f"{who}: sharded must be True where x gives batches, of which every "
                "rank has its own, got False"
            )
        if class_weight == "balanced" and self._sharded:
            raise ValueError(
                f"{who}: class_weight must be a mapping of classes to weights where "
                "samples are sharded, got 'balanced', which would count those of one "
                "rank alone"
            )

    def check_model(self, model, samples):
        if self.size == 1:
            return
        who = self._who
        for metric in model.metrics:
            check_summed(who, metric)
        check_dropout(who, model)
        with joint.sharing(joint.Share(1)):
            model._try(samples.sample())
        masked = masking.of_output(model) is not None
        if masked and isinstance(model.loss, objectives.Custom):
            raise ValueError(
                f"{who}: a function as loss must not be given a mask in a distributed "
                "run, where nobody knows what its mean is over; use an object of "
                "fastrnn.objectives"
            )

    def check_stateful(self, who, model, samples, batch_size, goes_on):
        if goes_on and self.size > 1 and stateful.stateful_layers(model):
            raise ValueError(
                f"{who}: distributed must be None for a stateful model, whose states "
                "each rank has of other rows"
            )
        # What is sharded is looked at in `settle`, by all ranks together.
        if not self._sharded or self.size == 1:
            stateful.check_batches(who, model, samples, batch_size, goes_on)

    def settle(self, run):
        """Let all ranks begin with the parameters, generators and order of rank 0.

        Raises
        ------
        ValueError
            If the ranks' models, options, optimisers or data do not go together.
        """
        comm, model = self._comm, run.model
        launch.same(self._who, comm, facts_of(run, self._sharded))
        run.seed = comm.bcast(run.seed)
        model.flat_parameters[...] = comm.bcast(model.flat_parameters.copy())
        generators = [
            value
            for module in model.modules()
            for _, value in sorted(vars(module).items())
            if isinstance(value, np.random.Generator)
        ]
        states = comm.bcast([one.bit_generator.state for one in generators])
        for one, state in zip(generators, states, strict=True):
            one.bit_generator.state = state
        self._early = self.size > 1 and any(
            isinstance(m, BatchNormalization) for m in model.modules()
        )
        if self._sharded and self.size > 1:
            self._check_sharded_states(run)
        run.count_steps()

    def _shares_of(self, samples, batch_size):
        """Who has which rows of samples: all ranks ask together for the first time."""
        for known, shares in self._shares:
            if known is samples:
                return shares
        shares = Shares(self._comm, samples, batch_size, self._sharded, self._add)
        self._shares.append((samples, shares))
        return shares

    def _check_sharded_states(self, run):
        """Refuse parts of batches of several sizes, of which each has its states."""
        error = None
        for samples in (run.train, run.validation):
            if samples is None or not stateful.stateful_layers(run.model):
                continue
            sizes = self._shares_of(samples, run.options.batch_size).sizes()
            if sizes is None or len(sizes) > 1:
                error = ValueError(
                    f"{self._who}: each rank's samples must divide evenly into batches "
                    "for a stateful model, whose layers go on from batch to batch, got "
                    f"parts of {sizes} rows on rank {self.rank}"
                )
        launch.agree(self._who, self._comm, error)

    # -- batches ----------------------------------------------------------------------

    def epoch(self, samples, batch_size, rng=None):
        """This rank's share of each joint batch, and inputs, targets and weights."""
        return self._shares_of(samples, batch_size).epoch(rng)

    def count(self, samples, batch_size):
        return self._shares_of(samples, batch_size).count()

    # -- sums -------------------------------------------------------------------------

    def _add(self, array):
        """Sum of an array of float64 over all ranks, in ascending order of these."""
        total = np.zeros_like(array)
        for one in self._comm.allgather(array):
            total += one
        return total

    def unit(self, divisor):
        # Where layers exchange gradients in backward, these have to be of one scale.
        if self._early:
            return float(self._add(np.float64([divisor]))[0])
        return divisor

    def reduce(self, step):
        if self.size == 1:
            return super().reduce(step)
        model, means = step.model, step.means
        mine = [
            value
            for one in step.records
            for value in (one.divisor * one.loss, one.divisor, one.n, one.counts)
        ]
        delta = means.sums() - step.sums_before
        head = [step.unit, *delta, *mine]
        spans, grads = _trained(model)
        parts = [grads[begin:end] for begin, end in spans]
        size = sum(part.size for part in parts)
        key = size, len(head), grads.dtype
        if key not in self._exchanges:
            self._exchanges[key] = Exchange(self._comm, size, len(head), grads.dtype)
        n_delta = delta.size

        def weigh(heads):
            total = heads[:, 1 + n_delta :].reshape(self.size, -1, 4)[:, :, 1].sum()
            return heads[:, 0] / total if total else heads[:, 0] * 0

        heads = self._exchanges[key](parts, head, weigh)
        if any(leaf._table is not None for leaf in model._gathered()[0]):
            model._use_all_grads()  # rows that other ranks used are not zero here
        sums = step.sums_before
        for one in heads:
            sums = sums + one[1 : 1 + n_delta]
        means.set_sums(sums)
        records = heads[:, 1 + n_delta :].reshape(self.size, -1, 4)
        return joint_records(records)

    def means(self, means, records):
        if self.size == 1:
            super().means(means, records)
            return
        mine = [(r.divisor * r.loss, r.divisor, r.n, r.counts) for r in records]
        found = self._comm.allgather((np.array(mine).reshape(-1, 4), means.sums()))
        means.set_sums(sum(sums for _, sums in found))
        for loss, n in joint_records(np.stack([table for table, _ in found])):
            means.add(loss, n)

    # -- during a run -----------------------------------------------------------------

    def from_main(self, value):
        return self._comm.bcast(value)

    @contextlib.contextmanager
    def of_run(self):
        with (
            launch.own_threads(self._comm),
            launch.ending_together(self._comm, Diverged),
        ):
            yield


def joint_records(records):
    """Loss and rows of joint batches that count, from (ranks, batches, 4) numbers.

    These are the sum of losses, the rows that it is of, those that an epoch weights by,
    and whether there are any.
    """
    total = records[0].copy()
    for one in records[1:]:
        total += one
    return [
        (loss / divisor if divisor else 0.0, int(n))
        for loss, divisor, n, counts in total.tolist()
        if counts
    ]


def _scale(model, factor):
    grads, spans = model._trained_grads()
    core.kernels(model.dtype).scale(threads.for_kernel(), grads, factor, spans)


def _trained(model):
    """Where the flat gradients are of trainable layers, as spans, and all of them."""
    leaves, _, grads = model._gathered()
    spans, at = [], 0
    for leaf in leaves:
        if leaf._trainable and leaf._size:
            if spans and spans[-1][1] == at:
                spans[-1][1] += leaf._size
            else:
                spans.append([at, at + leaf._size])
        at += leaf._size
    return spans, grads


def reduction_of(who, comm, sharded):
    """The reduction that `fit` or `evaluate` was asked for.

    Raises
    ------
    TypeError, ValueError
        If `comm` is no communicator, or `sharded` comes without one.
    """
    sharded = checks.flag(who, "sharded", sharded)
    if comm is not None:
        return Ranks(who, comm, sharded)
    if sharded:
        raise ValueError(f"{who}: sharded must be False without distributed, got True")
    return Alone()
