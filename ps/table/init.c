/* First values of rows: functions of (seed, key, element), the same bits on every machine. The normal distribution comes
 * by its inverse (Wichura 1988, AS 241, PPND7: 7 digits) with a logarithm of our own: libm's may differ in the last bit. */
#include "ps/table/optimizer.h"
#include <math.h>
#include "common/hash.h"

/* ln(x) of a normal positive x: x = m * 2^e with m in [0.7, 1.42), ln(m) = 2 atanh((m - 1) / (m + 1)) by its series. */
static double natural_log(double x) {
    int e;
    double m = frexp(x, &e);
    if (m < 0.70710678118654752) {
        m *= 2;
        e--;
    }
    double t = (m - 1) / (m + 1), square = t * t, sum = 0;
    for (int k = 21; k >= 1; k -= 2) sum = sum * square + 1.0 / k;
    return 2 * t * sum + e * 0.69314718055994531;
}

static double inverse_normal(double p) {
    double q = p - 0.5;
    if (fabs(q) <= 0.425) {
        double r = 0.180625 - q * q;
        return q * (((5.9109374720e1 * r + 1.5929113202e2) * r + 5.0434271938e1) * r + 3.3871327179) /
               (((6.7187563600e1 * r + 7.8757757664e1) * r + 1.7895169469e1) * r + 1);
    }
    double r = sqrt(-natural_log(q < 0 ? p : 1 - p)), z;
    if (r <= 5) {
        r -= 1.6;
        z = (((1.7023821103e-1 * r + 1.3067284816) * r + 2.7568153900) * r + 1.4234372777) /
            ((1.2021132975e-1 * r + 7.3700164250e-1) * r + 1);
    } else {
        r -= 5;
        z = (((1.7337203997e-2 * r + 4.2868294337e-1) * r + 3.0812263860) * r + 6.6579051150) /
            ((1.2258202635e-2 * r + 2.4197894225e-1) * r + 1);
    }
    return q < 0 ? -z : z;
}

void pn_init_row(const struct pn_table_spec *spec, uint64_t key, float *values) {
    const double scale = spec->init == PN_INIT_XAVIER ? spec->init_scale * sqrt(6.0 / (1.0 + spec->dim)) : spec->init_scale;
    struct pn_rng rng = {pn_mix64(spec->init_seed ^ pn_mix64(key))};
    for (uint32_t i = 0; i < spec->dim; i++) {
        switch (spec->init) {
            case PN_INIT_ZERO: values[i] = 0; break;
            case PN_INIT_CONSTANT: values[i] = spec->init_scale; break;
            case PN_INIT_UNIFORM:
            case PN_INIT_XAVIER: {
                double u = ((double)(pn_rng_next(&rng) >> 40) + 0.5) * 0x1p-24;
                values[i] = (float)((2 * u - 1) * scale);
                break;
            }
            case PN_INIT_NORMAL: {
                double u = ((double)(pn_rng_next(&rng) >> 12) + 0.5) * 0x1p-52;
                values[i] = (float)(inverse_normal(u) * scale);
                break;
            }
        }
    }
}
