#include "secure/noise.h"
#include <math.h>
#include <string.h>
#include "privacy/accountant.h"
#include "privacy/discrete.h"
#include "privacy/select.h"

enum pn_result pn_secure_fixed(struct pn_fixed *out, uint32_t n, uint32_t honest, double multiplier, double bound, double roundoff, double most, uint64_t d, struct pn_error *err) {
    const double share = sqrt(PN_SECURE_SHARE_VARIANCE), margin = 0x1p-10 + roundoff;
    const double steps = (share * sqrt(honest) / multiplier - sqrt((double)d)) / (1 + margin); /* of one unit's bound */
    if (!(steps >= 16))
        return pn_fail(err, PN_REFUSED, "a secure sum of %llu values under a noise multiplier of %.4g leaves %.3g steps of rounding for the clip of one example or user, and 16 are needed: fewer buckets, a smaller model or less noise",
                       (unsigned long long)d, multiplier, fmax(0, steps));
    *out = (struct pn_fixed){.scale = steps / bound, .noise_sd = share};
    for (unsigned wb = 4; wb <= 8; wb += 4) {
        const double room = exp2(8.0 * wb - 1) - 1 - 12 * sqrt((double)n) * share;
        out->word_bytes = wb;
        out->range = fmin(4 * most, (room / n - 2) / out->scale);
        if (out->range >= 2 * most) break;
    }
    return pn_fixed_check(out, n, err);
}

static uint32_t honest(const struct pn_job *job) { return pn_job_fewest(&job->privacy, job->n_producers) - pn_job_colluding(&job->privacy, job->n_producers); }

/* Of one holder, if they were dealt evenly. */
static double units(const struct pn_job *job) { return (double)job->privacy.rows / job->n_producers; }

static void split(const struct pn_privacy_spec *v, double *map, double *gradient) {
    *map = v->vote_noise;
    *gradient = v->noise;
    if (v->selection == PN_SELECT_ADAFEST) pn_privacy_split_noise(v->noise, v->noise * v->noise / (v->vote_noise * v->vote_noise), map, gradient);
}

enum pn_result pn_secure_fixed_update(struct pn_fixed *out, const struct pn_job *job, uint64_t n_values, struct pn_error *err) {
    double map, gradient;
    const double batch = job->batch_size, b = batch * pn_secure_most_units(job) / units(job);
    split(&job->privacy, &map, &gradient);
    return pn_secure_fixed(out, job->n_producers, honest(job), gradient, (double)job->privacy.clip, pn_job_roundoff(b, job->privacy.per_user, true), batch * (double)job->privacy.clip, n_values, err);
}
enum pn_result pn_secure_fixed_counts(struct pn_fixed *out, const struct pn_job *job, struct pn_error *err) {
    double map, gradient;
    split(&job->privacy, &map, &gradient);
    return pn_secure_fixed(out, job->n_producers, honest(job), map, job->privacy.vote_clip, 0, job->privacy.selection == PN_SELECT_FEST ? pn_secure_most_units(job) : job->batch_size, job->privacy.vote_buckets, err);
}
double pn_secure_most_units(const struct pn_job *job) { return job->privacy.own_data ? (double)job->privacy.rows : pn_job_most_units(&job->privacy, job->n_producers); }
double pn_secure_vote(const struct pn_privacy_spec *v, size_t m) { return floor(pn_vote(m, v->vote_clip) * 0x1p24) * 0x1p-24; }

enum pn_result pn_secure_words(const struct pn_fixed *f, struct pn_draws *g, struct pn_discrete *noise, const double *values, size_t n, void *words, size_t *n_clipped, struct pn_error *err) {
    enum { PIECE = 1024 };
    uint32_t draws[PIECE];
    *n_clipped = 0;
    for (size_t at = 0; at < n; at += PIECE) {
        const size_t count = n - at < PIECE ? n - at : PIECE;
        size_t clipped;
        uint8_t *out = (uint8_t *)words + at * f->word_bytes;
        for (size_t i = 0; i < count; i++) draws[i] = (uint32_t)pn_draws_bits(g);
        const enum pn_result r = pn_fixed_encode(f, values + at, count, draws, out, &clipped, err);
        if (r != PN_OK) return r;
        *n_clipped += clipped;
        for (size_t i = 0; i < count; i++) {
            const int64_t x = pn_discrete_exact(noise, PN_SECURE_SHARE_VARIANCE, 1);
            if (f->word_bytes == 4) ((uint32_t *)(void *)out)[i] += (uint32_t)x;
            else ((uint64_t *)(void *)out)[i] += (uint64_t)x;
        }
    }
    return PN_OK;
}
