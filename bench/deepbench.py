# SPDX-License-Identifier: BSD-3-Clause
"""Baidu DeepBench's recurrent problems, with their published names.

The name of a problem, such as ``lstm 512 16 25``, has cell, hidden units, batch and
time steps as DeepBench lists them. The input is as wide as the hidden state. `every`
has all problems, and `suite` those that a small machine can train and run in reasonable
time.
"""

from itertools import product

from bench.cases import Shape, layer_case

CELLS = {"vanilla": "rnn_relu", "lstm": "lstm", "gru": "gru"}
_GRU_SIZES = tuple(product((2816, 2048, 1536, 2560), (1500, 750, 375, 187)))

# Each problem is (cell, hidden, batch, steps), in the order of the published list.
TRAINING = (
    *(("vanilla", H, B, 50) for H in (1760, 2048, 2560) for B in (16, 32, 64, 128)),
    *(("lstm", H, B, 25) for H in (512, 1024, 2048, 4096) for B in (16, 32, 64, 128)),
    *(("lstm", 1536, B, 50) for B in (8, 16, 32)),
    *(("lstm", 256, B, 150) for B in (16, 32, 64)),
    # In the published list, the first of these sizes is commented out in training.
    *(("gru", H, 32, T) for H, T in _GRU_SIZES[1:]),
    ("gru", 512, 32, 1),
    ("gru", 1024, 32, 1500),
    ("gru", 1024, 64, 1500),
)
_LSTM_SERVER = ((512, 25), (1024, 25), (2048, 25), (1536, 50), (256, 150))
_GRU_SERVER = (*_GRU_SIZES, (512, 1), (1024, 1500))
INFERENCE = (
    *(("lstm", H, B, T) for H, T in _LSTM_SERVER for B in (1, 2, 4)),
    *(("gru", H, B, T) for H, T in _GRU_SERVER for B in (1, 2, 4)),
    ("vanilla", 32, 1, 672),
    ("vanilla", 64, 1, 96),
    ("lstm", 256, 1, 150),
)

# The limits of a problem for two cores. A call may take a second or two, whether it is
# bound by products or by reading R from memory, and the states and gates of a layer, of
# which several libraries keep copies, may take half a gigabyte.
MOST_FLOPS = 1e12
MOST_WEIGHT_READS = 40e9  # bytes, where each time step reads all of R
MOST_STATE = 512 * 2**20  # bytes


def _case(problem, direction):
    cell, H, B, T = problem
    return layer_case(CELLS[cell], direction, Shape(T, B, H, H))


def fits(case):
    """Whether two cores can run this case in a second or two."""
    T, B, _, H = case.shape
    return (
        case.flops <= MOST_FLOPS
        and 4 * T * case.gates * H * H <= MOST_WEIGHT_READS
        and 4 * T * B * H * (case.gates + 2) <= MOST_STATE
    )


def every():
    """The cases of all published problems, each once, those of training first."""
    found = [_case(problem, "train") for problem in TRAINING]
    found += [_case(problem, "forward") for problem in INFERENCE]
    return list(dict.fromkeys(found))


def suite():
    """The cases of the published problems that fit a small machine."""
    return [case for case in every() if fits(case)]


def published_name(case):
    """The published name of a case, such as ``lstm 512 16 25``."""
    cell = {ours: theirs for theirs, ours in CELLS.items()}[case.cell]
    return f"{cell} {case.shape.H} {case.shape.B} {case.shape.T}"
