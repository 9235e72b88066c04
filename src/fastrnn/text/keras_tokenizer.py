# SPDX-License-Identifier: BSD-3-Clause
"""`Tokenizer` as Keras has it: words to numbers from 1, the most frequent first.

`fastrnn.WordTokenizer` keeps punctuation and has numbers for padding and for unknown
words; this one is for programs that were written for Keras's.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from fastrnn.util import checks
from fastrnn.util.words import Answering

FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'
Text = str | Sequence[str]


class Tokenizer(Answering):
    """Texts to lists of numbers; 0 is nobody's, and pads.

    Parameters
    ----------
    num_words : int, optional
        Only numbers below this are given: the ``num_words - 1`` most frequent words.
    filters : str
        Characters that stand for a space.
    lower : bool
        Whether upper case counts as lower case.
    split : str
        What is between words.
    char_level : bool
        Whether every character is a word, those of `filters` too.
    oov_token : str, optional
        A word, number 1, for all that have no number. Default: these are left out.

    Attributes
    ----------
    word_index : dict of str to int
        The number of every word, from 1, whatever `num_words` is.
    index_word : dict of int to str
        The word of every number.
    word_counts : dict of str to int
        How often words came, in the order in which they came first.
    document_count : int
        Texts that were seen.

    Examples
    --------
    >>> tokenizer = Tokenizer(oov_token="<OOV>")
    >>> tokenizer.fit_on_texts(["The cat sat.", "The dog sat!"])
    >>> tokenizer.word_index
    {'<OOV>': 1, 'the': 2, 'sat': 3, 'cat': 4, 'dog': 5}
    >>> tokenizer.texts_to_sequences(["The bird sat"])
    [[2, 1, 3]]
    >>> tokenizer.sequences_to_texts([[2, 4]])
    ['the cat']
    """

    def __init__(
        self,
        num_words: int | None = None,
        filters: str = FILTERS,
        lower: bool = True,
        split: str = " ",
        char_level: bool = False,
        oov_token: str | None = None,
    ) -> None:
        who = type(self).__name__
        if num_words is not None:
            num_words = checks.positive_int(who, "num_words", num_words)
        self.num_words, self.oov_token = num_words, oov_token
        self.filters, self.split = filters, split
        self.lower = checks.flag(who, "lower", lower)
        self.char_level = checks.flag(who, "char_level", char_level)
        self.word_counts: dict[str, int] = {}
        self.word_index: dict[str, int] = {}
        self.index_word: dict[int, str] = {}
        self.document_count = 0

    def _words(self, text: Text) -> list[str]:
        if not isinstance(text, str):
            words = list(text)
            if not all(isinstance(word, str) for word in words):
                raise TypeError(
                    f"{type(self).__name__}: a text must be a string or a list of "
                    f"words, got {text!r}"
                )
            return [word.lower() for word in words] if self.lower else words
        text = text.lower() if self.lower else text
        if self.char_level:
            return list(text)
        table = str.maketrans(dict.fromkeys(self.filters, self.split))
        return [word for word in text.translate(table).split(self.split) if word]

    def _texts(self, texts: Iterable[Text]) -> Iterator[list[str]]:
        if isinstance(texts, str):
            raise TypeError(
                f"{type(self).__name__}: texts must be a list of texts, got one string"
            )
        return map(self._words, texts)

    def fit_on_texts(self, texts: Iterable[Text]) -> None:
        """Number the words of these texts and of those before.

        Parameters
        ----------
        texts : iterable of str or of lists of str
        """
        counts = Counter(self.word_counts)
        for words in self._texts(texts):
            counts.update(words)
            self.document_count += 1
        self.word_counts = dict(counts)
        ranked = sorted(counts, key=lambda word: -counts[word])  # ties as they came
        first = [] if self.oov_token is None else [self.oov_token]
        every = dict.fromkeys([*first, *ranked])
        self.word_index = {word: i for i, word in enumerate(every, 1)}
        self.index_word = {i: word for word, i in self.word_index.items()}

    def _number(self, word: str) -> int | None:
        number = self.word_index.get(word)
        beyond = self.num_words is not None and (number or 0) >= self.num_words
        if number is None or beyond:
            return None if self.oov_token is None else self.word_index[self.oov_token]
        return number

    def texts_to_sequences(self, texts: Iterable[Text]) -> list[list[int]]:
        """The numbers of the words of texts.

        Parameters
        ----------
        texts : iterable of str or of lists of str

        Returns
        -------
        list of list of int
            For `fastrnn.keras.utils.pad_sequences`, or as they are for `fit`.

        Raises
        ------
        RuntimeError
            If no text was seen before.
        """
        if not self.document_count:
            raise RuntimeError(
                f"{type(self).__name__}: fit_on_texts must come before "
                "texts_to_sequences"
            )
        return [
            [number for number in map(self._number, words) if number is not None]
            for words in self._texts(texts)
        ]

    def sequences_to_texts(self, sequences: Iterable[Iterable[int]]) -> list[str]:
        """The words of numbers, with spaces between; what has none is left out.

        Parameters
        ----------
        sequences : iterable of iterables of int

        Returns
        -------
        list of str
        """
        return [" ".join(self._spelled(numbers)) for numbers in sequences]

    def _spelled(self, numbers: Iterable[int]) -> Iterator[str]:
        for number in map(int, numbers):
            beyond = self.num_words is not None and number >= self.num_words
            word = None if beyond else self.index_word.get(number, None)
            if word is not None:
                yield word
            elif self.oov_token is not None:
                yield self.oov_token
