#include "privacy/secagg/fixed.h"
#include <math.h>
#include <string.h>

enum pn_result pn_fixed_check(const struct pn_fixed *f, uint32_t n, struct pn_error *err) {
    if ((f->word_bytes != 4 && f->word_bytes != 8) || !(f->range > 0) || !(f->scale > 0) || !(f->noise_sd >= 0) || !isfinite(f->range) || !isfinite(f->scale))
        return pn_fail(err, PN_INVALID, "fixed point: words have 4 or 8 bytes, range and scale are above 0");
    const double room = exp2(8.0 * f->word_bytes - 1) - 1, noise = 12 * sqrt((double)n) * f->noise_sd;
    if (!(n * ceil(f->range * f->scale) + noise <= room))
        return pn_fail(err, PN_REFUSED, "fixed point: %u workers with range %g, scale %g and noise %g need more than %u bits; a scale of at most %g fits, or 64 bits", n,
                       f->range, f->scale, f->noise_sd, 8 * f->word_bytes, fmax(0, (room - noise) / n - 1) / f->range);
    return PN_OK;
}

enum pn_result pn_fixed_encode(const struct pn_fixed *f, const double *values, size_t n, const uint32_t *draws, void *words, size_t *n_clipped, struct pn_error *err) {
    const double range = f->range, scale = f->scale;
    size_t clipped = 0;
    double wrong = 0; /* becomes NaN with a value that is none, and with an infinite one */
    for (size_t i = 0; i < n; i++) {
        const double v = values[i], c = v > range ? range : v < -range ? -range : v;
        clipped += c != v;
        wrong += v * 0;
        const double x = c * scale, low = floor(x);
        const int64_t q = (int64_t)(c == c ? low : 0) + (x - low > ((double)draws[i] + 0.5) * 0x1p-32);
        if (f->word_bytes == 4) ((uint32_t *)words)[i] = (uint32_t)q;
        else ((uint64_t *)words)[i] = (uint64_t)q;
    }
    if (n_clipped != NULL) *n_clipped = clipped;
    if (wrong == 0) return PN_OK;
    for (size_t i = 0; i < n; i++)
        if (!isfinite(values[i])) return pn_fail(err, PN_INVALID, "secure aggregation: value %zu of %zu is no finite number", i, n);
    return PN_OK;
}

void pn_fixed_decode(const struct pn_fixed *f, const void *words, size_t n, double *values) {
    for (size_t i = 0; i < n; i++)
        values[i] = (f->word_bytes == 4 ? (double)(int32_t)((const uint32_t *)words)[i] : (double)(int64_t)((const uint64_t *)words)[i]) / f->scale;
}
