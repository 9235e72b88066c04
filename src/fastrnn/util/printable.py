# SPDX-License-Identifier: BSD-3-Clause
"""Text from a file as a terminal may have it: nothing in it acts, all of it shows."""

import re

# Control characters (a terminal obeys them), separators of lines and paragraphs, marks
# that turn the direction of writing (what is shown is then not what is there), and lone
# surrogates (no encoding has them).
_ACTS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text, keep=""):
    """A text with characters that act on a terminal written as Python writes them.

    Parameters
    ----------
    text : str
    keep : str
        Such characters that may stay, as line breaks do in a text of many lines.

    Returns
    -------
    str

    Examples
    --------
    >>> print(printable("\\x1b[2Jgone\\n"))
    \\x1b[2Jgone\\n
    """

    def escaped(found):
        character = found.group()
        if character in keep:
            return character
        return character.encode("unicode_escape").decode()

    return _ACTS.sub(escaped, text)


def short(text, most=1000):
    """At most so many characters of a text, and printable, for an error's message."""
    text = printable(text, keep="\n")
    return text if len(text) <= most else f"{text[:most]} ..."
