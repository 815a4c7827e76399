#include "ps/tier/rocksdb.h"
#include <pthread.h>
#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BATCH 128u           /* keys of a MultiGet, and what the two threads of a get take at a time */

struct database {
    struct pn_tiers tiers;   /* first */
    char dir[400];
    rocksdb_t *db;
    rocksdb_options_t *options;
    rocksdb_readoptions_t *read, *read_all;
    rocksdb_writeoptions_t *write;
    rocksdb_column_family_handle_t *main;
    uint64_t n_opened;
    /* One helper shares a large get. Nobody waits for it: a batch that it has not finished when all are taken is looked up again. */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool started;
    struct get *job;         /* under the lock, as all that follows */
    uint64_t number;         /* of the job: what the helper found for another is of no use */
    size_t helper_begin, helper_n; /* the batch that it has in hand; 0: none */
};
struct get {
    struct tier *tier;
    const uint64_t *keys;
    size_t n, n_bytes;
    uint8_t *records;
    bool *found;
    _Atomic size_t next;     /* the first key that nobody has taken */
    bool failed;             /* the helper saw the store fail; under the lock */
};
struct tier {
    struct pn_tier tier;     /* first */
    struct database *db;
    rocksdb_column_family_handle_t *family;
};
struct pn_tier_scan { struct tier *t; rocksdb_iterator_t *it; bool begun; };

static struct tier *tier_of(struct pn_tier *t) { return (struct tier *)(void *)t; }

/* ---- get ---- */
/* False: the store failed. */
static bool get_batch(struct tier *t, const uint64_t *numbers, size_t n, size_t n_bytes, uint8_t *records, bool *found) {
    uint64_t wire[BATCH];
    const char *keys[BATCH] = {0};
    size_t sizes[BATCH] = {0};
    rocksdb_pinnableslice_t *values[BATCH];
    char *errors[BATCH];
    bool ok = true;
    for (size_t i = 0; i < n; i++) {
        wire[i] = __builtin_bswap64(numbers[i]); /* sorted as numbers are */
        keys[i] = (const char *)&wire[i];
        sizes[i] = sizeof wire[i];
    }
    rocksdb_batched_multi_get_cf(t->db->db, t->db->read, t->family, n, keys, sizes, values, errors, false);
    for (size_t i = 0; i < n; i++) {
        found[i] = false;
        if (errors[i] != NULL) {
            ok = false;
            free(errors[i]);
        }
        if (values[i] == NULL) continue;
        size_t size;
        const char *value = rocksdb_pinnableslice_value(values[i], &size);
        if (value != NULL && size == t->tier.record_bytes) {
            memcpy(records + i * n_bytes, value, n_bytes);
            found[i] = true;
        } else {
            ok = false;
        }
        rocksdb_pinnableslice_destroy(values[i]);
    }
    return ok;
}

/* The next batch that nobody has taken; how many keys; 0: none is left. */
static size_t take(struct get *g, size_t *begin) {
    *begin = atomic_fetch_add(&g->next, BATCH);
    return *begin >= g->n ? 0 : g->n - *begin < BATCH ? g->n - *begin : BATCH;
}
static bool get_here(const struct get *g, size_t begin, size_t n) {
    return get_batch(g->tier, g->keys + begin, n, g->n_bytes, g->records + begin * g->n_bytes, g->found + begin);
}

/* Works on copies: the owner may be done with its job, and with the table, before the helper is. */
static void *help(void *ctx) {
    struct database *d = ctx;
    uint64_t keys[BATCH];
    bool found[BATCH];
    uint8_t *records = NULL;
    size_t room = 0;
    rocksdb_set_perf_level(rocksdb_disable);
    pthread_mutex_lock(&d->lock);
    for (;;) {
        struct get *g = d->job;
        size_t begin = 0;
        if (g != NULL && room < BATCH * g->n_bytes) {
            free(records);
            records = malloc(BATCH * g->n_bytes);
            room = records != NULL ? BATCH * g->n_bytes : 0;
        }
        const size_t n = g != NULL && records != NULL ? take(g, &begin) : 0;
        if (n == 0) {
            pthread_cond_wait(&d->wake, &d->lock);
            continue;
        }
        const uint64_t number = d->number;
        const size_t n_bytes = g->n_bytes;
        struct tier *t = g->tier;
        memcpy(keys, g->keys + begin, n * sizeof *keys);
        pn_tier_ref(&t->tier);
        d->helper_begin = begin;
        d->helper_n = n;
        pthread_mutex_unlock(&d->lock);
        const bool ok = get_batch(t, keys, n, n_bytes, records, found);
        pn_tier_unref(&t->tier);
        pthread_mutex_lock(&d->lock);
        if (d->number != number) continue; /* too late */
        memcpy(g->records + begin * n_bytes, records, n * n_bytes);
        memcpy(g->found + begin, found, n * sizeof *found);
        g->failed = g->failed || !ok;
        d->helper_n = 0;
    }
    return NULL;
}

static bool get(struct pn_tier *tier, const uint64_t *keys, size_t n, size_t n_bytes, void *records, bool *found) {
    struct database *d = tier_of(tier)->db;
    struct get g = {.tier = tier_of(tier), .keys = keys, .n = n, .n_bytes = n_bytes, .records = records, .found = found};
    size_t begin, count;
    bool ok = true;
    if (n <= BATCH || !d->started) {
        while ((count = take(&g, &begin)) > 0) ok = get_here(&g, begin, count) && ok;
        return ok;
    }
    pthread_mutex_lock(&d->lock);
    d->job = &g;
    d->number++;
    d->helper_n = 0;
    pthread_cond_signal(&d->wake);
    pthread_mutex_unlock(&d->lock);
    while ((count = take(&g, &begin)) > 0) ok = get_here(&g, begin, count) && ok;
    pthread_mutex_lock(&d->lock);
    d->job = NULL;
    d->number++;
    begin = d->helper_begin;
    count = d->helper_n;
    ok = ok && !g.failed;
    pthread_mutex_unlock(&d->lock);
    return (count == 0 || get_here(&g, begin, count)) && ok;
}

/* ---- put, scan ---- */
static bool put(struct pn_tier *tier, const uint64_t *keys, const void *records, size_t n) {
    struct database *d = tier_of(tier)->db;
    enum { PIECE = 1024 };
    bool ok = true;
    for (size_t at = 0; at < n && ok; at += PIECE) {
        rocksdb_writebatch_t *b = rocksdb_writebatch_create();
        for (size_t i = at; i < n && i < at + PIECE; i++) {
            const uint64_t wire = __builtin_bswap64(keys[i]);
            rocksdb_writebatch_put_cf(b, tier_of(tier)->family, (const char *)&wire, sizeof wire, (const char *)records + i * tier->record_bytes, tier->record_bytes);
        }
        char *err = NULL;
        rocksdb_write(d->db, d->write, b, &err);
        ok = err == NULL;
        free(err);
        rocksdb_writebatch_destroy(b);
    }
    return ok;
}

/* A delete is a mark that hides what older files hold; compacting the key's range writes these anew, without it. */
static bool take_out(struct pn_tier *tier, const uint64_t *keys, size_t n) {
    struct tier *t = tier_of(tier);
    char *err = NULL;
    for (size_t i = 0; i < n && err == NULL; i++) {
        const uint64_t wire = __builtin_bswap64(keys[i]);
        rocksdb_delete_cf(t->db->db, t->db->write, t->family, (const char *)&wire, sizeof wire, &err);
    }
    rocksdb_flushoptions_t *o = rocksdb_flushoptions_create();
    if (err == NULL) rocksdb_flush_cf(t->db->db, o, t->family, &err);
    rocksdb_flushoptions_destroy(o);
    for (size_t i = 0; i < n && err == NULL; i++) {
        const uint64_t wire = __builtin_bswap64(keys[i]);
        rocksdb_compact_range_cf(t->db->db, t->family, (const char *)&wire, sizeof wire, (const char *)&wire, sizeof wire);
    }
    const bool ok = err == NULL;
    free(err);
    return ok;
}

static struct pn_tier_scan *scan(struct pn_tier *tier) {
    struct pn_tier_scan *s = calloc(1, sizeof *s);
    if (s == NULL) return NULL;
    s->t = tier_of(tier);
    s->it = rocksdb_create_iterator_cf(s->t->db->db, s->t->db->read_all, s->t->family);
    rocksdb_iter_seek_to_first(s->it);
    return s;
}

static size_t next(struct pn_tier_scan *s, uint64_t *keys, void *records, size_t max, bool *failed) {
    size_t n = 0;
    for (; n < max && rocksdb_iter_valid(s->it); n++, rocksdb_iter_next(s->it)) {
        size_t key_bytes, bytes;
        const char *key = rocksdb_iter_key(s->it, &key_bytes), *value = rocksdb_iter_value(s->it, &bytes);
        if (key_bytes != 8 || bytes != s->t->tier.record_bytes) break;
        memcpy(&keys[n], key, 8);
        keys[n] = __builtin_bswap64(keys[n]);
        memcpy((uint8_t *)records + n * bytes, value, bytes);
    }
    char *err = NULL;
    rocksdb_iter_get_error(s->it, &err);
    *failed = err != NULL || (n < max && rocksdb_iter_valid(s->it));
    free(err);
    return *failed ? 0 : n;
}

static void scan_end(struct pn_tier_scan *s) {
    rocksdb_iter_destroy(s->it);
    free(s);
}

static uint64_t bytes(const struct pn_tier *tier) {
    const struct tier *t = (const struct tier *)(const void *)tier;
    uint64_t n = 0;
    rocksdb_property_int_cf(t->db->db, t->family, "rocksdb.total-sst-files-size", &n);
    return n;
}

static void destroy(struct pn_tier *tier) {
    struct tier *t = tier_of(tier);
    char *err = NULL;
    rocksdb_drop_column_family(t->db->db, t->family, &err);
    free(err);
    rocksdb_column_family_handle_destroy(t->family);
    free(t);
}

static const struct pn_tier_ops ops = {.get = get, .put = put, .remove = take_out, .scan = scan, .next = next, .scan_end = scan_end, .bytes = bytes, .destroy = destroy};

/* ---- the database ---- */
static enum pn_result open_database(struct database *d, struct pn_error *err) {
    char *why = NULL;
    rocksdb_destroy_db(d->options, d->dir, &why); /* scratch of an earlier life */
    free(why);
    why = NULL;
    const char *names[1] = {"default"};
    const rocksdb_options_t *options[1] = {d->options};
    for (char *slash = strchr(d->dir + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(d->dir, 0777);
        *slash = '/';
    }
    d->db = rocksdb_open_column_families(d->options, d->dir, 1, names, options, &d->main, &why);
    if (why == NULL) {
        pthread_t helper;
        rocksdb_set_perf_level(rocksdb_disable); /* its counters are a tenth of a lookup */
        d->started = pthread_create(&helper, NULL, help, d) == 0;
        return PN_OK;
    }
    pn_fail(err, PN_IO, "the second tier in %s cannot be opened: %s", d->dir, why);
    free(why);
    d->db = NULL;
    return PN_IO;
}

static enum pn_result open_tier(struct pn_tiers *tiers, const char *name, size_t record_bytes, struct pn_tier **out, struct pn_error *err) {
    struct database *d = (struct database *)(void *)tiers;
    if (d->db == NULL) {
        enum pn_result r = open_database(d, err);
        if (r != PN_OK) return r;
    }
    struct tier *t = calloc(1, sizeof *t);
    if (t == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for a second tier");
    char family[100], *why = NULL;
    snprintf(family, sizeof family, "%.64s-%llu", name, (unsigned long long)++d->n_opened); /* the one before may still be read */
    t->tier.ops = &ops;
    t->tier.record_bytes = record_bytes;
    atomic_init(&t->tier.refs, 1);
    t->db = d;
    t->family = rocksdb_create_column_family(d->db, d->options, family, &why);
    if (why != NULL) {
        pn_fail(err, PN_IO, "the second tier of table %s cannot be made: %s", name, why);
        free(why);
        free(t);
        return PN_IO;
    }
    *out = &t->tier;
    return PN_OK;
}

struct pn_tiers *pn_tiers_rocksdb(const char *dir) {
    struct database *d = calloc(1, sizeof *d);
    if (d == NULL || strlen(dir) >= sizeof d->dir) {
        free(d);
        return NULL;
    }
    d->tiers.open = open_tier;
    snprintf(d->dir, sizeof d->dir, "%s", dir);
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->wake, NULL);
    rocksdb_options_t *o = d->options = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(o, 1);
    rocksdb_options_set_compression(o, rocksdb_no_compression);
    /* Plain tables: mapped files, an index by hash over the first three bytes of a key (16M prefixes: a row or so each), a Bloom filter a file. */
    rocksdb_options_set_allow_mmap_reads(o, 1);
    rocksdb_options_set_prefix_extractor(o, rocksdb_slicetransform_create_fixed_prefix(3));
    rocksdb_options_set_plain_table_factory(o, 8, 10, 0.75, 16);
    rocksdb_options_set_max_sequential_skip_in_iterations(o, UINT64_MAX); /* an iterator that met many versions of a key would seek, which plain tables cannot in the order of keys */
    rocksdb_options_set_level0_slowdown_writes_trigger(o, 40);
    rocksdb_options_set_level0_stop_writes_trigger(o, 60);
    rocksdb_options_set_memtable_prefix_bloom_size_ratio(o, 0.1); /* most lookups are of rows that were flushed long ago */
    rocksdb_options_set_write_buffer_size(o, 32u << 20);
    rocksdb_options_set_max_write_buffer_number(o, 3);
    rocksdb_options_set_target_file_size_base(o, 64u << 20);
    rocksdb_options_set_max_bytes_for_level_base(o, 512u << 20);
    rocksdb_options_set_max_background_jobs(o, 2);
    rocksdb_options_set_info_log_level(o, 3); /* errors */
    rocksdb_options_set_keep_log_file_num(o, 2);
    rocksdb_options_set_max_open_files(o, -1);
    d->read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(d->read, 0);
    d->read_all = rocksdb_readoptions_create();
    rocksdb_readoptions_set_total_order_seek(d->read_all, 1);
    d->write = rocksdb_writeoptions_create();
    rocksdb_writeoptions_disable_WAL(d->write, 1);
    rocksdb_writeoptions_set_memtable_insert_hint_per_batch(d->write, 1); /* batches come sorted */
    return &d->tiers;
}
