# SPDX-License-Identifier: BSD-3-Clause
"""Reading a text, its vocabulary, and its windows."""

import re
import sys

import numpy as np
import pytest

from fastrnn.text import (
    StreamBatches,
    check_length,
    default_text,
    read_text,
    split_held_out,
)
from fastrnn.text.vocabulary import CharVocabulary, Vocabulary


def written(tmp_path, data):
    path = tmp_path / "book.txt"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain\r\n", "plain\r\n"),
        ("Größe ☃ 𝄞".encode(), "Größe ☃ 𝄞"),
        (b"\xef\xbb\xbfmarked", "marked"),
    ],
)
def test_text_is_read_as_it_is_without_its_byte_order_mark(tmp_path, data, text):
    assert read_text(written(tmp_path, data)) == text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "must be text with characters, got an empty file"),
        (b"\xef\xbb\xbf", "must be text with characters, got an empty file"),
        (b"ab\0c", "must be UTF-8 text, got a NUL byte at offset 2: a binary file"),
        (b"ab\xffc", "must be UTF-8 text, got byte 0xff at offset 2"),
        (b"\xef\xbb\xbfab\xe9", "must be UTF-8 text, got byte 0xe9 at offset 5"),
    ],
)
def test_what_is_not_text_is_refused(tmp_path, data, message):
    path = written(tmp_path, data)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: {message}')}$"):
        read_text(path)


def test_default_text_has_no_long_paragraph_twice():
    paragraphs = [p for p in default_text().split("\n\n") if len(p) >= 60]
    assert len(paragraphs) > 1000
    assert len(paragraphs) == len(set(paragraphs))


def test_a_python_without_the_default_text_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(OSError, match=r"^this Python has no pydoc_data\.topics"):
        default_text()


@pytest.mark.parametrize("length", [0, 1, 2, 3, 19, 20, 25, 1000])
def test_a_tenth_is_held_out_and_nothing_lost(length):
    text = "".join(chr(100 + k % 50) for k in range(length))
    train, held_out = split_held_out(text)
    assert train + held_out == text
    assert len(held_out) == min(length, max(2, length // 10))


@pytest.mark.parametrize(("batch_size", "seq_length"), [(1, 1), (3, 7), (32, 64)])
def test_the_length_that_the_error_asks_for_is_the_shortest_that_does(
    batch_size, seq_length
):
    with pytest.raises(ValueError, match="text must have at least") as caught:
        check_length("Trainer", "ab", batch_size, seq_length)
    need = int(re.search(r"at least (\d+)", str(caught.value))[1])
    assert str(caught.value) == (
        f"Trainer: text must have at least {need} characters for batch_size = "
        f"{batch_size} and seq_length = {seq_length} (a tenth is held out), got 2"
    )
    check_length("Trainer", "a" * need, batch_size, seq_length)
    with pytest.raises(ValueError, match=f"got {need - 1}$"):
        check_length("Trainer", "a" * (need - 1), batch_size, seq_length)


def test_encoding_and_decoding_are_inverse():
    text = "naïve ☃ 𝄞 \n"
    vocabulary = CharVocabulary.of(text)
    indices = vocabulary.encode(text)
    assert indices.dtype == np.int32
    assert indices.min() == 1
    assert indices.max() == len(vocabulary) - 1
    assert vocabulary.decode(indices) == text
    assert CharVocabulary(vocabulary.characters).encode(text).tolist() == list(indices)


def test_unknown_characters_are_named_or_become_zero():
    vocabulary = CharVocabulary.of("abc")
    with pytest.raises(
        ValueError,
        match=r"^text must be of the characters that the model was trained on, got "
        r"'A', 'B', 'd', 'é', '☃' and 1 more$",
    ):
        vocabulary.encode("aBbcdA☃é𝄞")
    assert vocabulary.encode("a☃\udcffc", replace=True).tolist() == [1, 0, 0, 3]
    assert vocabulary.decode([0, 1]) == "\ufffda"


def test_a_replacement_character_in_the_text_is_one_of_its_own():
    vocabulary = CharVocabulary.of("a\ufffd")
    assert vocabulary.encode("\ufffd").tolist() == [2]


def test_a_text_begins_after_a_line_break_where_there_is_one():
    assert CharVocabulary.of("b\na").start == "\n"
    assert CharVocabulary.of("ba").start == "a"


def test_vocabulary_refuses_what_is_not_one():
    with pytest.raises(
        ValueError,
        match=r"^CharVocabulary: characters must be distinct and at least one, "
        r"got 'aba'$",
    ):
        CharVocabulary("aba")
    with pytest.raises(ValueError, match=r"at least one, got ''$"):
        CharVocabulary("")
    with pytest.raises(
        TypeError, match=r"^CharVocabulary: characters must be a string, got bytes$"
    ):
        CharVocabulary(b"ab")
    with pytest.raises(
        ValueError,
        match=r"^CharVocabulary\.decode: indices must be in \[0, 3\), got 3$",
    ):
        CharVocabulary("ab").decode([3])


@pytest.mark.parametrize("n", [2, 7, 8, 40, 41])
@pytest.mark.parametrize("batch_size", [1, 3, 6])
@pytest.mark.parametrize("seq_length", [1, 4, 100])
def test_streams_cover_the_text_in_order(n, batch_size, seq_length):
    tokens = np.arange(n)
    if n <= batch_size:
        with pytest.raises(
            ValueError,
            match=f"^StreamBatches: tokens must be more than batch_size = "
            f"{batch_size}, got {n}$",
        ):
            StreamBatches(tokens, batch_size, seq_length)
        return
    batches = StreamBatches(tokens, batch_size, seq_length)
    windows = list(batches)
    assert len(windows) == len(batches)
    inputs = np.concatenate([window[0] for window in windows])
    targets = np.concatenate([window[1] for window in windows])
    assert all(len(x) == seq_length for x, _ in windows[:-1])
    assert (targets == inputs + 1).all()
    # Stream after stream, the targets are the text without its first character and
    # without the few at the end that do not fill all streams.
    in_order = targets.T.ravel()
    assert in_order.tolist() == list(range(1, 1 + batches.n_characters))
    assert n - 1 - batches.n_characters < batch_size


@pytest.mark.parametrize("window", [-1, 2])
def test_a_window_that_is_not_there(window):
    batches = StreamBatches(np.arange(11), 2, 3)
    with pytest.raises(
        IndexError, match=rf"^window must be in \[0, 2\), got {window}$"
    ):
        batches[window]


def test_a_vocabulary_is_saved_and_loaded(tmp_path):
    vocabulary = Vocabulary.of([["ein", "Wort", "ein"]], specials=("<unk>",))
    vocabulary.save(tmp_path / "words.json")
    again = Vocabulary.load(tmp_path / "words.json")
    assert again.to_json() == vocabulary.to_json()
    assert again.encode(["Wort", "kein"]).tolist() == [2, 0]
    (tmp_path / "words.json").write_text('{"tokenizer": "char"}')
    with pytest.raises(
        ValueError, match=r"^Vocabulary.load: .*words.json must be a vocabulary's file"
    ):
        Vocabulary.load(tmp_path / "words.json")
