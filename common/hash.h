/* The hashes that formats and placement depend on: never change one without a format version. */
#ifndef PN_COMMON_HASH_H
#define PN_COMMON_HASH_H

#include <stddef.h>
#include <stdint.h>

#define PN_SLOTS 1024u

/* Bijective finaliser (splitmix64, Steele et al. 2014). */
static inline uint64_t pn_mix64(uint64_t x) {
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}
/* Its inverse. */
static inline uint64_t pn_unmix64(uint64_t x) {
    x ^= x >> 31 ^ x >> 62;
    x *= 0x319642b2d24d8ec3ull;
    x ^= x >> 27 ^ x >> 54;
    x *= 0x96de1b173f119089ull;
    x ^= x >> 30 ^ x >> 60;
    return x - 0x9e3779b97f4a7c15ull;
}
/* The slot of a key: top ten bits of its mix. The table's index uses other bits of the same mix. */
static inline uint32_t pn_slot_of(uint64_t key) { return (uint32_t)(pn_mix64(key) >> 54); }

/* XXH3, 64 bits. A feature's key is pn_hash(value bytes, seed of its field). */
uint64_t pn_hash(const void *data, size_t n_bytes, uint64_t seed);
/* CRC-32C (Castagnoli), start with 0, chainable. */
uint32_t pn_crc32c(uint32_t crc, const void *data, size_t n_bytes);
/* BLAKE2b-256 as 64 hex digits and a NUL; the incremental form for files written in pieces. */
struct pn_digest { _Alignas(64) unsigned char state[384]; };
void pn_digest_start(struct pn_digest *);
void pn_digest_add(struct pn_digest *, const void *data, size_t n_bytes);
void pn_digest_hex(struct pn_digest *, char out[65]);

/* Seeded generator for everything that must repeat (shuffles, initializers, dropout): splitmix64 stream. */
struct pn_rng { uint64_t state; };
static inline uint64_t pn_rng_next(struct pn_rng *r) {
    uint64_t x = pn_mix64(r->state);
    r->state += 0x9e3779b97f4a7c15ull;
    return x;
}
static inline double pn_rng_uniform(struct pn_rng *r) { return (double)(pn_rng_next(r) >> 11) * 0x1p-53; } /* [0,1) */
double pn_rng_normal(struct pn_rng *r); /* mean 0, variance 1 (Box-Muller) */

#endif
