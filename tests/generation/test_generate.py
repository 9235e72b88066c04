# SPDX-License-Identifier: BSD-3-Clause
"""`Generator` and `teacher_forcing`: gradients, searches against all sequences."""

import itertools

import numpy as np
import pytest
from exhaustive import likeliest, log_softmax
from gradcheck import assert_close
from slopes import check_gradients
from tolerances import relative

import fastrnn
from fastrnn import Generator, teacher_forcing
from fastrnn.recurrent import table

CELLS = list(table.classes().values())
START, END = 3, 4  # of five tokens


def small(cell=fastrnn.GRU, vector_size=None, dtype="float64", num_layers=2, **options):
    """A model whose weights are large enough for its choices to differ."""
    options = {"start": START, "end": END, **options}
    recurrent = cell(3, 4, num_layers, dtype=dtype, seed=0)
    model = Generator(5, recurrent, vector_size=vector_size, seed=1, **options)
    model.flat_parameters[:] *= 3
    return model


def logits_of(model, tokens, b=0, vector=None):
    """Logits of each token of a sequence, given those before it, by forward."""
    inputs = np.array([model.start, *tokens[:-1]])[None]
    vector = None if vector is None else vector[b : b + 1]
    with model._evaluating():
        return model(inputs, vector)[0][0]


# -- training -------------------------------------------------------------------------


def test_forward_is_its_layers(dtype, rng):
    model = small(fastrnn.LSTM, 2, dtype)
    tokens, vector = rng.integers(0, 5, (3, 6)), rng.normal(size=(3, 2))
    logits, (h_n, c_n) = model(tokens, vector)
    assert logits.dtype == dtype
    weight, bias = (model.parameters[f"state.linear.{n}"] for n in ("weight", "bias"))
    s = np.tanh(vector @ weight.T.astype(float) + bias)  # h of both layers, then c
    h0, c0 = s.reshape(3, 2, 2, 4).transpose(1, 2, 0, 3)
    y, state = model.recurrent(model.embedding(tokens.T), (h0, c0))  # by itself
    want = model.head(y).swapaxes(0, 1)
    assert_close("logits", logits, want, relative(dtype, 30))
    assert_close("h_n", h_n, state[0], relative(dtype, 30))
    assert_close("c_n", c_n, state[1], relative(dtype, 30))


@pytest.mark.parametrize("vector_size", [None, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_gradients(cell, vector_size, rng):
    model = small(cell, vector_size)
    tokens, dlogits = rng.integers(0, 5, (2, 3)), rng.normal(size=(2, 3, 5))
    vector = None if vector_size is None else rng.normal(size=(2, 2))

    def loss():
        with model._evaluating():
            return (model(tokens, vector)[0] * dlogits).sum()

    model.flat_grads[:] = 1
    model(tokens, vector)
    dvector = model.backward(dlogits)
    if vector is None:
        assert dvector is None
        check_gradients(loss, model, {}, {})
    else:
        check_gradients(loss, model, {"vector": dvector}, {"vector": vector})


def test_windows_carry_the_state(rng):
    model = small(fastrnn.LSTM, 2)
    tokens, vector = rng.integers(0, 5, (3, 6)), rng.normal(size=(3, 2))
    whole, _ = model(tokens, vector)
    first, state = model(tokens[:, :4], vector)
    second, _ = model(tokens[:, 4:], state=state)
    assert model.backward(second) is None
    np.testing.assert_array_equal(np.concatenate((first, second), 1), whole)


def test_contexts(rng):
    model = small(vector_size=2)
    tokens, vector = rng.integers(0, 5, (2, 3, 4)), rng.normal(size=(2, 3, 2))
    dlogits = rng.normal(size=(3, 4, 5))
    contexts = []
    for t, v in zip(tokens, vector, strict=True):
        model(t, v)
        contexts.append(model.context)
    got = [model.backward(dlogits, context=context) for context in contexts]
    grads = model.flat_grads.copy()
    model.zero_grad()
    for t, v, dvector in zip(tokens, vector, got, strict=True):
        model(t, v)
        np.testing.assert_array_equal(model.backward(dlogits), dvector)
    assert_close("grads", model.flat_grads, grads, 1e-12)
    with pytest.raises(RuntimeError, match="context was already used"):
        model.backward(dlogits, context=contexts[0])


def test_teacher_forcing():
    inputs, targets = teacher_forcing([[5, 6], [], [7, 8, 9]], 1, 2, ignore_index=-1)
    assert inputs.tolist() == [[1, 5, 6, 1], [1, 1, 1, 1], [1, 7, 8, 9]]
    assert targets.tolist() == [[5, 6, 2, -1], [2, -1, -1, -1], [7, 8, 9, 2]]
    inputs, targets = teacher_forcing(np.arange(6).reshape(2, 3), 9, batch_first=False)
    assert inputs.T.tolist() == [[9, 0, 1], [9, 3, 4]]
    assert targets.T.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert inputs.flags.c_contiguous


# -- writing --------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
def test_greedy_takes_the_likeliest_token_each_time(cell, dtype, rng):
    model = small(cell, 2, dtype)
    vector = rng.normal(size=(8, 2))
    result = model.generate(vector=vector, max_length=6, temperature=0)
    for b in range(8):
        tokens = []
        while len(tokens) < 6 and END not in tokens:
            logits = logits_of(model, (*tokens, 0), b, vector)
            tokens.append(int(logits[-1].argmax()))
        log_p = log_softmax(logits_of(model, tokens, b, vector).astype(float))
        want = log_p[np.arange(len(tokens)), tokens].sum()
        assert_close("log p", result.log_probabilities[b], want, 1e-5, scale=1)
        assert result.ended[b] == (tokens[-1] == END)
        assert result.tokens[b].tolist() == [t for t in tokens if t != END]
    assert result.weights is None


@pytest.mark.parametrize("end", [END, None])
@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("cell", CELLS)
def test_a_wide_beam_finds_the_best_of_all_sequences(cell, length_penalty, end, rng):
    model = small(cell, 2, end=end)
    vector = rng.normal(size=(3, 2))
    result = model.generate(
        vector=vector, max_length=4, beam_width=700, length_penalty=length_penalty
    )
    for b in range(3):
        tokens, log_p = likeliest(
            lambda seq, b=b: logits_of(model, seq, b, vector), 5, end, 4, length_penalty
        )
        assert tuple(result.tokens[b]) == tokens
        assert_close("log p", result.log_probabilities[b], log_p, 1e-9, scale=1)
        assert result.ended[b] == (end is not None)


@pytest.mark.parametrize("width", [1, 2, 3, 10])
def test_log_probabilities_are_the_models(width, rng):
    """What a beam of any width says of a sequence is what forward says."""
    model = small(fastrnn.LSTM, 2)
    vector = rng.normal(size=(30, 2))
    result = model.generate(vector=vector, max_length=8, beam_width=width)
    for b, tokens in enumerate(result.tokens):
        whole = (*tokens, END) if result.ended[b] else tuple(tokens)
        log_p = log_softmax(logits_of(model, whole, b, vector))
        want = log_p[np.arange(len(whole)), whole].sum()
        assert_close("log p", result.log_probabilities[b], want, 1e-9, scale=1)
        assert END not in tokens
        assert len(tokens) <= 8


def test_a_wider_beam_is_seldom_worse(rng):
    model = small(fastrnn.LSTM, 2, end=None)
    vector = rng.normal(size=(30, 2))
    scores = [
        model.generate(vector=vector, max_length=8, beam_width=width).log_probabilities
        for width in (1, 3, 9)
    ]
    for narrow, wide in itertools.pairwise(scores):
        assert (wide >= narrow - 1e-9).mean() > 0.9
        assert wide.sum() > narrow.sum()


def test_a_beam_of_one_without_end_is_greedy(rng):
    model = small(vector_size=2, end=None)
    vector = rng.normal(size=(9, 2))
    beam = model.generate(vector=vector, max_length=7, beam_width=1)
    greedy = model.generate(vector=vector, max_length=7, temperature=0)
    for one, other in zip(beam.tokens, greedy.tokens, strict=True):
        np.testing.assert_array_equal(one, other)
    assert_close("p", beam.log_probabilities, greedy.log_probabilities, 1e-12)


def test_draws_follow_the_model_and_the_seed():
    model = small()
    prompt = np.full((4000, 1), START)
    result = model.generate(prompt, max_length=3, seed=0)
    first = np.array([t[0] if len(t) else END for t in result.tokens])
    p = np.exp(log_softmax(logits_of(model, (0,))[0]))
    assert np.abs(np.bincount(first, minlength=5) / 4000 - p).max() < 0.032
    again = model.generate(prompt, max_length=3, seed=0)
    for one, other in zip(result.tokens, again.tokens, strict=True):
        np.testing.assert_array_equal(one, other)
    only = model.generate(prompt, max_length=1, seed=0, top_k=1)
    assert {t[0] if len(t) else END for t in only.tokens} == {p.argmax()}


def test_a_row_is_written_alone_as_in_a_batch(rng):
    model = small(fastrnn.LSTM, 2, "float32")
    vector = rng.normal(size=(5, 2))
    for options in ({"temperature": 0}, {"beam_width": 3}):
        whole = model.generate(vector=vector, max_length=9, **options)
        for b in range(5):
            alone = model.generate(vector=vector[b : b + 1], max_length=9, **options)
            np.testing.assert_array_equal(alone.tokens[0], whole.tokens[b])


@pytest.mark.parametrize("cell", CELLS)
def test_a_prompt_is_what_was_written_before(cell):
    model = small(cell, end=None)
    whole = model.generate(max_length=9, temperature=0).tokens[0]
    prompt = np.array([START, *whole[:4]])
    rest = model.generate(prompt, max_length=5, temperature=0).tokens[0]
    np.testing.assert_array_equal(rest, whole[4:])
    batch = model.generate(prompt[None], max_length=5, temperature=0)
    assert len(batch.tokens) == 1  # a row is one text, not one for each of its tokens
    np.testing.assert_array_equal(batch.tokens[0], rest)


def test_writing_leaves_modes_and_contexts(rng):
    model = small()
    model.embedding.eval()
    logits, _ = model.recurrent.train()(rng.normal(size=(3, 2, 3)))
    context = model.recurrent.context
    model.generate(max_length=3, seed=0)
    assert model.training
    assert not model.embedding.training
    assert model.recurrent.context is context
    model.recurrent.backward(logits)


def test_no_kind_of_writing_goes_on_with_nan():
    model = small()
    model.flat_parameters[:] = np.nan
    for options in ({}, {"temperature": 0}, {"beam_width": 2}):
        with pytest.raises(ValueError, match=r"^Generator\.generate: .* finite"):
            model.generate(max_length=3, **options)


# -- messages -------------------------------------------------------------------------


def model_of(**options):
    return Generator(5, fastrnn.GRU(3, 4, seed=0), seed=0, **options)


PLAIN, SEEDED = model_of(), model_of(vector_size=2, start=1)
TOKENS = np.zeros((3, 4), int)
MESSAGES = [
    (lambda: Generator(0, None), ValueError, "Generator: num_tokens must be a positi"),
    (
        lambda: Generator(5, fastrnn.Linear(2, 3)),
        TypeError,
        f"Generator: recurrent must be an {table.named()} with an input size, got Lin",
    ),
    (
        lambda: Generator(5, fastrnn.GRU(2, 3, bidirectional=True)),
        ValueError,
        "Generator: recurrent must not be bidirectional, got GRU(",
    ),
    (lambda: model_of(end=5), ValueError, "Generator: end must be in [0, 5), got 5"),
    (lambda: model_of(start=-1), ValueError, "Generator: start must be in [0, 5), g"),
    (
        lambda: model_of(vector_size=0),
        ValueError,
        "Generator: vector_size must be a positive integer, got 0",
    ),
    (lambda: PLAIN(TOKENS + 5), ValueError, "Generator: tokens must be in [0, 5), go"),
    (lambda: PLAIN(TOKENS[0]), ValueError, "Generator: tokens must have shape (B, T)"),
    (
        lambda: PLAIN(TOKENS, np.ones((3, 2))),
        ValueError,
        "Generator: vector must not be given with vector_size = None",
    ),
    (
        lambda: SEEDED(TOKENS),
        ValueError,
        "Generator: vector must be given with vector_size = 2",
    ),
    (
        lambda: SEEDED(TOKENS, np.ones((3, 3))),
        ValueError,
        "Generator: vector must have shape (B, vector_size) = (3, 2), got (3, 3)",
    ),
    (
        lambda: SEEDED(TOKENS, np.ones((3, 2)), np.ones((1, 3, 4))),
        ValueError,
        "Generator: vector must be None when a state is given",
    ),
    (
        lambda: PLAIN.generate(),
        ValueError,
        "Generator.generate: prompt must be given to a model with no start token",
    ),
    (
        lambda: PLAIN.generate(TOKENS, max_length=0),
        ValueError,
        "Generator.generate: max_length must be a positive integer, got 0",
    ),
    (
        lambda: PLAIN.generate(TOKENS[:, :0]),
        ValueError,
        "Generator.generate: prompt must have P >= 1, got shape (3, 0)",
    ),
    (
        lambda: PLAIN.generate(TOKENS, beam_width=2, top_k=3),
        ValueError,
        "Generator.generate: top_k must be None with beam_width, got 3",
    ),
    (
        lambda: PLAIN.generate(TOKENS, beam_width=0),
        ValueError,
        "Generator.generate: beam_width must be a positive integer, got 0",
    ),
    (
        lambda: PLAIN.generate(TOKENS, beam_width=1, length_penalty=-1),
        ValueError,
        "Generator.generate: length_penalty must be a number in [0, inf), got -1",
    ),
    (
        lambda: SEEDED.generate(vector=1.0),
        ValueError,
        "Generator.generate: vector must have shape (B, vector_size) = (1, 2), got ()",
    ),
    (
        lambda: teacher_forcing([[]], 1),
        ValueError,
        "teacher_forcing: sequences must have a step, got 1 empty",
    ),
    (
        lambda: teacher_forcing([[1.5]], 1),
        TypeError,
        "teacher_forcing: sequence 0 must be integers, got dtype float64",
    ),
    (
        lambda: teacher_forcing([[[1]]], 1),
        ValueError,
        "teacher_forcing: sequence 0 must have shape (n,), got (1, 1)",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), MESSAGES)
def test_messages(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(message)
