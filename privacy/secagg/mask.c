#include "privacy/secagg/mask.h"
#include <assert.h>
#include <sodium.h>
#include <string.h>

#define MACHINES __attribute__((target_clones("avx512f", "avx2", "default")))
enum { BLOCK = 8192 };
static const uint8_t zeros[BLOCK];

MACHINES static void add32(uint32_t *a, const uint32_t *b, size_t n) { for (size_t i = 0; i < n; i++) a[i] += b[i]; }
MACHINES static void take32(uint32_t *a, const uint32_t *b, size_t n) { for (size_t i = 0; i < n; i++) a[i] -= b[i]; }
MACHINES static void add64(uint64_t *a, const uint64_t *b, size_t n) { for (size_t i = 0; i < n; i++) a[i] += b[i]; }
MACHINES static void take64(uint64_t *a, const uint64_t *b, size_t n) { for (size_t i = 0; i < n; i++) a[i] -= b[i]; }

void pn_mask_add(void *words, unsigned word_bytes, uint64_t first, size_t n, const struct pn_mask *masks, size_t n_masks) {
    assert((word_bytes == 4 || word_bytes == 8) && first * word_bytes % PN_MASK_STEP_BYTES == 0);
    static const uint8_t nonce[8]; /* a seed is used for one round */
    _Alignas(64) uint8_t stream[BLOCK];
    const size_t total = n * word_bytes;
    for (size_t at = 0; at < total; at += BLOCK) {
        const size_t bytes = total - at < BLOCK ? total - at : BLOCK, count = bytes / word_bytes;
        uint8_t *out = (uint8_t *)words + at;
        for (size_t m = 0; m < n_masks; m++) {
            crypto_stream_chacha20_xor_ic(stream, zeros, bytes, nonce, (first * word_bytes + at) / 64, masks[m].seed);
            if (word_bytes == 4) (masks[m].sign > 0 ? add32 : take32)((uint32_t *)(void *)out, (const uint32_t *)(void *)stream, count);
            else (masks[m].sign > 0 ? add64 : take64)((uint64_t *)(void *)out, (const uint64_t *)(void *)stream, count);
        }
    }
    sodium_memzero(stream, sizeof stream);
}

void pn_mask_sum(void *sum, unsigned word_bytes, size_t n, const void *const *vectors, size_t n_vectors) {
    const size_t total = n * word_bytes;
    memset(sum, 0, total);
    for (size_t at = 0; at < total; at += BLOCK) {
        const size_t bytes = total - at < BLOCK ? total - at : BLOCK, count = bytes / word_bytes;
        void *out = (uint8_t *)sum + at;
        for (size_t v = 0; v < n_vectors; v++) {
            const void *in = (const uint8_t *)vectors[v] + at;
            if (word_bytes == 4) add32(out, in, count);
            else add64(out, in, count);
        }
    }
}
