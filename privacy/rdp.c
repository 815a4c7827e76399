/* Renyi differential privacy: Mironov, Talwar, Zhang, "Renyi Differential Privacy of the Sampled Gaussian Mechanism" (2019). All sums in logarithms. */
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include "privacy/accountant.h"

#define LN2 0.69314718055994530942
#define SQRT1_2 0.70710678118654752440

static double log_add(double a, double b) {
    if (a < b) {
        const double t = a;
        a = b;
        b = t;
    }
    return b == -HUGE_VAL ? a : a + log1p(exp(b - a));
}

/* a >= b; -inf where rounding made them equal. */
static double log_sub(double a, double b) { return b == -HUGE_VAL ? a : a <= b ? -HUGE_VAL : a + log1p(-exp(b - a)); }

/* log erfc(x); far out by its asymptotic series (relative error below 1e-9 from x = 20). */
static double log_erfc(double x) {
    if (x < 20) return log(erfc(x));
    const double y = 1 / (2 * x * x);
    return -x * x - log(x) - 0.57236494292470008707 + log1p(-y * (1 - 3 * y * (1 - 5 * y)));
}

static double log_a_whole(double q, double s, uint64_t alpha) {
    double sum = -HUGE_VAL;
    const double a = (double)alpha;
    for (uint64_t k = 0; k <= alpha; k++) {
        const double i = (double)k;
        sum = log_add(sum, lgamma(a + 1) - lgamma(i + 1) - lgamma(a - i + 1) + i * log(q) + (a - i) * log1p(-q) + (i * i - i) / (2 * s * s));
    }
    return sum;
}

/* Section 3.3 of the paper: the integral cut at z0, where both parts of the mixture weigh the same; binomial series of a real exponent, signs kept apart. */
static double log_a_fractional(double q, double s, double alpha) {
    double plus = -HUGE_VAL, minus = -HUGE_VAL, log_binomial = 0;
    int sign = 1;
    const double z0 = s * s * log(1 / q - 1) + 0.5;
    for (int i = 0; i < 100000; i++) {
        const double j = alpha - i;
        const double e0 = -LN2 + log_erfc((i - z0) * SQRT1_2 / s), e1 = -LN2 + log_erfc((z0 - j) * SQRT1_2 / s);
        const double t0 = log_binomial + i * log(q) + j * log1p(-q) + ((double)i * i - i) / (2 * s * s) + e0;
        const double t1 = log_binomial + j * log(q) + i * log1p(-q) + (j * j - j) / (2 * s * s) + e1;
        const double both = log_add(t0, t1);
        if (sign > 0) plus = log_add(plus, both);
        else minus = log_add(minus, both);
        if (i > alpha && both < -36 + fmax(plus, minus)) return log_sub(plus, minus);
        if (j < 0) sign = -sign;
        log_binomial += log(fabs(j)) - log(i + 1.0);
    }
    return HUGE_VAL; /* did not converge: no bound */
}

double pn_privacy_rdp(double rate, double noise, double alpha) {
    if (!(rate > 0 && rate <= 1) || !(noise > 0) || !(alpha > 1) || alpha > 1e5) return HUGE_VAL;
    if (rate == 1) return alpha / (2 * noise * noise);
    const bool whole = alpha == floor(alpha);
    const double log_a = whole ? log_a_whole(rate, noise, (uint64_t)alpha) : log_a_fractional(rate, noise, alpha);
    return isnan(log_a) ? HUGE_VAL : fmax(0, log_a) / (alpha - 1);
}

double pn_privacy_rdp_skellam(double delta2, double delta1, double variance, double alpha) {
    if (!(delta2 >= 0) || !(delta1 >= 0) || !(variance > 0) || !(alpha > 1) || alpha != floor(alpha)) return HUGE_VAL;
    return alpha * delta2 * delta2 / (2 * variance) + fmin(((2 * alpha - 1) * delta2 * delta2 + 6 * delta1) / (4 * variance * variance), 3 * delta1 / (2 * variance));
}

double pn_privacy_rdp_discrete_gaussian(double delta2, double sigma, uint32_t n, double d, double alpha) {
    if (!(delta2 >= 0) || !(sigma >= 0.5) || n == 0 || !(d >= 1) || !(alpha > 1)) return HUGE_VAL; /* the theorem asks for sigma >= 1/2 */
    double tau = 0;
    for (uint32_t k = 1; k < n; k++) tau += exp(-2 * M_PI * M_PI * sigma * sigma * k / (k + 1.0));
    tau *= 10;
    const double each = delta2 / (sqrt((double)n) * sigma);
    const double e = fmin(sqrt(each * each + tau * d / 2), each + tau * sqrt(d));
    return alpha * e * e / 2;
}

double pn_privacy_rdp_to_epsilon(double rdp, double alpha, double delta) {
    if (!(alpha > 1) || !(delta > 0 && delta < 1) || !(rdp >= 0)) return HUGE_VAL;
    return fmax(0, rdp + log1p(-1 / alpha) - log(delta * alpha) / (alpha - 1));
}

enum pn_result pn_privacy_check(const struct pn_privacy_event *events, size_t n, double delta, struct pn_error *err) {
    if (n > PN_PRIVACY_MAX_EVENTS) return pn_fail(err, PN_INVALID, "%zu kinds of private steps; at most %d are composed", n, PN_PRIVACY_MAX_EVENTS);
    if (!(delta > 0 && delta < 1)) return pn_fail(err, PN_INVALID, "delta is %g; it must be between 0 and 1", delta);
    for (size_t i = 0; i < n; i++) {
        if (!(events[i].rate > 0 && events[i].rate <= 1)) return pn_fail(err, PN_INVALID, "sampling rate %g is not in (0, 1]", events[i].rate);
        if (!(events[i].noise >= 0.05 && events[i].noise <= 1e6)) return pn_fail(err, PN_INVALID, "noise multiplier %g is not in [0.05, 1e6]", events[i].noise);
        if (events[i].steps > 1ull << 40) return pn_fail(err, PN_INVALID, "%llu private steps; at most 2^40", (unsigned long long)events[i].steps);
    }
    return PN_OK;
}

static enum pn_result epsilon_by_orders(const struct pn_privacy_event *events, size_t n, double delta, bool whole, double *epsilon, struct pn_error *err) {
    const enum pn_result r = pn_privacy_check(events, n, delta, err);
    if (r != PN_OK) return r;
    double best = HUGE_VAL, total_steps = 0;
    for (size_t i = 0; i < n; i++) total_steps += (double)events[i].steps;
    for (int i = 1; i < 170 && total_steps > 0; i++) {
        const double alpha = i < 100 ? 1 + i / 10.0 : i < 153 ? i - 100 + 11 : 64 * pow(2, (i - 153) / 2.0);
        if (alpha > 4096) break;
        if (whole && i < 100 && i % 10 != 0) continue;
        double sum = 0;
        for (size_t k = 0; k < n; k++)
            if (events[k].steps > 0) sum += (double)events[k].steps * pn_privacy_rdp(events[k].rate, events[k].noise, i < 153 ? alpha : floor(alpha));
        best = fmin(best, pn_privacy_rdp_to_epsilon(sum, i < 153 ? alpha : floor(alpha), delta));
        /* The divergence rises with the order, and so does log(1 - 1/alpha): where they alone are more than the best, no higher order is better. */
        if (delta * 4096 < 1 && sum + log1p(-1 / alpha) > best) break;
    }
    *epsilon = total_steps > 0 ? best : 0;
    return PN_OK;
}
enum pn_result pn_privacy_epsilon_rdp(const struct pn_privacy_event *events, size_t n, double delta, double *epsilon, struct pn_error *err) { return epsilon_by_orders(events, n, delta, false, epsilon, err); }
enum pn_result pn_privacy_epsilon_rdp_whole(const struct pn_privacy_event *events, size_t n, double delta, double *epsilon, struct pn_error *err) { return epsilon_by_orders(events, n, delta, true, epsilon, err); }
