# SPDX-License-Identifier: BSD-3-Clause
"""Tokens and their numbers: `Vocabulary`, and the characters of a text."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from fastrnn.util import checks, files
from fastrnn.util.schema import any_of, check, list_of
from fastrnn.util.typing import Array, PathLike
from fastrnn.util.words import Answering
from fastrnn.util.writing import write_atomically

PAD, UNKNOWN = "<pad>", "<unk>"

# What stands for a character that the vocabulary of a character model does not have.
REPLACEMENT = "\ufffd"

# What the object of `Vocabulary.to_json` has.
SCHEMA = {
    "tokens": list_of(str),
    "specials": list_of(str),
    "unknown": any_of(None, str),
}


class Vocabulary(Answering):
    """Tokens, numbered in order; special ones come first.

    Parameters
    ----------
    tokens : sequence of str
        Distinct, and none of them special.
    specials : sequence of str
        Tokens with a meaning of their own: by default number 0 pads, and number 1
        stands for every token that is not known. Others, such as ``"<s>"`` and
        ``"</s>"``, may follow.
    unknown : str or None
        Which of `specials` stands for unknown tokens; None if they are an error.

    Attributes
    ----------
    tokens, specials : tuple of str

    Raises
    ------
    TypeError
        If a token is not a string.
    ValueError
        If there is none, or one comes twice, or `unknown` is not among `specials`.

    Examples
    --------
    >>> vocabulary = Vocabulary.of([["to", "be", "or", "not", "to", "be"]])
    >>> vocabulary.tokens
    ('be', 'to', 'not', 'or')
    >>> vocabulary.encode(["to", "err"]).tolist()
    [3, 1]
    >>> vocabulary.decode([3, 2, 1])
    ['to', 'be', '<unk>']
    """

    def __init__(
        self,
        tokens: Iterable[str],
        specials: Sequence[str] = (PAD, UNKNOWN),
        unknown: str | None = UNKNOWN,
    ) -> None:
        who = type(self).__name__
        self.tokens, self.specials = tuple(tokens), tuple(specials)
        self._all = self.specials + self.tokens
        for token in self._all:
            if not isinstance(token, str):
                raise TypeError(
                    f"{who}: tokens must be strings, got {type(token).__name__}"
                )
        self._numbers = {token: i for i, token in enumerate(self._all)}
        if not self.tokens or len(self._numbers) != len(self._all):
            twice = [token for token, n in Counter(self._all).items() if n > 1]
            raise ValueError(
                f"{who}: tokens must be distinct and at least one, got "
                + (f"{twice[0]!r} more than once" if twice else "none")
            )
        if unknown is not None and unknown not in self.specials:
            raise ValueError(
                f"{who}: unknown must be one of the specials {self.specials}, "
                f"got {unknown!r}"
            )
        self._unknown = unknown
        self._table = None
        if all(len(token) == 1 for token in self.tokens):
            self._table = _by_code_point(self._numbers)

    @classmethod
    def of(
        cls,
        sequences: Iterable[Iterable[str]],
        max_size: int | None = None,
        min_count: int = 1,
        **options: Any,
    ) -> Self:
        """The vocabulary of sequences of tokens, the most frequent first.

        Parameters
        ----------
        sequences : iterable of iterables of str
            A string is a sequence of characters.
        max_size : int, optional
            Most tokens to take, special ones not counted.
        min_count : int
            Rarer tokens are left out.
        **options
            As for `Vocabulary`.
        """
        who = f"{cls.__name__}.of"
        if isinstance(sequences, str):
            raise TypeError(f"{who}: sequences must be a list of texts, got one string")
        min_count = checks.positive_int(who, "min_count", min_count)
        if max_size is not None:
            max_size = checks.positive_int(who, "max_size", max_size)
        counts = Counter()
        for sequence in sequences:
            counts.update(sequence)
        for special in options.get("specials", (PAD, UNKNOWN)):
            counts.pop(special, None)
        ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        tokens = [token for token, count in ranked if count >= min_count]
        return cls(tokens[:max_size], **options)

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, token):
        return token in self._numbers

    def __getitem__(self, token: str) -> int:
        """The number of a token; KeyError if it has none."""
        return self._numbers[token]

    @property
    def unknown(self) -> int | None:
        """The number that stands for unknown tokens, or None."""
        return None if self._unknown is None else self._numbers[self._unknown]

    def encode(self, tokens: Iterable[str]) -> Array:
        """The numbers of tokens.

        Parameters
        ----------
        tokens : iterable of str
            A string is a sequence of characters.

        Returns
        -------
        ndarray of int32, shape (len(tokens),)

        Raises
        ------
        ValueError
            If a token is not known, and the vocabulary has no number for such.
        """
        if isinstance(tokens, str) and self._table is not None:
            numbers = self._table[np.minimum(code_points(tokens), self._table.size - 1)]
        else:
            tokens = list(tokens)
            numbers = np.array([self._numbers.get(t, -1) for t in tokens], np.int32)
        known = numbers >= 0
        if not known.all():
            if self._unknown is None:
                wrong = tokens[int(np.argmin(known))]
                raise ValueError(
                    f"{type(self).__name__}.encode: tokens must be in the vocabulary, "
                    f"got {wrong!r}"
                )
            numbers[~known] = self.unknown
        return numbers

    def decode(self, indices: ArrayLike) -> list[str]:
        """The tokens of numbers, a list.

        Parameters
        ----------
        indices : array_like of int, shape (N,)
            In [0, len(vocabulary)).

        Raises
        ------
        ValueError
            If a number is out of range.
        """
        who = f"{type(self).__name__}.decode"
        return [
            self._all[i] for i in checks.index_array(who, "indices", indices, len(self))
        ]

    def save(self, path: PathLike) -> None:
        """Write everything as JSON, all of it or nothing.

        Parameters
        ----------
        path : path-like
        """
        text = json.dumps({"vocabulary": self.to_json()}, ensure_ascii=True, indent=1)
        write_atomically(path, text.encode())

    @staticmethod
    def load(path: PathLike) -> Vocabulary:
        """The vocabulary that `save` wrote.

        Parameters
        ----------
        path : path-like

        Returns
        -------
        Vocabulary

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is not such a file.
        """
        who = f"Vocabulary.load: {os.fspath(path)}"
        data = files.read_bytes(path)
        with files.reading(who, "a vocabulary's file"):
            try:
                found = files.parse_json(data)
                check(found, {"vocabulary": SCHEMA})
                return Vocabulary.from_json(found["vocabulary"])
            except ValueError as error:
                raise ValueError(
                    f"{who} must be a vocabulary's file, got one that is damaged or "
                    f"of another kind ({error})"
                ) from error

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The vocabulary of an object that `to_json` gave."""
        return cls(value["tokens"], value["specials"], value["unknown"])

    def to_json(self) -> Any:
        """Everything, as an object for JSON."""
        return {
            "tokens": list(self.tokens),
            "specials": list(self.specials),
            "unknown": self._unknown,
        }


def code_points(text):
    """The code points of a text's characters: ndarray of uint32."""
    # Lone surrogates come from undecodable command-line arguments; they pass here and
    # are then unknown like any other character.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _by_code_point(numbers):
    """Numbers of the tokens of one character by code point, -1 for others.

    The last entry serves all code points that are beyond the largest.
    """
    numbers = {token: number for token, number in numbers.items() if len(token) == 1}
    codes = code_points("".join(numbers))
    table = np.full(int(codes.max()) + 2, -1, np.int32)
    table[codes] = list(numbers.values())
    return table


class CharVocabulary(Vocabulary):
    """The characters of a text, numbered from 1; 0 stands for every other one.

    Parameters
    ----------
    characters : str
        Distinct characters, in the order of their numbers.

    Raises
    ------
    TypeError
        If `characters` is not a string.
    ValueError
        If it is empty or has a character twice.

    Examples
    --------
    >>> vocabulary = CharVocabulary.of("hello")
    >>> len(vocabulary), vocabulary.characters
    (5, 'ehlo')
    >>> vocabulary.encode("hello").tolist()
    [2, 1, 3, 3, 4]
    >>> vocabulary.decode([2, 1, 3, 0])
    'hel\ufffd'
    """

    def __init__(self, characters):
        who = type(self).__name__
        if not isinstance(characters, str):
            raise TypeError(
                f"{who}: characters must be a string, got {type(characters).__name__}"
            )
        codes = code_points(characters)
        if codes.size == 0 or np.unique(codes).size != codes.size:
            raise ValueError(
                f"{who}: characters must be distinct and at least one, "
                f"got {characters!r}"
            )
        self.characters = characters
        # A text may have U+FFFD itself: number 0 has no token that it could equal.
        super().__init__(characters, specials=("",), unknown="")

    @classmethod
    def of(cls, text):
        """The vocabulary of a text: its characters by code point.

        Parameters
        ----------
        text : str
            At least one character.
        """
        return cls("".join(chr(code) for code in np.unique(code_points(text))))

    @property
    def start(self):
        """What a text begins after: a line break, or the first character."""
        return "\n" if "\n" in self else self.characters[0]

    def encode(self, text, *, replace=False):
        """The numbers of a text's characters.

        Parameters
        ----------
        text : str
        replace : bool
            Whether a character that is not in the vocabulary becomes 0. If not, it is
            an error.

        Returns
        -------
        ndarray of int32, shape (len(text),)

        Raises
        ------
        ValueError
            If characters are not in the vocabulary, unless `replace`.
        """
        indices = super().encode(text)
        if not replace and not indices.all():
            codes = code_points(text)
            unknown = [chr(code) for code in np.unique(codes[indices == 0])]
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            raise ValueError(
                "text must be of the characters that the model was trained on, got "
                + ", ".join(repr(character) for character in unknown[:5])
                + more
            )
        return indices

    def decode(self, indices):
        """The text of given numbers; 0 becomes U+FFFD, the replacement character.

        Parameters
        ----------
        indices : array_like of int, shape (N,)
            In [0, len(vocabulary)).

        Returns
        -------
        str

        Raises
        ------
        ValueError
            If a number is out of range.
        """
        return "".join(token or REPLACEMENT for token in super().decode(indices))
