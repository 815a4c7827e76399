/* How a private release becomes whole numbers with distributed noise, and back. docs/secure-aggregation.md, "Noise", has the argument.
 *
 * One example changes the real sums by at most `bound` in L2, and the rounded vector of d words by at most bound * scale * (1 + margin) + sqrt(d): rounding with the same
 * draws moves a word by less than one more than the real difference, whatever else is in the sum. The margin, 2^-10 + 2 batch^1.5 2^-24, is for the roundoff of float32 sums over a
 * batch with and without the example, whose L2 norm is about sqrt(batch) 2^-24 times that of the summed magnitudes, at most batch * bound (Higham and Mary 2019). Each worker adds a discrete
 * Gaussian of variance 2^30; what the honest ones of the fewest add has deviation 2^15 sqrt(honest). The scale is the largest for which that is `multiplier` times the change. */
#ifndef PN_SECURE_NOISE_H
#define PN_SECURE_NOISE_H

#include "job/job.h"
#include "privacy/draws.h"
#include "privacy/secagg/fixed.h"

#define PN_SECURE_SHARE_VARIANCE (1u << 30)

struct pn_discrete;
/* *out for sums of `n` holders: bound (L2 of one example), batch (expected examples of a holder), most (what a holder's word may be expected to reach), d words. Words of 32 bits if they hold it, else of 64.
 * PN_REFUSED: so much noise on so long a vector leaves no scale. Pure. */
enum pn_result pn_secure_fixed(struct pn_fixed *out, uint32_t n, uint32_t honest, double multiplier, double bound, uint32_t batch, double most, uint64_t d, struct pn_error *);
/* The two sums of a job: multipliers as docs/privacy.md splits them. n_values: of all rows (pn_secure_rows). */
enum pn_result pn_secure_fixed_update(struct pn_fixed *out, const struct pn_job *, uint64_t n_values, struct pn_error *);
enum pn_result pn_secure_fixed_counts(struct pn_fixed *out, const struct pn_job *, struct pn_error *);
/* words[n] = values rounded, with a holder's share of noise. *n_clipped: values outside the range. PN_INVALID: a value is no number. */
enum pn_result pn_secure_words(const struct pn_fixed *, struct pn_draws *, struct pn_discrete *, const float *values, size_t n, void *words, size_t *n_clipped, struct pn_error *);

#endif
