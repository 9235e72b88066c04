# SPDX-License-Identifier: BSD-3-Clause
"""Models of text: what goes in, and what is written."""

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import fastrnn

tokenizer = fastrnn.WordTokenizer(lower=True).fit(["the cat", "the dog"])
rows = [tokenizer.encode(text) for text in ("the dog", "a cat")]
padded, mask = fastrnn.pad_sequences(rows, batch_first=True)
assert_type(padded, NDArray[Any])
print(tokenizer.decode(rows[0]).upper(), len(tokenizer.vocabulary))
vocabulary = fastrnn.Vocabulary.of([["a", "b"], ["b"]], min_count=1)
print(vocabulary["a"] + 1, vocabulary.decode([0, 1])[0].title())

translator = fastrnn.EncoderDecoder(
    fastrnn.LSTM(32, 64, bidirectional=True),
    fastrnn.LSTM(32, 64),
    source_size=100,
    target_size=80,
    start=1,
    end=2,
    attention="additive",
)
logits, weights = translator(np.ones((3, 9), int), np.ones((3, 7), int), [9, 4, 6])
assert_type(logits, NDArray[Any])
translator.compile(optimizer=fastrnn.Adam, lr=1e-3)
translator.fit([[1, 2], [3]], [[4], [5, 6]], epochs=2, verbose=0)
written = translator.translate(padded, [3, 2], beam_width=4, max_length=20)
assert_type(written.tokens, list[NDArray[Any]])
print(written.log_probabilities.mean(), translator.predict([[1, 2]], beam_width=2)[0])

generator = fastrnn.Generator(9, fastrnn.GRU(4, 8, seed=0), start=0, end=1, seed=0)
print(generator.generate(max_length=5, temperature=0.7, seed=0).tokens[0].tolist())
inputs, targets = fastrnn.teacher_forcing([[5, 6], [8]], start=generator.start, end=1)
loss, dlogits = fastrnn.cross_entropy(generator(inputs)[0], targets)

scores = np.zeros((5, 1, 3))
loss, _ = fastrnn.ctc_loss(scores, [[1, 2]])
labels = fastrnn.ctc_greedy_decode(scores)
print(f"{loss:.2f}", labels[0] + 1, fastrnn.ctc_beam_search(scores, beam_width=4)[1])
x, y = fastrnn.windows(np.arange(9.0), 3, horizon=2)
early, late = fastrnn.split_by_time(x, test_size=0.25)
print(fastrnn.one_hot([0, 2], 3), early + y[: len(early)], late)
packed = fastrnn.pack([np.ones(3), np.ones(2)])
print(packed.lengths.sum(), fastrnn.unpack(packed)[0])
for batch in fastrnn.BucketSampler([3, 1, 2], 2, seed=1):
    print(batch.tolist(), fastrnn.mask_from_lengths(batch))
print(fastrnn.sample(np.zeros((2, 9)), top_k=3, seed=0) + 1)
