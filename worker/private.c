/* The examples of a private shard in memory, and batches drawn from them by Poisson sampling. */
#include "worker/private.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "privacy/accountant.h"
#include "privacy/select.h"
#include "worker/private_inside.h"

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
        struct pn_private_domain *d = &p->domains[f->i_table];
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

enum pn_result pn_private_all(const struct pn_private *p, struct pn_draws *g, struct pn_batch *out) {
    const size_t n = pn_private_units(p);
    uint64_t *units = malloc((n + 1) * sizeof *units);
    for (size_t i = 0; units != NULL && i < n; i++) units[i] = i;
    const enum pn_result r = units != NULL ? take(p, g, units, n, SIZE_MAX, out) : PN_NO_MEMORY;
    free(units);
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

enum pn_result pn_private_draw(const struct pn_private *p, struct pn_draws *g, struct pn_batch *out) {
    const size_t n = pn_private_units(p);
    const double q = (double)p->spec.batch / p->spec.rows;
    const uint64_t m = pn_draws_binomial(g, n, q < 1 ? q : 1); /* as many as so many coins give, and any of them: Poisson sampling, without n coins */
    uint64_t *units = malloc((m + 1) * sizeof *units);
    enum pn_result r = units != NULL && pn_draw_others(g, n, NULL, 0, m, units) ? PN_OK : PN_NO_MEMORY;
    if (r == PN_OK) r = take(p, g, units, m, p->spec.per_unit, out);
    free(units);
    if (r != PN_OK || pn_private_mark(p, out)) return r;
    pn_batch_free(out);
    return PN_NO_MEMORY;
}

/* Units of a batch, if the shard has as many as it may have. */
static double drawn(const struct pn_private_spec *s) { return s->batch * s->most / s->rows; }

bool pn_private_spec_of(const struct pn_job *job, uint32_t n_producers, struct pn_private_spec *out) {
    const struct pn_privacy_spec *v = &job->privacy;
    const bool each = v->selection == PN_SELECT_ADAFEST;
    double map = v->vote_noise, gradient = v->noise;
    if (v->rows == 0) return false;
    if (each) pn_privacy_split_noise(v->noise, v->noise * v->noise / (map * map), &map, &gradient);
    *out = (struct pn_private_spec){.rows = (double)v->rows / n_producers, .batch = job->batch_size, .per_unit = v->per_user > 0 ? v->per_user : 1, .by_user = v->per_user > 0, .clip = v->clip, .noise = (float)gradient, .selection = v->selection,
                                    .spread = pn_job_spread(v), .most = pn_job_most_units(v, n_producers)};
    if (each) out->each = (struct pn_vote_rule){v->vote_clip, map, v->threshold};
    if (pn_job_chooses(v)) out->once = each ? (struct pn_vote_rule){v->choice.clip, v->choice.noise, v->choice.threshold} : (struct pn_vote_rule){v->vote_clip, v->vote_noise, v->threshold};
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
