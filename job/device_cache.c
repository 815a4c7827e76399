/* spec.training.deviceCache: rows that stay in a GPU's memory from step to step. */
#include "job/sections.h"

#define KEYS(...) (const char *const[]){__VA_ARGS__, NULL}

void pn_job_read_device_cache(struct pn_yaml *y, struct fy_node *training, struct pn_job *job) {
    struct fy_node *n = training != NULL ? pn_yaml_get(training, "deviceCache") : NULL;
    if (n == NULL || !pn_yaml_keys(y, n, "deviceCache", KEYS("rows", "staleness"), NULL)) return;
    if (pn_yaml_get(n, "rows") == NULL || pn_yaml_get(n, "staleness") == NULL) {
        pn_yaml_problem(y, n, "deviceCache needs rows (of each table) and staleness (steps)");
        return;
    }
    pn_yaml_count(y, pn_yaml_get(n, "rows"), "rows", 1, 1ull << 32, &job->cache_rows);
    pn_yaml_count32(y, pn_yaml_get(n, "staleness"), "staleness", 0, 1000000, &job->cache_staleness);
    if (job->device == PN_DEVICE_CPU) pn_yaml_problem(y, n, "deviceCache has a meaning on a GPU only: with device: cpu every row is pulled");
    if (job->model == PN_MODEL_AUDIT) pn_yaml_problem(y, n, "the audit model is not computed on a GPU: it has no use for deviceCache");
    if (job->consistency == PN_SYNC && job->cache_staleness > 0)
        pn_yaml_problem(y, pn_yaml_get(n, "staleness"), "a step of a sync job reads the rows that all have written in the step before: deviceCache.staleness: 0, or consistency.mode async or ssp");
}
