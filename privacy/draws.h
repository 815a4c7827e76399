/* Noise for differential privacy: a stream of secret random bits, and the draws that the mechanisms take from it.
 *
 * The bits are ChaCha20's under a key of the system's generator (libsodium): no draw can be told from the ones seen before. The normal draws are floating point, by
 * Box and Muller 1958 from 64 random bits a pair; they end at 10.8 deviations, beyond which lie fewer than 2^-84 of them, and their low bits are those of float32. Mironov 2012 shows that low bits of noisy
 * sums can tell of the value below; sums that leave a machine under secure aggregation take discrete noise instead. */
#ifndef PN_PRIVACY_DRAWS_H
#define PN_PRIVACY_DRAWS_H

#include <stddef.h>
#include <stdint.h>

#define PN_DRAWS_KEY_BYTES 32u
#define PN_DRAWS_BLOCK 4096u

/* One thread at a time. */
struct pn_draws {
    uint8_t key[PN_DRAWS_KEY_BYTES];
    uint64_t i_block;                  /* blocks taken; a stream has 2^58 bytes */
    size_t used;                       /* of bits */
    uint8_t bits[PN_DRAWS_BLOCK];
};

/* seed: 32 bytes that nobody else has. The same seed gives the same stream. */
void pn_draws_open(struct pn_draws *, const uint8_t seed[PN_DRAWS_KEY_BYTES]);
/* Forgets key and bits. */
void pn_draws_close(struct pn_draws *);

uint64_t pn_draws_bits(struct pn_draws *);
double pn_draws_uniform(struct pn_draws *);                 /* in (0, 1), multiples of 2^-53 */
uint64_t pn_draws_below(struct pn_draws *, uint64_t n);     /* uniform in [0, n), n > 0 */
/* values[i] += sigma * a normal draw, n of them. */
void pn_draws_add_normal(struct pn_draws *, float *values, size_t n, float sigma);
double pn_draws_normal(struct pn_draws *);
/* A normal draw given that it is above t. */
double pn_draws_normal_above(struct pn_draws *, double t);
/* How many of n trials come true, each with probability p. Exact: by waiting times when n p is small, else by halving (Devroye 1986, X.4). */
uint64_t pn_draws_binomial(struct pn_draws *, uint64_t n, double p);

/* 1 - Phi(t): the probability of a normal draw above t. */
double pn_normal_tail(double t);

#endif
