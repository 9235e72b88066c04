# SPDX-License-Identifier: BSD-3-Clause
"""Spell spoken digits: a bidirectional LSTM trained with CTC.

The audio is made on the spot by the speech synthesiser eSpeak NG (from the package
espeakng-loader): one to four digits in many voices, speeds and pitches, with noise. The
model hears log-mel features and writes letters; where each one is in the audio it is
never told. Voices that are held out are never trained on.

    python examples/speech.py [--quick] [--data FILE.csv] [--plot FILE.png]

`--data` takes a CSV of WAV file (16-bit mono) and transcript, with a header.
"""

import argparse
import time

import numpy as np
from espeak import HOP, KINDS, MELS, STACK, VOICES, read, synthesise

import fastrnn

LETTERS = " abcdefghijklmnopqrstuvwxyz'"  # label k + 1 is LETTERS[k]; 0 is blank


def padded(pairs):
    lengths = np.array([len(x) for x, _ in pairs])
    x = np.zeros((len(pairs), lengths.max(), STACK * MELS), np.float32)
    for b, (one, _) in enumerate(pairs):
        x[b, : len(one)] = one
    labels = [np.array([LETTERS.index(c) + 1 for c in text]) for _, text in pairs]
    return x, lengths, np.concatenate(labels), np.array([len(one) for one in labels])


def error_rate(got, right):
    """Insertions, deletions and substitutions per right letter."""
    wrong = 0
    for a, b in zip(got, right, strict=True):
        row = np.arange(len(b) + 1)
        for i, letter in enumerate(a):
            new = np.minimum(row[1:] + 1, row[:-1] + [letter != c for c in b])
            row = np.concatenate(([i + 1], new))
            row = np.minimum.accumulate(row - np.arange(len(row))) + np.arange(len(row))
        wrong += row[-1]
    return wrong / sum(map(len, right))


def train(model, pairs, epochs, lr, rng):
    optimizer = fastrnn.Adam(model, lr=lr)
    order = np.argsort([len(x) for x, _ in pairs], kind="stable")
    batches = np.array_split(order, max(1, len(pairs) // 16))
    for epoch in range(epochs):
        losses = []
        for rows in rng.permutation(len(batches)):
            x, lengths, labels, counts = padded([pairs[i] for i in batches[rows]])
            logits = model(x).swapaxes(0, 1)  # ctc_loss takes time first
            loss, dlogits = fastrnn.ctc_loss(
                logits, labels, lengths, counts, zero_infinity=True
            )
            model.zero_grad()
            model.backward(dlogits.swapaxes(0, 1))
            fastrnn.clip_grad_norm_(model, 5.0)
            optimizer.step()
            losses.append(loss)
        optimizer.lr = lr * (1 - (epoch + 1) / epochs) + 1e-5
        if (epoch + 1) % max(1, epochs // 5) == 0:
            print(f"   epoch {epoch + 1:3}  loss {np.mean(losses):.3f} nats per letter")


def transcribe(model, pairs):
    """Best path and beam search, and the logits."""
    model.eval()
    # One at a time: the reverse direction must start at each one's own end.
    found = [model(x[None])[0] for x, _ in pairs]
    lengths = np.array([len(one) for one in found])
    logits = np.zeros((lengths.max(), len(found), found[0].shape[1]), np.float32)
    for b, one in enumerate(found):
        logits[: len(one), b] = one
    greedy = fastrnn.ctc_greedy_decode(logits, lengths)
    beam, _ = fastrnn.ctc_beam_search(logits, lengths, beam_width=16)
    spell = lambda labels: "".join(LETTERS[k - 1] for k in labels)  # noqa: E731
    return list(map(spell, greedy)), list(map(spell, beam)), logits


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for CI")
    parser.add_argument("--data", metavar="FILE", help="a CSV of WAV file, transcript")
    parser.add_argument("--plot", metavar="FILE", default="speech.png")
    args = parser.parse_args()
    began, rng = time.perf_counter(), np.random.default_rng(0)
    if args.data:
        pairs = read(args.data)
        test, pairs = pairs[::10], [p for i, p in enumerate(pairs) if i % 10]
    else:
        voices = [voice + kind for voice in VOICES for kind in KINDS]
        held_out = voices[::7]
        n = 60 if args.quick else 1500
        pairs = synthesise(n, [v for v in voices if v not in held_out], rng)
        test = synthesise(max(20, n // 10), held_out, rng)
    print(f"{len(pairs)} recordings to train on, {len(test)} in other voices held out")
    right = [text for _, text in test]
    epochs, C = (2, len(LETTERS) + 1) if args.quick else (20, len(LETTERS) + 1)
    print("one layer without recurrence")
    plain = fastrnn.Linear(STACK * MELS, C, seed=0)
    train(plain, pairs, epochs, 1e-2, rng)
    print("BiLSTM")
    model = fastrnn.Sequential(
        fastrnn.Dropout(0.2, seed=3),
        fastrnn.LSTM(STACK * MELS, 96, bidirectional=True, seed=1),
        fastrnn.Dropout(0.3, seed=4),
        fastrnn.Linear(192, C, seed=2),
    )
    train(model, pairs, epochs, 5e-3, rng)
    _, baseline, _ = transcribe(plain, test)
    greedy, beam, logits = transcribe(model, test)
    for a, b in list(zip(beam, right, strict=True))[:6]:
        print(f"   {a}" + ("" if a == b else f"   (right: {b})"))
    print("letter error rate")
    print(f"   one layer without recurrence  {error_rate(baseline, right):.1%}")
    print(f"   BiLSTM, best path             {error_rate(greedy, right):.1%}")
    print(f"   BiLSTM, beam of 16            {error_rate(beam, right):.1%}")
    print(f"time {time.perf_counter() - began:.0f} s")
    plot(args.plot, test[0], logits[: len(test[0][0]), 0], beam[0])


def plot(path, pair, logits, got):
    """What was heard, and when the model wrote which letter."""
    import matplotlib.pyplot as plt

    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    figure, axes = plt.subplots(2, 1, figsize=(11, 6), sharex=True)
    mel = pair[0].reshape(-1, MELS).T
    seconds = len(p) * STACK * HOP
    axes[0].imshow(mel, origin="lower", aspect="auto", extent=(0, seconds, 0, MELS))
    axes[0].set(ylabel="mel filter", title=f"said: {pair[1]}     written: {got}")
    at = (np.arange(len(p)) + 0.5) * STACK * HOP
    axes[1].plot(at, p[:, 0], color="lightgray", label="blank")
    for k in np.flatnonzero(p[:, 1:].max(0) > 0.3) + 1:
        axes[1].plot(at, p[:, k], label=LETTERS[k - 1].replace(" ", "space"))
    axes[1].set(xlabel="seconds", ylabel="probability")
    axes[1].legend(ncols=2, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
