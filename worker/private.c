#include "worker/private.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "common/mutant.h"
#include "privacy/accountant.h"
#include "privacy/select.h"

/* The keys that a table can have: those of its fields, each field's once, though several may share them (hash.share). */
struct domain { const struct pn_field *fields[PN_MAX_FIELDS]; size_t n_fields; uint64_t n; };

struct pn_private {
    const struct pn_job *job;
    struct pn_private_spec spec;
    size_t sparse[PN_MAX_FIELDS];       /* fields of a batch, in its order */
    struct pn_batch *parts;
    size_t *first;                      /* [n_parts + 1]: the number of a part's first example */
    size_t n_parts, room;
    uint64_t *member;                   /* by user: the examples' numbers, a user's together and rising */
    size_t *begin, n_users;             /* [n_users + 1]: where a user's begin */
    struct domain domains[PN_MAX_TABLES];
    uint64_t *chosen[PN_MAX_TABLES];    /* FEST: in the order of common/unique.h */
    size_t n_chosen[PN_MAX_TABLES];
};

struct pn_private *pn_private_open(const struct pn_job *job, const struct pn_private_spec *spec) {
    struct pn_private *p = calloc(1, sizeof *p);
    if (p == NULL || (p->first = calloc(1, sizeof *p->first)) == NULL) {
        free(p);
        return NULL;
    }
    p->job = job;
    p->spec = *spec;
    pn_batch_fields(job, p->sparse);
    for (size_t i = 0; i < job->n_fields; i++) {
        const struct pn_field *f = &job->fields[i];
        if (!pn_field_keyed(f)) continue;
        struct domain *d = &p->domains[f->i_table];
        bool twice = false;
        for (size_t k = 0; k < d->n_fields; k++) twice = twice || pn_fields_share(d->fields[k], f); /* with as many buckets, or the job is refused */
        if (twice) continue;
        d->fields[d->n_fields++] = f;
        d->n += pn_field_domain(f);
    }
    return p;
}

void pn_private_close(struct pn_private *p) {
    if (p == NULL) return;
    for (size_t i = 0; i < p->n_parts; i++) pn_batch_free(&p->parts[i]);
    for (size_t t = 0; t < PN_MAX_TABLES; t++) free(p->chosen[t]);
    free(p->parts);
    free(p->member);
    free(p->begin);
    free(p->first);
    free(p);
}

static uint64_t domain_key(const struct domain *d, uint64_t i) {
    size_t k = 0;
    while (i >= pn_field_domain(d->fields[k])) i -= pn_field_domain(d->fields[k++]);
    return pn_field_domain_key(d->fields[k], i);
}

struct owned { uint64_t user, example; };
static int by_owner(const void *a, const void *b) {
    const struct owned *x = a, *y = b;
    return x->user != y->user ? (x->user > y->user) - (x->user < y->user) : (x->example > y->example) - (x->example < y->example);
}

bool pn_private_seal(struct pn_private *p) {
    const size_t n = p->first[p->n_parts];
    if (!p->spec.by_user) return true;
    struct owned *list = malloc((n + 1) * sizeof *list);
    p->member = malloc((n + 1) * sizeof *p->member);
    p->begin = malloc((n + 1) * sizeof *p->begin);
    const bool ok = list != NULL && p->member != NULL && p->begin != NULL;
    for (size_t part = 0; ok && part < p->n_parts; part++)
        for (size_t e = 0; e < p->parts[part].n_examples; e++) list[p->first[part] + e] = (struct owned){p->parts[part].user[e], p->first[part] + e};
    if (ok) qsort(list, n, sizeof *list, by_owner);
    for (size_t i = 0; ok && i < n; i++) {
        if (i == 0 || list[i].user != list[i - 1].user) p->begin[p->n_users++] = i;
        p->member[i] = list[i].example;
    }
    if (ok) p->begin[p->n_users] = n;
    free(list);
    return ok;
}

size_t pn_private_units(const struct pn_private *p) { return p->spec.by_user ? p->n_users : p->first[p->n_parts]; }
size_t pn_private_examples(const struct pn_private *p) { return p->first[p->n_parts]; }
uint64_t pn_private_steps_an_epoch(const struct pn_private *p) { return p->spec.rows > (double)p->spec.batch ? (uint64_t)ceil(p->spec.rows / (double)p->spec.batch) : 1; }

bool pn_private_add(struct pn_private *p, struct pn_batch *batch) {
    if (p->n_parts == p->room) {
        const size_t room = 2 * p->room + 16;
        struct pn_batch *parts = realloc(p->parts, room * sizeof *parts);
        if (parts != NULL) p->parts = parts;
        size_t *first = parts != NULL ? realloc(p->first, (room + 1) * sizeof *first) : NULL;
        if (first != NULL) p->first = first;
        if (first == NULL) {
            pn_batch_free(batch);
            return false;
        }
        p->room = room;
    }
    free(batch->position); /* a drawn batch has its own */
    batch->position = NULL;
    for (size_t t = 0; t < PN_MAX_TABLES; t++) {
        free(batch->unique[t]);
        batch->unique[t] = NULL;
    }
    p->parts[p->n_parts] = *batch;
    p->first[p->n_parts + 1] = p->first[p->n_parts] + batch->n_examples;
    p->n_parts++;
    memset(batch, 0, sizeof *batch);
    return true;
}

/* Adds each unit's vote to the rows it touches, by whichever of its examples: votes[t], n_unique[t]. False: no memory. */
static bool count_votes(const struct pn_private *p, const struct pn_batch *b, double *const votes[PN_MAX_TABLES]) {
    uint32_t *stamp[PN_MAX_TABLES] = {NULL};
    bool ok = true;
    for (uint32_t t = 0; t < p->job->i_dense_table; t++) ok = (stamp[t] = calloc(b->n_unique[t] + 1, sizeof **stamp)) != NULL && ok;
    for (size_t u = 0; ok && u < pn_batch_units(b); u++) {
        const size_t first = pn_batch_unit(b, u), end = pn_batch_unit(b, u + 1);
        size_t m = 0;
        for (int pass = 0; pass < 2; pass++) { /* how many different rows, then their votes */
            const double vote = pass == 1 ? pn_vote(m, p->spec.vote_clip) : 0;
            for (size_t s = 0; s < b->n_sparse; s++) {
                const uint32_t t = p->job->fields[p->sparse[s]].i_table;
                for (uint32_t i = b->begin[s * b->n_examples + first]; i < b->begin[s * b->n_examples + end]; i++) {
                    uint32_t *seen = &stamp[t][b->position[i]];
                    const uint32_t mark = (uint32_t)(2 * u + 1 + (uint32_t)pass);
                    if (*seen == mark) continue;
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
static size_t draw_keys(const struct domain *d, struct pn_draws *g, const uint64_t *touched, size_t n, size_t k, uint64_t *mixed, uint64_t *out) {
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
static size_t all_others(const struct domain *d, const uint64_t *touched, size_t n, uint64_t *mixed, uint64_t *out) {
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

/* Which rows of table t are in: touched ones (in[]), and others, malloc'ed. votes may be NULL: all are in. */
static enum pn_result choose(const struct pn_private *p, struct pn_draws *g, uint32_t t, const uint64_t *touched, size_t n, const double *votes, bool *in, uint64_t **others,
                             size_t *n_others) {
    const struct domain *d = &p->domains[t];
    const uint64_t untouched = d->n > n ? d->n - n : 0;
    uint64_t k = untouched;
    *others = NULL;
    *n_others = 0;
    double noise = p->spec.vote_noise;
#if PN_MUTANT == 23 /* noise switched off, and every step still charged: what tests/system/canaries.py must find */
    noise = 1e-9;
#endif
    if (votes != NULL) k = pn_select(g, votes, n, untouched, noise, p->spec.vote_clip, p->spec.threshold, in);
    else memset(in, true, n);
    if (k == 0) return PN_OK;
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

/* The part that example `number` is in: the last one that begins at or before it. */
static size_t part_of(const struct pn_private *p, uint64_t number) {
    size_t low = 0, high = p->n_parts - 1;
    while (low < high) {
        const size_t middle = (low + high + 1) / 2;
        if (p->first[middle] <= number) low = middle;
        else high = middle - 1;
    }
    return low;
}

/* The examples of these numbers as a batch; unit_begin is taken over (NULL: each by itself), also on failure. */
static enum pn_result assemble(const struct pn_private *p, const uint64_t *numbers, size_t n, uint32_t *unit_begin, size_t n_units, struct pn_batch *out) {
    const struct pn_batch **from = malloc((n + 1) * sizeof *from);
    uint32_t *example = malloc((n + 1) * sizeof *example);
    enum pn_result r = from != NULL && example != NULL ? PN_OK : PN_NO_MEMORY;
    for (size_t i = 0; r == PN_OK && i < n; i++) {
        const size_t part = part_of(p, numbers[i]);
        from[i] = &p->parts[part];
        example[i] = (uint32_t)(numbers[i] - p->first[part]);
    }
    if (r == PN_OK) r = pn_batch_gather(out, p->job, p->sparse, from, example, n);
    free(from);
    free(example);
    if (r != PN_OK) free(unit_begin);
    else {
        out->unit_begin = unit_begin;
        out->n_units = n_units;
    }
    return r;
}

/* The examples of units (rising numbers), of each at most `most`, any of them. */
static enum pn_result take(const struct pn_private *p, struct pn_draws *g, const uint64_t *units, size_t n, size_t most, struct pn_batch *out) {
    if (!p->spec.by_user) return assemble(p, units, n, NULL, 0, out);
    size_t room = 1, at = 0;
    for (size_t i = 0; i < n; i++) room += p->begin[units[i] + 1] - p->begin[units[i]];
    uint64_t *numbers = malloc(room * sizeof *numbers);
    uint32_t *begin = malloc((n + 1) * sizeof *begin);
    bool ok = numbers != NULL && begin != NULL;
    for (size_t i = 0; ok && i < n; i++) {
        const uint64_t *own = p->member + p->begin[units[i]];
        const size_t has = p->begin[units[i] + 1] - p->begin[units[i]], k = has < most ? has : most;
        begin[i] = (uint32_t)at;
        if (k < has) ok = pn_draw_others(g, has, NULL, 0, k, numbers + at);
        for (size_t j = 0; j < k; j++) numbers[at + j] = own[k < has ? numbers[at + j] : j];
        at += k;
    }
    if (ok) begin[n] = (uint32_t)at;
    else free(begin);
    const enum pn_result r = ok ? assemble(p, numbers, at, begin, n, out) : PN_NO_MEMORY;
    free(numbers);
    return r;
}

enum pn_result pn_private_visit(const struct pn_private *p, enum pn_result (*visit)(void *, const struct pn_batch *, size_t, bool), void *owner) {
    enum pn_result r = PN_OK;
    for (size_t u = 0; r == PN_OK && u < pn_private_units(p); u++) {
        const size_t begin = p->spec.by_user ? p->begin[u] : u, end = p->spec.by_user ? p->begin[u + 1] : u + 1;
        for (size_t i = begin; r == PN_OK && i < end; i++) {
            const uint64_t number = p->spec.by_user ? p->member[i] : i;
            const size_t part = part_of(p, number);
            r = visit(owner, &p->parts[part], number - p->first[part], i + 1 == end);
        }
    }
    return r;
}

enum pn_result pn_private_choose(struct pn_private *p, struct pn_draws *g) {
    if (p->spec.selection != PN_SELECT_FEST) return PN_OK;
    struct pn_batch all;
    const size_t n = pn_private_units(p);
    uint64_t *units = malloc((n + 1) * sizeof *units);
    for (size_t i = 0; units != NULL && i < n; i++) units[i] = i;
    enum pn_result r = units != NULL ? take(p, g, units, n, SIZE_MAX, &all) : PN_NO_MEMORY; /* a user votes once, for every row that one of its examples touches */
    free(units);
    if (r != PN_OK) return r;
    double *votes[PN_MAX_TABLES] = {NULL};
    bool ok = true;
    for (uint32_t t = 0; t < p->job->i_dense_table; t++) ok = (votes[t] = calloc(all.n_unique[t] + 1, sizeof **votes)) != NULL && ok;
    r = ok && count_votes(p, &all, votes) ? PN_OK : PN_NO_MEMORY;
    for (uint32_t t = 0; r == PN_OK && t < p->job->i_dense_table; t++) {
        bool *in = malloc(all.n_unique[t] + 1);
        uint64_t *others = NULL;
        size_t n_others = 0;
        r = in == NULL ? PN_NO_MEMORY : choose(p, g, t, all.unique[t], all.n_unique[t], votes[t], in, &others, &n_others);
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
    for (uint32_t t = 0; t < PN_MAX_TABLES; t++) free(votes[t]);
    pn_batch_free(&all);
    return r;
}

enum pn_result pn_private_draw(const struct pn_private *p, struct pn_draws *g, struct pn_batch *out) {
    const size_t n = pn_private_units(p);
    const double q = (double)p->spec.batch / p->spec.rows;
    const uint64_t m = pn_draws_binomial(g, n, q < 1 ? q : 1); /* as many as so many coins give, and any of them: Poisson sampling, without n coins */
    uint64_t *units = malloc((m + 1) * sizeof *units);
    enum pn_result r = units != NULL && pn_draw_others(g, n, NULL, 0, m, units) ? PN_OK : PN_NO_MEMORY;
    if (r == PN_OK) r = take(p, g, units, m, p->spec.per_unit, out);
    free(units);
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

static bool is_chosen(const struct pn_private *p, uint32_t t, uint64_t key) {
    size_t low = 0, high = p->n_chosen[t];
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (pn_mix64(p->chosen[t][middle]) < pn_mix64(key)) low = middle + 1;
        else high = middle;
    }
    return low < p->n_chosen[t] && p->chosen[t][low] == key;
}

/* values = (values + noise) * share. A float's last bits say whether the sum was zero, as noise near zero has finer ones than noise on top of something (Mironov 2012): what leaves is rounded to a
 * grid of a thousandth of the noise. */
static void release(struct pn_draws *g, float *values, size_t n, float sigma, float share) {
    const float grid = sigma > 0 ? exp2f(floorf(log2f(sigma)) - 10) : 0;
    pn_draws_add_normal(g, values, n, sigma);
    for (size_t i = 0; i < n; i++) values[i] = (grid > 0 ? rintf(values[i] / grid) * grid : values[i]) * share;
}

enum pn_result pn_private_release(const struct pn_private *p, struct pn_draws *g, const struct pn_batch *b, float *const row_gradients[PN_MAX_TABLES], float *dense, size_t n_dense,
                                  struct pn_private_push *out) {
#if PN_MUTANT == 23
    const float sigma = 0;
#else
    const float sigma = p->spec.noise * p->spec.clip * (float)(1 + p->spec.roundoff);
#endif
    const float share = 1.0f / (float)p->spec.batch;
    memset(out, 0, sizeof *out);
    double *votes[PN_MAX_TABLES] = {NULL};
    const bool vote = p->spec.selection == PN_SELECT_ADAFEST;
    bool ok = true;
    for (uint32_t t = 0; vote && t < p->job->i_dense_table; t++) ok = (votes[t] = calloc(b->n_unique[t] + 1, sizeof **votes)) != NULL && ok;
    enum pn_result r = !vote || (ok && count_votes(p, b, votes)) ? PN_OK : PN_NO_MEMORY;
    for (uint32_t t = 0; r == PN_OK && t < p->job->i_dense_table; t++) {
        const size_t n = b->n_unique[t];
        bool *in = malloc(n + 1);
        uint64_t *others = NULL;
        size_t n_others = 0;
        if (in == NULL) r = PN_NO_MEMORY;
        else if (p->spec.selection == PN_SELECT_FEST) {
            for (size_t i = 0; i < n; i++) in[i] = is_chosen(p, t, b->unique[t][i]);
            r = merge(p, t, b, row_gradients[t], in, p->chosen[t], p->n_chosen[t], out);
        } else {
            r = choose(p, g, t, b->unique[t], n, votes[t], in, &others, &n_others);
            if (r == PN_OK) r = merge(p, t, b, row_gradients[t], in, others, n_others, out);
        }
        free(in);
        free(others);
        if (r != PN_OK) break;
        const size_t cells = out->n[t] * p->job->tables[t].dim;
        release(g, out->gradients[t], cells, sigma, share);
    }
    if (r == PN_OK) release(g, dense, n_dense, sigma, share);
    else pn_private_push_free(out);
    for (uint32_t t = 0; t < PN_MAX_TABLES; t++) free(votes[t]);
    return r;
}

/* Units of a batch, if the shard has as many as it may have. */
static double drawn(const struct pn_private_spec *s) { return s->batch * s->most / s->rows; }

bool pn_private_spec_of(const struct pn_job *job, uint32_t n_producers, struct pn_private_spec *out) {
    const struct pn_privacy_spec *v = &job->privacy;
    double map = v->vote_noise, gradient = v->noise;
    if (v->rows == 0) return false;
    if (v->selection == PN_SELECT_ADAFEST) pn_privacy_split_noise(v->noise, v->noise * v->noise / (map * map), &map, &gradient);
    *out = (struct pn_private_spec){.rows = (double)v->rows / n_producers, .batch = job->batch_size, .per_unit = v->per_user > 0 ? v->per_user : 1, .by_user = v->per_user > 0, .clip = v->clip, .noise = (float)gradient, .selection = v->selection,
                                    .vote_clip = v->vote_clip, .vote_noise = map, .threshold = v->threshold, .spread = pn_job_spread(v), .most = pn_job_most_units(v, n_producers)};
    out->roundoff = pn_job_roundoff(drawn(out), out->per_unit, true);
    return true;
}

enum pn_result pn_private_on_device(struct pn_private_spec *s, struct pn_error *err) {
    const double whole = pn_job_roundoff(drawn(s), s->per_unit, false);
    if (whole > 0.25)
        return pn_fail(err, PN_REFUSED, "a device sums a private batch in float32, and in batches of %u that needs %.0f %% more noise: take smaller ones, or device: cpu", s->batch, 100 * whole);
    s->roundoff = whole;
    return PN_OK;
}
