# SPDX-License-Identifier: BSD-3-Clause
"""`Absent`: what stands for a name of Keras's that this package does not have.

An import such as ``from fastrnn.keras.layers import LSTM, Conv2D`` could not say more
than that there is no such name. With these it works, and the first use says what to
write.
"""

import difflib
from collections.abc import Callable
from typing import Any, NoReturn

from fastrnn.util.keras_names import NAMES


class Absent:
    """A name of Keras's that is answered for when it is used.

    Parameters
    ----------
    where : str
        The name.
    answer : str
        What to write instead.

    Examples
    --------
    >>> Absent("keras.layers.Conv2D", "use PyTorch")
    <keras.layers.Conv2D is not in fastrnn; use PyTorch>
    """

    def __init__(self, where: str, answer: str) -> None:
        self._text = f"{where} is not in fastrnn; {answer}"

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(self._text)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> NoReturn:
        raise NotImplementedError(self._text)

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(self._text if name[:2] != "__" else name)

    def __repr__(self) -> str:
        return f"<{self._text}>"


def answers(module: str, here: dict[str, Any]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module that has Keras's names.

    Parameters
    ----------
    module : str
        Its name below ``keras``.
    here : dict of str to object
        Its own names, to guess from.
    """
    where = f"keras.{module}" if module else "keras"

    def get(name: str) -> Any:
        answer = NAMES[module].get(name)
        if answer is not None:
            return Absent(f"{where}.{name}", answer)
        known = [one for one in here if one[0] != "_"]
        near = difflib.get_close_matches(name, known, n=2)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise AttributeError(
            f"module 'fastrnn.{where}' has no attribute {name!r}{hint}"
        )

    return get
