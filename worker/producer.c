/* One data shard's pipeline. The idea: a batch is a function of (job, producer, step), so a step that is run again after a crash carries the same push id
 * and the same keys. Batches are prepared ahead (read, features); a step starts when its batch and the knowledge whether another follows are there
 * (the last push says that it is the last); several steps are in flight, computed and pushed in order.
 *
 * Everything runs on the core's thread but two pure computations. A closed producer frees itself when its last computation returned. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "common/mutant.h"
#include "common/unique.h"
#include "nn/device.h"
#include "worker/audit.h"
#include "worker/hot.h"
#include "worker/internal.h"
#include "worker/private.h"

#define AHEAD 2u

struct step {
    struct step *next;
    struct pn_producer *owner;
    uint64_t step;
    uint32_t epoch;
    bool last;
    enum { PREPARED, LOOKING, PULLING, READY, COMPUTING, ON_DEVICE, COMPUTED, PUSHED } state;
    struct pn_batch batch;
    bool have_batch;
    float *rows[PN_MAX_TABLES], *gradients[PN_MAX_TABLES], *scores;
    uint8_t *segments;           /* of a stream: each row's, for windows.c */
    double loss;
    enum pn_result result;
    struct pn_error why;
    size_t slot; /* of the device */
    struct pn_hot_step hot; /* with a cache on it */
    bool looked_for, empty, keep;
    struct pn_work work;
    uint64_t since_ns;
    struct pn_draws noise;               /* private: of this step */
    struct pn_private_push push;
    /* audit */
    uint64_t keys[PN_AUDIT_RAW];
    size_t n_keys;
};

struct pn_producer {
    struct pn_producer *next;
    struct pn_run *run;
    bool closed;
    uint32_t id, incarnation;
    uint64_t next_step, started, limit, first_step, total_steps, gate_epochs, gate_step;
    uint64_t samples, loss_rows, begin_ns, last_ns;
    uint64_t rows_read, rows_an_epoch;   /* rows_an_epoch 0: not known yet */
    double loss_sum;
    bool pooled;                         /* private: all examples are in memory */
    bool all_read, last_started, finished, fenced;
    bool computing;                      /* on the CPU, or a step is being brought to the device */
    bool collecting;                     /* ... or what it has computed is being fetched */
    /* reading */
    struct pn_reader *reader;
    uint32_t epoch;
    uint64_t to_skip, read_since_ns;
    bool reading;
    struct pn_features *features;
    struct step *preparing;
    struct pn_work features_work;
    const struct pn_raw *raw;
    enum pn_result features_result;
    uint64_t n_bad;
    bool in_features;
    /* steps: prepared ones first wait here, then run in order */
    struct step *prepared, *running;
    size_t n_prepared, n_running;
    struct pn_net *net;
    struct pn_device *device;            /* NULL: the CPU computes */
    size_t next_slot, on_device;         /* steps brought and not fetched */
    bool cached;                         /* its device holds rows from step to step */
    bool looks[PN_DEVICE_LOOKS];         /* those in use */
    uint64_t life;                       /* run->hot.life that its rows are of */
    uint64_t rows_held, rows_evicted;
    struct pn_device_seconds on_device_before; /* that the run's stages have */
    uint64_t *dense_keys;
    struct pn_private *private;          /* NULL: not a private job */
    struct pn_private_spec private_spec;
    uint64_t drawn;                      /* the last step whose batch was drawn */
    struct pn_windows *windows;  /* NULL: no stream */
    struct json_object *ledger;  /* of a topic: the newest */
};

static void advance(struct pn_producer *p);

static void add_stage(struct pn_run *run, enum pn_stage stage, uint64_t since_ns) {
    run->stage_seconds[stage] += (double)(pn_now_ns(run->env) - since_ns) / 1e9;
}

static void free_step(struct step *s) {
    for (size_t t = 0; t < PN_MAX_TABLES; t++) {
        free(s->rows[t]);
        free(s->gradients[t]);
    }
    free(s->scores);
    free(s->segments);
    if (s->have_batch) pn_batch_free(&s->batch);
    pn_private_push_free(&s->push);
    pn_hot_free(&s->hot);
    pn_draws_close(&s->noise);
    free(s);
}

static void append(struct step **list, struct step *s) {
    while (*list != NULL) list = &(*list)->next;
    s->next = NULL;
    *list = s;
}

static void free_producer(struct pn_producer *p) {
    while (p->prepared != NULL) {
        struct step *s = p->prepared;
        p->prepared = s->next;
        free_step(s);
    }
    while (p->running != NULL) {
        struct step *s = p->running;
        p->running = s->next;
        free_step(s);
    }
    if (p->preparing != NULL) free_step(p->preparing);
    if (p->reader != NULL) pn_reader_close(p->reader);
    if (p->features != NULL) pn_features_close(p->features);
    if (p->device != NULL) pn_device_close(p->device);
    if (p->net != NULL) pn_net_close(p->net);
    free(p->dense_keys);
    pn_private_close(p->private);
    pn_windows_close(p->windows);
    if (p->ledger != NULL) json_object_put(p->ledger);
    pn_run_unref(p->run);
    free(p);
}

static bool topic(const struct pn_producer *p) { return p->run->job.train.kafka.brokers[0] != '\0'; }

static bool audit(const struct pn_producer *p) { return p->run->job.model == PN_MODEL_AUDIT; }

/* The next step is of an epoch that is not open yet. */
static bool gated(const struct pn_producer *p) { return p->prepared != NULL && p->prepared->epoch >= p->gate_epochs && p->next_step > p->gate_step; }

static void fail(struct pn_producer *p, enum pn_result r, const char *text) { pn_run_fail(p->run, r, text); }

/* ---- preparing: read and features, one batch at a time ---- */

static void featured(struct pn_work *w) {
    struct pn_producer *p = w->owner;
    p->in_features = false;
    if (p->closed) {
        if (!p->computing && !p->collecting) free_producer(p);
        return;
    }
    add_stage(p->run, PN_STAGE_FEATURES, p->read_since_ns);
    struct step *s = p->preparing;
    p->preparing = NULL;
    if (p->features_result != PN_OK) {
        free_step(s);
        fail(p, p->features_result, "a batch could not be turned into features");
        return;
    }
    if (p->private != NULL && !p->pooled) { /* an example to draw from, not a step yet */
        const bool kept = pn_private_add(p->private, &s->batch);
        free_step(s);
        if (!kept) fail(p, PN_NO_MEMORY, "no memory for the examples of a private job, which are all kept");
        else advance(p);
        return;
    }
    s->have_batch = true;
    append(&p->prepared, s);
    p->n_prepared++;
    if (p->private != NULL) p->all_read = p->drawn >= p->total_steps;
    if (p->n_running == 0 && p->n_prepared == 1 && gated(p)) p->run->changed(p->run->owner); /* now it is known that it waits */
    advance(p);
}

/* ---- private jobs: a batch is drawn from the examples in memory ---- */

static void draw(struct pn_work *w) {
    struct pn_producer *p = w->owner;
    struct step *s = p->preparing;
    p->features_result = p->drawn == 1 ? pn_private_choose(p->private, &s->noise) : PN_OK;
    if (p->features_result == PN_OK) p->features_result = pn_private_draw(p->private, &s->noise, &s->batch);
}

/* Behind the last example: the first step to draw. */
static void pooled(struct pn_producer *p) {
    p->pooled = true;
    if (!pn_private_seal(p->private)) {
        fail(p, PN_NO_MEMORY, "no memory for the examples of a private job, which are all kept");
        return;
    }
    p->total_steps = pn_private_steps_an_epoch(p->private) * p->run->job.epochs;
    p->drawn = p->first_step - 1;
    p->all_read = p->drawn >= p->total_steps;
    /* Its rows are known to one process alone: another would choose anew, which nobody has paid for. */
    if (p->private_spec.selection == PN_SELECT_FEST && p->first_step > 1)
        fail(p, PN_INVALID, "selection: fest does not outlive its worker: the rows were chosen at the first step, and a second choice would cost privacy again; start the job anew");
}

static void draw_next(struct pn_producer *p) {
    struct step *s = calloc(1, sizeof *s);
    if (s == NULL) {
        fail(p, PN_NO_MEMORY, "no memory for a batch");
        return;
    }
    uint64_t seed[PN_DRAWS_KEY_BYTES / 8];
    for (size_t i = 0; i < sizeof seed / sizeof *seed; i++) seed[i] = p->run->env->ops->random(p->run->env);
    pn_draws_open(&s->noise, (const uint8_t *)seed);
    s->owner = p;
    s->epoch = (uint32_t)(p->drawn / pn_private_steps_an_epoch(p->private));
    p->drawn++;
    p->preparing = s;
    p->in_features = true;
    p->read_since_ns = pn_now_ns(p->run->env);
    p->features_work = (struct pn_work){.run = draw, .done = featured, .owner = p};
    pn_work_start(p->run->env, &p->features_work);
}

static void make_features(struct pn_work *w) {
    struct pn_producer *p = w->owner;
    p->features_result = pn_features_batch(p->features, p->raw, &p->preparing->batch, &p->n_bad);
}

static void on_rows(void *owner, enum pn_result r, const struct pn_raw *raw, const struct pn_error *err) {
    struct pn_producer *p = owner;
    struct pn_error why = {""};
    p->reading = false;
    add_stage(p->run, PN_STAGE_READ, p->read_since_ns);
    if (r == PN_NOT_FOUND && p->private != NULL) {
        pn_reader_close(p->reader);
        p->reader = NULL;
        pooled(p);
        advance(p);
        return;
    }
    if (r == PN_NOT_FOUND) {
        p->epoch++;
        p->rows_an_epoch = p->rows_read;
        p->rows_read = 0;
        if (p->epoch >= p->run->job.epochs) p->all_read = true;
        if (p->all_read || !pn_reader_again(p->reader, p->epoch)) {
            pn_reader_close(p->reader);
            p->reader = NULL;
        }
        advance(p);
        return;
    }
    if (r == PN_OK) p->rows_read += raw->n_rows;
    if (r == PN_OK && p->to_skip > 0 && p->private == NULL) {
        p->to_skip--;
        advance(p);
        return;
    }
    if (err != NULL) why = *err;
    if (r == PN_OK && p->features == NULL) {
        r = pn_features_open(&p->features, &p->run->job, raw->names, raw->n_columns, &why);
        if (r == PN_OK) r = pn_features_set_statistics(p->features, p->run->statistics, &why);
        if (r == PN_OK) pn_features_use(p->features, &p->run->vocabularies);
        if (r == PN_OK) r = pn_features_labelled(p->features, true, &why);
    }
    if (r == PN_OK && (p->preparing = calloc(1, sizeof *p->preparing)) == NULL) r = pn_fail(&why, PN_NO_MEMORY, "no memory for a batch");
    if (r == PN_OK && p->windows != NULL && (p->preparing->segments = pn_windows_segments(p->windows, raw, &why)) == NULL) r = PN_INVALID;
    if (r != PN_OK) {
        fail(p, r, why.text);
        return;
    }
    p->preparing->owner = p;
    p->preparing->epoch = p->epoch;
    p->raw = raw;
    p->in_features = true;
    p->read_since_ns = pn_now_ns(p->run->env);
    p->features_work = (struct pn_work){.run = make_features, .done = featured, .owner = p};
    pn_work_start(p->run->env, &p->features_work);
}

static void proposes(void *owner) {
    const struct pn_producer *p = owner;
    p->run->changed(p->run->owner);
}

static void prepare(struct pn_producer *p) {
    if (p->reading || p->in_features || p->all_read || p->n_prepared >= AHEAD) return;
    if (audit(p)) {
        while (p->n_prepared < AHEAD && !p->all_read) {
            struct step *s = calloc(1, sizeof *s);
            if (s == NULL) return;
            s->owner = p;
            append(&p->prepared, s);
            p->n_prepared++;
            p->all_read = p->next_step + p->n_prepared - 1 >= p->total_steps;
        }
        return;
    }
    if (p->pooled) {
        draw_next(p);
        return;
    }
    if (p->reader == NULL) {
        const struct pn_job *job = &p->run->job;
        struct pn_reader_options o = {.producer = p->id, .n_producers = p->run->n_producers, .epoch = p->epoch, .shuffle_buffer = job->shuffle_buffer,
                                      .shuffle_seed = job->shuffle_seed, .batch_size = job->batch_size, .user = job->privacy.per_user > 0 ? job->privacy.user_field : NULL,
                                      .topic = p->run->topic, .proposes = proposes, .owner = p};
        if (topic(p)) { /* it skips by the ledger, without reading */
            o.skip_batches = p->to_skip;
            p->to_skip = 0;
        }
        p->reader = pn_reader_open(p->run->env, &job->train, &o);
        if (p->reader == NULL) {
            fail(p, PN_NO_MEMORY, "no memory for a reader");
            return;
        }
        if (p->ledger != NULL) pn_reader_deal(p->reader, p->ledger);
    }
    p->reading = true;
    p->read_since_ns = pn_now_ns(p->run->env);
    pn_reader_next(p->reader, on_rows, p);
}

/* ---- pushing, in order ---- */

static void acknowledged(void *owner, enum pn_result r) {
    struct step *s = owner;
    struct pn_producer *p = s->owner;
    struct pn_run *run = p->run;
    add_stage(run, PN_STAGE_PUSH, s->since_ns);
    p->last_ns = pn_now_ns(run->env);
    struct step **at = &p->running;
    while (*at != s) at = &(*at)->next;
    *at = s->next;
    p->n_running--;
    bool last = s->last;
    free_step(s);
    if (r != PN_OK) {
        if (r == PN_FENCED) p->fenced = true; /* another worker has this data shard: stop quietly, the plan will say so */
        else fail(p, r, "a push was refused by a server");
        return;
    }
    if (last) {
        p->finished = true;
        run->changed(run->owner);
    } else if (p->n_running == 0 && (p->started >= p->limit || gated(p))) {
        run->changed(run->owner); /* drained */
    }
    advance(p);
}

static enum pn_result push(struct pn_producer *p, struct step *s) {
    struct pn_client_part parts[PN_MAX_TABLES];
    size_t n = 0;
    const struct pn_job *job = &p->run->job;
    if (audit(p)) {
        if (s->n_keys > 0) parts[n++] = (struct pn_client_part){0, s->n_keys, s->keys, s->gradients[0], NULL};
    } else if (s->have_batch) {
        for (uint32_t t = 0; t < job->i_dense_table; t++)
            if (p->private != NULL && s->push.n[t] > 0) parts[n++] = (struct pn_client_part){t, s->push.n[t], s->push.keys[t], s->push.gradients[t], NULL};
            else if (p->private == NULL && s->batch.n_unique[t] > 0) parts[n++] = (struct pn_client_part){t, s->batch.n_unique[t], s->batch.unique[t], s->gradients[t], NULL};
        parts[n++] = (struct pn_client_part){job->i_dense_table, p->run->n_dense_rows, p->dense_keys, s->gradients[job->i_dense_table], NULL};
    }
    enum pn_result r = pn_client_push(p->run->client, p->id, s->step, s->last, parts, n, acknowledged, s);
    if (r != PN_OK) return r;
    s->state = PUSHED;
    s->since_ns = pn_now_ns(p->run->env);
    if (p->private != NULL) {
        p->samples += p->private_spec.batch; /* what is expected: the true number and the loss are not for others to see */
    } else if (s->have_batch) {
        p->samples += s->batch.n_examples;
        p->loss_sum += s->loss;
        p->loss_rows += s->batch.n_examples;
    } else if (audit(p)) {
        p->samples += PN_AUDIT_RAW;
    }
    if (p->windows != NULL && pn_windows_add(p->windows, s->step, s->last, s->scores, s->batch.labels, s->segments, s->have_batch ? s->batch.n_examples : 0))
        p->run->changed(p->run->owner);
    return PN_OK;
}

static void push_in_order(struct pn_producer *p) {
    for (struct step *s = p->running; s != NULL && s->state >= COMPUTED; s = s->next) {
        if (s->state != COMPUTED) continue;
        enum pn_result r = push(p, s);
        if (r == PN_BUSY || r == PN_NO_MEMORY) return; /* again after an acknowledgement or a commit, or on the next beat */
        if (r == PN_FENCED) {
            p->fenced = true;
            return;
        }
    }
}

/* ---- computing, one at a time, in order ---- */

/* Pascanu et al. 2013: the whole gradient is scaled down to norm `most`. State rows are no gradient. */
static void clip(struct pn_producer *p, struct step *s, double most) {
    const struct pn_job *job = &p->run->job;
    double squares = 0;
    for (int pass = 0; pass < 2; pass++) {
        const double norm = sqrt(squares);
        if (pass == 1 && !(norm > most)) return;
        const float scale = pass == 1 ? (float)(most / norm) : 1;
        for (uint32_t t = 0; t < job->n_tables; t++) {
            size_t n = s->batch.n_unique[t] * job->tables[t].dim;
            if (t == job->i_dense_table)
                for (n = 0; n < p->run->n_dense_rows * PN_DENSE_ROW && !(p->dense_keys[n / PN_DENSE_ROW] & PN_STATE_KEY);) n += PN_DENSE_ROW;
            float *g = s->gradients[t];
            for (size_t i = 0; i < n; i++) {
                if (pass == 0) squares += (double)g[i] * (double)g[i];
                else g[i] *= scale;
            }
        }
    }
}

/* The gradients of a sync job's producers are shares of one step's. */
static void share_out(struct pn_producer *p, struct step *s) {
    const struct pn_job *job = &p->run->job;
    if (job->consistency != PN_SYNC || p->run->n_producers == 1) return;
    const float share = 1.0f / (float)p->run->n_producers; /* the shards add up the producers' means */
    for (uint32_t t = 0; t < job->n_tables; t++) {
        const bool is_dense = t == job->i_dense_table, private = p->private != NULL && !is_dense;
        const size_t n = is_dense ? p->run->n_dense_rows * PN_DENSE_ROW : (private ? s->push.n[t] : s->batch.n_unique[t]) * job->tables[t].dim;
        float *g = private ? s->push.gradients[t] : s->gradients[t];
        for (size_t i = 0; i < n; i++) g[i] *= share;
    }
}

static void compute(struct pn_work *w) {
    struct step *s = w->owner;
    struct pn_producer *p = s->owner;
    const struct pn_job *job = &p->run->job;
    const float *rows[PN_MAX_TABLES];
    for (size_t t = 0; t < PN_MAX_TABLES; t++) rows[t] = s->rows[t];
    const uint64_t seed = pn_mix64(job->seed ^ pn_mix64(s->step * PN_MAX_PRODUCERS + p->id));
    float *dense = s->gradients[job->i_dense_table];
    if (p->private != NULL) {
        s->result = pn_net_step_clipped(p->net, &s->batch, rows, s->rows[job->i_dense_table], seed, p->private_spec.clip, s->gradients, dense, s->scores, NULL, &s->loss);
        if (s->result == PN_OK)
            s->result = pn_private_release(p->private, &s->noise, &s->batch, s->gradients, dense, p->run->n_dense_rows * PN_DENSE_ROW, &s->push);
    } else {
        s->result = pn_net_step(p->net, &s->batch, rows, s->rows[job->i_dense_table], seed, s->gradients, dense, s->scores, &s->loss);
    }
    /* A stream's figures are of the whole model: the step's own scores may lack units that dropout took. */
    if (s->result == PN_OK && p->windows != NULL) s->result = pn_net_forward(p->net, &s->batch, rows, s->rows[job->i_dense_table], s->scores);
    if (s->result == PN_OK && job->clip_norm > 0) clip(p, s, (double)job->clip_norm);
    share_out(p, s);
}

static void computed(struct pn_work *w) {
    struct step *s = w->owner;
    struct pn_producer *p = s->owner;
    if (p->device != NULL) p->collecting = false;
    else p->computing = false;
    if (p->closed) {
        if (!p->in_features && !p->computing && !p->collecting) free_producer(p);
        return;
    }
    add_stage(p->run, PN_STAGE_COMPUTE, s->since_ns);
    if (s->result != PN_OK) {
        fail(p, s->result, s->why.text[0] != '\0' ? s->why.text : "a step could not be computed");
        return;
    }
    s->state = COMPUTED;
    if (p->device != NULL) {
        const struct pn_device_seconds now = pn_device_time(p->device);
        p->run->stage_seconds[PN_STAGE_COPY_IN] += now.in - p->on_device_before.in;
        p->run->stage_seconds[PN_STAGE_KERNELS] += now.compute - p->on_device_before.compute;
        p->run->stage_seconds[PN_STAGE_COPY_OUT] += now.out - p->on_device_before.out;
        p->on_device_before = now;
        p->on_device--;
    }
    advance(p);
}

/* On a device a step is two computations: it is brought and queued (bring), and what it made is fetched (fetch). The next step is brought while this one runs. */
static void bring(struct pn_work *w) {
    struct step *s = w->owner;
    struct pn_producer *p = s->owner;
    const struct pn_job *job = &p->run->job;
    const float *rows[PN_MAX_TABLES];
    for (size_t t = 0; t < PN_MAX_TABLES; t++) rows[t] = s->rows[t];
    const uint64_t seed = pn_mix64(job->seed ^ pn_mix64(s->step * PN_MAX_PRODUCERS + p->id));
    s->result = p->cached ? pn_device_begin_found(p->device, s->slot, s->hot.look, s->keep, &s->batch, rows, s->rows[job->i_dense_table], seed, &s->why)
                          : pn_device_begin(p->device, s->slot, &s->batch, rows, s->rows[job->i_dense_table], seed, &s->why);
}
static void fetch(struct pn_work *w) {
    struct step *s = w->owner;
    struct pn_producer *p = s->owner;
    s->result = pn_device_end(p->device, s->slot, &s->batch, s->gradients, s->gradients[p->run->job.i_dense_table], s->scores, &s->loss, &s->why);
    if (s->result == PN_OK && p->private != NULL) /* clipped sums came back; the noise is drawn here, by the generator that the accounting is about */
        s->result = pn_private_release(p->private, &s->noise, &s->batch, s->gradients, s->gradients[p->run->job.i_dense_table], p->run->n_dense_rows * PN_DENSE_ROW, &s->push);
    if (s->result == PN_OK) share_out(p, s);
}
static void brought(struct pn_work *w) {
    struct step *s = w->owner;
    struct pn_producer *p = s->owner;
    p->computing = false;
    if (p->closed) {
        if (!p->in_features && !p->collecting) free_producer(p);
        return;
    }
    if (s->result != PN_OK) {
        fail(p, s->result, s->why.text);
        return;
    }
    s->state = ON_DEVICE;
    p->looks[s->hot.look] = false;
    advance(p);
}
static void compute_on_device(struct pn_producer *p) {
    for (struct step *s = p->running; s != NULL && s->state > PULLING; s = s->next) {
        if ((audit(p) || !s->have_batch) && s->state == READY) s->state = COMPUTED;
        if (s->state == ON_DEVICE && !p->collecting) {
            s->state = COMPUTING;
            p->collecting = true;
            s->work = (struct pn_work){.run = fetch, .done = computed, .owner = s};
            pn_work_start(p->run->env, &s->work);
        }
        if (s->state == READY && !p->computing && p->on_device < PN_DEVICE_SLOTS) {
            s->state = COMPUTING;
            p->computing = true;
            p->on_device++;
            s->slot = p->next_slot++ % PN_DEVICE_SLOTS;
            s->since_ns = pn_now_ns(p->run->env);
            s->keep = s->hot.life == p->run->hot.life; /* else it was pulled from a server that has gone back since */
            s->work = (struct pn_work){.run = bring, .done = brought, .owner = s};
            pn_work_start(p->run->env, &s->work);
        }
        if (s->state == READY) return; /* order */
    }
}

static void compute_next(struct pn_producer *p) {
    if (p->device != NULL) {
        compute_on_device(p);
        return;
    }
    for (struct step *s = p->running; s != NULL && !p->computing; s = s->next) {
        if (s->state >= COMPUTING) continue;
        if (s->state != READY) return; /* order */
        if (audit(p) || !s->have_batch) {
            s->state = COMPUTED;
            continue;
        }
        s->state = COMPUTING;
        p->computing = true;
        s->since_ns = pn_now_ns(p->run->env);
        s->work = (struct pn_work){.run = compute, .done = computed, .owner = s};
        pn_work_start(p->run->env, &s->work);
    }
}

/* ---- starting a step: pull ---- */

static void pulled(void *owner, enum pn_result r) {
    struct step *s = owner;
    struct pn_producer *p = s->owner;
    add_stage(p->run, PN_STAGE_PULL, s->since_ns);
    if (r != PN_OK) {
        fail(p, r, "rows could not be pulled");
        return;
    }
    s->state = READY;
    advance(p);
}

/* A private step: the copy of the rows is as new as the weights are, or newer. */
static void mirrored(void *owner, enum pn_result r) {
    struct step *s = owner;
    struct pn_producer *p = s->owner;
    for (uint32_t t = 0; r == PN_OK && t < p->run->job.i_dense_table; t++) pn_mirror_rows(p->run->mirror, t, s->batch.unique[t], s->batch.n_unique[t], s->rows[t]);
    pulled(s, r);
}
static void pulled_weights(void *owner, enum pn_result r) {
    struct step *s = owner;
    struct pn_producer *p = s->owner;
    if (r == PN_OK) pn_mirror_refresh(p->run->mirror, pn_client_clock(p->run->client, p->id), mirrored, s);
    else pulled(s, r);
}

/* ---- hot rows: what is on the device is not pulled ---- */

static void look(struct pn_work *w) {
    struct step *s = w->owner;
    struct pn_producer *p = s->owner;
    s->result = pn_hot_find(&s->hot, p->device, &p->run->job, &s->batch, s->step, s->empty, &s->why);
}
static void looked(struct pn_work *w) {
    struct step *s = w->owner;
    struct pn_producer *p = s->owner;
    const struct pn_job *job = &p->run->job;
    p->computing = false;
    if (p->closed) {
        if (!p->in_features && !p->collecting) free_producer(p);
        return;
    }
    if (s->result != PN_OK) {
        fail(p, s->result, s->why.text);
        return;
    }
    const struct pn_device_cache_counts counts = pn_device_cache_look(p->device);
    p->run->rows_evicted += counts.evicted - p->rows_evicted;
    p->rows_evicted = counts.evicted;
    p->rows_held = counts.rows;
    struct pn_client_part parts[PN_MAX_TABLES];
    size_t n = pn_hot_parts(&s->hot, job, s->rows, parts);
    for (uint32_t t = 0; t < job->i_dense_table; t++) {
        p->run->rows_wanted += s->batch.n_unique[t];
        p->run->rows_pulled += s->hot.n[t];
    }
    parts[n++] = (struct pn_client_part){job->i_dense_table, p->run->n_dense_rows, p->dense_keys, s->rows[job->i_dense_table], NULL};
    s->state = PULLING;
    pn_client_pull(p->run->client, p->id, pn_client_clock(p->run->client, p->id), parts, n, pulled, s);
    advance(p);
}
/* One step after the other, where the device has a place for what is found. */
static void look_next(struct pn_producer *p) {
    size_t place = 0;
    struct step *s = p->running;
    while (s != NULL && (s->state != LOOKING || s->looked_for)) s = s->next;
    while (place < PN_DEVICE_LOOKS && p->looks[place]) place++;
    if (s == NULL || p->computing || place == PN_DEVICE_LOOKS) return;
    s->looked_for = p->looks[place] = p->computing = true;
    s->hot.look = place;
    s->hot.life = p->run->hot.life;
    s->empty = p->life != p->run->hot.life;
    p->life = p->run->hot.life;
    s->work = (struct pn_work){.run = look, .done = looked, .owner = s};
    pn_work_start(p->run->env, &s->work);
}

/* What the oracle pushes: the negated sums by unique key, so that plain SGD with rate 1 adds them up. */
static bool audit_gradients(struct pn_producer *p, struct step *s) {
    uint64_t raw[PN_AUDIT_RAW], scratch[8 * PN_AUDIT_RAW + 16];
    uint32_t index[PN_AUDIT_RAW];
    uint64_t content = s->step;
#if PN_MUTANT == 5 /* the reader's position is not saved: a restarted reader begins at its data's start */
    content = s->step - p->first_step + 1;
#endif
    s->gradients[0] = calloc(PN_AUDIT_RAW, PN_AUDIT_DIM * sizeof(float));
    if (s->gradients[0] == NULL) return false;
    assert(pn_unique_scratch(PN_AUDIT_RAW) <= sizeof scratch);
    pn_audit_keys(p->id, content, p->run->job.audit_keys, raw);
    s->n_keys = pn_unique(raw, PN_AUDIT_RAW, s->keys, index, scratch);
    for (size_t i = 0; i < PN_AUDIT_RAW; i++) {
        pn_audit_add(p->id, content, s->gradients[0] + index[i] * PN_AUDIT_DIM);
#if PN_MUTANT == 6 /* duplicate keys are summed twice */
        for (size_t j = 0; j < i; j++)
            if (raw[j] == raw[i]) pn_audit_add(p->id, content, s->gradients[0] + index[i] * PN_AUDIT_DIM);
#endif
    }
    for (size_t i = 0; i < s->n_keys * PN_AUDIT_DIM; i++) s->gradients[0][i] = -s->gradients[0][i];
    return true;
}

static bool allocate(struct pn_producer *p, struct step *s) {
    const struct pn_job *job = &p->run->job;
    for (uint32_t t = 0; t < job->n_tables; t++) {
        size_t n = t == job->i_dense_table ? p->run->n_dense_rows * PN_DENSE_ROW : s->batch.n_unique[t] * job->tables[t].dim;
        s->rows[t] = malloc((n + 1) * sizeof(float));
        s->gradients[t] = malloc((n + 1) * sizeof(float));
        if (s->rows[t] == NULL || s->gradients[t] == NULL) return false;
    }
    s->scores = malloc((s->batch.n_examples + 1) * sizeof(float));
    return s->scores != NULL;
}

static void start(struct pn_producer *p, struct step *s) {
    const struct pn_job *job = &p->run->job;
    s->step = p->next_step++;
    p->started = s->step;
    append(&p->running, s);
    p->n_running++;
    p->last_started = s->last;
    s->since_ns = pn_now_ns(p->run->env);
    if (p->begin_ns == 0) p->begin_ns = s->since_ns;
    s->state = PULLING;
    struct pn_client_part parts[PN_MAX_TABLES];
    size_t n = 0;
    uint64_t clock = pn_client_clock(p->run->client, p->id);
    if (audit(p)) {
        if (!audit_gradients(p, s) || (s->rows[0] = malloc(PN_AUDIT_RAW * PN_AUDIT_DIM * sizeof(float))) == NULL) {
            fail(p, PN_NO_MEMORY, "no memory for a step");
            return;
        }
        parts[n++] = (struct pn_client_part){0, s->n_keys, s->keys, s->rows[0], NULL};
    } else if (s->have_batch) {
        if (!allocate(p, s)) {
            fail(p, PN_NO_MEMORY, "no memory for a step");
            return;
        }
        if (p->cached) {
            s->state = LOOKING;
            return; /* advance looks for it next */
        }
        bool named = p->private == NULL;
#if PN_MUTANT == 24 /* a private step names the rows of its batch */
        named = true;
#endif
        for (uint32_t t = 0; named && t < job->i_dense_table; t++)
            if (s->batch.n_unique[t] > 0) parts[n++] = (struct pn_client_part){t, s->batch.n_unique[t], s->batch.unique[t], s->rows[t], NULL};
        parts[n++] = (struct pn_client_part){job->i_dense_table, p->run->n_dense_rows, p->dense_keys, s->rows[job->i_dense_table], NULL};
    } else { /* no data at all: one empty push says so */
        s->state = READY;
        return;
    }
    pn_client_pull(p->run->client, p->id, clock, parts, n, p->private != NULL ? pulled_weights : pulled, s); /* private: what is asked for does not depend on the batch */
}

static bool may_start(struct pn_producer *p) {
    const struct pn_job *job = &p->run->job;
    size_t most = job->consistency == PN_SYNC ? 1 : job->max_in_flight;
    if (p->finished || p->fenced || p->last_started || p->n_running >= most || p->next_step > p->limit || gated(p)) return false;
    /* sync: the rows must be those behind step next - 1 on every shard, also on one that is being brought up again */
    if (job->consistency == PN_SYNC && pn_client_clock(p->run->client, p->id) != p->next_step - 1) return false;
    /* A full ring waits for a checkpoint; but under a cut the steps that others wait for must go on, or it could never be taken. */
    return p->limit != UINT64_MAX || !pn_client_ring_full(p->run->client, p->id);
}

static void advance(struct pn_producer *p) {
    if (p->run->failed || p->finished || p->fenced) return;
    for (;;) {
        prepare(p);
        if (p->run->failed || !may_start(p)) break;
        struct step *s = p->prepared;
        bool capped = p->run->job.max_steps > 0 && p->next_step >= p->run->job.max_steps;
        if (s == NULL) {
            if (!p->all_read || (p->started >= p->first_step && !topic(p))) break;
            s = calloc(1, sizeof *s); /* a producer without a batch */
            if (s == NULL) break;
            s->owner = p;
            s->last = true;
        } else {
            /* Is it the last? The next read will tell. A topic may have nothing for hours: there the last push is always one without rows. */
            if (s->next == NULL && !p->all_read && !capped && !topic(p)) break;
            p->prepared = s->next;
            p->n_prepared--;
            s->last = capped || (p->prepared == NULL && p->all_read && !topic(p));
        }
        start(p, s);
        if (p->run->failed) return;
    }
    compute_next(p);
    if (p->cached) look_next(p);
    push_in_order(p);
}

/* ---- life ---- */

struct pn_producer *pn_producer_open(struct pn_run *run, uint32_t id, uint32_t incarnation, uint64_t first_step) {
    struct pn_producer *p = calloc(1, sizeof *p);
    if (p == NULL) return NULL;
    p->run = run;
    run->refs++;
    p->id = id;
    p->incarnation = incarnation;
    p->first_step = p->next_step = first_step;
    p->started = first_step - 1;
    p->to_skip = first_step - 1;
    p->limit = p->gate_epochs = UINT64_MAX;
    const struct pn_job *job = &run->job;
    p->rows_an_epoch = job->train.n_rows * (1 + (pn_format_sequences(job->train.format) ? 0 : job->train.negatives.per_positive)) / run->n_producers; /* 0 rows: known at the first epoch's end */
    bool ok = pn_client_producer(run->client, id, incarnation, first_step) == PN_OK;
    if (job->model == PN_MODEL_AUDIT) {
        p->total_steps = job->train.n_rows / ((uint64_t)job->batch_size * run->n_producers);
        if (p->total_steps == 0) p->total_steps = 1;
        p->all_read = first_step > p->total_steps;
    } else {
        struct pn_error err;
        p->dense_keys = calloc(run->n_dense_rows, sizeof *p->dense_keys);
        ok = ok && p->dense_keys != NULL && pn_net_open(&p->net, job, run->n_dense_inputs, &err) == PN_OK;
        for (size_t i = 0; ok && i < run->n_dense_rows; i++) p->dense_keys[i] = pn_net_row_key(p->net, i);
        if (ok && pn_private_spec_of(job, run->n_producers, &p->private_spec)) ok = (p->private = pn_private_open(job, &p->private_spec)) != NULL;
        ok = ok && pn_run_device(run, id, &p->device);
        p->cached = p->device != NULL && job->cache_rows > 0;
    }
    if (ok && job->stream.window > 0) ok = (p->windows = pn_windows_open(job, run->n_producers)) != NULL;
    if (!ok) {
        free_producer(p);
        return NULL;
    }
    p->next = run->producers;
    run->producers = p;
    return p;
}

void pn_producer_close(struct pn_producer *p) {
    for (struct pn_producer **at = &p->run->producers; *at != NULL; at = &(*at)->next)
        if (*at == p) {
            *at = p->next;
            break;
        }
    if (p->reader != NULL && !p->in_features) { /* a computation may still read the reader's rows */
        pn_reader_close(p->reader);
        p->reader = NULL;
    }
    for (struct step *s = p->running; s != NULL; s = s->next) {
        pn_client_cancel(p->run->client, s);
        if (p->run->mirror != NULL) pn_mirror_cancel(p->run->mirror, s);
    }
    pn_client_producer_remove(p->run->client, p->id);
    p->closed = true;
    if (p->computing || p->collecting || p->in_features) return;
    else free_producer(p);
}

void pn_producer_limit(struct pn_producer *p, uint64_t limit) {
    p->limit = limit;
    advance(p);
}

void pn_producer_gate(struct pn_producer *p, uint64_t epochs, uint64_t last_step) {
    p->gate_epochs = epochs;
    p->gate_step = last_step;
    advance(p);
}

void pn_producer_ledger(struct pn_producer *p, struct json_object *ledger) {
    if (p->ledger != NULL) json_object_put(p->ledger);
    p->ledger = json_object_get(ledger);
    if (p->reader != NULL) pn_reader_deal(p->reader, ledger);
}

struct json_object *pn_producer_proposal(const struct pn_producer *p) { return p->reader != NULL ? pn_reader_proposal(p->reader) : NULL; }

void pn_producer_poke(struct pn_producer *p) { advance(p); }

struct pn_producer *pn_producer_next(struct pn_producer *p) { return p->next; }

uint64_t pn_run_rows_held(const struct pn_run *run) {
    uint64_t n = 0;
    for (const struct pn_producer *p = run->producers; p != NULL; p = p->next) n += p->rows_held;
    return n;
}

struct json_object *pn_producer_windows(const struct pn_producer *p) { return p->windows != NULL ? pn_windows_json(p->windows) : NULL; }

/* A checkpoint makes it short again. */
static bool long_ledger(const struct pn_producer *p) { return pn_json_length(pn_json_get(p->ledger, "extents")) > 1000; }

void pn_producer_look(const struct pn_producer *p, struct pn_producer_state *out) {
    double seconds = p->last_ns > p->begin_ns ? (double)(p->last_ns - p->begin_ns) / 1e9 : 0;
    double fraction = p->rows_an_epoch > 0 && !p->all_read ? (double)p->rows_read / (double)p->rows_an_epoch : 0;
    *out = (struct pn_producer_state){.seconds = seconds, .fraction = fraction < 1 ? fraction : 1,
                                      .producer = p->id, .incarnation = p->incarnation, .started = p->started, .clock = pn_client_clock(p->run->client, p->id),
                                      .samples = p->samples, .loss_rows = p->loss_rows, .epoch = p->epoch, .loss_sum = p->loss_sum,
                                      .waiting = p->n_running == 0 && gated(p), .lag = p->reader != NULL ? pn_reader_lag(p->reader) : UINT64_MAX,
                                      .finished = p->finished, .fenced = p->fenced, .ring_full = pn_client_ring_full(p->run->client, p->id) || long_ledger(p)};
}
