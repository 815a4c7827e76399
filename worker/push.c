/* A producer's pushes, in the order of its steps. */
#include "worker/steps.h"

static void acknowledged(void *owner, enum pn_result r) {
    struct pn_step *s = owner;
    struct pn_producer *p = s->owner;
    struct pn_run *run = p->run;
    pn_producer_stage(run, PN_STAGE_PUSH, s->since_ns);
    p->last_ns = pn_now_ns(run->env);
    struct pn_step **at = &p->running;
    while (*at != s) at = &(*at)->next;
    *at = s->next;
    p->n_running--;
    const bool last = s->last;
    if (r == PN_FENCED) p->fenced = true; /* another worker has this data shard: stop quietly, the plan will say so */
    else if (r != PN_OK) pn_producer_fail(p, r, r == PN_INVALID && pn_step_diverged(s) ? s->why.text : "a push was refused by a server; its worker's log has what the server said");
    pn_step_free(s);
    if (r != PN_OK) return;
    if (last) {
        p->finished = true;
        run->changed(run->owner);
    } else if (p->n_running == 0 && (p->started >= p->limit || pn_producer_gated(p))) {
        run->changed(run->owner); /* drained */
    }
    pn_producer_advance(p);
}

static enum pn_result push(struct pn_producer *p, struct pn_step *s) {
    struct pn_client_part parts[PN_MAX_TABLES];
    size_t n = 0;
    const struct pn_job *job = &p->run->job;
    if (pn_producer_audits(p)) {
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
    } else if (pn_producer_audits(p)) {
        p->samples += PN_AUDIT_RAW;
    }
    if (p->windows != NULL && pn_windows_add(p->windows, s->step, s->last, s->scores, s->batch.labels, s->segments, s->have_batch ? s->batch.n_examples : 0))
        p->run->changed(p->run->owner);
    return PN_OK;
}

void pn_producer_push(struct pn_producer *p) {
    for (struct pn_step *s = p->running; s != NULL && s->state >= COMPUTED; s = s->next) {
        if (s->state != COMPUTED) continue;
        enum pn_result r = push(p, s);
        if (r == PN_BUSY || r == PN_NO_MEMORY) return; /* again after an acknowledgement or a commit, or on the next beat */
        if (r == PN_FENCED) {
            p->fenced = true;
            return;
        }
    }
}
