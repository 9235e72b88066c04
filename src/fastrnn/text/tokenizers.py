# SPDX-License-Identifier: BSD-3-Clause
"""Tokenisers: texts to arrays of numbers and back, by characters or by words."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.text.vocabulary import PAD, UNKNOWN, Vocabulary
from fastrnn.text.vocabulary import SCHEMA as VOCABULARY
from fastrnn.util import checks, files
from fastrnn.util.schema import any_of, check, list_of, one_of
from fastrnn.util.typing import Array, PathLike
from fastrnn.util.words import Answering
from fastrnn.util.writing import write_atomically


class Tokenizer(Answering):
    """Texts to arrays of numbers and back: base of `CharTokenizer` and `WordTokenizer`.

    Parameters
    ----------
    lower : bool
        Whether upper case counts as lower case.
    specials : sequence of str
        As of `Vocabulary`. Where ``"<s>"`` and ``"</s>"`` are among them, they are put
        round every text.

    Attributes
    ----------
    vocabulary : Vocabulary or None
        From `fit`.
    """

    kind = ""

    def __init__(
        self, lower: bool = False, specials: Sequence[str] = (PAD, UNKNOWN)
    ) -> None:
        self.lower = checks.flag(type(self).__name__, "lower", lower)
        self.specials = tuple(specials)
        self.vocabulary: Any = None  # a `Vocabulary`, after `fit`

    def split(self, text: str) -> list[str]:
        """The tokens of a text, without special ones."""
        raise NotImplementedError

    def join(self, tokens: Iterable[str]) -> str:
        """A text of tokens."""
        raise NotImplementedError

    def _tokens(self, text):
        if not isinstance(text, str):
            raise TypeError(
                f"{type(self).__name__}: a text must be a string, "
                f"got {type(text).__name__}"
            )
        return self.split(text.lower() if self.lower else text)

    def fit(
        self, texts: Iterable[str], max_size: int | None = None, min_count: int = 1
    ) -> Self:
        """Learn the vocabulary of texts.

        Parameters
        ----------
        texts : iterable of str
        max_size, min_count : int
            As for `Vocabulary.of`.

        Returns
        -------
        Tokenizer
            Itself.
        """
        tokens = (self._tokens(text) for text in texts)
        unknown = UNKNOWN if UNKNOWN in self.specials else None
        options = {"specials": self.specials, "unknown": unknown}
        self.vocabulary = Vocabulary.of(tokens, max_size, min_count, **options)
        return self

    def encode(self, text: str) -> Array:
        """The numbers of a text's tokens: ndarray of int32, shape (n,).

        Raises
        ------
        RuntimeError
            If there is no vocabulary yet.
        ValueError
            If a token is not known, and no special token stands for such.
        """
        if self.vocabulary is None:
            raise RuntimeError(f"{type(self).__name__}: fit must come before encode")
        numbers = self.vocabulary.encode(self._tokens(text))
        before = [self.vocabulary[t] for t in ("<s>",) if t in self.specials]
        after = [self.vocabulary[t] for t in ("</s>",) if t in self.specials]
        return np.concatenate([before, numbers, after]).astype(np.int32)

    def fit_on_texts(self, texts: Iterable[str]) -> None:
        """`fit`, under Keras's name.

        Parameters
        ----------
        texts : iterable of str
        """
        self.fit(texts)

    def texts_to_sequences(self, texts: Iterable[str]) -> list[list[int]]:
        """`encode` of every text, under Keras's name.

        `fastrnn.keras.preprocessing.text.Tokenizer` gives the numbers that Keras's
        gives.

        Parameters
        ----------
        texts : iterable of str

        Returns
        -------
        list of list of int
        """
        return [self.encode(text).tolist() for text in texts]

    @property
    def word_index(self) -> dict[str, int]:
        """The number of every token, special ones included, under Keras's name."""
        if self.vocabulary is None:
            return {}
        tokens = (*self.vocabulary.specials, *self.vocabulary.tokens)
        return {token: i for i, token in enumerate(tokens)}

    def decode(self, indices: ArrayLike) -> str:
        """The text of numbers, special tokens but the unknown one left out.

        Raises
        ------
        RuntimeError
            If there is no vocabulary yet.
        ValueError, TypeError
            If a number is none of its numbers.
        """
        if self.vocabulary is None:
            raise RuntimeError(f"{type(self).__name__}: fit must come before decode")
        left_out = set(self.specials) - {UNKNOWN}
        tokens = self.vocabulary.decode(indices)
        return self.join([token for token in tokens if token not in left_out])

    def save(self, path: PathLike) -> None:
        """Write everything as JSON, all of it or nothing.

        Parameters
        ----------
        path : path-like
        """
        vocabulary = None if self.vocabulary is None else self.vocabulary.to_json()
        data = {"tokenizer": self.kind, "lower": self.lower, "vocabulary": vocabulary}
        data["specials"] = list(self.specials)
        text = json.dumps(data, ensure_ascii=True, indent=1)
        write_atomically(path, text.encode())

    @staticmethod
    def load(path: PathLike) -> Tokenizer:
        """The tokeniser that `save` wrote.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        CharTokenizer or WordTokenizer

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is not such a file.
        """
        who = f"Tokenizer.load: {os.fspath(path)}"
        data = files.read_bytes(path)
        with files.reading(who, "a tokeniser's file"):
            try:
                return _from_json(files.parse_json(data))
            except ValueError as error:
                raise ValueError(
                    f"{who} must be a tokeniser's file, got one that is damaged or of "
                    f"another kind ({error})"
                ) from error


class CharTokenizer(Tokenizer):
    """A token for each character.

    Parameters
    ----------
    lower, specials
        As of `Tokenizer`.

    Examples
    --------
    >>> tokenizer = CharTokenizer().fit(["hello"])
    >>> tokenizer.encode("help").tolist()
    [4, 3, 2, 1]
    >>> tokenizer.decode([4, 3, 2, 2, 5, 0, 0])
    'hello'
    """

    kind = "char"

    def split(self, text: str) -> list[str]:
        return text

    def join(self, tokens: Iterable[str]) -> str:
        return "".join(tokens)


class WordTokenizer(Tokenizer):
    """A token for each word, number or mark of punctuation.

    Words keep their apostrophes and hyphens. `decode` puts a space between tokens.

    Parameters
    ----------
    lower, specials
        As of `Tokenizer`.

    Examples
    --------
    >>> tokenizer = WordTokenizer(lower=True).fit(["To be, or not to be?"])
    >>> tokenizer.split("Isn't it?")
    ["Isn't", 'it', '?']
    >>> tokenizer.encode("To be?").tolist()
    [3, 2, 5]
    >>> tokenizer.decode([3, 2])
    'to be'
    """

    kind = "word"
    _pattern = re.compile(r"\w+(?:['\u2019-]\w+)*|[^\w\s]")

    def split(self, text: str) -> list[str]:
        return self._pattern.findall(text)

    def join(self, tokens: Iterable[str]) -> str:
        return " ".join(tokens)


_SCHEMA = {
    "tokenizer": one_of(CharTokenizer.kind, WordTokenizer.kind),
    "lower": bool,
    "specials": list_of(str),
    "vocabulary": any_of(None, VOCABULARY),
}


def _from_json(data):
    """The tokeniser of an object that `Tokenizer.save` wrote."""
    check(data, _SCHEMA)
    cls = {c.kind: c for c in (CharTokenizer, WordTokenizer)}[data["tokenizer"]]
    made = cls(data["lower"], data["specials"])
    if data["vocabulary"] is not None:
        made.vocabulary = Vocabulary.from_json(data["vocabulary"])
        if made.vocabulary.specials != made.specials:
            raise ValueError(
                f"specials must be those of the vocabulary, "
                f"{made.vocabulary.specials}, got {made.specials}"
            )
    return made
