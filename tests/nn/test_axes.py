# SPDX-License-Identifier: BSD-3-Clause
"""Models take samples first however they are called; layers follow PyTorch's rule."""

import threading

import numpy as np
import pytest

import fastrnn

N, T, F = 5, 9, 3
X = np.random.default_rng(0).normal(size=(N, T, F)).astype("f")


def sequential(**options):
    return fastrnn.Sequential(
        fastrnn.LSTM(F, 4, seed=0, **options), fastrnn.Linear(4, 2, seed=1)
    )


class Own(fastrnn.Model):
    """A model of one's own, which says nothing of axes."""

    def __init__(self):
        self.gru = fastrnn.GRU(F, 4, bidirectional=True, return_sequences=False, seed=0)
        self.head = fastrnn.Linear(8, 2, seed=1)

    def forward(self, x):
        return self.head(self.gru(x)[0])

    def backward(self, dy):
        return self.gru.backward(self.head.backward(dy))[0]


MODELS = {
    "sequential": sequential,
    "last output": lambda: sequential(return_sequences=False),
    "batch first": lambda: sequential(batch_first=True),
    "checkpoints": lambda: sequential(checkpoint_every=3),
    "residual": lambda: fastrnn.Sequential(
        fastrnn.GRU(F, F, 2, connection="residual", seed=0)
    ),
    "nested": lambda: fastrnn.Sequential(
        fastrnn.Dropout(0.0), sequential(), fastrnn.RNN(2, 2, seed=2)
    ),
    "wrapped": lambda: fastrnn.Sequential(
        fastrnn.Bidirectional(fastrnn.GRU(None, 4, seed=0), "sum")
    ),
    "own": Own,
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_however_a_model_is_called_a_row_is_a_sample(make):
    model = make()
    y = model(X)
    assert len(y) == N
    for i in range(N):
        np.testing.assert_array_equal(model(X[i : i + 1])[0], y[i])
    np.testing.assert_array_equal(model.predict(X), y)
    np.testing.assert_array_equal(model.forward(X), y)
    assert not any(getattr(m, "_batch_first", False) for m in make().modules()) or (
        make is MODELS["batch first"]
    )


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_loop_written_out_is_an_epoch_of_fit(make):
    ours, theirs = make(), make()
    ours(X), theirs(X)
    target = np.ones_like(ours(X))
    ours.compile("mse", "sgd", lr=0.1)
    ours.fit(X, target, batch_size=N, shuffle=False, verbose=0)
    _, dy = fastrnn.mse_loss(theirs(X), target)
    assert theirs.backward(dy).shape == X.shape
    fastrnn.SGD(theirs, lr=0.1).step()
    np.testing.assert_array_equal(ours.flat_parameters, theirs.flat_parameters)


def test_a_layer_by_itself_keeps_its_own_rule_in_a_model_too():
    model = sequential()
    lstm, head = model.layers
    y = model(X)
    by_itself, _ = lstm(X.swapaxes(0, 1))
    np.testing.assert_array_equal(head(by_itself).swapaxes(0, 1), y)
    assert not lstm.batch_first
    assert repr(lstm) == "LSTM(3, 4)"


@pytest.mark.parametrize(
    "options",
    [{}, {"checkpoint_every": 2}, {"return_sequences": False}, {"go_backwards": True}],
    ids=str,
)
def test_a_backward_by_itself_has_the_axes_of_its_forward(options):
    """Also where as many samples as steps would hide that the axes were mixed."""
    x = np.random.default_rng(1).normal(size=(T, T, F)).astype("f")
    model = fastrnn.Sequential(fastrnn.GRU(F, 4, 2, seed=0, **options))
    dy = np.random.default_rng(2).normal(size=model(x).shape).astype("f")
    want = model.backward(dy)
    grads = model.flat_grads.copy()
    model.zero_grad()
    model(x)
    before = fastrnn.get_num_threads()
    try:
        fastrnn.set_num_threads(before % 2 + 1)  # plans are made anew
        dx, _ = model[0].backward(dy)
    finally:
        fastrnn.set_num_threads(before)
    np.testing.assert_array_equal(dx, want)
    np.testing.assert_array_equal(model.flat_grads, grads)


def test_axes_belong_to_the_thread():
    """Some run a model while others run its layer by itself."""
    model = sequential().eval()
    layer = model[0]
    want, alone = model(X), layer(X.swapaxes(0, 1))[0]
    wrong = []

    def run(call, expected):
        for _ in range(300):
            if not np.array_equal(call(), expected):
                wrong.append(call)

    calls = [
        (lambda: model(X), want),
        (lambda: layer(X.swapaxes(0, 1))[0], alone),
    ] * 2
    threads = [threading.Thread(target=run, args=one) for one in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_rule_ends_with_its_call_also_when_it_fails():
    model = sequential()
    with pytest.raises(ValueError, match="Sequential: layer 0 must be given sequences"):
        model(X[0])
    assert not model[0].batch_first
    with pytest.raises(ValueError, match=r"x\[None\]"):
        fastrnn.Sequential(fastrnn.Embedding(3, F), sequential())(np.zeros(T, int))


def test_diagnose_counts_steps_and_not_samples():
    model = sequential(return_sequences=False)
    x = np.zeros((2, 60, F), "f")
    loss = lambda y: fastrnn.mse_loss(y, np.ones_like(y))  # noqa: E731
    assert len(fastrnn.diagnose(model, x, loss).flows[0].norms) == 60
    layer = fastrnn.RNN(F, 4, seed=0)
    assert len(fastrnn.diagnose(layer, x, loss).flows[0].norms) == 2


def test_a_prompt_of_one_row_is_one_text():
    model = fastrnn.Generator(9, fastrnn.GRU(4, 8, seed=0), start=0, seed=0)
    prompt = list(range(1, 8))
    one = model.generate([prompt], max_length=3, temperature=0)
    assert len(one.tokens) == 1
    two = model.generate([prompt, prompt], max_length=3, temperature=0)
    for tokens in (*two.tokens, *model.predict([prompt], max_length=3)):
        np.testing.assert_array_equal(tokens, one.tokens[0])


def test_a_translation_is_of_each_row():
    model = fastrnn.EncoderDecoder(
        fastrnn.GRU(4, 8, seed=0), fastrnn.GRU(4, 8, seed=1), 6, 7, start=5, end=6,
        seed=2,
    )  # fmt: skip
    source = np.random.default_rng(0).integers(0, 6, (2, 4))
    whole = model.translate(source, max_length=5).tokens
    for row, got in zip(source, model.predict(source, max_length=5), strict=True):
        alone = model.translate(row[None], max_length=5).tokens
        np.testing.assert_array_equal(got, alone[0])
    assert [row.tolist() for row in whole] == [
        row.tolist() for row in model.predict(source, max_length=5)
    ]
    logits, weights = model(source, np.zeros((2, 3), int))
    assert logits.shape == (2, 3, 7)
    assert weights.shape == (2, 3, 4)


def test_a_loaded_graph_keeps_the_axes_of_its_file(tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed")
    layer = fastrnn.GRU(F, 4, seed=0)
    fastrnn.onnx.save(layer, tmp_path / "layer.onnx")  # (T, B, F), as by itself
    model = fastrnn.Sequential(fastrnn.onnx.load(tmp_path / "layer.onnx")).eval()
    np.testing.assert_array_equal(model(X), layer(X)[0])
