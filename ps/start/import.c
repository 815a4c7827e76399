#include "ps/start/import.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "common/npy.h"

struct pn_import {
    struct pn_env *env;
    const void *key_bytes, *row_bytes;
    size_t n_key_bytes, n_row_bytes;
    struct pn_npy keys, rows;
    uint32_t at, width;      /* of a row: floats [at, at + width) */
    uint64_t n_places;       /* a power of two */
    struct place { uint64_t key, row; } *places; /* row: 1 + its number; 0: free */
};

void pn_import_close(struct pn_import *m) {
    if (m == NULL) return;
    if (m->key_bytes != NULL) m->env->ops->unmap(m->env, m->key_bytes, m->n_key_bytes);
    if (m->row_bytes != NULL) m->env->ops->unmap(m->env, m->row_bytes, m->n_row_bytes);
    free(m->places);
    free(m);
}

static struct place *find(const struct pn_import *m, uint64_t key) {
    uint64_t i = pn_mix64(key) & (m->n_places - 1);
    while (m->places[i].row != 0 && m->places[i].key != key) i = (i + 1) & (m->n_places - 1);
    return &m->places[i];
}

bool pn_import_row(const struct pn_import *m, uint64_t key, float *values) {
    const struct place *p = find(m, key);
    if (p->row == 0) return false;
    for (uint32_t d = 0; d < m->width; d++) values[m->at + d] = pn_npy_float(&m->rows, (p->row - 1) * m->width + d);
    return true;
}

static enum pn_result map(struct pn_env *env, const char *path, const void **bytes, size_t *n, struct pn_npy *out, struct pn_error *err) {
    enum pn_result r = env->ops->map(env, path, bytes, n);
    if (r != PN_OK) {
        *bytes = NULL;
        return pn_fail(err, r == PN_NOT_FOUND ? PN_INVALID : r, "import: %.300s cannot be read; every server needs the file at this path", path);
    }
    return pn_npy_read(*bytes, *n, path, out, err);
}

static enum pn_result place_all(struct pn_import *m, const struct pn_import_spec *spec, const struct pn_field *field, struct pn_error *err) {
    for (uint64_t i = 0; i < m->keys.shape[0]; i++) {
        char text[1024];
        uint64_t key;
        if (field == NULL) key = pn_npy_u64(&m->keys, i);
        else {
            const size_t n = pn_npy_text(&m->keys, i, text, sizeof text);
            if (n == 0) return pn_fail(err, PN_INVALID, "import: %.300s: value %" PRIu64 " is empty, longer than %zu bytes or no Unicode", spec->keys, i, sizeof text);
            key = pn_hash(text, n, field->hash_seed);
        }
        for (uint32_t d = 0; d < m->width; d++)
            if (!isfinite(pn_npy_float(&m->rows, i * m->width + d)))
                return pn_fail(err, PN_INVALID, "import: %.300s: row %" PRIu64 ", number %u is not finite", spec->rows, i, d);
        struct place *p = find(m, key);
        if (p->row != 0) return pn_fail(err, PN_INVALID, "import: %.300s: items %" PRIu64 " and %" PRIu64 " are the same key", spec->keys, p->row - 1, i);
        *p = (struct place){key, i + 1};
    }
    return PN_OK;
}

enum pn_result pn_import_open(struct pn_import **out, struct pn_env *env, const struct pn_job *job, uint32_t i_table, struct pn_error *err) {
    const struct pn_import_spec *spec = &job->imports[i_table];
    const struct pn_field *field = spec->feature > 0 ? &job->fields[spec->feature - 1] : NULL;
    const uint32_t dim = job->tables[i_table].dim, linear = pn_job_wide(job) ? 1 : 0;
    struct pn_import *m = calloc(1, sizeof *m);
    if (m == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for an import");
    m->env = env;
    enum pn_result r = map(env, spec->keys, &m->key_bytes, &m->n_key_bytes, &m->keys, err);
    if (r == PN_OK) r = map(env, spec->rows, &m->row_bytes, &m->n_row_bytes, &m->rows, err);
    if (r != PN_OK) goto out;
    m->width = m->rows.shape[1] > UINT32_MAX ? UINT32_MAX : (uint32_t)m->rows.shape[1];
    m->at = m->width == dim ? 0 : linear;
    if (m->keys.n_dims != 1 || (field == NULL ? m->keys.kind != 'u' || m->keys.item_bytes != 8 : m->keys.kind == 'f'))
        r = pn_fail(err, PN_INVALID, "import: %.300s must have one dimension of %s", spec->keys, field == NULL ? "uint64 keys (with `feature` it may hold that feature's values)" : "strings or integers");
    else if (m->rows.n_dims != 2 || m->rows.kind != 'f') r = pn_fail(err, PN_INVALID, "import: %.300s must have two dimensions of float16, float32 or float64", spec->rows);
    else if (m->rows.shape[0] != m->keys.shape[0])
        r = pn_fail(err, PN_INVALID, "import: %.200s has %" PRIu64 " items, %.200s %" PRIu64 " rows", spec->keys, m->keys.shape[0], spec->rows, m->rows.shape[0]);
    else if (m->width != dim && m->width + linear != dim)
        r = pn_fail(err, PN_INVALID, "import: %.200s has rows of %" PRIu64 " numbers; table \"%s\" has %u%s", spec->rows, m->rows.shape[1], job->tables[i_table].name, dim,
                    linear ? ", or one less without the linear weight" : "");
    if (r != PN_OK) goto out;
    for (m->n_places = 16; m->n_places < 2 * m->keys.shape[0];) m->n_places *= 2;
    m->places = calloc(m->n_places, sizeof *m->places);
    r = m->places != NULL ? place_all(m, spec, field, err) : pn_fail(err, PN_NO_MEMORY, "no memory for the keys of an import");
out:
    if (r != PN_OK) pn_import_close(m);
    else *out = m;
    return r;
}
