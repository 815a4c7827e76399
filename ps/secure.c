/* The idea: the sum that a server makes is only kept; it becomes a step when a plan says APPLY, which it says once every server has its sum. So all servers take
 * a step or none does; one that lost its sum meanwhile is behind the others, which the coordinator sees and answers by going back to a checkpoint. */
#include "ps/secure.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "privacy/secagg/server.h"
#include "secure/noise.h"
#include "secure/plan.h"

struct pn_ps_secure {
    struct pn_env *env;
    struct pn_shard *shard;
    uint32_t self;
    pn_peer coordinator;
    void (*changed)(void *owner);
    void *owner;
    struct pn_secure_plan plan;
    struct pn_secure_rows rows;     /* once the plan knows the number of weights */
    bool have_rows;
    struct pn_secure_layout layout; /* of the round */
    struct pn_agg_server *agg;
    enum { NOTHING, OPEN, SUMMED, FAILED } state;
    uint64_t applied_attempt;
    uint32_t n_summed;              /* holders in the sum */
    float *mean;                    /* UPDATE: the segment's values, divided by all that is public */
    uint8_t *passed;                /* COUNTS: bits of all buckets, those of this segment set or not */
    char *passed_hex, error[200];
};

struct pn_ps_secure *pn_ps_secure_open(struct pn_env *env, struct pn_shard *shard, uint32_t self, pn_peer coordinator, void (*changed)(void *), void *owner) {
    struct pn_ps_secure *x = calloc(1, sizeof *x);
    if (x != NULL) *x = (struct pn_ps_secure){.env = env, .shard = shard, .self = self, .coordinator = coordinator, .changed = changed, .owner = owner};
    return x;
}

static void drop_round(struct pn_ps_secure *x) {
    pn_agg_server_close(x->agg);
    x->agg = NULL;
    pn_secure_layout_close(&x->layout);
    free(x->mean);
    free(x->passed);
    free(x->passed_hex);
    x->mean = NULL;
    x->passed = NULL;
    x->passed_hex = NULL;
    x->state = NOTHING;
    x->error[0] = '\0';
}

void pn_ps_secure_close(struct pn_ps_secure *x) {
    if (x == NULL) return;
    drop_round(x);
    pn_secure_plan_close(&x->plan);
    pn_secure_rows_close(&x->rows);
    free(x);
}

static enum pn_result fixed_of(const struct pn_ps_secure *x, struct pn_fixed *f, struct pn_error *err) {
    return x->plan.phase == PN_SECURE_COUNTS ? pn_secure_fixed_counts(f, &x->shard->job, err) : pn_secure_fixed_update(f, &x->shard->job, x->rows.n_values, err);
}

/* ---- what a sum becomes ---- */

/* A bucket is in whose noisy votes reach the threshold: what was noised, so this costs nothing more. */
static bool threshold(struct pn_ps_secure *x, const double *votes, size_t n) {
    const struct pn_privacy_spec *v = &x->shard->job.privacy;
    const uint64_t first = x->layout.first[x->self];
    const size_t n_bytes = pn_secure_bitmap_bytes(v->vote_buckets);
    x->passed = calloc(n_bytes + 1, 1);
    if (x->passed == NULL) return false;
    for (size_t i = 0; i < n && first + i < v->vote_buckets; i++)
        if (votes[i] >= v->threshold) x->passed[(first + i) / 8] |= (uint8_t)(1u << (first + i) % 8);
    return (x->passed_hex = pn_secure_hex(x->passed, n_bytes)) != NULL;
}

static void summed(void *owner, enum pn_result r, const void *sum, uint32_t n_workers, const char *line) {
    struct pn_ps_secure *x = owner;
    const size_t n = (size_t)(x->layout.first[x->self + 1] - x->layout.first[x->self]);
    struct pn_fixed f;
    struct pn_error err = {""};
    if (r == PN_OK) r = fixed_of(x, &f, &err);
    double *values = r == PN_OK ? malloc(n * sizeof *values) : NULL;
    if (r == PN_OK && values == NULL) r = pn_fail(&err, PN_NO_MEMORY, "no memory for a sum");
    if (r == PN_OK) {
        pn_fixed_decode(&f, sum, n, values);
        x->n_summed = n_workers;
        if (x->plan.phase == PN_SECURE_COUNTS) {
            if (!threshold(x, values, n)) r = pn_fail(&err, PN_NO_MEMORY, "no memory for a sum");
        } else if ((x->mean = malloc(n * sizeof *x->mean)) == NULL) {
            r = pn_fail(&err, PN_NO_MEMORY, "no memory for a sum");
        } else {
            const double share = 1 / ((double)x->shard->job.batch_size * n_workers); /* batches as they are expected: the true sizes are nobody's to know */
            for (size_t i = 0; i < n; i++) x->mean[i] = (float)(values[i] * share);
        }
    } else if (line[0] != '\0') {
        pn_fail(&err, r, "%s", line);
    }
    free(values);
    x->state = r == PN_OK ? SUMMED : FAILED;
    if (r != PN_OK) memcpy(x->error, err.text, strnlen(err.text, sizeof x->error - 1) + 1);
    x->changed(x->owner);
}

static void apply(struct pn_ps_secure *x) {
    struct pn_shard_sum parts[PN_MAX_TABLES];
    size_t n_parts = 0;
    enum pn_result r = PN_OK;
    for (size_t t = 0; t < x->rows.n_tables; t++) {
        const size_t begin = x->layout.begin[t][x->self], n = x->layout.begin[t][x->self + 1] - begin;
        uint64_t *keys = malloc((n + 1) * sizeof *keys);
        if (keys == NULL) r = PN_NO_MEMORY;
        for (size_t i = 0; keys != NULL && i < n; i++) keys[i] = x->rows.keys[t][x->layout.row[t][begin + i]];
        parts[n_parts++] = (struct pn_shard_sum){(uint32_t)t, n, keys, x->mean + pn_secure_layout_offset(&x->layout, &x->rows, t, x->self)};
    }
    if (r == PN_OK) r = pn_shard_apply_sum(x->shard, x->plan.step, x->plan.step >= pn_job_privacy_steps(&x->shard->job), parts, n_parts);
    for (size_t i = 0; i < n_parts; i++) free((void *)parts[i].keys);
    if (r == PN_OK) x->applied_attempt = x->plan.attempt;
    else if (r != PN_EXISTS) { /* the others have the step, and this server cannot: it comes back from a checkpoint */
        pn_log(x->env, PN_ERROR, "secure step %" PRIu64 " cannot be applied behind step %" PRIu64 ": %s", x->plan.step, x->shard->sync_step, pn_result_name(r));
        x->shard->broken = true;
    }
    drop_round(x);
}

/* ---- plans ---- */

static void open_round(struct pn_ps_secure *x) {
    struct pn_error err = {""};
    struct pn_fixed f;
    enum pn_result r = PN_OK;
    if (!x->have_rows) {
        r = pn_secure_rows_open(&x->rows, &x->shard->job, x->plan.n_weights, &err);
        x->have_rows = r == PN_OK;
    }
    if (r == PN_OK && x->self >= x->plan.n_servers) r = pn_fail(&err, PN_INVALID, "a plan without this server");
    if (r == PN_OK) r = fixed_of(x, &f, &err);
    if (r == PN_OK && x->plan.phase == PN_SECURE_COUNTS) pn_secure_layout_counts(&x->layout, x->rows.n_buckets, x->plan.n_servers);
    else if (r == PN_OK) r = pn_secure_layout_update(&x->layout, &x->rows, x->plan.slots, x->plan.n_servers, x->plan.passed, &err);
    if (r == PN_OK) {
        const struct pn_agg_terms terms = pn_secure_terms(&x->shard->job, &x->plan, x->layout.first, f.word_bytes);
        const struct pn_agg_server_setup setup = {.terms = &terms, .self = x->self, .coordinator = x->coordinator, .done = summed, .owner = x};
        r = pn_agg_server_open(&x->agg, x->env, &setup, &err);
    }
    x->state = r == PN_OK ? OPEN : FAILED;
    memcpy(x->error, err.text, strnlen(err.text, sizeof x->error - 1) + 1);
    if (r != PN_OK) pn_log(x->env, PN_ERROR, "a secure round cannot be opened: %s", x->error);
}

void pn_ps_secure_plan(struct pn_ps_secure *x, struct json_object *secure) {
    struct pn_secure_plan next;
    struct pn_error err = {""};
    if (secure == NULL) return;
    if (pn_secure_plan_read(&next, secure, &x->shard->job, &err) != PN_OK) {
        pn_log(x->env, PN_WARN, "%s", err.text);
        return;
    }
    const bool goes_on = next.attempt == x->plan.attempt && (next.phase == PN_SECURE_APPLY ? x->plan.phase >= PN_SECURE_UPDATE : next.phase == x->plan.phase);
    if (!goes_on) drop_round(x);
    pn_secure_plan_close(&x->plan);
    x->plan = next;
    if (!goes_on && (next.phase == PN_SECURE_COUNTS || next.phase == PN_SECURE_UPDATE)) open_round(x);
    if (next.phase == PN_SECURE_APPLY && x->state == SUMMED && x->mean != NULL) apply(x);
}

void pn_ps_secure_message(struct pn_ps_secure *x, pn_peer from, struct pn_msg *m, const struct pn_frame *f) {
    if (x->agg != NULL) pn_agg_server_message(x->agg, from, m, f);
}

struct json_object *pn_ps_secure_state(const struct pn_ps_secure *x) {
    static const char *const states[] = {"nothing", "open", "summed", "failed"};
    struct json_object *o = json_object_new_object();
    pn_json_add_u64(o, "step", x->shard->sync_step);
    pn_json_add_u64(o, "applied_attempt", x->applied_attempt);
    pn_json_add_u64(o, "attempt", x->plan.attempt);
    pn_json_add_str(o, "phase", pn_secure_phases[x->plan.phase == PN_SECURE_APPLY ? PN_SECURE_UPDATE : x->plan.phase]);
    pn_json_add_str(o, "state", states[x->state]);
    if (x->passed_hex != NULL) pn_json_add_str(o, "passed", x->passed_hex);
    if (x->state == FAILED) pn_json_add_str(o, "error", x->error);
    return o;
}
