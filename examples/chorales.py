# SPDX-License-Identifier: BSD-3-Clause
"""Four-part scores as tokens on a grid of eighths, and back. Used by `music.py`."""

import numpy as np

REST, HOLD = 0, 1  # a token is one of these or a MIDI pitch
VOICES = "soprano", "alto", "tenor", "bass"


def grid(score):
    """Tokens of a score, (eighths, 4), or None if it has not four voices."""
    if len(score.parts) != 4:
        return None
    eighths = int(2 * score.highestTime)
    tokens = np.full((eighths, 4), REST)
    for voice, part in enumerate(score.parts):
        for note in part.flatten().notes:
            start = int(2 * note.offset)
            stop = max(start + 1, int(2 * (note.offset + note.quarterLength)))
            tokens[start + 1 : stop, voice] = HOLD
            if start < eighths:
                tokens[start, voice] = note.pitches[-1].midi
    return tokens


def load(data, quick):
    from music21 import converter, corpus

    if data:
        whole = grid(converter.parse(data))
        if whole is None:
            raise SystemExit(f"{data}: must be a score of four voices")
        cut = len(whole) * 9 // 10
        return [whole[:cut]], [whole[cut:]]
    paths = [p for p in corpus.getComposer("bach") if p.suffix == ".mxl"]
    scores = [grid(corpus.parse(path)) for path in paths[: 12 if quick else None]]
    scores = [tokens for tokens in scores if tokens is not None]
    return [s for i, s in enumerate(scores) if i % 10], scores[::10]


def notes_of(tokens):
    """(voice, pitch, first eighth, eighths) of each note of (eighths, 4) tokens."""
    for voice in range(4):
        starts = [t for t, token in enumerate(tokens[:, voice]) if token != HOLD]
        for start, stop in zip(starts, [*starts[1:], len(tokens)], strict=True):
            if tokens[start, voice] != REST:
                yield voice, int(tokens[start, voice]), start, stop - start


def write_midi(path, tokens):
    from music21 import note, stream

    parts = [stream.Part(id=name) for name in VOICES]
    for voice, pitch, start, n in notes_of(tokens):
        parts[voice].insert(start / 2, note.Note(pitch, quarterLength=n / 2))
    stream.Score(parts).write("midi", fp=path)
