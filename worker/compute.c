/* A producer's steps through the net, in order: one at a time on the CPU; on a device the next one is brought while one runs. */
#include <math.h>
#include "worker/steps.h"

/* The gradients of a sync job's producers are shares of one step's. */
static void share_out(struct pn_producer *p, struct pn_step *s) {
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

static void step_clipped(struct pn_step *s) {
    struct pn_producer *p = s->owner;
    const uint32_t t_dense = p->run->job.i_dense_table;
    const float *rows[PN_MAX_TABLES];
    for (size_t t = 0; t < PN_MAX_TABLES; t++) rows[t] = s->rows[t];
    s->result = pn_net_step_clipped(p->net, &s->batch, rows, rows[t_dense], pn_step_seed(s), p->private_spec.clip, p->private_spec.spread, s->gradients, s->gradients[t_dense], s->scores, NULL, &s->loss);
}
/* Clipped sums get their noise here, on the CPU, by the generator that the accounting is about. */
static void release(struct pn_step *s) {
    struct pn_producer *p = s->owner;
    if (s->result == PN_OK) s->result = pn_private_release(p->private, &s->noise, &s->batch, s->gradients, s->gradients[p->run->job.i_dense_table], p->run->n_dense_rows * PN_DENSE_ROW, &s->push);
}

/* Of a private step the text may say how large the batch was (no memory for N examples): that stays in the log. */
static void fail_step(struct pn_step *s) {
    struct pn_producer *p = s->owner;
    const bool said = s->why.text[0] != '\0';
    if (said && p->private != NULL) pn_log(p->run->env, PN_ERROR, "job %s: %s", p->run->job_id, s->why.text);
    pn_producer_fail(p, s->result, !said ? "a step could not be computed" : p->private != NULL ? "a private step could not be computed; why is in its worker's log, and nowhere else" : s->why.text);
}

static void compute(struct pn_work *w) {
    struct pn_step *s = w->owner;
    struct pn_producer *p = s->owner;
    const struct pn_job *job = &p->run->job;
    const float *rows[PN_MAX_TABLES];
    for (size_t t = 0; t < PN_MAX_TABLES; t++) rows[t] = s->rows[t];
    float *dense = s->gradients[job->i_dense_table];
    if (p->private != NULL) {
        step_clipped(s);
        release(s);
    } else {
        s->result = pn_net_step(p->net, &s->batch, rows, s->rows[job->i_dense_table], pn_step_seed(s), s->gradients, dense, s->scores, &s->loss);
    }
    /* A stream's figures are of the whole model: the step's own scores may lack units that dropout took. */
    if (s->result == PN_OK && p->windows != NULL) s->result = pn_net_forward(p->net, &s->batch, rows, s->rows[job->i_dense_table], s->scores);
    if (s->result == PN_OK && job->clip_norm > 0) pn_net_clip(p->net, &s->batch, s->gradients, dense, (double)job->clip_norm);
    share_out(p, s);
}

/* The scores of a stream go into its windows' sums, which one that is no number would spoil. */
static enum pn_result look_for_no_number(struct pn_step *s) {
    for (size_t i = 0; i < s->batch.n_examples; i++)
        if (isnan(s->scores[i]))
            return pn_fail(&s->why, PN_INVALID, "stream, step %llu of data shard %u, row %zu of its batch: the score " PN_NO_NUMBER, (unsigned long long)s->step, s->owner->id, i + 1);
    return PN_OK;
}

/* The first table of which the step has a float that is no number: in what goes back to the servers, or in what came from them. false: none. */
static bool find_table(const struct pn_step *s, float *const floats[PN_MAX_TABLES], uint32_t *table) {
    const struct pn_run *run = s->owner->run;
    for (*table = 0; *table < run->job.n_tables; ++*table) {
        const size_t n = *table == run->job.i_dense_table ? run->n_dense_rows * PN_DENSE_ROW : s->batch.n_unique[*table] * run->job.tables[*table].dim;
        if (!pn_all_numbers(floats[*table], n)) return true;
    }
    return false;
}

bool pn_step_diverged(struct pn_step *s) {
    const struct pn_producer *p = s->owner;
    const struct pn_job *job = &p->run->job;
    uint32_t t;
    if (!s->have_batch || p->private != NULL) return false;
    const char *what = "the loss", *of = "";
    if (find_table(s, s->gradients, &t)) what = t == job->i_dense_table ? "the gradient of the dense parameters" : "the gradient of table ";
    else if (!p->cached && find_table(s, s->rows, &t)) what = t == job->i_dense_table ? "a dense parameter" : "a row of table "; /* with a cache the places of rows that are there are empty */
    else if (isfinite(s->loss)) return false;
    if (t < job->i_dense_table) of = job->tables[t].name;
    s->result = pn_fail(&s->why, PN_INVALID, "training, step %llu of data shard %u: %s%s " PN_NO_NUMBER, (unsigned long long)s->step, p->id, what, of);
    return true;
}

static void computed(struct pn_work *w) {
    struct pn_step *s = w->owner;
    struct pn_producer *p = s->owner;
    if (p->devices != NULL) p->collecting = false;
    else p->computing = false;
    if (pn_producer_gone(p)) return;
    pn_producer_stage(p->run, PN_STAGE_COMPUTE, s->since_ns);
    if (s->result == PN_OK && p->windows != NULL) s->result = look_for_no_number(s);
    if (s->result == PN_OK && !isfinite(s->loss)) pn_step_diverged(s); /* a loss that is a number says nothing of the gradients: those the servers look at, and push.c at what they refuse */
    if (s->result != PN_OK) {
        fail_step(s);
        return;
    }
    s->state = COMPUTED;
    if (p->devices != NULL) {
        const struct pn_device_seconds now = pn_devices_time(p->devices);
        p->run->stage_seconds[PN_STAGE_COPY_IN] += now.in - p->on_device_before.in;
        p->run->stage_seconds[PN_STAGE_KERNELS] += now.compute - p->on_device_before.compute;
        p->run->stage_seconds[PN_STAGE_ALL_REDUCE] += now.sum - p->on_device_before.sum;
        p->run->stage_seconds[PN_STAGE_COPY_OUT] += now.out - p->on_device_before.out;
        p->on_device_before = now;
        p->on_device--;
    }
    pn_producer_advance(p);
}

/* On a device a step is two computations: it is brought and queued (bring), and what it made is fetched (fetch). The next step is brought while this one runs. To several devices it is
 * brought part by part, beside one another, and what they make is joined when all parts are there. */
static void bring(struct pn_work *w) {
    struct pn_bring *part = w->owner;
    struct pn_step *s = part->step;
    struct pn_producer *p = s->owner;
    const float *rows[PN_MAX_TABLES], *dense = s->rows[p->run->job.i_dense_table];
    for (size_t t = 0; t < PN_MAX_TABLES; t++) rows[t] = s->rows[t];
    const uint64_t seed = pn_step_seed(s);
    if (p->cached) part->result = pn_device_begin_found(pn_devices_one(p->devices, 0), s->slot, s->hot.look, s->keep, &s->batch, rows, dense, seed, &part->why);
    else if (pn_devices_number(p->devices) == 1) part->result = pn_devices_begin(p->devices, s->slot, &s->batch, rows, dense, seed, &part->why);
    else part->result = pn_devices_bring(p->devices, s->slot, part->i, &s->batch, rows, dense, seed, &part->why);
}
static void join(struct pn_work *w) {
    struct pn_step *s = w->owner;
    pn_devices_join(s->owner->devices, s->slot);
}
static void fetch(struct pn_work *w) {
    struct pn_step *s = w->owner;
    struct pn_producer *p = s->owner;
    s->result = pn_devices_end(p->devices, s->slot, &s->batch, s->gradients, s->gradients[p->run->job.i_dense_table], s->scores, &s->loss, &s->why);
    if (s->result == PN_OK && p->private != NULL) {
        const struct pn_job *job = &p->run->job;
        bool numbers = pn_all_numbers(s->gradients[job->i_dense_table], p->run->n_dense_rows * PN_DENSE_ROW);
        for (uint32_t t = 0; t < job->i_dense_table; t++) numbers = numbers && pn_all_numbers(s->gradients[t], s->batch.n_unique[t] * job->tables[t].dim);
        if (!numbers) step_clipped(s); /* it leaves out a unit whose gradient is none */
        release(s);
    }
    if (s->result == PN_OK) share_out(p, s);
}
static void brought(struct pn_work *w) {
    struct pn_step *s = w->owner;
    struct pn_producer *p = s->owner;
    p->computing = false;
    if (pn_producer_gone(p)) return;
    if (s->result != PN_OK) {
        fail_step(s);
        return;
    }
    s->state = ON_DEVICE;
    p->looks[s->hot.look] = false;
    pn_producer_advance(p);
}
static void part_brought(struct pn_work *w) {
    const struct pn_bring *part = w->owner;
    struct pn_step *s = part->step;
    struct pn_producer *p = s->owner;
    if (part->result != PN_OK && s->result == PN_OK) {
        s->result = part->result;
        s->why = part->why;
    }
    if (--p->bringing > 0) return;
    s->work = (struct pn_work){.run = join, .done = brought, .owner = s};
    if (s->result == PN_OK && pn_devices_number(p->devices) > 1) pn_work_start(p->run->env, &s->work);
    else brought(&s->work);
}
static void compute_on_device(struct pn_producer *p) {
    for (struct pn_step *s = p->running; s != NULL && s->state > PULLING; s = s->next) {
        if ((pn_producer_audits(p) || !s->have_batch) && s->state == READY) s->state = COMPUTED;
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
            s->result = PN_OK;
            p->bringing = pn_devices_number(p->devices);
            for (size_t i = 0; i < pn_devices_number(p->devices); i++) {
                p->bring[i] = (struct pn_bring){.work = {.run = bring, .done = part_brought, .owner = &p->bring[i]}, .step = s, .i = i};
                pn_work_start(p->run->env, &p->bring[i].work);
            }
        }
        if (s->state == READY) return; /* order */
    }
}

void pn_producer_compute(struct pn_producer *p) {
    if (p->devices != NULL) {
        compute_on_device(p);
        return;
    }
    for (struct pn_step *s = p->running; s != NULL && !p->computing; s = s->next) {
        if (s->state >= COMPUTING) continue;
        if (s->state != READY) return; /* order */
        if (pn_producer_audits(p) || !s->have_batch) {
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
