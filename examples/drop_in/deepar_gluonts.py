# SPDX-License-Identifier: BSD-3-Clause
"""GluonTS' DeepAR, an LSTM that forecasts distributions, with and without fastrnn
===============================================================================

::

    pip install gluonts lightning "fastrnn[torch]"
    python deepar_gluonts.py [--quick] [--seeds 6]

DeepAR builds its LSTM inside `train`, out of reach: the one line patches PyTorch's
classes while it does.  The series is made here, so that nothing is downloaded.

With one seed both runs draw the same numbers, and after 20 steps their forecasts differ
in the eighth digit.  Training makes rounding grow: after 100 steps they are two runs
like any two, as are two of PyTorch's with and without oneDNN, so several seeds tell.
"""

import argparse
import contextlib
import logging
import tempfile
import time
import warnings

import lightning
import numpy as np
import pandas
import torch
from gluonts.dataset.common import ListDataset
from gluonts.torch import DeepAREstimator

import fastrnn.torch


def series(n=20, length=720):
    """Hourly series with a day's season, each of another height and phase."""
    rng = np.random.default_rng(0)
    hours = np.arange(length)
    return [
        {
            "start": pandas.Period("2024-01-01", freq="h"),
            "target": rng.uniform(1, 5)
            * (2 + np.sin(2 * np.pi * (hours / 24 + rng.uniform())))
            + 0.1 * rng.standard_normal(length),
        }
        for _ in range(n)
    ]


def fit(epochs, batches, accelerated, seed, folder):
    """Mean absolute error of a forecast of a day, and seconds of training."""
    lightning.seed_everything(seed, verbose=False)
    whole = series()
    past = [{**item, "target": item["target"][:-24]} for item in whole]
    estimator = DeepAREstimator(
        freq="h",
        prediction_length=24,
        num_layers=2,
        hidden_size=40,
        batch_size=32,
        num_batches_per_epoch=batches,
        trainer_kwargs={
            "max_epochs": epochs,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": folder,  # checkpoints
            "logger": False,
        },
    )
    patched = fastrnn.torch.patched() if accelerated else contextlib.nullcontext()
    start = time.perf_counter(), time.process_time()
    with patched:  # the one line
        predictor = estimator.train(ListDataset(past, freq="h"))
    seconds = time.perf_counter() - start[0], time.process_time() - start[1]
    forecasts = predictor.predict(ListDataset(past, freq="h"))
    errors = [
        np.abs(forecast.mean - item["target"][-24:]).mean()
        for forecast, item in zip(forecasts, whole, strict=True)
    ]
    return np.mean(errors), *seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few batches only")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=1, help="runs of each")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name in ("lightning.pytorch", "gluonts"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    epochs, batches = (1, 10) if args.quick else (args.epochs, 50)
    for name, accelerated in (("PyTorch", False), ("fastrnn", True)):
        errors, seconds, cpu = [], 0, 0
        for seed in range(args.seeds):
            with tempfile.TemporaryDirectory() as folder:
                error, *took = fit(epochs, batches, accelerated, seed, folder)
            errors.append(error)
            seconds, cpu = seconds + took[0], cpu + took[1]
        spread = f" ({min(errors):.4f} - {max(errors):.4f})" if args.seeds > 1 else ""
        steps, mean = args.seeds * epochs * batches, np.mean(errors)
        print(
            f"{name}: {steps} steps in {seconds:.2f} s ({cpu:.2f} s of CPU time) "
            f"on {args.threads} threads, mean absolute error {mean:.4f}{spread}"
        )


if __name__ == "__main__":
    main()
