# SPDX-License-Identifier: BSD-3-Clause
"""Any number of ranks trains as one process does with the joint batches.

In float64, to 1e-12: the same parameters, history and moving statistics, whatever a
layer, a loss or an option makes of the rows of a batch.
"""

import numpy as np
import pytest
import ranks

import fastrnn
from fastrnn.callbacks import GradientMonitor

N, T, F = 19, 6, 3
F64 = {"dtype": "float64"}


def data(seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((N, T, F)), rng.standard_normal((N, T, 2))


def padded():
    """Sequences that zeros follow, and one that is zeros alone."""
    x, y = data()
    for i in range(N):
        x[i, 1 + i % T :] = 0
    x[4] = 0
    return x, y


def model(*layers, loss="mse", metrics=("mae",), optimizer="adam", **options):
    made = fastrnn.Sequential(*layers)
    made.compile(loss, optimizer, list(metrics), lr=1e-2, **options)
    return made


def plain():
    x, y = data()
    head = fastrnn.Linear(4, 2, seed=2, **F64)
    return model(fastrnn.LSTM(F, 4, seed=1, **F64), head), (x, y), {"clip_norm": 0.1}


def masked_and_weighted():
    x, y = padded()
    layers = fastrnn.GRU(F, 4, seed=1, **F64), fastrnn.Linear(4, 2, seed=2, **F64)
    weight = np.random.default_rng(1).random((N, T))
    options = {"sample_weight": weight, "clip_value": 0.01}
    return model(fastrnn.Masking(), *layers), (x, y), options


def ignored_and_class_weights():
    x, _ = data()
    y = np.random.default_rng(1).integers(0, 3, (N, T))
    y[np.arange(T) >= 1 + np.arange(N)[:, None] % T] = -100
    y[3] = -100
    layers = fastrnn.LSTM(F, 4, seed=1, **F64), fastrnn.Linear(4, 3, seed=2, **F64)
    made = model(
        *layers,
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy", "perplexity"],
    )
    return made, (x, y), {"class_weight": {0: 2.0, 2: 0.5}}


def normalised_and_dropped():
    x, y = padded()
    made = model(
        fastrnn.Dropout(0.2, seed=3),
        fastrnn.LSTM(F, 5, 3, dropout=0.3, seed=1, **F64),
        fastrnn.SpatialDropout1D(0.2, seed=4),
        fastrnn.BatchNormalization(momentum=0.5, **F64),
        fastrnn.TimeDistributed(fastrnn.Dropout(0.2, seed=5)),
        fastrnn.Linear(5, 2, seed=2, **F64),
    )
    return made, (x, y), {}


def normalised_under_a_mask():
    x, y = padded()
    made = model(
        fastrnn.Masking(),
        fastrnn.GRU(F, 4, seed=1, **F64),
        fastrnn.BatchNormalization(momentum=0.5, **F64),
        fastrnn.Linear(4, 2, seed=2, **F64),
    )
    return made, (x, y), {"gradient_accumulation_steps": 2}


def of_many_lengths():
    rng = np.random.default_rng(0)
    x = [rng.standard_normal((2 + i % 3, F)) for i in range(N)]
    y = [rng.standard_normal((len(one), 2)) for one in x]
    layers = fastrnn.LSTM(F, 4, seed=1, **F64), fastrnn.Linear(4, 2, seed=2, **F64)
    return model(*layers), (x, y), {}


def in_windows():
    x, y = padded()
    layers = fastrnn.LSTM(F, 4, seed=1, **F64), fastrnn.Linear(4, 2, seed=2, **F64)
    return model(fastrnn.Masking(), *layers), (x, y), {"tbptt": 2}


def going_on_from_batch_to_batch():
    x, y = data()
    lstm = fastrnn.LSTM(F, 4, stateful=True, seed=1, **F64)
    made = model(lstm, fastrnn.Linear(4, 2, seed=2, **F64))
    options = {"shuffle": False, "batch_size": 6}
    return made, (x[:18], y[:18]), options


def in_groups():
    x, y = data()
    layers = fastrnn.LSTM(F, 4, seed=1, **F64), fastrnn.Linear(4, 2, seed=2, **F64)
    return model(*layers), (x, y), {"gradient_accumulation_steps": 3}


def with_a_field():
    x, _ = padded()
    y = np.random.default_rng(1).integers(0, 3, (N, T))
    layers = fastrnn.LSTM(F, 3, seed=1, **F64), fastrnn.CRF(3, seed=2, **F64)
    made = model(fastrnn.Masking(), *layers, loss="crf", metrics=["accuracy"])
    options = {"gradient_accumulation_steps": 2, "sample_weight": np.arange(N) / N}
    return made, (x, y), options


def with_labels():
    x, _ = data()
    y = [[1, 2][: 1 + i % 2] for i in range(N)]
    layers = fastrnn.LSTM(F, 4, seed=1, **F64), fastrnn.Linear(4, 3, seed=2, **F64)
    return model(*layers, loss="ctc", metrics=["label_error_rate"]), (x, y), {}


def with_a_sparse_table():
    x = np.random.default_rng(1).integers(0, 40, (N, T))
    made = model(
        fastrnn.Embedding(40, 3, sparse=True, seed=3, **F64),
        fastrnn.GRU(3, 4, return_sequences=False, seed=1, **F64),
        fastrnn.Linear(4, 1, seed=2, **F64),
        fastrnn.Sigmoid(),
        loss="binary_crossentropy",
        metrics=["auc", "precision", "binary_accuracy"],
    )
    return made, (x, x.max(axis=1) > 33), {"callbacks": [GradientMonitor()]}


def with_a_layer_that_stays():
    x, y = data()
    layers = fastrnn.LSTM(F, 4, seed=1, **F64), fastrnn.Linear(4, 2, seed=2, **F64)
    made = model(*layers, optimizer="sgd", momentum=0.9)
    layers[0].trainable = False
    return made, (x, y), {}


def of_several_inputs():
    x, y = data()
    made = fastrnn.Functional(
        ["a", "b"],
        [
            (fastrnn.LSTM(F, 4, seed=1, **F64), "a", "h"),
            (fastrnn.Linear(2, 4, seed=2, **F64), "b", "g"),
            (fastrnn.Add(), ["h", "g"], "s"),
            (fastrnn.Linear(4, 2, seed=3, **F64), "s", "out"),
        ],
        "out",
    )
    made.compile("mse", "adam")
    return made, ((x, y * 2), y), {}


def that_translates():
    rng = np.random.default_rng(2)
    x = [rng.integers(0, 7, 2 + i % 4) for i in range(N)]
    y = [rng.integers(2, 7, 1 + i % 5) for i in range(N)]
    made = fastrnn.EncoderDecoder(
        fastrnn.GRU(3, 4, seed=1, **F64),
        fastrnn.GRU(3, 4, seed=2, **F64),
        7,
        7,
        start=0,
        end=1,
        dropout=0.3,
        seed=3,
    )
    made.compile(optimizer="adam")
    return made, (x, y), {}


def that_writes():
    rng = np.random.default_rng(2)
    y = [rng.integers(2, 7, 2 + i % 5) for i in range(N)]
    made = fastrnn.Generator(
        7, fastrnn.LSTM(3, 4, 2, dropout=0.3, seed=2, **F64), start=0, end=1, seed=3
    )
    made.compile(optimizer="adam")
    return made, (None, y), {}


CASES = [
    plain,
    masked_and_weighted,
    ignored_and_class_weights,
    normalised_and_dropped,
    normalised_under_a_mask,
    of_many_lengths,
    in_windows,
    going_on_from_batch_to_batch,
    in_groups,
    with_a_field,
    with_labels,
    with_a_sparse_table,
    with_a_layer_that_stays,
    of_several_inputs,
    that_translates,
    that_writes,
]


def trained(case, comm=None):
    made, samples, options = case()
    options = {"batch_size": 5, **options}
    share = 0 if options.get("shuffle") is False else 0.2
    if isinstance(samples[0], tuple) or "sample_weight" in options:
        share = 0
    history = made.fit(
        *samples, epochs=2, seed=4, verbose=0, validation_split=share,
        distributed=comm, **options,
    )  # fmt: skip
    monitors = [vars(c)["mean"] for c in options.get("callbacks", [])]
    return made.flat_parameters.copy(), history.history, monitors


# Of seven ranks some have no row of a batch of five.
SEVEN = (in_windows, normalised_under_a_mask, going_on_from_batch_to_batch)


@pytest.mark.whole_grid
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_ranks_train_as_one_process(case, one_thread):
    parameters, history, monitors = trained(case)
    size = 7 if case in SEVEN else 3
    found = ranks.results(size, lambda comm: trained(case, comm))
    assert ranks.same_bits([p for p, _, _ in found])
    assert all(h == found[0][1] for _, h, _ in found)
    scale = abs(parameters).max()
    np.testing.assert_allclose(found[0][0], parameters, rtol=0, atol=1e-12 * scale)
    assert found[0][1].keys() == history.keys()
    for name, values in history.items():
        np.testing.assert_allclose(found[0][1][name], values, rtol=1e-11)
    for mean, wanted in zip(found[0][2], monitors, strict=True):
        for name, values in wanted.items():
            np.testing.assert_allclose(mean[name], values, rtol=1e-10)


def test_one_rank_has_the_bits_of_one_process(one_thread):
    for case in (plain, masked_and_weighted, in_groups):
        (found,) = ranks.results(1, lambda comm, case=case: trained(case, comm))
        want = trained(case)
        assert ranks.same_bits([found[0], want[0]])
        assert found[1] == want[1]
