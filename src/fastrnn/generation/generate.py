# SPDX-License-Identifier: BSD-3-Clause
"""`Generator`: one to many, a model that goes on with its own output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.data import pairs
from fastrnn.generation.decoding import (
    StartState,
    Writer,
    WritingModel,
    check_decoder,
    check_token,
)
from fastrnn.generation.search import Generated, SearchOptions, write
from fastrnn.losses.ending import check_gives_scores
from fastrnn.nn import axis_rule
from fastrnn.nn.attempt import Attempt
from fastrnn.nn.context import Context
from fastrnn.nn.embedding import Embedding
from fastrnn.nn.layers import Linear
from fastrnn.recurrent.layer import Recurrent
from fastrnn.recurrent.states import as_state, state_parts
from fastrnn.util import checks
from fastrnn.util.lengths import lengths_array
from fastrnn.util.typing import Array, Seed
from fastrnn.util.words import answering


class Generator(WritingModel):
    """A model that writes sequences of tokens from a seed vector, a prompt or nothing.

    An embedding, a recurrent layer and a linear head over the tokens; if there is a
    vector (an image's features, a style), it makes the initial state.

    ``fit(x, y)`` teaches it to write y, ``predict(x)`` writes: x has the seed vectors
    (N, vector_size) of a model with a vector_size, else prompts, sequences of tokens
    that y goes on from, or is None: all begin with `start`. A pair has vectors and
    prompts. Prompts and y are lists of arrays of any lengths, arrays (N, T), -100
    where a sequence has ended, or a pair of such an array and lengths; start and end
    tokens round y may be there or not. `compile` needs no loss.

    Parameters
    ----------
    num_tokens : int
        Tokens, V.
    recurrent : recurrent layer, such as LSTM
        Not bidirectional; its input_size is the embedding's.
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
    Learn to count from a start, up to 9, and from wherever a prompt is:

    >>> model = Generator(12, fastrnn.GRU(8, 32, seed=0), start=10, end=11, seed=1)
    >>> model.compile(optimizer="adam", lr=0.02)
    >>> history = model.fit(None, [range(10)], epochs=100, seed=0, verbose=0)
    >>> model.predict(None)
    [array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])]
    >>> model.predict([[10, 0, 1, 2, 3, 4, 5, 6, 7]], beam_width=3)
    [array([8, 9])]
    """

    _child_names = ("embedding", "head", "recurrent", "state")

    def __init__(
        self,
        num_tokens: int,
        recurrent: Recurrent[Any],
        *,
        vector_size: int | None = None,
        start: int | None = None,
        end: int | None = None,
        seed: Seed = None,
    ) -> None:
        who = type(self).__name__
        V = self.num_tokens = checks.positive_int(who, "num_tokens", num_tokens)
        check_decoder(who, "recurrent", recurrent)
        self.start: Any = check_token(who, "start", start, V)
        self.end = check_token(who, "end", end, V)
        rng, dtype = checks.generator(who, seed), recurrent.dtype
        self.vector_size = vector_size
        self.embedding = Embedding(V, recurrent.input_size, dtype=dtype, seed=rng)
        self.recurrent = recurrent
        self.head = Linear(recurrent.hidden_size, V, dtype=dtype, seed=rng)
        if vector_size is not None:
            checks.positive_int(who, "vector_size", vector_size)
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
        vector = checks.float_array(who, "vector", vector, self.dtype)
        letters = ("B", "vector_size")
        checks.shape(who, "vector", vector, letters, (B, self.vector_size))
        checks.not_empty(who, "vector", vector, letters)
        return vector

    def forward(
        self, tokens: ArrayLike, vector: ArrayLike | None = None, state: Any = None
    ) -> tuple[Array, Any]:
        """Score every next token (see `teacher_forcing`).

        Parameters
        ----------
        tokens : array_like of int, shape (B, T)
            Inputs, in [0, num_tokens).
        vector : array_like, shape (B, vector_size), optional
            Seed of each sequence; needed if the model has a vector_size, unless there
            is a `state`.
        state : ndarray or pair of ndarray, optional
            As returned for the window before.

        Returns
        -------
        logits : ndarray, shape (B, T, num_tokens)
        state : ndarray or pair of ndarray
            State after the last step.

        Raises
        ------
        ValueError, TypeError
            If a shape disagrees, a token is out of range, or both or neither of
            `vector` and `state` are given to a model with a vector_size.
        """
        who = type(self).__name__
        tokens = checks.index_array(who, "tokens", tokens, self.num_tokens)
        checks.shape(who, "tokens", tokens, ("B", "T"), (None, None))
        if state is None:
            vector = self._vector(who, vector, len(tokens))
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

    if TYPE_CHECKING:
        __call__ = forward

    def backward(self, dlogits: ArrayLike, *, context: Context | None = None) -> Any:
        """Accumulate the gradients of all parameters, within the last window.

        Parameters
        ----------
        dlogits : array_like, shape (B, T, num_tokens)
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
        with Attempt():
            dy = self.head.backward(dlogits, context=headed)
            dx, d_state = self.recurrent.backward(dy, context=recurred)
            self.embedding.backward(dx, context=embedded)
            dvector = None
            if has_vector:
                parts = state_parts(d_state)
                dvector = self.state.backward(parts, context=made)
            context.release()
        return dvector

    @axis_rule.of_a_model
    def generate(
        self,
        prompt: ArrayLike | None = None,
        vector: ArrayLike | None = None,
        prompt_lengths: ArrayLike | None = None,
        *,
        max_length: int = 100,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        beam_width: int | None = None,
        length_penalty: float = 1.0,
        seed: Seed = None,
    ) -> Generated:
        """Write sequences, each token fed back as the next input.

        Parameters
        ----------
        prompt : array_like of int, shape (B, P) or (P,), optional
            What to go on from, a row for each sequence to write; one sequence may come
            without its axis. Default: the start token, once or for each vector.
        vector : array_like, shape (B, vector_size), optional
            Seed of each sequence.
        prompt_lengths : array_like of int, shape (B,), optional
            Tokens of each prompt, in [1, P]. Default: P.
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
        check_gives_scores(who, self.head)
        options = SearchOptions(
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
            prompt = np.full((B, 1), self.start)
        prompt = checks.index_array(who, "prompt", prompt, self.num_tokens)
        prompt = prompt[None] if prompt.ndim == 1 else prompt
        checks.shape(who, "prompt", prompt, ("B", "P"), (None, None))
        checks.not_empty(who, "prompt", prompt, ("B", "P"))
        B, P = prompt.shape
        lengths = lengths_array(who, "prompt_lengths", prompt_lengths, B, P)
        before = None if (lengths == P).all() else lengths - 1
        with self._evaluating():
            vector = self._vector(who, vector, B)
            shape = self.recurrent.num_layers, B, self.recurrent.hidden_size
            state = [np.zeros(shape, self.dtype)] * self.recurrent._states
            if vector is not None:
                state = self.state(vector)
            if P > 1:
                _, state = self.recurrent(
                    self.embedding(prompt[:, :-1]),
                    as_state(state),
                    lengths=before,
                )
                state = state_parts(state)
            writer = Writer(
                self.embedding,
                self.recurrent,
                state,
                options.beam_width or 1,
                lambda y: (self.head(y), None),
            )
            return write(writer, prompt[np.arange(B), lengths - 1], self.end, options)

    # -- fit and predict ---------------------------------------------------------------

    def forward_from(
        self, tokens: ArrayLike, state: Any = None, vector: ArrayLike | None = None
    ) -> Any:
        """As `forward`, for windows of a sequence: `vector` is for the first."""
        return self(tokens, vector if state is None else None, state)

    def _samples(self, who, x, y=None, weight=None):
        prompts, vectors = x, None
        if self.vector_size is not None:
            vectors, prompts = x if isinstance(x, tuple) and len(x) == 2 else (x, None)
            if vectors is None:
                raise TypeError(
                    f"{who}: x must have a vector for each sample, or be a pair "
                    "(vectors, prompts), got None"
                )
            vectors = checks.float_array(who, "x", vectors, self.dtype)
            checks.shape(who, "x", vectors, ("N", "vector_size"),
                         (None, self.vector_size))  # fmt: skip
        if prompts is not None:
            prompts = pairs.token_rows(who, "x", prompts, self.num_tokens)
        elif self.start is None:
            raise ValueError(
                f"{who}: x must have prompts for a model with no start token"
            )
        if y is not None:
            least = 1 if self.end is None else 0
            y = pairs.token_rows(who, "y", y, self.num_tokens, least)
            y = pairs.without_ends(who, y, self.start, self.end)
        inputs = tuple(one for one in (prompts, vectors) if one is not None)
        n = len((*inputs, y or [None])[0])
        return pairs.Pairs(who, inputs, y, weight, self._assemble, n)

    def _prompts_and_vectors(self, B, inputs):
        """Of a batch: what each sequence begins with, and seeds or None."""
        vectors = inputs[-1] if self.vector_size is not None else None
        prompts = inputs[0] if inputs and isinstance(inputs[0], list) else None
        return prompts or [np.array([self.start])] * B, vectors

    def _assemble(self, *inputs_and_y):
        *inputs, y = inputs_and_y
        prompts, vectors = self._prompts_and_vectors(len(y), inputs)
        tokens, target = pairs.teach(prompts, y, self.end)
        return (tokens,) if vectors is None else (tokens, vectors), target

    @answering
    def predict(
        self,
        x: Any,
        *,
        batch_size: int = 32,
        max_length: int = 100,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        beam_width: int | None = None,
        length_penalty: float = 1.0,
        seed: Seed = None,
    ) -> list[Array]:
        """Write a sequence for each sample.

        Parameters
        ----------
        x
            As for `fit`; None for one sequence from the start token.
        batch_size : int
        max_length, temperature, top_k, top_p, beam_width, length_penalty, seed
            As for `generate`, but the default temperature is 0, greedy.

        Returns
        -------
        list of ndarray of int64
            The tokens of each, without those of its prompt.

        Raises
        ------
        ValueError, TypeError
            If an argument is not as described.
        """
        who = "predict"
        batch_size = checks.positive_int(who, "batch_size", batch_size)
        rng = checks.generator(who, seed)
        if temperature is None and beam_width is None:
            temperature = 0.0

        def write(*inputs):
            B = len(inputs[0]) if inputs else 1
            prompts, vectors = self._prompts_and_vectors(B, inputs)
            prompts, lengths = pairs.padded(prompts)
            return self.generate(
                prompts, vectors, lengths, max_length=max_length,
                temperature=temperature, top_k=top_k, top_p=top_p,
                beam_width=beam_width, length_penalty=length_penalty, seed=rng,
            )  # fmt: skip

        return pairs.written(self._samples(who, x), batch_size, write)

    def extra_repr(self) -> str:
        """The arguments that `repr` shows."""
        shown = [str(self.num_tokens)]
        for name in ("vector_size", "start", "end"):
            value = getattr(self, name)
            shown += [] if value is None else [f"{name}={value}"]
        return ", ".join(shown)
