/* Hot rows in front of the servers: find -> (the caller pulls what is missing) -> begin_found, which puts both together and keeps what was pulled. nn/cache.h holds the rows;
 * here is what stands around it: a cache for each table (keys of two tables may be the same number), and the looks, where rows that were found wait for their step's
 * others. All of it runs on the stream IN: in the order of the steps, beside the step that computes. */
#include <string.h>
#include "nn/device_inside.h"

enum { FOUND = 3 * PN_DEVICE_SLOTS, FETCHED, COUNT_EVERY = 32 };

/* No more than the table's fields can have keys, where that is known. */
static size_t room_of(const struct pn_job *job, uint32_t t, uint64_t rows) {
    uint64_t domain = 0;
    for (size_t i = 0; i < job->n_fields; i++) {
        const struct pn_field *f = &job->fields[i];
        if (!pn_field_keyed(f) || f->i_table != t) continue;
        const uint64_t own = pn_field_domain(f);
        if (own == 0) return (size_t)rows;
        domain += own + 1;
    }
    return (size_t)(domain < rows ? domain : rows);
}

enum pn_result pn_device_cache(struct pn_device *d, uint64_t rows_a_table, uint32_t staleness, struct pn_error *err) {
    const struct pn_job *job = d->net->job;
    if (d->be->cache == NULL) return pn_fail(err, PN_REFUSED, "backend %s has no cache of rows", d->be->name);
    for (uint32_t t = 0; t < job->i_dense_table; t++) {
        const size_t room = room_of(job, t, rows_a_table);
        d->cached.tables[t] = d->be->cache->open(d->ctx, room, d->dim);
        if (d->cached.tables[t] == NULL) return pn_fail(err, PN_NO_MEMORY, "deviceCache: no memory on the device for %zu rows of table %s: lower training.deviceCache.rows", room, job->tables[t].name);
    }
    d->cached.staleness = staleness;
    return PN_OK;
}

static void drop(struct pn_device *d, struct pn_device_look *l) {
    void *dev[] = {l->keys, l->hit, l->rows}, *host[] = {l->host_keys, l->host_hit};
    for (size_t i = 0; i < 3; i++)
        if (dev[i] != NULL) d->be->free(d->ctx, dev[i]);
    for (size_t i = 0; i < 2; i++)
        if (host[i] != NULL) d->be->host_free(d->ctx, host[i]);
    *l = (struct pn_device_look){0};
}
void pn_device_cache_close(struct pn_device *d) {
    for (size_t i = 0; i < PN_DEVICE_LOOKS; i++) drop(d, &d->cached.looks[i]);
    for (size_t t = 0; t < PN_MAX_TABLES; t++)
        if (d->cached.tables[t] != NULL) d->be->cache->close(d->cached.tables[t]);
}

static bool reserve(struct pn_device *d, struct pn_device_look *l, size_t n) {
    if (n <= l->room && l->keys != NULL) return true;
    drop(d, l);
    l->room = n + n / 4 + 64;
    l->keys = d->be->alloc(d->ctx, l->room * sizeof(uint64_t));
    l->hit = d->be->alloc(d->ctx, l->room * sizeof(uint32_t));
    l->rows = d->be->alloc(d->ctx, l->room * d->dim * sizeof(float));
    l->host_keys = d->be->host_alloc(d->ctx, l->room * sizeof(uint64_t));
    l->host_hit = d->be->host_alloc(d->ctx, l->room * sizeof(uint32_t));
    return l->keys != NULL && l->hit != NULL && l->rows != NULL && l->host_keys != NULL && l->host_hit != NULL;
}

enum pn_result pn_device_find(struct pn_device *d, size_t look, const struct pn_batch *b, uint64_t now, bool empty, uint32_t *const missing[PN_MAX_TABLES],
                              size_t n_missing[PN_MAX_TABLES], struct pn_error *err) {
    const struct pn_backend *be = d->be;
    struct pn_device_cached *c = &d->cached;
    struct pn_device_look *l = &c->looks[look];
    const uint32_t n_tables = d->net->job->i_dense_table;
    size_t n = 0;
    for (uint32_t t = 0; t < n_tables; t++) n += b->n_unique[t];
    if (!reserve(d, l, n)) return pn_fail(err, PN_NO_MEMORY, "no memory on the device for the keys of a batch of %zu examples", b->n_examples);
    l->n = n;
    l->now = now;
    n = 0;
    for (uint32_t t = 0; t < n_tables; t++) {
        l->base[t] = n;
        if (b->n_unique[t] > 0) memcpy((uint64_t *)l->host_keys + n, b->unique[t], b->n_unique[t] * sizeof(uint64_t));
        n += b->n_unique[t];
    }
    be->upload(d->ctx, l->keys, l->host_keys, n * sizeof(uint64_t));
    for (uint32_t t = 0; t < n_tables; t++) {
        if (empty) {
            be->cache->empty(c->tables[t]);
            c->counts.rows = 0;
        }
        be->cache->find(c->tables[t], (uint64_t *)l->keys + l->base[t], b->n_unique[t], (uint32_t)now, c->staleness, l->rows + l->base[t] * d->dim, (uint32_t *)l->hit + l->base[t]);
    }
    be->mark(d->ctx, PN_STREAM_IN, FOUND);
    be->after(d->ctx, PN_STREAM_OUT, FOUND);
    be->download(d->ctx, l->host_hit, l->hit, n * sizeof(uint32_t));
    be->mark(d->ctx, PN_STREAM_OUT, FETCHED);
    const enum pn_result r = be->await(d->ctx, FETCHED, err);
    if (r != PN_OK) return r;
    const uint32_t *hit = l->host_hit;
    size_t n_pulled = 0;
    for (uint32_t t = 0; t < n_tables; t++) {
        n_missing[t] = 0;
        for (uint32_t i = 0; i < b->n_unique[t]; i++)
            if (hit[l->base[t] + i] == 0) missing[t][n_missing[t]++] = i;
        n_pulled += n_missing[t];
    }
    c->counts.keys += l->n;
    c->counts.found += l->n - n_pulled;
    if (c->finds++ % COUNT_EVERY == 0 || empty)
        for (uint32_t t = 0; t < n_tables; t++) { /* they count since the last time, from before `empty` too */
            const struct pn_cache_counts k = be->cache->look(c->tables[t]);
            c->counts.evicted += k.evicted;
            c->counts.rows += empty ? 0 : k.inserted;
        }
    return PN_OK;
}

size_t pn_device_cache_pack(struct pn_device *d, struct pn_device_look *l, const struct pn_batch *b, const float *const rows[PN_MAX_TABLES], float *pulled, uint32_t *source) {
    const uint32_t *hit = l->host_hit;
    size_t n = 0;
    for (uint32_t t = 0; t < d->net->job->i_dense_table; t++)
        for (size_t i = 0; i < b->n_unique[t]; i++) {
            const size_t at = l->base[t] + i;
            source[at] = hit[at] != 0 ? UINT32_MAX : (uint32_t)n;
            if (hit[at] == 0) memcpy(pulled + n++ * d->dim, rows[t] + i * d->dim, d->dim * sizeof *pulled);
        }
    return n;
}

void pn_device_cache_place(struct pn_device *d, struct pn_device_slot *s, struct pn_device_look *l, bool keep, const struct pn_batch *b) {
    float *rows = s->parts[PN_PART_ROWS].dev;
    d->be->cache->assemble(d->ctx, l->rows, s->parts[PN_PART_PULLED].dev, s->parts[PN_PART_SOURCE].dev, l->n, d->dim, rows);
    for (uint32_t t = 0; keep && t < d->net->job->i_dense_table; t++)
        d->be->cache->insert(d->cached.tables[t], (uint64_t *)l->keys + l->base[t], rows + l->base[t] * d->dim, (uint32_t *)l->hit + l->base[t], b->n_unique[t], (uint32_t)l->now);
}

enum pn_result pn_device_begin_found(struct pn_device *d, size_t slot, size_t look, bool keep, const struct pn_batch *b, const float *const rows[PN_MAX_TABLES], const float *parameters,
                                     uint64_t seed, struct pn_error *err) {
    const enum pn_result r = pn_device_queue(d, slot, &d->cached.looks[look], keep, NULL, b, rows, parameters, seed, err);
    if (r == PN_OK) pn_device_collect(d, slot, true);
    return r;
}

struct pn_device_cache_counts pn_device_cache_look(const struct pn_device *d) { return d->cached.counts; }
