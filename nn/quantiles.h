/* The boundaries of a feature with `bucketize: {quantiles: Q}`, from one pass over its numbers. Up to PN_QUANTILES_EXACT numbers all are kept; beyond, a sketch (Munro and Paterson
 * 1980; Manku, Rajagopalan and Lindsay 1998): level h holds numbers that stand for 2^h each; a full level is sorted and every other number goes one level up, the
 * odd and the even places in turn. A compaction of level h moves no rank by more than 2^h, and of n numbers level h has at most n / (2^h EXACT) compactions: no rank is wrong
 * by more than n * (1 + log2(n / EXACT)) / EXACT (0.03 % of a billion numbers). Deterministic: the same numbers in the same order give the same boundaries.
 * At most 512 KiB a level. Not for other folders. */
#ifndef PN_NN_QUANTILES_H
#define PN_NN_QUANTILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PN_QUANTILES_EXACT 65536u

struct pn_quantiles;
struct pn_quantiles *pn_quantiles_open(void); /* NULL: no memory */
void pn_quantiles_close(struct pn_quantiles *); /* NULL is allowed */
bool pn_quantiles_add(struct pn_quantiles *, double x /* finite */); /* false: no memory */
uint64_t pn_quantiles_count(const struct pn_quantiles *);
/* For i = 1 .. n_parts - 1 the least number that has at least i / n_parts of all numbers below it, if there is one: rising, equal ones once. So no part is empty, and a number
 * that is more than a part of all has a part of its own. boundaries: out, room for n_parts - 1. Returns how many; SIZE_MAX: no memory. */
size_t pn_quantiles_boundaries(struct pn_quantiles *, uint32_t n_parts, double *boundaries);

#endif
