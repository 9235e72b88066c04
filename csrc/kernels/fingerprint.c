/* SPDX-License-Identifier: BSD-3-Clause */
/* fingerprint.c -- 64 words that tell whether memory has changed since it was last
 * read.
 *
 * Packed weights are used again for as long as the weights they were packed from are
 * the same.  The library finds that out by itself, so nobody has to report that a
 * parameter was written to: reading the weights once, at the speed of the caches, costs
 * a small part of packing them.  Word k of the memory goes into lane k mod 64, of 32
 * bits:
 *
 *   lane = rotate(lane ^ word, 13) * 5
 *
 * This step maps the values of a lane one to one.  A change of a single word of a lane
 * therefore always shows, and changes of several words cancel only by chance (2^-32) or
 * by design.  The product carries a difference to higher bits, and the rotation brings
 * the top bits down again.  Without the rotation a difference in the top bit, which is
 * what a flipped sign is, would stay there, and two flipped signs would cancel.
 *
 * Memory of more than PART_BYTES is cut into up to MOST_PARTS parts, which the threads
 * share.  The lanes of all parts, in the order of the parts, are then read like memory
 * themselves: the result depends on the size of the memory, not on the threads.
 */
#include "parallel.h"
#include "simd.h"

#define FINGERPRINT_WORDS 64
#define PART_BYTES (1 << 20)
#define MOST_PARTS 16 /* their lanes are on the stack, 4 KiB */
typedef uint32_t vwords __attribute__((vector_size(V_BYTES)));

INLINE vwords rotate(vwords a)
{
    return a << 13 | a >> 19;
}

/* A lane with one more word.  The product is a shift and an addition, because some
 * processors take ten cycles to multiply words, and each word of a lane waits for the
 * one before. */
INLINE vwords mix(vwords lane, vwords word)
{
    const vwords rotated = rotate(lane ^ word);
    return rotated + (rotated << 2);
}

static void fingerprint_part(ptrdiff_t n_bytes, const char *p, uint32_t *result)
{
    enum { N = FINGERPRINT_WORDS * 4 / V_BYTES };
    vwords lanes[N], last[N];
    const ptrdiff_t whole = n_bytes - n_bytes % (ptrdiff_t)sizeof lanes;
#pragma GCC unroll 16
    for (int v = 0; v < N; v++)
        lanes[v] = (vwords){0} + (uint32_t)(v + 1);
    for (const char *end = p + whole; p < end; p += sizeof lanes)
#pragma GCC unroll 16
        for (int v = 0; v < N; v++) {
            vwords words;
            memcpy(&words, p + v * V_BYTES, sizeof words);
            lanes[v] = mix(lanes[v], words);
        }
    if (whole < n_bytes) {
        memset(last, 0, sizeof last);
        memcpy(last, p, (size_t)(n_bytes - whole));
#pragma GCC unroll 16
        for (int v = 0; v < N; v++)
            lanes[v] = mix(lanes[v], last[v]);
    }
    memcpy(result, lanes, sizeof lanes);
}

typedef struct {
    ptrdiff_t n_bytes, part_bytes, parts;
    const char *memory;
    uint32_t (*results)[FINGERPRINT_WORDS];
} fingerprint_args;

static void fingerprint_thread(const team *self, const void *args)
{
    const fingerprint_args *a = args;
    ptrdiff_t begin, end;
    team_share(self, a->parts, &begin, &end);
    for (ptrdiff_t i = begin; i < end; i++) {
        const ptrdiff_t start = i * a->part_bytes;
        fingerprint_part(min_size(a->part_bytes, a->n_bytes - start), a->memory + start,
                         a->results[i]);
    }
}

static void fingerprint(ptrdiff_t n_bytes, const void *memory, int n_threads,
                        uint32_t *result)
{
    uint32_t results[MOST_PARTS][FINGERPRINT_WORDS];
    ptrdiff_t part_bytes = PART_BYTES;
    while (n_bytes > MOST_PARTS * part_bytes)
        part_bytes *= 2;
    const ptrdiff_t parts = n_parts(n_bytes, part_bytes);
    if (parts <= 1) {
        fingerprint_part(n_bytes, memory, result);
        return;
    }
    const fingerprint_args args = {n_bytes, part_bytes, parts, memory, results};
    team_run((int)min_size(n_threads, parts), fingerprint_thread, &args);
    fingerprint_part(parts * (ptrdiff_t)sizeof *results, (const char *)results, result);
}
