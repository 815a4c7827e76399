/* Privacy loss distributions: the tight figure.
 *
 * One step's loss log(P/Q) goes onto a grid of width h by "connect the dots" (Doroshenko, Ghazi, Kamath, Kumar, Manurangsi 2022): the mass of P and the mass of Q between
 * two points of the grid are put on the two points so that both are kept. That dominates the step itself, so epsilon is never below the truth.
 * Composition is a product of powers in the frequency domain (Koskela, Jalko, Honkela 2020): one transform a kind of step and one back. The window holds all but TAIL of the mass
 * on each side by Chernoff's bound; TAIL, which may have wrapped round, is added to delta. Both directions (a unit added, a unit removed) are computed; the worse one counts. */
#include <complex.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include "privacy/accountant.h"

#ifndef CMPLX /* glibc gives it to gcc alone */
#define CMPLX(re, im) ((double)(re) + (double)(im) * I)
#endif

#define TAIL 1e-14
#define MAX_BINS (1u << 22)

/* One step's loss: masses p[0..n) at (low + i) * h, and `infinite` where it has no bound. */
struct pld { double *p, *log_p; int64_t low; size_t n; double h, infinite; };

/* Mass of N(mean, s) in [a, b], a <= b, from the tail that is nearer: relative precision in both. */
static double mass(double a, double b, double mean, double s) {
    const double x = (a - mean) / (s * M_SQRT2), y = (b - mean) / (s * M_SQRT2);
    return x > 0 ? 0.5 * (erfc(x) - erfc(y)) : y < 0 ? 0.5 * (erfc(-y) - erfc(-x)) : 0.5 * (erf(y) - erf(x));
}

/* log((1-q) + q e^((2x-1)/(2 s^2))), the log of mixture over N(0, s) at x, and where it has the value l. */
static double loss_at(double x, double q, double s) {
    const double e = (2 * x - 1) / (2 * s * s);
    return e > 30 ? e + log(q) + log1p((1 - q) / q * exp(-e)) : log1p(q * expm1(e));
}
static double x_at(double l, double q, double s) {
    const double room = (expm1(l) + q) / q;
    if (l > 500) return s * s * (l - log(q)) + 0.5;
    return room <= 0 ? -HUGE_VAL : s * s * log(room) + 0.5;
}

/* removed: P is the mixture (the unit was there) and Q is N(0, s); else the other way round. */
static enum pn_result one_step(struct pld *d, double q, double s, bool removed, double h, struct pn_error *err) {
    const double left = -10.5 * s, right = 10.5 * s + 1; /* beyond: below 1e-25 of either */
    const double least = loss_at(left, q, s), most = loss_at(right, q, s);
    const double from = removed ? least : -most, to = removed ? most : -least;
    d->h = h;
    d->low = (int64_t)floor(from / h);
    d->n = (size_t)((int64_t)ceil(to / h) - d->low) + 1;
    d->infinite = 0;
    d->p = calloc(d->n, sizeof *d->p);
    d->log_p = malloc(d->n * sizeof *d->log_p);
    if (d->p == NULL || d->log_p == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for a privacy loss distribution of %zu points", d->n);
    double last = removed ? -HUGE_VAL : HUGE_VAL;
    for (size_t i = 0; i <= d->n; i++) { /* the piece below point i; the last is all above the highest point */
        const double l = (double)(d->low + (int64_t)i) * h;
        double x = i == d->n ? (removed ? HUGE_VAL : -HUGE_VAL) : removed ? x_at(l, q, s) : x_at(-l, q, s);
        const double a = removed ? last : x, b = removed ? x : last;
        last = x;
        if (!(b > a)) continue;
        const double base = mass(a, b, 0, s), mixture = (1 - q) * base + q * mass(a, b, 1, s);
        const double p = removed ? mixture : base, other = removed ? base : mixture;
        if (i == 0) d->p[0] += p;               /* rounded up */
        else if (i == d->n) d->infinite += p;
        else {
            double high = (p - other * exp(l - h)) / -expm1(-h);
            high = fmin(p, fmax(0, high));
            d->p[i] += high;
            d->p[i - 1] += p - high;
        }
    }
    for (size_t i = 0; i < d->n; i++) d->log_p[i] = d->p[i] > 0 ? log(d->p[i]) : -HUGE_VAL;
    return PN_OK;
}

/* In place, n a power of two, sign -1 forward, 1 back (without 1/n). w: the n/2 roots of unity. */
static void transform(double complex *x, size_t n, const double complex *w, bool back) {
    for (size_t i = 1, j = 0; i < n; i++) {
        size_t bit = n >> 1;
        for (; j & bit; bit >>= 1) j ^= bit;
        j ^= bit;
        if (i < j) {
            const double complex t = x[i];
            x[i] = x[j];
            x[j] = t;
        }
    }
    for (size_t half = 1; half < n; half *= 2)
        for (size_t i = 0; i < n; i += 2 * half)
            for (size_t k = 0; k < half; k++) {
                const double complex r = w[k * (n / 2 / half)];
                const double re = creal(r), im = back ? -cimag(r) : cimag(r), yr = creal(x[i + k + half]), yi = cimag(x[i + k + half]);
                const double complex t = CMPLX(yr * re - yi * im, yr * im + yi * re);
                x[i + k + half] = x[i + k] - t;
                x[i + k] += t;
            }
}

/* log E exp(t loss) of the finite part. Terms of e^-50 of the greatest are beyond what a double of the sum can hold, all of them together too. */
static double cumulant(const struct pld *d, double t) {
    const double first = t * (double)d->low * d->h, step = t * d->h;
    double most = -HUGE_VAL, sum = 0;
    for (size_t i = 0; i < d->n; i++) most = fmax(most, d->log_p[i] + (first + (double)i * step));
    for (size_t i = 0; i < d->n; i++) {
        const double x = d->log_p[i] + (first + (double)i * step) - most;
        if (x > -50) sum += exp(x);
    }
    return most + log(sum);
}

/* The window of losses that holds all but TAIL on each side. */
static void window(const struct pld *d, const struct pn_privacy_event *events, size_t n, double *low, double *high) {
    double all_low = 0, all_high = 0;
    for (size_t k = 0; k < n; k++) {
        all_low += (double)events[k].steps * (double)d[k].low * d[k].h;
        all_high += (double)events[k].steps * (double)(d[k].low + (int64_t)d[k].n - 1) * d[k].h;
    }
    *low = all_low;
    *high = all_high;
    for (double t = 0.0625; t < 5000; t *= 1.6) {
        double up = 0, down = 0;
        for (size_t k = 0; k < n; k++) {
            up += (double)events[k].steps * cumulant(&d[k], t);
            down += (double)events[k].steps * cumulant(&d[k], -t);
        }
        *high = fmin(*high, (up - log(TAIL)) / t);
        *low = fmax(*low, -(down - log(TAIL)) / t);
    }
}

/* Smallest epsilon with delta(epsilon) <= delta, of masses p[i] at losses low + i h and `infinite`. */
static double epsilon_of(const double *p, size_t n, double low, double h, double infinite, double delta) {
    if (infinite >= delta) return HUGE_VAL;
    /* delta(e) = infinite + sum over losses l > e of p (1 - exp(e - l)) = infinite + A - exp(e - l_i) B, with sums over the points above, from the top. */
    double above = 0, weighed = 0;
    for (size_t i = n; i-- > 0;) {
        const double l = low + (double)i * h;
        if (infinite + above - weighed >= delta) { /* at l itself it is too much: between l and the next point */
            const double ratio = (infinite + above - delta) / weighed;
            return fmax(0, l + log(ratio));
        }
        if (l < 0) return 0;
        above += p[i];
        weighed = (weighed + p[i]) * exp(-h); /* as seen from the point below */
    }
    return 0;
}

static enum pn_result one_direction(const struct pn_privacy_event *events, size_t n, bool removed, double h, double delta, double *epsilon, struct pn_error *err) {
    enum pn_result r = PN_OK;
    double complex *sum = NULL, *x = NULL, *w = NULL;
    double *p = NULL;
    struct pld *d = calloc(n, sizeof *d);
    if (d == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory to compose %zu kinds of steps", n);
    double low, high, finite = 0;
    for (size_t k = 0; k < n && r == PN_OK; k++) {
        r = one_step(&d[k], events[k].rate, events[k].noise, removed, h, err);
        finite += (double)events[k].steps * log1p(-d[k].infinite);
    }
    if (r != PN_OK) goto out;
    window(d, events, n, &low, &high);
    size_t bins = 2;
    const int64_t first = (int64_t)floor(low / h);
    const double wanted = (high - low) / h + 4;
    if (wanted > MAX_BINS) {
        r = PN_FULL; /* the caller takes a wider grid */
        goto out;
    }
    while ((double)bins < wanted) bins *= 2;
    sum = malloc(bins * sizeof *sum);
    x = malloc(bins * sizeof *x);
    w = malloc(bins / 2 * sizeof *w);
    p = malloc(bins * sizeof *p);
    if (sum == NULL || x == NULL || w == NULL || p == NULL) {
        r = pn_fail(err, PN_NO_MEMORY, "no memory for a transform of %zu points", bins);
        goto out;
    }
    for (size_t i = 0; i < bins / 2; i++) {
        const double a = -2 * M_PI * (double)i / (double)bins;
        w[i] = CMPLX(cos(a), sin(a));
    }
    for (size_t i = 0; i < bins; i++) sum[i] = 1;
    for (size_t k = 0; k < n; k++) {
        for (size_t i = 0; i < bins; i++) x[i] = 0;
        for (size_t i = 0; i < d[k].n; i++) {
            const int64_t at = (d[k].low + (int64_t)i) % (int64_t)bins;
            x[at < 0 ? at + (int64_t)bins : at] += d[k].p[i];
        }
        transform(x, bins, w, false);
        const double steps = (double)events[k].steps;
        for (size_t i = 0; i < bins; i++) {
            const double size = pow(cabs(x[i]), steps), turn = steps * carg(x[i]);
            sum[i] *= CMPLX(size * cos(turn), size * sin(turn));
        }
    }
    transform(sum, bins, w, true);
    for (size_t i = 0; i < bins; i++) {
        int64_t at = (first + (int64_t)i) % (int64_t)bins;
        if (at < 0) at += (int64_t)bins;
        p[i] = fmax(0, creal(sum[at]) / (double)bins);
    }
    *epsilon = epsilon_of(p, bins, (double)first * h, h, -expm1(finite) + 2 * TAIL, delta);
out:
    for (size_t k = 0; k < n; k++) {
        free(d[k].p);
        free(d[k].log_p);
    }
    free(d);
    free(sum);
    free(x);
    free(w);
    free(p);
    return r;
}

enum pn_result pn_privacy_epsilon(const struct pn_privacy_event *events, size_t n, double delta, double *epsilon, struct pn_error *err) {
    double by_rdp;
    enum pn_result r = pn_privacy_epsilon_rdp(events, n, delta, &by_rdp, err);
    if (r != PN_OK) return r;
    *epsilon = by_rdp;
    if (delta < PN_PRIVACY_MIN_DELTA || by_rdp == 0) return PN_OK;
    /* A grid much finer than one step's spread, or its rounding would add up over the steps. */
    double h = 1e-4;
    for (size_t i = 0; i < n; i++)
        if (events[i].steps > 0) h = fmin(h, fmax(events[i].rate / events[i].noise / 8, 1e-7));
    struct pn_privacy_event *used = malloc((n + 1) * sizeof *used);
    size_t n_used = 0;
    if (used == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory to compose %zu kinds of steps", n);
    for (size_t i = 0; i < n; i++)
        if (events[i].steps > 0) used[n_used++] = events[i];
    for (double step = h; step < 1; step *= 2) { /* PN_FULL: the window has too many points at this width */
        double widest = 0;
        for (size_t i = 0; i < n_used; i++) widest = fmax(widest, (2 * loss_at(10.5 * used[i].noise + 1, used[i].rate, used[i].noise)) / step);
        if (widest > MAX_BINS) continue;
        double removed, added;
        r = one_direction(used, n_used, true, step, delta, &removed, err);
        if (r == PN_OK) r = one_direction(used, n_used, false, step, delta, &added, err);
        if (r == PN_FULL) continue;
        if (r == PN_OK) *epsilon = fmin(by_rdp, fmax(removed, added));
        break;
    }
    free(used);
    return r == PN_FULL ? PN_OK : r; /* then the Renyi bound stands */
}
