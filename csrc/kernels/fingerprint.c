/* SPDX-License-Identifier: BSD-3-Clause */
/* fingerprint.c -- whether memory has changed since it was last looked at.
 *
 * Packed weights are used again while the weights are the same, and nobody needs to tell
 * us when they write to a parameter: reading the weights once at cache speed costs a
 * small part of packing them.  64 lanes of 32 bits each take every 64th word:
 *
 *   lane = rotate(lane ^ word, 13) * odd constant
 *
 * A step is a bijection of the lane, so a change of one word in a lane always shows, and
 * changes of several cancel by chance (2^-32) or by design only.  The product carries a
 * difference upwards and the rotation brings the top bits down again: without it flipped
 * signs, differences in the top bit alone, would cancel in pairs.
 */
#include "simd.h"

#define FINGERPRINT_WORDS 64
typedef uint32_t vwords __attribute__((vector_size(V_BYTES)));

INLINE vwords rotate(vwords a)
{
    return a << 13 | a >> 19;
}

static void fingerprint(ptrdiff_t n_bytes, const void *memory, uint32_t *result)
{
    enum { N = FINGERPRINT_WORDS * 4 / V_BYTES };
    const char *p = memory;
    const vwords factor =
        (vwords){0} + 0x9e3779b1u; /* odd, near 2^32 over the golden ratio */
    vwords lanes[N], words[N];
    for (int v = 0; v < N; v++)
        lanes[v] = (vwords){0} + (uint32_t)(v + 1);
    for (ptrdiff_t left = n_bytes; left > 0; left -= sizeof words, p += sizeof words) {
        if (left >= (ptrdiff_t)sizeof words) {
            memcpy(words, p, sizeof words);
        } else {
            memset(words, 0, sizeof words);
            memcpy(words, p, (size_t)left);
        }
        for (int v = 0; v < N; v++)
            lanes[v] = rotate(lanes[v] ^ words[v]) * factor;
    }
    memcpy(result, lanes, sizeof lanes);
}
