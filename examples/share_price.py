# SPDX-License-Identifier: BSD-3-Clause
"""Forecast a share's closing price from the last 100 days, as a Keras tutorial does
=================================================================================

The scaler and the network see the first 65 % of the days. The last 35 % are forecast
day by day, each from the true prices before it, and judged beside the plainest guess:
tomorrow's price is today's. The prices are Google's, 2004 to 2008, which matplotlib
carries.

::

    python examples/share_price.py [--quick] [--data FILE.csv] [--plot FILE.png]

`--data` takes a CSV with columns ``date`` and ``close``. Where PyTorch or Keras are
installed, an epoch of the same network is timed in them, too.
"""

# sphinx_gallery_thumbnail_path = 'pictures/share_price.png'

import argparse
import importlib.util
import time

import matplotlib
import numpy as np
from matplotlib import cbook
from sklearn.preprocessing import MinMaxScaler

import fastrnn

DAYS, UNITS, LAYERS, BATCH = 100, 50, 3, 64


def load(path):
    """Dates and closing prices."""
    if path is None:
        table = cbook.get_sample_data("goog.npz")["price_data"]
    else:
        import pandas

        table = pandas.read_csv(path, parse_dates=["date"]).sort_values("date")
    return np.asarray(table["date"]), np.asarray(table["close"], float)


def network():
    """Stacked LSTMs and a linear head; the last step's output is the forecast."""
    body = [
        fastrnn.LSTM(UNITS, return_sequences=True, seed=k) for k in range(LAYERS - 1)
    ]
    last = [fastrnn.LSTM(UNITS, seed=LAYERS), fastrnn.Dense(1, seed=9)]
    return fastrnn.Sequential([*body, *last])


def torch_epoch(x, y):
    """A function that trains the same network in PyTorch for an epoch."""
    import torch

    torch.set_num_threads(fastrnn.get_num_threads())
    lstm = torch.nn.LSTM(1, UNITS, LAYERS, batch_first=True)
    head = torch.nn.Linear(UNITS, 1)
    optimizer = torch.optim.Adam([*lstm.parameters(), *head.parameters()])
    data = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y))
    batches = torch.utils.data.DataLoader(data, BATCH, shuffle=True)

    def epoch():
        for inputs, targets in batches:
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(head(lstm(inputs)[0][:, -1]), targets)
            loss.backward()
            optimizer.step()

    return epoch


def keras_epoch(x, y):
    """The same in Keras, with its own choice of backend."""
    import keras

    last = [keras.layers.LSTM(UNITS), keras.layers.Dense(1)]
    body = [keras.layers.LSTM(UNITS, return_sequences=True) for _ in range(LAYERS - 1)]
    model = keras.Sequential([*body, *last])
    model.compile(loss="mse", optimizer="adam")
    return lambda: model.fit(x, y, batch_size=BATCH, verbose=0)


def compare_epochs(x, y, rounds):
    """Median seconds an epoch, the libraries taking turns."""
    model = network()
    model.compile("mse", "adam")
    epochs = {"fastrnn": lambda: model.fit(x, y, batch_size=BATCH, verbose=0)}
    for name, make in (("torch", torch_epoch), ("keras", keras_epoch)):
        if importlib.util.find_spec(name):
            epochs[name] = make(x, y)
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    for _ in range(rounds + 1):
        for name, epoch in epochs.items():
            start = time.perf_counter()
            epoch()
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(found[1:])) for name, found in seconds.items()}


def plot(path, dates, prices, forecast, title, unit):
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    n = len(forecast)
    figure, (whole, close_up) = plt.subplots(2, figsize=(9, 7), layout="constrained")
    for axes, days in ((whole, len(prices)), (close_up, min(n, 60))):
        axes.plot(dates[-days:], prices[-days:], color="0.3", label="close")
        axes.plot(dates[-n:][-days:], forecast[-days:], color="C1", label="forecast")
        axes.set_ylabel(f"price{unit}")
        axes.set_xlabel("date")
        axes.grid(alpha=0.3)
    whole.axvline(dates[-n], color="0.6", linestyle=":", label="held out from here")
    last = dates[-n:][-days:], prices[-n - 1 : -1][-days:]
    close_up.plot(*last, color="0.6", linestyle="--", label="last value")
    whole.set_title(title)
    close_up.set_title(f"the last {days} days")
    found = [axes.get_legend_handles_labels() for axes in (whole, close_up)]
    key = {label: handle for pair in found for handle, label in zip(*pair, strict=True)}
    figure.legend(key.values(), key.keys(), ncols=4, loc="outside lower center")
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for CI")
    parser.add_argument("--data", metavar="FILE", help="a CSV with date and close")
    parser.add_argument("--plot", metavar="FILE", default="share_price.png")
    options = parser.parse_args()

    dates, prices = load(options.data)
    train, test = fastrnn.split_by_time(prices[:, None], test_size=0.35, overlap=DAYS)
    scaler = MinMaxScaler().fit(train)
    x, y = fastrnn.windows(scaler.transform(train).astype("f"), DAYS)
    x_test, _ = fastrnn.windows(scaler.transform(test).astype("f"), DAYS)

    model = network()
    model.compile("mse", "adam")
    epochs, start = 3 if options.quick else 100, time.perf_counter()
    model.fit(x, y, epochs=epochs, batch_size=BATCH, seed=0)
    trained = time.perf_counter() - start
    forecast = scaler.inverse_transform(model.predict(x_test))[:, 0]

    truth = test[DAYS:, 0]
    rmse = {
        "last value": np.sqrt(np.mean((test[DAYS - 1 : -1, 0] - truth) ** 2)),
        "stacked LSTM": np.sqrt(np.mean((forecast - truth) ** 2)),
    }
    print(f"{len(y)} windows of {DAYS} days, {epochs} epochs in {trained:.1f} s")
    for name, value in rmse.items():
        print(f"{name:<13} RMSE {value:7.2f} on {len(truth)} days held out")
    found = compare_epochs(x, y, 1 if options.quick else 3)
    ratios = "".join(f"  {n} {s:.3f} s" for n, s in found.items())
    print(f"an epoch, {fastrnn.get_num_threads()} threads:{ratios}")
    title = "Tomorrow's closing price" + (" (quick: 3 epochs)" if options.quick else "")
    unit = ", $" if options.data is None else ""
    plot(options.plot, dates, prices, forecast, title, unit)
    print(f"plot: {options.plot}")


if __name__ == "__main__":
    main()
