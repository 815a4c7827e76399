/* What the data shards of a job that reads a topic are dealt (common/ledger.h). A producer's owner proposes the extents that it would read next; they are written with the job's
 * record before a plan shows them, and what a plan shows may be made into batches. So whoever has the producer after a crash makes the same ones.
 *
 * The job's record holds the ledger from the newest durable checkpoint on; each checkpoint holds the part around its own step: a generation that begins from it deals anew from
 * there, for nothing behind it counts any more. */
#include <inttypes.h>
#include <stdlib.h>
#include "coordinator/internal.h"

static bool wanted(const struct pn_job_run *j) { return j->job.train.kafka.brokers[0] != '\0'; }

void pn_ledgers_free(struct pn_job_run *j) {
    for (uint32_t p = 0; j->ledgers != NULL && p < j->n_producers; p++) pn_ledger_free(&j->ledgers[p]);
    free(j->ledgers);
    j->ledgers = NULL;
}

void pn_ledgers_begin(struct pn_coordinator *c, struct pn_job_run *j) {
    if (!wanted(j)) return;
    const struct pn_checkpoint *k = pn_job_committed(j);
    if (j->ledgers == NULL && (j->ledgers = calloc(j->n_producers, sizeof *j->ledgers)) == NULL) {
        pn_job_end(c, j, PN_JOB_FAILED, "no memory for the ledgers of its data shards");
        return;
    }
    for (uint32_t p = 0; p < j->n_producers; p++) {
        struct pn_ledger *l = &j->ledgers[p];
        struct pn_error err = {""};
        if (k == NULL && l->rows == 0) continue; /* nothing was taken out: from its beginning, the same offsets again */
        pn_ledger_free(l);
        if (k == NULL) pn_log(c->env, PN_WARN, "job %s: no checkpoint is good; data shard %u begins again where the job's start says", j->id, p);
        else if (pn_ledger_read(l, pn_json_at(k->ledgers, p), &err) != PN_OK) {
            pn_job_end(c, j, PN_JOB_FAILED, "its checkpoint says no position in the topic");
            return;
        }
    }
}

void pn_ledgers_take(struct pn_coordinator *c, struct pn_job_run *j, uint32_t producer, struct json_object *proposal) {
    if (j->ledgers == NULL || proposal == NULL) return;
    struct pn_error err = {""};
    bool changed = false;
    if (pn_ledger_take(&j->ledgers[producer], proposal, &changed, &err) != PN_OK) pn_log(c->env, PN_DEBUG, "job %s: data shard %u: %s", j->id, producer, err.text);
    j->dirty = j->dirty || changed;
}

/* Steps but the last one are whole batches. */
static uint64_t rows_of(const struct pn_job_run *j, uint64_t steps) { return steps * j->job.batch_size; }

void pn_ledgers_trim(struct pn_job_run *j) {
    const struct pn_checkpoint *k = j->ledgers != NULL ? pn_job_committed(j) : NULL;
    for (uint32_t p = 0; k != NULL && p < j->n_producers; p++)
        if (pn_ledger_trim(&j->ledgers[p], rows_of(j, k->steps[p]))) j->dirty = true;
}

struct json_object *pn_ledgers_write(const struct pn_job_run *j) {
    if (j->ledgers == NULL) return NULL;
    struct json_object *list = json_object_new_array();
    for (uint32_t p = 0; p < j->n_producers; p++) json_object_array_add(list, pn_ledger_write(&j->ledgers[p]));
    return list;
}

struct json_object *pn_ledgers_at(const struct pn_job_run *j, const uint64_t *steps) {
    if (j->ledgers == NULL) return NULL;
    struct json_object *list = json_object_new_array();
    for (uint32_t p = 0; p < j->n_producers; p++) json_object_array_add(list, pn_ledger_write_at(&j->ledgers[p], rows_of(j, steps[p])));
    return list;
}

bool pn_ledgers_lag(const struct pn_job_run *j, uint64_t *offsets) {
    *offsets = 0;
    for (uint32_t p = 0; p < j->n_producers; p++) {
        if (!j->units[p].lag_known) return false;
        *offsets += j->units[p].lag;
    }
    return j->ledgers != NULL;
}

bool pn_ledgers_load(struct pn_job_run *j, struct json_object *list) {
    if (!wanted(j) || j->n_producers == 0) return true;
    if (pn_json_length(list) != j->n_producers || j->n_producers > PN_MAX_PRODUCERS || (j->ledgers = calloc(j->n_producers, sizeof *j->ledgers)) == NULL) return false;
    for (uint32_t p = 0; p < j->n_producers; p++)
        if (pn_ledger_read(&j->ledgers[p], pn_json_at(list, p), NULL) != PN_OK) return false;
    return true;
}
