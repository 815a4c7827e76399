/* Which rows a private step sends, and the noise on them: every row there can be, those that were chosen beforehand (FEST), or those with votes enough in this step (AdaFEST), of all or of those chosen beforehand. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "common/mutant.h"
#include "privacy/select.h"
#include "worker/private_inside.h"

static uint64_t domain_key(const struct pn_private_domain *d, uint64_t i) {
    size_t k = 0;
    while (i >= pn_field_domain(d->fields[k])) i -= pn_field_domain(d->fields[k++]);
    return pn_field_domain_key(d->fields[k], i);
}

/* Adds each unit's vote to the rows it touches, by whichever of its examples, but for idle ones: votes[t], n_unique[t]. False: no memory. */
static bool count_votes(const struct pn_private *p, const struct pn_batch *b, double clip, double *const votes[PN_MAX_TABLES]) {
    uint32_t *stamp[PN_MAX_TABLES] = {NULL};
    bool ok = true;
    for (uint32_t t = 0; t < p->job->i_dense_table; t++) ok = (stamp[t] = calloc(b->n_unique[t] + 1, sizeof **stamp)) != NULL && ok;
    for (size_t u = 0; ok && u < pn_batch_units(b); u++) {
        const size_t first = pn_batch_unit(b, u), end = pn_batch_unit(b, u + 1);
        size_t m = 0;
        for (int pass = 0; pass < 2; pass++) { /* how many different rows, then their votes */
            const double vote = pass == 1 ? pn_vote(m, clip) : 0;
            for (size_t s = 0; s < b->n_sparse; s++) {
                const uint32_t t = p->job->fields[p->sparse[s]].i_table;
                for (uint32_t i = b->begin[s * b->n_examples + first]; i < b->begin[s * b->n_examples + end]; i++) {
                    uint32_t *seen = &stamp[t][b->position[i]];
                    const uint32_t mark = (uint32_t)(2 * u + 1 + (uint32_t)pass);
                    if (*seen == mark || pn_batch_idle(b, t, b->position[i])) continue;
                    *seen = mark;
                    if (pass == 0) m++;
                    else votes[t][b->position[i]] += vote;
                }
            }
        }
    }
    for (uint32_t t = 0; t < PN_MAX_TABLES; t++) free(stamp[t]);
    return ok;
}

static int by_mix(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* k different keys of the domain that are not among the n of `touched` (in the order of common/unique.h), uniformly, in that order too. `mixed` is room for n + 2k. */
static size_t draw_keys(const struct pn_private_domain *d, struct pn_draws *g, const uint64_t *touched, size_t n, size_t k, uint64_t *mixed, uint64_t *out) {
    uint64_t *old = mixed, *drawn = mixed + n;
    size_t count = 0;
    for (size_t i = 0; i < n; i++) old[i] = pn_mix64(touched[i]); /* rising */
    while (count < k) { /* what is drawn twice, or touched, is drawn again */
        for (size_t i = count; i < k; i++) drawn[i] = pn_mix64(domain_key(d, pn_draws_below(g, d->n)));
        qsort(drawn, k, sizeof *drawn, by_mix);
        count = 0;
        size_t at = 0;
        for (size_t i = 0; i < k; i++) {
            while (at < n && old[at] < drawn[i]) at++;
            if ((at < n && old[at] == drawn[i]) || (count > 0 && drawn[count - 1] == drawn[i])) continue;
            drawn[count++] = drawn[i];
        }
    }
    for (size_t i = 0; i < k; i++) out[i] = pn_unmix64(drawn[i]);
    return k;
}

/* All keys of the domain, each once, that are not touched, in the same order. `mixed` and `out` have room for d->n. */
static size_t all_others(const struct pn_private_domain *d, const uint64_t *touched, size_t n, uint64_t *mixed, uint64_t *out) {
    size_t count = 0, at = 0, kept = 0;
    for (uint64_t i = 0; i < d->n; i++) mixed[count++] = pn_mix64(domain_key(d, i));
    qsort(mixed, count, sizeof *mixed, by_mix);
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && mixed[i] == mixed[i - 1]) continue;
        while (at < n && pn_mix64(touched[at]) < mixed[i]) at++;
        if (at < n && pn_mix64(touched[at]) == mixed[i]) continue;
        out[kept++] = pn_unmix64(mixed[i]);
    }
    return kept;
}

/* k rows of the domain that nobody touched, uniformly, malloc'ed, in the order of common/unique.h. */
static enum pn_result draw_untouched(const struct pn_private_domain *d, struct pn_draws *g, const uint64_t *touched, size_t n, uint64_t untouched, uint64_t k, uint64_t **others, size_t *n_others) {
    const bool walk = k > untouched / 2; /* then drawing again and again would take long */
    uint64_t *mixed = malloc((walk ? d->n : n + 2 * k) * sizeof *mixed);
    *others = malloc((walk ? d->n : k) * sizeof **others);
    if (mixed == NULL || *others == NULL) {
        free(mixed);
        return PN_NO_MEMORY;
    }
    if (!walk) *n_others = draw_keys(d, g, touched, n, k, mixed, *others);
    else {
        const size_t all = all_others(d, touched, n, mixed, *others);
        for (size_t i = 0; i < all; i++) /* k of them: each with the share that is still wanted (Vitter's method A) */
            if (pn_draws_below(g, all - i) < k - *n_others) (*others)[(*n_others)++] = (*others)[i];
    }
    free(mixed);
    return PN_OK;
}

static double noise_of(const struct pn_vote_rule *rule) {
#if PN_MUTANT == 23 /* noise switched off, and every step still charged: what tests/system/canaries.py must find */
    return 1e-9 * rule->noise;
#else
    return rule->noise;
#endif
}

/* Which rows of table t are in, of all there can be: touched ones (in[]), and others, malloc'ed. votes may be NULL: all are in. */
static enum pn_result choose(const struct pn_private *p, struct pn_draws *g, uint32_t t, const uint64_t *touched, size_t n, const double *votes, const struct pn_vote_rule *rule, bool *in,
                             uint64_t **others, size_t *n_others) {
    const struct pn_private_domain *d = &p->domains[t];
    const uint64_t untouched = d->n > n ? d->n - n : 0;
    uint64_t k = untouched;
    if (votes != NULL) k = pn_select(g, votes, n, untouched, noise_of(rule), rule->clip, rule->threshold, in);
    else memset(in, true, n);
    return k == 0 ? PN_OK : draw_untouched(d, g, touched, n, untouched, k, others, n_others);
}

static size_t find_chosen(const struct pn_private *p, uint32_t t, uint64_t key) {
    size_t low = 0, high = p->n_chosen[t];
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (pn_mix64(p->chosen[t][middle]) < pn_mix64(key)) low = middle + 1;
        else high = middle;
    }
    return low < p->n_chosen[t] && p->chosen[t][low] == key ? low : SIZE_MAX;
}

bool pn_private_mark(const struct pn_private *p, struct pn_batch *b) {
    bool ok = true;
    for (uint32_t t = 0; p->has_chosen && t < p->job->i_dense_table; t++) {
        b->idle[t] = malloc(b->n_unique[t] + 1);
        ok = b->idle[t] != NULL && ok;
        for (size_t i = 0; ok && i < b->n_unique[t]; i++) b->idle[t][i] = find_chosen(p, t, b->unique[t][i]) == SIZE_MAX;
    }
    return ok;
}

/* The same of the rows that were chosen beforehand. What nobody voted for is, as above, never visited: as many as a binomial draw says, any of them. */
static enum pn_result choose_again(const struct pn_private *p, struct pn_draws *g, uint32_t t, const uint64_t *touched, size_t n, const double *votes, const struct pn_vote_rule *rule, bool *in,
                                   uint64_t **others, size_t *n_others) {
    uint64_t *at = malloc((n + 1) * sizeof *at);  /* a touched row's place among the chosen */
    double *own = calloc(n + 1, sizeof *own);
    bool *passed = malloc(n + 1);
    size_t m = 0;
    enum pn_result r = at != NULL && own != NULL && passed != NULL ? PN_OK : PN_NO_MEMORY;
    for (size_t i = 0; r == PN_OK && i < n; i++) {
        const size_t place = find_chosen(p, t, touched[i]);
        in[i] = place != SIZE_MAX;
        if (!in[i]) continue;
        at[m] = place;
        own[m++] = votes[i];
    }
    if (r == PN_OK) {
        const uint64_t k = pn_select(g, own, m, p->n_chosen[t] - m, noise_of(rule), rule->clip, rule->threshold, passed);
        for (size_t i = 0, j = 0; i < n; i++)
            if (in[i]) in[i] = passed[j++];
        *others = malloc((k + 1) * sizeof **others);
        if (*others == NULL || !pn_draw_others(g, p->n_chosen[t], at, m, k, *others)) r = PN_NO_MEMORY;
        for (size_t i = 0; r == PN_OK && i < k; i++) (*others)[i] = p->chosen[t][(*others)[i]];
        *n_others = r == PN_OK ? k : 0;
    }
    free(at);
    free(own);
    free(passed);
    return r;
}

static bool open_votes(const struct pn_private *p, const struct pn_batch *b, double clip, double *votes[PN_MAX_TABLES]) {
    bool ok = true;
    for (uint32_t t = 0; t < p->job->i_dense_table; t++) ok = (votes[t] = calloc(b->n_unique[t] + 1, sizeof **votes)) != NULL && ok;
    return ok && count_votes(p, b, clip, votes);
}

enum pn_result pn_private_choose(struct pn_private *p, struct pn_draws *g) {
    const struct pn_vote_rule *rule = &p->spec.once;
    if (!(rule->threshold > 0)) return PN_OK;
    struct pn_batch all;
    double *votes[PN_MAX_TABLES] = {NULL};
    enum pn_result r = pn_private_all(p, g, &all); /* a user votes once, for every row that one of its examples touches */
    if (r != PN_OK) return r;
    if (!open_votes(p, &all, rule->clip, votes)) r = PN_NO_MEMORY;
    for (uint32_t t = 0; r == PN_OK && t < p->job->i_dense_table; t++) {
        bool *in = malloc(all.n_unique[t] + 1);
        uint64_t *others = NULL;
        size_t n_others = 0;
        r = in == NULL ? PN_NO_MEMORY : choose(p, g, t, all.unique[t], all.n_unique[t], votes[t], rule, in, &others, &n_others);
        p->chosen[t] = r == PN_OK ? malloc((all.n_unique[t] + n_others + 1) * sizeof **p->chosen) : NULL;
        if (p->chosen[t] == NULL) r = PN_NO_MEMORY;
        for (size_t i = 0, k = 0; r == PN_OK && (i < all.n_unique[t] || k < n_others);) {
            const bool old = k == n_others || (i < all.n_unique[t] && pn_mix64(all.unique[t][i]) < pn_mix64(others[k]));
            if (!old) p->chosen[t][p->n_chosen[t]++] = others[k++];
            else if (in[i++]) p->chosen[t][p->n_chosen[t]++] = all.unique[t][i - 1];
        }
        free(in);
        free(others);
    }
    p->has_chosen = r == PN_OK;
    for (uint32_t t = 0; t < PN_MAX_TABLES; t++) free(votes[t]);
    pn_batch_free(&all);
    return r;
}

void pn_private_push_free(struct pn_private_push *x) {
    for (size_t t = 0; t < PN_MAX_TABLES; t++) {
        free(x->keys[t]);
        free(x->gradients[t]);
    }
    memset(x, 0, sizeof *x);
}

/* The rows of table t that are sent: touched ones that are in, and others, in one order; gradients without noise yet. */
static enum pn_result merge(const struct pn_private *p, uint32_t t, const struct pn_batch *b, const float *gradients, const bool *in, const uint64_t *others, size_t n_others,
                            struct pn_private_push *out) {
    const size_t n = b->n_unique[t], dim = p->job->tables[t].dim;
    out->keys[t] = malloc((n + n_others + 1) * sizeof **out->keys);
    out->gradients[t] = calloc((n + n_others) * dim + 1, sizeof **out->gradients);
    if (out->keys[t] == NULL || out->gradients[t] == NULL) return PN_NO_MEMORY;
    for (size_t i = 0, k = 0; i < n || k < n_others;) {
        const uint64_t a = i < n ? pn_mix64(b->unique[t][i]) : UINT64_MAX, c = k < n_others ? pn_mix64(others[k]) : UINT64_MAX;
        const bool touched = i < n && (k == n_others || a <= c);
        if (touched && in[i]) memcpy(out->gradients[t] + out->n[t] * dim, gradients + i * dim, dim * sizeof(float));
        if (!touched || in[i]) out->keys[t][out->n[t]++] = touched ? b->unique[t][i] : others[k];
        k += !touched || (k < n_others && a == c); /* FEST: a chosen row that is touched */
        i += touched;
    }
    return PN_OK;
}

/* values = (values + noise) * share. A float's last bits say whether the sum was zero, as noise near zero has finer ones than noise on top of something (Mironov 2012): what leaves is rounded to a
 * grid of a thousandth of the noise. */
static void release(struct pn_draws *g, float *values, size_t n, float sigma, float share) {
    const float grid = sigma > 0 ? exp2f(floorf(log2f(sigma)) - 10) : 0;
    pn_draws_add_normal(g, values, n, sigma);
    for (size_t i = 0; i < n; i++) values[i] = (grid > 0 ? rintf(values[i] / grid) * grid : values[i]) * share;
}

/* The rows of table t, without noise yet. */
static enum pn_result rows_of(const struct pn_private *p, struct pn_draws *g, uint32_t t, const struct pn_batch *b, const float *gradients, const double *votes, struct pn_private_push *out) {
    const size_t n = b->n_unique[t];
    bool *in = malloc(n + 1);
    uint64_t *others = NULL;
    size_t n_others = 0;
    enum pn_result r = in != NULL ? PN_OK : PN_NO_MEMORY;
    if (r == PN_OK && p->spec.selection == PN_SELECT_FEST) {
        for (size_t i = 0; i < n; i++) in[i] = !pn_batch_idle(b, t, (uint32_t)i);
        r = merge(p, t, b, gradients, in, p->chosen[t], p->n_chosen[t], out);
    } else if (r == PN_OK) {
        r = (p->has_chosen ? choose_again : choose)(p, g, t, b->unique[t], n, votes, &p->spec.each, in, &others, &n_others);
        if (r == PN_OK) r = merge(p, t, b, gradients, in, others, n_others, out);
    }
    free(in);
    free(others);
    return r;
}

enum pn_result pn_private_release(const struct pn_private *p, struct pn_draws *g, const struct pn_batch *b, float *const row_gradients[PN_MAX_TABLES], float *dense, size_t n_dense,
                                  struct pn_private_push *out) {
#if PN_MUTANT == 23
    const float sigma = 0;
#else
    const float sigma = p->spec.noise * p->spec.clip * (float)(1 + p->spec.roundoff);
#endif
    const float share = 1.0f / (float)p->spec.batch;
    double *votes[PN_MAX_TABLES] = {NULL};
    memset(out, 0, sizeof *out);
    enum pn_result r = p->spec.selection != PN_SELECT_ADAFEST || open_votes(p, b, p->spec.each.clip, votes) ? PN_OK : PN_NO_MEMORY;
    for (uint32_t t = 0; r == PN_OK && t < p->job->i_dense_table; t++) {
        r = rows_of(p, g, t, b, row_gradients[t], votes[t], out);
        if (r == PN_OK) release(g, out->gradients[t], out->n[t] * p->job->tables[t].dim, sigma, share);
    }
    if (r == PN_OK) release(g, dense, n_dense, sigma, share);
    else pn_private_push_free(out);
    for (uint32_t t = 0; t < PN_MAX_TABLES; t++) free(votes[t]);
    return r;
}
