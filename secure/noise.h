/* How a private release becomes whole numbers with distributed noise, and back. docs/secure-aggregation.md, "Noise", has the argument.
 *
 * One unit (an example, or a user) changes the real sums by at most `bound` in L2, and the rounded vector of d words by at most bound * scale * (1 + margin) + sqrt(d): rounding with the same
 * draws moves a word by less than one more than the real difference, whatever else is in the sum. The margin is 2^-10 and, for gradients, the roundoff of sums with and without the unit (pn_job_roundoff), of
 * what a holder draws that has as many units as one may have (pn_secure_most_units). Votes are multiples of 2^-24 and add up exactly, in any order. Each worker adds a discrete
 * Gaussian of variance 2^30; what the honest ones of the fewest add has deviation 2^15 sqrt(honest). The scale is the largest for which that is `multiplier` times the change. */
#ifndef PN_SECURE_NOISE_H
#define PN_SECURE_NOISE_H

#include "job/job.h"
#include "privacy/draws.h"
#include "privacy/secagg/fixed.h"

#define PN_SECURE_SHARE_VARIANCE (1u << 30)

struct pn_discrete;
/* *out for sums of `n` holders: bound (L2 of one unit), roundoff (of the real sums, as a share of bound), most (what a holder's word may be expected to reach), d words. Words of 32 bits if they hold it, else of 64.
 * PN_REFUSED: so much noise on so long a vector leaves no scale. Pure. */
enum pn_result pn_secure_fixed(struct pn_fixed *out, uint32_t n, uint32_t honest, double multiplier, double bound, double roundoff, double most, uint64_t d, struct pn_error *);
/* A holder that has more units than this takes no part, for the margin would not be enough: all that the job says there are where data are the holder's own, twice its share (and some, for few) where rows are dealt. */
double pn_secure_most_units(const struct pn_job *);
/* What a unit that touches m buckets adds to each: pn_vote, as a multiple of 2^-24. */
double pn_secure_vote(const struct pn_privacy_spec *, size_t m);
/* The two sums of a job: multipliers as docs/privacy.md splits them. Counts: of one step's batch (adafest), or of all units (fest). n_values: of all rows (pn_secure_rows). */
enum pn_result pn_secure_fixed_update(struct pn_fixed *out, const struct pn_job *, uint64_t n_values, struct pn_error *);
enum pn_result pn_secure_fixed_counts(struct pn_fixed *out, const struct pn_job *, struct pn_error *);
/* words[n] = values rounded, with a holder's share of noise. *n_clipped: values outside the range. PN_INVALID: a value is no number. */
enum pn_result pn_secure_words(const struct pn_fixed *, struct pn_draws *, struct pn_discrete *, const double *values, size_t n, void *words, size_t *n_clipped, struct pn_error *);

#endif
