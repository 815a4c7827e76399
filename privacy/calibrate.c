/* From a budget back to noise and steps, by bisection on the accountant. */
#include <math.h>
#include <string.h>
#include <stdlib.h>
#include "privacy/accountant.h"

double pn_privacy_joint_noise(double map, double gradient) { return 1 / sqrt(1 / (map * map) + 1 / (gradient * gradient)); }

void pn_privacy_split_noise(double noise, double share, double *map, double *gradient) {
    *map = noise / sqrt(share);
    *gradient = noise / sqrt(1 - share);
}

/* `before` with room for one event behind it. */
static struct pn_privacy_event *with_one_more(const struct pn_privacy_event *before, size_t n, struct pn_error *err) {
    struct pn_privacy_event *all = calloc(n + 1, sizeof *all);
    if (all == NULL) pn_fail(err, PN_NO_MEMORY, "no memory for %zu kinds of private steps", n + 1);
    else if (n > 0) memcpy(all, before, n * sizeof *all);
    return all;
}

enum pn_result pn_privacy_calibrate(const struct pn_privacy_event *before, size_t n, double rate, uint64_t steps, double epsilon, double delta, double *noise, struct pn_error *err) {
    if (!(epsilon > 0 && epsilon < 1e6)) return pn_fail(err, PN_INVALID, "epsilon is %g; it must be above 0 and below 1e6", epsilon);
    struct pn_privacy_event *all = with_one_more(before, n, err);
    if (all == NULL) return PN_NO_MEMORY;
    double low = 0.05, high = 0.05, got = HUGE_VAL;
    enum pn_result r;
    for (;; low = high, high *= 2) {
        all[n] = (struct pn_privacy_event){rate, high, steps};
        r = high > 1e5 ? pn_fail(err, PN_INVALID, "no noise keeps %llu steps within epsilon %g at delta %g%s", (unsigned long long)steps, epsilon, delta, n > 0 ? " after what was spent before" : "")
                       : pn_privacy_epsilon_rdp(all, n + 1, delta, &got, err); /* cheap, and never below */
        if (r != PN_OK || got <= epsilon) break;
    }
    while (r == PN_OK && low > 0.05) { /* the tight figure may allow less than the Renyi bound's lower end */
        all[n].noise = low;
        r = pn_privacy_epsilon(all, n + 1, delta, &got, err);
        if (r != PN_OK || got > epsilon) break;
        high = low;
        low = fmax(0.05, low / 2);
    }
    while (r == PN_OK && high - low > 1e-3 * high) {
        all[n].noise = (low + high) / 2;
        r = pn_privacy_epsilon(all, n + 1, delta, &got, err);
        if (r == PN_OK && got <= epsilon) high = all[n].noise;
        else low = all[n].noise;
    }
    if (r == PN_OK) *noise = high;
    free(all);
    return r;
}

enum pn_result pn_privacy_steps_left(const struct pn_privacy_event *before, size_t n, double rate, double noise, uint64_t limit, double epsilon, double delta, uint64_t *steps,
                                     struct pn_error *err) {
    struct pn_privacy_event *all = with_one_more(before, n, err);
    if (all == NULL) return PN_NO_MEMORY;
    uint64_t low = 0, high = limit; /* low fits (0 always: nothing is given), above high none is asked for */
    enum pn_result r = PN_OK;
    while (r == PN_OK && low < high) {
        const uint64_t middle = low + (high - low + 1) / 2;
        double got;
        all[n] = (struct pn_privacy_event){rate, noise, middle};
        r = pn_privacy_epsilon(all, n + 1, delta, &got, err);
        if (r == PN_OK && got <= epsilon) low = middle;
        else high = middle - 1;
    }
    if (r == PN_OK) *steps = low;
    free(all);
    return r;
}
