# SPDX-License-Identifier: BSD-3-Clause
"""Masks: what is left out counts for nothing, in no figure and in no step."""

import copy
import warnings

import numpy as np
import pytest

import fastrnn
from fastrnn import metrics, objectives

N, T, F = 5, 6, 2
LENGTHS = [6, 3, 1, 4, 2]


def padded(rng, value=0.0):
    """Sequences (N, T, F) with `value` past each end, and which steps count."""
    x = rng.standard_normal((N, T, F))
    counts = np.arange(T) < np.array(LENGTHS)[:, None]
    x[~counts] = value
    return x, counts


def model_of(*first, n=1, **options):
    return fastrnn.Sequential(
        *first,
        fastrnn.LSTM(F, 4, dtype="float64", seed=1, **options),
        fastrnn.Linear(4, n, dtype="float64", seed=2),
    )


def one_by_one(model, x, counts):
    """Outputs of each sequence without what is left out, one after the other."""
    return [
        model.predict(row[keep][None])[0] for row, keep in zip(x, counts, strict=True)
    ]


def test_the_figures_of_the_steps_that_count(rng):
    """The case of the issue: one step and two of padding, whose targets are 9."""
    x = np.array([[[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]]])
    y = np.array([[[0.5], [9.0], [9.0]]])
    model = model_of(fastrnn.Masking())
    model.compile("mse", metrics=["mae", "mse"])
    error = model.predict(x[:, :1])[0, 0, 0] - 0.5
    want = {"loss": error**2, "mae": abs(error), "mse": error**2}
    assert model.evaluate(x, y, return_dict=True) == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("end", ["right", "anywhere"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_masked_batch_is_its_sequences(rng, end, weighted):
    """Loss, metrics and the step, of the same sequences given one by one by hand."""
    x, counts = padded(rng)
    if end == "anywhere":
        x, counts = x[:, ::-1].copy(), counts[:, ::-1].copy()
        x[0, 2], counts[0, 2] = 0, False
    y = rng.standard_normal((N, T, 1))
    y[~counts] = np.nan  # nobody looks at it
    w = rng.uniform(0.5, 2, (N, T)) if weighted else np.ones((N, T))
    masked, plain = model_of(fastrnn.Masking()), model_of()
    masked.compile("mse", "sgd", metrics=["mae"], lr=0.1)
    outputs = one_by_one(plain, x, counts)
    errors = np.concatenate(outputs)[:, 0] - y[counts][:, 0]
    want = {
        "loss": (errors**2 * w[counts]).sum() / counts.sum(),
        "mae": abs(errors).mean(),
    }
    given = w if weighted else None
    found = masked.evaluate(x, y, sample_weight=given, batch_size=N, return_dict=True)
    assert found == pytest.approx(want, rel=1e-12)
    plain.train()
    plain.zero_grad()
    for row, keep, target, weight in zip(x, counts, y, w, strict=True):
        out = plain(row[keep][None])  # a batch of one
        d = 2 * (out[0] - target[keep]) * weight[keep][:, None] / counts.sum()
        plain.backward(d[None])
    stepped = plain.flat_parameters - 0.1 * plain.flat_grads
    masked.fit(x, y, sample_weight=given, batch_size=N, verbose=0, shuffle=False)
    np.testing.assert_allclose(masked.flat_parameters, stepped, rtol=1e-10)


def test_an_epochs_loss_is_the_mean_over_batches_as_in_keras(rng):
    x, counts = padded(rng)
    x[2], counts[2] = 0, False  # a sample of padding alone is a loss of zero
    y = rng.standard_normal((N, T, 1))
    model = model_of(fastrnn.Masking())
    model.compile("mse", metrics=["mse"])
    squares = (model.predict(x) - y)[..., 0] ** 2
    of_rows = [
        np.mean(s[c]) if c.any() else 0 for s, c in zip(squares, counts, strict=True)
    ]
    found = model.evaluate(x, y, batch_size=1, return_dict=True)
    assert found["loss"] == pytest.approx(np.mean(of_rows))
    assert found["mse"] == pytest.approx(squares[counts].mean())
    before = model.flat_parameters.copy()
    model.fit(x[2:3], y[2:3], verbose=0)
    np.testing.assert_array_equal(model.flat_parameters, before)


LAYERS = {
    "handed on": ([lambda: fastrnn.Linear(4, 4), lambda: fastrnn.Dropout(0.0),
                   lambda: fastrnn.LayerNorm(4), lambda: fastrnn.Tanh(),
                   lambda: fastrnn.TimeDistributed(fastrnn.Linear(4, 4)),
                   lambda: fastrnn.GRU(4, 4), lambda: fastrnn.Masking(7.0)], True),
    "a model in it": ([lambda: fastrnn.Sequential(
        fastrnn.RNN(4, 3), fastrnn.Linear(3, 2))], True),
    "both directions": ([lambda: fastrnn.Bidirectional(
        fastrnn.GRU(None, 3), "sum")], True),
    "the last step": ([lambda: fastrnn.GRU(4, 3, return_sequences=False)], False),
    "of both": ([lambda: fastrnn.Bidirectional(
        fastrnn.LSTM(4, 3, return_sequences=False)), lambda: fastrnn.ReLU()], False),
    "inside a model": ([lambda: fastrnn.Sequential(
        fastrnn.GRU(None, 3, return_sequences=False), fastrnn.Linear(3, 2))], False),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_which_layers_hand_a_mask_on(name, rng):
    layers, arrives = LAYERS[name]
    x, counts = padded(rng)
    model = fastrnn.Sequential(
        fastrnn.Masking(), fastrnn.LSTM(F, 4), *(make() for make in layers)
    )
    y = model.predict(x)
    if name == "handed on":
        counts = np.ones_like(counts)  # another Masking is the last to say
    assert (model.output_mask is not None) == arrives
    if arrives:
        np.testing.assert_array_equal(model.output_mask, counts)
        return
    for row, n, out in zip(x, LENGTHS, y, strict=True):
        alone = model.predict(row[:n][None])[0]
        np.testing.assert_array_equal(out, alone)


def test_both_directions_are_zero_where_masked(rng):
    x, counts = padded(rng)
    layer = fastrnn.GRU(F, 3, bidirectional=True, seed=0)
    y = fastrnn.Sequential(fastrnn.Masking(), layer).predict(x)
    assert not y[~counts].any()
    assert y[counts].all()


def test_zeros_at_masked_steps(rng):
    x, counts = padded(rng)
    options = {"zero_output_for_mask": True, "seed": 0}
    layer = fastrnn.GRU(F, 3, **options)
    y = fastrnn.Sequential(fastrnn.Masking(), layer).predict(x)
    assert not y[~counts].any()
    assert y[counts].all()
    last = fastrnn.GRU(F, 3, return_sequences=False, **options)
    y = fastrnn.Sequential(fastrnn.Masking(), last).predict(x)
    assert [bool(row.any()) for row in y] == [n == T for n in LENGTHS]
    assert "zero_output_for_mask=True" in repr(layer)


def test_embeddings_mask_zero(rng):
    tokens = rng.integers(1, 9, (N, T))
    counts = np.arange(T) < np.array(LENGTHS)[:, None]
    tokens[~counts] = 0
    y = rng.integers(0, 3, (N, T))
    model = fastrnn.Sequential(
        fastrnn.Embedding(9, F, mask_zero=True, dtype="float64", seed=0),
        fastrnn.GRU(F, 4, dtype="float64", seed=1),
        fastrnn.Linear(4, 3, activation="softmax", dtype="float64", seed=2),
    )
    names = ["accuracy", "top_2_accuracy", "perplexity"]
    model.compile("sparse_categorical_crossentropy", "sgd", metrics=names, lr=0.1)
    p = np.concatenate(one_by_one(model, tokens, counts))
    right = p[np.arange(len(p)), y[counts]]
    loss = -np.log(right).mean()
    want = {
        "loss": loss,
        "accuracy": np.mean(p.argmax(1) == y[counts]),
        "top_2_accuracy": np.mean((p > right[:, None]).sum(1) < 2),
        "perplexity": np.exp(loss),
    }
    assert model.evaluate(tokens, y, return_dict=True) == pytest.approx(want, rel=1e-12)
    row = model.parameters["0.weight"][0].copy()
    model.fit(tokens, y, epochs=2, verbose=0, seed=0)
    np.testing.assert_array_equal(model.parameters["0.weight"][0], row)
    assert repr(model[0]) == "Embedding(9, 2, mask_zero=True)"


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "binary_crossentropy",
                                  "categorical_crossentropy"])  # fmt: skip
def test_a_mask_and_all_losses(loss, rng):
    """A masked call is a call with the rows that count."""
    pred, mask = rng.standard_normal((N, T, 3)), rng.random((N, T)) < 0.5
    target, weight = rng.random((N, T, 3)), rng.random((N, T))
    of = objectives.LOSSES[loss]()
    for w in (None, weight, weight[:, 0]):
        value, d = of(pred, target, w, mask)
        rows = None if w is None else np.broadcast_to(w.T, (T, N)).T[mask]
        alone, d_alone = of(pred[mask], target[mask], rows)
        assert value == alone
        np.testing.assert_array_equal(d[mask], d_alone)
        assert not d[~mask].any()
    assert of(pred, target, None, np.zeros_like(mask))[0] == 0.0


def test_truncated_back_propagation_in_masked_windows(rng):
    """Windows of the steps that count, as one fits them without padding by hand."""
    x, counts = padded(rng)
    x, counts = x[:2], counts[:2]  # lengths 6 and 3
    y = rng.standard_normal((2, T, 1))
    model, plain = model_of(fastrnn.Masking()), model_of()
    model.compile("mse", "sgd", lr=0.1)
    model.fit(x, y, tbptt=2, verbose=0, shuffle=False)
    state, optimizer = None, fastrnn.SGD(plain, lr=0.1)
    lstm, linear = plain
    for begin, lengths in ((0, [2, 2]), (2, [2, 1]), (4, [2, 0])):
        window = slice(begin, begin + 2)
        xs, ys = x[:, window].swapaxes(0, 1), y[:, window].swapaxes(0, 1)
        h, state = lstm(xs, state, lengths=lengths)
        _, d = fastrnn.mse_loss(linear(h), ys, lengths=lengths)
        optimizer.zero_grad()
        lstm.backward(linear.backward(d))
        optimizer.step()
    np.testing.assert_allclose(model.flat_parameters, plain.flat_parameters, rtol=1e-9)
    # A window of padding alone is no step at all, whatever the optimiser remembers.
    model.compile("mse", "adam")
    short = np.concatenate([x[1:, :2], np.zeros((1, 4, F))], axis=1)
    other = copy.deepcopy(model)
    model.fit(short, y[1:], tbptt=2, verbose=0)
    other.fit(short[:, :2], y[1:, :2], tbptt=2, verbose=0)
    np.testing.assert_array_equal(model.flat_parameters, other.flat_parameters)
    with pytest.raises(ValueError, match="layer 0 is go_backwards, so it"):
        fastrnn.Sequential(fastrnn.GRU(F, 1, go_backwards=True)).forward_from(x)
    both = fastrnn.Sequential(fastrnn.Bidirectional(fastrnn.GRU(F, 1)))
    with pytest.raises(
        ValueError, match="layer 0 is bidirectional, so it cannot go on"
    ):
        both.forward_from(x)


def test_sequences_of_many_lengths_with_masks(rng):
    rows = [rng.standard_normal((n, F)) for n in (3, 5, 3)]
    rows[1][3:] = rows[0][1] = 0
    y = [rng.standard_normal((len(row), 1)) for row in rows]
    model = model_of(fastrnn.Masking())
    model.compile("mse", metrics=["mae"])
    out = model.predict(rows)
    counts = [row.any(1) for row in rows]
    errors = [abs(o - t)[c] for o, t, c in zip(out, y, counts, strict=True)]
    found = model.evaluate(rows, y, return_dict=True)
    assert found["mae"] == pytest.approx(np.concatenate(errors).mean())


def test_a_mask_given_to_the_model(rng):
    x, counts = padded(rng, value=3.0)
    model = model_of(batch_first=True)
    y = model(x, mask=counts)
    np.testing.assert_array_equal(model.output_mask, counts)
    for row, n, out in zip(x, LENGTHS, y, strict=True):
        np.testing.assert_array_equal(out[:n], model(row[None, :n])[0])
    with pytest.raises(ValueError, match=r"mask must have the shape .* \(5, 6\), got"):
        model(x, mask=counts[:, 1:])
    with pytest.raises(TypeError, match="mask must be bool, got dtype int64"):
        model(x, mask=counts.astype(int))


def test_padding_that_was_rounded_is_padding():
    layer = fastrnn.Masking(-0.1)
    for x in (np.float32(-0.1), np.float64(-0.1), np.float64(np.float32(-0.1))):
        assert not layer.compute_mask(np.full((1, 1, 2), x)).any()
    assert layer.compute_mask([[[-0.1, 0.0]]]).all()


def test_files_and_copies(tmp_path, rng):
    x, _ = padded(rng)
    y = rng.standard_normal((N, T, 1))
    model = model_of(fastrnn.Masking())
    model.compile("mse", metrics=["mae"])
    before = model.evaluate(x, y, return_dict=True)
    model.save(tmp_path / "m")
    for again in (fastrnn.load_model(tmp_path / "m"), copy.deepcopy(model)):
        assert again.evaluate(x, y, return_dict=True) == before
    # What older versions made of a Keras file with an Embedding that masks.
    old = fastrnn.keras.MaskedSequential(
        fastrnn.Masking(0, indices=True), fastrnn.Embedding(5, F, seed=0),
        fastrnn.GRU(F, 2, seed=1, batch_first=True),
    )  # fmt: skip
    tokens = rng.integers(0, 5, (N, T))
    old.compile("mse")
    old.predict(tokens)
    old.save(tmp_path / "old")
    again = fastrnn.load_model(tmp_path / "old")
    assert type(again) is fastrnn.keras.MaskedSequential
    np.testing.assert_array_equal(again.predict(tokens), old.predict(tokens))
    np.testing.assert_array_equal(again.output_mask, tokens != 0)


# -- layers and models of one's own ----------------------------------------------------


class Scale(fastrnn.Module):
    """A layer of the user's."""

    def forward(self, x):
        return 2 * x

    def backward(self, dy):
        return 2 * dy


class Scaled(Scale):
    supports_masking = True


class ScaledModel(fastrnn.Model):
    def forward(self, x):
        return 2 * x


class Largest(Scale):
    def compute_mask(self, x, mask=None):
        return None


def test_layers_of_ones_own(rng):
    x, counts = padded(rng)
    model = fastrnn.Sequential(fastrnn.Masking(), Scaled())
    model(x)
    np.testing.assert_array_equal(model.output_mask, counts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fastrnn.Sequential(fastrnn.Masking(), Largest())(x)
        fastrnn.Sequential(Scale())(x)
    model = fastrnn.Sequential(fastrnn.Masking(), Scale())
    with pytest.warns(UserWarning, match="Scale: a mask ends here"):
        model(x)
    assert model.output_mask is None
    model = fastrnn.Sequential(fastrnn.Masking(), ScaledModel())
    with pytest.warns(UserWarning, match="ScaledModel: a mask ends here"):
        model(x)


class Tagger(fastrnn.Model):
    """A model of the user's, with the mask that is asked for."""

    def __init__(self, way="no"):
        self.table = fastrnn.Embedding(9, F, mask_zero=True, dtype="float64", seed=0)
        self.gru = fastrnn.GRU(F, 1, dtype="float64", seed=1)
        self.way = way

    def forward(self, x):
        mask = self.table.compute_mask(x)
        y, _ = self.gru(self.table(x), mask=mask)
        if self.way == "yes":
            self.output_mask = mask
        return y

    def backward(self, dy):
        self.table.backward(self.gru.backward(dy)[0])


def test_models_of_ones_own_say_the_mask(rng):
    tokens = rng.integers(1, 9, (N, T))
    counts = np.arange(T) < np.array(LENGTHS)[:, None]
    tokens[~counts] = 0
    y = rng.standard_normal((N, T, 1))
    model = Tagger("yes")
    model.compile("mse", "sgd", lr=0.1)
    errors = (model.predict(tokens) - y)[counts]
    assert model.evaluate(tokens, y, return_dict=True)["loss"] == pytest.approx(
        (errors**2).mean()
    )
    history = model.fit(tokens, y, epochs=3, verbose=0, seed=0).history["loss"]
    assert history[-1] < history[0]
    silent = Tagger()
    silent.compile("mse")
    before = silent.flat_parameters.copy()
    for call in (silent.fit, silent.evaluate):
        with pytest.raises(ValueError, match=r"Tagger: forward must set self\.outp"):
            call(tokens, y)
    np.testing.assert_array_equal(silent.flat_parameters, before)


def test_functions_take_the_mask_or_are_refused(rng):
    x, counts = padded(rng)
    y = rng.standard_normal((N, T, 1))

    def masked_error(pred, target, mask=None):
        return abs(pred - target)[mask].mean()

    def error(pred, target):
        return abs(pred - target).mean()

    def masked_loss(pred, target, mask):
        return fastrnn.mse_loss(pred, target, mask=mask)

    def plain_loss(pred, target):
        return fastrnn.mse_loss(pred, target)

    model = model_of(fastrnn.Masking())
    want = (model.predict(x) - y)[counts]
    model.compile(masked_loss, metrics=[masked_error])
    found = model.evaluate(x, y, return_dict=True)
    assert found["loss"] == pytest.approx((want**2).mean())
    assert found["masked_error"] == pytest.approx(abs(want).mean())
    for loss, metric in ((plain_loss, "mae"), ("mse", error)):
        model.compile(loss, metrics=[metric])
        with pytest.raises(ValueError, match="a function must have an argument mask"):
            model.evaluate(x, y, return_dict=True)


def test_balanced_classes_do_not_count_padding(rng):
    x, _ = padded(rng)
    model = model_of(fastrnn.Masking())
    model.compile("binary_crossentropy")
    y = rng.integers(0, 2, (N, T, 1))
    with pytest.raises(ValueError, match="class_weight must be a mapping for a model"):
        model.fit(x, y, class_weight="balanced", verbose=0)
    model.fit(x, y, class_weight={0: 2.0}, verbose=0)
    ended = model_of(fastrnn.Masking(), return_sequences=False)
    ended.compile("binary_crossentropy")
    ended.fit(x, [[0], [1], [0], [1], [1]], class_weight="balanced", verbose=0)


# -- losses of whole sequences ---------------------------------------------------------


def tagger(*first):
    return fastrnn.Sequential(
        *first,
        fastrnn.GRU(F, 3, dtype="float64", seed=1),
        fastrnn.CRF(3, dtype="float64", seed=2),
    )


def test_a_crf_of_masked_sequences(rng):
    x, counts = padded(rng)
    x[0, 2], counts[0, 2] = 0, False
    tags = rng.integers(0, 3, (N, T))
    masked, plain = tagger(fastrnn.Masking()), tagger()
    for model in (masked, plain):
        model.compile("crf", "sgd", metrics=["accuracy"], lr=0.1)
    rows = [
        (row[c][None], t[c][None]) for row, t, c in zip(x, tags, counts, strict=True)
    ]
    alone = [plain.evaluate(*row, return_dict=True) for row in rows]
    found = masked.evaluate(x, tags, return_dict=True)
    assert found["loss"] == pytest.approx(np.mean([one["loss"] for one in alone]))
    right = [
        one["accuracy"] * row[1].size for one, row in zip(alone, rows, strict=True)
    ]
    assert found["accuracy"] == pytest.approx(sum(right) / counts.sum())
    best = masked.predict(x)
    assert (best[~counts] == -1).all()
    for (row, _), out, c in zip(rows, best, counts, strict=True):
        np.testing.assert_array_equal(out[c], plain.predict(row)[0])
    masked.fit(x, tags, verbose=0, shuffle=False)
    plain.zero_grad()
    with plain._evaluating():
        plain.train()
        for row, tag in rows:
            emissions = plain(row).swapaxes(0, 1)  # a layer by itself has time first
            plain[-1](emissions, tag.T, weights=[1 / N])
            plain.backward(plain[-1].backward().swapaxes(0, 1))
    stepped = plain.flat_parameters - 0.1 * plain.flat_grads
    np.testing.assert_allclose(masked.flat_parameters, stepped, rtol=1e-9)


def test_accuracy_of_a_crf_looks_at_no_padding():
    """Without a mask, where tags of -100 say where a sequence ends."""
    rng = np.random.default_rng(2)  # a path in full would go elsewhere at the end
    x = 3 * rng.standard_normal((8, T, F))
    tags = rng.integers(0, 3, (8, T))
    tags[:, 3:] = -100
    model = tagger()
    model.parameters["1.transitions"][...] = 4 * rng.standard_normal((3, 3))
    model.compile("crf", metrics=["accuracy"])
    found = model.evaluate(x, tags, return_dict=True)["accuracy"]
    assert found == model.evaluate(x[:, :3], tags[:, :3], return_dict=True)["accuracy"]
    assert found != np.mean(model.predict(x)[:, :3] == tags[:, :3])  # it would differ


def test_ctc_of_masked_sequences(rng):
    x, counts = padded(rng)
    x[0, 2], counts[0, 2] = 0, False
    x[4], counts[4] = 0, False  # nothing to hear
    labels = [[1, 2], [2], [1], [1, 1], [2]]
    for end in ((), (fastrnn.Softmax(),)):
        layers = [
            fastrnn.GRU(F, 3, dtype="float64", seed=1),
            fastrnn.Linear(3, 3, dtype="float64", seed=2),
            *end,
        ]
        masked = fastrnn.Sequential(fastrnn.Masking(), *copy.deepcopy(layers))
        plain = fastrnn.Sequential(*layers)
        for model in (masked, plain):
            model.compile("ctc", "sgd", metrics=["label_error_rate"], lr=0.1)
        rows = [row[c][None] for row, c in zip(x[:4], counts[:4], strict=True)]
        alone = [
            plain.evaluate(row, [label], return_dict=True)["loss"]
            for row, label in zip(rows, labels[:4], strict=True)
        ]
        assert masked.evaluate(x, labels, return_dict=True)["loss"] == pytest.approx(
            np.mean(alone)
        )
        for options in ({}, {"beam_width": 3}):
            heard = masked.predict(x, **options)
            assert heard[4].size == 0
            for row, found in zip(rows, heard[:4], strict=True):
                np.testing.assert_array_equal(found, plain.predict(row, **options)[0])
        history = masked.fit(x, labels, epochs=4, verbose=0, seed=0).history["loss"]
        assert history[-1] < history[0]
        with pytest.raises(TypeError, match=r"^predict\(\) has no argument 'mask'"):
            masked.predict(x, mask=counts)


def test_lags_count_from_each_sequences_own_end(rng):
    """`diagnose`: padding at the end is no time that passes."""
    x, counts = padded(rng)
    x, counts = x[1:], counts[1:]  # lengths 3, 1, 4, 2 of 6 steps

    def last_of_each(y):
        d = np.zeros_like(y)
        for b, n in enumerate(LENGTHS[1:]):
            d[b, n - 1] = 1
        return 0.0, d

    gru = fastrnn.GRU(F, 3, batch_first=True, dtype="float64", seed=0)
    model = fastrnn.Sequential(fastrnn.Masking(), gru)
    (flow,) = fastrnn.diagnose(model, x, last_of_each).flows
    total = np.zeros(4)
    for row, n in zip(x, LENGTHS[1:], strict=True):
        y, _ = gru(row[None, :n])
        dy = np.zeros_like(y)
        dy[:, -1] = 1
        *_, norms = gru.backward(dy, record_flow=True)
        total[:n] += norms[0, ::-1] ** 2
    np.testing.assert_allclose(flow.norms, np.sqrt(total), rtol=1e-10)
    assert np.isfinite(flow.ratio)
    backwards = fastrnn.GRU(F, 3, go_backwards=True, seed=0)
    seen = x.swapaxes(0, 1)
    (flow,) = fastrnn.diagnose(
        backwards, seen, lambda y: (0.0, np.arange(T)[:, None, None] == T - 1 + 0 * y)
    ).flows
    assert flow.norms[0] > 0  # of the step that it ends with, the first
    with pytest.raises(ValueError, match="record_flow must be True, False or 'lag'"):
        gru.backward(y, record_flow="time")


def test_metrics_by_themselves(rng):
    metric = metrics.MeanAbsoluteError()
    pred, target = rng.standard_normal((2, N, T, 1))
    mask = rng.random((N, T)) < 0.5
    metric.update(pred, target, mask)
    metric.update(pred, target, np.zeros((N, T), bool))
    assert metric.result() == pytest.approx(abs(pred - target)[mask].mean())
    with pytest.raises(ValueError, match="mae: mask must have the shape of the output"):
        metric.update(pred, target, mask[:, 1:])
    with pytest.raises(TypeError, match="mse: mask must be bool, got dtype float64"):
        objectives.MeanSquaredError()(pred, target, None, mask.astype("d"))


def test_a_mask_has_no_operators_in_onnx(tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed")
    table = fastrnn.Embedding(5, F, mask_zero=True, seed=0)
    for layer, rule in (
        (table, "mask_zero must be False"),
        (fastrnn.Masking(), "must"),
    ):
        model = fastrnn.Sequential(layer, fastrnn.GRU(F, 2))
        with pytest.raises(ValueError, match=f"layer '0'.* {rule}"):
            fastrnn.onnx.save(model, tmp_path / "m.onnx")
