# SPDX-License-Identifier: BSD-3-Clause
"""`EncoderDecoder`: one sequence in, another one out, with attention between.

Above 400 lines for the docstrings: it is one class, whose forward, backward and search
belong together.
"""

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
    check_recurrent,
    check_token,
)
from fastrnn.generation.search import Generated, SearchOptions, write
from fastrnn.losses.ending import check_gives_scores
from fastrnn.nn import axis_rule
from fastrnn.nn.attempt import Attempt
from fastrnn.nn.attention import KINDS, Attention
from fastrnn.nn.context import Context
from fastrnn.nn.embedding import Embedding
from fastrnn.nn.layers import Dropout, Linear
from fastrnn.nn.merging import Concatenate
from fastrnn.recurrent.layer import Recurrent
from fastrnn.recurrent.states import as_state, state_parts
from fastrnn.util import checks
from fastrnn.util.lengths import lengths_array, steps_mask
from fastrnn.util.typing import Array, Seed
from fastrnn.util.words import answering


class EncoderDecoder(WritingModel):
    """Two recurrent layers: one reads the source, the other writes the target.

    The decoder starts from the encoder's last state: as it is where the two layers
    have one shape, else through tanh of a linear map of the top layer's (both
    directions). With attention, each decoder output h looks at all encoder outputs,
    and ``tanh(W [context, h])`` goes to the head (Luong's global attention without
    input feeding: a training step runs the decoder over the whole target in one call).

    ``fit(x, y)`` teaches it to write the targets y, given the right tokens so far;
    ``predict(x)`` writes. Sources x and targets y are lists of sequences of any
    lengths, arrays (N, S) and (N, T), -100 where a sequence of tokens has ended, or a
    pair of such an array and lengths; start and end tokens round y may be there or not.
    `compile` needs no loss.

    Parameters
    ----------
    encoder : recurrent layer, such as LSTM
        Its input_size is the source embedding's.
    decoder : recurrent layer, such as LSTM
        Not bidirectional; its input_size is the target embedding's.
    source_size : int or None
        Source tokens; None for a source of features, (B, S, encoder.input_size).
    target_size : int
        Target tokens, V.
    start, end : int
        The target tokens before and after every sequence.
    attention : {"general", "dot", "additive"} or None
        As for `Attention`; None for none: all that is known is in one state.
    units : int, optional
        For the additive kind.
    dropout : float in [0, 1]
        Of what goes to the head, in training mode.
    seed : int or numpy.random.Generator, optional
        For the initial parameters of all but the two layers, and for dropout.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as above, or the layers' dtypes differ.

    Notes
    -----
    Sequences of one length run through the encoder together, so that each one is read
    as if it were alone; batches of like lengths are the fastest.

    References
    ----------
    .. [1] I. Sutskever, O. Vinyals, Q. Le, "Sequence to Sequence Learning with Neural
       Networks", NIPS 2014.
    .. [2] D. Bahdanau, K. Cho, Y. Bengio, "Neural Machine Translation by Jointly
       Learning to Align and Translate", ICLR 2015.
    .. [3] M. Luong, H. Pham, C. Manning, "Effective Approaches to Attention-based
       Neural Machine Translation", EMNLP 2015.

    Examples
    --------
    Learn to write digits backwards:

    >>> model = EncoderDecoder(
    ...     fastrnn.GRU(16, 32, seed=0), fastrnn.GRU(16, 32, seed=1), 10, 12,
    ...     start=10, end=11, seed=2)
    >>> model.compile(optimizer="adam", metrics=["accuracy"], lr=0.01)
    >>> rng = np.random.default_rng(0)
    >>> sources = [rng.integers(0, 10, rng.integers(1, 4)) for _ in range(500)]
    >>> targets = [source[::-1] for source in sources]
    >>> history = model.fit(sources, targets, epochs=20, seed=0, verbose=0)
    >>> model.predict([[6, 1, 2], [3]], beam_width=2)
    [array([2, 1, 6]), array([3])]
    """

    _others = ("given_attention", "given_dropout")
    _given_lengths = ("encoder",)
    _child_names = (
        "attention", "bridge", "combine", "concatenate", "decoder", "dropout",
        "encoder", "head", "source", "target",
    )  # fmt: skip

    def __init__(
        self,
        encoder: Recurrent[Any],
        decoder: Recurrent[Any],
        source_size: int,
        target_size: int,
        *,
        start: int,
        end: int,
        attention: str | None = "general",
        units: int | None = None,
        dropout: float = 0.0,
        seed: Seed = None,
    ) -> None:
        who = type(self).__name__
        check_recurrent(who, "encoder", encoder)
        check_decoder(who, "decoder", decoder)
        V = self.target_size = checks.positive_int(who, "target_size", target_size)
        for name, token in (("start", start), ("end", end)):
            if token is None:
                raise TypeError(f"{who}: {name} must be an integer, got None")
        self.start = check_token(who, "start", start, V)
        self.end = check_token(who, "end", end, V)
        # As they were given, for `describe`: the layers have their names.
        self.given_attention, self.units = attention, units
        self.given_dropout = dropout
        if attention is not None:
            checks.choice(who, "attention", attention, KINDS)
        elif units is not None:
            raise ValueError(f"{who}: units must be None without attention")
        if source_size is not None:
            checks.positive_int(who, "source_size", source_size)
        self.source_size = source_size
        rng, dtype = checks.generator(who, seed), encoder.dtype
        if source_size is not None:
            self.source = Embedding(
                source_size, encoder.input_size, dtype=dtype, seed=rng
            )
        self.target = Embedding(V, decoder.input_size, dtype=dtype, seed=rng)
        self.encoder, self.decoder = encoder, decoder
        H, width = decoder.hidden_size, encoder.hidden_size * encoder._directions
        self._same_shape = not encoder.bidirectional and all(
            getattr(encoder, name) == getattr(decoder, name)
            for name in ("_states", "num_layers", "hidden_size")
        )
        if not self._same_shape:
            self.bridge = StartState(width, decoder, seed=rng)
        self._attends = attention is not None
        if not self._attends:
            vars(self)["attention"] = None
        else:
            self.attention = Attention(
                H, width, attention, units, dtype=dtype, seed=rng
            )
            self.concatenate = Concatenate()
            self.combine = Linear(H + width, H, dtype=dtype, seed=rng)
        self.dropout = Dropout(dropout, seed=rng)
        self.head = Linear(H, V, dtype=dtype, seed=rng)
        self._leaves()  # raises when dtypes differ

    # -- forward ----------------------------------------------------------------------

    def _encode(self, who, source, lengths):
        """Encoder outputs, decoder's first state, lengths, and what backward needs."""
        letters = ("B", "S")
        if self.source_size is None:
            x = checks.float_array(who, "source", source, self.dtype)
            letters, width = (*letters, "input_size"), self.encoder.input_size
            checks.shape(who, "source", x, letters, (None, None, width))
        else:
            x = checks.index_array(who, "source", source, self.source_size)
            checks.shape(who, "source", x, letters, (None, None))
        checks.not_empty(who, "source", x, letters)
        B, S = x.shape[:2]
        lengths = lengths_array(who, "source_lengths", lengths, B, S)
        embedded = None
        if self.source_size is not None:
            x = self.source(x)
            embedded = self.source.context
        keys, state = self.encoder(x, lengths=lengths)
        kept = self.encoder.context
        state = state_parts(state)
        bridged = None
        if not self._same_shape:
            D = self.encoder._directions
            summary = state[0][-D:].swapaxes(0, 1).reshape(B, -1)
            state = self.bridge(summary)
            bridged = self.bridge.context
        return keys, state, lengths, (embedded, kept, bridged)

    def forward(
        self,
        source: ArrayLike,
        target: ArrayLike,
        source_lengths: ArrayLike | None = None,
    ) -> tuple[Array, Any]:
        """Score every next target token, given the right ones before it.

        Parameters
        ----------
        source : array_like of int, shape (B, S)
            In [0, source_size); features (B, S, input_size) with no source_size.
        target : array_like of int, shape (B, T)
            Inputs from `teacher_forcing`: `start`, then the target.
        source_lengths : array_like of int, shape (B,), optional
            Steps of each source, in [1, S]. Default: S.

        Returns
        -------
        logits : ndarray, shape (B, T, target_size)
        weights : ndarray of shape (B, T, S), or None
            What each step looks at, where there is attention.

        Raises
        ------
        ValueError, TypeError
            If a shape disagrees, or a token or a length is out of range.
        """
        who = type(self).__name__
        target = checks.index_array(who, "target", target, self.target_size)
        B = np.shape(source)[0] if np.ndim(source) > 1 else None
        checks.shape(who, "target", target, ("B", "T"), (B, None))
        checks.not_empty(who, "target", target, ("B", "T"))
        keys, state, lengths, encoded = self._encode(who, source, source_lengths)
        y, _ = self.decoder(self.target(target), as_state(state))
        decoded = self.target.context, self.decoder.context
        seen, weights = None, None
        if self._attends:
            seen, weights = self.attention(y, keys, lengths)
        logits, read = self._read(y, seen)
        self._keep((encoded, decoded, read, len(lengths)))
        return logits, weights

    if TYPE_CHECKING:
        __call__ = forward

    def _read(self, y, seen):
        """Logits and what backward needs from decoder outputs and what they look at."""
        looked, squashed = None, None
        if self._attends:
            y = self.combine(self.concatenate(seen, y))
            squashed = np.tanh(y, out=y)
            looked = (
                self.attention.context,
                self.concatenate.context,
                self.combine.context,
            )
        logits = self.head(self.dropout(y))
        return logits, (looked, squashed, self.dropout.context, self.head.context)

    # -- backward ---------------------------------------------------------------------

    def backward(self, dlogits: ArrayLike, *, context: Context | None = None) -> Any:
        """Accumulate the gradients of all parameters.

        Parameters
        ----------
        dlogits : array_like, shape (B, T, target_size)
            Gradient of the loss with respect to the logits.
        context : Context, optional
            What the forward in question left in ``context``. Default: the last one.

        Returns
        -------
        ndarray of shape (B, S, input_size), or None
            Gradient of a source of features.

        Raises
        ------
        RuntimeError
            If there was no forward in training mode, or its context has been used.
        ValueError, TypeError
            If `dlogits` does not fit.
        """
        context = self._context(context)
        with Attempt():
            return self._backward(dlogits, context)

    def _backward(self, dlogits, context):
        encoded, (embedded, decoded), read, B = context.saved
        looked, squashed, dropped, headed = read
        dy = self.head.backward(dlogits, context=headed)
        context.release()
        dy = self.dropout.backward(dy, context=dropped)
        dkeys = None
        if looked is not None:
            attended, joined, combined = looked
            dy *= 1 - squashed * squashed
            dy = self.combine.backward(dy, context=combined)
            dseen, dy = self.concatenate.backward(dy, context=joined)
            dquery, dkeys = self.attention.backward(dseen, context=attended)
            dy += dquery
        dx, d_state = self.decoder.backward(dy, context=decoded)
        self.target.backward(dx, context=embedded)
        d_state = state_parts(d_state)
        embedded, kept, bridged = encoded
        if not self._same_shape:
            encoder = self.encoder
            D, L = encoder._directions, encoder.num_layers * encoder._directions
            dh = np.zeros((L, B, encoder.hidden_size), self.dtype)
            dsummary = self.bridge.backward(d_state, context=bridged)
            dh[-D:] = dsummary.reshape(B, D, -1).swapaxes(0, 1)
            d_state = [dh] + [None] * (encoder._states - 1)
        dx, _ = self.encoder.backward(dkeys, as_state(d_state), kept)
        if self.source_size is None:
            return dx
        self.source.backward(dx, context=embedded)
        return None

    # -- writing ----------------------------------------------------------------------

    @axis_rule.of_a_model
    def translate(
        self,
        source: ArrayLike,
        source_lengths: ArrayLike | None = None,
        *,
        max_length: int = 100,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        beam_width: int | None = None,
        length_penalty: float = 1.0,
        seed: Seed = None,
    ) -> Generated:
        """Write a target for each source.

        Parameters
        ----------
        source, source_lengths
            As for `forward`.
        max_length : int
            Most tokens to write.
        temperature, top_k, top_p : optional
            As for `sample`; the default temperature, 0, is greedy.
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
            With ``tokens``, ``log_probabilities``, ``ended`` and, where there is
            attention, ``weights``: for each sequence (its tokens, its source's steps).
            Beam search prefers sequences that end to those that reach `max_length`.

        Raises
        ------
        ValueError, TypeError
            If an argument is not as above.
        """
        who = f"{type(self).__name__}.translate"
        check_gives_scores(who, self.head)
        options = SearchOptions(
            who,
            0.0,
            max_length,
            temperature,
            top_k,
            top_p,
            beam_width,
            length_penalty,
            seed,
        )
        with self._evaluating():
            keys, state, lengths, _ = self._encode(who, source, source_lengths)
            B, S = keys.shape[:2]
            copies = options.beam_width or 1
            if self._attends:
                inside = steps_mask(lengths, S).T
                memory, _ = self.attention._remember(keys, inside)

            def read(y):
                # The copies of one sequence are queries of one memory.
                y = y.reshape(B, copies, -1)
                seen, weights = None, None
                if self._attends:
                    seen, weights, _ = self.attention._attend(y, memory)
                    weights = weights.reshape(B * copies, S)
                logits, _ = self._read(y, seen)
                return logits.reshape(B * copies, -1), weights

            writer = Writer(self.target, self.decoder, state, copies, read)
            result = write(writer, np.full(B, self.start), self.end, options)
        if result.weights is not None:
            for i, n in enumerate(lengths):
                result.weights[i] = result.weights[i][:, :n].copy()
        return result

    # -- fit and predict ---------------------------------------------------------------

    def forward_from(self, x: ArrayLike, state: Any = None, *_: Any) -> Any:
        """Refuse: there are no windows of a source and a target (`fit`'s tbptt)."""
        raise ValueError(
            f"{type(self).__name__}: tbptt is for models that go on from a state, not "
            "for an encoder and a decoder"
        )

    def _samples(self, who, x, y=None, weight=None):
        if self.source_size is None:
            width = self.encoder.input_size
            sources = pairs.feature_rows(who, "x", x, width, self.dtype)
        else:
            sources = pairs.token_rows(who, "x", x, self.source_size)
        if y is not None:
            y = pairs.token_rows(who, "y", y, self.target_size, least=0)
            y = pairs.without_ends(who, y, self.start, self.end)
        n = len(sources)
        return pairs.Pairs(who, (sources,), y, weight, self._assemble, n)

    def _example(self, zeros):
        source, target, lengths = zeros
        return source, target, lengths + source.shape[1]

    def _assemble(self, sources, y):
        source, lengths = pairs.padded(sources)
        start = np.array([self.start])
        inputs, target = pairs.teach([start] * len(y), y, self.end)
        return (source, inputs, lengths), target

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
        """Write a target for each source.

        Parameters
        ----------
        x
            As for `fit`.
        batch_size : int
        max_length, temperature, top_k, top_p, beam_width, length_penalty, seed
            As for `translate`: greedy by default.

        Returns
        -------
        list of ndarray of int64
            The tokens of each; `translate` gives attention weights, too.

        Raises
        ------
        ValueError, TypeError
            If an argument is not as described.
        """
        who = "predict"
        batch_size = checks.positive_int(who, "batch_size", batch_size)
        rng = checks.generator(who, seed)

        def write(sources):
            source, lengths = pairs.padded(sources)
            return self.translate(
                source, lengths, max_length=max_length,
                temperature=temperature, top_k=top_k, top_p=top_p,
                beam_width=beam_width, length_penalty=length_penalty, seed=rng,
            )  # fmt: skip

        return pairs.written(self._samples(who, x), batch_size, write)

    def extra_repr(self) -> str:
        """The arguments that `repr` shows."""
        return (
            f"{self.source_size}, {self.target_size}, start={self.start}, "
            f"end={self.end}"
        )
