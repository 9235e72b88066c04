# SPDX-License-Identifier: BSD-3-Clause
"""`one_hot`, `windows`, `split_by_time`, vocabularies and tokenisers."""

import json

import numpy as np
import pytest

import fastrnn
from fastrnn import CharTokenizer, Vocabulary, WordTokenizer, one_hot, split_by_time
from fastrnn.text.tokenizers import Tokenizer


def test_one_hot(rng):
    indices = rng.integers(5, size=(3, 4))
    np.testing.assert_array_equal(one_hot(indices, 5), np.eye(5, dtype="f")[indices])
    assert one_hot([0], 3, "float64").dtype == np.float64
    with pytest.raises(
        ValueError, match=r"one_hot: indices must be in \[0, 2\), got 2"
    ):
        one_hot([2], 2)
    with pytest.raises(ValueError, match=r"indices must be in \[0, 1\), got -1"):
        one_hot([-1])
    with pytest.raises(TypeError, match="indices must be integers, got dtype float64"):
        one_hot([0.5])
    with pytest.raises(
        ValueError, match="num_classes must be given where indices are no"
    ):
        one_hot([])


@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("gap", [0, 2])
def test_windows_written_out(horizon, stride, gap, rng):
    series, target = rng.normal(size=(20, 3)), rng.normal(size=(20, 2))
    x, y = fastrnn.windows(series, 4, horizon, target, stride, gap)
    starts = range(0, 20 - 4 - gap - horizon + 1, stride)
    assert x.shape == (len(starts), 4, 3)
    for k, start in enumerate(starts):
        np.testing.assert_array_equal(x[k], series[start : start + 4])
        first = start + 4 + gap
        want = target[first : first + horizon]
        np.testing.assert_array_equal(y[k], want[0] if horizon == 1 else want)
    assert np.shares_memory(x, series)


def test_windows_refuse():
    for arguments, message in [
        (
            ([1, 2, 3], 3),
            "windows: series must have at least length .* = 4 steps, got 3",
        ),
        (([1, 2, 3], 0), "length must be a positive integer, got 0"),
        ((np.ones((4, 2, 2)), 2), r"series must have shape \(T,\) or \(T, F\), got"),
        (
            ([1, 2, 3], 1, 1, [1, 2]),
            "target must have as many steps as series, 3, got 2",
        ),
        (([1, 2, 3], 1, 1, None, 1, -1), "gap must be at least 0, got -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            fastrnn.windows(*arguments)
    with pytest.raises(TypeError, match="series must be real numbers, got dtype <U1"):
        fastrnn.windows(["a"], 1)


def test_split_by_time():
    series, other = np.arange(10), np.arange(20).reshape(10, 2)
    a, b, c, d = split_by_time(series, other, test_size=3, overlap=1)
    assert (a.tolist(), b.tolist()) == (list(range(7)), [6, 7, 8, 9])
    np.testing.assert_array_equal(np.concatenate([c, d[1:]]), other)
    for options in ({"test_size": 10}, {"test_size": 2, "overlap": 9}, {"overlap": -1}):
        with pytest.raises(ValueError, match="must leave steps in both parts, got"):
            split_by_time(series, **options)
    with pytest.raises(ValueError, match="series must have one length, got 10 and 3"):
        split_by_time(series, [1, 2, 3])


def test_frames_go_in_and_arrays_come_out():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    days = pandas.date_range("2026-01-01", periods=6)
    frame = pandas.DataFrame({"a": np.arange(6.0), "b": range(6)}, index=days)
    train, test = split_by_time(frame, test_size=2)
    assert type(train) is np.ndarray
    x, y = fastrnn.windows(frame, 2, target=frame["a"])
    assert x.shape == (4, 2, 2)
    assert y.ravel().tolist() == [2, 3, 4, 5]
    assert test.shape == (2, 2)
    model = fastrnn.Sequential(fastrnn.Linear(None, 1, seed=0))
    model.compile("mse")
    model.fit(frame, frame["a"], verbose=0)
    assert model.predict(frame).shape == (6, 1)


# -- vocabularies --------------------------------------------------------------------


def test_a_vocabulary_ranks_and_cuts():
    texts = [["b", "a", "b"], ["c", "a", "b", "d"]]
    vocabulary = Vocabulary.of(texts)
    assert vocabulary.tokens == ("b", "a", "c", "d")
    assert len(vocabulary) == 6
    assert vocabulary["b"] == 2
    assert "d" in vocabulary
    assert Vocabulary.of(texts, max_size=1).tokens == ("b",)
    assert Vocabulary.of(texts, min_count=2).tokens == ("b", "a")
    marked = Vocabulary.of(texts, specials=("<pad>", "<s>"), unknown=None)
    assert marked.unknown is None
    with pytest.raises(
        ValueError, match=r"encode: tokens must be in the vocabulary, got"
    ):
        marked.encode(["a", "z"])
    assert vocabulary.encode(["a", "z"]).tolist() == [3, 1]
    assert vocabulary.encode("az").tolist() == [3, 1]
    assert vocabulary.encode("a\U0001f600").tolist() == [3, 1]
    assert vocabulary.decode([3, 1]) == ["a", "<unk>"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (["a", "a"],),
            ValueError,
            "tokens must be distinct and at least one, got 'a' mo",
        ),
        (([],), ValueError, "tokens must be distinct and at least one, got none"),
        ((["<pad>"],), ValueError, "got '<pad>' more than once"),
        (([1],), TypeError, "Vocabulary: tokens must be strings, got int"),
        ((["a"], ("<pad>",)), ValueError, "unknown must be one of the specials"),
    ],
)
def test_vocabularies_refuse(arguments, error, message):
    with pytest.raises(error, match=message):
        Vocabulary(*arguments)


def test_a_vocabulary_is_not_of_one_string():
    with pytest.raises(
        TypeError, match="sequences must be a list of texts, got one str"
    ):
        Vocabulary.of("text")


@pytest.mark.parametrize("kind", [CharTokenizer, WordTokenizer])
@pytest.mark.parametrize(
    "specials", [("<pad>", "<unk>"), ("<pad>", "<unk>", "<s>", "</s>")]
)
def test_tokenisers_there_and_back_and_through_a_file(kind, specials, tmp_path):
    text = "Don't pad twenty-one words, or 3.5 more; naïve!"
    tokenizer = kind(lower=True, specials=specials).fit([text, "or not"])
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert type(again) is kind
    for t in (tokenizer, again):
        numbers = t.encode(text)
        assert numbers.dtype == np.int32
        assert (numbers != t.vocabulary.unknown).all()
        assert t.decode(numbers).replace(" ", "") == text.lower().replace(" ", "")
        if "<s>" in specials:
            assert numbers[[0, -1]].tolist() == [2, 3]
        assert t.decode(t.encode("zebra")[-2:]) != "zebra"
    assert (
        json.loads((tmp_path / "tokenizer.json").read_text())["tokenizer"] == kind.kind
    )


def test_words():
    split = WordTokenizer().split
    assert split("It's a well-known trick: x=3, naïve.") == [
        "It's", "a", "well-known", "trick", ":", "x", "=", "3", ",", "naïve", ".",
    ]  # fmt: skip


def test_tokenisers_refuse(tmp_path):
    with pytest.raises(
        RuntimeError, match="WordTokenizer: fit must come before encode"
    ):
        WordTokenizer().encode("a")
    with pytest.raises(
        TypeError, match="CharTokenizer: a text must be a string, got int"
    ):
        CharTokenizer().fit([1])
    path = tmp_path / "other.json"
    for text in ("[]", '{"tokenizer": "bpe"}', "no"):
        path.write_text(text)
        with pytest.raises(
            ValueError, match=r"other.json must be a tokeniser's file, got"
        ):
            Tokenizer.load(path)
