#include "ps/start/start.h"
#include <stdlib.h>
#include <string.h>
#include "ps/start/import.h"
#include "ps/table/table.h"
#include "snapshot/snapshot.h"

struct source { const struct pn_snapshot *snapshot; uint32_t i_table, dim, at; }; /* its rows' floats go to [at, at + dim) */
struct begin { struct source sources[PN_MAX_STARTS]; size_t n; float *row; struct pn_import *import; };

struct pn_starts {
    struct pn_snapshot *snapshots[PN_MAX_STARTS];
    size_t n;
    struct begin tables[PN_MAX_TABLES];
};

static void first_values(void *owner, uint64_t key, float *values) {
    struct begin *b = owner;
    if (b->import != NULL) pn_import_row(b->import, key, values);
    for (size_t i = 0; i < b->n; i++) {
        const struct source *s = &b->sources[i];
        if (pn_snapshot_pull(s->snapshot, s->i_table, &key, 1, b->row) == 0) memcpy(values + s->at, b->row, s->dim * sizeof *values);
    }
}

/* The same feature makes the same keys in both jobs. */
static bool same_keys(const struct pn_job *job, const struct pn_job *from, const char **name) {
    for (size_t i = 0; i < job->n_fields; i++) {
        *name = job->fields[i].name;
        bool same = false;
        for (size_t k = 0; k < from->n_fields; k++)
            same = same || (strcmp(from->fields[k].name, *name) == 0 && from->fields[k].hash_seed == job->fields[i].hash_seed && from->fields[k].type == job->fields[i].type &&
                            strcmp(from->tables[from->fields[k].i_table].name, job->tables[job->fields[i].i_table].name) == 0);
        if (!same) return false;
    }
    return true;
}

static enum pn_result tie(struct pn_starts *s, const struct pn_job *job, const struct pn_snapshot *snapshot, const char *dir, struct pn_error *err) {
    const struct pn_job *from = pn_snapshot_job(snapshot);
    const char *name = "";
    const uint32_t at = job->model == PN_MODEL_NEUMF && from->model == PN_MODEL_MLP ? job->embedding_dim : 0;
    const uint32_t wanted = from->model == job->model ? pn_job_width(job) : from->model == PN_MODEL_GMF ? job->embedding_dim : from->model == PN_MODEL_MLP ? job->mlp_dim : 0;
    if (wanted == 0 || pn_job_width(from) != wanted || pn_job_wide(from) != pn_job_wide(job))
        return pn_fail(err, PN_INVALID, "model.start: the model in %.200s has rows of %u floats; this job can begin with the same model, or NeuMF with gmf and mlp of its own widths", dir,
                       pn_job_width(from));
    if (!same_keys(job, from, &name)) return pn_fail(err, PN_INVALID, "model.start: the model in %.200s has no feature \"%s\" with the same keys and table", dir, name);
    for (size_t t = 0; t < job->i_dense_table; t++)
        for (uint32_t k = 0; k < from->i_dense_table; k++) {
            struct begin *b = &s->tables[t];
            if (strcmp(from->tables[k].name, job->tables[t].name) == 0) b->sources[b->n++] = (struct source){snapshot, k, from->tables[k].dim, at};
        }
    return PN_OK;
}

enum pn_result pn_starts_open(struct pn_starts **out, struct pn_env *env, const struct pn_job *job, struct pn_table *const *tables, struct pn_error *err) {
    *out = NULL;
    bool any = job->n_starts > 0;
    for (uint32_t t = 0; t < job->n_tables; t++) any = any || job->imports[t].keys[0] != '\0';
    if (!any) return PN_OK;
    struct pn_starts *s = calloc(1, sizeof *s);
    enum pn_result r = s != NULL ? PN_OK : pn_fail(err, PN_NO_MEMORY, "no memory for model.start");
    for (size_t i = 0; r == PN_OK && i < job->n_starts; i++) {
        r = pn_snapshot_open(&s->snapshots[s->n], env, job->starts[i].path, err);
        if (r == PN_CORRUPT) r = PN_INVALID; /* no checkpoint of this job is damaged: the coordinator would give one up */
        if (r == PN_OK) r = tie(s, job, s->snapshots[s->n++], job->starts[i].path, err);
    }
    for (size_t t = 0; r == PN_OK && t < job->i_dense_table; t++) {
        s->tables[t].row = malloc((job->tables[t].dim + 1) * sizeof(float));
        if (r == PN_OK && job->imports[t].keys[0] != '\0') r = pn_import_open(&s->tables[t].import, env, job, (uint32_t)t, err);
        if (r != PN_OK) break;
        if (s->tables[t].row == NULL) r = pn_fail(err, PN_NO_MEMORY, "no memory for model.start");
        else if (tables != NULL && (s->tables[t].n > 0 || s->tables[t].import != NULL)) pn_table_begin_with(tables[t], first_values, &s->tables[t]);
    }
    if (r != PN_OK) pn_starts_close(s);
    else *out = s;
    return r;
}

void pn_starts_row(struct pn_starts *s, uint32_t i_table, uint64_t key, float *values) {
    if (s != NULL) first_values(&s->tables[i_table], key, values);
}

void pn_starts_close(struct pn_starts *s) {
    if (s == NULL) return;
    for (size_t i = 0; i < s->n; i++) pn_snapshot_close(s->snapshots[i]);
    for (size_t t = 0; t < PN_MAX_TABLES; t++) {
        free(s->tables[t].row);
        pn_import_close(s->tables[t].import);
    }
    free(s);
}
