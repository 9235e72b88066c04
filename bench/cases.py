# SPDX-License-Identifier: BSD-3-Clause
"""The cases that are measured, each with an id; `find` returns the case of an id.

The id of a layer's case consists of cell, pass and shape, as in
``lstm/train/T100-B64-I512-H512``. The id of a whole model's case is ``model/train/``
with the model's name in `bench.models`, and that of a program's case ``keras/train/``
with the program's name in `bench.programs`. The cells come from fastrnn's table of
cells. An id names the first cell of a class by the name of the class, and its other
cells by their own names.
"""

from bench import models, programs
from bench.case import LayerCase, ModelCase, ProgramCase, Shape
from fastrnn.recurrent import table

CELLS = tuple(table.classes())  # the cells of the standard grid
# Every cell by its name in ids.
KNOWN = {
    name if k == 0 else cell.name: cell
    for name, layer in table.classes().items()
    for k, cell in enumerate(table.cells_of(layer.__name__))
}
OTHERS = tuple(name for name in KNOWN if name not in CELLS)
# The pass "forward" is inference of a whole sequence. "train" is zero_grad, forward,
# and backward with the gradients of x and of every parameter. "step" is inference of
# one time step, starting from the state after the call before.
PASSES = ("forward", "train", "step")


def _shapes(*texts):
    return tuple(Shape.parse(text) for text in texts)


# First batches of layers from small to large, then small batches and single rows, whose
# time is that of one step after the other.
SHAPES = _shapes(
    "T100-B32-I64-H64",
    "T100-B64-I128-H128",
    "T100-B64-I256-H256",
    "T100-B64-I512-H512",
    "T25-B64-I1024-H1024",
    "T32-B1-I32-H32",
    "T100-B1-I128-H128",
    "T100-B1-I512-H512",
    "T100-B1-I1024-H1024",
)
STEP_SHAPES = _shapes("T1-B1-I64-H64")
QUICK_SHAPES = _shapes("T100-B32-I64-H64", "T100-B1-I128-H128")
SUMMARY_SHAPES = _shapes(
    "T100-B64-I128-H128", "T100-B32-I64-H64", "T100-B1-I128-H128", "T100-B64-I512-H512"
)
ONE_LINE_SHAPES = _shapes(
    "T100-B64-I128-H128", "T100-B64-I512-H512", "T100-B1-I128-H128"
)
# The shapes of the suites of narrow numbers.
BF16_SHAPES = _shapes(
    "T100-B32-I64-H64",
    "T100-B64-I128-H128",
    "T100-B64-I256-H256",
    "T100-B64-I512-H512",
    "T100-B64-I1024-H1024",
)
INT8_SHAPES = _shapes(
    *(
        f"T{T}-B{B}-I{H}-H{H}"
        for T, B in ((1, 1), (100, 1), (100, 64))
        for H in (256, 512, 1024)
    )
)
CHECK_SHAPES = _shapes("T5-B3-I7-H17")
CHECK_STEP_SHAPES = _shapes("T1-B3-I7-H17")


def layer_case(cell, direction, shape):
    """The `LayerCase` of a cell in `KNOWN`."""
    about = KNOWN[cell]
    gates = len(about.gates) - (about.skips and shape.I == shape.H)
    return LayerCase(cell, direction, shape, gates, about.is_scan)


def new_layer(cell, I, H, dtype="float32"):
    """A layer of fastrnn with the cells of a name in `KNOWN`."""
    about, extra = KNOWN[cell], {}
    if cell not in CELLS:  # one of several cells of its class, not the default
        extra["nonlinearity"] = about.activations[0]
    return table.classes()[about.layer.lower()](I, H, dtype=dtype, **extra)


def label(cell):
    """A cell's name in tables: its class, and its function if it is not the usual."""
    about = KNOWN[cell]
    function = about.activations[0].replace("relu", "ReLU")
    return about.layer if cell in CELLS else f"{about.layer} ({function})"


def grid(cells=CELLS, directions=PASSES, shapes=SHAPES):
    """The cases of all cells, passes and shapes; ``step`` takes only those of T = 1."""
    return [
        layer_case(cell, direction, shape)
        for direction in directions
        for cell in cells
        for shape in shapes
        if direction != "step" or shape.T == 1
    ]


def standard():
    """The cases of most tables and pictures in docs/benchmarks.md."""
    return [
        *grid(directions=("train", "forward")),
        *grid(directions=("forward", "step"), shapes=STEP_SHAPES),
        *(ModelCase(model) for model in models.MODELS),
    ]


def quick():
    """A few small cases of every kind, which take three minutes at most."""
    return [
        *grid(directions=("train", "forward"), shapes=QUICK_SHAPES),
        *grid(directions=("step",), shapes=STEP_SHAPES),
        ModelCase(models.by_name("char-H128")),
    ]


def summary():
    """The cases of the README's table: some minutes, which may be taken in pieces."""
    return [
        *grid(("lstm", "gru", "rnn"), ("train",), SUMMARY_SHAPES),
        ModelCase(models.by_name("char-H128")),
    ]


def one_line():
    """Programs of Keras and of JAX to which one line of ours can be added."""
    return [
        *(ProgramCase(program) for program in programs.PROGRAMS),
        *grid(("lstm", "gru", "rnn"), ("train",), ONE_LINE_SHAPES),
    ]


def bf16(cells=None, directions=None, shapes=None):
    """Training and inference whose products have operands of bfloat16."""
    return grid(
        cells or ("lstm", "gru", "rnn"),
        directions or ("train", "forward"),
        shapes or BF16_SHAPES,
    )


def int8(cells=None, directions=None, shapes=None):
    """Inference with weights of one byte or two; where T = 1, by single steps."""
    cases = grid(
        cells or ("lstm", "gru"),
        directions or ("step", "forward"),
        shapes or INT8_SHAPES,
    )
    return [
        case
        for case in cases
        if directions or (case.direction == "step") == (case.shape.T == 1)
    ]


def check():
    """One tiny case of each kind, to compare the results of libraries."""
    return [
        *grid((*CELLS, *OTHERS), ("train", "forward"), CHECK_SHAPES),
        *grid((*CELLS, *OTHERS), ("step",), CHECK_STEP_SHAPES),
        *(ModelCase(model) for model in models.CHECK_MODELS),
    ]


def find(case_id):
    """The case of an id; for any other text ValueError says what an id looks like."""
    head, _, rest = case_id.partition("/")
    direction, _, last = rest.partition("/")
    if head == "model" and direction == "train":
        return ModelCase(models.by_name(last))
    if head == "keras" and direction == "train":
        return ProgramCase(programs.by_name(last))
    if head not in KNOWN or direction not in PASSES:
        raise ValueError(
            "bench: a case's id must look like lstm/train/T100-B64-I512-H512, "
            f"model/train/char-H128 or keras/train/lstm-H128, got {case_id!r}"
        )
    shape = Shape.parse(last)
    if direction == "step" and shape.T != 1:
        raise ValueError(f"bench: pass step needs a shape with T1, got {case_id!r}")
    return layer_case(head, direction, shape)
