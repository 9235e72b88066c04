# SPDX-License-Identifier: BSD-3-Clause
"""Keras's layers on the kernels over TensorFlow: graphs, gradients, files, memory.

A process has one backend of Keras, so these tests run where it is TensorFlow:

    KERAS_BACKEND=tensorflow python -m pytest tests/keras/test_drop_in_tensorflow.py
"""

import os
import threading
import warnings

import numpy as np
import pytest

import fastrnn.keras as ours
from fastrnn.recurrent.pure import Form, Recurrence
from tests.support.keras_layers import twins

if os.environ.get("KERAS_BACKEND") != "tensorflow":
    pytest.skip("KERAS_BACKEND is not tensorflow", allow_module_level=True)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its dependencies
    tf = pytest.importorskip("tensorflow", reason="tensorflow is not installed")
    keras = pytest.importorskip("keras", reason="keras is not installed")
from fastrnn.keras.drop_in import paths, tensorflow

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
B, T, I, H = 4, 6, 3, 5
X = np.random.default_rng(0).standard_normal((B, T, I))
MASK = np.array([[1] * 6, [1, 1, 0, 1, 0, 0], [0] * 6, [0, 0, 1, 1, 1, 0]], bool)
WHOLE = {"return_sequences": True, "return_state": True, "dtype": "float64"}
KINDS = [
    ("LSTM", {}),
    ("LSTM", {"activation": "elu", "use_bias": False}),
    ("GRU", {}),
    ("GRU", {"reset_after": False}),
    ("SimpleRNN", {"activation": "gelu"}),
]
# Keras's gelu, here of SimpleRNN, is not of float64 inside.
ATOL = {"LSTM": 1e-10, "GRU": 1e-10, "SimpleRNN": 1e-6}
kinds = pytest.mark.parametrize(("name", "options"), KINDS)


def total(layer, x, mask=None):
    """A number that depends on every output of a layer, not linearly."""
    parts = tf.nest.flatten(layer(x, mask=mask))
    return tf.add_n([tf.reduce_sum(tf.sin(k + part)) for k, part in enumerate(parts)])


def gradients(layer, x, mask=None):
    """Of `total`, with regard to the input and the weights."""
    weights = [v.value for v in layer.trainable_weights]
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = total(layer, x, mask)
    return [value, *tape.gradient(value, [x, *weights])]


def assert_same(function, pair, *arguments, atol=1e-10, expected="fastrnn"):
    """The function gives the same for both layers; ours took the expected path."""
    with paths.watching() as seen:
        theirs, mine = (tf.nest.flatten(function(one, *arguments)) for one in pair)
    assert {path.name for _, path in seen} == {expected}
    assert len(theirs) == len(mine)
    for a, b in zip(theirs, mine, strict=True):
        scale = max(1, np.abs(a).max(initial=0))
        np.testing.assert_allclose(b, a, atol=atol * scale, rtol=0)


def pair_of(name="LSTM", **options):
    return twins(keras, ours, name, **{**WHOLE, **options})


def in_a_graph(layer, x, mask):
    return tf.function(gradients)(layer, x, mask)


def in_a_graph_of_unknown_sizes(layer, x, mask):
    spec = tf.TensorSpec((None, None, I), x.dtype)
    signature = [spec] if mask is None else [spec, tf.TensorSpec((None, None), "bool")]

    @tf.function(input_signature=signature)
    def run(*given):
        return gradients(layer, *given)

    given = (x,) if mask is None else (x, mask)
    return [run(*given), run(*(part[:2, :5] for part in given))]


def around_a_graph(layer, x, mask):
    """A tape outside of the function that runs the layer."""
    run = tf.function(total)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = run(layer, x, mask)
    return tape.gradient(value, [x, *(v.value for v in layer.trainable_weights)])


def by_tf_gradients(layer, x, mask):
    @tf.function
    def run(x, mask):
        return tf.gradients(total(layer, x, mask), [x])

    return run(x, mask)


@kinds
@pytest.mark.parametrize("masked", [False, True], ids=["dense", "masked"])
@pytest.mark.parametrize(
    "way", [in_a_graph, in_a_graph_of_unknown_sizes, around_a_graph, by_tf_gradients]
)
def test_graphs(name, options, masked, way):
    mask = tf.constant(MASK) if masked else None
    pair = pair_of(name, **options)
    assert_same(way, pair, tf.constant(X), mask, atol=ATOL[name])


def while_loop(layer, x):
    def body(k, x):
        return k + 1, x + tf.reduce_mean(layer(x)[0], axis=2, keepdims=True)

    return tf.reduce_sum(tf.while_loop(lambda k, x: k < 3, body, (0, x))[1] ** 2)


def cond(layer, x):
    return tf.cond(
        tf.reduce_sum(x) < 1e9, lambda: total(layer, x), lambda: tf.reduce_sum(x)
    )


def recomputed(layer, x):
    return tf.recompute_grad(lambda x: total(layer, x))(x)


@pytest.mark.parametrize("inside", [while_loop, cond, recomputed])
def test_control_flow_inside_and_around(inside):
    pair, x = pair_of(), tf.constant(X)

    def gradient(layer, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = inside(layer, x)
        return tape.gradient(value, x)

    def outside(layer, x):
        run = tf.function(inside)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = run(layer, x)
        return tape.gradient(value, x)

    assert_same(tf.function(gradient), pair, x)
    assert_same(outside, pair, x)


def second(layer, x, mask):
    weights = [v.value for v in layer.trainable_weights]
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            value = total(layer, x, mask)
        squares = tf.reduce_sum(inner.gradient(value, x) ** 2)
    return outer.gradient(squares, [x, *weights])


@kinds
@pytest.mark.parametrize("masked", [False, True], ids=["dense", "masked"])
def test_second_derivatives(name, options, masked):
    mask = tf.constant(MASK) if masked else None
    # In a graph Keras's own masked loop takes seconds to build.
    function = second if masked else tf.function(second)
    pair = pair_of(name, **options)
    assert_same(function, pair, tf.constant(X), mask, atol=10 * ATOL[name])


def test_forward_mode():
    x = tf.constant(X)

    def jvp(layer):
        with tf.autodiff.ForwardAccumulator(x, tf.cos(x)) as accumulator:
            y = layer(x)
        return accumulator.jvp(y)

    def jvp_of_a_graph(layer):
        return jvp(tf.function(layer))

    assert_same(jvp, pair_of())
    assert_same(jvp_of_a_graph, pair_of())


def test_a_persistent_tape_a_jacobian_and_a_vectorised_map():
    pair, x = pair_of(), tf.constant(X)

    def several(layer):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y = layer(x)[0]
            first, second = tf.reduce_sum(y), tf.reduce_sum(y * y)
        return [tape.gradient(part, x) for part in (first, second, first)]

    def jacobian(layer):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(layer(x)[0], axis=(1, 2))
        return tape.jacobian(y, x)

    def mapped(layer):
        return tf.vectorized_map(lambda row: layer(row[None])[0], x)

    for function in (several, jacobian, tf.function(jacobian), mapped):
        assert_same(function, pair)


def test_gradients_that_a_function_returns_in_vain():
    """A tape around such a function builds a graph for second derivatives."""
    pair, x = pair_of(), tf.constant(X)

    def outer(layer):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = tf.function(gradients)(layer, x)[0]
        return tape.gradient(value, x)

    assert_same(outer, pair)


def addresses(monkeypatch):
    """Where each call of the kernels reads x and writes y, and whether for a tape."""
    seen, forward = [], Recurrence.forward

    def watched(self, weights, x, *states, out, keep, **options):
        seen.append((x.ctypes.data, out[0].ctypes.data, keep))
        return forward(self, weights, x, *states, out=out, keep=keep, **options)

    monkeypatch.setattr(Recurrence, "forward", watched)
    return seen


def address(tensor):
    return np.asarray(tensor).ctypes.data


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "graph"])
def test_nothing_is_copied_on_the_way(monkeypatch, compiled):
    seen = addresses(monkeypatch)
    form = Form("lstm", I, H, "float32")
    weights = [tf.ones(shape) for shape in ((4 * H, I), (4 * H, H), (4 * H,), (4 * H,))]

    def run(x):
        return tensorflow.run(form, x, None, None, weights, None, True, "here")[0]

    x = tf.constant(X, tf.float32)
    y = (tf.function(run) if compiled else run)(x)
    assert [(address(x), address(y), False)] == seen
    assert y.shape == (B, T, H)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "graph"])
def test_a_tape_is_kept_where_gradients_are_taken(monkeypatch, compiled):
    _, layer = pair_of()
    seen, x = addresses(monkeypatch), tf.constant(X)
    for function, kept in ((total, False), (gradients, True)):
        (tf.function(function) if compiled else function)(layer, x)
        assert [keep for *_, keep in seen] == [kept]
        seen.clear()


def test_without_a_tape_backward_runs_forward_again(monkeypatch):
    _, layer = pair_of()
    x = tf.constant(X)
    expected = gradients(layer, x)
    monkeypatch.setattr(tensorflow.record, "could_possibly_record", lambda: False)
    seen = addresses(monkeypatch)
    for a, b in zip(expected, gradients(layer, x), strict=True):
        np.testing.assert_array_equal(b, a)
    assert [keep for *_, keep in seen] == [False, True]


def test_results_take_no_more_memory_from_step_to_step():
    model = keras.Sequential([keras.Input((50, I)), ours.LSTM(64)])
    model.compile("sgd", "mse")
    x, target = np.ones((32, 50, I), "float32"), np.ones((32, 64), "float32")
    held = []
    for _ in range(100):
        model.train_on_batch(x, target)
        held.append(tensorflow._results.held)
    assert max(held[50:]) <= max(held[:50])


def trained(make, **options):
    """Losses of a fit, and predictions, with Keras's layers and with fastrnn's."""
    rng = np.random.default_rng(5)
    data = rng.standard_normal((10, T, I)).astype("float32")
    target = rng.standard_normal((10, 2)).astype("float32")
    for home in (keras.layers, ours):
        keras.utils.set_random_seed(1)
        model = make(home)
        model.compile(keras.optimizers.Adam(0.01), "mse", **options)
        fit = model.fit(data, target, epochs=2, batch_size=4, verbose=0, shuffle=False)
        found = model.predict(data, batch_size=4, verbose=0)
        yield np.append(fit.history["loss"], found.ravel())


def stack(home):
    return keras.Sequential(
        [
            keras.Input((T, I)),
            home.LSTM(5, return_sequences=True),
            home.GRU(4),
            keras.layers.Dense(2),
        ]
    )


@pytest.mark.parametrize("options", [{"steps_per_execution": 2}, {"run_eagerly": True}])
def test_ways_of_fit(options):
    theirs, mine = trained(stack, **options)
    np.testing.assert_allclose(mine, theirs, atol=1e-4)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_fit_under_a_strategy():
    scope = tf.distribute.MirroredStrategy(["CPU:0"]).scope()
    with paths.watching() as seen, scope:
        theirs, mine = trained(stack)
    np.testing.assert_allclose(mine, theirs, atol=1e-4)
    assert {path.name for _, path in seen} == {"fastrnn"}


def test_keras_s_own_path_under_xla():
    layers = pair_of()
    run = tf.function(lambda layer, x: layer(x), jit_compile=True)
    assert_same(run, layers, tf.constant(X), expected="Keras")
    assert [layer.supports_jit for layer in layers] == [True, False]
    model = keras.Sequential([keras.Input((T, I)), ours.GRU(4)])
    with pytest.warns(UserWarning, match="doesn't support `jit_compile=True`"):
        model.compile("sgd", "mse", jit_compile=True)
    model.train_on_batch(X, np.ones((B, 4)))
    assert not ours.restore(model).compile("sgd", "mse", jit_compile=True)
    assert model.jit_compile


@pytest.mark.parametrize("write", ["export", "save"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_exported_model_has_keras_s_own_operations(tmp_path, write):
    model = keras.Sequential(
        [keras.Input((T, I)), keras.layers.Bidirectional(ours.LSTM(4))]
    )
    expected = model.predict(X, verbose=0)
    if write == "export":
        model.export(tmp_path / "model", verbose=False)
    else:
        tf.saved_model.save(model, tmp_path / "model")
    loaded = tf.saved_model.load(tmp_path / "model").signatures["serving_default"]
    (found,) = loaded(tf.constant(X, tf.float32)).values()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert "PyFunc" not in str(loaded.graph.as_graph_def())
    with paths.watching() as seen:  # and here the model runs on the kernels as before
        np.testing.assert_array_equal(model(X), model(X))
    assert {path.name for _, path in seen} == {"fastrnn"}


@pytest.mark.parametrize(
    ("owner", "name", "value", "reason"),
    [
        (tf.config, "list_logical_devices", ["GPU:0"], "TensorFlow has a GPU"),
        (
            tf.distribute,
            "get_strategy",
            object.__new__(tf.distribute.ParameterServerStrategy),
            "ParameterServerStrategyV2 runs graphs in other processes",
        ),
    ],
)
def test_other_devices_are_left_to_keras(monkeypatch, owner, name, value, reason):
    _, layer = pair_of()
    monkeypatch.setattr(owner, name, lambda *_: value)
    assert tensorflow.problem(layer, tf.constant(X), [], None) == reason


def test_a_ragged_input_is_left_to_keras():
    x = tf.RaggedTensor.from_tensor(X)
    assert tensorflow.problem(None, x, [], None) == "the input is a RaggedTensor"


def test_threads_that_run_one_graph():
    _, layer = pair_of()
    run = tf.function(lambda x: layer(x)[0], reduce_retracing=True)
    inputs = [tf.constant(X + k) for k in range(4)]
    expected = [run(x).numpy() for x in inputs]
    found = [None] * len(inputs)

    def work(k):
        found[k] = [run(inputs[k]).numpy() for _ in range(20)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for several, one in zip(found, expected, strict=True):
        for y in several:
            np.testing.assert_array_equal(y, one)
