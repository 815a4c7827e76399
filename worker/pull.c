/* The beginning of a step: which rows it asks the servers for. */
#include <assert.h>
#include <stdlib.h>
#include "common/unique.h"
#include "worker/steps.h"

static void pulled(void *owner, enum pn_result r) {
    struct pn_step *s = owner;
    struct pn_producer *p = s->owner;
    pn_producer_stage(p->run, PN_STAGE_PULL, s->since_ns);
    if (r != PN_OK) {
        pn_producer_fail(p, r, "rows could not be pulled");
        return;
    }
    s->state = READY;
    pn_producer_advance(p);
}

/* A private step: the copy of the rows is as new as the weights are, or newer. */
static void mirrored(void *owner, enum pn_result r) {
    struct pn_step *s = owner;
    struct pn_producer *p = s->owner;
    for (uint32_t t = 0; r == PN_OK && t < p->run->job.i_dense_table; t++) pn_mirror_rows(p->run->mirror, t, s->batch.unique[t], s->batch.n_unique[t], s->rows[t]);
    pulled(s, r);
}
static void pulled_weights(void *owner, enum pn_result r) {
    struct pn_step *s = owner;
    struct pn_producer *p = s->owner;
    if (r == PN_OK) pn_mirror_refresh(p->run->mirror, pn_client_clock(p->run->client, p->id), mirrored, s);
    else pulled(s, r);
}

/* ---- hot rows: what is on the device is not pulled ---- */

static void look(struct pn_work *w) {
    struct pn_step *s = w->owner;
    struct pn_producer *p = s->owner;
    s->result = pn_hot_find(&s->hot, pn_devices_one(p->devices, 0), &p->run->job, &s->batch, s->step, s->empty, &s->why);
}
static void looked(struct pn_work *w) {
    struct pn_step *s = w->owner;
    struct pn_producer *p = s->owner;
    const struct pn_job *job = &p->run->job;
    p->computing = false;
    if (pn_producer_gone(p)) return;
    if (s->result != PN_OK) {
        pn_producer_fail(p, s->result, s->why.text);
        return;
    }
    const struct pn_device_cache_counts counts = pn_device_cache_look(pn_devices_one(p->devices, 0));
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
    pn_producer_advance(p);
}
/* One step after the other, where the device has a place for what is found. */
void pn_producer_look_next(struct pn_producer *p) {
    size_t place = 0;
    struct pn_step *s = p->running;
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
static bool audit_gradients(struct pn_producer *p, struct pn_step *s) {
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

static bool allocate(struct pn_producer *p, struct pn_step *s) {
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

void pn_step_start(struct pn_producer *p, struct pn_step *s) {
    const struct pn_job *job = &p->run->job;
    s->step = p->next_step++;
    p->started = s->step;
    pn_steps_append(&p->running, s);
    p->n_running++;
    p->last_started = s->last;
    s->since_ns = pn_now_ns(p->run->env);
    if (p->begin_ns == 0) p->begin_ns = s->since_ns;
    s->state = PULLING;
    struct pn_client_part parts[PN_MAX_TABLES];
    size_t n = 0;
    uint64_t clock = pn_client_clock(p->run->client, p->id);
    if (pn_producer_audits(p)) {
        if (!audit_gradients(p, s) || (s->rows[0] = malloc(PN_AUDIT_RAW * PN_AUDIT_DIM * sizeof(float))) == NULL) {
            pn_producer_fail(p, PN_NO_MEMORY, "no memory for a step");
            return;
        }
        parts[n++] = (struct pn_client_part){0, s->n_keys, s->keys, s->rows[0], NULL};
    } else if (s->have_batch) {
        if (!allocate(p, s)) {
            pn_producer_fail(p, PN_NO_MEMORY, "no memory for a step");
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
