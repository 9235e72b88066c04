# SPDX-License-Identifier: BSD-3-Clause
"""What ranks refuse together, and what ends them together."""

import numpy as np
import pytest
import ranks

import fastrnn
from fastrnn.callbacks import Callback, EarlyStopping, ModelCheckpoint
from fastrnn.distributed import Communicator, launch
from fastrnn.metrics import Metric

T, F = 4, 3
X = np.random.default_rng(0).standard_normal((8, T, F)).astype("f")
Y = X[..., :2]


def made(*before, loss="mse", metrics=(), **options):
    layers = (
        fastrnn.LSTM(F, 4, seed=1, **options),
        fastrnn.Linear(4, 2, seed=2),
    )
    model = fastrnn.Sequential(*before, *layers)
    model.compile(loss, "sgd", list(metrics), lr=0.1)
    return model


def fitted(comm, model=None, x=X, y=Y, **options):
    model = made() if model is None else model
    model.fit(x, y, **{"verbose": 0, "seed": 3, "distributed": comm, **options})
    return model


def refused(program, size=2):
    """The errors of all ranks; each has one, and none was waited for in vain."""
    found = ranks.run(size, program)
    assert all(isinstance(one, Exception) for one in found), found
    return [f"{type(one).__name__}: {one}" for one in found]


class Odd(Metric):
    name = "odd"

    def reset(self):
        self.seen = []

    def update(self, pred, target, mask=None):
        self.seen.append(1)

    def result(self):
        return float(len(self.seen))


def own_loss(pred, target, mask=None):
    return 0.0, np.zeros_like(pred)


class Given:
    def __iter__(self):
        return iter([(X, Y)])


REFUSED = [
    ({"x": Given(), "y": None}, "sharded must be True where x gives batches"),
    ({"sharded": 1}, "fit: sharded must be"),
    ({"metrics": [Odd()]}, "fit: Odd must say in an attribute `summed`"),
    (
        {"before": fastrnn.Masking(), "loss": own_loss},
        "fit: a function as loss must not be given a mask in a distributed run",
    ),
    (
        {"before": fastrnn.Masking(), "num_layers": 2, "dropout": 0.5},
        "fit: dropout between layers must be 0 in a distributed run where lengths",
    ),
    (
        {"classes": True, "class_weight": "balanced", "sharded": True},
        "fit: class_weight must be a mapping of classes to weights where samples are",
    ),
    (
        {"stateful": True, "sharded": True, "shuffle": False, "batch_size": 6},
        "fit: each rank's samples must divide evenly into batches for a stateful",
    ),
    ({"tbptt": 2, "gradient_accumulation_steps": 2}, "must be 1 with tbptt"),
    ({"gradient_accumulation_steps": 0}, "fit: gradient_accumulation_steps must be a"),
]
LAYER = ("num_layers", "dropout", "stateful")


@pytest.mark.whole_grid
@pytest.mark.parametrize(
    ("options", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED]
)
def test_what_cannot_be_distributed_is_refused_before_a_step(
    options, message, one_thread
):
    options = dict(options)
    layer = {name: options.pop(name) for name in LAYER if name in options}
    before = [options.pop("before")] if "before" in options else []
    compiled = {k: options.pop(k) for k in ("loss", "metrics") if k in options}
    y = Y
    if options.pop("classes", False):
        compiled, y = {"loss": "sparse_categorical_crossentropy"}, Y[..., 0] > 0
    options.setdefault("y", y.astype(np.int64) if y.dtype == bool else y)

    def program(comm):
        model = made(*before, **compiled, **layer)
        first = model.flat_parameters.copy()
        try:
            fitted(comm, model, **options)
        finally:
            np.testing.assert_array_equal(model.flat_parameters, first)

    for error in refused(program):
        assert message in error


def test_an_encoder_is_given_lengths(one_thread):
    def program(comm):
        model = fastrnn.EncoderDecoder(
            fastrnn.GRU(3, 4, 2, dropout=0.5), fastrnn.GRU(3, 4), 7, 7, start=0, end=1
        )
        model.compile()
        fitted(comm, model, [[2, 3], [4]], [[2], [3, 4]])

    for error in refused(program):
        assert "fit: dropout between layers must be 0" in error


def test_an_error_of_one_rank_s_arguments_is_all_ranks_error(one_thread):
    def program(comm):
        fitted(comm, y=Y if comm.rank else Y[:5])

    first, second = refused(program)
    assert first.startswith("ValueError: fit: y must have as many samples as x")
    assert second == f"RuntimeError: fit: rank 0 of 2 failed: {first}"


DIFFERENT = [
    ({"epochs": 3}, {}, "fit: all ranks must have the same epochs, got 1 on rank 0 a"),
    ({"clip_norm": 1.0}, {}, "the same options of the run"),
    ({"x": X + 1}, {}, "the same samples, as sharded is False"),
    ({"callbacks": [EarlyStopping("loss")]}, {}, "the same callbacks"),
    ({}, {"metrics": ["mae"]}, "the same figures"),
    ({}, {"proj_size": 2}, "the same parameters"),
    ({"sharded": True}, {}, "the same sharded"),
]


@pytest.mark.whole_grid
@pytest.mark.parametrize(
    ("options", "model", "message"), DIFFERENT, ids=[m[-30:] for *_, m in DIFFERENT]
)
def test_ranks_that_differ_are_refused(options, model, message, one_thread):
    def program(comm):
        differs = comm.rank == 1
        own = made(**model) if differs and "proj_size" not in model else made()
        if differs and "proj_size" in model:
            own = fastrnn.Sequential(fastrnn.Linear(F, 2, seed=2))
            own.compile("mse", "sgd", lr=0.1)
        fitted(comm, own, **(options if differs else {}))

    for error in refused(program):
        assert message in error


def test_an_optimizer_that_has_gone_on_is_refused(one_thread):
    def program(comm):
        model = made()
        if comm.rank:
            model.train_on_batch(X, Y)
        fitted(comm, model)

    for error in refused(program):
        assert "the same state of the optimizer" in error


def test_all_begin_with_what_the_first_has(one_thread):
    """Parameters, generators and the seed of the order."""

    def program(comm):
        model = fastrnn.Sequential(
            fastrnn.Dropout(0.5, seed=comm.rank),
            fastrnn.GRU(F, 4, seed=comm.rank),
            fastrnn.Linear(4, 2, seed=comm.rank),
        )
        model.compile("mse", "sgd", lr=0.1)
        return fitted(comm, model, seed=None, batch_size=3).flat_parameters.copy()

    assert ranks.same_bits(ranks.results(2, program))


def test_divergence_is_an_error_of_all_and_ends_nobody(one_thread):
    def program(comm):
        fitted(comm, x=np.where(np.arange(8)[:, None, None] < 7, X, np.nan))

    def noting(comm):
        try:
            program(comm)
        except FloatingPointError as error:
            return str(error), comm.calls
        return None

    for text, calls in ranks.results(2, noting):
        assert text.startswith("fit: training diverged in epoch 1, batch 1: loss nan")
        assert not any(call.startswith("Abort") for call in calls)


class Failing(Callback):
    """Fails on one rank in the middle of an epoch."""

    def __init__(self, rank, error):
        self.rank, self.error = rank, error

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 1 and self.run.reduction.rank == self.rank:
            raise self.error


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (OSError("disk full"), "OSError: disk full", 1),
        (KeyboardInterrupt(), "Ctrl-C", 130),
    ],
    ids=["error", "Ctrl-C"],
)
def test_an_error_of_one_rank_ends_all(error, said, code, one_thread, capsys):
    kept = []

    def program(comm):
        kept.append(comm)
        fitted(comm, batch_size=4, epochs=2, callbacks=[Failing(1, error)])

    found = ranks.run(2, program)
    assert all(isinstance(one, ranks.Aborted) for one in found)
    calls = [call for comm in kept for call in comm.calls if comm.rank == 1]
    assert calls[-1] == f"Abort {code}"
    assert f"fastrnn: rank 1 of 2 ends the job: {said}" in capsys.readouterr().err


@pytest.mark.parametrize("comm", [3, object(), "world"])
def test_what_is_no_communicator(comm):
    with pytest.raises(
        TypeError, match=r"fit: distributed must be a communicator such"
    ):
        made().fit(X, Y, distributed=comm)


def test_sharded_needs_a_communicator():
    with pytest.raises(ValueError, match="fit: sharded must be False without distri"):
        made().fit(X, Y, sharded=True)
    with pytest.raises(ValueError, match="evaluate: sharded must be False without"):
        made().evaluate(X, Y, sharded=True)


def test_evaluate_of_a_stateful_model_is_refused(one_thread):
    def program(comm):
        made(stateful=True).evaluate(X, Y, distributed=comm)

    for error in refused(program):
        assert "evaluate: distributed must be None for a stateful model" in error


def test_the_protocol_is_what_is_asked_for():
    named = {name for name in vars(Communicator) if not name.startswith("_")}
    methods = {"bcast", "allgather", "Alltoall", "Allgather", "Abort"}
    assert named == {"rank", "size"} | methods


def test_one_rank_writes_and_prints(one_thread, tmp_path, capsys):
    before = (tmp_path / "0", tmp_path / "1")
    for folder in before:
        folder.mkdir()

    def program(comm):
        path = before[comm.rank] / "run.safetensors"
        callbacks = [ModelCheckpoint(path, verbose=1), EarlyStopping("loss", verbose=1)]
        fitted(comm, epochs=3, verbose=2, callbacks=callbacks)

    ranks.results(2, program)
    assert [len(list(folder.iterdir())) for folder in before] == [1, 0]
    out = capsys.readouterr().out
    assert out.count("epoch 1/3") == 1
    assert out.count("ModelCheckpoint: epoch 3 is in") == 1


def test_the_first_rank_decides(one_thread):
    """A callback that ends the run and changes the rate on rank 0 alone, or on 1."""

    class Deciding(Callback):
        def __init__(self, rank):
            self.rank = rank

        def on_epoch_end(self, epoch, logs=None):
            if self.run.reduction.rank == self.rank:
                self.model.optimizer.lr = 0.01
                self.model.stop_training = epoch == 1

    for rank, epochs, lr in ((0, 2, 0.01), (1, 4, 0.1)):

        def program(comm, rank=rank):
            model = fitted(comm, epochs=4, callbacks=[Deciding(rank)])
            return len(model.history.epoch), model.optimizer.lr

        assert ranks.results(2, program) == [(epochs, lr)] * 2


def test_a_run_goes_on_from_its_checkpoint_with_the_bits_of_an_unbroken_one(
    one_thread, tmp_path
):
    path = tmp_path / "run.safetensors"

    def run(comm, epochs, resume=None):
        model = fastrnn.Sequential(
            fastrnn.Dropout(0.3, seed=5),
            fastrnn.LSTM(F, 4, seed=comm.rank),
            fastrnn.BatchNormalization(),
            fastrnn.Linear(4, 2, seed=2),
        )
        model.compile("mse", "adam")
        fitted(
            comm, model, epochs=epochs, resume=resume, batch_size=3,
            seed=None if resume else 3,
            callbacks=[ModelCheckpoint(path), EarlyStopping("loss", patience=9)],
        )  # fmt: skip
        return model.flat_parameters.copy()

    whole = ranks.results(3, lambda comm: run(comm, 4))
    ranks.results(3, lambda comm: run(comm, 2))
    again = ranks.results(3, lambda comm: run(comm, 4, path))
    assert ranks.same_bits(whole + again)


def test_threads_and_runs_change_no_bit():
    def program(comm):
        return fitted(comm, epochs=2, batch_size=3).flat_parameters.copy()

    before, found = fastrnn.get_num_threads(), []
    for n in (1, 2, 1):
        fastrnn.set_num_threads(n)
        found += ranks.results(2, program)
    fastrnn.set_num_threads(before)
    assert ranks.same_bits(found)


# -- started by mpiexec ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_launched(monkeypatch, name):
    assert launch.launched() == 1
    for value, size in (("4", 4), ("1", 1), ("", 1), ("x", 1), ("-2", 1)):
        monkeypatch.setenv(name, value)
        assert launch.launched() == size


class OnOneMachine:
    """What mpi4py's communicator tells of the ranks of this machine."""

    size = 4

    def __init__(self, peers):
        self.peers = peers

    def Split_type(self, kind):
        return self

    def allgather(self, own):
        return [own, *((cpus, own[1]) for cpus in self.peers)]

    def Free(self):
        self.size = 0


@pytest.mark.parametrize(
    ("peers", "want"),
    [([{0, 1, 2, 3}] * 3, 1), ([{0, 1}], 2), ([{9}, {8}], 4), ([{3}] * 7, 1)],
)
def test_ranks_of_one_machine_share_its_processors(peers, want, monkeypatch):
    kind = type("MPI", (), {"COMM_TYPE_SHARED": 1})
    monkeypatch.setitem(launch.sys.modules, "mpi4py.MPI", kind)
    monkeypatch.setattr(launch.threads, "is_chosen", lambda: False)
    monkeypatch.setattr(launch.threads, "allowed_cpus", lambda: {0, 1, 2, 3})
    monkeypatch.setattr(launch.threads, "get_num_threads", lambda: 4)
    found = []
    monkeypatch.setattr(launch.threads, "set_num_threads", found.append)
    monkeypatch.setattr(launch.threads, "forget_chosen", lambda: found.append("none"))
    with launch.own_threads(OnOneMachine(peers)):
        assert found == [want]
    assert found == [want, "none"]


def test_a_number_of_threads_that_was_chosen_stays(one_thread):
    with launch.own_threads(OnOneMachine([{0}])):
        assert fastrnn.get_num_threads() == 1
