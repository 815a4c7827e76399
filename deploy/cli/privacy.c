/* pinion privacy: what data sets have spent of their budgets. */
#include <stdio.h>
#include <string.h>
#include "deploy/cli/cli.h"
#include "job/job.h"
#include "privacy/accountant.h"

void cli_privacy_ahead(const struct pn_job *job) {
    const struct pn_privacy_spec *v = &job->privacy;
    struct pn_privacy_event events[2];
    double epsilon;
    if (v->rows == 0) return;
    const uint64_t all = pn_job_privacy_steps(job), epoch = (all + job->epochs - 1) / job->epochs;
    printf("private: noise multiplier %.5g, clip %.5g, %llu steps of each of %u producers at a sampling rate of %.4g\n", v->noise, (double)v->clip, (unsigned long long)all, job->n_producers,
           (double)job->batch_size * job->n_producers / (double)v->rows);
    if (v->secure)
        printf("secure sums of %u data holders: the fewest are %u, %u of them may collude; noise is discrete, and full without the others; a round that fails is charged like one that does not\n",
               job->n_producers, pn_job_fewest(v, job->n_producers), pn_job_colluding(v, job->n_producers));
    if (v->per_user > 0) printf("  the unit is the user (column %s): a batch is expected to be of %u users, at most %u examples of each\n", v->user_field, job->batch_size, v->per_user);
    const char *const each = v->per_user > 0 ? " per user" : "";
    enum pn_result (*const of)(const struct pn_privacy_event *, size_t, double, double *, struct pn_error *) = v->secure ? pn_privacy_epsilon_rdp_whole : pn_privacy_epsilon_rdp;
    if (pn_job_chooses(v) && of(events + pn_job_privacy_events(job, 0, 1, events) - 1, 1, v->delta, &epsilon, NULL) == PN_OK)
        printf("  one noisy count of all rows, before the first step, chooses those that can be sent: epsilon %.4g by itself, part of what follows\n", epsilon);
    for (uint32_t e = 1; e <= job->epochs; e++) {
        if (job->epochs > 20 && e > 10 && e < job->epochs) continue;
        const uint64_t steps = e * epoch < all ? e * epoch : all;
        const size_t n = pn_job_privacy_events(job, steps, 1, events);
        if (of(events, n, v->delta, &epsilon, NULL) == PN_OK) printf("  epsilon%s after epoch %u: %.4g at delta %.4g\n", each, e, epsilon, v->delta);
        if (e == job->epochs && !v->secure && v->delta >= PN_PRIVACY_MIN_DELTA && pn_privacy_epsilon(events, n, v->delta, &epsilon, NULL) == PN_OK) printf("  (by privacy loss distributions, which are tight: %.4g)\n", epsilon);
    }
}

int verb_privacy(const struct cli *c) {
    if (c->n_rest > 1) cli_fail(EXIT_USAGE, "privacy takes one data set or one job at most");
    struct json_object *o = cli_must(c, "GET", "/api/v1/privacy", NULL), *list = pn_json_get(o, "datasets");
    const char *only = c->n_rest == 1 ? c->rest[0] : NULL;
    if (c->json && only == NULL) {
        puts(pn_json_text(o));
        return EXIT_DONE;
    }
    bool any = false;
    for (size_t i = 0; i < pn_json_length(list); i++) {
        struct json_object *e = pn_json_at(list, i), *jobs = pn_json_get(e, "jobs");
        bool wanted = only == NULL || strcmp(pn_json_str(e, "dataset", ""), only) == 0;
        for (size_t k = 0; k < pn_json_length(jobs); k++) wanted = wanted || strcmp(pn_json_str(pn_json_at(jobs, k), "job", ""), only) == 0;
        if (!wanted) continue;
        any = true;
        if (c->json) {
            puts(pn_json_text(e));
            continue;
        }
        printf("data set %s: epsilon%s %.4g of %.4g spent, %.4g left, at delta %.4g\n", pn_json_str(e, "dataset", ""), strcmp(pn_json_str(e, "unit", ""), "user") == 0 ? " per user" : "", pn_json_double(e, "epsilon_spent", 0), pn_json_double(e, "epsilon_limit", 0),
               pn_json_double(e, "epsilon_left", 0), pn_json_double(e, "delta", 0));
        for (size_t k = 0; k < pn_json_length(jobs); k++) {
            struct json_object *x = pn_json_at(jobs, k);
            printf("  %-10s noise multiplier %.4g, %llu of %llu steps done, %llu charged", pn_json_str(x, "job", ""), pn_json_double(x, "noise_multiplier", 0),
                   (unsigned long long)pn_json_u64(x, "steps_done", 0), (unsigned long long)pn_json_u64(x, "steps", 0), (unsigned long long)pn_json_u64(x, "steps_charged", 0));
            if (pn_json_get(x, "choices_charged") != NULL) printf(", and %llu choices of rows", (unsigned long long)pn_json_u64(x, "choices_charged", 0));
            printf("\n");
        }
    }
    if (!any && only != NULL) cli_fail(EXIT_FAILED, "no private job and no data set of private jobs is called %s", only);
    if (!any) printf("no private job has been submitted\n");
    return EXIT_DONE;
}
