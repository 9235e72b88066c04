# SPDX-License-Identifier: BSD-3-Clause
"""`Generator`: one to many, a model that goes on with its own output."""

import math

import numpy as np

from fastrnn import _check
from fastrnn._ragged import as_state
from fastrnn._search import Options, write
from fastrnn.layers import Embedding, Linear
from fastrnn.module import Module
from fastrnn.recurrent import GRU, LSTM, RNN


def teacher_forcing(sequences, start, end=None, ignore_index=-100):
    """Inputs and targets that train a model to write given sequences.

    At each step the input is the right token of the step before, whatever the model
    would have written.

    Parameters
    ----------
    sequences : sequence of array_like of int, each of shape (n,)
        What to write, without start and end; n may be 0 with an `end`.
    start : int
        First input of every sequence.
    end : int, optional
        Last target of every sequence. Default: none.
    ignore_index : int
        Target past a sequence's end, for `cross_entropy`.

    Returns
    -------
    inputs, targets : ndarray of int64, shape (T, B)
        T is the greatest length, with the end. Inputs past a sequence's end are
        `start`.

    Raises
    ------
    ValueError
        If there is no sequence, or none has a step.
    TypeError
        If one is not integers.

    References
    ----------
    .. [1] R. Williams, D. Zipser, "A Learning Algorithm for Continually Running Fully
       Recurrent Neural Networks", Neural Computation 1(2), 1989.

    Examples
    --------
    >>> inputs, targets = teacher_forcing([[5, 6, 7], [8]], start=1, end=2)
    >>> inputs.T.tolist(), targets.T.tolist()
    ([[1, 5, 6, 7], [1, 8, 1, 1]], [[5, 6, 7, 2], [8, 2, -100, -100]])
    """
    who = "teacher_forcing"
    start = _check.integer(who, "start", start)
    tail = [] if end is None else [_check.integer(who, "end", end)]
    rows = []
    for i, sequence in enumerate(sequences):
        row = _check.integer_array(who, f"sequence {i}", sequence)
        _check.shape(who, f"sequence {i}", row, ("n",), (None,))
        rows.append(np.concatenate((row, np.array(tail, np.int64))))
    lengths = np.array([len(row) for row in rows], np.int64)
    if not lengths.any():
        raise ValueError(f"{who}: sequences must have a step, got {len(rows)} empty")
    T = lengths.max()
    inside = np.arange(T) < lengths[:, None]
    targets = np.full((len(rows), T), ignore_index, np.int64)
    targets[inside] = np.concatenate(rows)
    inputs = np.full((len(rows), T), start, np.int64)
    follows = inside[:, 1:]
    inputs[:, 1:][follows] = targets[:, :-1][follows]
    return np.ascontiguousarray(inputs.T), np.ascontiguousarray(targets.T)


def check_decoder(who, name, layer):
    """Refuse a layer that cannot go on from its own output."""
    if not isinstance(layer, RNN | LSTM | GRU):
        raise TypeError(
            f"{who}: {name} must be an RNN, LSTM or GRU with an input size, "
            f"got {layer!r}"
        )
    if layer.bidirectional or layer.batch_first:
        raise ValueError(
            f"{who}: {name} must be neither bidirectional nor batch_first, "
            f"got {layer!r}"
        )


def check_token(who, name, token, size):
    """A start or end token as an int; None stays None."""
    if token is None:
        return None
    token = _check.integer(who, name, token)
    if not 0 <= token < size:
        raise ValueError(f"{who}: {name} must be in [0, {size}), got {token}")
    return token


class StartState(Module):
    """A recurrent layer's initial state as tanh(W v + b) of a vector."""

    def __init__(self, size, recurrent, *, seed=None):
        parts = recurrent._states, recurrent.num_layers, recurrent.hidden_size
        self._parts = parts
        self.linear = Linear(size, math.prod(parts), dtype=recurrent.dtype, seed=seed)

    def forward(self, vector):
        """List of arrays (num_layers, B, hidden_size) from a vector (B, size)."""
        s = np.tanh(self.linear(vector))
        self._keep((s, self.linear.context))
        states, L, H = self._parts
        whole = s.reshape(-1, states, L, H).transpose(1, 2, 0, 3)
        return [np.ascontiguousarray(part) for part in whole]

    def backward(self, dparts, *, context=None):
        """Gradient of the vector from those of the state's arrays."""
        context = self._context(context)
        s, kept = context.saved
        ds = np.stack(dparts).transpose(2, 0, 1, 3).reshape(s.shape)
        context.release()
        return self.linear.backward(ds * (1 - s * s), context=kept)


class Stepper:
    """Rows of a decoder that step together: see `fastrnn._search`."""

    def __init__(self, embedding, recurrent, state, copies, read):
        B = state[0].shape[1]
        self._embedding, self._read = embedding, read
        self._stream = recurrent.stream(B * copies)
        self._arrays = [self._stream.h]
        if self._stream.c is not None:
            self._arrays.append(self._stream.c)
        for array, part in zip(self._arrays, state, strict=True):
            array[...] = np.repeat(part, copies, axis=1)

    def step(self, tokens):
        return self._read(self._stream.step(self._embedding(tokens)))

    def reorder(self, rows):
        for array in self._arrays:
            array[...] = array[:, rows]


class Generator(Module):
    """A model that writes sequences of tokens from a seed vector, a prompt or nothing.

    An embedding, a recurrent layer and a linear head over the tokens; if there is a
    vector (an image's features, a style), it makes the initial state.

    Parameters
    ----------
    num_tokens : int
        Tokens, V.
    recurrent : RNN, LSTM or GRU
        Neither bidirectional nor batch_first; its input_size is the embedding's.
    vector_size : int, optional
        Length of the seed vector. Default: the initial state is zero.
    start : int, optional
        The token that every sequence follows, if `generate` has no prompt.
    end : int, optional
        The token that ends a sequence. Default: only length does.
    seed : int or numpy.random.Generator, optional
        For the initial parameters of embedding, head and state.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as above.

    References
    ----------
    .. [1] A. Graves, "Generating Sequences With Recurrent Neural Networks",
       arXiv:1308.0850, 2013.
    .. [2] O. Vinyals, A. Toshev, S. Bengio, D. Erhan, "Show and Tell: A Neural Image
       Caption Generator", CVPR 2015.

    Examples
    --------
    Learn to count from a start, up to 9:

    >>> model = Generator(12, fastrnn.GRU(8, 32, seed=0), start=10, end=11, seed=1)
    >>> optimizer = fastrnn.Adam(model, lr=0.02)
    >>> inputs, targets = teacher_forcing([np.arange(10)], start=10, end=11)
    >>> for _ in range(100):
    ...     logits, _ = model(inputs)
    ...     loss, dlogits = fastrnn.cross_entropy(logits, targets)
    ...     model.zero_grad()
    ...     _ = model.backward(dlogits)
    ...     optimizer.step()
    >>> model.generate(temperature=0).tokens
    [array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])]
    >>> model.generate(inputs[:9], beam_width=3).tokens
    [array([8, 9])]
    """

    def __init__(
        self,
        num_tokens,
        recurrent,
        *,
        vector_size=None,
        start=None,
        end=None,
        seed=None,
    ):
        who = type(self).__name__
        V = self.num_tokens = _check.positive_int(who, "num_tokens", num_tokens)
        check_decoder(who, "recurrent", recurrent)
        self.start = check_token(who, "start", start, V)
        self.end = check_token(who, "end", end, V)
        rng, dtype = _check.generator(who, seed), recurrent.dtype
        self.vector_size = vector_size
        self.embedding = Embedding(V, recurrent.input_size, dtype=dtype, seed=rng)
        self.recurrent = recurrent
        self.head = Linear(recurrent.hidden_size, V, dtype=dtype, seed=rng)
        if vector_size is not None:
            _check.positive_int(who, "vector_size", vector_size)
            self.state = StartState(vector_size, recurrent, seed=rng)

    def _vector(self, who, vector, B):
        """The seed vector as (B, vector_size), or None where there is none."""
        if (vector is None) != (self.vector_size is None):
            rule = "must" if vector is None else "must not"
            raise ValueError(
                f"{who}: vector {rule} be given with vector_size = {self.vector_size}"
            )
        if vector is None:
            return None
        vector = _check.float_array(who, "vector", vector, self.dtype)
        letters = ("B", "vector_size")
        _check.shape(who, "vector", vector, letters, (B, self.vector_size))
        _check.not_empty(who, "vector", vector, letters)
        return vector

    def forward(self, tokens, vector=None, state=None):
        """Score every next token (see `teacher_forcing`).

        Parameters
        ----------
        tokens : array_like of int, shape (T, B)
            Inputs, in [0, num_tokens).
        vector : array_like, shape (B, vector_size), optional
            Seed of each sequence; needed if the model has a vector_size, unless there
            is a `state`.
        state : ndarray or pair of ndarray, optional
            As returned for the window before.

        Returns
        -------
        logits : ndarray, shape (T, B, num_tokens)
        state : ndarray or pair of ndarray
            State after the last step.

        Raises
        ------
        ValueError, TypeError
            If a shape disagrees, a token is out of range, or both or neither of
            `vector` and `state` are given to a model with a vector_size.
        """
        who = type(self).__name__
        tokens = _check.index_array(who, "tokens", tokens, self.num_tokens)
        _check.shape(who, "tokens", tokens, ("T", "B"), (None, None))
        if state is None:
            vector = self._vector(who, vector, tokens.shape[1])
        elif vector is not None:
            raise ValueError(f"{who}: vector must be None when a state is given")
        if vector is not None:
            state = as_state(self.state(vector))
        y, end = self.recurrent(self.embedding(tokens), state)
        logits = self.head(y)
        made = None if vector is None else self.state.context
        self._keep(
            (
                self.embedding.context,
                self.recurrent.context,
                self.head.context,
                vector is not None,
                made,
            )
        )
        return logits, end

    def backward(self, dlogits, *, context=None):
        """Accumulate the gradients of all parameters, within the last window.

        Parameters
        ----------
        dlogits : array_like, shape (T, B, num_tokens)
            Gradient of the loss with respect to the logits.
        context : Context, optional
            What the forward in question left in ``context``. Default: the last one.

        Returns
        -------
        ndarray of shape (B, vector_size), or None
            Gradient of the vector, where there was one.

        Raises
        ------
        RuntimeError
            If there was no forward in training mode, or its context has been used.
        ValueError, TypeError
            If `dlogits` does not fit.
        """
        context = self._context(context)
        embedded, recurred, headed, has_vector, made = context.saved
        dy = self.head.backward(dlogits, context=headed)
        dx, d_state = self.recurrent.backward(dy, context=recurred)
        self.embedding.backward(dx, context=embedded)
        context.release()
        if not has_vector:
            return None
        d_state = d_state if isinstance(d_state, tuple) else (d_state,)
        return self.state.backward(d_state, context=made)

    def generate(
        self,
        prompt=None,
        vector=None,
        *,
        max_length=100,
        temperature=None,
        top_k=None,
        top_p=None,
        beam_width=None,
        length_penalty=1.0,
        seed=None,
    ):
        """Write sequences, each token fed back as the next input.

        Parameters
        ----------
        prompt : array_like of int, shape (P, B), optional
            What to go on from. Default: the start token, once or for each vector.
        vector : array_like, shape (B, vector_size), optional
            Seed of each sequence.
        max_length : int
            Most tokens to write.
        temperature, top_k, top_p : optional
            As for `sample`; temperature 0 is greedy, the default 1.
        beam_width : int, optional
            Look for the likeliest sequence with this many at a time instead.
        length_penalty : float >= 0
            Beam search divides a log-probability by length to this power: 0 favours
            short sequences, 1 compares means.
        seed : None, int or numpy.random.Generator
            For the draws.

        Returns
        -------
        Generated
            With ``tokens``, ``log_probabilities`` and ``ended``. Beam search prefers
            sequences that end to those that reach `max_length`.

        Raises
        ------
        ValueError, TypeError
            If an argument is not as above, or there is neither a prompt nor a start
            token.
        """
        who = f"{type(self).__name__}.generate"
        options = Options(
            who,
            1.0,
            max_length,
            temperature,
            top_k,
            top_p,
            beam_width,
            length_penalty,
            seed,
        )
        if prompt is None:
            if self.start is None:
                raise ValueError(
                    f"{who}: prompt must be given to a model with no start token"
                )
            B = len(vector) if np.ndim(vector) else 1
            prompt = np.full((1, B), self.start)
        prompt = _check.index_array(who, "prompt", prompt, self.num_tokens)
        _check.shape(who, "prompt", prompt, ("P", "B"), (None, None))
        _check.not_empty(who, "prompt", prompt, ("P", "B"))
        B = prompt.shape[1]
        with self._evaluating():
            vector = self._vector(who, vector, B)
            shape = self.recurrent.num_layers, B, self.recurrent.hidden_size
            state = [np.zeros(shape, self.dtype)] * self.recurrent._states
            if vector is not None:
                state = self.state(vector)
            if len(prompt) > 1:
                _, state = self.recurrent(self.embedding(prompt[:-1]), as_state(state))
                state = list(state) if isinstance(state, tuple) else [state]
            stepper = Stepper(
                self.embedding,
                self.recurrent,
                state,
                options.beam_width or 1,
                lambda y: (self.head(y), None),
            )
            return write(stepper, prompt[-1], self.end, options)

    def extra_repr(self):
        """The arguments that `repr` shows."""
        shown = [str(self.num_tokens)]
        for name in ("vector_size", "start", "end"):
            value = getattr(self, name)
            shown += [] if value is None else [f"{name}={value}"]
        return ", ".join(shown)
