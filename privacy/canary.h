/* An audit from below: how much privacy a training run spent at least, from guesses about canaries (Steinke, Nasr, Jagielski 2023, "Privacy auditing with one (1) training run").
 *
 * m canaries, each in the data or out of it by a fair coin of its own. Whoever sees what the run released guesses for r of them whether they were in (the others: no guess) and is right
 * v times. Under (epsilon, delta) differential privacy, add/remove adjacency, that many right guesses have a bounded probability, however the guesses were made (their theorem 5.2):
 *     P[right >= v] <= P[B >= v] + 2 m delta max_{1 <= i <= v} P[v - i <= B < v] / i,     B binomial of r trials of probability e^epsilon / (1 + e^epsilon).
 * The numbers r of guesses must not depend on which were right. Pure: any thread. */
#ifndef PN_PRIVACY_CANARY_H
#define PN_PRIVACY_CANARY_H

#include <stdint.h>

/* The bound above: v <= r <= m, epsilon >= 0, 0 <= delta <= 1. At most 1. Takes time in r. */
double pn_canary_chance(uint64_t m, uint64_t r, uint64_t v, double epsilon, double delta);

/* The run was not (e, delta)-private for any e below what is returned, with confidence 1 - chance (0 < chance < 1). 0: the guesses tell nothing. At most PN_CANARY_MOST. */
#define PN_CANARY_MOST 64.0
double pn_canary_epsilon(uint64_t m, uint64_t r, uint64_t v, double delta, double chance);

#endif
