# SPDX-License-Identifier: BSD-3-Clause
"""`CharModel`: predicts the next character of a text, and writes some."""

from fastrnn.generation import sampling
from fastrnn.nn.attempt import Attempt
from fastrnn.nn.embedding import Embedding
from fastrnn.nn.layers import Linear
from fastrnn.nn.module import Module
from fastrnn.recurrent import table
from fastrnn.text.vocabulary import CharVocabulary
from fastrnn.util import checks

CELLS = table.classes()


class CharModel(Module):
    """Embedding, recurrent layers and a linear head over the characters.

    Parameters
    ----------
    vocabulary : CharVocabulary
        The characters; its length is the number of classes.
    cell : {"lstm", "gru", "rnn"} or another
        Kind of the recurrent layers: the name of their class in lower case.
    embedding_dim : int
        Size of a character's vector.
    hidden_size : int
        Units of each recurrent layer.
    num_layers : int
        Recurrent layers.
    dtype : {"float32", "float64"}
        Type of all parameters.
    compute : {"float32", "float64", "bfloat16", "bfloat16-fast"}, optional
        As for `LSTM`; default: `dtype`.
    seed : None, int or numpy.random.Generator
        For the initial weights.

    Raises
    ------
    ValueError, TypeError
        If an argument is not as described.

    Examples
    --------
    >>> vocabulary = CharVocabulary.of("hello world")
    >>> model = CharModel(vocabulary, hidden_size=16, seed=0)
    >>> logits, state = model(vocabulary.encode("hello").reshape(5, 1))
    >>> logits.shape
    (5, 1, 9)
    >>> text = "".join(model.generate("hell", length=4, seed=1))
    >>> len(text)
    4
    """

    _saved = False

    _child_names = ("embedding", "head", "recurrent")
    _not_kept = ("compute", "embedding_dim", "hidden_size", "num_layers")

    def __init__(
        self,
        vocabulary,
        cell="lstm",
        embedding_dim=64,
        hidden_size=256,
        num_layers=1,
        *,
        dtype="float32",
        compute=None,
        seed=None,
    ):
        who = type(self).__name__
        if not isinstance(vocabulary, CharVocabulary):
            raise TypeError(
                f"{who}: vocabulary must be a CharVocabulary, "
                f"got {type(vocabulary).__name__}"
            )
        self.vocabulary = vocabulary
        self.cell = checks.choice(who, "cell", cell, tuple(CELLS))
        rng = checks.generator(who, seed)
        self.embedding = Embedding(
            len(vocabulary), embedding_dim, dtype=dtype, seed=rng
        )
        self.recurrent = CELLS[cell](
            embedding_dim,
            hidden_size,
            num_layers,
            dtype=dtype,
            compute=compute,
            seed=rng,
        )
        self.head = Linear(
            hidden_size, len(vocabulary), dtype=dtype, compute=compute, seed=rng
        )

    @property
    def config(self):
        """Arguments that make a model of the same shape: a dict for JSON."""
        return {
            "cell": self.cell,
            "embedding_dim": self.embedding.embedding_dim,
            "hidden_size": self.recurrent.hidden_size,
            "num_layers": self.recurrent.num_layers,
            "dtype": self.dtype,
            "compute": self.recurrent.compute or self.dtype,
        }

    def forward(self, tokens, state=None):
        """Score every next character.

        Parameters
        ----------
        tokens : array_like of int, shape (T, B)
            Characters by number, one stream a column.
        state : ndarray or pair of ndarray, optional
            As returned for the window before; zero if not given.

        Returns
        -------
        logits : ndarray, shape (T, B, len(vocabulary))
        state : ndarray or pair of ndarray
            State after the last step.
        """
        y, state = self.recurrent(self.embedding(tokens), state)
        return self.head(y), state

    def backward(self, dlogits):
        """Accumulate the gradients of all parameters, within the last window.

        Parameters
        ----------
        dlogits : array_like, shape (T, B, len(vocabulary))
            Gradient of the loss with respect to the logits.
        """
        with Attempt():
            dx, _ = self.recurrent.backward(self.head.backward(dlogits))
            self.embedding.backward(dx)

    def predict(self, tokens, state=None):
        """What `forward` does in eval mode, whatever the mode.

        Keeps nothing for backward, and leaves every layer's mode and what the last
        forward kept as they were: a backward may follow. The modes change during the
        call, so a model predicts for one thread at a time.

        Parameters
        ----------
        tokens, state
            As for `forward`.

        Returns
        -------
        logits, state
            As from `forward`.
        """
        with self._evaluating():
            return self.forward(tokens, state)

    def generate(
        self,
        prompt="",
        length=500,
        temperature=1.0,
        seed=None,
        *,
        top_k=None,
        top_p=None,
    ):
        """Write text, one character at a time, for one thread at a time.

        Parameters
        ----------
        prompt : str
            What the text goes on from. If empty, a line break, or the vocabulary's
            first character where it has none.
        length : int >= 0
            Characters to write.
        temperature : float >= 0
            Divides the logits: below 1 for likelier text, above 1 for wilder, 0 to
            take the likeliest character every time.
        seed : None, int or numpy.random.Generator
            For the draws: the same integer gives the same text.
        top_k, top_p : optional
            As for `sample`.

        Returns
        -------
        iterator of str
            Characters as they are drawn, without the prompt.

        Raises
        ------
        ValueError, TypeError
            If an argument is not as described or `prompt` has a character that the
            vocabulary has not: at once, not at the first character.
        """
        who = f"{type(self).__name__}.generate"
        if not isinstance(prompt, str):
            raise TypeError(
                f"{who}: prompt must be a string, got {type(prompt).__name__}"
            )
        length = checks.integer(who, "length", length)
        if length < 0:
            raise ValueError(f"{who}: length must be at least 0, got {length}")
        options = sampling.check_options(who, temperature, top_k, top_p)
        rng = checks.generator(who, seed)
        tokens = self.vocabulary.encode(prompt or self.vocabulary.start)
        return self._draw(who, tokens, length, options, rng)

    def _draw(self, who, tokens, length, options, rng):
        state = None
        for _ in range(length):
            logits, state = self.predict(tokens[:, None], state)
            # Never 0, which stands for no character.
            tokens = 1 + sampling.draw(who, logits[-1, :, 1:], *options, rng)
            yield self.vocabulary.decode(tokens)
