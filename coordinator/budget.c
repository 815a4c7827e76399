/* The privacy budget (I8). A data set's jobs add up, whatever became of them: of each job the producer that was charged most counts, for a row lies in one producer's shard,
 * and which one is not known. A worker that takes a producer over runs the steps since the last checkpoint again, with other noise: they are charged again. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "coordinator/internal.h"
#include "privacy/accountant.h"

enum { MOST = 1024 }; /* events of a data set */

/* first: of its first job, which says unit, limit and delta; NULL: there is none yet. */
struct account { struct pn_privacy_event events[MOST]; size_t n; const struct pn_privacy_spec *first; bool full, whole; };

/* Whose presence is protected. Where users are in several holders' own data, each holder protects what it has of one. */
static const char *unit(const struct pn_privacy_spec *v) { return v->per_user == 0 ? "example" : v->secure && v->own_data ? "user at one holder" : "user"; }

static bool of(const struct pn_job *job, const char *dataset) { return job->privacy.rows > 0 && strcmp(job->privacy.dataset, dataset) == 0; }

static void add(struct account *a, const struct pn_job *job, uint64_t steps, uint32_t lives) {
    if (steps == 0 && lives == 0) return;
    a->whole = a->whole || job->privacy.secure; /* one discrete event, and all are added up by whole orders */
    if (a->n + 2 > MOST) a->full = true;
    else a->n += pn_job_privacy_events(job, steps, lives, a->events + a->n);
}

/* Of the producer that was charged most: its steps, and the most owners that one had. */
static uint64_t charged(const struct pn_job_run *j, uint32_t *lives) {
    uint64_t most = 0;
    *lives = 0;
    for (uint32_t p = 0; p < j->n_producers; p++) {
        if (j->units[p].charged > most) most = j->units[p].charged;
        if (j->units[p].lives > *lives) *lives = j->units[p].lives;
    }
    return most;
}

/* What the data set has spent; its limit is what the first job on it said. */
static void account_of(const struct pn_coordinator *c, const char *dataset, struct account *a) {
    *a = (struct account){.n = 0};
    for (const struct pn_job_run *j = c->jobs; j != NULL; j = j->next) {
        if (!of(&j->job, dataset)) continue;
        if (a->first == NULL) a->first = &j->job.privacy;
        uint32_t lives;
        const uint64_t steps = charged(j, &lives);
        add(a, &j->job, steps, lives);
    }
}

/* Epsilon by Renyi orders: at once, and never below the truth. */
static double epsilon_of(const struct account *a) {
    double epsilon = HUGE_VAL;
    if (a->full || (a->whole ? pn_privacy_epsilon_rdp_whole : pn_privacy_epsilon_rdp)(a->events, a->n, a->first->delta, &epsilon, NULL) != PN_OK) return HUGE_VAL;
    return a->n == 0 ? 0 : epsilon;
}

bool pn_budget_admit(const struct pn_coordinator *c, const struct pn_job *job, struct pn_error *err) {
    struct account a;
    if (job->privacy.rows == 0) return true;
    account_of(c, job->privacy.dataset, &a);
    if (a.first == NULL) a.first = &job->privacy;
    if (strcmp(unit(a.first), unit(&job->privacy)) != 0) { /* the two are of other neighbours, and do not add up */
        pn_fail(err, PN_REFUSED, "data set \"%s\" has counted its budget by %s since its first job, and this job's unit is the %s: what one spends cannot be added to the other; take the same unit",
                job->privacy.dataset, unit(a.first), unit(&job->privacy));
        return false;
    }
    if (strcmp(a.first->user_field, job->privacy.user_field) != 0) {
        pn_fail(err, PN_REFUSED, "data set \"%s\" has counted its budget by the users of column \"%s\" since its first job, and this job's are those of \"%s\": the two do not add up", job->privacy.dataset, a.first->user_field,
                job->privacy.user_field);
        return false;
    }
    const double before = epsilon_of(&a);
    if (fabs(a.first->limit - job->privacy.limit) > 1e-12 * a.first->limit || fabs(a.first->delta - job->privacy.delta) > 1e-12 * a.first->delta) {
        pn_fail(err, PN_REFUSED, "data set \"%s\" has a budget of epsilon %.6g at delta %.6g since its first job; this job says %.6g at %.6g, and a budget cannot be changed", job->privacy.dataset,
                a.first->limit, a.first->delta, job->privacy.limit, job->privacy.delta);
        return false;
    }
    add(&a, job, pn_job_privacy_steps(job), 1);
    if (epsilon_of(&a) <= a.first->limit * (1 + 1e-9)) return true;
    pn_fail(err, PN_REFUSED, "the privacy budget of data set \"%s\" does not have this job: of epsilon %.6g, %.6g is spent, and with the job it would be %.6g; fewer epochs or more noise are needed",
            job->privacy.dataset, a.first->limit, before, epsilon_of(&a));
    return false;
}

bool pn_budget_charge(const struct pn_coordinator *c, struct pn_job_run *j, uint32_t p, struct pn_error *err) {
    struct pn_work_unit *u = &j->units[p];
    struct account a;
    if (j->job.privacy.rows == 0 || j->job.privacy.secure) return true; /* secure: a round at a time */
    const uint64_t all = pn_job_privacy_steps(&j->job), before = u->charged;
    u->charged += u->first_step <= all ? all - u->first_step + 1 : 0;
    u->lives++;
    account_of(c, j->job.privacy.dataset, &a);
    if (epsilon_of(&a) <= a.first->limit * (1 + 1e-9)) return true;
    u->charged = before;
    u->lives--;
    pn_fail(err, PN_REFUSED, "the privacy budget of data set \"%s\" (epsilon %.6g) does not have the steps that a new owner of producer %u would run again", j->job.privacy.dataset, a.first->limit, p);
    return false;
}

/* All holders take part in a round, or may have: each is charged. */
static void count_round(struct pn_job_run *j, bool choice, int by) {
    for (uint32_t p = 0; p < j->n_producers; p++) {
        if (choice) j->units[p].lives += (uint32_t)by;
        else j->units[p].charged += (uint64_t)by;
    }
}
bool pn_budget_charge_round(const struct pn_coordinator *c, struct pn_job_run *j, bool choice, struct pn_error *err) {
    struct account a;
    count_round(j, choice, 1);
    account_of(c, j->job.privacy.dataset, &a);
    if (epsilon_of(&a) <= a.first->limit * (1 + 1e-9)) return true;
    count_round(j, choice, -1);
    pn_fail(err, PN_REFUSED, "the privacy budget of data set \"%s\" (epsilon %.6g) does not have another %s: %" PRIu64 " were charged, those that failed or were lost among them",
            j->job.privacy.dataset, a.first->limit, choice ? "choice of rows" : "round", choice ? j->units[0].lives : j->units[0].charged);
    return false;
}

/* The data sets, each once, by its first job. */
static bool first_of(const struct pn_coordinator *c, const struct pn_job_run *j) {
    if (j->job.privacy.rows == 0) return false;
    const struct pn_job_run *i = c->jobs;
    while (!of(&i->job, j->job.privacy.dataset)) i = i->next;
    return i == j;
}

struct json_object *pn_budget_describe(const struct pn_coordinator *c) {
    struct json_object *o = json_object_new_object(), *list = json_object_new_array();
    struct account a;
    for (const struct pn_job_run *j = c->jobs; j != NULL; j = j->next) {
        if (!first_of(c, j)) continue;
        struct json_object *e = json_object_new_object(), *jobs = json_object_new_array();
        account_of(c, j->job.privacy.dataset, &a);
        const double spent = epsilon_of(&a);
        pn_json_add_str(e, "dataset", j->job.privacy.dataset);
        pn_json_add_str(e, "unit", unit(a.first));
        pn_json_add_double(e, "epsilon_limit", a.first->limit);
        pn_json_add_double(e, "delta", a.first->delta);
        if (isfinite(spent)) pn_json_add_double(e, "epsilon_spent", spent);
        if (isfinite(spent)) pn_json_add_double(e, "epsilon_left", a.first->limit > spent ? a.first->limit - spent : 0);
        for (const struct pn_job_run *i = j; i != NULL; i = i->next) {
            if (!of(&i->job, j->job.privacy.dataset)) continue;
            uint32_t lives;
            uint64_t clock = 0;
            for (uint32_t p = 0; p < i->n_producers; p++)
                if (i->units[p].clock > clock) clock = i->units[p].clock;
            struct json_object *x = json_object_new_object();
            pn_json_add_str(x, "job", i->id);
            pn_json_add_double(x, "noise_multiplier", i->job.privacy.noise);
            pn_json_add_u64(x, "steps_charged", charged(i, &lives));
            if (pn_job_chooses(&i->job.privacy)) pn_json_add_u64(x, "choices_charged", lives);
            pn_json_add_u64(x, "steps_done", clock);
            pn_json_add_u64(x, "steps", pn_job_privacy_steps(&i->job));
            json_object_array_add(jobs, x);
        }
        pn_json_add(e, "jobs", jobs);
        json_object_array_add(list, e);
    }
    pn_json_add(o, "datasets", list);
    return o;
}

size_t pn_budget_metrics(const struct pn_coordinator *c, char *text, size_t n) {
    size_t used = 0;
    struct account a;
    for (const struct pn_job_run *j = c->jobs; j != NULL && used + 600 < n; j = j->next) {
        if (!first_of(c, j)) continue;
        account_of(c, j->job.privacy.dataset, &a);
        used += (size_t)snprintf(text + used, n - used, "%spinion_privacy_epsilon_spent{dataset=\"%s\"} %.9g\npinion_privacy_epsilon_limit{dataset=\"%s\"} %.9g\n",
                                 used == 0 ? "# HELP pinion_privacy_epsilon_spent Epsilon of all jobs on a data set.\n# TYPE pinion_privacy_epsilon_spent gauge\n"
                                             "# HELP pinion_privacy_epsilon_limit Its budget.\n# TYPE pinion_privacy_epsilon_limit gauge\n" : "",
                                 j->job.privacy.dataset, epsilon_of(&a), j->job.privacy.dataset, a.first->limit);
    }
    return used;
}
