/* The optimizers. Each kernel is one loop that the compiler vectorises for the machine at hand (function clones);
 * results do not depend on the width: elements are independent, and the one sum that is needed has eight fixed lanes. */
#include "ps/table/optimizer.h"
#include <assert.h>
#include <math.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define MACHINES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define MACHINES
#endif
#define ROW __attribute__((always_inline)) static inline void
#define AHEAD 8u /* rows prefetched ahead of the one at work */

ROW sgd(const struct pn_optimizer_spec *o, uint32_t dim, float l2, float *restrict w, const float *restrict gradient) {
    const float lr = o->lr;
    for (uint32_t i = 0; i < dim; i++) w[i] -= lr * (gradient[i] + l2 * w[i]);
}

/* Velocity v = momentum * v + g; the step is v (Polyak 1964), or g + momentum * v, the gradient as seen from where the velocity leads (Nesterov 1983, in the
 * form of Sutskever et al. 2013). */
ROW momentum(const struct pn_optimizer_spec *o, uint32_t dim, float l2, float *restrict w, float *restrict velocity, const float *restrict gradient) {
    const float lr = o->lr, keep = o->momentum, of_gradient = o->nesterov ? 1 : 0, of_velocity = o->nesterov ? keep : 1;
    for (uint32_t i = 0; i < dim; i++) {
        const float g = gradient[i] + l2 * w[i];
        const float v = keep * velocity[i] + g;
        velocity[i] = v;
        w[i] -= lr * (of_gradient * g + of_velocity * v);
    }
}

ROW adagrad(const struct pn_optimizer_spec *o, uint32_t dim, float l2, float *restrict w, float *restrict sum, const float *restrict gradient) {
    const float lr = o->lr, epsilon = o->epsilon;
    for (uint32_t i = 0; i < dim; i++) {
        float g = gradient[i] + l2 * w[i];
        float s = sum[i] + g * g;
        sum[i] = s;
        w[i] -= lr * g / (sqrtf(s) + epsilon);
    }
}

ROW rowwise_adagrad(const struct pn_optimizer_spec *o, uint32_t dim, float l2, float *restrict w, float *restrict sum,
                       const float *restrict gradient) {
    float lane[8] = {0};
    uint32_t i = 0;
    for (; i + 8 <= dim; i += 8)
        for (uint32_t j = 0; j < 8; j++) {
            float g = gradient[i + j] + l2 * w[i + j];
            lane[j] += g * g;
        }
    for (; i < dim; i++) {
        float g = gradient[i] + l2 * w[i];
        lane[i & 7] += g * g;
    }
    float squares = ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
    *sum += squares / (float)dim;
    const float rate = o->lr / (sqrtf(*sum) + o->epsilon);
    for (i = 0; i < dim; i++) w[i] -= rate * (gradient[i] + l2 * w[i]);
}

ROW adam_pass(const struct pn_optimizer_spec *o, uint32_t dim, float l2, float *restrict w, float *restrict m, float *restrict v,
                 const float *restrict gradient, float rate, float scale) {
    const float beta1 = o->beta1, beta2 = o->beta2, epsilon = o->epsilon;
    for (uint32_t i = 0; i < dim; i++) {
        float g = gradient[i] + l2 * w[i];
        float m1 = beta1 * m[i] + (1 - beta1) * g, v1 = beta2 * v[i] + (1 - beta2) * (g * g);
        m[i] = m1;
        v[i] = v1;
        w[i] -= rate * m1 / (sqrtf(v1) * scale + epsilon);
    }
}

/* Lazy: a row's moments and its bias correction count only the steps that touched it. */
enum { CORRECTED = 64 }; /* rows at once */
struct correction { float rate[CORRECTED], scale[CORRECTED]; };

/* Counts n rows' steps up by one and tells what corrects their bias: 1 - beta^steps by squaring, for libm's pow may differ from machine to machine. A bit of the exponent is a choice between
 * two factors, for all rows at once: as a branch it is a guess that fails every other time, and took longer than the row itself. */
ROW correct(const struct pn_optimizer_spec *o, uint32_t dim, float *const *rows, size_t n, struct correction *out) {
    double one[CORRECTED], two[CORRECTED];
    uint32_t steps[CORRECTED], all = 0;
    for (size_t i = 0; i < n; i++) {
        float *count = rows[i] + 3 * (size_t)dim;
        if (*count < 16777216) *count += 1; /* beyond, a float counts no further, and the correction is 1 */
        steps[i] = (uint32_t)*count;
        all |= steps[i];
        one[i] = two[i] = 1;
    }
    double b1 = (double)o->beta1, b2 = (double)o->beta2;
    for (; all; all >>= 1, b1 *= b1, b2 *= b2)
        for (size_t i = 0; i < n; i++) {
            const double odd = (double)(int32_t)(steps[i] & 1); /* 1 or 0, so that the products are exact */
            one[i] *= odd * b1 + (1 - odd);
            two[i] *= odd * b2 + (1 - odd);
            steps[i] >>= 1;
        }
    for (size_t i = 0; i < n; i++) {
        out->rate[i] = (float)((double)o->lr / (1 - one[i]));
        out->scale[i] = (float)(1 / sqrt(1 - two[i]));
    }
}

/* Loshchilov and Hutter 2019, algorithm 2: the decay is not part of the gradient, so that the moments do not divide it out again. */
ROW decay(const struct pn_optimizer_spec *o, uint32_t dim, float share, float *w) {
    const float left = 1 - o->lr * share, keep = left > 0 ? left : 0; /* below 0 only for a row that catches up with many steps */
    for (uint32_t i = 0; i < dim; i++) w[i] *= keep;
}

/* FTRL-proximal, McMahan et al. 2013, algorithm 1. */
ROW ftrl(const struct pn_optimizer_spec *o, uint32_t dim, float l2, float *restrict w, float *restrict z, float *restrict sum,
            const float *restrict gradient) {
    const float lr = o->lr, l1 = o->l1, beta = o->ftrl_beta;
    for (uint32_t i = 0; i < dim; i++) {
        float g = gradient[i], before = sum[i], after = before + g * g, root = sqrtf(after);
        float z1 = z[i] + (g - (root - sqrtf(before)) / lr * w[i]);
        float beyond = fabsf(z1) - l1;
        beyond = beyond > 0 ? beyond : 0;
        z[i] = z1;
        sum[i] = after;
        w[i] = -copysignf(beyond, z1) / ((beta + root) / lr + l2);
    }
}

/* 1 + cos(pi x) for x in [0, 1], by its series about the middle: libm's may differ from machine to machine. */
static double one_plus_cos(double x) {
    const double t = 3.14159265358979323846 * (0.5 - x), t2 = t * t; /* cos(pi x) = sin t */
    return 1 + t * (1 - t2 / 6 * (1 - t2 / 20 * (1 - t2 / 42 * (1 - t2 / 72 * (1 - t2 / 110)))));
}

/* base^x for base in (0, 1], x in [0, 1], by series, for the same reason: ln by that of artanh, exp by Taylor's on a 64th, squared six times. */
static double power_between(double base, double x) {
    double ln = 0;
    for (; base < 0.5; base *= 2) ln -= 0.693147180559945309417;
    const double z = (base - 1) / (base + 1), z2 = z * z;
    double sum = 0;
    for (int i = 35; i >= 1; i -= 2) sum = sum * z2 + 1.0 / i;
    ln += 2 * z * sum;
    const double y = ln * x / 64;
    double result = 1;
    for (int i = 14; i >= 1; i--) result = 1 + result * y / i;
    for (int i = 0; i < 6; i++) result *= result;
    return result;
}

float pn_optimizer_pace(const struct pn_optimizer_spec *o, uint64_t step) {
    if (step < o->warmup) return (float)((double)step / (double)o->warmup);
    if (o->lr_steps == 0) return 1;
    const uint64_t since = step - o->warmup;
    const double x = since < o->lr_steps ? (double)since / (double)o->lr_steps : 1, floor = (double)o->lr_floor;
    if (o->shape == PN_EXPONENTIAL) return (float)power_between(floor, x);
    return (float)(floor + (1 - floor) * (o->shape == PN_COSINE ? one_plus_cos(x) / 2 : 1 - x));
}

uint32_t pn_optimizer_state_floats(const struct pn_optimizer_spec *o, uint32_t dim) {
    switch (o->kind) {
        case PN_SGD: return 0;
        case PN_ADAGRAD: return dim;
        case PN_ROWWISE_ADAGRAD: return 1;
        case PN_ADAM:
        case PN_ADAMW: return 2 * dim + 1;
        case PN_MOMENTUM: return dim;
        case PN_FTRL: return 2 * dim;
    }
    assert(false && "unknown optimizer");
    return 0;
}

void pn_optimizer_start(const struct pn_optimizer_spec *o, uint32_t dim, const float *values, float *state) {
    uint32_t n = pn_optimizer_state_floats(o, dim);
    for (uint32_t i = 0; i < n; i++) state[i] = 0;
    if (o->kind == PN_ADAGRAD || o->kind == PN_ROWWISE_ADAGRAD)
        for (uint32_t i = 0; i < n; i++) state[i] = o->initial_accumulator;
    if (o->kind == PN_FTRL)
        for (uint32_t i = 0; i < dim; i++)
            if (values[i] != 0) state[i] = -values[i] * (o->ftrl_beta / o->lr + o->l2) - copysignf(o->l1, values[i]);
}

/* Many rows at once: a loop an optimizer, so that the choice of machine and of optimizer is made once, and misses overlap. */
#define ROWS(NAME, FLOATS, ...)                                                                                                                 \
    MACHINES static void NAME##_rows(const struct pn_optimizer_spec *o, uint32_t dim, float *const *rows, const float *const *gradients, const float *l2, size_t n) { \
        const size_t bytes = (FLOATS) * sizeof(float);                                                                                          \
        for (size_t i = 0; i < n; i++) {                                                                                                        \
            if (i + AHEAD < n)                                                                                                                  \
                for (size_t b = 0; b < bytes && b < 512; b += 64) __builtin_prefetch((const char *)rows[i + AHEAD] + b, 1);                     \
            float *w = rows[i];                                                                                                                 \
            NAME(o, dim, l2 != NULL ? l2[i] : o->l2, w, __VA_ARGS__);                                                                                                   \
        }                                                                                                                                       \
    }
ROWS(sgd, dim, gradients[i])
ROWS(adagrad, 2 * (size_t)dim, w + dim, gradients[i])
ROWS(rowwise_adagrad, (size_t)dim + 1, w + dim, gradients[i])
ROWS(momentum, 2 * (size_t)dim, w + dim, gradients[i])
ROWS(ftrl, 3 * (size_t)dim, w + dim, w + 2 * (size_t)dim, gradients[i])

/* adam and adamw: their prefetch comes with the count of steps, which lies behind the moments. */
ROW adam_some(const struct pn_optimizer_spec *o, uint32_t dim, float *const *rows, const float *const *gradients, const float *l2, size_t n, bool decoupled) {
    struct correction c;
    for (size_t from = 0; from < n; from += CORRECTED) {
        const size_t count = n - from < CORRECTED ? n - from : CORRECTED;
        for (size_t i = from; i < from + count; i++)
            for (size_t b = 0; b <= 3 * (size_t)dim * sizeof(float) && b < 512; b += 64) __builtin_prefetch((const char *)rows[i] + b, 1);
        correct(o, dim, rows + from, count, &c);
        for (size_t i = 0; i < count; i++) {
            float *w = rows[from + i];
            const float l = l2 != NULL ? l2[from + i] : o->l2;
            if (decoupled) decay(o, dim, l, w);
            adam_pass(o, dim, decoupled ? 0 : l, w, w + dim, w + 2 * (size_t)dim, gradients[from + i], c.rate[i], c.scale[i]);
        }
    }
}
MACHINES static void adam_rows(const struct pn_optimizer_spec *o, uint32_t dim, float *const *rows, const float *const *gradients, const float *l2, size_t n) {
    adam_some(o, dim, rows, gradients, l2, n, false);
}
MACHINES static void adamw_rows(const struct pn_optimizer_spec *o, uint32_t dim, float *const *rows, const float *const *gradients, const float *l2, size_t n) {
    adam_some(o, dim, rows, gradients, l2, n, true);
}

/* The sizes that models use most, with the loop over elements unrolled. */
MACHINES static void adagrad16_rows(const struct pn_optimizer_spec *o, float *const *rows, const float *const *gradients, const float *l2, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (i + AHEAD < n) {
            __builtin_prefetch(rows[i + AHEAD], 1);
            __builtin_prefetch(rows[i + AHEAD] + 16, 1);
        }
        adagrad(o, 16, l2 != NULL ? l2[i] : o->l2, rows[i], rows[i] + 16, gradients[i]);
    }
}

void pn_optimizer_steps(const struct pn_optimizer_spec *o, uint32_t dim, float *const *rows, const float *const *gradients, const float *l2, size_t n) {
    switch (o->kind) {
        case PN_SGD: sgd_rows(o, dim, rows, gradients, l2, n); return;
        case PN_ADAGRAD:
            if (dim == 16) adagrad16_rows(o, rows, gradients, l2, n);
            else adagrad_rows(o, dim, rows, gradients, l2, n);
            return;
        case PN_ROWWISE_ADAGRAD: rowwise_adagrad_rows(o, dim, rows, gradients, l2, n); return;
        case PN_ADAM: adam_rows(o, dim, rows, gradients, l2, n); return;
        case PN_FTRL: ftrl_rows(o, dim, rows, gradients, l2, n); return;
        case PN_MOMENTUM: momentum_rows(o, dim, rows, gradients, l2, n); return;
        case PN_ADAMW: adamw_rows(o, dim, rows, gradients, l2, n); return;
    }
    assert(false && "unknown optimizer");
}

void pn_optimizer_step(const struct pn_optimizer_spec *o, uint32_t dim, float *row, const float *gradient) {
    pn_optimizer_steps(o, dim, &row, &gradient, NULL, 1);
}
