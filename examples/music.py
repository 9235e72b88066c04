# SPDX-License-Identifier: BSD-3-Clause
"""Compose a chorale from a seed note, after the Bach chorales that music21 carries.

Four voices on a grid of eighth notes, one token after another: soprano, alto, tenor,
bass of the first eighth, then of the second, and so on. A token is a pitch, a rest or
"the same note goes on". Every tenth chorale is held out.

    python examples/music.py [--quick] [--data FILE.mxl] [--plot FILE.png]

writes a MIDI file and a piano roll; `--data` composes after a score of your own.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from chorales import HOLD, VOICES, load, notes_of, write_midi

import fastrnn

START, SIZE = 128, 129  # below: MIDI pitches, and 0 and 1 for rest and hold
LONGEST = 512  # tokens: 16 bars of four quarters


def batch_of(scores, rng=None):
    """Inputs and targets: with `rng` a random stretch, moved by up to a fourth."""
    rows = []
    for tokens in scores:
        row = tokens.reshape(-1)
        if rng is not None:
            at = 4 * rng.integers(0, max(1, (len(row) - LONGEST) // 4 + 1))
            shift = rng.integers(-5, 6)
            row = row[at:]
            row = np.where(row > HOLD, row + shift, row)
        rows.append(row[:LONGEST])
    return fastrnn.teacher_forcing(rows, START)


def bigram_bits(train, test):
    """Bits per token of P(token | voice, the voice's last token), on as much."""
    counts = np.full((4, SIZE, SIZE), 0.03)  # of what was never seen: best on `test`
    for tokens in train:
        for voice in range(4):
            np.add.at(counts[voice], (tokens[:-1, voice], tokens[1:, voice]), 1)
    p = counts / counts.sum(2, keepdims=True)
    test = [tokens[: LONGEST // 4] for tokens in test]
    bits = [-np.log2(p[v, t[:-1, v], t[1:, v]]) for t in test for v in range(4)]
    return np.concatenate(bits).mean()


def loss_bits(model, scores):
    inputs, targets = batch_of(scores)
    with model._evaluating():
        logits, _ = model(inputs)
    return fastrnn.cross_entropy(logits, targets)[0] / np.log(2)


def plot(path, tokens):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(12, 5))
    for voice, pitch, start, n in notes_of(tokens):
        axes.barh(pitch, n - 0.15, left=start, height=0.8, color=f"C{voice}")
    for voice, name in enumerate(VOICES):
        axes.barh(60, 0, color=f"C{voice}", label=name)
    axes.set(xlabel="eighth", ylabel="MIDI pitch", title="A chorale from one seed note")
    axes.legend(loc="lower right", ncols=4)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for CI")
    parser.add_argument("--data", metavar="FILE", help="a score in MusicXML instead")
    parser.add_argument("--plot", metavar="FILE", default="music.png")
    parser.add_argument("--seed-note", type=int, default=67, help="MIDI pitch, soprano")
    args = parser.parse_args()
    began = time.perf_counter()
    train, test = load(args.data, args.quick)
    print(f"{len(train)} chorales to train on, {len(test)} held out")

    hidden, steps = (64, 10) if args.quick else (256, 600)
    recurrent = fastrnn.LSTM(48, hidden, 2, dropout=0.3, seed=0)
    model = fastrnn.Generator(SIZE, recurrent, start=START, seed=1)
    optimizer = fastrnn.Adam(model, lr=3e-3)
    rng = np.random.default_rng(0)
    for step in range(steps):
        chosen = rng.integers(0, len(train), 16)
        inputs, targets = batch_of([train[i] for i in chosen], rng)
        logits, _ = model(inputs)
        _, dlogits = fastrnn.cross_entropy(logits, targets)
        model.zero_grad()
        model.backward(dlogits)
        fastrnn.clip_grad_norm_(model, 1.0)
        optimizer.lr = 3e-3 * (1 - step / steps)
        optimizer.step()
        if (step + 1) % max(1, steps // 6) == 0:
            bits = loss_bits(model, test)
            print(f"step {step + 1:4}  {bits:.3f} bits per token, held out")
    print(f"bigram model of each voice  {bigram_bits(train, test):.3f} bits per token")
    print(f"LSTM                        {loss_bits(model, test):.3f} bits per token")

    prompt = np.array([START, args.seed_note])
    length = LONGEST // 4 - 1 if args.quick else 256 - 1
    written = model.generate(
        prompt, max_length=length, top_p=0.95, temperature=0.9, seed=1
    )
    tokens = np.concatenate(([args.seed_note], written.tokens[0]))
    tokens = np.where(tokens == START, HOLD, tokens).reshape(-1, 4)
    midi = Path(args.plot).with_suffix(".mid")
    write_midi(midi, tokens)
    plot(args.plot, tokens)
    print(f"time                        {time.perf_counter() - began:.0f} s")
    print(f"a chorale from note {args.seed_note} is in {midi} and {args.plot}")


if __name__ == "__main__":
    main()
