# SPDX-License-Identifier: BSD-3-Clause
"""Spell spoken digits: a bidirectional LSTM trained with CTC
==========================================================

The audio is made on the spot by the speech synthesiser eSpeak NG (from the package
espeakng-loader): one to four digits in many voices, speeds and pitches, with noise. The
model hears log-mel features and writes letters; where each one is in the audio it is
never told. Voices that are held out are never trained on.

::

    python examples/speech.py [--quick] [--data FILE.csv] [--plot FILE.png]

`--data` takes a CSV of WAV file (16-bit mono) and transcript, with a header.
"""

# sphinx_gallery_thumbnail_path = 'pictures/speech_quick.png'

import argparse
import time

import numpy as np
from espeak import HOP, KINDS, MELS, STACK, VOICES, read, synthesise

import fastrnn
from fastrnn.metrics import edit_distance

LETTERS = " abcdefghijklmnopqrstuvwxyz'"  # label k + 1 is LETTERS[k]; 0 is blank


def train(layers, pairs, epochs, lr):
    """A model of these layers that spells what it hears."""
    model = fastrnn.Sequential(*layers)
    # A recording with too few steps for its letters is left out: `zero_infinity`.
    ctc = fastrnn.objectives.ConnectionistTemporalClassification(zero_infinity=True)
    model.compile(ctc, "adam", metrics=["label_error_rate"], lr=lr)
    model.fit(
        [sound for sound, _ in pairs],  # of many lengths: nothing is padded
        [[LETTERS.index(letter) + 1 for letter in text] for _, text in pairs],
        batch_size=16,
        epochs=epochs,
        callbacks=[fastrnn.schedules.CosineLR()],
        clip_norm=5.0,
        seed=0,
    )
    return model


def transcribe(model, pairs, **options):
    """What the model writes for each recording."""
    labels = model.predict([sound for sound, _ in pairs], **options)
    return ["".join(LETTERS[k - 1] for k in row) for row in labels]


def error_rate(got, right):
    """Insertions, deletions and substitutions per right letter."""
    wrong = sum(map(edit_distance, got, right))
    return wrong / sum(map(len, right))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few seconds, for CI")
    parser.add_argument("--data", metavar="FILE", help="a CSV of WAV file, transcript")
    parser.add_argument("--plot", metavar="FILE", default="speech.png")
    args = parser.parse_args()
    began = time.perf_counter()
    if args.data:
        pairs = read(args.data)
        test, pairs = pairs[::10], [p for i, p in enumerate(pairs) if i % 10]
    else:
        voices = [voice + kind for voice in VOICES for kind in KINDS]
        held_out = voices[::7]
        n, rng = 60 if args.quick else 1500, np.random.default_rng(0)
        pairs = synthesise(n, [v for v in voices if v not in held_out], rng)
        test = synthesise(max(20, n // 10), held_out, rng)
    print(f"{len(pairs)} recordings to train on, {len(test)} in other voices held out")
    right = [text for _, text in test]
    epochs, C = 8 if args.quick else 20, len(LETTERS) + 1
    print("one layer without recurrence")
    plain = train([fastrnn.Linear(None, C, seed=0)], pairs, epochs, 1e-2)
    print("BiLSTM")
    layers = [
        fastrnn.Dropout(0.2, seed=3),
        fastrnn.LSTM(None, 96, bidirectional=True, seed=1),
        fastrnn.Dropout(0.3, seed=4),
        fastrnn.Linear(None, C, seed=2),
    ]
    model = train(layers, pairs, epochs, 5e-3)
    baseline, best = transcribe(plain, test), transcribe(model, test)
    beam = transcribe(model, test, beam_width=16)
    for a, b in list(zip(beam, right, strict=True))[:6]:
        print(f"   {a}" + ("" if a == b else f"   (right: {b})"))
    print("letter error rate")
    print(f"   one layer without recurrence  {error_rate(baseline, right):.1%}")
    print(f"   BiLSTM, best path             {error_rate(best, right):.1%}")
    print(f"   BiLSTM, beam of 16            {error_rate(beam, right):.1%}")
    print(f"time {time.perf_counter() - began:.0f} s")
    plot(args.plot, model, test[0], beam[0], args.quick)


def plot(path, model, pair, got, quick):
    """What was heard, and when the model wrote which letter."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    sound, text = pair
    logits = model.predict([sound], decode=False)[0]
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    figure, axes = plt.subplots(
        2, 1, figsize=(12, 7), sharex=True, layout="constrained"
    )
    seconds = len(p) * STACK * HOP
    image = axes[0].imshow(
        sound.reshape(-1, MELS).T, origin="lower", aspect="auto",
        extent=(0, seconds, 0, MELS),
    )  # fmt: skip
    figure.colorbar(image, ax=axes[0], label="log energy, in deviations")
    verdict = "right" if got == text else f"right: {text}"
    axes[0].set(ylabel="mel filter", title=f"written: {got or 'nothing'}   ({verdict})")
    at = (np.arange(len(p)) + 0.5) * STACK * HOP
    axes[1].plot(at, p[:, 0], color="0.8")
    written = p.argmax(1)
    new = np.flatnonzero((written > 0) & (written != np.append(0, written[:-1])))
    for k in np.unique(written[new]):
        axes[1].plot(at, p[:, k])
    for step in new:
        letter = LETTERS[written[step] - 1].replace(" ", "\u2423")
        axes[1].text(at[step], 1.04, letter, ha="center", fontsize=9)
    axes[1].set(xlabel="seconds", ylabel="probability", ylim=(0, 1.13))
    axes[1].set_title("letters of the best path where each begins; grey: blank")
    if quick:
        figure.suptitle("After a few epochs on 60 recordings only (--quick)")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
