# SPDX-License-Identifier: BSD-3-Clause
"""A program that trains under Lightning in two processes; its judge is a test.

``python lightning_program.py FOLDER STRATEGY PRECISION`` trains torch.nn's LSTM and the
drop-in's for an epoch, saves, and goes on from the file of each with the other library.
Each process writes the losses of its runs, as lines of JSON, to the folder.
"""

import json
import logging
import sys
import warnings
from pathlib import Path

import lightning
import torch
from lightning.pytorch.utilities.model_summary import ModelSummary
from torch.utils.data import DataLoader, TensorDataset

import fastrnn.torch

LIBRARIES = {"torch": torch.nn, "fastrnn": fastrnn.torch, "accelerated": torch.nn}


class Net(lightning.LightningModule):
    """An LSTM and a line, which write their losses to a file."""

    def __init__(self, library, file):
        super().__init__()
        self.library, self.file, self.losses = library, file, []
        self.lstm = LIBRARIES[library].LSTM(3, 8, bidirectional=True, batch_first=True)
        self.line = torch.nn.Linear(16, 1)

    def configure_model(self):
        if self.library == "accelerated":
            fastrnn.torch.accelerate(self, verbose=False)

    def training_step(self, batch, _):
        x, target = batch
        loss = (self.line(self.lstm(x)[0]) - target).square().mean()
        self.losses.append(loss.item())
        return loss

    def on_train_end(self):
        found = {
            "run": self.file.name,
            "rank": self.global_rank,
            "losses": self.losses,
            "threads": torch.get_num_threads(),
            "class": type(self.lstm).__module__,
        }
        # A process of its own may have trained: only files reach the first one.
        name = f"{self.file.name}.{self.global_rank}.json"
        (self.file.parent / name).write_text(json.dumps(found), encoding="utf-8")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.02)


def data():
    x = torch.sin(torch.arange(24 * 6 * 3.0)).reshape(24, 6, 3)
    return DataLoader(TensorDataset(x, x.sum(-1, keepdim=True)), batch_size=4)


def run(folder, name, library, epochs, strategy, precision, start=None):
    lightning.seed_everything(0, verbose=False)
    net = Net(library, folder / name)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        precision=precision,
        max_epochs=epochs,
        enable_progress_bar=False,
        logger=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )
    trainer.fit(net, data(), ckpt_path=start)
    trainer.save_checkpoint(folder / f"{name}.ckpt")
    if trainer.is_global_zero:
        summary = str(ModelSummary(net))
        (folder / f"{name}.txt").write_text(summary, encoding="utf-8")


def main(folder, strategy, precision):
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    folder, options = Path(folder), (strategy, precision)
    run(folder, "torch", "torch", 1, *options)
    run(folder, "fastrnn", "fastrnn", 1, *options)
    run(folder, "accelerated", "accelerated", 1, *options)
    # Each goes on from what the other has saved.
    saved = str(folder / "fastrnn.ckpt")
    run(folder, "torch on", "torch", 2, *options, saved)
    saved = str(folder / "torch.ckpt")
    run(folder, "fastrnn on", "fastrnn", 2, *options, saved)


if __name__ == "__main__":
    main(*sys.argv[1:])
