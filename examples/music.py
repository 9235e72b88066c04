# SPDX-License-Identifier: BSD-3-Clause
"""Compose a chorale from a seed note, after the Bach chorales that music21 carries
================================================================================

Four voices on a grid of eighth notes, one token after another: soprano, alto, tenor,
bass of the first eighth, then of the second, and so on. A token is a pitch, a rest or
"the same note goes on". Every tenth chorale is held out.

::

    python examples/music.py [--quick] [--data FILE.mxl] [--plot FILE.png]

writes a MIDI file and a piano roll; `--data` composes after a score of your own.
"""

# sphinx_gallery_thumbnail_path = 'pictures/music_quick.png'

import argparse
import time
from pathlib import Path

import numpy as np
from chorales import HOLD, VOICES, load, notes_of, write_midi

import fastrnn

START, SIZE = 128, 129  # below: MIDI pitches, and 0 and 1 for rest and hold
LONGEST = 512  # tokens: 16 bars of four quarters


def batches(scores, rng):
    """Stretches of 16 scores each, moved by up to a fourth, for ever."""
    while True:
        rows = []
        for i in rng.integers(0, len(scores), 16):
            row = scores[i].reshape(-1)
            at = 4 * rng.integers(0, max(1, (len(row) - LONGEST) // 4 + 1))
            row = row[at : at + LONGEST]
            rows.append(np.where(row > HOLD, row + rng.integers(-5, 6), row))
        yield None, rows  # from the start token alone


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


def plot(path, tokens, quick):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(14, 6), layout="constrained")
    notes = list(notes_of(tokens))
    for voice, name in enumerate(VOICES):
        own = np.array([note[1:] for note in notes if note[0] == voice]).reshape(-1, 3)
        pitches, starts, lengths = own.T
        axes.barh(pitches, lengths - 0.15, left=starts, height=0.8, color=f"C{voice}",
                  label=name)  # fmt: skip
    seed = int(tokens[0, 0])
    axes.plot(-1, seed, ">", color="black", label=f"seed note, {seed}", clip_on=False)
    octaves = range(24, 97, 12)
    axes.set_yticks(octaves, [f"{pitch}  C{pitch // 12 - 1}" for pitch in octaves])
    axes.set_xticks(range(0, len(tokens) + 1, 8))  # a bar of four quarters
    axes.set(xlabel="time in eighths", ylabel="MIDI pitch", xlim=(-2, len(tokens)))
    sounding = [pitch for _, pitch, _, _ in notes] or [seed]
    axes.set_ylim(min(sounding) - 2, max(sounding) + 2)
    axes.set_title(
        "A chorale from one seed note"
        + (", by a network that has hardly learned (--quick)" if quick else "")
    )
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few seconds, for CI")
    parser.add_argument("--data", metavar="FILE", help="a score in MusicXML instead")
    parser.add_argument("--plot", metavar="FILE", default="music.png")
    parser.add_argument("--seed-note", type=int, default=67, help="MIDI pitch, soprano")
    args = parser.parse_args()
    began = time.perf_counter()
    train, test = load(args.data, args.quick)
    print(f"{len(train)} chorales to train on, {len(test)} held out")

    hidden, epochs, steps = (64, 2, 15) if args.quick else (256, 6, 100)
    recurrent = fastrnn.LSTM(48, hidden, 2, dropout=0.3, seed=0)
    model = fastrnn.Generator(SIZE, recurrent, start=START, seed=1)
    model.compile(optimizer="adam", lr=3e-3)
    held_out = [tokens.reshape(-1)[:LONGEST] for tokens in test]
    history = model.fit(
        batches(train, np.random.default_rng(0)),
        epochs=epochs,
        steps_per_epoch=steps,
        validation_data=(None, held_out),
        callbacks=[fastrnn.schedules.CosineLR()],
        clip_norm=1.0,
    )
    bits = history.last["val_loss"] / np.log(2)
    print(f"bigram model of each voice  {bigram_bits(train, test):.3f} bits per token")
    print(f"LSTM                        {bits:.3f} bits per token")

    prompt = np.array([START, args.seed_note])
    length = LONGEST // 4 - 1 if args.quick else 256 - 1
    written = model.generate(
        prompt, max_length=length, top_p=0.95, temperature=0.9, seed=1
    )
    tokens = np.concatenate(([args.seed_note], written.tokens[0]))
    tokens = np.where(tokens == START, HOLD, tokens).reshape(-1, 4)
    midi = Path(args.plot).with_suffix(".mid")
    write_midi(midi, tokens)
    plot(args.plot, tokens, args.quick)
    print(f"time                        {time.perf_counter() - began:.0f} s")
    print(f"a chorale from note {args.seed_note} is in {midi} and {args.plot}")


if __name__ == "__main__":
    main()
