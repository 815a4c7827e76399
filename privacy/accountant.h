/* How much of (epsilon, delta) differential privacy Gaussian noise on Poisson-sampled sums costs, add/remove adjacency.
 *
 * An event is `steps` releases, each of a sum over units (examples or users) drawn with probability `rate`, every unit's part of L2 norm at most C,
 * plus Gaussian noise of standard deviation `noise` * C. rate 1: no sampling. Events of several kinds, jobs and moments compose exactly: give them all in one call.
 * Two sums over the same draw in one step (contribution map and gradient) are one event of pn_privacy_joint_noise().
 *
 * Everything here is pure: no state, any thread. Errors: PN_INVALID (what is out of range), PN_NO_MEMORY. */
#ifndef PN_PRIVACY_ACCOUNTANT_H
#define PN_PRIVACY_ACCOUNTANT_H

#include <stddef.h>
#include <stdint.h>
#include "common/result.h"

struct pn_privacy_event {
    double rate;      /* 0 < rate <= 1 */
    double noise;     /* noise multiplier, 0.05 to 1e6 */
    uint64_t steps;   /* at most 2^40; 0 costs nothing */
};
#define PN_PRIVACY_MAX_EVENTS 4096
#define PN_PRIVACY_MIN_DELTA 1e-10 /* below it (rounding of the transform) only Renyi bounds are given */

/* Renyi divergence of order alpha (> 1, need not be whole) of one step: Mironov, Talwar, Zhang 2019, sections 3.3 (whole) and 3.4 (fractional).
 * HUGE_VAL where it cannot be computed. */
double pn_privacy_rdp(double rate, double noise, double alpha);
/* One release with noise drawn by several parties on whole numbers; no sampling. delta2, delta1: sensitivity of the scaled, rounded vector in L2 and L1.
 * Skellam of the given variance in all (Agarwal, Kairouz, Liu 2021, theorem 3.1): whole alpha only. */
double pn_privacy_rdp_skellam(double delta2, double delta1, double variance, double alpha);
/* The sum of n discrete Gaussians of standard deviation sigma each, d coordinates (Kairouz, Liu, Steinke 2021, theorem 1; n = 1: Canonne, Kamath, Steinke 2020). */
double pn_privacy_rdp_discrete_gaussian(double delta2, double sigma, uint32_t n, double d, double alpha);
/* Epsilon at delta of a Renyi divergence `rdp` (of all steps together) of order alpha: Canonne, Kamath, Steinke 2020, proposition 12. Never below 0. */
double pn_privacy_rdp_to_epsilon(double rdp, double alpha, double delta);

/* Epsilon at delta of all events: by Renyi orders alone (fast, looser), and by privacy loss distributions (tight; never below the truth but for rounding).
 * *epsilon is HUGE_VAL where no finite bound was found. */
enum pn_result pn_privacy_epsilon_rdp(const struct pn_privacy_event *events, size_t n, double delta, double *epsilon, struct pn_error *);
/* By whole orders alone: for events of discrete Gaussian noise on vectors of whole numbers, at most `noise` deviations apart. At a whole order alpha a draw from
 * such a distribution and one shifted by whole numbers are as far apart as continuous ones: in E[(1 - q + q e^L)^alpha] every term E[e^(kL)] is a sum over shifted copies
 * of the same lattice. (The other direction is no larger: Mironov, Talwar, Zhang 2019, theorem 5, whose reflection maps the lattice onto itself.) */
enum pn_result pn_privacy_epsilon_rdp_whole(const struct pn_privacy_event *events, size_t n, double delta, double *epsilon, struct pn_error *);
enum pn_result pn_privacy_epsilon(const struct pn_privacy_event *events, size_t n, double delta, double *epsilon, struct pn_error *);

/* The noise multiplier of two releases of one draw taken as one, and the two that together are `noise` with the map's variance share: 1/map^2 = share/noise^2. 0 < share < 1. */
double pn_privacy_joint_noise(double map, double gradient);
void pn_privacy_split_noise(double noise, double share, double *map, double *gradient);

/* The least noise multiplier (to 1e-3 of itself, never below; within 0.05 and 1e5) by which `before` and then `steps` steps at `rate` stay within (epsilon, delta). PN_INVALID also if none does:
 * `before` alone is over it, or epsilon is too small. */
enum pn_result pn_privacy_calibrate(const struct pn_privacy_event *before, size_t n_before, double rate, uint64_t steps, double epsilon, double delta, double *noise, struct pn_error *);
/* The most steps (at most `limit`) at (rate, noise) after `before` that stay within (epsilon, delta); 0: none. */
enum pn_result pn_privacy_steps_left(const struct pn_privacy_event *before, size_t n_before, double rate, double noise, uint64_t limit, double epsilon, double delta, uint64_t *steps,
                                     struct pn_error *);

/* pld.c, rdp.c: what the two share. */
enum pn_result pn_privacy_check(const struct pn_privacy_event *events, size_t n, double delta, struct pn_error *);

#endif
