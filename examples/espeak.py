# SPDX-License-Identifier: BSD-3-Clause
"""Speech made by eSpeak NG, and what a recogniser hears of it. Used by `speech.py`."""

import csv
import ctypes
import wave
from pathlib import Path

import numpy as np

MELS, FRAME, HOP, STACK = 40, 0.025, 0.010, 3  # filters; seconds; frames to a step
WORDS = "zero one two three four five six seven eight nine".split()  # noqa: SIM905
VOICES = ["en", "en-us", "en-gb-scotland", "en-gb-x-rp", "en-029", "en-gb-x-gbclan"]
KINDS = ["", "+m1", "+m2", "+m3", "+m4", "+m7", "+f1", "+f2", "+f3", "+f4"]


class Synthesiser:
    """eSpeak NG through its C interface: text to samples."""

    RATE, VOLUME, PITCH, CHARS_UTF8 = 1, 2, 3, 1

    def __init__(self):
        import espeakng_loader

        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = str(Path(espeakng_loader.get_data_path()).parent).encode()
        self.rate = self.library.espeak_Initialize(2, 0, data, 0)  # 2: synchronous
        self.pieces = []
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
        )
        self.callback = kind(self._receive)  # kept: C has only a pointer
        self.library.espeak_SetSynthCallback(self.callback)

    def _receive(self, samples, n, events):
        if n > 0:
            self.pieces.append(np.ctypeslib.as_array(samples, (n,)).astype(np.float32))
        return 0

    def say(self, text, voice, speed, pitch):
        if self.library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"eSpeak NG has no voice {voice!r}")
        self.library.espeak_SetParameter(self.RATE, int(speed), 0)
        self.library.espeak_SetParameter(self.PITCH, int(pitch), 0)
        self.pieces = []
        data = text.encode() + b"\0"
        self.library.espeak_Synth(
            data, ctypes.c_size_t(len(data)), 0, 1, 0, self.CHARS_UTF8, None, None
        )
        return np.concatenate(self.pieces) / 32768


def features(samples, rate):
    """Log-mel energies, STACK frames side by side: (T, STACK * MELS)."""
    size, hop = int(FRAME * rate), int(HOP * rate)
    n = max(STACK, 1 + (len(samples) - size) // hop)
    samples = np.pad(samples, (0, max(0, size + n * hop - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[: n * hop : hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(size), 512 * -(-size // 512))) ** 2
    hertz = np.linspace(0, rate / 2, power.shape[1])
    edges = 700 * (
        10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), MELS + 2) / 2595) - 1
    )
    rise = (hertz - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - hertz) / np.diff(edges)[1:, None]
    mel = np.log(power @ np.clip(np.minimum(rise, fall), 0, None).T + 1e-6)
    mel = (mel - mel.mean(0)) / (mel.std(0) + 1e-3)
    return mel[: n - n % STACK].reshape(-1, STACK * MELS).astype(np.float32)


def synthesise(n, voices, rng):
    """Pairs of features and transcript."""
    speaker = Synthesiser()
    pairs = []
    for _ in range(n):
        text = " ".join(rng.choice(WORDS, rng.integers(1, 5)))
        samples = speaker.say(
            text, rng.choice(voices), rng.integers(120, 240), rng.integers(20, 80)
        )
        noise = rng.normal(size=len(samples)) * 10 ** rng.uniform(-4, -2)
        pairs.append((features(samples + noise, speaker.rate), text))
    return pairs


def read(path):
    """Pairs of features and transcript from a CSV of WAV file and transcript."""
    pairs = []
    with open(path, encoding="utf-8", newline="") as file:
        for name, text in list(csv.reader(file))[1:]:
            with wave.open(str(Path(path).parent / name)) as sound:
                data = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
                pairs.append(
                    (features(data / 32768, sound.getframerate()), text.lower())
                )
    return pairs
