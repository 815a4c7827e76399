/* spec.privacy with aggregation: secure. What a secure job needs and what it cannot have (docs/secure-aggregation.md, "Jobs"). */
#include <math.h>
#include "job/sections.h"
#include "privacy/secagg/params.h"

#define KEYS(...) (const char *const[]){__VA_ARGS__, NULL}

uint64_t pn_job_declared_rows(const struct pn_job *job) {
    uint64_t n = 0;
    for (size_t i = 0; i < job->n_fields; i++)
        if (pn_field_keyed(&job->fields[i])) n += pn_field_domain(&job->fields[i]);
    return n;
}

uint32_t pn_job_fewest(const struct pn_privacy_spec *v, uint32_t n) {
    const uint32_t left = n - (uint32_t)floor(v->max_dropout * n + 1e-9);
    return left > v->min_workers ? left : v->min_workers;
}
uint32_t pn_job_colluding(const struct pn_privacy_spec *v, uint32_t n) { return (uint32_t)floor(v->max_colluding * n + 1e-9); }

static void check_holders(struct pn_yaml *y, struct fy_node *n, const struct pn_job *job) {
    const struct pn_privacy_spec *v = &job->privacy;
    const uint32_t all = job->n_producers, fewest = pn_job_fewest(v, all), bad = pn_job_colluding(v, all);
    struct pn_error err;
    uint32_t k, t;
    if (v->min_workers < PN_AGG_MIN_WORKERS)
        pn_yaml_problem(y, pn_yaml_get(n, "minWorkers"), "minWorkers: at least %u; of two, one and a server know the other's update", PN_AGG_MIN_WORKERS);
    else if (all < v->min_workers) pn_yaml_problem(y, n, "aggregation: secure with dataShards %u: fewer data holders than minWorkers (%u), so that no round could begin", all, v->min_workers);
    else if (fewest <= bad) pn_yaml_problem(y, n, "maxColluding: of the %u that may be left, %u may collude, and nobody is left whose noise counts", fewest, bad);
    else if (pn_agg_params(all, bad, all - fewest, PN_SECURE_BITS, PN_SECURE_BITS, &k, &t, &err) != PN_OK || pn_agg_params(fewest, bad, 0, PN_SECURE_BITS, PN_SECURE_BITS, &k, &t, &err) != PN_OK)
        pn_yaml_problem(y, n, "%s", err.text);
}

void pn_job_read_secure(struct pn_yaml *y, struct fy_node *n, struct pn_job *job) {
    struct pn_privacy_spec *v = &job->privacy;
    int own = 0;
    if (!v->secure) {
        for (const char *const *key = KEYS("minWorkers", "maxDropout", "maxColluding", "voteBuckets", "phaseTimeout", "data"); *key != NULL; key++)
            if (pn_yaml_get(n, *key) != NULL) pn_yaml_problem(y, pn_yaml_get(n, *key), "%s has a meaning for aggregation: secure only", *key);
        return;
    }
    const uint64_t rows = pn_job_declared_rows(job);
    v->max_colluding = .2;
    v->phase_ms = 10000;
    v->vote_buckets = rows < PN_SECURE_MAX_BUCKETS ? (uint32_t)rows : PN_SECURE_MAX_BUCKETS;
    if (pn_yaml_get(n, "minWorkers") == NULL) pn_yaml_problem(y, n, "aggregation: secure needs minWorkers: a sum of fewer is never made");
    else pn_yaml_count32(y, pn_yaml_get(n, "minWorkers"), "minWorkers", 0, PN_MAX_PRODUCERS, &v->min_workers);
    pn_yaml_real(y, pn_yaml_get(n, "maxDropout"), "maxDropout", 0, .9, &v->max_dropout);
    pn_yaml_real(y, pn_yaml_get(n, "maxColluding"), "maxColluding", 0, .9, &v->max_colluding);
    pn_yaml_choice(y, pn_yaml_get(n, "data"), "data", KEYS("dealt", "own"), NULL, &own);
    v->own_data = own == 1;
    if (pn_yaml_duration(y, pn_yaml_get(n, "phaseTimeout"), "phaseTimeout", &v->phase_ms) && (v->phase_ms < 100 || v->phase_ms > 600000))
        pn_yaml_problem(y, pn_yaml_get(n, "phaseTimeout"), "phaseTimeout is %llu ms; from 100ms to 10m", (unsigned long long)v->phase_ms);
    struct fy_node *buckets = pn_yaml_get(n, "voteBuckets");
    if (buckets != NULL && v->selection == PN_SELECT_DENSE) pn_yaml_problem(y, buckets, "voteBuckets has a meaning for selection: adafest and fest only");
    pn_yaml_count32(y, buckets, "voteBuckets", 1, PN_SECURE_MAX_BUCKETS, &v->vote_buckets);
    if (job->consistency != PN_SYNC) pn_yaml_problem(y, n, "aggregation: secure needs training.consistency {mode: sync}: a round is the sum of one step of all, and there is no sum of steps that are apart");
    if (job->device == PN_DEVICE_CUDA) pn_yaml_problem(y, n, "aggregation: secure: data holders compute their steps on the CPU; take training.device: cpu (or auto)");
    for (size_t i = 0; i < job->n_fields; i++)
        if (job->fields[i].weighted)
            pn_yaml_problem(y, n, "aggregation: secure: feature \"%s\" is weighted: weights of either sign on one row give gradients that cancel, and the roundoff of that is within no bound that noise is made for",
                            job->fields[i].name);
    if (job->sequence.n_fields > 0)
        pn_yaml_problem(y, n, "aggregation: secure and model.sequence do not go together: one example has many places, whose gradients may cancel, and the roundoff of what cancels is within no bound that noise is made for");
    for (size_t i = 0; i < job->n_fields; i++)
        for (size_t k = 0; k < i; k++) {
            const struct pn_field *f = &job->fields[i], *other = &job->fields[k];
            if (pn_fields_share(f, other))
                pn_yaml_problem(y, n, "aggregation: secure: features \"%s\" and \"%s\" share rows (hash: {share}): an example could touch one twice with gradients that cancel, and the roundoff of that is within no bound that noise is made for",
                                other->name, f->name);
        }
    uint64_t values = 0;
    for (size_t i = 0; i < job->n_fields; i++)
        if (pn_field_keyed(&job->fields[i])) values += pn_field_domain(&job->fields[i]) * job->tables[job->fields[i].i_table].dim;
    if (values > PN_SECURE_MAX_VALUES)
        pn_yaml_problem(y, n, "aggregation: secure: the tables can have %llu values (rows of all features, by their buckets, times floats a row), and %u is the most: a round masks a vector of all of them; give features fewer buckets",
                        (unsigned long long)values, PN_SECURE_MAX_VALUES);
    if (job->n_producers > 0 && y->n_problems == 0) check_holders(y, n, job);
}
