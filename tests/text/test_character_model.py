# SPDX-License-Identifier: BSD-3-Clause
"""The character model: its gradient, its state, and the text that it writes."""

import itertools
import math

import numpy as np
import pytest

from fastrnn.losses import cross_entropy
from fastrnn.text.model import CELLS, CharModel
from fastrnn.text.vocabulary import CharVocabulary

VOCABULARY = CharVocabulary.of("\nabcdefgh")


def small_model(cell="lstm", **shape):
    shape = {"embedding_dim": 3, "hidden_size": 5, "num_layers": 2, **shape}
    return CharModel(VOCABULARY, cell, **shape, seed=0)


def states(state):
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("cell", CELLS)
def test_gradient_is_that_of_central_differences(cell, rng):
    model = small_model(cell, dtype="float64")
    tokens = rng.integers(0, len(VOCABULARY), (4, 2))
    targets = rng.integers(0, len(VOCABULARY), (4, 2))
    _, start = model(rng.integers(0, len(VOCABULARY), (3, 2)))

    def loss():
        return cross_entropy(model.predict(tokens, start)[0], targets)[0]

    model.zero_grad()
    logits, _ = model(tokens, start)
    model.backward(cross_entropy(logits, targets)[1])
    parameters, grads = model.flat_parameters, model.flat_grads
    # A step of eps^(1/3) leaves an error of about 1e-10.
    step = 6e-6
    for at in rng.choice(parameters.size, 60, replace=False):
        before = parameters[at]
        parameters[at] = before + step
        above = loss()
        parameters[at] = before - step
        slope = (above - loss()) / (2 * step)
        parameters[at] = before
        assert grads[at] == pytest.approx(slope, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("cell", CELLS)
def test_windows_with_the_state_carried_are_one_long_window(cell, rng):
    model = small_model(cell)
    tokens = rng.integers(0, len(VOCABULARY), (9, 3))
    whole, end = model.predict(tokens)
    state = None
    parts = []
    for window in (tokens[:4], tokens[4:5], tokens[5:]):
        logits, state = model.predict(window, state)
        parts.append(logits)
    assert np.array_equal(np.concatenate(parts), whole)
    for one, other in zip(states(state), states(end), strict=True):
        assert np.array_equal(one, other)


def test_predict_leaves_the_mode_as_it_is():
    model = small_model()
    for mode in (True, False):
        model.train(mode)
        model.predict([[1]])
        assert all(module.training is mode for module in model.modules())
    with pytest.raises(ValueError, match="must be in"):
        model.train().predict([[99]])
    assert model.training


def test_predict_leaves_frozen_layers_and_contexts_as_they_are():
    """An evaluation between forward and backward, of a model with a layer in eval."""
    model, window = small_model("gru", dtype="float64"), [[1, 2], [3, 4]]
    logits, _ = model(window)
    model.backward(np.ones_like(logits))
    want = model.flat_grads.copy()
    model.zero_grad()

    logits, _ = model(window)
    contexts = [module.context for module in model.modules()]
    model.embedding.eval()
    modes = [module.training for module in model.modules()]
    assert not all(modes)
    model.predict([[5]])
    "".join(model.generate("ab", 3, seed=0))
    with pytest.raises(ValueError, match="must be in"):
        model.predict([[99]])
    assert [module.training for module in model.modules()] == modes
    kept = [module.context for module in model.modules()]
    assert all(a is b for a, b in zip(kept, contexts, strict=True))
    model.train()
    model.backward(np.ones_like(logits))
    np.testing.assert_array_equal(model.flat_grads, want)


def test_config_makes_a_model_of_the_same_shape():
    model = small_model("gru", dtype="float64")
    again = CharModel(VOCABULARY, **model.config)
    shapes = {name: p.shape for name, p in model.parameters.items()}
    assert {name: p.shape for name, p in again.parameters.items()} == shapes
    assert again.dtype == "float64"


def test_generated_text_is_the_seed_s():
    model = small_model()
    rng = np.random.default_rng(0)  # far from zero, so that the prompt matters
    model.flat_parameters[:] = rng.normal(0, 2, model.flat_parameters.size)
    once = "".join(model.generate("abc", 50, seed=3))
    assert len(once) == 50
    assert set(once) <= set(VOCABULARY.characters)
    assert "".join(model.generate("abc", 50, seed=3)) == once
    assert "".join(model.generate("abc", 50, seed=4)) != once
    assert "".join(model.generate("abd", 50, seed=3)) != once
    # One character at a time, and the shorter text begins the longer.
    assert "".join(itertools.islice(model.generate("abc", 60, seed=3), 50)) == once


def test_an_empty_prompt_is_a_line_break():
    model = small_model()
    written = ["".join(model.generate(p, 20, seed=0)) for p in ("", "\n")]
    assert written[0] == written[1]


def test_temperature_sharpens_towards_the_likeliest():
    model = small_model()
    greedy = "".join(model.generate("a", 30, temperature=0, seed=0))
    assert "".join(model.generate("a", 30, temperature=0, seed=1)) == greedy
    for tiny in (1e-3 * 1e-3, 5e-324):
        assert "".join(model.generate("a", 30, temperature=tiny, seed=1)) == greedy


def test_draws_follow_the_softmax_and_never_give_the_unknown_character():
    model = small_model()
    model.flat_parameters[:] = 0
    model.parameters["head.bias"][0] = 50.0
    model.parameters["head.bias"][3] = math.log(12)
    text = "".join(model.generate("a", 2000, seed=0))
    assert "\ufffd" not in text
    # One of 9 characters is 12 times as likely as each other: p = 12/20, and five
    # standard deviations of a share of 2000 draws are 0.055.
    share = text.count(VOCABULARY.characters[2]) / len(text)
    assert share == pytest.approx(0.6, abs=0.055)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"prompt": "a?"}, ValueError, "was trained on, got '\\?'$"),
        ({"prompt": b"a"}, TypeError, "generate: prompt must be a string, got bytes$"),
        ({"length": -1}, ValueError, "generate: length must be at least 0, got -1$"),
        ({"length": 1.5}, TypeError, "length must be an integer, got 1.5$"),
        (
            {"temperature": -1.0},
            ValueError,
            r"temperature must be a number in \[0, inf\), got -1.0$",
        ),
        ({"temperature": math.nan}, ValueError, "got nan$"),
        ({"seed": -1}, ValueError, "seed must be None, a non-negative integer"),
    ],
)
def test_generate_refuses_at_once(arguments, error, message):
    with pytest.raises(error, match=message):
        small_model().generate(**arguments)


def test_a_diverged_model_says_so():
    model = small_model()
    model.flat_parameters[:] = np.nan
    with pytest.raises(
        ValueError, match=r"^CharModel\.generate: logits must be finite or -inf, "
    ):
        list(model.generate("a", 1))


def test_constructor_refuses():
    with pytest.raises(
        TypeError, match=r"^CharModel: vocabulary must be a CharVocabulary, got str$"
    ):
        CharModel("abc")
    with pytest.raises(
        ValueError,
        match=r"^CharModel: cell must be one of 'lstm', .*'rnn', .*got 'elman'$",
    ):
        small_model("elman")
    with pytest.raises(ValueError, match="hidden_size must be a positive integer"):
        small_model(hidden_size=0)
