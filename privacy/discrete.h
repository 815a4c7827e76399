/* Discrete noise for differential privacy, from libsodium's generator. A buffer of keystream is drawn under a key of randombytes_buf; there is no seed: a test
 * replaces libsodium's own generator (randombytes_set_implementation). Not thread-safe: one source a thread.
 *
 * Prefer these to privacy/gaussian.h where what is noised are integers, as in a secure sum: the gaps of doubles depend on the value, so that continuous noise can tell
 * what it was added to (Mironov 2012, "On significance of the least significant bits"). */
#ifndef PN_PRIVACY_DISCRETE_H
#define PN_PRIVACY_DISCRETE_H

#include <stddef.h>
#include <stdint.h>
#include "common/result.h"

struct pn_discrete; /* a source of random bytes */
enum pn_result pn_discrete_open(struct pn_discrete **, struct pn_error *);
void pn_discrete_close(struct pn_discrete *); /* wipes it; NULL is allowed */

/* Exact discrete Gaussian of parameter sigma^2 = numerator / denominator (P[x] ~ exp(-x^2 / 2 sigma^2)): Canonne, Kamath and Steinke 2020, algorithms 1 to
 * 3, in integers only: no floating point decides. numerator and denominator at most 2^20, or denominator 1 and numerator
 * at most 2^30. About 2 microseconds a value: for few values and as reference. */
int64_t pn_discrete_exact(struct pn_discrete *, uint32_t numerator, uint32_t denominator);

/* A table for many values of one distribution: the cumulative probabilities in 2^-63, searched without a branch that depends on what is drawn; the same
 * steps for every value (which cache lines are read does depend on it). The distance to the true distribution is at most `n_entries` * 2^-62 (computed in long double and rounded to 63 bits) and the
 * tail cut at 2^-64 or less: add it to delta. */
struct pn_discrete_table;
/* sigma (standard deviation for Skellam: sqrt(2 mu)) from 0.05 to 2^16. PN_INVALID otherwise. */
enum pn_result pn_discrete_table_gaussian(struct pn_discrete_table **, double sigma, struct pn_error *);
/* Skellam: the difference of two Poissons of mean mu = sigma^2 / 2. Sums of Skellams are Skellam (Agarwal, Kairouz, Liu 2021), which those of discrete Gaussians
 * are only nearly: with distributed noise this one needs no further argument. */
enum pn_result pn_discrete_table_skellam(struct pn_discrete_table **, double sigma, struct pn_error *);
void pn_discrete_table_close(struct pn_discrete_table *);
size_t pn_discrete_table_entries(const struct pn_discrete_table *);
void pn_discrete_table_draw(struct pn_discrete *, const struct pn_discrete_table *, int32_t *values, size_t n);
/* words[i] += noise, modulo 2^(8 * word_bytes). */
void pn_discrete_table_add(struct pn_discrete *, const struct pn_discrete_table *, void *words, unsigned word_bytes, size_t n);

/* What each of the workers adds so that the sum of those that remain has standard deviation `sigma` or more: sigma / sqrt(fewest). With all n there it is
 * sqrt(n / fewest) too much, the price of drop-outs. fewest: pn_agg_fewest. Colluding workers know their own share: for noise that stands without them take
 * fewest less those. */
double pn_discrete_share(double sigma, uint32_t fewest);

#endif
