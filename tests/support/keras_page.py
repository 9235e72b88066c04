# SPDX-License-Identifier: BSD-3-Clause
"""The tables of COMING_FROM_KERAS.md, from the table that answers in the program.

``python tests/support/keras_page.py`` writes them into the file.
"""

import re
from pathlib import Path

from fastrnn.util.keras_names import ATTRIBUTES, NAMES
from fastrnn.util.keras_words import KEYWORDS

PAGE = Path(__file__).resolve().parents[2] / "COMING_FROM_KERAS.md"
# What a reader knows these as.
OWNERS = {
    "Module": "every layer",
    "Recurrent": "LSTM, GRU, SimpleRNN",
    "RNN": "SimpleRNN",
    "Linear": "Dense",
    "LayerNorm": "LayerNormalization",
    "Optimizer": "every optimiser",
    "Metric": "every metric",
    "Loss": "every loss",
    "Tokenizer": "WordTokenizer, CharTokenizer",
    "_Pooling": "MaxPooling1D, AveragePooling1D",
    "_Global": "GlobalMaxPooling1D, GlobalAveragePooling1D",
    "_AtThreshold": "Precision, Recall, BinaryAccuracy",
}


def _escaped(text):
    return text.replace("|", "\\|")


def arguments():
    """A line for every argument: where, Keras's word, what is here."""
    lines = ["| of | Keras's argument | here |", "| --- | --- | --- |"]
    for owner, words in KEYWORDS.items():
        for name, word in words.items():
            here = word.answer
            if word.here == "_input_shape":
                here = "the same: the model has its parameters at once"
            elif word.here:
                here = f"the same: `{word.here}`"
            who = OWNERS.get(owner, f"`{owner}`")
            lines.append(f"| {who} | `{name}` | {_escaped(here)} |")
    return lines


def names():
    """A line for every answer: the names that it is for."""
    lines = ["| in | Keras's names | here |", "| --- | --- | --- |"]
    for module, table in NAMES.items():
        groups = {}
        for name, answer in table.items():
            groups.setdefault(answer, []).append(name)
        where = f"`keras.{module}`" if module else "`keras`"
        for answer, of in groups.items():
            shown = ", ".join(f"`{name}`" for name in of[:8])
            more = f" and {len(of) - 8} more" if len(of) > 8 else ""
            lines.append(f"| {where} | {shown}{more} | {_escaped(answer)} |")
    return lines


def methods():
    """A line for every method or attribute of a model."""
    lines = ["| a model's | here |", "| --- | --- |"]
    return lines + [
        f"| `{name}` | {_escaped(here)} |" for name, here in ATTRIBUTES.items()
    ]


def with_tables(text):
    """The page with its tables as they are now."""
    tables = {"arguments": arguments(), "methods": methods(), "names": names()}
    for name, lines in tables.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        table = "\n".join([begin, "", *lines, "", end])
        pattern = f"{re.escape(begin)}.*?{re.escape(end)}"
        text = re.sub(pattern, lambda _, table=table: table, text, flags=re.DOTALL)
    return text


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text("utf-8")), "utf-8")
