# SPDX-License-Identifier: BSD-3-Clause
"""What `Model.evaluate` returns: a number, or a list of numbers, as in Keras.

Older versions returned a dict. For one release its ways work on the new values, too,
with a warning.
"""

import warnings
from collections.abc import ItemsView, KeysView, Mapping, ValuesView
from typing import Any, SupportsIndex


class _Named:
    """The ways of a dict, which are going."""

    names: dict[str, float]

    def _old(self, way: str) -> dict[str, float]:
        warnings.warn(
            f"evaluate: {way} is of the dict that it used to return; give "
            "return_dict=True for one",
            FutureWarning,
            stacklevel=3,
        )
        return self.names

    def keys(self) -> KeysView[str]:
        """Names of the figures, as of a dict."""
        return self._old("keys()").keys()

    def values(self) -> ValuesView[float]:
        """The figures, as of a dict."""
        return self._old("values()").values()

    def items(self) -> ItemsView[str, float]:
        """Names and figures, as of a dict."""
        return self._old("items()").items()


class Figure(_Named, float):
    """The loss, of a model that was compiled without metrics."""

    def __new__(cls, names: Mapping[str, float]) -> "Figure":
        (value,) = names.values()
        self = super().__new__(cls, value)
        self.names = dict(names)
        return self

    def __getitem__(self, name: str) -> float:
        return self._old(f"[{name!r}]")[name]

    def __reduce__(self) -> tuple[Any, ...]:
        return Figure, (self.names,)


class Figures(_Named, list[float]):
    """The loss and every metric, in this order."""

    def __init__(self, names: Mapping[str, float]) -> None:
        super().__init__(names.values())
        self.names = dict(names)

    def __getitem__(self, place: SupportsIndex | slice | str) -> Any:
        if isinstance(place, str):
            return self._old(f"[{place!r}]")[place]
        return super().__getitem__(place)

    def __reduce__(self) -> tuple[Any, ...]:
        return Figures, (self.names,)


def figures_of(names: Mapping[str, float], return_dict: bool) -> Any:
    """What `evaluate` returns, of figures by name, the loss first.

    Examples
    --------
    >>> figures_of({"loss": 0.5}, False)
    0.5
    >>> figures_of({"loss": 0.5, "mae": 0.25}, False)
    [0.5, 0.25]
    >>> figures_of({"loss": 0.5, "mae": 0.25}, True)
    {'loss': 0.5, 'mae': 0.25}
    """
    if return_dict:
        return dict(names)
    return Figures(names) if len(names) > 1 else Figure(names)
