#include "common/hash.h"
#include <isa-l/crc.h>
#include <math.h>
#include <sodium/crypto_generichash_blake2b.h>
#include <sodium/utils.h>
#include <assert.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t pn_hash(const void *data, size_t n_bytes, uint64_t seed) { return XXH3_64bits_withSeed(data, n_bytes, seed); }

uint32_t pn_crc32c(uint32_t crc, const void *data, size_t n_bytes) {
    /* isa-l takes an int length and leaves the conventional inversions to the caller. */
    const uint8_t *p = data;
    crc = ~crc;
    while (n_bytes > 0) {
        size_t part = n_bytes > (1u << 30) ? (1u << 30) : n_bytes;
        crc = crc32_iscsi((unsigned char *)(uintptr_t)p, (int)part, crc);
        p += part;
        n_bytes -= part;
    }
    return ~crc;
}

static_assert(sizeof(crypto_generichash_blake2b_state) <= sizeof(struct pn_digest), "digest state fits");

void pn_digest_start(struct pn_digest *d) {
    crypto_generichash_blake2b_init((crypto_generichash_blake2b_state *)(void *)d->state, NULL, 0, 32);
}
void pn_digest_add(struct pn_digest *d, const void *data, size_t n_bytes) {
    crypto_generichash_blake2b_update((crypto_generichash_blake2b_state *)(void *)d->state, data, n_bytes);
}
void pn_digest_hex(struct pn_digest *d, char out[65]) {
    unsigned char raw[32];
    crypto_generichash_blake2b_final((crypto_generichash_blake2b_state *)(void *)d->state, raw, sizeof raw);
    sodium_bin2hex(out, 65, raw, sizeof raw);
}

double pn_rng_normal(struct pn_rng *r) {
    double u = 1.0 - pn_rng_uniform(r), v = pn_rng_uniform(r); /* u in (0,1]: log is finite */
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}
