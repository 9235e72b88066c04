# SPDX-License-Identifier: BSD-3-Clause
"""``layer.trainable = False``: nothing of the layer is trained, all else stays."""

import copy
import pickle

import numpy as np
import pytest

import fastrnn
from fastrnn.callbacks import Callback, GradientMonitor, ModelCheckpoint
from fastrnn.recurrent import table

T, B, F, H = 5, 4, 3, 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(T, B, F)).astype("f")


def recurrent(**options):
    def make():
        layer = fastrnn.LSTM(F, H, 2, seed=0, **options)
        return layer, (X,), lambda y: layer.backward(np.ones_like(y[0]))[0]

    return make


def plain(layer, *inputs):
    return lambda: (
        (made := layer()),
        inputs,
        lambda y: made.backward(np.ones_like(y)),
    )


def attention():
    layer = fastrnn.Attention(F, F, "additive", seed=0)
    return layer, (X, X), lambda y: layer.backward(np.ones_like(y[0]))[0]


def crf():
    layer = fastrnn.CRF(F, seed=0)
    tags = RNG.integers(F, size=(T, B))
    return layer, (X, tags), lambda y: layer.backward()


def plain_recurrent(kind):
    def make():
        layer = getattr(fastrnn, kind)(F, H, seed=0)
        return layer, (X,), lambda y: layer.backward(np.ones_like(y[0]))[0]

    return make


LAYERS = {
    "Linear": plain(lambda: fastrnn.Linear(F, H, seed=0), X),
    "Embedding": plain(lambda: fastrnn.Embedding(9, H, seed=0), np.ones((T, B), int)),
    "sparse": plain(
        lambda: fastrnn.Embedding(9, H, sparse=True, seed=0), np.ones((T, B), int)
    ),
    "LayerNorm": plain(lambda: fastrnn.LayerNorm(F), X),
    "Conv1D": plain(lambda: fastrnn.Conv1D(H, 2, in_channels=F, seed=0), X),
    **{kind: plain_recurrent(kind) for kind in table.kinds()},
    "both": recurrent(bidirectional=True),
    "reset before": lambda: (
        (made := fastrnn.GRU(F, H, reset_after=False, seed=0)), (X,),
        lambda y: made.backward(np.ones_like(y[0]))[0],
    ),
    "options": recurrent(proj_size=2, peephole=True, learn_initial_state=True),
    "blocks": recurrent(checkpoint_every=2),
    "highway": recurrent(connection="highway"),
    "merged": recurrent(bidirectional=True, merge_mode="sum", checkpoint_every=2),
    "last": recurrent(return_sequences=False, learn_initial_state=True),
    "backwards": recurrent(go_backwards=True, learn_initial_state=True),
    "attention": attention,
    "crf": crf,
    "Bidirectional": plain(
        lambda: fastrnn.Bidirectional(fastrnn.GRU(F, H, seed=0), "mul"), X
    ),
    "TimeDistributed": plain(
        lambda: fastrnn.TimeDistributed(fastrnn.Linear(F, H, seed=0)), X
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_a_frozen_layer_gives_its_input_gradient_alone(name):
    layer, inputs, backward = LAYERS[name]()
    expected = backward(layer(*inputs))
    assert np.any(layer.flat_grads)
    layer.zero_grad()
    layer.trainable = False
    assert not layer.trainable
    found = backward(layer(*inputs))
    np.testing.assert_array_equal(found, expected)
    assert not np.any(layer.flat_grads)
    layer.trainable = True
    backward(layer(*inputs))
    assert np.any(layer.flat_grads)


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (False, False)])
def test_the_dense_kernel_computes_what_is_wanted(wanted, dtype, isa, n_threads):
    """Shapes of several tiles and blocks: what is left out changes nothing else."""
    from fastrnn.native import core

    N, I, O = 700, 37, 45
    rng = np.random.default_rng(1)
    x, W, dy = (rng.normal(size=s).astype(dtype) for s in ((N, I), (O, I), (N, O)))
    kernels = core.kernels(dtype)
    work = np.empty(kernels.linear_work_size(True, N, I, O, n_threads), dtype)

    def run(*grads):
        dx = np.empty_like(x)
        kernels.linear_backward(n_threads, N, I, O, x, W, dy, dx, *grads, work)
        return dx

    both = np.zeros((O, I), dtype), np.zeros(O, dtype)
    some = [np.zeros_like(g) if w else None for g, w in zip(both, wanted, strict=True)]
    np.testing.assert_array_equal(run(*some), run(*both))
    for found, expected in zip(some, both, strict=True):
        if found is not None:
            np.testing.assert_array_equal(found, expected)


# -- clipping and optimisers ---------------------------------------------------------

OPTIMIZERS = {
    "SGD": {"momentum": 0.9, "weight_decay": 0.1},
    "RMSprop": {"momentum": 0.9, "centered": True, "weight_decay": 0.1},
    "Adagrad": {"weight_decay": 0.1},
    "Adam": {"amsgrad": True, "weight_decay": 0.1},
    "AdamW": {},
}


def stack(sparse=False):
    return fastrnn.Sequential(
        fastrnn.Embedding(9, F, sparse=sparse, seed=0),
        fastrnn.GRU(F, H, seed=1),
        fastrnn.Linear(H, 2, seed=2),
    )


TOKENS = RNG.integers(9, size=(6, T, B))


def step(model, optimizer, tokens, max_norm=0.5):
    model.zero_grad()
    model.backward(np.ones_like(model(tokens)))
    fastrnn.clip_grad_value_(model, 1.0)
    norm = fastrnn.clip_grad_norm_(model, max_norm)
    optimizer.step()
    return norm


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_clipping_and_optimisers_leave_frozen_layers_alone(name, sparse):
    """Thawed, frozen while it has state, thawed again: as if it were not there."""
    model = stack(sparse)
    make = getattr(fastrnn, name)
    optimizer = make(model, lr=0.01, **OPTIMIZERS[name])
    step(model, optimizer, TOKENS[0])
    model[0].trainable = model[2].trainable = False
    model.flat_grads[:] = np.nan  # neither read nor written but for the GRU's
    before, kept = model.state_dict(), optimizer.state_dict()
    gru = model[1]
    gru.zero_grad()
    gru(model[0](TOKENS[1]))
    gru.backward(np.full((T, B, H), 3.0))
    norm = np.linalg.norm(np.clip(gru.flat_grads.astype(float), -1, 1))
    fastrnn.clip_grad_value_(model, 1.0)
    assert fastrnn.clip_grad_norm_(model, 0.5) == pytest.approx(norm, rel=1e-6)
    assert np.linalg.norm(gru.flat_grads) == pytest.approx(min(norm, 0.5), rel=1e-5)
    optimizer.step()
    after, state = model.state_dict(), optimizer.state_dict()
    for key, value in before.items():
        assert np.array_equal(after[key], value) != key.startswith("1."), key
    sizes = [layer.flat_parameters.size for layer in model]
    own = slice(sizes[0], sizes[0] + sizes[1])
    for key, value in kept.items():
        if value.ndim and key != "betas":
            assert not np.array_equal(state[key][own], value[own])
            for rest in (slice(own.start), slice(own.stop, None)):
                np.testing.assert_array_equal(state[key][rest], value[rest])
    assert np.isnan(model[2].flat_grads).all()
    model.trainable = True
    step(model, optimizer, TOKENS[2])
    assert all(
        not np.array_equal(value, after[key])
        for key, value in model.state_dict().items()
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_sparse_table_freezes_as_a_dense_one(name):
    """Rows that have missed steps take them when the table is frozen, with their lr."""
    models = [stack(sparse) for sparse in (False, True)]
    for model in models:
        optimizer = getattr(fastrnn, name)(model, lr=0.01, **OPTIMIZERS[name])
        for i, tokens in enumerate(TOKENS):
            model[0].trainable = i not in (2, 3)
            optimizer.lr = 0.01 * (i + 1)
            step(model, optimizer, tokens)
    np.testing.assert_array_equal(models[0].flat_parameters, models[1].flat_parameters)


def test_an_infinite_norm_leaves_frozen_gradients():
    model = fastrnn.Sequential(
        fastrnn.Linear(1, 1, seed=0), fastrnn.Linear(1, 1, seed=1)
    )
    model[0].trainable = False
    model[0].flat_grads[:] = 2
    model[1].flat_grads[:] = np.inf
    fastrnn.clip_grad_norm_(model, 1.0)
    np.testing.assert_array_equal(model[0].flat_grads, 2)
    assert np.isnan(model[1].flat_grads).all()


def test_a_model_that_is_frozen_whole_stays():
    model = stack()
    optimizer = fastrnn.AdamW(model)
    model.trainable = False
    before = model.state_dict()
    assert step(model, optimizer, TOKENS[0]) == 0.0
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


def test_training_with_a_frozen_layer_is_pytorchs():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    ours = fastrnn.Sequential(fastrnn.LSTM(F, H, seed=0), fastrnn.Linear(H, 2, seed=1))
    lstm, head = torch.nn.LSTM(F, H), torch.nn.Linear(H, 2)
    tensors = {k: torch.from_numpy(v.copy()) for k, v in ours.state_dict().items()}
    for i, layer in enumerate((lstm, head)):
        own = {k[2:]: v for k, v in tensors.items() if k[0] == str(i)}
        layer.load_state_dict(own)
    ours[0].trainable = False
    for p in lstm.parameters():
        p.requires_grad = False
    optimizer = fastrnn.AdamW(ours, lr=0.05)
    parameters = [*lstm.parameters(), *head.parameters()]
    theirs = torch.optim.AdamW(parameters, lr=0.05)
    x = torch.from_numpy(X).transpose(0, 1)  # a model takes samples first
    for _ in range(3):
        ours.zero_grad()
        y = ours(X)
        ours.backward(2 * y)
        norm = fastrnn.clip_grad_norm_(ours, 1.0)
        optimizer.step()
        theirs.zero_grad()
        (head(lstm(x)[0]) ** 2).sum().backward()
        right = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        theirs.step()
        assert norm == pytest.approx(float(right), rel=1e-4)
    for k, p in {**lstm.state_dict()}.items():
        np.testing.assert_array_equal(ours.state_dict()[f"0.{k}"], p.numpy())
    for k, p in {**head.state_dict()}.items():
        np.testing.assert_allclose(
            ours.state_dict()[f"1.{k}"], p.numpy(), rtol=1e-4, atol=1e-5
        )


# -- containers, files, texts --------------------------------------------------------


def test_a_container_passes_it_on():
    model = stack()
    assert model.trainable
    model.trainable = False
    assert not any(module.trainable for module in model.modules())
    model[2].trainable = True
    assert model.trainable  # something in it is
    assert not model[1].trainable
    translator = fastrnn.EncoderDecoder(
        fastrnn.GRU(F, H, bidirectional=True, seed=0), fastrnn.GRU(F, H, seed=1), 9, 9,
        start=0, end=1, attention="additive", seed=2,
    )  # fmt: skip
    translator.encoder.trainable = translator.source.trainable = False
    translator.attention.trainable = False
    translator.compile(lr=0.1)
    before = translator.state_dict()
    translator.fit([[2, 3], [4]], [[5], [6, 7]], verbose=0)
    for name, value in translator.state_dict().items():
        stays = name.split(".")[0] in ("encoder", "source", "attention")
        assert np.array_equal(value, before[name]) == stays, name


def test_a_dropout_has_no_parameters_but_the_flag():
    layer = fastrnn.Dropout()
    assert layer.trainable
    layer.trainable = False
    assert not layer.trainable


@pytest.mark.parametrize("value", [0, "no", None])
def test_it_is_true_or_false(value):
    layer = fastrnn.Linear(1, 1)
    with pytest.raises(TypeError, match=r"^Linear: trainable must be True or False, g"):
        layer.trainable = value
    assert layer.trainable


def test_a_layer_without_its_size_can_be_frozen():
    layer = fastrnn.GRU(None, H, seed=0)
    layer.trainable = False
    assert not layer.trainable
    model = fastrnn.Sequential(layer, fastrnn.Linear(None, 1, seed=1)).build((T, F))
    assert not model[0].trainable
    assert model[1].trainable
    both = fastrnn.Bidirectional(model[0])
    assert not both.layer.trainable


def test_copies_and_files_keep_it(tmp_path):
    model = stack()
    model[1].trainable = False
    model.save(tmp_path / "model")
    for again in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        fastrnn.load_model(tmp_path / "model"),
    ):
        assert [layer.trainable for layer in again] == [True, False, True]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras's own
def test_layers_that_keras_froze_stay_frozen(tmp_path, keras):
    theirs = keras.Sequential([
        keras.Input((T, F)),
        keras.layers.Bidirectional(keras.layers.GRU(H, return_sequences=True)),
        keras.layers.LSTM(H), keras.layers.Dense(2), keras.layers.Dense(1),
    ])  # fmt: skip
    theirs.layers[0].trainable = theirs.layers[2].trainable = False
    theirs.save(tmp_path / "model.keras")
    ours = fastrnn.keras.load(tmp_path / "model.keras")
    assert [layer.trainable for layer in ours] == [False, True, False, True]


def test_summary_counts_what_is_trained(capsys):
    model = stack()
    model[1].trainable = False
    sizes = [layer.flat_parameters.size for layer in model]
    model.summary()
    text = capsys.readouterr().out
    assert f"\n{sizes[0] + sizes[2]} are trainable, {sizes[1]} are not\n" in text


def compiled():
    model = fastrnn.Sequential(
        fastrnn.LSTM(F, H, return_sequences=False, seed=0), fastrnn.Linear(H, 1, seed=1)
    )
    model.compile("mse", "adam", lr=0.05)
    return model


def test_the_gradient_monitor_leaves_frozen_layers_out():
    model, monitor = compiled(), GradientMonitor()
    model[0].trainable = False
    model.fit(X, X[:, 0, :1], callbacks=[monitor], verbose=0)
    assert list(monitor.mean) == ["1"]


class Thaw(Callback):
    """The lower layer joins in the third epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            self.model[0].trainable = True


def test_a_resumed_run_has_the_layers_frozen_that_were(tmp_path):
    def train(model, path, epochs, **options):
        model[0].trainable = False
        callbacks = [Thaw(), ModelCheckpoint(tmp_path / path)]
        model.fit(
            X, X[:, 0, :1], epochs=epochs, callbacks=callbacks, seed=0, verbose=0,
            **options,
        )  # fmt: skip

    whole, first, second = compiled(), compiled(), compiled()
    train(whole, "whole", 5)
    train(first, "first", 3)
    train(second, "second", 5, resume=tmp_path / "first")
    np.testing.assert_array_equal(second.flat_parameters, whole.flat_parameters)
