/* Which rows a private step may change. Noise on every row of a table would end its sparsity; noise on the rows of the batch alone would tell which these were.
 *
 * DP-AdaFEST (Ghazi et al. 2023, algorithm 1): each example votes for the rows it touches, its vote clipped to L2 norm `clip`; the sums of votes get normal noise of
 * deviation sigma * clip; rows whose noisy sum reaches `threshold` are in, whoever voted for them. The noise of a row that nobody voted for is the same: of the
 * many such rows as many pass as a binomial draw says, and which ones is a uniform draw, so that no row is visited for nothing.
 * DP-FEST: the rows were chosen beforehand; all of them are in at every step. */
#ifndef PN_PRIVACY_SELECT_H
#define PN_PRIVACY_SELECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "privacy/draws.h"

/* A vote for m different rows adds this to each: 1, or less, so that its L2 norm is at most clip. */
double pn_vote(size_t m, double clip);

/* votes[n]: sums of votes for the n touched rows. in[n]: out, whether each is in. Of the n_untouched others the number that are in is returned.
 * sigma > 0, in units of clip. */
uint64_t pn_select(struct pn_draws *, const double *votes, size_t n, uint64_t n_untouched, double sigma, double clip, double threshold, bool *in);

/* k different numbers of [0, n) that are not in taken[n_taken] (rising), uniformly: out[k], rising. k <= n - n_taken. False: no memory. */
bool pn_draw_others(struct pn_draws *, uint64_t n, const uint64_t *taken, size_t n_taken, size_t k, uint64_t *out);

#endif
