# SPDX-License-Identifier: BSD-3-Clause
"""`fit` and the rest of `Model` for models that write, and for CRF and CTC.

The judges are loops written out with the functions that have tests of their own,
PyTorch, and small tasks that a model either has learned or not.
"""

import copy
import subprocess
import sys

import numpy as np
import pytest

import fastrnn
from fastrnn.callbacks import EarlyStopping, ModelCheckpoint

START, END = 10, 11
ELSEWHERE = """
import sys, numpy as np, fastrnn
model = fastrnn.load_model(sys.argv[1])
x = [row for row in np.load(sys.argv[2], allow_pickle=False)]
found = model.predict(x)
np.save(sys.argv[3], np.concatenate([np.append(row, -1) for row in found]))
np.save(sys.argv[4], model.flat_parameters)
print(type(model).__name__, type(model.optimizer).__name__, model.loss.name,
      [metric.name for metric in model.metrics])
"""


def reverser(dtype="float32", **options):
    model = fastrnn.EncoderDecoder(
        fastrnn.GRU(12, 24, dtype=dtype, seed=0),
        fastrnn.GRU(12, 24, dtype=dtype, seed=1),
        10, 12, start=START, end=END, seed=2, **options,
    )  # fmt: skip
    model.compile(optimizer="adam", metrics=["accuracy", "perplexity"], lr=0.01)
    return model


def digits(rng, n, longest=4):
    sources = [rng.integers(0, 10, rng.integers(1, longest + 1)) for _ in range(n)]
    return sources, [source[::-1] for source in sources]


def padded(rows, value=-100):
    array = np.full((len(rows), max(map(len, rows))), value)
    for b, row in enumerate(rows):
        array[b, : len(row)] = row
    return array


def the_same_elsewhere(model, x, tmp_path):
    """A saved model, loaded by another process, has and gives the same bits."""
    model.save(tmp_path / "model.safetensors")
    np.save(tmp_path / "x.npy", np.stack(x))
    files = ["model.safetensors", "x.npy", "found.npy", "parameters.npy"]
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *(str(tmp_path / name) for name in files)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    ours = np.concatenate([np.append(row, -1) for row in model.predict(list(x))])
    np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), ours)
    parameters = np.load(tmp_path / "parameters.npy")
    np.testing.assert_array_equal(parameters, model.flat_parameters)
    return done.stdout.strip()


# -- encoder-decoder -----------------------------------------------------------------


@pytest.mark.parametrize("attention", ["general", "additive", "dot", None])
def test_an_epoch_of_an_encoder_decoder_is_the_loop_written_out(attention, rng):
    ours, theirs = (reverser("float64", attention=attention) for _ in range(2))
    sources, targets = digits(rng, 16)
    history = ours.fit(
        sources, targets, batch_size=16, shuffle=False, clip_norm=0.5, verbose=0
    )
    lengths = np.array([len(source) for source in sources])
    inputs, outputs = fastrnn.teacher_forcing(targets, START, END)
    optimizer = fastrnn.Adam(theirs, lr=0.01)
    logits, _ = theirs(padded(sources, 0), inputs, lengths)
    loss, d = fastrnn.cross_entropy(logits, outputs)
    theirs.zero_grad()
    theirs.backward(d)
    fastrnn.clip_grad_norm_(theirs, 0.5)
    optimizer.step()
    assert history.history["loss"] == pytest.approx([loss], rel=1e-12)
    counted = outputs != -100
    right = logits.argmax(-1)[counted] == outputs[counted]
    assert history.history["accuracy"] == [pytest.approx(right.mean())]
    assert history.history["perplexity"] == [pytest.approx(np.exp(loss))]
    np.testing.assert_allclose(
        ours.flat_parameters, theirs.flat_parameters, rtol=0, atol=1e-9
    )


def test_an_encoder_decoder_learns_writes_and_is_saved(tmp_path, rng, capsys):
    model = reverser(attention="additive", units=16, dropout=0.1)
    sources, targets = digits(rng, 800)
    stopping = EarlyStopping("val_accuracy", patience=20, restore_best_weights=True)
    history = model.fit(
        sources, targets, epochs=25, validation_split=0.1, callbacks=[stopping],
        clip_norm=1.0, seed=0, verbose=0,
    )  # fmt: skip
    assert set(history.history) >= {"loss", "val_loss", "val_accuracy", "perplexity"}
    fresh, right = digits(np.random.default_rng(99), 100)
    for options in ({}, {"beam_width": 3}, {"batch_size": 7}):
        written = model.predict(fresh, max_length=8, **options)
        same = [np.array_equal(a, b) for a, b in zip(written, right, strict=True)]
        assert np.mean(same) > 0.9
    assert model.evaluate(fresh, right, return_dict=True)["accuracy"] > 0.9
    drawn = [model.predict(fresh, temperature=3.0, seed=s) for s in (1, 1, 2)]
    a, b, c = (np.concatenate(rows).tolist() for rows in drawn)
    assert a == b != c
    model.build((4,)).save(tmp_path / "shown.safetensors")
    for one in (model, fastrnn.load_model(tmp_path / "shown.safetensors")):
        one.summary()
        shown = " ".join(capsys.readouterr().out.split())
        S = len(fresh[0])
        assert f"encoder GRU (N, {S}, 24)" in shown
        assert f"head Linear (N, {S + 1}, 12)" in shown
    x = rng.integers(0, 10, (9, 3))
    assert the_same_elsewhere(model, x, tmp_path) == (
        "EncoderDecoder Adam sparse_categorical_crossentropy ['accuracy', 'perplexity']"
    )
    assert copy.deepcopy(model).predict(x[:1])[0].tolist() == (
        model.predict(x[:1])[0].tolist()
    )
    assert not model.encoder.batch_first  # by itself it is as it was made


def test_sources_and_targets_come_in_many_forms(rng):
    sources, targets = digits(rng, 20)
    lengths = [len(source) for source in sources]
    model = reverser()
    want = model.evaluate(sources, targets, return_dict=True)
    forms = [
        (padded(sources), padded(targets)),
        ((padded(sources, 0), lengths), (padded(targets, 0), lengths)),
        ([s.tolist() for s in sources], [t.tolist() for t in targets]),
        (sources, [[START, *target, END] for target in targets]),
        (sources, [[*target, END] for target in targets]),
        (sources, padded(targets)[..., None]),
    ]
    for x, y in forms:
        assert model.evaluate(x, y, return_dict=True) == want
    some = model.predict(sources, max_length=5)
    for got, again in zip(some, model.predict(forms[1][0], max_length=5), strict=True):
        np.testing.assert_array_equal(got, again)
    # Means are over tokens: how they are cut into batches does not matter.
    for size in (3, 7):
        again = model.evaluate(sources, targets, batch_size=size, return_dict=True)
        assert again == pytest.approx(want, rel=1e-5)


def test_features_as_sources(rng):
    model = fastrnn.EncoderDecoder(
        fastrnn.LSTM(3, 16, bidirectional=True, seed=0), fastrnn.LSTM(8, 16, seed=1),
        None, 5, start=0, end=1, seed=2,
    )  # fmt: skip
    model.compile(optimizer="adam", lr=0.02)
    labels = [rng.integers(2, 5, rng.integers(1, 4)) for _ in range(300)]
    x = [np.repeat(np.eye(3)[row - 2], 2, axis=0) for row in labels]
    model.fit(x, labels, epochs=15, batch_size=16, seed=0, verbose=0)
    written = model.predict(x, max_length=6)
    same = [np.array_equal(a, b) for a, b in zip(written, labels, strict=True)]
    assert np.mean(same) > 0.9


def test_sample_weights_of_written_sequences(rng):
    sources, targets = digits(rng, 6)
    model = reverser("float64")
    n = np.array([len(target) + 1 for target in targets])
    alone = [
        model.evaluate([s], [t], return_dict=True)["loss"]
        for s, t in zip(sources, targets, strict=False)
    ]
    weight = np.arange(6.0)
    found = model.evaluate(sources, targets, sample_weight=weight, return_dict=True)[
        "loss"
    ]
    assert found == pytest.approx(np.sum(weight * n * alone) / n.sum(), rel=1e-9)


def test_a_run_goes_on_from_a_checkpoint(tmp_path, rng):
    sources, targets = digits(rng, 64)
    options = {"seed": 3, "verbose": 0, "batch_size": 16}
    whole = reverser(dropout=0.2)
    path = tmp_path / "run.safetensors"
    whole.fit(sources, targets, epochs=4, **options)
    half, again = reverser(dropout=0.2), reverser(dropout=0.2)
    half.fit(sources, targets, epochs=2, callbacks=[ModelCheckpoint(path)], **options)
    again.fit(
        sources, targets, epochs=4, callbacks=[ModelCheckpoint(path)], resume=path,
        **options,
    )  # fmt: skip
    np.testing.assert_array_equal(again.flat_parameters, whole.flat_parameters)


# -- generator -----------------------------------------------------------------------


def counter(vector_size=None, dtype="float32", **options):
    model = fastrnn.Generator(
        12, fastrnn.LSTM(8, 24, dtype=dtype, seed=0),
        vector_size=vector_size, start=START, end=END, seed=1, **options,
    )  # fmt: skip
    model.compile(optimizer="adam", metrics=["accuracy"], lr=0.02)
    return model


@pytest.mark.parametrize("vector_size", [None, 3])
def test_an_epoch_of_a_generator_is_the_loop_written_out(vector_size, rng):
    ours, theirs = (counter(vector_size, "float64") for _ in range(2))
    y = [rng.integers(0, 10, n) for n in (3, 1, 5, 2)]
    vectors = None if vector_size is None else rng.normal(size=(4, 3))
    history = ours.fit(vectors, y, shuffle=False, verbose=0)
    inputs, outputs = fastrnn.teacher_forcing(y, START, END)
    optimizer = fastrnn.Adam(theirs, lr=0.02)
    logits, _ = theirs(inputs, vectors)
    loss, d = fastrnn.cross_entropy(logits, outputs)
    theirs.zero_grad()
    theirs.backward(d)
    optimizer.step()
    assert history.history["loss"] == pytest.approx([loss], rel=1e-12)
    np.testing.assert_allclose(
        ours.flat_parameters, theirs.flat_parameters, rtol=0, atol=1e-9
    )


def test_prompts_are_read_and_not_learned(rng):
    """The loss of what follows a prompt is that of whole sequences' later steps."""
    model = counter(dtype="float64")
    whole = [rng.integers(0, 10, 6) for _ in range(3)]
    prompts = [row[:n] for row, n in zip(whole, (1, 2, 4), strict=True)]
    rest = [row[n:] for row, n in zip(whole, (1, 2, 4), strict=True)]
    found = model.evaluate(prompts, rest, return_dict=True)["loss"]
    losses = []
    for row, n in zip(whole, (1, 2, 4), strict=True):
        with model._evaluating():
            logits, _ = model(row[None])
        right = np.append(row[n:], END)
        losses += [
            -(one[token] - np.log(np.exp(one).sum()))
            for one, token in zip(logits[0, n - 1 :], right, strict=True)
        ]
    assert found == pytest.approx(np.mean(losses), rel=1e-9)


def test_a_generator_learns_from_seed_vectors(tmp_path, rng):
    """Count from the digit that a vector shows to 9."""
    model = counter(10)
    vectors = np.eye(10, dtype="f")
    y = [np.arange(digit, 10) for digit in range(10)]
    model.fit(vectors, y, epochs=150, batch_size=5, seed=0, verbose=0)
    for options in ({}, {"beam_width": 2}, {"batch_size": 3}):
        for got, right in zip(model.predict(vectors, **options), y, strict=True):
            np.testing.assert_array_equal(got, right)
    drawn = model.predict(vectors, temperature=5.0, seed=0)
    assert any(not np.array_equal(a, b) for a, b in zip(drawn, y, strict=True))
    (got,) = model.predict((vectors[3:4], [[START, 3, 4]]))
    np.testing.assert_array_equal(got, np.arange(5, 10))
    assert the_same_elsewhere(model, vectors, tmp_path).startswith("Generator Adam")


def test_a_generator_goes_on_from_seed_tokens(tmp_path):
    model = counter()
    seeds = list(range(9))
    y = [np.arange(digit + 1, 10) for digit in seeds]
    model.fit(seeds, y, epochs=100, batch_size=3, seed=0, verbose=0)
    for got, right in zip(model.predict(seeds), y, strict=True):
        np.testing.assert_array_equal(got, right)
    # Prompts of many lengths in one batch, each as if it were alone.
    prompts = [[2], [2, 3, 4], [0, 1], [7]]
    together = model.predict(prompts)
    for prompt, got in zip(prompts, together, strict=True):
        np.testing.assert_array_equal(model.predict([prompt])[0], got)
        np.testing.assert_array_equal(got, np.arange(prompt[-1] + 1, 10))
    the_same_elsewhere(model, np.array([[2, 3], [4, 5]]), tmp_path)


@pytest.mark.parametrize("vector_size", [None, 3])
def test_windows_of_a_generators_sequences(vector_size, rng):
    ours, theirs = (counter(vector_size, "float64") for _ in range(2))
    y = [rng.integers(0, 10, n) for n in (7, 2, 6, 1)]
    vectors = None if vector_size is None else rng.normal(size=(4, 3))
    ours.fit(vectors, y, tbptt=3, shuffle=False, verbose=0)
    order = np.argsort([len(row) for row in y])
    inputs, outputs = fastrnn.teacher_forcing([y[i] for i in order], START, END)
    optimizer, state = fastrnn.Adam(theirs, lr=0.02), None
    for window in (slice(0, 3), slice(3, 6), slice(6, 9)):
        first = None if vectors is None or state is not None else vectors[order]
        logits, state = theirs(inputs[:, window], first, state)
        _, d = fastrnn.cross_entropy(logits, outputs[:, window])
        theirs.zero_grad()
        theirs.backward(d)
        optimizer.step()
    np.testing.assert_allclose(
        ours.flat_parameters, theirs.flat_parameters, rtol=0, atol=1e-9
    )


# -- CRF -----------------------------------------------------------------------------


def tagger(dtype="float32"):
    return fastrnn.Sequential(
        fastrnn.Embedding(6, 8, dtype=dtype, seed=0),
        fastrnn.Bidirectional(fastrnn.LSTM(None, 12, dtype=dtype, seed=1)),
        fastrnn.Linear(None, 3, dtype=dtype, seed=2),
        fastrnn.CRF(3, dtype=dtype, seed=3),
    )


def tagged(rng, n):
    """The tag of a step is where in a run of one token it is: first, later, alone."""
    x = [rng.integers(0, 6, rng.integers(3, 7)) for _ in range(n)]
    y = []
    for row in x:
        before = np.append(False, row[1:] == row[:-1])
        after = np.append(row[1:] == row[:-1], False)
        y.append(np.where(before, 1, np.where(after, 0, 2)))
    return x, y


def test_the_loss_of_a_crf_is_that_of_each_sequence_alone(rng):
    x, y = tagged(rng, 12)
    model = tagger("float64")
    model.compile("crf", "sgd", metrics=["accuracy"], lr=0.1)
    found = model.evaluate(x, y, return_dict=True)
    crf, losses, right = model[-1], [], []
    for row, tags in zip(x, y, strict=True):
        with model._evaluating():
            emissions = model(row[None])
            emissions = emissions.swapaxes(0, 1)  # as a layer by itself takes them
            losses.append(crf(emissions, tags[:, None]))
        right += (crf.decode(emissions)[0][:, 0] == tags).tolist()
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-12)
    assert found["accuracy"] == pytest.approx(np.mean(right))
    # One step of the optimiser, transitions included.
    theirs = tagger("float64")
    same = [i for i, row in enumerate(x) if len(row) == len(x[0])]
    xs, ys = np.stack([x[i] for i in same]), np.stack([y[i] for i in same])
    model.fit(xs, ys, shuffle=False, verbose=0)
    theirs[-1](theirs(xs).swapaxes(0, 1), ys.T)
    theirs.backward(theirs[-1].backward().swapaxes(0, 1))
    fastrnn.SGD(theirs, lr=0.1).step()
    np.testing.assert_allclose(
        model.flat_parameters, theirs.flat_parameters, rtol=0, atol=1e-12
    )
    assert abs(theirs.grads["3.transitions"]).max() > 0


def test_a_tagger_with_a_crf_learns(tmp_path, rng, capsys):
    x, y = tagged(rng, 400)
    model = tagger()
    model.compile("crf", "adam", metrics=["accuracy"], lr=0.02)
    history = model.fit(x, y, epochs=15, validation_split=0.1, seed=0, verbose=0)
    assert history.last["val_accuracy"] > 0.97
    fresh, right = tagged(np.random.default_rng(5), 50)
    got = model.predict(fresh)
    assert np.mean(np.concatenate(got) == np.concatenate(right)) > 0.97
    raw = model.predict(fresh, decode=False)
    assert [row.shape for row in raw] == [(len(row), 3) for row in fresh]
    model.summary()
    assert "3 CRF" in capsys.readouterr().out
    whole = rng.integers(0, 6, (8, 5))
    said = the_same_elsewhere(model, whole, tmp_path)
    assert said == "Sequential Adam crf ['accuracy']"
    # A model that was never compiled has tags, too.
    plain = tagger().build((5,))
    plain.flat_parameters[:] = model.flat_parameters
    np.testing.assert_array_equal(plain.predict(whole), model.predict(whole))


def test_tags_of_padding_do_not_count(rng):
    model = fastrnn.Sequential(fastrnn.Linear(2, 3, seed=0), fastrnn.CRF(3, seed=1))
    model.compile("crf", "sgd", metrics=["accuracy"])
    x, y = rng.normal(size=(4, 5, 2)).astype("f"), rng.integers(0, 3, (4, 5))
    lengths = np.array([5, 2, 4, 1])
    y[np.arange(5) >= lengths[:, None]] = -100
    alone = [
        model.evaluate(x[i : i + 1, :n], y[i : i + 1, :n], return_dict=True)["loss"]
        for i, n in enumerate(lengths)
    ]
    assert model.evaluate(x, y, return_dict=True)["loss"] == pytest.approx(
        np.mean(alone), rel=1e-6
    )
    weight = np.array([2.0, 0.0, 1.0, 0.5])
    weighted = model.evaluate(x, y, sample_weight=weight, return_dict=True)["loss"]
    assert weighted == pytest.approx(np.mean(weight * alone), rel=1e-6)


# -- CTC -----------------------------------------------------------------------------


def test_the_loss_of_ctc_is_pytorchs(rng):
    torch = pytest.importorskip("torch", reason="compares with PyTorch's ctc_loss")
    model = fastrnn.Sequential(fastrnn.Linear(3, 5, dtype="float64", seed=0))
    model.compile("ctc", "sgd", metrics=["label_error_rate"])
    x = rng.normal(size=(4, 9, 3))
    y = [rng.integers(1, 5, n) for n in (3, 1, 0, 4)]
    found = model.evaluate(x, y, batch_size=3, return_dict=True)
    log_p = torch.log_softmax(torch.tensor(model.predict(x, decode=False)), -1)
    lengths = torch.tensor([3, 1, 0, 4])
    flat = torch.tensor(np.concatenate(y))
    want = torch.nn.functional.ctc_loss(
        log_p.swapaxes(0, 1), flat, torch.full((4,), 9), lengths
    )
    assert found["loss"] == pytest.approx(want.item(), rel=1e-9)
    weight = np.array([1.0, 2.0, 0.0, 0.5])
    rows = torch.nn.functional.ctc_loss(
        log_p.swapaxes(0, 1), flat, torch.full((4,), 9), lengths, reduction="none"
    )
    want = np.mean(weight * rows.numpy() / np.maximum(lengths.numpy(), 1))
    assert model.evaluate(x, y, sample_weight=weight, return_dict=True)[
        "loss"
    ] == pytest.approx(want)


@pytest.mark.parametrize("weight", [None, np.array([1.0, 0.5, 3.0])])
def test_the_gradient_of_ctc_is_that_of_its_loss(weight, rng):
    loss = fastrnn.objectives.by_name("test", "ctc")
    pred = rng.normal(size=(3, 6, 4))
    target = loss.targets("test", [[1, 2], [3], [1, 1, 2]])
    _, d = loss(pred, target, weight)
    for at in [(0, 0, 0), (1, 3, 2), (2, 5, 1), (2, 0, 3)]:
        step = np.zeros_like(pred)
        step[at] = 1e-5
        rise = (
            loss(pred + step, target, weight)[0] - loss(pred - step, target, weight)[0]
        )
        assert d[at] == pytest.approx(rise / 2e-5, rel=1e-6, abs=1e-9)


def test_ctc_learns_labels_without_their_places(tmp_path, rng):
    """Each label is shown for one to three steps, with noise between."""
    y = [rng.integers(1, 5, rng.integers(1, 4)) for _ in range(300)]
    x = []
    for labels in y:
        steps = [np.zeros((1, 5))]
        for label in labels:
            steps += [np.eye(5)[[label] * rng.integers(1, 4)], np.zeros((1, 5))]
        x.append((np.concatenate(steps) + rng.normal(0, 0.1, 1)).astype("f"))
    model = fastrnn.Sequential(
        fastrnn.GRU(None, 24, bidirectional=True, seed=0),
        fastrnn.Linear(None, 5, seed=1),
    )
    model.compile("ctc", "adam", metrics=["label_error_rate"], lr=0.02)
    history = model.fit(x, y, epochs=15, validation_split=0.1, seed=0, verbose=0)
    assert history.last["val_label_error_rate"] < 0.05
    for options in ({}, {"beam_width": 4}):
        got = model.predict(x, **options)
        same = [np.array_equal(a, b) for a, b in zip(got, y, strict=True)]
        assert np.mean(same) > 0.95
    frames = np.stack([row for row in x if len(row) == len(x[0])])
    assert the_same_elsewhere(model, frames, tmp_path) == (
        "Sequential Adam ctc ['label_error_rate']"
    )


def test_edit_distance_by_definition(rng):
    from fastrnn.metrics import edit_distance

    def plain(a, b):
        if not a or not b:
            return len(a) + len(b)
        return min(
            plain(a[1:], b) + 1,
            plain(a, b[1:]) + 1,
            plain(a[1:], b[1:]) + (a[0] != b[0]),
        )

    for _ in range(100):
        a, b = (rng.integers(0, 3, rng.integers(0, 6)).tolist() for _ in range(2))
        assert edit_distance(a, b) == plain(a, b)
    for a, b in (("six fou", "six four"), ("kitten", "sitting"), ("", "a"), ("a", "")):
        assert edit_distance(a, b) == plain(a, b)


# -- what is refused ------------------------------------------------------------------


def crf_model():
    model = fastrnn.Sequential(fastrnn.Linear(2, 3), fastrnn.CRF(3))
    model.compile("crf")
    return model


def ctc_model():
    model = fastrnn.Sequential(fastrnn.Linear(2, 3))
    model.compile("ctc")
    return model


X, TAGS = np.zeros((2, 4, 2)), np.zeros((2, 4), int)
REFUSED = [
    (lambda: reverser().fit([[1, 2]], [[3, END, 3, END]]), ValueError,
     r"fit: y\[0\] must have the end token 11 at its end alone, got it at step 1"),
    (lambda: reverser().fit([[1, 2], []], [[3], [3]]), ValueError,
     r"fit: x\[1\] must have at least 1 step, got 0"),
    (lambda: reverser().fit([[1, 12]], [[3]]), ValueError,
     r"fit: x must be in \[0, 10\), got 12"),
    (lambda: reverser().fit([[1, -100, 2]], [[3]]), ValueError,
     r"fit: x\[0\] must have -100 at its end alone, got it at step 1"),
    (lambda: reverser().fit([[1], [2]], [[3]]), ValueError,
     r"fit: y must have as many samples as x, 2, got 1"),
    (lambda: reverser().fit([[1.5]], [[3]]), TypeError,
     r"fit: x\[0\] must be integers, got dtype float64"),
    (lambda: reverser().fit(([[1]], [1], 3), [[3]]), TypeError,
     r"fit: x must be sequences or a pair \(sequences, lengths\), got a tuple of 3"),
    (lambda: reverser().fit((np.ones((1, 2), int), [3]), [[3]]), ValueError,
     r"fit: lengths of x must be in \[0, 2\], got 3"),
    (lambda: reverser().fit([[1]], [[3]], tbptt=2, verbose=0), ValueError,
     r"EncoderDecoder: tbptt is for models that go on from a state"),
    (lambda: reverser().fit([[1]], [[3]], class_weight={1: 2}), ValueError,
     r"fit: class_weight is not for a model that writes"),
    (lambda: reverser().fit([[1]], [[3]], sample_weight=[[1.0]]), ValueError,
     r"fit: sample_weight must have shape \(N,\) = \(1,\), got \(1, 1\)"),
    (lambda: counter(3).fit(None, [[1]]), TypeError,
     r"fit: x must have a vector for each sample, or be a pair"),
    (lambda: counter(3).predict(np.zeros((2, 4))), ValueError,
     r"predict: x must have shape \(N, vector_size\) = \(N, 3\), got \(2, 4\)"),
    (lambda: fastrnn.Sequential(fastrnn.CRF(2), fastrnn.Linear(2, 2)), ValueError,
     r"Sequential: a CRF must be the last layer, got it as 0 of 2"),
    (lambda: fastrnn.Sequential(fastrnn.Linear(2, 2)).compile("crf"), ValueError,
     r"crf: the model must have one CRF layer, as its last, got 0"),
    (lambda: crf_model().compile("mse"), ValueError,
     r"mse: the loss of a model with a CRF must be 'crf' or a function, got 'mse'"),
    (lambda: fastrnn.Sequential(fastrnn.Linear(2, 2)).compile(), TypeError,
     r"Sequential.compile: loss must be a name"),
    (lambda: crf_model().fit(X, TAGS, sample_weight=np.ones((2, 4))), ValueError,
     r"crf: sample_weight must have shape \(N,\), got \(2, 4\)"),
    (lambda: crf_model().fit(X, TAGS, tbptt=2), ValueError,
     r"fit: tbptt must be None with the loss 'crf'"),
    (lambda: crf_model().fit(X, TAGS[:, :3]), ValueError,
     r"crf: y must have shape \(N, T\) = \(2, 4\), got \(2, 3\)"),
    (lambda: crf_model().fit(X, TAGS - np.array([0, 100, 0, 0])), ValueError,
     r"crf: y must have -100 at the end of sequences alone"),
    (lambda: crf_model().predict(X, beam_width=2), TypeError,
     r"predict\(\) has no argument 'beam_width'"),
    (lambda: ctc_model().fit(X, [[1, 1, 1], [2]]), ValueError,
     r"ctc: y must have labels that fit into the steps of x.* got 3 labels for 4"),
    (lambda: ctc_model().compile("ctc", metrics=["accuracy"]), ValueError,
     r"compile: metrics with the loss 'ctc' must be 'label_error_rate' or functions"),
    (lambda: ctc_model().compile("mse", metrics=["label_error_rate"]), ValueError,
     r"compile: metrics with the loss 'mse' must be those of steps or functions"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_messages(call, error, message):
    with pytest.raises(error, match=message):
        call()
