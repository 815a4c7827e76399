/* A producer's batches: read and made into features, one at a time, a few ahead. A private job's are drawn out of examples that are all in memory. */
#include <stdlib.h>
#include <string.h>
#include "worker/steps.h"

#define AHEAD 2u

static void featured(struct pn_work *w) {
    struct pn_producer *p = w->owner;
    p->in_features = false;
    if (pn_producer_gone(p)) return;
    pn_producer_stage(p->run, PN_STAGE_FEATURES, p->read_since_ns);
    struct pn_step *s = p->preparing;
    p->preparing = NULL;
    if (p->features_result != PN_OK) {
        pn_producer_fail(p, p->features_result, s->why.text[0] != '\0' ? s->why.text : "a batch could not be turned into features");
        pn_step_free(s);
        return;
    }
    if (p->private != NULL && !p->pooled) { /* an example to draw from, not a step yet */
        const bool kept = pn_private_add(p->private, &s->batch);
        pn_step_free(s);
        if (!kept) pn_producer_fail(p, PN_NO_MEMORY, "no memory for the examples of a private job, which are all kept");
        else pn_producer_advance(p);
        return;
    }
    s->have_batch = true;
    pn_steps_append(&p->prepared, s);
    p->n_prepared++;
    if (p->private != NULL) p->all_read = p->drawn >= p->total_steps;
    if (p->n_running == 0 && p->n_prepared == 1 && pn_producer_gated(p)) p->run->changed(p->run->owner); /* now it is known that it waits */
    pn_producer_advance(p);
}

/* ---- private jobs: a batch is drawn from the examples in memory ---- */

static void draw(struct pn_work *w) {
    struct pn_producer *p = w->owner;
    struct pn_step *s = p->preparing;
    p->features_result = p->drawn == 1 ? pn_private_choose(p->private, &s->noise) : PN_OK;
    s->secret_seed = pn_draws_bits(&s->noise);
    if (p->features_result == PN_OK) p->features_result = pn_private_draw(p->private, &s->noise, &s->batch);
}

/* Behind the last example: the first step to draw. */
static void pooled(struct pn_producer *p) {
    p->pooled = true;
    if (!pn_private_seal(p->private)) {
        pn_producer_fail(p, PN_NO_MEMORY, "no memory for the examples of a private job, which are all kept");
        return;
    }
    if ((double)pn_private_units(p->private) > p->private_spec.most) {
        pn_producer_fail(p, PN_REFUSED, p->private_spec.by_user ? "the job says too few users (privacy.users): this data shard has more than twice its part, and roundoff is counted by it"
                                                                : "the job says too few rows (privacy.rows): this data shard has more than twice its part, and roundoff is counted by it");
        return;
    }
    p->total_steps = pn_private_steps_an_epoch(p->private) * p->run->job.epochs;
    p->drawn = p->first_step - 1;
    p->all_read = p->drawn >= p->total_steps;
    /* Its rows are known to one process alone: another would choose anew, which nobody has paid for. */
    if (p->private_spec.once.threshold > 0 && p->first_step > 1)
        pn_producer_fail(p, PN_INVALID, "selection: fest, or frequent, does not outlive its worker: the rows were chosen at the first step, and a second choice would cost privacy again; start the job anew");
}

static void draw_next(struct pn_producer *p) {
    struct pn_step *s = calloc(1, sizeof *s);
    if (s == NULL) {
        pn_producer_fail(p, PN_NO_MEMORY, "no memory for a batch");
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
    p->features_result = pn_features_whole(p->features, p->raw, &p->preparing->why);
    if (p->features_result == PN_OK) p->features_result = pn_features_learned(p->features, p->raw, &p->preparing->batch, &p->n_bad);
}

static void on_rows(void *owner, enum pn_result r, const struct pn_raw *raw, const struct pn_error *err) {
    struct pn_producer *p = owner;
    struct pn_error why = {""};
    p->reading = false;
    pn_producer_stage(p->run, PN_STAGE_READ, p->read_since_ns);
    if (r == PN_NOT_FOUND && p->private != NULL) {
        pn_reader_close(p->reader);
        p->reader = NULL;
        pooled(p);
        pn_producer_advance(p);
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
        pn_producer_advance(p);
        return;
    }
    if (r == PN_OK) p->rows_read += raw->n_rows;
    if (r == PN_OK && p->to_skip > 0 && p->private == NULL) {
        p->to_skip--;
        pn_producer_advance(p);
        return;
    }
    if (err != NULL) why = *err;
    pn_run_hide_row(p->run, r, &why);
    if (r == PN_OK && p->features == NULL) {
        r = pn_features_open(&p->features, &p->run->job, raw->names, raw->n_columns, &why);
        if (r == PN_OK) r = pn_features_set_statistics(p->features, p->run->statistics, &why);
        if (r == PN_OK) pn_features_use(p->features, &p->run->vocabularies);
        if (r == PN_OK) r = pn_features_labelled(p->features, true, &why);
    }
    if (r == PN_OK && (p->preparing = calloc(1, sizeof *p->preparing)) == NULL) r = pn_fail(&why, PN_NO_MEMORY, "no memory for a batch");
    if (r == PN_OK && p->windows != NULL && (p->preparing->segments = pn_windows_segments(p->windows, raw, &why)) == NULL) r = PN_INVALID;
    if (r != PN_OK) {
        pn_producer_fail(p, r, why.text);
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

void pn_producer_prepare(struct pn_producer *p) {
    if (p->reading || p->in_features || p->all_read || p->n_prepared >= AHEAD) return;
    if (pn_producer_audits(p)) {
        while (p->n_prepared < AHEAD && !p->all_read) {
            struct pn_step *s = calloc(1, sizeof *s);
            if (s == NULL) return;
            s->owner = p;
            pn_steps_append(&p->prepared, s);
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
                                      .shuffle_seed = job->shuffle_seed, .batch_size = job->batch_size, .by_hash = job->privacy.rows > 0, .user = job->privacy.per_user > 0 ? job->privacy.user_field : NULL,
                                      .topic = p->run->topic, .parsed = p->run->parsed, .proposes = proposes, .owner = p};
        if (pn_producer_topic(p)) { /* it skips by the ledger, without reading */
            o.skip_batches = p->to_skip;
            p->to_skip = 0;
        }
        p->reader = pn_reader_open(p->run->env, &job->train, &o);
        if (p->reader == NULL) {
            pn_producer_fail(p, PN_NO_MEMORY, "no memory for a reader");
            return;
        }
        if (p->ledger != NULL) pn_reader_deal(p->reader, p->ledger);
    }
    p->reading = true;
    p->read_since_ns = pn_now_ns(p->run->env);
    pn_reader_next(p->reader, on_rows, p);
}
