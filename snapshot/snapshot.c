/* A version mapped read-only: the manifest names the files, map() gets them, verify() believes nothing of what is in them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/json.h"
#include "snapshot/internal.h"

#define MAX_FILES 4096u
#define MAX_MANIFEST (4u << 20)
#define NO_SEGMENT 0xffffu
#define MANY_SEGMENTS 0xfffeu

struct file { char name[64], digest[65]; const void *data; size_t n_bytes; };

struct pn_snapshot {
    struct pn_env *env;
    char dir[512], model[64];
    uint64_t version, published_ms;
    int storage;
    struct file *files;
    size_t n_files;
    /* after verify */
    bool verified, has_job;
    struct pn_job job;
    char *statistics;
    const struct file *dense;
    struct pn_segment *segments;
    size_t n_segments;
    uint64_t n_rows;
    uint16_t segment_of[PN_SLOTS]; /* a slot's rows are in this segment; NO_SEGMENT, MANY_SEGMENTS: ask all */
};

void pn_snapshot_close(struct pn_snapshot *s) {
    if (s == NULL) return;
    for (size_t i = 0; i < s->n_files; i++)
        if (s->files[i].data != NULL) s->env->ops->unmap(s->env, s->files[i].data, s->files[i].n_bytes);
    if (s->has_job) pn_job_free(&s->job);
    free(s->statistics);
    free(s->segments);
    free(s->files);
    free(s);
}

/* ---- map ---- */

/* A name of a file in the folder itself: what the manifest says must not lead elsewhere. */
bool pn_snapshot_plain_name(struct json_object *file, char name[64]) {
    struct json_object *o = pn_json_get(file, "name");
    if (o == NULL || !json_object_is_type(o, json_type_string)) return false;
    const char *text = json_object_get_string(o);
    size_t n = (size_t)json_object_get_string_len(o);
    if (n == 0 || n >= 64 || text[0] == '.') return false;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-')) return false;
    }
    memcpy(name, text, n + 1);
    return true;
}

static enum pn_result read_manifest(struct pn_snapshot *s, struct json_object *m, struct pn_error *err) {
    static const char *const storages[] = {"float32", "float16", "int8", NULL};
    if (m == NULL || !json_object_is_type(m, json_type_object)) return pn_fail(err, PN_CORRUPT, "%s/manifest.json is no JSON object", s->dir);
    if (pn_json_u64(m, "format", 0) != 1) return pn_fail(err, PN_CORRUPT, "%s/manifest.json: format is not 1, the one this program reads", s->dir);
    s->version = pn_json_u64(m, "version", 0);
    s->published_ms = pn_json_u64(m, "published_ms", 0);
    if (s->version == 0) return pn_fail(err, PN_CORRUPT, "%s/manifest.json has no version", s->dir);
    snprintf(s->model, sizeof s->model, "%s", pn_json_str(m, "model", ""));
    const char *storage = pn_json_str(m, "storage", "");
    for (s->storage = 0; storages[s->storage] != NULL && strcmp(storages[s->storage], storage) != 0;) s->storage++;
    if (storages[s->storage] == NULL) return pn_fail(err, PN_CORRUPT, "%s/manifest.json: unknown storage \"%.20s\"", s->dir, storage);
    struct json_object *files = pn_json_get(m, "files");
    size_t n = pn_json_length(files);
    if (n == 0 || n > MAX_FILES) return pn_fail(err, PN_CORRUPT, "%s/manifest.json lists %zu files", s->dir, n);
    s->files = calloc(n, sizeof *s->files);
    if (s->files == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for %s", s->dir);
    for (size_t i = 0; i < n; i++) {
        struct json_object *o = pn_json_at(files, i);
        struct file *f = &s->files[i];
        if (!pn_snapshot_plain_name(o, f->name)) return pn_fail(err, PN_CORRUPT, "%s/manifest.json: the name of file %zu is not a plain file name", s->dir, i);
        const char *digest = pn_json_str(o, "digest", "");
        f->n_bytes = pn_json_u64(o, "bytes", 0);
        if (strlen(digest) != 64 || f->n_bytes == 0) return pn_fail(err, PN_CORRUPT, "%s/manifest.json: %s has no size or no digest", s->dir, f->name);
        memcpy(f->digest, digest, 65);
        for (size_t k = 0; k < i; k++)
            if (strcmp(s->files[k].name, f->name) == 0) return pn_fail(err, PN_CORRUPT, "%s/manifest.json: %s stands twice", s->dir, f->name);
    }
    s->n_files = n;
    return PN_OK;
}

static enum pn_result map_file(struct pn_snapshot *s, struct file *f, struct pn_error *err) {
    char path[600];
    const void *data = NULL;
    size_t n = 0;
    snprintf(path, sizeof path, "%s/%s", s->dir, f->name);
    enum pn_result r = s->env->ops->map(s->env, path, &data, &n);
    if (r != PN_OK) return pn_fail(err, r == PN_NOT_FOUND ? PN_CORRUPT : r, "%s cannot be mapped: %s", path, pn_result_name(r));
    if (n != f->n_bytes) {
        s->env->ops->unmap(s->env, data, n);
        return pn_fail(err, PN_CORRUPT, "%s has %zu bytes, the manifest says %zu", path, n, f->n_bytes);
    }
    f->data = data;
    return PN_OK;
}

enum pn_result pn_snapshot_map(struct pn_snapshot **out, struct pn_env *env, const char *dir, struct pn_error *err) {
    struct pn_snapshot *s = calloc(1, sizeof *s);
    *out = NULL;
    if (s == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for %s", dir);
    s->env = env;
    enum pn_result r = PN_OK;
    int length = snprintf(s->dir, sizeof s->dir, "%s", dir);
    if (length < 1 || (size_t)length >= sizeof s->dir) r = pn_fail(err, PN_INVALID, "a snapshot's path of %d characters", length);
    if (r == PN_OK) {
        char path[600];
        const void *data = NULL;
        size_t n = 0;
        snprintf(path, sizeof path, "%s/manifest.json", dir);
        r = env->ops->map(env, path, &data, &n);
        if (r != PN_OK) {
            r = pn_fail(err, r, "%s cannot be mapped: %s", path, pn_result_name(r));
        } else {
            struct pn_error why = {""};
            struct json_object *m = n > 0 && n <= MAX_MANIFEST ? pn_json_parse(data, n, &why) : NULL;
            r = m == NULL ? pn_fail(err, PN_CORRUPT, "%s: %s", path, why.text[0] ? why.text : "empty or too long") : read_manifest(s, m, err);
            if (m != NULL) json_object_put(m);
            env->ops->unmap(env, data, n);
        }
    }
    for (size_t i = 0; r == PN_OK && i < s->n_files; i++) r = map_file(s, &s->files[i], err);
    if (r != PN_OK) {
        pn_snapshot_close(s);
        return r;
    }
    *out = s;
    return PN_OK;
}

/* ---- verify ---- */

static const struct file *find_file(const struct pn_snapshot *s, const char *name) {
    for (size_t i = 0; i < s->n_files; i++)
        if (strcmp(s->files[i].name, name) == 0) return &s->files[i];
    return NULL;
}

static enum pn_result verify_segment(struct pn_snapshot *s, const struct file *f, struct pn_error *err) {
    struct pn_error why = {""};
    const size_t index = s->n_segments;
    struct pn_segment *g = &s->segments[index];
    enum pn_result r = pn_segment_read(g, f->data, f->n_bytes, &why);
    if (r != PN_OK) return pn_fail(err, r, "%s/%s, %s", s->dir, f->name, why.text);
    if (g->storage != s->storage) return pn_fail(err, PN_CORRUPT, "%s/%s has another storage than the manifest", s->dir, f->name);
    for (uint32_t t = 0; t < g->n_tables; t++) {
        const struct pn_segment_table *table = &g->tables[t];
        const struct pn_table_spec *spec = table->i_table < s->job.n_tables ? &s->job.tables[table->i_table] : NULL;
        if (spec == NULL || spec->explicit_rows || spec->dim != table->dim)
            return pn_fail(err, PN_CORRUPT, "%s/%s, block of table %u: the job has no such table of %u floats a row", s->dir, f->name, table->i_table, table->dim);
        s->n_rows += table->n_rows;
        for (size_t i = 0; i < table->n_rows; i++) {
            uint16_t *owner = &s->segment_of[pn_slot_of(table->keys[i])];
            if (*owner == NO_SEGMENT) *owner = (uint16_t)index;
            else if (*owner != index) *owner = MANY_SEGMENTS;
        }
    }
    s->n_segments++;
    return PN_OK;
}

static enum pn_result verify_job(struct pn_snapshot *s, struct pn_error *err) {
    const struct file *job = find_file(s, "job.yaml"), *statistics = find_file(s, "statistics.json");
    struct pn_error why = {""};
    s->dense = find_file(s, "dense.safetensors");
    if (job == NULL || statistics == NULL || s->dense == NULL)
        return pn_fail(err, PN_CORRUPT, "%s/manifest.json does not list %s", s->dir, job == NULL ? "job.yaml" : statistics == NULL ? "statistics.json" : "dense.safetensors");
    enum pn_result r = pn_job_parse(&s->job, job->data, job->n_bytes, "job.yaml", NULL, NULL, &why);
    if (r != PN_OK) return pn_fail(err, PN_CORRUPT, "%s: %s", s->dir, why.text);
    s->has_job = true;
    s->statistics = malloc(statistics->n_bytes + 1);
    if (s->statistics == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for %s", s->dir);
    memcpy(s->statistics, statistics->data, statistics->n_bytes);
    s->statistics[statistics->n_bytes] = '\0';
    return PN_OK;
}

enum pn_result pn_snapshot_verify(struct pn_snapshot *s, struct pn_error *err) {
    if (s->verified) return PN_OK;
    for (size_t i = 0; i < s->n_files; i++) {
        struct pn_digest d;
        char hex[65];
        pn_digest_start(&d);
        pn_digest_add(&d, s->files[i].data, s->files[i].n_bytes);
        pn_digest_hex(&d, hex);
        if (memcmp(hex, s->files[i].digest, 64) != 0)
            return pn_fail(err, PN_CORRUPT, "%s/%s is damaged: its digest is not the manifest's", s->dir, s->files[i].name);
    }
    enum pn_result r = verify_job(s, err);
    if (r != PN_OK) return r;
    for (size_t k = 0; k < PN_SLOTS; k++) s->segment_of[k] = NO_SEGMENT;
    s->segments = calloc(s->n_files, sizeof *s->segments);
    if (s->segments == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for %s", s->dir);
    for (size_t i = 0; r == PN_OK && i < s->n_files; i++) {
        size_t n = strlen(s->files[i].name);
        if (n > 4 && strcmp(s->files[i].name + n - 4, ".seg") == 0) r = verify_segment(s, &s->files[i], err);
    }
    s->verified = r == PN_OK;
    return r;
}

enum pn_result pn_snapshot_open(struct pn_snapshot **out, struct pn_env *env, const char *dir, struct pn_error *err) {
    enum pn_result r = pn_snapshot_map(out, env, dir, err);
    if (r == PN_OK && (r = pn_snapshot_verify(*out, err)) != PN_OK) {
        pn_snapshot_close(*out);
        *out = NULL;
    }
    return r;
}

/* ---- reading ---- */

const struct pn_job *pn_snapshot_job(const struct pn_snapshot *s) { return &s->job; }
uint64_t pn_snapshot_version(const struct pn_snapshot *s) { return s->version; }
const char *pn_snapshot_model(const struct pn_snapshot *s) { return s->model; }
uint64_t pn_snapshot_published_ms(const struct pn_snapshot *s) { return s->published_ms; }
const char *pn_snapshot_statistics(const struct pn_snapshot *s) { return s->statistics; }
uint64_t pn_snapshot_rows(const struct pn_snapshot *s) { return s->n_rows; }
const void *pn_snapshot_file(const struct pn_snapshot *s, const char *name, size_t *n_bytes) {
    const struct file *f = find_file(s, name);
    *n_bytes = f != NULL ? f->n_bytes : 0;
    return f != NULL ? f->data : NULL;
}
const float *pn_snapshot_dense(const struct pn_snapshot *s, const char *block, size_t *n) { return pn_safetensors_find(s->dense->data, s->dense->n_bytes, block, n); }

static const struct pn_segment_table *table_of(const struct pn_segment *g, uint32_t i_table) {
    for (uint32_t t = 0; t < g->n_tables; t++)
        if (g->tables[t].i_table == i_table) return &g->tables[t];
    return NULL;
}

static bool find_in_all(const struct pn_snapshot *s, uint32_t i_table, uint64_t key, float *row) {
    for (size_t i = 0; i < s->n_segments; i++) {
        const struct pn_segment_table *t = table_of(&s->segments[i], i_table);
        size_t at = t == NULL ? SIZE_MAX : pn_segment_find(t, key, pn_segment_guess(t, key));
        if (at == SIZE_MAX) continue;
        pn_segment_row(&s->segments[i], t, at, row);
        return true;
    }
    return false;
}

/* Groups of keys go together through three passes (guess, find, copy), so that their cache misses overlap. */
enum { GROUP = 16 };

static int rising(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}
size_t pn_snapshot_keys(const struct pn_snapshot *s, uint32_t i_table, uint64_t *keys) {
    size_t n = 0;
    for (size_t i = 0; i < s->n_segments; i++) {
        const struct pn_segment_table *t = table_of(&s->segments[i], i_table);
        if (t == NULL) continue;
        if (keys != NULL) memcpy(keys + n, t->keys, t->n_rows * sizeof *keys);
        n += t->n_rows;
    }
    if (keys == NULL) return n;
    qsort(keys, n, sizeof *keys, rising);
    return n;
}

size_t pn_snapshot_pull(const struct pn_snapshot *s, uint32_t i_table, const uint64_t *keys, size_t n, float *rows) {
    const size_t dim = s->job.tables[i_table].dim;
    size_t n_absent = 0;
    for (size_t base = 0; base < n; base += GROUP) {
        const struct pn_segment *segment[GROUP];
        const struct pn_segment_table *table[GROUP];
        size_t at[GROUP], m = n - base < GROUP ? n - base : GROUP;
        for (size_t i = 0; i < m; i++) {
            uint16_t owner = s->segment_of[pn_slot_of(keys[base + i])];
            segment[i] = owner < s->n_segments ? &s->segments[owner] : NULL;
            table[i] = segment[i] != NULL ? table_of(segment[i], i_table) : NULL;
            if (table[i] == NULL) continue;
            at[i] = pn_segment_guess(table[i], keys[base + i]);
            if (table[i]->n_rows > 0) __builtin_prefetch(&table[i]->keys[at[i]]);
        }
        for (size_t i = 0; i < m; i++) {
            if (table[i] == NULL) continue;
            at[i] = pn_segment_find(table[i], keys[base + i], at[i]);
            if (at[i] != SIZE_MAX) __builtin_prefetch(table[i]->rows + at[i] * pn_segment_row_bytes(s->storage, (uint32_t)dim));
        }
        for (size_t i = 0; i < m; i++) {
            float *row = rows + (base + i) * dim;
            bool found = table[i] != NULL && at[i] != SIZE_MAX;
            if (found) pn_segment_row(segment[i], table[i], at[i], row);
            else if (s->segment_of[pn_slot_of(keys[base + i])] == MANY_SEGMENTS) found = find_in_all(s, i_table, keys[base + i], row);
            if (found) continue;
            memset(row, 0, dim * sizeof *row);
            n_absent++;
        }
    }
    return n_absent;
}
