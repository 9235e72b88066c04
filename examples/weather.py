# SPDX-License-Identifier: BSD-3-Clause
"""Forecast tomorrow's weather in Seattle, several variables at once
=================================================================

Rain, highest and lowest temperature and wind of four years, day by day, which
vega_datasets carries. A GRU reads the year so far and says at every day what the next
brings; the last year is held out. Beside it: the same day a year before
(seasonal-naive), today's weather, and the mean of the day of the year.

::

    python examples/weather.py [--quick] [--data FILE.csv] [--plot FILE.png]

`--data` takes a CSV with a column ``date`` and columns of numbers.
"""

# sphinx_gallery_thumbnail_path = 'pictures/weather.png'

import argparse
import time

import matplotlib
import numpy as np
import pandas
from sklearn.preprocessing import StandardScaler

import fastrnn

STEPS = 60  # days in a training sequence
YEAR = 365
UNITS = {
    "precipitation": "rain, log(1 + mm)",
    "temp_max": "highest, °C",
    "temp_min": "lowest, °C",
    "wind": "wind, m/s",
}


def load(path):
    """A table of numbers by date; rain, which is skewed, as log(1 + mm)."""
    if path is None:
        from vega_datasets import data

        table = data.seattle_weather().drop(columns="weather")
        table["precipitation"] = np.log1p(table["precipitation"])
    else:
        table = pandas.read_csv(path, parse_dates=["date"])
    return table.set_index("date").sort_index().select_dtypes("number")


def features(table, scaler):
    """The scaled variables, and where in the year the next day is."""
    angle = 2 * np.pi * (table.index.dayofyear.to_numpy() + 1) / 365.25
    season = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    return np.concatenate(
        [scaler.transform(table.to_numpy()), season], axis=1, dtype="f"
    )


def plot(path, dates, truth, forecast, names, quick):
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        len(names), sharex=True, squeeze=False, figsize=(9, 2 * len(names) + 1),
        layout="constrained",
    )  # fmt: skip
    axes = axes[:, 0]
    for ax, name, real, said in zip(axes, names, truth.T, forecast.T, strict=True):
        ax.plot(dates, real, color="0.6", linewidth=0.8, label="measured")
        ax.plot(dates, said, color="C0", label="forecast a day ahead")
        ax.set_ylabel(UNITS.get(name, name))
        ax.grid(alpha=0.3)
    axes[0].set_title("Held-out year" + (" (quick: 3 epochs)" if quick else ""))
    axes[-1].set_xlabel("date")
    figure.align_ylabels(axes)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=2, loc="outside lower center")
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for CI")
    parser.add_argument("--data", metavar="FILE", help="a CSV with a date and numbers")
    parser.add_argument("--plot", metavar="FILE", default="weather.png")
    options = parser.parse_args()

    table = load(options.data)
    names, values = list(table.columns), table.to_numpy()
    n_test = min(YEAR, len(values) // 4)
    n_train = len(values) - n_test
    scaler = StandardScaler().fit(values[:n_train])
    x, y = features(table, scaler), scaler.transform(values).astype("f")
    # Sequences of STEPS days; the target of each day is the next one.
    series, following = x[: n_train - 1], y[1:n_train]
    inputs, _ = fastrnn.windows(series, STEPS, stride=3)
    targets = np.stack([following[k : k + STEPS] for k in range(0, 3 * len(inputs), 3)])

    model = fastrnn.Sequential(
        fastrnn.GRU(48, return_sequences=True, seed=0),
        fastrnn.Dropout(0.2, seed=1),
        fastrnn.Dense(len(names), seed=2),
    )
    model.compile("mse", "adam", lr=3e-3)
    stop = fastrnn.callbacks.EarlyStopping(patience=8, restore_best_weights=True)
    epochs, start = 3 if options.quick else 100, time.perf_counter()
    history = model.fit(
        inputs, targets, epochs=epochs, validation_split=0.2, callbacks=[stop],
        clip_norm=1.0, seed=3,
    )  # fmt: skip
    print(f"{len(history.epoch)} epochs in {time.perf_counter() - start:.1f} s")

    # At every day of the held-out year the forecast knows all days before it.
    scaled = model.predict(x[None, :-1])[0, n_train - 1 :]
    said, truth = scaler.inverse_transform(scaled), values[n_train:]
    day = table.index.dayofyear.to_numpy()
    means = table.iloc[:n_train].groupby(day[:n_train]).mean()
    smooth = means.rolling(15, center=True, min_periods=1).mean()
    guesses = {
        "seasonal-naive": values[n_train - YEAR : -YEAR],
        "today": values[n_train - 1 : -1],
        "mean of the day": smooth.reindex(day[n_train:]).ffill().to_numpy(),
        "GRU": said,
    }
    print(f"RMSE on {n_test} days held out, in units of the variable's deviation")
    print(f"{'':<16}" + "".join(f"{name:>15}" for name in names) + f"{'all':>8}")
    for name, guess in guesses.items():
        error = np.sqrt(np.mean(((guess - truth) / scaler.scale_) ** 2, axis=0))
        row = "".join(f"{value:15.3f}" for value in error)
        print(f"{name:<16}{row}{np.sqrt(np.mean(error**2)):8.3f}")
    plot(options.plot, table.index[n_train:], truth, said, names, options.quick)
    print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
