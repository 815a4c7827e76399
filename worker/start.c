/* The dense parameters' first values where a job begins with published models (model.start): ps/start.c does the same for rows. */
#include <stdio.h>
#include <string.h>
#include "snapshot/snapshot.h"
#include "worker/internal.h"

/* He et al. 2017, eq. 13: the last layer's weights are [alpha h_GMF; (1 - alpha) h_MLP], its bias the same mean of both. What else has the same name and size in
 * both models is taken as it is. */
static enum pn_result take(const struct pn_net *net, const struct pn_job *job, const struct pn_snapshot *from, double alpha, float *p, struct pn_error *err) {
    const enum pn_model model = pn_snapshot_job(from)->model;
    const bool part = model != job->model;
    const char *name;
    size_t offset, shape[2];
    for (size_t i = 0; pn_net_block(net, i, &name, &offset, shape); i++) {
        size_t n = 0, wanted = shape[0] * shape[1], at = 0;
        const float *values = pn_snapshot_dense(from, name, &n);
        if (values == NULL) continue;
        const bool head = part && strncmp(name, "head.", 5) == 0, weights = head && strcmp(name, "head.weight") == 0;
        if (weights) {
            at = model == PN_MODEL_MLP ? job->embedding_dim : 0;
            wanted = model == PN_MODEL_MLP ? wanted - at : job->embedding_dim;
        }
        if (n != wanted) return pn_fail(err, PN_INVALID, "model.start: block %s has %zu floats there, and %zu are wanted", name, n, wanted);
        for (size_t d = 0; d < n; d++) p[offset + at + d] = head ? (float)(alpha * (double)values[d]) + (weights ? 0 : p[offset + d]) : values[d];
    }
    return PN_OK;
}

enum pn_result pn_start_dense(struct pn_run *run, const struct pn_net *net, float *p, struct pn_error *err) {
    enum pn_result r = PN_OK;
    for (size_t i = 0; r == PN_OK && i < run->job.n_starts; i++) {
        struct pn_snapshot *from;
        r = pn_snapshot_open(&from, run->env, run->job.starts[i].path, err);
        if (r != PN_OK) break;
        r = take(net, &run->job, from, run->job.starts[i].alpha, p, err);
        pn_snapshot_close(from);
    }
    return r;
}
