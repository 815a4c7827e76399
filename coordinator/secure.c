/* Rounds of a secure job (docs/secure-aggregation.md, "Jobs"). The idea: the servers' step is the truth and lies in their checkpoints; a round is an attempt at the
 * next step, numbered, charged to the budget before any plan shows it, and forgotten when it fails. Attempts are never repeated: the next has other keys, another draw and
 * other noise. All servers apply a round's sum or none does: APPLY is said once all have their sums, and a server that has lost its own by then is behind the
 * others, upon which the whole job goes back to its newest checkpoint. With selection fest the first rounds are counts of all that holders have, until one comes out:
 * its rows are the job's for good, whatever is lost later. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/mutant.h"
#include "coordinator/internal.h"
#include "privacy/secagg/coordinator.h"
#include "secure/noise.h"
#include "secure/plan.h"

enum { MOST_FAILURES = 10, BACKOFF_MS = 250, PATIENCE = 30 /* phases that a choice waits for a holder that is away */ };

struct pn_secure_run {
    struct pn_coordinator *c;
    /* who the data holders are: fixed when the job first begins, durable with its record */
    uint32_t n_holders;
    struct { char name[64], key[65]; } holders[PN_MAX_PRODUCERS];
    bool strange[PN_MAX_PRODUCERS]; /* said already that somebody came under its name with another key */
    /* the round */
    enum pn_secure_phase phase;
    bool known;                     /* `applied` is what all servers have */
    uint64_t applied, attempt, step, since_ms, not_before_ms, n_weights;
    struct { uint64_t term, step, attempt; } seen[64]; /* the furthest a server has said it is: within a term it does not go back, but beats may come late */
    uint32_t failures;
    bool told;                      /* that it waits for holders */
    uint8_t *passed;                /* UPDATE: bits of the buckets that are in */
    char *passed_hex;
    bool chosen;                    /* FEST: passed are the job's buckets for good, durable with its record */
    struct pn_secure_rows rows;
    bool have_rows;
    struct pn_secure_layout layout;
    struct pn_secure_plan terms_plan; /* identities and slots in the form that terms want */
    struct pn_agg_terms terms;
    struct pn_agg_coordinator *agg;
    pn_peer workers[PN_MAX_PRODUCERS], servers[PN_AGG_MAX_SERVERS];
    bool over;
    enum pn_result result;
    uint32_t n_in;
    char line[240];
};

static struct pn_secure_run *run_of(struct pn_coordinator *c, struct pn_job_run *j) {
    if (j->secure == NULL && (j->secure = calloc(1, sizeof *j->secure)) != NULL) j->secure->c = c;
    return j->secure;
}

static void drop_round(struct pn_secure_run *s) {
    if (s->agg != NULL) pn_agg_coordinator_close(s->agg);
    s->agg = NULL;
    s->over = false;
    pn_secure_layout_close(&s->layout);
}
static void forget_passed(struct pn_secure_run *s) {
    if (s->chosen) return;
    free(s->passed);
    free(s->passed_hex);
    s->passed = NULL;
    s->passed_hex = NULL;
}

void pn_secure_free(struct pn_job_run *j) {
    struct pn_secure_run *s = j->secure;
    if (s == NULL) return;
    drop_round(s);
    s->chosen = false;
    forget_passed(s);
    pn_secure_rows_close(&s->rows);
    free(s);
    j->secure = NULL;
}

/* ---- holders ---- */

static const char *key_of(const struct pn_node *n) { return n->beat != NULL ? pn_json_str(n->beat, "identity", "") : ""; }

struct pn_node *pn_secure_holder(struct pn_coordinator *c, struct pn_job_run *j, uint32_t p) {
    struct pn_secure_run *s = j->secure;
    if (s == NULL || p >= s->n_holders) return NULL;
    struct pn_node *n = pn_node_find(c, s->holders[p].name);
    if (n == NULL || n->role != PN_ROLE_WORKER || !pn_node_alive(c, n)) return NULL;
    if (strcmp(key_of(n), s->holders[p].key) == 0) return n;
    if (!s->strange[p]) pn_log(c->env, PN_ERROR, "job %s: %s came back with another identity than the data holder %u had (was its directory lost?): it takes no part", j->id, n->name, p);
    s->strange[p] = true;
    return NULL;
}

bool pn_secure_seated(struct pn_coordinator *c, struct pn_job_run *j) {
    struct pn_secure_run *s = run_of(c, j);
    const uint32_t n = j->job.n_producers;
    uint32_t here = 0;
    if (s == NULL) return false;
    if (s->n_holders == 0) {
        for (struct pn_node *w = c->nodes; w != NULL && here < n; w = w->next) { /* by name */
            if (!pn_job_may_have(j, w) || !pn_node_alive(c, w) || strlen(key_of(w)) != 64) continue;
            bool twice = false; /* a copied directory: one holder could not be told from the other */
            for (uint32_t i = 0; i < here; i++) twice = twice || strcmp(s->holders[i].key, key_of(w)) == 0;
            if (twice) continue;
            snprintf(s->holders[here].name, sizeof s->holders[here].name, "%s", w->name);
            memcpy(s->holders[here++].key, key_of(w), 65);
        }
        if (here < n) { /* told in the job's record and once in the log, for it may wait long */
            char text[sizeof j->reason];
            snprintf(text, sizeof text, "waits for its data holders: %u of %u workers with identities of their own are here", here, n);
            if (strcmp(text, j->reason) != 0) pn_log(c->env, PN_INFO, "job %s %s", j->id, text);
            snprintf(j->reason, sizeof j->reason, "%s", text);
            return false;
        }
        s->n_holders = n;
        s->since_ms = pn_now_ms(c->env);
        j->dirty = true;
        return true;
    }
    for (uint32_t p = 0; p < n; p++) here += pn_secure_holder(c, j, p) != NULL;
    return here >= pn_job_fewest(&j->job.privacy, n);
}

void pn_secure_save(const struct pn_job_run *j, struct json_object *record) {
    if (j->secure == NULL || j->secure->n_holders == 0) return;
    struct json_object *list = json_object_new_array();
    for (uint32_t p = 0; p < j->secure->n_holders; p++) {
        struct json_object *e = json_object_new_object();
        pn_json_add_str(e, "name", j->secure->holders[p].name);
        pn_json_add_str(e, "identity", j->secure->holders[p].key);
        json_object_array_add(list, e);
    }
    pn_json_add(record, "holders", list);
#if PN_MUTANT != 27 /* what was chosen is not kept: another life of the coordinator chooses again */
    if (j->secure->chosen) pn_json_add_str(record, "chosen", j->secure->passed_hex);
#endif
}
void pn_secure_load(struct pn_coordinator *c, struct pn_job_run *j, struct json_object *record) {
    struct json_object *list = pn_json_get(record, "holders");
    struct pn_secure_run *s = pn_json_length(list) > 0 ? run_of(c, j) : NULL;
    for (size_t p = 0; s != NULL && p < pn_json_length(list) && p < PN_MAX_PRODUCERS; p++) {
        snprintf(s->holders[p].name, sizeof s->holders[p].name, "%s", pn_json_str(pn_json_at(list, p), "name", ""));
        snprintf(s->holders[p].key, sizeof s->holders[p].key, "%s", pn_json_str(pn_json_at(list, p), "identity", ""));
        s->n_holders = (uint32_t)p + 1;
    }
    if (s != NULL) s->since_ms = pn_now_ms(c->env);
    const char *chosen = pn_json_str(record, "chosen", NULL);
    if (s == NULL || chosen == NULL) return;
    const size_t n = pn_secure_bitmap_bytes(j->job.privacy.vote_buckets);
    s->passed = malloc(n + 1);
    s->passed_hex = strdup(chosen);
    s->chosen = s->passed != NULL && s->passed_hex != NULL && pn_secure_unhex(chosen, s->passed, n);
    if (s->chosen) return;
    pn_log(c->env, PN_ERROR, "job %s: the rows that it had chosen cannot be read from its record: they are chosen, and charged, again", j->id);
    forget_passed(s);
}

/* ---- what servers and holders report ---- */

struct seat { bool here; uint64_t step, attempt, applied_attempt; bool open, summed, failed, knows; /* knows: said behind the newest plan */ enum pn_secure_phase phase; const char *passed, *error; };

static struct seat look(struct pn_coordinator *c, const struct pn_job_run *j, uint32_t i) {
    const struct pn_shard_seat *seat = &j->seats[i];
    struct pn_node *n = pn_node_find(c, seat->node);
    struct json_object *job = n != NULL && n->beat != NULL && n->incarnation == seat->incarnation && pn_node_alive(c, n) ? pn_node_job(n, j) : NULL, *o = pn_json_get(job, "secure");
    if (o == NULL || seat->open_term != seat->term || pn_json_u64(job, "term", 0) != seat->term || strcmp(pn_json_str(job, "state", ""), "open") != 0) return (struct seat){.here = false};
    const char *state = pn_json_str(o, "state", "");
    struct pn_secure_run *s = j->secure;
    const uint64_t step = pn_json_u64(o, "step", 0);
    if (s->seen[i].term != seat->term || step >= s->seen[i].step) {
        s->seen[i].term = seat->term;
        s->seen[i].step = step;
        s->seen[i].attempt = pn_json_u64(o, "applied_attempt", 0);
    }
    return (struct seat){.here = true, .step = s->seen[i].step, .attempt = pn_json_u64(o, "attempt", 0), .applied_attempt = s->seen[i].attempt, .knows = pn_node_knows_plan(c, n),
                         .phase = strcmp(pn_json_str(o, "phase", ""), "counts") == 0 ? PN_SECURE_COUNTS : PN_SECURE_UPDATE, .open = strcmp(state, "open") == 0,
                         .summed = strcmp(state, "summed") == 0, .failed = strcmp(state, "failed") == 0, .passed = pn_json_str(o, "passed", ""), .error = pn_json_str(o, "error", "")};
}

/* A holder that is here: has it its rows in memory; has it made its vector of this round? */
static bool holder_says(struct pn_coordinator *c, struct pn_job_run *j, uint32_t p, bool of_round, pn_peer *peer, bool *alive) {
    struct pn_node *n = pn_secure_holder(c, j, p);
    struct json_object *o = n != NULL ? pn_json_get(pn_node_job(n, j), "secure") : NULL;
    *alive = n != NULL;
    *peer = n != NULL ? n->peer : 0;
    if (o == NULL) return false;
    if (!of_round) return pn_json_bool(o, "loaded", false);
    return pn_json_u64(o, "attempt", 0) == j->secure->attempt && strcmp(pn_json_str(o, "phase", ""), pn_secure_phases[j->secure->phase]) == 0 && pn_json_bool(o, "ready", false);
}

static bool chooses(const struct pn_job_run *j) { return j->job.privacy.selection == PN_SELECT_FEST && !j->secure->chosen; }

/* True when enough holders are there and all who are alive are, or the time for waiting is over. Rows are chosen for good: for that all are waited for, and long. */
static bool enough(struct pn_coordinator *c, struct pn_job_run *j, bool of_round) {
    struct pn_secure_run *s = j->secure;
    uint32_t ready = 0, alive = 0;
    for (uint32_t p = 0; p < j->n_producers; p++) {
        bool lives;
        const bool says = holder_says(c, j, p, of_round, &s->workers[p], &lives);
        if (!says) s->workers[p] = 0;
        ready += says;
        alive += lives;
    }
    const bool choice = chooses(j) && !of_round, late = pn_now_ms(c->env) - s->since_ms > (choice ? PATIENCE : 1) * j->job.privacy.phase_ms;
    if (choice) alive = j->n_producers;
    return ready >= pn_job_fewest(&j->job.privacy, j->n_producers) && (ready == alive || late);
}

/* ---- a round ---- */

static void failed(struct pn_coordinator *c, struct pn_job_run *j, const char *line) {
    struct pn_secure_run *s = j->secure;
    pn_log(c->env, PN_WARN, "job %s: round %" PRIu64 " for step %" PRIu64 " has failed and stays charged: %s", j->id, s->attempt, s->step, line);
    drop_round(s);
    forget_passed(s);
    s->phase = PN_SECURE_IDLE;
    s->since_ms = pn_now_ms(c->env);
    s->not_before_ms = s->since_ms + BACKOFF_MS * ++s->failures; /* each costs budget */
    if (s->failures < MOST_FAILURES) return;
    char text[400];
    snprintf(text, sizeof text, "%d secure rounds in a row have failed, the last because: %s", MOST_FAILURES, line);
    pn_job_end(c, j, PN_JOB_FAILED, text);
}

static void agg_done(void *owner, enum pn_result r, const uint8_t *survivors, uint32_t n, const char *line) {
    struct pn_secure_run *s = owner;
    (void)survivors;
    s->over = true;
    s->result = r;
    s->n_in = n;
    snprintf(s->line, sizeof s->line, "%s", line);
}

static enum pn_result open_sum(struct pn_coordinator *c, struct pn_job_run *j, struct pn_error *err) {
    struct pn_secure_run *s = j->secure;
    struct pn_fixed f;
    enum pn_result r = PN_OK;
    pn_secure_layout_close(&s->layout);
    s->terms_plan = (struct pn_secure_plan){.n = j->n_producers, .n_servers = j->n_shards};
    for (uint32_t p = 0; p < j->n_producers && r == PN_OK; p++)
        if (!pn_secure_unhex(s->holders[p].key, s->terms_plan.identities[p], 32)) r = pn_fail(err, PN_INVALID, "the identity of holder %u is no key", p);
    for (uint32_t i = 0; i < j->n_shards; i++) s->terms_plan.slots[i] = pn_plan_first_slot(j, i);
    if (r == PN_OK && s->phase == PN_SECURE_COUNTS) r = pn_secure_fixed_counts(&f, &j->job, err);
    else if (r == PN_OK) r = pn_secure_fixed_update(&f, &j->job, s->rows.n_values, err);
    if (r == PN_OK && s->phase == PN_SECURE_COUNTS) pn_secure_layout_counts(&s->layout, s->rows.n_buckets, j->n_shards);
    else if (r == PN_OK) r = pn_secure_layout_update(&s->layout, &s->rows, s->terms_plan.slots, j->n_shards, s->passed, err);
    if (r != PN_OK) return r;
    for (uint32_t i = 0; i < j->n_shards; i++) s->servers[i] = pn_node_find(c, j->seats[i].node)->peer;
    s->terms = pn_secure_terms(&j->job, &s->terms_plan, s->layout.first, f.word_bytes);
    const struct pn_agg_coordinator_setup setup = {.terms = &s->terms, .workers = s->workers, .servers = s->servers, .done = agg_done, .owner = s};
    s->over = false;
    return pn_agg_coordinator_open(&s->agg, c->env, &setup, err);
}

/* Waits for servers and holders to be at the round's phase, then begins the sum. */
static void gather(struct pn_coordinator *c, struct pn_job_run *j, const struct seat *seats) {
    struct pn_secure_run *s = j->secure;
    struct pn_error err = {""};
    bool open = true;
    for (uint32_t i = 0; i < j->n_shards; i++) {
        const bool here = seats[i].attempt == s->attempt && seats[i].phase == s->phase;
        if (here && seats[i].failed) {
            failed(c, j, seats[i].error);
            return;
        }
        open = open && here && seats[i].open;
    }
    if (open && enough(c, j, true)) {
        if (open_sum(c, j, &err) != PN_OK) failed(c, j, err.text);
    } else if (pn_now_ms(c->env) - s->since_ms > 3 * j->job.privacy.phase_ms) {
        failed(c, j, open ? "fewer data holders made their part of it than a sum may be made of" : "a server did not open it");
    }
}

/* Every server's buckets, once all have said theirs. */
static bool collect_passed(struct pn_job_run *j, const struct seat *seats) {
    struct pn_secure_run *s = j->secure;
    const size_t n = pn_secure_bitmap_bytes(j->job.privacy.vote_buckets);
    uint8_t *one = malloc(n + 1);
    forget_passed(s);
    bool all = (s->passed = calloc(n + 1, 1)) != NULL && one != NULL;
    for (uint32_t i = 0; all && i < j->n_shards; i++) {
        all = seats[i].attempt == s->attempt && seats[i].phase == PN_SECURE_COUNTS && seats[i].summed && pn_secure_unhex(seats[i].passed, one, n);
        for (size_t b = 0; all && b < n; b++) s->passed[b] |= one[b];
    }
    free(one);
    if (all) all = (s->passed_hex = pn_secure_hex(s->passed, n)) != NULL;
    if (!all) forget_passed(s);
    return all;
}

static void after_sum(struct pn_coordinator *c, struct pn_job_run *j, const struct seat *seats) {
    struct pn_secure_run *s = j->secure;
    if (s->result != PN_OK) {
        char line[240];
        memcpy(line, s->line, sizeof line);
        failed(c, j, line);
        return;
    }
    if (s->phase == PN_SECURE_UPDATE) {
        drop_round(s);
        s->phase = PN_SECURE_APPLY;
        s->since_ms = pn_now_ms(c->env);
    } else if (collect_passed(j, seats)) {
        drop_round(s);
        s->chosen = j->job.privacy.selection == PN_SELECT_FEST;
        s->phase = s->chosen ? PN_SECURE_IDLE : PN_SECURE_UPDATE; /* a choice is a round of its own */
        s->since_ms = pn_now_ms(c->env);
        if (!s->chosen) return;
        s->failures = 0;
        j->dirty = true;
        pn_log(c->env, s->n_in < j->n_producers ? PN_WARN : PN_INFO, "job %s has chosen its rows, by the votes of %u of its %u data holders", j->id, s->n_in, j->n_producers);
    } else if (pn_now_ms(c->env) - s->since_ms > 4 * j->job.privacy.phase_ms) {
        failed(c, j, "a server did not say which buckets passed");
    }
}

/* The servers are at one step, or can be brought to it. False: the job begins again from its newest checkpoint. */
static bool settle(struct pn_coordinator *c, struct pn_job_run *j, const struct seat *seats) {
    struct pn_secure_run *s = j->secure;
    uint64_t low = UINT64_MAX, high = 0, attempt = 0;
    for (uint32_t i = 0; i < j->n_shards; i++) {
        if (seats[i].step < low) low = seats[i].step;
        if (seats[i].step >= high) {
            high = seats[i].step;
            attempt = seats[i].applied_attempt;
        }
    }
    if (low != high) { /* one has applied a sum that the others may still have: so it was said, maybe by an earlier life of this coordinator */
        bool finish = attempt != 0 && low + 1 == high;
        for (uint32_t i = 0; finish && i < j->n_shards; i++)
            finish = seats[i].step == high || (seats[i].attempt == attempt && seats[i].phase == PN_SECURE_UPDATE && seats[i].summed);
        if (!finish) return false;
        s->phase = PN_SECURE_APPLY;
        s->attempt = attempt;
        s->step = high;
        s->since_ms = pn_now_ms(c->env);
        return true;
    }
    s->known = true;
    s->applied = low;
    const uint64_t all = pn_job_privacy_steps(&j->job), epoch = all / j->job.epochs;
    for (uint32_t p = 0; p < j->n_producers; p++) {
        struct pn_work_unit *u = &j->units[p];
        u->started = u->clock = low;
        u->finished = low >= all;
        u->samples = low * j->job.batch_size; /* what is expected: more is not for anybody to see */
        u->epoch = epoch > 0 ? low / epoch : 0;
    }
    return true;
}

static bool may_begin(struct pn_coordinator *c, struct pn_job_run *j) {
    struct pn_secure_run *s = j->secure;
    struct pn_error err = {""};
    if (!s->known || s->applied >= pn_job_privacy_steps(&j->job) || j->phase != PN_TRAIN || j->cut.phase == PN_DRAIN || j->cut.phase == PN_FLIP || pn_now_ms(c->env) < s->not_before_ms) return false;
    const uint64_t weights = pn_json_u64(j->model, "parameters", UINT64_MAX);
    if (weights == UINT64_MAX) return false; /* the holders have not said */
    if (!s->have_rows) {
        struct pn_fixed f;
        s->n_weights = weights;
        enum pn_result r = pn_secure_rows_open(&s->rows, &j->job, weights, &err);
        s->have_rows = r == PN_OK;
        if (r == PN_OK) r = pn_secure_fixed_update(&f, &j->job, s->rows.n_values, &err);
        if (r == PN_OK && j->job.privacy.selection != PN_SELECT_DENSE) r = pn_secure_fixed_counts(&f, &j->job, &err);
        if (r != PN_OK) {
            pn_job_end(c, j, PN_JOB_FAILED, err.text);
            return false;
        }
    }
    const bool all = enough(c, j, false);
    if (!all && !s->told && pn_now_ms(c->env) - s->since_ms > j->job.privacy.phase_ms)
        pn_log(c->env, PN_WARN, "job %s waits: fewer than %u of its %u data holders are here with their rows, and a sum is made of no fewer", j->id, pn_job_fewest(&j->job.privacy, j->n_producers), j->n_producers);
    s->told = !all && pn_now_ms(c->env) - s->since_ms > j->job.privacy.phase_ms;
    return all;
}

void pn_secure_step(struct pn_coordinator *c, struct pn_job_run *j) {
    struct pn_secure_run *s = run_of(c, j);
    struct seat seats[64];
    struct pn_error err = {""};
    if (s == NULL || j->state != PN_RUNNING) return;
    if (c->store_failing && j->dirty) { /* what is charged cannot be shown before it is durable: it waits, and nobody is late */
        s->since_ms = pn_now_ms(c->env);
        return;
    }
    for (uint32_t i = 0; i < j->n_shards; i++) {
        seats[i] = look(c, j, i);
        if (seats[i].here) continue;
        s->known = false; /* a server is away: whatever was under way ends here; what it has is seen when it is back */
        if (s->phase == PN_SECURE_COUNTS || s->phase == PN_SECURE_UPDATE) failed(c, j, "a server was lost");
        s->phase = PN_SECURE_IDLE;
        return;
    }
    if (s->phase == PN_SECURE_APPLY) {
        bool all = true;
        for (uint32_t i = 0; i < j->n_shards; i++) {
            /* A beat from before it had its sum, or before it heard of this, is still on its way or the last that came. */
            const bool round = seats[i].attempt == s->attempt && seats[i].phase == PN_SECURE_UPDATE, lost = round ? seats[i].failed : seats[i].knows;
            if (seats[i].step < s->step) all = false;
            if (seats[i].step < s->step && lost) s->phase = PN_SECURE_IDLE; /* it has no sum any more */
        }
        if (all) {
            s->phase = PN_SECURE_IDLE;
            s->failures = 0;
            s->since_ms = pn_now_ms(c->env);
            forget_passed(s);
        }
    }
    if (s->phase == PN_SECURE_IDLE) {
        if (!settle(c, j, seats)) {
            pn_job_again(c, j, "a server that lost a secure sum which others had applied");
            return;
        }
        if (s->phase != PN_SECURE_IDLE || !may_begin(c, j)) return;
        const bool choice = chooses(j);
        if (!pn_budget_charge_round(c, j, choice, &err)) {
            pn_job_end(c, j, PN_JOB_FAILED, err.text);
            return;
        }
#if PN_MUTANT != 28 /* a round is shown before its charge is durable */
        j->dirty = true; /* durable before the plans that show it: the flush behind this event */
#endif
        s->attempt = j->units[0].charged + j->units[0].lives;
        s->step = s->applied + 1;
        s->phase = choice || j->job.privacy.selection == PN_SELECT_ADAFEST ? PN_SECURE_COUNTS : PN_SECURE_UPDATE;
        s->since_ms = pn_now_ms(c->env);
        return;
    }
    if (s->phase != PN_SECURE_COUNTS && s->phase != PN_SECURE_UPDATE) return;
    for (uint32_t i = 0; i < j->n_shards; i++)
        if (seats[i].step != s->applied) { /* a word of an earlier coordinator came late, and a sum was applied that nobody counts on any more */
            failed(c, j, "a server is at another step than the round began at");
            return;
        }
    if (s->agg == NULL) gather(c, j, seats);
    else if (s->over) after_sum(c, j, seats);
}

void pn_secure_message(struct pn_coordinator *c, pn_peer from, const struct pn_frame *f) {
    struct pn_job_run *j = pn_job_running(c);
    struct pn_secure_run *s = j != NULL ? j->secure : NULL;
    if (s == NULL || s->agg == NULL || s->over) return;
    pn_agg_coordinator_message(s->agg, from, f);
    if (s->over) pn_reconcile(c);
}

bool pn_secure_idle(const struct pn_job_run *j) { return j->secure != NULL && j->secure->known && j->secure->phase == PN_SECURE_IDLE; }

void pn_secure_again(struct pn_job_run *j) {
    struct pn_secure_run *s = j->secure;
    if (s == NULL) return;
    drop_round(s);
    forget_passed(s);
    s->phase = PN_SECURE_IDLE;
    s->known = false;
    s->since_ms = pn_now_ms(s->c->env);
}

struct json_object *pn_secure_plan(const struct pn_job_run *j) {
    const struct pn_secure_run *s = j->secure;
    if (!j->job.privacy.secure || s == NULL || s->n_holders == 0) return NULL;
    struct json_object *o = json_object_new_object(), *holders = json_object_new_array(), *slots = json_object_new_array();
    pn_json_add_str(o, "phase", pn_secure_phases[s->phase]);
    pn_json_add_u64(o, "attempt", s->phase == PN_SECURE_IDLE ? 0 : s->attempt);
    pn_json_add_u64(o, "step", s->phase == PN_SECURE_IDLE ? 0 : s->step);
    pn_json_add_u64(o, "applied", s->applied);
    pn_json_add_u64(o, "weights", s->n_weights);
    for (uint32_t p = 0; p < s->n_holders; p++) json_object_array_add(holders, json_object_new_string(s->holders[p].key));
    for (uint32_t i = 0; i < j->n_shards; i++) json_object_array_add(slots, json_object_new_uint64(pn_plan_first_slot(j, i)));
    pn_json_add(o, "holders", holders);
    pn_json_add(o, "slots", slots);
    if (s->phase >= PN_SECURE_UPDATE && s->passed_hex != NULL) pn_json_add_str(o, "passed", s->passed_hex);
    return o;
}
