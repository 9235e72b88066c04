# SPDX-License-Identifier: BSD-3-Clause
"""Darts' GRU forecaster of carbon dioxide in the air, with and without fastrnn
============================================================================

::

    pip install u8darts pytorch-lightning "fastrnn[torch]"
    python forecast_darts.py [--quick]

`RNNModel` trains under Lightning and builds its layer inside `fit`, out of reach: the
one line patches PyTorch's classes while it does.  The series, weekly measurements at
Mauna Loa from 1958 to 2001, comes with statsmodels, which darts depends on.
"""

import argparse
import contextlib
import logging
import time
import warnings

import numpy as np
import torch
from darts import TimeSeries
from darts.dataprocessing.transformers import Scaler
from darts.metrics import mae
from darts.models import RNNModel
from statsmodels.datasets import co2

import fastrnn.torch


def series():
    """What is to be forecast: parts per million, week by week."""
    weekly = co2.load_pandas().data["co2"].interpolate()
    return TimeSeries.from_values(weekly.to_numpy(np.float32))


def fit(epochs, accelerated):
    """Mean absolute error of a year's forecast, and seconds of training."""
    whole = series()
    past, future = whole[:-52], whole[-52:]
    scaler = Scaler()
    model = RNNModel(
        model="GRU",
        input_chunk_length=52,
        training_length=104,
        hidden_dim=64,
        batch_size=32,
        n_epochs=epochs,
        optimizer_kwargs={"lr": 3e-3},
        random_state=0,
        pl_trainer_kwargs={
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "logger": False,
        },
    )
    patched = fastrnn.torch.patched() if accelerated else contextlib.nullcontext()
    past = scaler.fit_transform(past)
    start = time.perf_counter(), time.process_time()
    with patched:  # the one line
        model.fit(past)
    seconds = time.perf_counter() - start[0], time.process_time() - start[1]
    return mae(future, scaler.inverse_transform(model.predict(52))), *seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one epoch only")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    epochs = 1 if args.quick else args.epochs
    for name, accelerated in (("PyTorch", False), ("fastrnn", True)):
        error, seconds, cpu = fit(epochs, accelerated)
        print(
            f"{name}: {epochs} epochs in {seconds:.2f} s ({cpu:.2f} s of CPU time) on "
            f"{args.threads} threads, mean absolute error {error:.4f}"
        )


if __name__ == "__main__":
    main()
