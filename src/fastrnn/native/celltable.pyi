# SPDX-License-Identifier: BSD-3-Clause
# Types of celltable.pyx.
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

ACTIVATIONS: dict[str, int]
RECURRENT_MODES: dict[str, int]
CELLS: dict[str, int]
NORMS: dict[str, int]

def cell(name: str) -> Cell: ...

class Cell(NamedTuple):
    name: str
    index: int  # type: ignore[assignment]
    layer: str
    gates: tuple[str, ...]
    states: tuple[str, ...]
    n_states: int
    activations: tuple[str, ...]
    options: tuple[str, ...]
    bias_apart: str | None
    is_scan: bool
    biased: tuple[str, ...]
    skips: bool
    vectors: str | None
    n_vectors: int
    norms: tuple[str, ...]
    paper: str

def norm_parts(norm: str | None, rms: bool) -> tuple[str, ...]: ...

class CellOptions:
    general: bool
    proj_size: int
    draws: bool
    leaves_out: bool
    heads: int
    def __new__(
        cls,
        activations: Sequence[tuple[str, float, float]] | None = None,
        clip: float = 0,
        input_forget: bool = False,
        peephole: bool = False,
        reset_before: bool = False,
        proj_size: int = 0,
        zoneout: tuple[float, float] = (0.0, 0.0),
        recurrent_dropout: float = 0,
        recurrent_mode: str = "h",
        input_dropout: float = 0,
        fixed_vectors: Any = None,
        exp_forget: bool = False,
        noise: float = 0,
        heads: int = 1,
        log_space: bool = False,
        skip_scale: float = 0,
        norm: str | None = None,
        rms: bool = False,
    ) -> Self: ...
    def in_inference(self) -> CellOptions | None: ...
