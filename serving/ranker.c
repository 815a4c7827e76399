#include "serving/ranker.h"
#include "snapshot/artifacts.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Candidates that go through features and net at once: bounds the memory of a request by its own size. */
enum { CHUNK = 4096 };

void pn_columns_of(struct pn_columns *c, const struct pn_job *job) {
    c->n = 0;
    for (size_t f = 0; f < job->n_fields; f++) {
        const struct pn_field *field = &job->fields[f];
        if (field->type == PN_FIELD_CROSS || field->type == PN_FIELD_LEAVES) continue;
        size_t i = 0;
        while (i < c->n && strcmp(c->names[i], field->column) != 0) i++;
        if (i == c->n) {
            c->names[i] = field->column;
            c->fields[i] = field;
            c->n++;
        } else if (pn_field_listed(field)) {
            c->fields[i] = field;
        }
    }
}

/* Vocabularies as the job has them and as files of the version. */
static enum pn_result open_vocabularies(struct pn_scorer *s, struct pn_error *err) {
    const struct pn_job *job = pn_snapshot_job(s->snapshot);
    struct pn_artifact *list = NULL;
    struct pn_error why = {""};
    size_t n = 0;
    enum pn_result r = pn_vocabularies_open(&s->vocabularies, job, err);
    if (r == PN_OK && pn_artifacts_read(pn_snapshot_statistics(s->snapshot), &list, &n, &why) != PN_OK) r = pn_fail(err, PN_CORRUPT, "statistics.json: %s", why.text);
    for (size_t i = 0; r == PN_OK && i < job->n_fields; i++) {
        const struct pn_field *field = &job->fields[i];
        size_t a = 0, n_bytes = 0;
        if (!pn_field_files(field)) continue;
        while (a < n && strcmp(list[a].feature, field->name) != 0) a++;
        const char *text = a < n ? pn_snapshot_file(s->snapshot, list[a].name, &n_bytes) : NULL;
        if (text == NULL) r = pn_fail(err, PN_CORRUPT, "the vocabulary of feature \"%s\" is not among the files", field->name);
        else if (pn_vocabulary_read(&s->vocabularies.of[i], text, n_bytes, field->hash_seed, &why) != PN_OK) r = pn_fail(err, PN_CORRUPT, "%s: %s", list[a].name, why.text);
    }
    free(list);
    return r;
}

enum pn_result pn_scorer_open(struct pn_scorer *s, const struct pn_snapshot *snapshot, struct pn_error *err) {
    const struct pn_job *job = pn_snapshot_job(snapshot);
    *s = (struct pn_scorer){.snapshot = snapshot};
    if (job->model == PN_MODEL_AUDIT || job->n_fields == 0) return pn_fail(err, PN_REFUSED, "this model has no features to rank by");
    pn_columns_of(&s->columns, job);
    for (size_t f = 0; f < job->n_fields; f++) {
        const struct pn_field *field = &job->fields[f];
        s->n_dense_inputs += !pn_field_keyed(field);
    }
    struct pn_net *net = NULL;
    enum pn_result r = pn_net_open(&net, job, s->n_dense_inputs, err);
    if (r != PN_OK) return r;
    size_t n = pn_net_parameters(net), padded = (n + PN_DENSE_ROW - 1) / PN_DENSE_ROW * PN_DENSE_ROW;
    s->parameters = calloc(padded + 1, sizeof *s->parameters);
    if (s->parameters == NULL) r = pn_fail(err, PN_NO_MEMORY, "no memory for %zu parameters", n);
    const char *name;
    size_t offset, shape[2];
    for (size_t i = 0; r == PN_OK && pn_net_block(net, i, &name, &offset, shape); i++) {
        size_t n_floats = 0, cells = shape[0] * shape[1];
        const float *block = pn_snapshot_dense(snapshot, name, &n_floats);
        if (block == NULL || n_floats != cells)
            r = pn_fail(err, PN_CORRUPT, "dense.safetensors, block %s: not there, or not of %zu floats", name, cells);
        else if (cells > 0) memcpy(s->parameters + offset, block, cells * sizeof *block);
    }
    pn_net_close(net);
    if (r == PN_OK) r = open_vocabularies(s, err);
    if (r != PN_OK) pn_scorer_close(s);
    return r;
}

void pn_scorer_close(struct pn_scorer *s) {
    pn_vocabularies_close(&s->vocabularies);
    free(s->parameters);
    s->parameters = NULL;
}

enum pn_result pn_ranker_open(struct pn_ranker **out, const struct pn_scorer *s, struct pn_error *err) {
    const struct pn_job *job = pn_snapshot_job(s->snapshot);
    *out = NULL;
    struct pn_ranker *r = calloc(1, sizeof *r);
    if (r == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for a ranker");
    enum pn_result e = pn_features_open(&r->features, job, s->columns.names, s->columns.n, err);
    if (e == PN_OK) e = pn_features_set_statistics(r->features, pn_snapshot_statistics(s->snapshot), err);
    if (e == PN_OK) pn_features_use(r->features, &s->vocabularies);
    if (e == PN_OK) e = pn_net_open(&r->net, job, s->n_dense_inputs, err);
    if (e != PN_OK) {
        pn_ranker_close(r);
        return e;
    }
    *out = r;
    return PN_OK;
}

void pn_ranker_close(struct pn_ranker *r) {
    if (r == NULL) return;
    if (r->net != NULL) pn_net_close(r->net);
    if (r->features != NULL) pn_features_close(r->features);
    free(r);
}

static enum pn_result score_batch(struct pn_ranker *r, const struct pn_scorer *s, const struct pn_raw *raw, float *scores, uint64_t *n_found, uint64_t *n_absent) {
    const struct pn_job *job = pn_snapshot_job(s->snapshot);
    struct pn_batch batch;
    uint64_t n_bad = 0;
    memset(&batch, 0, sizeof batch);
    enum pn_result e = pn_features_batch(r->features, raw, &batch, &n_bad);
    if (e != PN_OK) return e;
    float *rows[PN_MAX_TABLES] = {0};
    const float *view[PN_MAX_TABLES] = {0};
    for (size_t t = 0; e == PN_OK && t < job->i_dense_table; t++) {
        rows[t] = malloc((batch.n_unique[t] + 1) * job->tables[t].dim * sizeof(float));
        view[t] = rows[t];
        if (rows[t] == NULL) {
            e = PN_NO_MEMORY;
            break;
        }
        size_t absent = pn_snapshot_pull(s->snapshot, (uint32_t)t, batch.unique[t], batch.n_unique[t], rows[t]);
        *n_absent += absent;
        *n_found += batch.n_unique[t] - absent;
    }
    if (e == PN_OK) e = pn_net_forward(r->net, &batch, view, s->parameters, scores);
    for (size_t t = 0; t < PN_MAX_TABLES; t++) free(rows[t]);
    pn_batch_free(&batch);
    return e;
}

struct pn_raw pn_candidates_raw(const struct pn_columns *columns, const struct pn_candidates *c, size_t first, size_t n, uint32_t *offset, uint32_t *length) {
    for (size_t i = 0; i < columns->n; i++) {
        const struct pn_values *v = &c->columns[i];
        for (size_t k = 0; k < n; k++) {
            size_t at = v->n == 1 ? 0 : first + k;
            offset[i * n + k] = v->offset[at];
            length[i * n + k] = v->length[at];
        }
    }
    return (struct pn_raw){.n_rows = n, .n_columns = columns->n, .names = columns->names, .text = c->text, .offset = offset, .length = length};
}

enum pn_result pn_ranker_score(struct pn_ranker *r, const struct pn_scorer *s, const struct pn_candidates *c, float *scores,
                               uint64_t *n_found, uint64_t *n_absent, struct pn_error *err) {
    const size_t n_columns = s->columns.n, most = c->n_rows < CHUNK ? c->n_rows : CHUNK;
    uint32_t *offset = malloc((n_columns * most + 1) * sizeof *offset), *length = malloc((n_columns * most + 1) * sizeof *length);
    enum pn_result e = offset == NULL || length == NULL ? PN_NO_MEMORY : PN_OK;
    for (size_t first = 0; e == PN_OK && first < c->n_rows; first += CHUNK) {
        size_t n = c->n_rows - first < CHUNK ? c->n_rows - first : CHUNK;
        const struct pn_raw raw = pn_candidates_raw(&s->columns, c, first, n, offset, length);
        e = score_batch(r, s, &raw, scores + first, n_found, n_absent);
    }
    free(offset);
    free(length);
    for (size_t i = 0; e == PN_OK && i < c->n_rows; i++)
        if (!isfinite(scores[i])) return pn_fail(err, PN_FAILED, "the score of candidate %zu is not a number: the model's parameters have diverged", i);
    return e == PN_OK ? PN_OK : pn_fail(err, e, "ranking failed: %s", pn_result_name(e));
}

enum pn_result pn_ranker_warm_up(struct pn_ranker *r, const struct pn_scorer *s, struct pn_error *err) {
    uint32_t zero = 0;
    uint64_t found = 0, absent = 0;
    float score;
    struct pn_candidates *c = calloc(1, sizeof *c);
    if (c == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory to warm up");
    c->n_rows = 1;
    c->text = "";
    for (size_t i = 0; i < s->columns.n; i++) c->columns[i] = (struct pn_values){1, &zero, &zero};
    enum pn_result e = pn_ranker_score(r, s, c, &score, &found, &absent, err);
    free(c);
    return e;
}

/* ---- the best ---- */

static bool worse(const float *scores, uint32_t a, uint32_t b) { return scores[a] != scores[b] ? scores[a] < scores[b] : a > b; }

/* A heap with the worst on top. */
static void sink(const float *scores, uint32_t *heap, size_t n, size_t i) {
    for (;;) {
        size_t least = i;
        for (size_t child = 2 * i + 1; child < n && child <= 2 * i + 2; child++)
            if (worse(scores, heap[child], heap[least])) least = child;
        if (least == i) return;
        uint32_t swap = heap[i];
        heap[i] = heap[least];
        heap[least] = swap;
        i = least;
    }
}

void pn_top_k(const float *scores, size_t n, size_t k, uint32_t *index) {
    if (k == 0) return;
    for (size_t i = 0; i < k; i++) index[i] = (uint32_t)i;
    for (size_t i = k; i-- > 0;) sink(scores, index, k, i);
    for (size_t i = k; i < n; i++)
        if (worse(scores, index[0], (uint32_t)i)) {
            index[0] = (uint32_t)i;
            sink(scores, index, k, 0);
        }
    for (size_t left = k; left-- > 1;) { /* the worst of what is left goes to its end */
        uint32_t swap = index[0];
        index[0] = index[left];
        index[left] = swap;
        sink(scores, index, left, 0);
    }
}
