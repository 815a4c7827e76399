/* The idea: one thing at a time. Rows are read once. Then each plan's round is prepared: weights and the copy of the rows are brought to the servers' step, a batch is drawn, its
 * clipped gradients and votes are made (counts and update are of the same draw), words with this holder's share of noise go into a secure sum. A round that
 * is no longer the plan's is dropped wherever it stands, and what was drawn for it with it. */
#include "worker/secure.h"
#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "privacy/discrete.h"
#include "privacy/secagg/worker.h"
#include "secure/noise.h"
#include "secure/plan.h"
#include "worker/private.h"
#include "worker/votes.h"

struct pn_holder {
    struct pn_run *run;
    uint32_t producer;
    pn_peer coordinator, servers[PN_AGG_MAX_SERVERS];
    uint8_t identity[64];
    bool closed, busy;                /* busy: a computation is on a work thread */
    struct pn_work work;
    enum pn_result result;
    struct pn_error why;
    /* the holder's rows */
    struct pn_private_spec spec;
    struct pn_private *pool;
    struct pn_reader *reader;
    struct pn_features *features;
    struct pn_batch batch;
    const struct pn_raw *raw;
    uint64_t n_bad;
    bool reading, loaded;
    /* the model: the rows that there can be; the values of those that there are have a copy in run->mirror, which changes only while `pulling` */
    struct pn_secure_rows rows;
    bool have_rows, have_model, pulling;
    float *weights;                   /* in the order of rows.keys */
    uint64_t model_step;
    /* the round */
    struct pn_secure_plan plan, at;   /* what is wanted; what is being made */
    struct pn_net *net;
    uint64_t drawn_attempt;           /* whose gradients and votes are here; 0: none */
    float *sums[PN_MAX_TABLES];       /* clipped sums of all rows */
    double *votes, *all_votes;        /* by bucket: of the draw; fest: of all that the holder has, counted once */
    struct pn_secure_layout layout;
    struct pn_fixed fixed;
    void *words;
    size_t n_words, n_clipped;
    bool ready;
    uint8_t seed[PN_DRAWS_KEY_BYTES]; /* of the draw and the rounding; used once */
    struct pn_agg_worker *agg;
};

static void pump(struct pn_holder *);

static void wipe(void *at, size_t n_bytes) {
    if (at != NULL) sodium_memzero(at, n_bytes);
    free(at);
}
static void forget_draw(struct pn_holder *h) {
    for (size_t t = 0; t < PN_MAX_TABLES; t++) {
        if (h->have_rows) wipe(h->sums[t], h->rows.n[t] * h->rows.dim[t] * sizeof(float));
        h->sums[t] = NULL;
    }
    wipe(h->votes, h->rows.n_buckets * sizeof *h->votes);
    h->votes = NULL;
    h->drawn_attempt = 0;
}
static void drop_round(struct pn_holder *h) {
    pn_agg_worker_close(h->agg);
    h->agg = NULL;
    wipe(h->words, h->n_words * h->fixed.word_bytes);
    h->words = NULL;
    h->ready = false;
    pn_secure_layout_close(&h->layout);
}

static void free_holder(struct pn_holder *h) {
    drop_round(h);
    forget_draw(h);
    wipe(h->all_votes, h->rows.n_buckets * sizeof *h->all_votes);
    free(h->weights);
    pn_secure_rows_close(&h->rows);
    pn_secure_plan_close(&h->plan);
    pn_secure_plan_close(&h->at);
    if (h->reader != NULL) pn_reader_close(h->reader);
    if (h->features != NULL) pn_features_close(h->features);
    if (h->net != NULL) pn_net_close(h->net);
    pn_batch_free(&h->batch);
    pn_private_close(h->pool);
    pn_run_unref(h->run);
    sodium_memzero(h->identity, sizeof h->identity);
    free(h);
}

struct pn_holder *pn_holder_open(struct pn_run *run, uint32_t producer, pn_peer coordinator, const uint8_t identity[64]) {
    struct pn_holder *h = calloc(1, sizeof *h);
    struct pn_error err;
    if (h == NULL) return NULL;
    h->run = run;
    run->refs++;
    h->producer = producer;
    h->coordinator = coordinator;
    memcpy(h->identity, identity, 64);
    if (pn_private_spec_of(&run->job, run->n_producers, &h->spec) && (h->pool = pn_private_open(&run->job, &h->spec)) != NULL && pn_net_open(&h->net, &run->job, run->n_dense_inputs, &err) == PN_OK) {
        pump(h);
        return h;
    }
    free_holder(h);
    return NULL;
}

void pn_holder_close(struct pn_holder *h) {
    if (h == NULL) return;
    pn_client_cancel(h->run->client, h);
    pn_mirror_cancel(h->run->mirror, h);
    h->closed = true;
    if (h->reader != NULL && !h->busy) {
        pn_reader_close(h->reader);
        h->reader = NULL;
    }
    if (!h->busy) free_holder(h); /* else the work thread has it, and there is no sum that messages could be for */
}

static void fail(struct pn_holder *h, enum pn_result r, const char *text) { pn_run_fail(h->run, r, text); }

static void start_work(struct pn_holder *h, void (*run)(struct pn_work *), void (*done)(struct pn_work *)) {
    h->busy = true;
    h->work = (struct pn_work){.run = run, .done = done, .owner = h};
    pn_work_start(h->run->env, &h->work);
}
/* Back from a work thread: false if there is nobody any more. */
static bool back(struct pn_holder *h) {
    h->busy = false;
    if (h->closed) {
        free_holder(h);
        return false;
    }
    if (h->result == PN_OK) return true;
    fail(h, h->result, h->why.text[0] != '\0' ? h->why.text : "a secure step could not be computed");
    return false;
}

/* ---- the holder's rows, once ---- */

struct pn_count { struct pn_votes votes; struct pn_error *err; };

static void features_run(struct pn_work *w) {
    struct pn_holder *h = w->owner;
    h->why.text[0] = '\0';
    h->result = pn_features_learned(h->features, h->raw, &h->batch, &h->n_bad);
    if (h->result == PN_OK && !pn_private_add(h->pool, &h->batch)) h->result = pn_fail(&h->why, PN_NO_MEMORY, "no memory for the examples of a secure job, which are all kept");
}
static void features_done(struct pn_work *w) {
    struct pn_holder *h = w->owner;
    if (back(h)) pump(h);
}
/* All rows are here. */
static enum pn_result vote(void *owner, const struct pn_batch *part, size_t e, bool last) {
    struct pn_count *c = owner;
    const enum pn_result r = pn_votes_example(&c->votes, part, e, c->err);
    if (r == PN_OK && last) pn_votes_unit(&c->votes);
    return r;
}
static enum pn_result count(struct pn_holder *h) {
    const struct pn_privacy_spec *v = &h->run->job.privacy;
    struct pn_count c = {.err = &h->why};
    if (!pn_private_seal(h->pool)) return pn_fail(&h->why, PN_NO_MEMORY, "no memory for the examples of a secure job, which are all kept");
    if ((double)pn_private_units(h->pool) > pn_secure_most_units(&h->run->job))
        return pn_fail(&h->why, PN_REFUSED, "the job says too few %s: this data holder has more than its part may be, and roundoff is counted by it", v->per_user > 0 ? "users (privacy.users)" : "rows (privacy.rows)");
    enum pn_result r = pn_secure_rows_open(&h->rows, &h->run->job, h->run->n_parameters, &h->why);
    h->have_rows = r == PN_OK;
    if (r != PN_OK || v->selection != PN_SELECT_FEST) return r;
    r = pn_votes_open(&c.votes, &h->run->job, &h->rows);
    if (r != PN_OK) return r;
    h->all_votes = c.votes.sums;
    r = pn_private_visit(h->pool, vote, &c);
    pn_votes_close(&c.votes);
    return r;
}
static void count_run(struct pn_work *w) {
    struct pn_holder *h = w->owner;
    h->why.text[0] = '\0';
    h->result = count(h);
}
static void count_done(struct pn_work *w) {
    struct pn_holder *h = w->owner;
    if (!back(h)) return;
    h->loaded = true;
    pn_log(h->run->env, PN_INFO, "job %s: data holder %u is ready, with %zu %s", h->run->job_id, h->producer, pn_private_units(h->pool), h->spec.by_user ? "users" : "rows"); /* its own log */
    h->run->changed(h->run->owner);
    pump(h);
}

static void on_rows(void *owner, enum pn_result r, const struct pn_raw *raw, const struct pn_error *err) {
    struct pn_holder *h = owner;
    struct pn_error why = {""};
    h->reading = false;
    if (r == PN_NOT_FOUND) {
        pn_reader_close(h->reader);
        h->reader = NULL;
        start_work(h, count_run, count_done);
        return;
    }
    if (err != NULL) why = *err;
    pn_run_hide_row(h->run, r, &why);
    if (r == PN_OK && h->features == NULL) {
        r = pn_features_open(&h->features, &h->run->job, raw->names, raw->n_columns, &why);
        if (r == PN_OK) r = pn_features_set_statistics(h->features, h->run->statistics, &why);
        if (r == PN_OK) pn_features_use(h->features, &h->run->vocabularies);
        if (r == PN_OK) r = pn_features_labelled(h->features, true, &why);
    }
    if (r != PN_OK) {
        fail(h, r, why.text);
        return;
    }
    h->raw = raw;
    start_work(h, features_run, features_done);
}
static void read_on(struct pn_holder *h) {
    const struct pn_job *job = &h->run->job;
    if (h->reader == NULL) {
        const bool own = job->privacy.own_data;
        const struct pn_reader_options o = {.producer = own ? 0 : h->producer, .n_producers = own ? 1 : h->run->n_producers, .batch_size = job->batch_size,
                                            .by_hash = true, .user = job->privacy.per_user > 0 ? job->privacy.user_field : NULL, .parsed = h->run->parsed};
        if ((h->reader = pn_reader_open(h->run->env, &job->train, &o)) == NULL) {
            fail(h, PN_NO_MEMORY, "no memory for a reader");
            return;
        }
    }
    h->reading = true;
    pn_reader_next(h->reader, on_rows, h);
}

/* ---- the model: weights, and the run's copy of the rows ---- */

static void pulled(void *owner, enum pn_result r) {
    struct pn_holder *h = owner;
    h->pulling = false;
    if (r != PN_OK) {
        fail(h, r, "the model could not be pulled");
        return;
    }
    h->have_model = true;
    h->model_step = h->at.applied;
    pump(h);
}
static void pulled_weights(void *owner, enum pn_result r) {
    struct pn_holder *h = owner;
    if (r == PN_OK) pn_mirror_refresh(h->run->mirror, 0, pulled, h);
    else pulled(h, r);
}
static void pull(struct pn_holder *h) {
    const uint32_t dense = h->run->job.i_dense_table;
    const size_t n = h->rows.n[dense];
    if (h->weights == NULL && (h->weights = malloc((n * PN_DENSE_ROW + 1) * sizeof *h->weights)) == NULL) {
        fail(h, PN_NO_MEMORY, "no memory for the weights");
        return;
    }
    struct pn_client_part part = {dense, n, h->rows.keys[dense], h->weights, NULL};
    h->pulling = true;
    pn_client_pull(h->run->client, UINT32_MAX, 0, &part, 1, pulled_weights, h);
}

/* ---- a step: a batch, its clipped sums, its votes (on a work thread) ---- */

static enum pn_result step(struct pn_holder *h, struct pn_draws *g) {
    const struct pn_job *job = &h->run->job;
    const uint32_t dense = job->i_dense_table;
    struct pn_batch b = {0};
    float *rows[PN_MAX_TABLES] = {NULL}, *gradients[PN_MAX_TABLES] = {NULL}, *scores = NULL;
    const float *in[PN_MAX_TABLES] = {NULL};
    size_t *place[PN_MAX_TABLES] = {NULL};
    double loss;
    enum pn_result r = pn_private_draw(h->pool, g, &b);
    if (r != PN_OK) return r;
    bool ok = (scores = malloc((b.n_examples + 1) * sizeof *scores)) != NULL;
    for (size_t t = 0; ok && t < job->n_tables; t++) {
        const size_t n = t == dense ? 0 : b.n_unique[t], dim = h->rows.dim[t];
        ok = (h->sums[t] = calloc(h->rows.n[t] * dim + 1, sizeof(float))) != NULL;
        if (t == dense) continue;
        ok = ok && (rows[t] = malloc((n * dim + 1) * sizeof(float))) != NULL && (gradients[t] = malloc((n * dim + 1) * sizeof(float))) != NULL && (place[t] = malloc((n + 1) * sizeof(size_t))) != NULL;
        for (size_t i = 0; ok && i < n; i++) {
            place[t][i] = pn_secure_row(&h->rows, t, b.unique[t][i]);
            if (place[t][i] == SIZE_MAX) {
                r = pn_secure_undeclared(job, t, &h->why);
                goto out;
            }
        }
        if (ok) pn_mirror_rows(h->run->mirror, (uint32_t)t, b.unique[t], n, rows[t]);
        in[t] = rows[t];
    }
    if (!ok) r = PN_NO_MEMORY;
    /* The weights were pulled in the order of their keys' mix; the model wants them by place. */
    float *weights = r == PN_OK ? malloc((h->rows.n[dense] + 1) * PN_DENSE_ROW * sizeof(float)) : NULL, *weight_sums = r == PN_OK ? malloc((h->rows.n[dense] + 1) * PN_DENSE_ROW * sizeof(float)) : NULL;
    if (weights == NULL || weight_sums == NULL) r = r == PN_OK ? PN_NO_MEMORY : r;
    if (r == PN_OK) {
        for (size_t i = 0; i < h->rows.n[dense]; i++) memcpy(weights + h->rows.keys[dense][i] * PN_DENSE_ROW, h->weights + i * PN_DENSE_ROW, PN_DENSE_ROW * sizeof(float));
        in[dense] = weights;
        r = pn_net_step_clipped(h->net, &b, in, weights, pn_draws_bits(g) /* as in worker/prepare.c: dropout by places that nobody can know */, h->spec.clip, pn_job_spread(&job->privacy), gradients, weight_sums, scores, NULL, &loss);
    }
    if (r == PN_OK) {
        for (size_t i = 0; i < h->rows.n[dense]; i++) memcpy(h->sums[dense] + i * PN_DENSE_ROW, weight_sums + h->rows.keys[dense][i] * PN_DENSE_ROW, PN_DENSE_ROW * sizeof(float));
        for (size_t t = 0; t < job->n_tables; t++)
            for (size_t i = 0; t != dense && i < b.n_unique[t]; i++) memcpy(h->sums[t] + place[t][i] * h->rows.dim[t], gradients[t] + i * h->rows.dim[t], h->rows.dim[t] * sizeof(float));
    }
    struct pn_votes votes;
    if (r == PN_OK && job->privacy.selection == PN_SELECT_ADAFEST && (r = pn_votes_open(&votes, job, &h->rows)) == PN_OK) {
        h->votes = votes.sums;
        r = pn_votes_batch(&votes, &b, &h->why);
        pn_votes_close(&votes);
    }
    free(weights);
    free(weight_sums);
out:
    for (size_t t = 0; t < PN_MAX_TABLES; t++) {
        free(rows[t]);
        free(gradients[t]);
        free(place[t]);
    }
    free(scores);
    pn_batch_free(&b);
    return r;
}

/* FEST: the round that chooses rows is of all that there is, not of a draw. */
static bool chooses(const struct pn_holder *h) { return h->at.phase == PN_SECURE_COUNTS && h->run->job.privacy.selection == PN_SELECT_FEST; }

/* The vector of a round's phase: clipped, rounded, with this holder's share of noise. */
static enum pn_result make_words(struct pn_holder *h, struct pn_draws *g) {
    const struct pn_secure_plan *p = &h->at;
    enum pn_result r = p->phase == PN_SECURE_COUNTS ? pn_secure_fixed_counts(&h->fixed, &h->run->job, &h->why) : pn_secure_fixed_update(&h->fixed, &h->run->job, h->rows.n_values, &h->why);
    if (r != PN_OK) return r;
    if (p->phase == PN_SECURE_COUNTS) pn_secure_layout_counts(&h->layout, h->rows.n_buckets, p->n_servers);
    else r = pn_secure_layout_update(&h->layout, &h->rows, p->slots, p->n_servers, p->passed, &h->why);
    if (r != PN_OK) return r;
    h->n_words = (size_t)h->layout.first[p->n_servers];
    double *values = calloc(h->n_words, sizeof *values);
    h->words = malloc(h->n_words * h->fixed.word_bytes);
    struct pn_discrete *noise = NULL;
    if (values == NULL || h->words == NULL) r = PN_NO_MEMORY;
    else r = pn_discrete_open(&noise, &h->why);
    if (r == PN_OK && p->phase == PN_SECURE_COUNTS) memcpy(values, chooses(h) ? h->all_votes : h->votes, h->rows.n_buckets * sizeof *values);
    for (uint32_t s = 0; r == PN_OK && p->phase == PN_SECURE_UPDATE && s < p->n_servers; s++) {
        double *at = values + h->layout.first[s];
        for (size_t t = 0; t < h->rows.n_tables; t++)
            for (size_t i = h->layout.begin[t][s]; i < h->layout.begin[t][s + 1]; i++)
                for (size_t d = 0; d < h->rows.dim[t]; d++) *at++ = (double)h->sums[t][(size_t)h->layout.row[t][i] * h->rows.dim[t] + d];
    }
    if (r == PN_OK) r = pn_secure_words(&h->fixed, g, noise, values, h->n_words, h->words, &h->n_clipped, &h->why);
    wipe(values, h->n_words * sizeof *values);
    pn_discrete_close(noise);
    return r;
}

static void prepare_run(struct pn_work *w) {
    struct pn_holder *h = w->owner;
    struct pn_draws g;
    pn_draws_open(&g, h->seed);
    sodium_memzero(h->seed, sizeof h->seed);
    h->why.text[0] = '\0';
    h->result = PN_OK;
    if (h->drawn_attempt != h->at.attempt && !chooses(h)) {
        h->result = step(h, &g);
        h->drawn_attempt = h->at.attempt;
    }
    if (h->result == PN_OK) h->result = make_words(h, &g);
    pn_draws_close(&g);
}

static void sum_done(void *owner, enum pn_result r, const char *line) {
    const struct pn_holder *h = owner;
    if (r != PN_OK) pn_log(h->run->env, PN_WARN, "job %s: round %" PRIu64 " is over for this data holder: %s", h->run->job_id, h->at.attempt, line);
}

static void prepare_done(struct pn_work *w) {
    struct pn_holder *h = w->owner;
    if (!back(h)) return;
    if (!pn_secure_same_round(&h->plan, &h->at)) { /* the plan has moved on meanwhile */
        pump(h);
        return;
    }
    const struct pn_agg_terms terms = pn_secure_terms(&h->run->job, &h->at, h->layout.first, h->fixed.word_bytes);
    const struct pn_agg_worker_setup setup = {.terms = &terms, .self = h->producer, .identity = h->identity, .words = h->words, .coordinator = h->coordinator,
                                              .servers = h->servers, .done = sum_done, .owner = h};
    struct pn_error err = {""};
    const enum pn_result r = pn_agg_worker_open(&h->agg, h->run->env, &setup, &err);
    if (r != PN_OK) {
        fail(h, r, err.text);
        return;
    }
    if (h->n_clipped > 0) pn_log(h->run->env, PN_DEBUG, "job %s: %zu values of round %" PRIu64 " were outside the range", h->run->job_id, h->n_clipped, h->at.attempt);
    h->ready = true;
    h->run->changed(h->run->owner);
}

/* ---- what is next ---- */

static void pump(struct pn_holder *h) {
    if (h->closed || h->busy || h->reading || h->pulling || h->run->failed) return;
    if (!h->loaded) {
        read_on(h);
        return;
    }
    const bool sums = h->plan.phase == PN_SECURE_COUNTS || h->plan.phase == PN_SECURE_UPDATE;
    if (!sums || (h->agg != NULL && pn_secure_same_round(&h->plan, &h->at))) return;
    /* Counts and update are of one draw: a holder that did not draw for the counts has no part in the update. */
    if (h->plan.phase == PN_SECURE_UPDATE && h->run->job.privacy.selection == PN_SELECT_ADAFEST && h->drawn_attempt != h->plan.attempt) return;
    drop_round(h);
    pn_secure_plan_close(&h->at);
    h->at = h->plan;
    h->at.passed = NULL;
    const size_t n = pn_secure_bitmap_bytes(h->run->job.privacy.vote_buckets);
    struct pn_error err = {""};
    enum pn_result r = PN_OK;
    if (h->plan.passed != NULL && (h->at.passed = malloc(n + 1)) == NULL) r = pn_fail(&err, PN_NO_MEMORY, "no memory for a round");
    else if (h->plan.passed != NULL) memcpy(h->at.passed, h->plan.passed, n);
    if (r == PN_OK && h->at.n_weights != h->run->n_parameters) r = pn_fail(&err, PN_INVALID, "a round with %" PRIu64 " weights; this model has %zu", h->at.n_weights, h->run->n_parameters);
    if (r != PN_OK) {
        fail(h, r, err.text);
        return;
    }
    if (h->drawn_attempt != h->at.attempt) {
        forget_draw(h);
        if (!h->have_model || h->model_step != h->at.applied) {
            pull(h);
            return;
        }
    }
    pn_agg_random(h->run->env, h->seed, sizeof h->seed);
    start_work(h, prepare_run, prepare_done);
}

void pn_holder_plan(struct pn_holder *h, struct json_object *plan_job) {
    struct pn_secure_plan next;
    struct pn_error err = {""};
    struct json_object *shards = pn_json_get(plan_job, "shards"), *secure = pn_json_get(plan_job, "secure");
    if (secure == NULL) return;
    if (pn_secure_plan_read(&next, secure, &h->run->job, &err) != PN_OK) {
        pn_log(h->run->env, PN_WARN, "%s", err.text);
        return;
    }
    pn_secure_plan_close(&h->plan);
    h->plan = next;
    for (size_t s = 0; s < pn_json_length(shards) && s < PN_AGG_MAX_SERVERS; s++) {
        const char *address = pn_json_str(pn_json_at(shards, s), "address", "");
        if (address[0] != '\0') h->servers[s] = h->run->env->ops->connect(h->run->env, address);
    }
    /* A sum that the plan has left behind answers nobody any more. */
    if (!h->busy && h->agg != NULL && h->plan.attempt != h->at.attempt) drop_round(h);
    pump(h);
}

void pn_holder_message(struct pn_holder *h, pn_peer from, const struct pn_frame *f) {
    if (h->agg != NULL) pn_agg_worker_message(h->agg, from, f);
}

struct json_object *pn_holder_state(const struct pn_holder *h) {
    struct json_object *o = json_object_new_object();
    pn_json_add_bool(o, "loaded", h->loaded);
    pn_json_add_u64(o, "attempt", h->at.attempt);
    pn_json_add_str(o, "phase", pn_secure_phases[h->at.phase]);
    pn_json_add_bool(o, "ready", h->ready);
    return o;
}
uint32_t pn_holder_producer(const struct pn_holder *h) { return h->producer; }
