# SPDX-License-Identifier: BSD-3-Clause
"""Memory that runs out within a call: nothing changes, and the next call is right."""

import _thread
import signal
import threading
import time

import numpy as np
import pytest
from faults import each_failure

import fastrnn
from fastrnn.text.model import CharModel
from fastrnn.text.vocabulary import CharVocabulary

T, B, I, H = 6, 3, 4, 5
LENGTHS = [2, 6, 4]


@pytest.fixture
def one_thread():
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(1)
    yield
    fastrnn.set_num_threads(before)


def array(*shape):
    return np.random.default_rng(7).standard_normal(shape, dtype="float32")


def mask():
    return np.array([[1, 0, 1, 1, 0, 0], [1] * 6, [0, 1, 1, 0, 1, 0]], bool)


def recurrent(kind="LSTM", call=None, **options):
    """Of a layer with these options, called with those."""

    def make():
        layer = getattr(fastrnn, kind)(I, H, seed=0, **options)
        x = array(B, T, I) if layer.batch_first else array(T, B, I)
        y, _ = layer(x, **(call or {}))
        return layer, lambda: layer.backward(array(*y.shape))

    return make


def of(make_layer, *inputs):
    """Of a layer that has one output, or whose output comes first."""

    def make():
        layer = make_layer()
        y = layer(*inputs)
        y = y[0] if isinstance(y, tuple) else y
        return layer, lambda: layer.backward(array(*y.shape))

    return make


def flow():
    layer = fastrnn.GRU(I, H, 2, seed=0)
    y, _ = layer(array(T, B, I))
    return layer, lambda: layer.backward(array(*y.shape), record_flow=True)


def crf():
    layer = fastrnn.CRF(4, seed=0)
    tags = np.random.default_rng(0).integers(0, 4, (T, B))
    layer(array(T, B, 4), tags, LENGTHS)
    return layer, layer.backward


def char_model():
    vocabulary = CharVocabulary("abcdef")
    model = CharModel(vocabulary, "gru", 4, 5, 2, seed=0)
    model(np.arange(T * B).reshape(T, B) % 6)
    return model, lambda: model.backward(array(T, B, len(vocabulary)))


def encoder_decoder():
    encoder, decoder = fastrnn.GRU(I, H, seed=0), fastrnn.GRU(I, H, seed=1)
    model = fastrnn.EncoderDecoder(
        encoder, decoder, 7, 8, start=0, end=1, attention="additive", seed=2
    )
    model(np.arange(B * T).reshape(B, T) % 7, np.arange(B * 4).reshape(B, 4) % 8)
    return model, lambda: model.backward(array(B, 4, 8))


def generator():
    model = fastrnn.Generator(7, fastrnn.LSTM(I, H, seed=0), vector_size=3, seed=1)
    model(np.arange(B * T).reshape(B, T) % 7, vector=array(B, 3))
    return model, lambda: model.backward(array(B, T, 7))


def window():
    layer = fastrnn.LSTM(I, H, 2, seed=0)
    found = list(fastrnn.tbptt(array(3 * T, B, I), T, 2 * T))
    for one in found:
        y = one.forward(layer)
    return layer, lambda: found[-1].backward(layer, array(*y.shape))


def sequential():
    shared = fastrnn.Linear(H, H, seed=3)
    return fastrnn.Sequential(
        fastrnn.Embedding(9, I, seed=0, sparse=True),
        fastrnn.LSTM(I, H, 2, seed=1),
        fastrnn.Dropout(0.5, seed=2),
        shared,
        fastrnn.LayerNorm(H),
        shared,
        fastrnn.TimeDistributed(fastrnn.Linear(H, 2, seed=4)),
    )


def functional():
    return fastrnn.Functional(
        ("series", "words"),
        [
            (fastrnn.LSTM(I, H, seed=0), "series", "steps"),
            (fastrnn.Embedding(9, H, seed=1), "words", "vectors"),
            (fastrnn.Multiply(), ("steps", "vectors"), "both"),
            (fastrnn.GlobalMaxPooling1D(), "both", "most"),
            (fastrnn.Linear(H, 2, seed=2), "most", "y"),
        ],
        "y",
    )


def attention(kind):
    def make():
        layer = fastrnn.Attention(I, I, kind, seed=0)
        y, weights = layer(array(T, B, I), array(4, B, I), [1, 4, 2])
        gradients = array(*y.shape), array(*weights.shape)
        return layer, lambda: layer.backward(*gradients)

    return make


INDICES = np.arange(T * B).reshape(T, B) % 9
BACKWARDS = {
    "dense": recurrent(num_layers=2, bidirectional=True),
    "projection": recurrent(proj_size=2, peephole=True),
    "batch first": recurrent("GRU", batch_first=True, dropout=0.5, num_layers=2),
    "ragged": recurrent("GRU", {"lengths": LENGTHS}, bidirectional=True),
    "masked": recurrent("RNN", {"mask": mask()}, num_layers=2),
    "last": recurrent("GRU", return_sequences=False, bidirectional=True),
    "learned": recurrent(learn_initial_state=True),
    "blocks": recurrent(num_layers=2, checkpoint_every=2),
    "blocks by layer": recurrent(
        num_layers=2, checkpoint_every=2, bidirectional=True, dropout=0.5
    ),
    "composed": recurrent(
        "GRU", num_layers=2, connection="highway", merge_mode="mul", bidirectional=True
    ),
    "composed blocks": recurrent(
        "GRU", {"mask": mask()}, num_layers=2, connection="residual", checkpoint_every=2
    ),
    "flow": flow,
    "Linear": of(lambda: fastrnn.Linear(I, H, seed=0), array(T, B, I)),
    "Embedding": of(lambda: fastrnn.Embedding(9, I, seed=0), INDICES),
    "sparse Embedding": of(
        lambda: fastrnn.Embedding(9, I, sparse=True, seed=0), INDICES
    ),
    "LayerNorm": of(lambda: fastrnn.LayerNorm(I), array(T, B, I)),
    "BatchNormalization": of(
        lambda: fastrnn.BatchNormalization(num_features=I), array(T, B, I)
    ),
    "Conv1D": of(lambda: fastrnn.Conv1D(H, 2, in_channels=I, seed=0), array(T, B, I)),
    "Functional": of(functional, array(T, B, I), INDICES),
    "Dropout": of(lambda: fastrnn.Dropout(0.5, seed=0), array(T, B, I)),
    "Concatenate": of(fastrnn.Concatenate, array(T, B, I), array(T, B, H)),
    "Bidirectional": of(
        lambda: fastrnn.Bidirectional(fastrnn.GRU(I, H, seed=0), "mul"), array(T, B, I)
    ),
    "CRF": crf,
    "dot": attention("dot"),
    "general": attention("general"),
    "additive": attention("additive"),
    "Sequential": of(sequential, INDICES),
    "CharModel": char_model,
    "EncoderDecoder": encoder_decoder,
    "Generator": generator,
    "Window": window,
}


def in_one(result):
    """All arrays of a result, one after the other."""
    if result is None:
        return np.zeros(0, "f")
    if isinstance(result, tuple | list):
        return np.concatenate([in_one(part) for part in result])
    return np.ravel(result)


def contexts(module):
    return [(m, m.context, m.context and m.context.spent) for m in module.modules()]


@pytest.mark.parametrize("accumulates", [False, True], ids=["zero", "accumulates"])
@pytest.mark.parametrize("name", BACKWARDS)
def test_a_backward_without_memory_can_be_called_again(name, accumulates, one_thread):
    """Whichever allocation fails: gradients and contexts stay, bits are right."""

    def start():
        module, backward = BACKWARDS[name]()
        if accumulates:
            grads = module.flat_grads
            grads += np.random.default_rng(1).standard_normal(grads.size, "f")
        return module, backward

    module, backward = start()
    wanted = in_one(backward()), module._flat()[1].copy()
    module, backward = start()
    before, kept, found = module._flat()[1].copy(), contexts(module), []
    failures = 0
    for n in each_failure(lambda: found.append(backward())):
        failures += 1
        assert module._flat()[1].tobytes() == before.tobytes(), n
        assert contexts(module) == kept, n
    assert failures > 0
    assert in_one(found).tobytes() == wanted[0].tobytes()
    assert module._flat()[1].tobytes() == wanted[1].tobytes()


def test_an_interruption_between_layers_undoes_the_later_ones(monkeypatch):
    model = fastrnn.Sequential(*(fastrnn.Linear(I, I, seed=k) for k in range(3)))
    y = model(array(B, I))
    before, kept = model.flat_grads.copy(), contexts(model)

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model[1], "backward", interrupt)
        with pytest.raises(KeyboardInterrupt):
            model.backward(y)
    assert model.flat_grads.tobytes() == before.tobytes()
    assert contexts(model) == kept
    model.backward(y)
    assert model.flat_grads.any()


@pytest.mark.parametrize("sparse", [False, True])
def test_an_optimizer_without_memory_takes_no_step(sparse, one_thread):
    results = []
    for fails in (False, True):
        layer = fastrnn.Embedding(9, I, sparse=sparse, seed=0)
        optimizer = fastrnn.Adam(layer, lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            y = layer(INDICES[:2])
            layer.backward(np.ones_like(y))
            if fails:
                for _ in each_failure(optimizer.step):
                    pass
            else:
                optimizer.step()
        results.append((optimizer.n_steps, layer.state_dict()["weight"].tobytes()))
    assert results[0] == results[1]


@pytest.fixture
def interruptible():
    """A job started in the background ignores SIGINT; here Ctrl-C interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interruption_comes_between_blocks_and_undoes_them(
    one_thread, interruptible
):
    """Ctrl-C waits for `checkpoint_every` steps, not for the whole sequence."""
    layer = fastrnn.LSTM(64, 128, checkpoint_every=50, seed=0)
    x = array(2500, 8, 64)
    y, _ = layer(x)
    begin = time.perf_counter()
    layer.backward(y)
    whole = time.perf_counter() - begin
    wanted = layer.flat_grads.tobytes()
    layer.zero_grad()
    layer(x)
    kept = contexts(layer)
    took = []
    for _ in range(3):  # on a busy machine one of them may be held up
        timer = threading.Timer(whole / 10, _thread.interrupt_main)
        begin = time.perf_counter()
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            layer.backward(y)
        took.append(time.perf_counter() - begin)
        assert not layer.flat_grads.any()
        assert contexts(layer) == kept
    assert min(took) < whole / 2
    layer.backward(y)
    assert layer.flat_grads.tobytes() == wanted
