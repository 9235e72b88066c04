# SPDX-License-Identifier: BSD-3-Clause
"""`Tokenizer` with Keras's results, and Keras's words on the others."""

import importlib

import pytest

import fastrnn
from fastrnn.text.keras_tokenizer import Tokenizer

TEXTS = ["The cat sat on the mat.", "A dog -- a big dog! -- sat.", "the end\tof it"]
NEW = ["The bird sat", "", "a CAT, again; the dog"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_words": 4},
        {"num_words": 4, "oov_token": "<OOV>"},
        {"char_level": True},
        {"lower": False, "filters": ".", "split": "a"},
    ],
)
def test_it_is_kerass(options, keras):
    ours = Tokenizer(**options)
    text = importlib.import_module("keras.src.legacy.preprocessing.text")
    theirs = text.Tokenizer(**options)
    for texts in (TEXTS, ["more of it"]):
        ours.fit_on_texts(texts)
        theirs.fit_on_texts(texts)
    for name in ("word_index", "index_word", "document_count"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.word_counts == dict(theirs.word_counts)
    found = ours.texts_to_sequences(NEW)
    assert found == theirs.texts_to_sequences(NEW)
    assert ours.sequences_to_texts([*found, [99, 0]]) == theirs.sequences_to_texts(
        [*found, [99, 0]]
    )


def test_words_are_numbered_from_one():
    tokenizer = Tokenizer(num_words=3)
    with pytest.raises(
        RuntimeError, match=r"^Tokenizer: fit_on_texts must come before"
    ):
        tokenizer.texts_to_sequences(TEXTS)
    tokenizer.fit_on_texts(TEXTS)
    assert list(tokenizer.word_index.items())[:3] == [("the", 1), ("sat", 2), ("a", 3)]
    assert tokenizer.texts_to_sequences(NEW) == [[1, 2], [], [1]]
    assert tokenizer.texts_to_sequences([["The", "sat"]]) == [[1, 2]]
    with pytest.raises(
        TypeError, match=r"^Tokenizer: texts must be a list of texts, got"
    ):
        tokenizer.fit_on_texts("one text")
    with pytest.raises(TypeError, match="a text must be a string or a list of words"):
        tokenizer.fit_on_texts([[1, 2]])
    with pytest.raises(TypeError, match="'nb_words'; did you mean num_words"):
        Tokenizer(nb_words=3)


@pytest.mark.parametrize("cls", [fastrnn.WordTokenizer, fastrnn.CharTokenizer])
def test_kerass_words_on_our_tokenizers(cls):
    tokenizer = cls()
    assert tokenizer.word_index == {}
    tokenizer.fit_on_texts(TEXTS)
    found = tokenizer.texts_to_sequences(TEXTS)
    assert found == [tokenizer.encode(text).tolist() for text in TEXTS]
    assert [tokenizer.word_index[t] for t in tokenizer.split(TEXTS[0])] == found[0]


def test_words_of_kerass_tokenizer():
    with pytest.raises(
        TypeError, match=r"^WordTokenizer\(\) .*; fit\(texts, max_size="
    ):
        fastrnn.WordTokenizer(num_words=100)
    with pytest.raises(
        TypeError, match=r"^CharTokenizer\(\) .*'oov_token'; number 1 of"
    ):
        fastrnn.CharTokenizer(oov_token="?")
    with pytest.raises(
        TypeError, match=r"^Vocabulary\(\) has no argument 'special'; di"
    ):
        fastrnn.Vocabulary(["a"], special=())
