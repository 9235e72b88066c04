# SPDX-License-Identifier: BSD-3-Clause
"""`EncoderDecoder`: gradients, PyTorch, lengths, searches against all sequences."""

import copy

import numpy as np
import pytest
from exhaustive import likeliest, log_softmax
from gradcheck import assert_close
from slopes import check_gradients
from tolerances import relative

import fastrnn
from fastrnn import GRU, LSTM, RNN, EncoderDecoder

START, END = 3, 4  # of five target tokens
S, T, B = 4, 3, 3
LENGTHS = np.array([4, 1, 3])

# What differs: cells, directions, layers, attention, source.
SHAPES = {
    "gru to gru": ((GRU, 3, 4), (GRU, 2, 4), 6, "general"),
    "bilstm to lstm": ((LSTM, 3, 4, 1, True), (LSTM, 2, 3, 2), 6, "additive"),
    "lstm to gru": ((LSTM, 3, 4, 2), (GRU, 2, 4), 6, "dot"),
    "features, rnn": ((RNN, 3, 4), (RNN, 2, 4), None, None),
    "lstm to lstm": ((LSTM, 3, 4, 2), (LSTM, 2, 4, 2), 6, None),
}


def recurrent(cell, I, H, num_layers=1, bidirectional=False):
    return cell(I, H, num_layers, bidirectional=bidirectional, dtype="float64", seed=0)


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def model(request):
    encoder, decoder, size, attention = request.param
    encoder, decoder = recurrent(*encoder), recurrent(*decoder)
    model = EncoderDecoder(
        encoder, decoder, size, 5, start=START, end=END, attention=attention, seed=1
    )
    model.flat_parameters[:] = np.random.default_rng(0).normal(
        size=model.flat_parameters.size
    )
    return model


def some_source(model, rng):
    if model.source_size is None:
        return rng.normal(size=(B, S, 3))
    return rng.integers(0, model.source_size, (B, S))


def logits_of(model, source, n, tokens):
    """Logits of each token of a sequence for one source (1, S), by forward."""
    inputs = np.array([START, *tokens[:-1]])[None]
    with model._evaluating():
        return model(source[:, :n], inputs)[0][0]


# -- training -------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_gradients(model, lengths, rng):
    source, target = some_source(model, rng), rng.integers(0, 5, (B, T))
    dlogits = rng.normal(size=(B, T, 5))

    def loss():
        with model._evaluating():
            return (model(source, target, lengths)[0] * dlogits).sum()

    model.flat_grads[:] = 1
    model(source, target, lengths)
    dsource = model.backward(dlogits)
    if model.source_size is None:
        check_gradients(loss, model, {"source": dsource}, {"source": source})
    else:
        assert dsource is None
        check_gradients(loss, model, {}, {})


def test_a_source_is_read_alone_as_in_a_batch(model, rng):
    source, target = some_source(model, rng), rng.integers(0, 5, (B, T))
    logits, weights = model(source, target, LENGTHS)
    for b, n in enumerate(LENGTHS):
        one = slice(b, b + 1)
        alone, w = model(source[one, :n], target[one])
        assert_close("logits", logits[one], alone, 1e-12)
        if weights is not None:
            assert_close("weights", weights[one, :, :n], w, 1e-12)
            assert not weights[b, :, n:].any()
    assert (weights is None) == (not model._attends)


def test_padding_may_be_anything(model, rng):
    source, target = some_source(model, rng), rng.integers(0, 5, (B, T))
    want, _ = model(source, target, LENGTHS)
    source[np.arange(S) >= LENGTHS[:, None]] = 0 if model.source_size else np.nan
    np.testing.assert_array_equal(model(source, target, LENGTHS)[0], want)


def test_same_results_as_torch(dtype, rng):
    """A bidirectional GRU over packed sequences, a bridge, general attention."""
    torch = pytest.importorskip("torch", reason="compares with torch.nn")
    lengths = np.array([7, 2, 5, 7])
    model = EncoderDecoder(
        GRU(4, 5, bidirectional=True, dtype=dtype, seed=rng),
        GRU(3, 6, dtype=dtype, seed=rng),
        9,
        8,
        start=0,
        end=1,
        seed=rng,
    )
    source, target = rng.integers(0, 9, (7, 4)), rng.integers(0, 8, (6, 4))
    dlogits = rng.normal(size=(6, 4, 8)).astype(dtype)
    kind = getattr(torch, dtype)
    peers = torch.nn.ModuleDict(
        {
            "source": torch.nn.Embedding(9, 4),
            "target": torch.nn.Embedding(8, 3),
            "encoder": torch.nn.GRU(4, 5, bidirectional=True),
            "decoder": torch.nn.GRU(3, 6),
            "bridge": torch.nn.ModuleDict({"linear": torch.nn.Linear(10, 6)}),
            "attention": torch.nn.ModuleDict(
                {"query": torch.nn.Linear(6, 10, bias=False)}
            ),
            "combine": torch.nn.Linear(16, 6),
            "head": torch.nn.Linear(6, 8),
        }
    ).to(kind)
    state = {name: torch.tensor(a) for name, a in model.state_dict().items()}
    peers.load_state_dict(state)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        peers["source"](torch.tensor(source)), lengths, enforce_sorted=False
    )
    y, h_n = peers["encoder"](packed)
    keys, _ = torch.nn.utils.rnn.pad_packed_sequence(y)
    h0 = torch.tanh(peers["bridge"]["linear"](torch.cat((h_n[0], h_n[1]), -1)))
    h, _ = peers["decoder"](peers["target"](torch.tensor(target)), h0[None])
    scores = torch.einsum("tbk,sbk->tbs", peers["attention"]["query"](h), keys)
    inside = torch.tensor(np.arange(7) < lengths[:, None])
    w = scores.masked_fill(~inside, -torch.inf).softmax(-1)
    seen = torch.einsum("tbs,sbk->tbk", w, keys)
    out = peers["head"](torch.tanh(peers["combine"](torch.cat((seen, h), -1))))
    out.backward(torch.tensor(dlogits))

    logits, weights = model(source.T, target.T, lengths)
    want, looked = (t.detach().numpy().swapaxes(0, 1) for t in (out, w))
    assert_close("logits", logits, want, relative(dtype, 100))
    assert_close("weights", weights, looked, relative(dtype, 100))
    model.backward(dlogits.swapaxes(0, 1))
    for name, parameter in peers.named_parameters():
        want = parameter.grad.numpy()
        assert_close(name, model.grads[name], want, relative(dtype, 1000))


def test_contexts_and_dropout(rng):
    model = EncoderDecoder(
        GRU(3, 4, seed=0), GRU(2, 4, seed=0), 6, 5, start=3, end=4, dropout=0.5, seed=0
    )
    source, target = some_source(model, rng), rng.integers(0, 5, (B, T))
    dlogits = rng.normal(size=(B, T, 5))
    contexts = []
    for n in (LENGTHS, None):
        model(source, target, n)
        contexts.append(model.context)
    model.backward(dlogits, context=contexts[0])
    model.backward(dlogits, context=contexts[1])
    assert model.flat_grads.any()
    with pytest.raises(RuntimeError, match="context was already used"):
        model.backward(dlogits, context=contexts[0])
    model.eval()
    first, _ = model(source, target)
    np.testing.assert_array_equal(model(source, target)[0], first)
    with pytest.raises(RuntimeError, match="needs a forward in training mode"):
        model.backward(dlogits)


def test_saved_and_copied_models_are_the_same(model, tmp_path, rng):
    source, target = some_source(model, rng), rng.integers(0, 5, (B, T))
    logits, _ = model(source, target, LENGTHS)
    model.save(tmp_path / "model.safetensors")
    twin = copy.deepcopy(model)
    np.testing.assert_array_equal(twin(source, target, LENGTHS)[0], logits)
    twin.flat_parameters[:] = 0
    twin.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(twin(source, target, LENGTHS)[0], logits)
    twin.backward(logits)
    assert not model.flat_grads.any()


# -- writing --------------------------------------------------------------------------


def test_greedy_takes_the_likeliest_token_each_time(model, rng):
    source = some_source(model, rng)
    result = model.translate(source, LENGTHS, max_length=6)
    for b, n in enumerate(LENGTHS):
        tokens = []
        while len(tokens) < 6 and END not in tokens:
            logits = logits_of(model, source[b : b + 1], n, (*tokens, 0))
            tokens.append(int(logits[-1].argmax()))
        assert result.tokens[b].tolist() == [t for t in tokens if t != END]
        assert result.ended[b] == (tokens[-1] == END)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_a_wide_beam_finds_the_best_of_all_sequences(model, length_penalty, rng):
    source = some_source(model, rng)
    result = model.translate(
        source, LENGTHS, max_length=3, beam_width=150, length_penalty=length_penalty
    )
    for b, n in enumerate(LENGTHS):
        one = source[b : b + 1]
        tokens, log_p = likeliest(
            lambda seq, one=one, n=n: logits_of(model, one, n, seq),
            5,
            END,
            3,
            length_penalty,
        )
        assert tuple(result.tokens[b]) == tokens
        assert_close("log p", result.log_probabilities[b], log_p, 1e-9, scale=1)


@pytest.mark.parametrize(
    "options", [{}, {"beam_width": 3}, {"temperature": 1.0, "seed": 0}]
)
def test_weights_are_those_of_forward(model, options, rng):
    source = some_source(model, rng)
    result = model.translate(source, LENGTHS, max_length=5, **options)
    if not model._attends:
        assert result.weights is None
        return
    for b, (n, tokens) in enumerate(zip(LENGTHS, result.tokens, strict=True)):
        assert result.weights[b].shape == (len(tokens), n)
        if len(tokens):
            inputs = np.array([START, *tokens[:-1]])[None]
            _, weights = model(source[b : b + 1, :n], inputs)
            assert_close("weights", result.weights[b], weights[0], 1e-12)
        whole = (*tokens, END) if result.ended[b] else tuple(tokens)
        log_p = log_softmax(logits_of(model, source[b : b + 1], n, whole))
        want = log_p[np.arange(len(whole)), whole].sum()
        assert_close("log p", result.log_probabilities[b], want, 1e-9, scale=1)


def test_learns_to_reverse():
    """Held-out sequences of two lengths, padded, after a few hundred steps."""
    rng = np.random.default_rng(0)
    model = EncoderDecoder(
        GRU(16, 32, bidirectional=True, seed=0),
        GRU(16, 32, seed=1),
        8,
        10,
        start=8,
        end=9,
        seed=2,
    )
    optimizer = fastrnn.Adam(model, lr=0.01)

    def batch(n):
        lengths = rng.integers(3, 5, n)
        source = rng.integers(0, 8, (n, 4))
        return source, lengths, [source[b, :m][::-1] for b, m in enumerate(lengths)]

    for _ in range(250):
        source, lengths, reversed_ = batch(64)
        inputs, targets = fastrnn.teacher_forcing(reversed_, 8, 9)
        logits, _ = model(source, inputs, lengths)
        _, dlogits = fastrnn.cross_entropy(logits, targets)
        model.zero_grad()
        model.backward(dlogits)
        fastrnn.clip_grad_norm_(model, 1.0)
        optimizer.step()
    source, lengths, reversed_ = batch(100)
    for options in ({}, {"beam_width": 3}):
        result = model.translate(source, lengths, max_length=8, **options)
        right = [
            np.array_equal(one, other)
            for one, other in zip(result.tokens, reversed_, strict=True)
        ]
        assert np.mean(right) > 0.95


# -- messages -------------------------------------------------------------------------


def model_of(encoder=None, decoder=None, source_size=6, **options):
    options = {"start": START, "end": END, "seed": 0, **options}
    encoder = GRU(3, 4, seed=0) if encoder is None else encoder
    decoder = GRU(2, 4, seed=0) if decoder is None else decoder
    return EncoderDecoder(encoder, decoder, source_size, 5, **options)


MODEL, FEATURES = model_of(), model_of(source_size=None)
SOURCE, TARGET = np.zeros((B, S), int), np.zeros((B, T), int)
MESSAGES = [
    (lambda: model_of(fastrnn.Linear(3, 4)), TypeError, "encoder must be an RNN, LSTM"),
    (
        lambda: model_of(decoder=GRU(3, 4, bidirectional=True)),
        ValueError,
        "decoder must not be bidirectional, got GRU(3, 4, bidirec",
    ),
    (lambda: model_of(source_size=0), ValueError, "source_size must be a positive int"),
    (lambda: model_of(end=5), ValueError, "end must be in [0, 5), got 5"),
    (lambda: model_of(start=None), TypeError, "start must be an integer, got None"),
    (lambda: model_of(attention="x"), ValueError, "attention must be one of 'dot', 'g"),
    (
        lambda: model_of(attention=None, units=3),
        ValueError,
        "units must be None without attention",
    ),
    (
        lambda: model_of(GRU(3, 4, dtype="float64")),
        ValueError,
        "all layers must have one dtype, got ",
    ),
    (lambda: model_of(dropout=2), ValueError, "p must be a number in [0, 1], got 2"),
    (lambda: MODEL(SOURCE + 6, TARGET), ValueError, "source must be in [0, 6), got 6"),
    (lambda: MODEL(SOURCE[0], TARGET), ValueError, "source must have shape (B, S), go"),
    (lambda: MODEL(SOURCE, TARGET + 5), ValueError, "target must be in [0, 5), got 5"),
    (
        lambda: MODEL(SOURCE, TARGET[:2]),
        ValueError,
        "target must have shape (B, T) = (3, T), got (2, 3)",
    ),
    (
        lambda: MODEL(SOURCE, TARGET[:, :0]),
        ValueError,
        "target must have T >= 1, got ",
    ),
    (
        lambda: MODEL(SOURCE, TARGET, [5, 1, 1]),
        ValueError,
        "source_lengths must be in [1, 4], got 5",
    ),
    (
        lambda: FEATURES(np.zeros((B, S, 2)), TARGET),
        ValueError,
        "source must have shape (B, S, input_size) = (B, S, 3), got (3, 4, 2)",
    ),
    (lambda: MODEL.translate(SOURCE + 6), ValueError, "source must be in [0, 6), got "),
    (
        lambda: MODEL.translate(SOURCE, beam_width=3, temperature=1.0),
        ValueError,
        "temperature must be None with beam_width, got 1.0",
    ),
    (
        lambda: MODEL.translate(SOURCE, max_length=0),
        ValueError,
        "max_length must be a positive integer, got 0",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), MESSAGES)
def test_messages(call, error, message):
    with pytest.raises(error) as caught:
        call()
    who, _, rest = str(caught.value).partition(": ")
    assert who in ("EncoderDecoder", "EncoderDecoder.translate", "Dropout")
    assert rest.startswith(message)
