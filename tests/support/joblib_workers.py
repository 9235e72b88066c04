# SPDX-License-Identifier: BSD-3-Clause
"""A program of scikit-learn's estimators in joblib's processes.

``python joblib_workers.py FILE`` writes what it finds to the file, as JSON;
`tests/sklearn/test_joblib.py` judges it. It is a program of its own, because a process
that has run tests has had threads, which a forked child does not have.
"""

import json
import os
import sys

import joblib
import numpy as np
from joblib.externals.loky import get_reusable_executor
from sklearn.model_selection import GridSearchCV, cross_val_score
from threadpoolctl import threadpool_limits

import fastrnn
from fastrnn.sklearn import RNNClassifier


def tasks():
    """The threads of this process, or 0 where the system does not list them."""
    folder = "/proc/self/task"
    return len(os.listdir(folder)) if os.path.isdir(folder) else 0


def probe(_=None):
    """Run work enough for several threads; say how many there were and may be."""
    layer, x = fastrnn.GRU(64, 128, seed=0).eval(), np.ones((40, 64, 64), "f")
    before = tasks()
    for _ in range(5):
        layer(x)
    return {
        "may": fastrnn.get_num_threads(),
        "new": tasks() - before,
        "environment": os.environ.get("OMP_NUM_THREADS"),
        "process": os.getpid(),
    }


def probes(backend, n_jobs=2, **options):
    with joblib.parallel_config(backend, **options):
        return joblib.Parallel(n_jobs)(joblib.delayed(probe)(at) for at in range(4))


def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 12, 2))
    return X, np.where(X[:, -3, 0] > 0, "up", "down")


def search(n_jobs, epochs=4):
    """Scores and the best parameters of a grid search."""
    found = GridSearchCV(
        RNNClassifier(cell="gru", epochs=epochs, random_state=0),
        {"hidden_size": [4, 24], "lr": [0.003, 0.03]},
        cv=2,
        n_jobs=n_jobs,
    ).fit(*data())
    flat = found.best_estimator_.model_.flat_parameters
    return [found.cv_results_["mean_test_score"].tolist(), flat.tolist()]


def scores(n_jobs):
    model = RNNClassifier(epochs=4, random_state=0)
    return cross_val_score(model, *data(), cv=2, n_jobs=n_jobs).tolist()


def main(file):
    found = {"cpus": joblib.cpu_count()}
    with threadpool_limits(1):
        found["limited"] = probe()
    found["alone"] = probe()
    found["loky"] = probes("loky")
    found["inner 1"] = probes("loky", inner_max_num_threads=1)
    found["inner 2"] = probes("loky", inner_max_num_threads=2)
    found["search"] = [search(1), search(2)]
    found["scores"] = [scores(1), scores(2)]
    found["forked late"] = probes("multiprocessing")
    fastrnn.set_num_threads(2)
    with threadpool_limits(1):
        found["set"] = fastrnn.get_num_threads()
    get_reusable_executor().shutdown(wait=True)
    with open(file, "w", encoding="utf-8") as out:
        json.dump(found, out)


if __name__ == "__main__":
    main(sys.argv[1])
