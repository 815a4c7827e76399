/* spec.training: steps, losses, consistency and when to stop. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "job/sections.h"

#define KEYS(...) (const char *const[]){__VA_ARGS__, NULL}

const char *const pn_metric_names[] = {"auc", "logloss", "hr", "ndcg", "recall", "mrr", "gauc", "ne", NULL};

/* "hr@10" and the like: one K for a job. False: no such name. */
bool pn_job_ranking_metric(struct pn_yaml *y, struct fy_node *n, const char *text, struct pn_job *job, enum pn_metric_kind *kind) {
    for (int i = PN_BY_HR; i <= PN_BY_RECALL; i++) {
        const size_t k = strlen(pn_metric_names[i]) + 1;
        char *end;
        if (strncmp(text, pn_metric_names[i], k - 1) != 0 || text[k - 1] != '@' || text[k] < '1' || text[k] > '9') continue;
        const unsigned long top = strtoul(text + k, &end, 10);
        if (*end != '\0' || top > 10000) continue;
        if (job->rank_k > 0 && job->rank_k != top) pn_yaml_problem(y, n, "%s: a job has one K, and another metric says @%u", text, job->rank_k);
        job->rank_k = (uint32_t)top;
        *kind = (enum pn_metric_kind)i;
        return true;
    }
    return false;
}

/* What is learned: bce goes by each row, the others by a positive row and those behind it. */
static void read_loss(struct pn_yaml *y, struct fy_node *n, struct pn_job *job) {
    job->margin = job->temperature = 1;
    if (n == NULL || !pn_yaml_keys(y, n, "loss", KEYS("name", "margin", "temperature", "logQ"), NULL)) return;
    int loss = PN_LOSS_BCE;
    if (pn_yaml_choice(y, pn_yaml_get(n, "name"), "loss", KEYS("bce", "bpr", "hinge", "softmax", "in-batch-softmax"), NULL, &loss)) job->loss = (enum pn_loss)loss;
    job->log_q = job->loss == PN_LOSS_IN_BATCH;
    pn_yaml_real32(y, pn_yaml_get(n, "margin"), "margin", 0, 1000, &job->margin);
    pn_yaml_real32(y, pn_yaml_get(n, "temperature"), "temperature", 0.001, 1000, &job->temperature);
    pn_yaml_truth(y, pn_yaml_get(n, "logQ"), "logQ", &job->log_q);
    if (pn_yaml_get(n, "margin") != NULL && job->loss != PN_LOSS_HINGE) pn_yaml_problem(y, n, "margin has a meaning for hinge only");
    const bool softmax = job->loss == PN_LOSS_SOFTMAX || job->loss == PN_LOSS_IN_BATCH;
    if (!softmax && (pn_yaml_get(n, "temperature") != NULL || pn_yaml_get(n, "logQ") != NULL)) pn_yaml_problem(y, n, "temperature and logQ have a meaning for softmax and in-batch-softmax only");
    if (job->loss == PN_LOSS_BCE) return;
    struct pn_data *d = &job->train;
    if (!pn_format_pairs(d->format)) pn_yaml_problem(y, n, "this loss needs train data of format ncf or lightgcn, where a positive row's negatives stand behind it");
    if (job->loss == PN_LOSS_IN_BATCH) {
        if (job->model != PN_MODEL_MF || job->bias) pn_yaml_problem(y, n, "in-batch-softmax goes with model {name: mf, bias: false} only");
        if (d->negatives.per_positive > 0) pn_yaml_problem(y, n, "in-batch-softmax draws no negatives: the batch's other items are");
        if (d->negatives.n_seen == 0) snprintf(d->negatives.seen[d->negatives.n_seen++], sizeof d->negatives.seen[0], "%s", d->path); /* their shares of the rows */
    } else if (d->negatives.per_positive == 0) pn_yaml_problem(y, n, "this loss needs negatives in spec.data.train");
}

static void read_early_stopping(struct pn_yaml *y, struct fy_node *n, struct pn_job *job) {
    if (n == NULL || !pn_yaml_keys(y, n, "earlyStopping", KEYS("metric", "patience", "minDelta"), NULL)) return;
    char metric[16] = "auc";
    job->patience = 2;
    job->min_delta = 1e-6;
    struct fy_node *by = pn_yaml_get(n, "metric");
    if (by != NULL && pn_yaml_text(y, by, "metric", metric, sizeof metric)) {
        int i = 0;
        while (i < PN_METRIC_KINDS && ((i >= PN_BY_HR && i <= PN_BY_RECALL) || strcmp(metric, pn_metric_names[i]) != 0)) i++;
        if (i < PN_METRIC_KINDS) job->stop_by = (enum pn_metric_kind)i;
        else if (!pn_job_ranking_metric(y, by, metric, job, &job->stop_by)) pn_yaml_problem(y, by, "metric \"%s\" is unknown; allowed: auc, logloss, ne, gauc, hr@K, ndcg@K, recall@K, mrr", metric);
    }
    pn_yaml_count32(y, pn_yaml_get(n, "patience"), "patience", 1, 100000, &job->patience);
    pn_yaml_real(y, pn_yaml_get(n, "minDelta"), "minDelta", 0, 1, &job->min_delta);
    if (!job->validation.present) pn_yaml_problem(y, n, "earlyStopping needs spec.data.validation");
    if (job->model == PN_MODEL_AUDIT) pn_yaml_problem(y, n, "the audit model has no metric to stop by");
}

void pn_job_read_training(struct pn_yaml *y, struct fy_node *n, struct pn_job *job) {
    if (n == NULL) return;
    if (!pn_yaml_keys(y, n, "spec.training", KEYS("batchSize", "epochs", "maxSteps", "seed", "consistency", "inFlight", "dataShards", "device", "deviceCache", "codec", "earlyStopping", "clipNorm", "loss", "precision"),
                      KEYS("negatives"))) return;
    read_early_stopping(y, pn_yaml_get(n, "earlyStopping"), job);
    read_loss(y, pn_yaml_get(n, "loss"), job);
    pn_yaml_real32(y, pn_yaml_get(n, "clipNorm"), "clipNorm", 1e-6, 1e9, &job->clip_norm);
    for (const char *const *key = KEYS("batchSize", "epochs", "maxSteps", "device", "deviceCache", "precision", "earlyStopping", "clipNorm", "loss"); job->model == PN_MODEL_EXTERNAL && *key != NULL; key++)
        if (pn_yaml_get(n, *key) != NULL) pn_yaml_problem(y, pn_yaml_get(n, *key), "%s has no meaning for an external job: its clients decide", *key);
    pn_yaml_count32(y, pn_yaml_get(n, "batchSize"), "batchSize", 1, 1u << 20, &job->batch_size);
    pn_yaml_count32(y, pn_yaml_get(n, "epochs"), "epochs", 1, 100000, &job->epochs);
    pn_yaml_count(y, pn_yaml_get(n, "maxSteps"), "maxSteps", 1, 1ull << 48, &job->max_steps);
    pn_yaml_count(y, pn_yaml_get(n, "seed"), "seed", 0, UINT64_MAX, &job->seed);
    pn_yaml_count32(y, pn_yaml_get(n, "inFlight"), "inFlight", 1, 64, &job->max_in_flight);
    pn_yaml_count32(y, pn_yaml_get(n, "dataShards"), "dataShards", 1, PN_MAX_PRODUCERS, &job->n_producers);
    int codec = 0;
    if (pn_yaml_choice(y, pn_yaml_get(n, "codec"), "codec", pn_codec_names, NULL, &codec)) job->codec = (enum pn_codec)codec;
    pn_job_read_device(y, n, job);
    struct fy_node *c = pn_yaml_get(n, "consistency");
    if (c == NULL || !pn_yaml_keys(y, c, "consistency", KEYS("mode", "staleness", "ack"), NULL)) return;
    int mode = PN_ASYNC, ack = 0;
    if (pn_yaml_choice(y, pn_yaml_get(c, "mode"), "mode", KEYS("async", "sync", "ssp"), NULL, &mode)) job->consistency = (enum pn_consistency)mode;
    if (pn_yaml_choice(y, pn_yaml_get(c, "ack"), "ack", KEYS("durable", "applied"), KEYS("replicated"), &ack)) job->ack_durable = ack == 0;
    pn_yaml_count(y, pn_yaml_get(c, "staleness"), "staleness", 0, 1000000, &job->staleness);
    if (pn_yaml_get(c, "staleness") != NULL && job->consistency != PN_SSP) pn_yaml_problem(y, pn_yaml_get(c, "staleness"), "staleness has a meaning for mode ssp only");
}
