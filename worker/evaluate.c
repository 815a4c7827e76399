#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include "worker/internal.h"

struct pn_evaluation {
    struct pn_run *run;
    const struct pn_data *data;
    bool closed;                  /* freed when what is in flight returned */
    struct pn_evaluation_result result;
    struct pn_reader *reader;
    struct pn_features *features;
    struct pn_net *net;
    struct pn_batch batch;
    struct pn_work work;
    bool in_work, have_batch;
    const struct pn_raw *raw;
    uint64_t n_bad;
    enum pn_result work_result;
    struct pn_error why;
    float *rows[PN_MAX_TABLES], *dense, *batch_scores;
    uint64_t *dense_keys;
    struct pn_client_part parts[PN_MAX_TABLES];
    float *scores, *labels, *logits;
    uint64_t *groups;             /* validation.groupBy: each row's key of that field; else NULL */
    size_t n, room;
    double hits, gains, reciprocals, below, losses; /* sasrec: sums over rows */
    size_t n_lists, n_losses;     /* ... that have candidates, and that have a loss */
    struct { float *scores, *labels; } heads[PN_MAX_HEADS];
    struct pn_ranking_run *ranking; /* all items are ranked: nothing else here is in use */
};

static void next(struct pn_evaluation *e);

static void drop_batch(struct pn_evaluation *e) {
    for (size_t t = 0; t < PN_MAX_TABLES; t++) {
        free(e->rows[t]);
        e->rows[t] = NULL;
    }
    free(e->batch_scores);
    e->batch_scores = NULL;
    if (e->have_batch) pn_batch_free(&e->batch);
    e->have_batch = false;
}

static void free_evaluation(struct pn_evaluation *e) {
    drop_batch(e);
    if (e->reader != NULL) pn_reader_close(e->reader);
    if (e->features != NULL) pn_features_close(e->features);
    if (e->net != NULL) pn_net_close(e->net);
    free(e->dense);
    free(e->dense_keys);
    free(e->scores);
    free(e->labels);
    free(e->logits);
    free(e->groups);
    for (size_t h = 0; h < PN_MAX_HEADS; h++) {
        free(e->heads[h].scores);
        free(e->heads[h].labels);
    }
    pn_run_unref(e->run);
    free(e);
}

const char *pn_evaluation_of(const struct pn_run *run, const struct pn_data *data) { return data == &run->job.test ? "test" : "validation"; }

/* Rows without candidates would all be at the first place of their lists. */
static enum pn_result look_for_lists(struct pn_evaluation *e) {
    const struct pn_job *job = &e->run->job;
    if (job->model != PN_MODEL_SASREC || e->n == 0 || e->n_lists > 0) return PN_OK;
    return pn_fail(&e->why, PN_INVALID, "%s data: none of its %zu rows can be ranked: a row needs a history, a target, and in feature \"%s\" an item that is neither its target nor among what it has seen",
                   pn_evaluation_of(e->run, e->data), e->n, job->fields[job->sequence.negatives - 1].name);
}

static void finish(struct pn_evaluation *e, enum pn_result code, const char *text) {
    if (code == PN_OK && (code = look_for_lists(e)) != PN_OK) text = e->why.text;
    e->result.done = true;
    e->result.code = code;
    if (code != PN_OK) pn_fail(&e->result.error, code, "%s", text);
    else {
        e->result.auc = pn_auc(e->scores, e->labels, e->n);
        e->result.logloss = pn_log_loss(e->scores, e->labels, e->n);
        e->result.ne = pn_normalised_entropy(e->scores, e->labels, e->n);
        e->result.calibration = pn_calibration(e->scores, e->labels, e->n);
        e->result.ece = pn_calibration_error(e->scores, e->labels, e->n, 20);
        e->result.gauc = e->groups != NULL ? pn_group_auc(e->scores, e->labels, e->groups, e->n) : NAN;
        if (e->n_lists > 0) { /* sasrec, places among candidates: every label is 1 */
            const double lists = (double)e->n_lists;
            e->result.hr = e->result.recall = e->hits / lists; /* one target a list */
            e->result.ndcg = e->gains / lists;
            e->result.mrr = e->reciprocals / lists;
            e->result.auc = e->below / lists;
            e->result.logloss = e->n_losses > 0 ? e->losses / (double)e->n_losses : NAN;
            e->result.ne = e->result.calibration = e->result.ece = NAN;
        }
        for (size_t h = 0; h < PN_MAX_HEADS; h++) e->result.head_auc[h] = e->heads[h].scores != NULL ? pn_auc(e->heads[h].scores, e->heads[h].labels, e->n) : NAN;
        e->result.rows = e->n;
        if (e->groups != NULL && e->run->job.rank_k > 0) {
            const struct pn_ranking m = pn_rank_metrics(e->logits, e->labels, e->groups, e->n, e->run->job.rank_k);
            e->result.hr = m.hit;
            e->result.ndcg = m.ndcg;
            e->result.recall = m.recall;
            e->result.mrr = m.mrr;
        }
    }
    e->run->changed(e->run->owner);
}

/* Is each score of the batch a number, and so what it is ranked among? */
static enum pn_result look_for_no_number(struct pn_evaluation *e) {
    const struct pn_place *places = pn_net_places(e->net);
    for (size_t i = 0; i < e->batch.n_examples; i++) {
        bool number = !isnan(e->batch_scores[i]) && (places == NULL || !isnan(places[i].loss));
        for (size_t h = 0; h < e->run->job.n_heads; h++) number = number && !isnan(pn_net_head_scores(e->net, h)[i]);
        if (!number) return pn_fail(&e->why, PN_INVALID, "%s data, row %zu: the score " PN_NO_NUMBER, pn_evaluation_of(e->run, e->data), e->n + i + 1);
    }
    return PN_OK;
}

static void forward(struct pn_work *w) {
    struct pn_evaluation *e = w->owner;
    const float *rows[PN_MAX_TABLES];
    for (size_t t = 0; t < PN_MAX_TABLES; t++) rows[t] = e->rows[t];
    e->work_result = pn_net_forward(e->net, &e->batch, rows, e->dense, e->batch_scores);
    if (e->work_result == PN_OK) e->work_result = look_for_no_number(e);
}

/* The place of the groups' field among the sparse fields. */
static size_t group_field(const struct pn_job *job) {
    size_t at = 0;
    for (size_t i = 0; i + 1 < job->group_by; i++) at += pn_field_keyed(&job->fields[i]) && job->fields[i].type != PN_FIELD_SEQUENCE;
    return at;
}

/* Keeps the batch's scores of the further labels; room: of rows. */
static bool keep_heads(struct pn_evaluation *e, size_t n, size_t room) {
    for (size_t h = 0; h < e->run->job.n_heads; h++) {
        float *s = realloc(e->heads[h].scores, room * sizeof *s), *l = s == NULL ? NULL : realloc(e->heads[h].labels, room * sizeof *l);
        if (s != NULL) e->heads[h].scores = s;
        if (l == NULL) return false;
        e->heads[h].labels = l;
        memcpy(s + e->n, pn_net_head_scores(e->net, h), n * sizeof *s);
        memcpy(l + e->n, e->batch.head_labels + h * n, n * sizeof *l);
    }
    return true;
}

static void forwarded(struct pn_work *w) {
    struct pn_evaluation *e = w->owner;
    e->in_work = false;
    if (e->closed) {
        free_evaluation(e);
        return;
    }
    size_t n = e->batch.n_examples;
    if (e->n + n > e->room) {
        size_t room = (e->n + n) * 2;
        float *s = realloc(e->scores, room * sizeof *s), *l = s == NULL ? NULL : realloc(e->labels, room * sizeof *l), *z = l == NULL ? NULL : realloc(e->logits, room * sizeof *z);
        if (s != NULL) e->scores = s;
        if (l != NULL) e->labels = l;
        if (z != NULL) e->logits = z;
        if (s == NULL || l == NULL || z == NULL) e->work_result = PN_NO_MEMORY;
        else e->room = room;
        uint64_t *g = e->run->job.group_by > 0 && e->work_result == PN_OK ? realloc(e->groups, room * sizeof *g) : NULL;
        if (g != NULL) e->groups = g;
        else if (e->run->job.group_by > 0) e->work_result = PN_NO_MEMORY;
    }
    if (e->work_result == PN_OK && !keep_heads(e, n, e->room)) e->work_result = PN_NO_MEMORY;
    if (e->work_result != PN_OK) {
        finish(e, e->work_result, e->why.text[0] != '\0' ? e->why.text : "the evaluation could not be computed");
        return;
    }
    const struct pn_place *places = pn_net_places(e->net);
    const uint32_t k = pn_job_rank_k(&e->run->job);
    for (size_t i = 0; i < n && places != NULL; i++) {
        if (places[i].n_candidates == 0) continue; /* nothing that it could stand before */
        e->n_lists++;
        e->hits += places[i].rank < k;
        e->gains += places[i].rank < k ? 1 / log2(places[i].rank + 2.0) : 0;
        e->reciprocals += 1 / (places[i].rank + 1.0);
        e->below += 1 - (double)places[i].rank / places[i].n_candidates;
        const bool has_loss = places[i].loss >= 0;
        e->losses += has_loss ? (double)places[i].loss : 0;
        e->n_losses += has_loss;
    }
    memcpy(e->scores + e->n, e->batch_scores, n * sizeof *e->scores);
    if (places == NULL) memcpy(e->logits + e->n, pn_net_logits(e->net), n * sizeof *e->logits);
    memcpy(e->labels + e->n, e->batch.labels, n * sizeof *e->labels);
    for (size_t i = 0; i < n && e->groups != NULL; i++) e->groups[e->n + i] = e->batch.keys[e->batch.begin[group_field(&e->run->job) * n + i]];
    e->n += n;
    drop_batch(e);
    next(e);
}

static void pulled(void *owner, enum pn_result r) {
    struct pn_evaluation *e = owner;
    if (r != PN_OK) {
        finish(e, r, "the rows could not be pulled");
        return;
    }
    e->in_work = true;
    e->work = (struct pn_work){.run = forward, .done = forwarded, .owner = e};
    pn_work_start(e->run->env, &e->work);
}

static void make_features(struct pn_work *w) {
    struct pn_evaluation *e = w->owner;
    e->work_result = pn_features_whole(e->features, e->raw, &e->why);
    if (e->work_result == PN_OK) e->work_result = pn_features_batch(e->features, e->raw, &e->batch, &e->n_bad);
    e->have_batch = e->work_result == PN_OK;
}

static void featured(struct pn_work *w) {
    struct pn_evaluation *e = w->owner;
    e->in_work = false;
    if (e->closed) {
        free_evaluation(e);
        return;
    }
    struct pn_run *run = e->run;
    bool ok = e->work_result == PN_OK;
    size_t n = 0;
    e->batch_scores = ok ? malloc((e->batch.n_examples + 1) * sizeof(float)) : NULL;
    ok = ok && e->batch_scores != NULL;
    for (uint32_t t = 0; ok && t < run->job.i_dense_table; t++) {
        e->rows[t] = malloc((e->batch.n_unique[t] * run->job.tables[t].dim + 1) * sizeof(float));
        ok = e->rows[t] != NULL;
        if (e->batch.n_unique[t] > 0) e->parts[n++] = (struct pn_client_part){t, e->batch.n_unique[t], e->batch.unique[t], e->rows[t], NULL};
    }
    if (!ok) {
        char text[sizeof e->why.text + 20];
        snprintf(text, sizeof text, "%s data: %s", pn_evaluation_of(run, e->data), e->why.text);
        if (e->why.text[0] != '\0') finish(e, e->work_result, text);
        else finish(e, PN_NO_MEMORY, "no memory for a batch of the evaluation");
        return;
    }
    e->parts[n++] = (struct pn_client_part){run->job.i_dense_table, run->n_dense_rows, e->dense_keys, e->dense, NULL};
    pn_client_pull(run->client, UINT32_MAX, 0, e->parts, n, pulled, e);
}

static void on_rows(void *owner, enum pn_result r, const struct pn_raw *raw, const struct pn_error *err) {
    struct pn_evaluation *e = owner;
    struct pn_error why = {""};
    if (r == PN_NOT_FOUND) {
        finish(e, PN_OK, NULL);
        return;
    }
    if (err != NULL) why = *err;
    if (r == PN_OK && e->features == NULL) {
        r = pn_features_open(&e->features, &e->run->job, raw->names, raw->n_columns, &why);
        if (r == PN_OK) r = pn_features_set_statistics(e->features, e->run->statistics, &why);
        if (r == PN_OK) pn_features_use(e->features, &e->run->vocabularies);
        if (r == PN_OK) r = pn_features_labelled(e->features, false, &why);
    }
    if (r != PN_OK) {
        finish(e, r, why.text);
        return;
    }
    e->raw = raw;
    e->in_work = true;
    e->work = (struct pn_work){.run = make_features, .done = featured, .owner = e};
    pn_work_start(e->run->env, &e->work);
}

static void next(struct pn_evaluation *e) { pn_reader_next(e->reader, on_rows, e); }

static void ranked(void *owner) {
    struct pn_evaluation *e = owner;
    e->run->changed(e->run->owner);
}

/* A sequence's activations are kept for each of its places, so that 2,048 rows of 200 places would take gigabytes. */
static uint32_t rows_at_once(const struct pn_job *job) {
    enum { ROWS = 2048, PLACES = 1 << 16 };
    const uint32_t places = job->sequence.n_fields > 0 ? job->fields[job->sequence.fields[0]].max_length : 0;
    return places > PLACES / ROWS ? (places < PLACES ? PLACES / places : 1) : ROWS;
}

struct pn_evaluation *pn_evaluation_open(struct pn_run *run, const struct pn_data *data, const char *task, uint64_t epoch) {
    struct pn_evaluation *e = calloc(1, sizeof *e);
    if (e == NULL) return NULL;
    e->run = run;
    e->data = data;
    run->refs++;
    snprintf(e->result.task, sizeof e->result.task, "%s", task);
    e->result.epoch = epoch;
    e->result.hr = e->result.ndcg = e->result.recall = e->result.mrr = NAN;
    e->result.auc = e->result.logloss = e->result.ne = e->result.calibration = e->result.ece = e->result.gauc = NAN; /* what is not measured stays so */
    for (size_t h = 0; h < PN_MAX_HEADS; h++) e->result.head_auc[h] = NAN;
    if (run->job.model == PN_MODEL_AUDIT) { /* the oracle has no scores */
        e->result.done = true;
        return e;
    }
    if (data->rank_all) {
        e->ranking = pn_ranking_open(run, data, &e->result, ranked, e);
        if (e->ranking == NULL) {
            free_evaluation(e);
            return NULL;
        }
        return e;
    }
    struct pn_reader_options o = {.n_producers = 1, .batch_size = rows_at_once(&run->job), .parsed = run->parsed};
    e->reader = pn_reader_open(run->env, data, &o);
    e->dense = calloc(run->n_dense_rows * PN_DENSE_ROW, sizeof(float));
    e->dense_keys = calloc(run->n_dense_rows, sizeof(uint64_t));
    if (e->reader == NULL || e->dense == NULL || e->dense_keys == NULL || pn_net_open(&e->net, &run->job, run->n_dense_inputs, &e->result.error) != PN_OK) {
        free_evaluation(e);
        return NULL;
    }
    for (size_t i = 0; i < run->n_dense_rows; i++) e->dense_keys[i] = pn_net_row_key(e->net, i);
    next(e);
    return e;
}

void pn_evaluation_close(struct pn_evaluation *e) {
    if (e == NULL) return;
    if (e->ranking != NULL) {
        pn_ranking_close(e->ranking);
        free_evaluation(e);
        return;
    }
    if (e->reader != NULL && !e->in_work) { /* a computation may still read the reader's rows */
        pn_reader_close(e->reader);
        e->reader = NULL;
    }
    if (e->run->client != NULL) pn_client_cancel(e->run->client, e);
    e->closed = true;
    if (!e->in_work) free_evaluation(e);
}

const struct pn_evaluation_result *pn_evaluation_look(const struct pn_evaluation *e) { return &e->result; }
