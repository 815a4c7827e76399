/* Several devices as one (nn/devices.h) against one: the same batches, each side learning with its own gradients. Losses and parameters stay together; what the all-reduce leaves is the
 * same bits on all devices. Batches of every size: not to be divided, fewer examples than devices, so that a part is empty.
 *   parity-devices cpu | emulated | MODULE.so [STEPS [ROWS [MODELS]]] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "nn/device_inside.h"
#include "tests/parity/models.h"
#include "tests/parity/threads.h"

static int failures;
static void wrong(const char *model, const char *training, size_t n, const char *what, double figure) {
    fprintf(stderr, "%s, %s on %zu devices: %s %.3g\n", model, training, n, what, figure);
    failures++;
}

/* |a - b| over |a|, of everything that a step learns with. */
static double apart(const struct side side[2], const struct pn_job *job, const struct pn_batch *b, size_t n_parameters) {
    double off = 0, whole = 0;
    for (uint32_t t = 0; t <= job->i_dense_table; t++) {
        const bool dense = t == job->i_dense_table;
        const float *x = dense ? side[0].dp : side[0].gradients[t], *y = dense ? side[1].dp : side[1].gradients[t];
        for (size_t i = 0, n = dense ? n_parameters : b->n_unique[t] * job->tables[t].dim; i < n; i++) {
            off += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
            whole += (double)x[i] * (double)x[i];
        }
    }
    return off == 0 ? 0 : sqrt(off / (whole > 0 ? whole : 1e-12));
}

/* Are this part of the slot's memory the same bits on all devices? */
static bool same_everywhere(struct pn_devices *g, size_t slot, size_t part, size_t n_floats) {
    float *first = malloc((n_floats + 1) * sizeof *first), *other = malloc((n_floats + 1) * sizeof *other);
    bool same = true;
    for (size_t i = 0; i < pn_devices_number(g); i++) {
        struct pn_device *d = pn_devices_one(g, i);
        d->be->download(d->ctx, i == 0 ? first : other, d->slots[slot].parts[part].dev, n_floats * sizeof *first);
        d->be->finish(d->ctx, NULL);
        if (i > 0) same = same && memcmp(first, other, n_floats * sizeof *first) == 0;
    }
    free(first);
    free(other);
    return same;
}

static size_t rows_of(size_t step, size_t most) {
    const size_t odd[] = {1, 2, most - 1, 1 + most / 3};
    return step % 12 >= 8 ? odd[step % 4] : most; /* as often the same that it is captured */
}

/* Users of 1 to 5 examples, as many of each batch of one size: a step of users is captured too. */
static void make_users(struct pn_batch *b) {
    b->unit_begin = calloc(b->n_examples + 1, sizeof *b->unit_begin);
    for (size_t at = 0; at < b->n_examples; b->unit_begin[++b->n_units] = (uint32_t)at) at = at + 1 + 3 * b->n_units % 5 < b->n_examples ? at + 1 + 3 * b->n_units % 5 : b->n_examples;
}

/* private: the most of a unit's gradient; 0: an ordinary job. users: a unit is a user, not an example. */
static void check_model(const struct pn_backend *be, const char *model, const char *training, size_t n_devices, size_t steps, size_t most_rows, float private, bool users) {
    static struct pn_job job;
    static struct raw raw;
    static const size_t numbers[] = {0, 1, 2};
    struct pn_features *f;
    struct pn_net *net;
    struct pn_device *one;
    struct pn_devices *several;
    struct pn_error err = {""};
    open_job(&job, &f, model, training, "float32");
    const size_t n_dense = dense_inputs(model, training);
    /* A run with the candidate in it is chaotic (steps.c): there every step begins with one side's parameters. */
    const bool pair = is_pair(model, training), chaotic = strstr(model, "candidate") != NULL;
    if (pn_net_open(&net, &job, n_dense, &err) != PN_OK || pn_device_open(&one, be, 0, &job, n_dense, &err) != PN_OK ||
        pn_devices_open(&several, be, numbers, n_devices, &job, n_dense, &err) != PN_OK ||
        (private > 0 && (pn_device_clip_units(one, private, &err) != PN_OK || pn_devices_clip_units(several, private, &err) != PN_OK))) {
        fprintf(stderr, "%s: %s\n", model, err.text);
        exit(1);
    }
    const size_t n_parameters = pn_net_parameters(net), padded = padded_of(net);
    struct side side[2];
    open_sides(side, &job, net);
    const size_t cells = job.i_dense_table * TABLE * job.tables[0].dim;
    float *start = malloc((n_parameters + cells) * sizeof *start);
    memcpy(start, side[0].table, cells * sizeof *start);
    memcpy(start + cells, side[0].p, n_parameters * sizeof *start);
    double loss_apart = 0, gradients_apart = 0, scores_apart = 0;
    for (size_t i = 0; i < steps; i++) {
        struct pn_batch b;
        uint64_t n_bad = 0;
        const size_t slot = i % PN_DEVICE_SLOTS;
        make_raw(&raw, rows_of(i, most_rows), pair);
        for (size_t e = 0; pair && e < raw.raw.n_rows; e++) raw.labels[e] = pn_rng_next(&rng) % 3 == 0; /* groups of every length, and rows before the first */
        if (pn_features_batch(f, &raw.raw, &b, &n_bad) != PN_OK) exit(1);
        if (users) make_users(&b);
        enum pn_result r = PN_OK;
        for (int k = 0; k < 2 && r == PN_OK; k++) {
            struct side *s = &side[k];
            const float *in[PN_MAX_TABLES];
            gather(s, &job, &b);
            for (size_t t = 0; t < PN_MAX_TABLES; t++) in[t] = s->rows[t];
            memset(s->dp, 0xff, padded * sizeof(float));
            memset(s->scores, 0xff, b.n_examples * sizeof(float));
            r = k == 0 ? pn_device_begin(one, slot, &b, in, s->p, i, &err) : pn_devices_begin(several, slot, &b, in, s->p, i, &err);
            if (r == PN_OK) r = k == 0 ? pn_device_end(one, slot, &b, s->gradients, s->dp, s->scores, &s->loss, &err) : pn_devices_end(several, slot, &b, s->gradients, s->dp, s->scores, &s->loss, &err);
        }
        if (r != PN_OK) {
            fprintf(stderr, "%s, step %zu: %s\n", model, i, err.text);
            exit(1);
        }
        if (!same_everywhere(several, slot, PN_PART_DP, padded) || !same_everywhere(several, slot, PN_PART_P, n_parameters)) {
            wrong(model, training, n_devices, "the dense parameters' gradients are not the same bits on all devices at step", (double)i);
            break;
        }
        if (i == 0 || chaotic) {
            const double off = apart(side, &job, &b, n_parameters);
            gradients_apart = off > gradients_apart || isnan(off) ? off : gradients_apart;
        }
        const double off = fabs(side[0].loss - side[1].loss) / (fabs(side[0].loss) + 1e-3 * (double)b.n_examples);
        loss_apart = off > loss_apart || isnan(off) ? off : loss_apart;
        for (size_t e = 0; e < b.n_examples; e++) {
            const double d = fabs((double)side[0].scores[e] - (double)side[1].scores[e]);
            scores_apart = d > scores_apart || isnan(d) ? d : scores_apart;
        }
        for (int k = 0; k < 2; k++) learn(&side[k], &job, &b, n_parameters, (strstr(model, "sequence") != NULL ? 0.02f : 0.1f) / (private > 0 ? (float)most_rows : 1));
        if (chaotic) {
            memcpy(side[1].p, side[0].p, padded * sizeof(float));
            memcpy(side[1].table, side[0].table, cells * sizeof(float));
        }
        pn_batch_free(&b);
    }
    double off = 0, whole = 0;
    for (size_t i = 0; i < n_parameters + cells; i++) {
        const double x = (double)(i < cells ? side[0].table[i] : side[0].p[i - cells]), y = (double)(i < cells ? side[1].table[i] : side[1].p[i - cells]);
        off += (x - y) * (x - y);
        whole += (x - (double)start[i]) * (x - (double)start[i]);
    }
    free(start);
    const double parameters_apart = sqrt(off / whole);
    if (!(gradients_apart < 1e-4)) wrong(model, training, n_devices, "gradients part by", gradients_apart);
    if (!(loss_apart < 1e-5)) wrong(model, training, n_devices, "the losses part by", loss_apart);
    if (!(scores_apart < 1e-5)) wrong(model, training, n_devices, "the scores part by", scores_apart);
    if (!(parameters_apart < 1e-5)) wrong(model, training, n_devices, "what the parameters learned parts by", parameters_apart);
    printf("%-8s %zu devices, %zu steps of %zu, %zu replayed, apart: gradients %.0e, losses %.0e, scores %.0e, learned %.0e  %s%.70s %s\n", be->name, n_devices, steps, most_rows,
           (size_t)pn_device_look(pn_devices_one(several, 0)).replayed, gradients_apart, loss_apart, scores_apart, parameters_apart, users ? "users of " : private > 0 ? "private " : "", model, training);
    if (be != &pn_backend_cpu && steps >= 12 && !pair && strstr(model, "sequence") == NULL && pn_device_look(pn_devices_one(several, 0)).replayed == 0) wrong(model, training, n_devices, "no step was replayed of", (double)steps);
    close_sides(side);
    pn_device_close(one);
    pn_devices_close(several);
    pn_net_close(net);
    pn_features_close(f);
    pn_job_free(&job);
}

/* ---- the halves of a begin, a thread a device ---- */

/* Two steps in flight, their parts brought beside one another, are the bits of one after the other. */
static void check_threads(const struct pn_backend *be, size_t n_devices) {
    static struct pn_job job;
    static struct raw raw;
    static const size_t numbers[] = {0, 1, 2};
    struct pn_features *f;
    struct pn_net *net;
    struct pn_devices *g;
    struct pn_error err = {""};
    struct side side[2][2]; /* way, slot */
    struct pn_batch b[2];
    uint64_t n_bad = 0;
    const char *model = "deepfm, embeddingDim: 4, hidden: [8], dropout: 0.3";
    open_job(&job, &f, model, "", "float32");
    if (pn_net_open(&net, &job, 1, &err) != PN_OK || pn_devices_open(&g, be, numbers, n_devices, &job, 1, &err) != PN_OK) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    for (int k = 0; k < 2; k++) {
        struct side pair[2];
        open_sides(pair, &job, net);
        for (int way = 0; way < 2; way++) side[way][k] = pair[way];
    }
    for (int k = 0; k < 2; k++) {
        make_raw(&raw, k == 0 ? 50 : 70, false);
        if (pn_features_batch(f, &raw.raw, &b[k], &n_bad) != PN_OK) exit(1);
        for (int way = 0; way < 2; way++) gather(&side[way][k], &job, &b[k]);
    }
    enum pn_result r = PN_OK;
    for (int way = 0; way < 2; way++)
        for (size_t turn = 0; turn < 4 && r == PN_OK; turn++) { /* begins and ends: 0 0 1 1, then 0 1 0 1 */
            const size_t k = way == 0 ? turn / 2 : turn % 2;
            struct side *s = &side[way][k];
            const float *in[PN_MAX_TABLES];
            for (size_t t = 0; t < PN_MAX_TABLES; t++) in[t] = s->rows[t];
            if (way == 0 ? turn % 2 != 0 : turn >= 2) r = pn_devices_end(g, k, &b[k], s->gradients, s->dp, s->scores, &s->loss, &err);
            else if (way == 0) r = pn_devices_begin(g, k, &b[k], in, s->p, 5, &err);
            else r = begin_in_threads(g, k, &b[k], in, s->p, 5, &err);
        }
    bool same = r == PN_OK;
    for (int k = 0; k < 2; k++) {
        same = same && side[0][k].loss == side[1][k].loss && memcmp(side[0][k].dp, side[1][k].dp, padded_of(net) * sizeof(float)) == 0;
        for (uint32_t t = 0; same && t < job.i_dense_table; t++) same = memcmp(side[0][k].gradients[t], side[1][k].gradients[t], b[k].n_unique[t] * job.tables[t].dim * sizeof(float)) == 0;
    }
    const struct pn_device_seconds took = pn_devices_time(g);
    if (be != &pn_backend_cpu && !(took.in > 0 && took.compute > 0 && took.sum > 0 && took.out > 0)) wrong(model, "", n_devices, "a stage took no time; the sum", took.sum);
    if (!same) wrong(model, err.text, n_devices, "two steps in flight differ from one after the other; result", r);
    else printf("%-8s %zu devices: two steps in flight, their parts brought by a thread each, are the same bits as one after the other\n", be->name, n_devices);
    for (int k = 0; k < 2; k++) {
        struct side pair[2] = {side[0][k], side[1][k]};
        close_sides(pair);
        pn_batch_free(&b[k]);
    }
    pn_devices_close(g);
    pn_net_close(net);
    pn_features_close(f);
    pn_job_free(&job);
}

/* ---- the operation itself ---- */
static void check_sum(const struct pn_backend *be, size_t n_devices) {
    struct pn_ctx *contexts[3];
    struct pn_group *g;
    struct pn_error err = {""};
    float *x[3], *host[3];
    for (size_t i = 0; i < n_devices; i++)
        if (be->open(&contexts[i], i, PN_FLOAT32, &err) != PN_OK) fprintf(stderr, "%s\n", err.text), exit(1);
    if (be->join(&g, contexts, n_devices, &err) != PN_OK) fprintf(stderr, "%s\n", err.text), exit(1);
    for (size_t n = 1; n < 3000000; n = n * 7 + 3) {
        double off = 0;
        bool same = true;
        double *sums = calloc(n, sizeof *sums), *sizes = calloc(n, sizeof *sizes);
        for (size_t i = 0; i < n_devices; i++) {
            x[i] = be->alloc(contexts[i], n * sizeof(float));
            host[i] = be->host_alloc(contexts[i], n * sizeof(float));
            for (size_t d = 0; d < n; d++) {
                host[i][d] = (float)pn_rng_normal(&rng);
                sums[d] += (double)host[i][d];
                sizes[d] += fabs((double)host[i][d]);
            }
            be->upload(contexts[i], x[i], host[i], n * sizeof(float));
            be->finish(contexts[i], NULL);
        }
        be->all_reduce(g, x, n);
        for (size_t i = 0; i < n_devices; i++)
            if (be->finish(contexts[i], &err) != PN_OK) wrong("sum", err.text, n_devices, "failed of", (double)n);
        for (size_t i = 0; i < n_devices; i++) {
            be->download(contexts[i], host[i], x[i], n * sizeof(float));
            be->finish(contexts[i], NULL);
            same = same && memcmp(host[i], host[0], n * sizeof(float)) == 0;
        }
        for (size_t d = 0; d < n; d++) {
            const double o = fabs((double)host[0][d] - sums[d]) / sizes[d];
            off = o > off || isnan(o) ? o : off;
        }
        if (!same) wrong("sum", "", n_devices, "devices have other bits of", (double)n);
        if (!(off < 1e-6)) wrong("sum", "", n_devices, "is off by", off);
        for (size_t i = 0; i < n_devices; i++) {
            be->free(contexts[i], x[i]);
            be->host_free(contexts[i], host[i]);
        }
        free(sums);
        free(sizes);
    }
    be->leave(g, false);
    for (size_t i = 0; i < n_devices; i++) be->close(contexts[i]);
    printf("%-8s a sum over %zu device%s\n", be->name, n_devices, n_devices == 1 ? "" : "s");
}

int main(int argc, char **argv) {
    static const char *const models[][2] = {
        {"lr", ""}, {"fm, embeddingDim: 6", ""}, {"wide_deep, embeddingDim: 5, hidden: [12, 8], norm: layer", ""}, {"deepfm, embeddingDim: 6, hidden: [16, 8], dropout: 0.2, embeddingDropout: 0.1", ""},
        {"dcn_v2, embeddingDim: 4, hidden: [12], cross: 3, norm: layer", ""}, {"dcn_v2, embeddingDim: 4, hidden: [12], cross: 2, structure: stacked", "clipNorm: 0.1"},
        {"dlrm, embeddingDim: 8, bottom: [6], hidden: [12, 6]", ""}, {"dlrm, embeddingDim: 4, bottom: [6], hidden: [8], interaction: both", "clipNorm: 0.1"},
        {"gmf, embeddingDim: 6", "loss: {name: softmax, temperature: 0.7}"}, {"gmf, embeddingDim: 5", "loss: {name: bpr}"}, {"neumf, embeddingDim: 4, mlpDim: 6, hidden: [8, 4]", "loss: {name: hinge, margin: 0.5}"},
        {"dcn_v2, embeddingDim: 4, hidden: [8], cross: 1, heads: [{name: high, threshold: 4, weight: 0.5}], distill: {column: n, weight: 0.6, temperature: 2}", ""},
        {"dcn_v2, embeddingDim: 4, hidden: [8], cross: 1, sequence: {fields: [s], candidate: item, blocks: 2, heads: 2, width: 8, feedForward: 6, recent: 2, dropout: 0.1}", ""},
        {"deepfm, embeddingDim: 4, hidden: [8], sequence: {fields: [s], blocks: 1, width: 4, positions: false}", ""},
        {"mf, embeddingDim: 6", "loss: {name: bpr}"}, {"mf, embeddingDim: 5, bias: false, embeddingL2: 0.01", "loss: {name: softmax}"}, {"mf, embeddingDim: 4, embeddingL2: 0.02, embeddingDropout: 0.1", ""},
        {"deepfm, embeddingDim: 4, hidden: [8], embeddingL2: 0.01", "clipNorm: 0.1"},
        {"sasrec, embeddingDim: 8, sequence: {fields: [h], target: t, negatives: q, loss: bce, blocks: 1, heads: 2, dropout: 0.1}", ""}};
    if (argc > 1 && strcmp(argv[1], "emulated") == 0) setenv("PINION_EMULATED_DEVICES", "3", 1);
    const struct pn_backend *be = argc > 1 && strcmp(argv[1], "cpu") == 0 ? &pn_backend_cpu : parity_backend(argc, argv);
    struct pn_error err;
    const size_t steps = argc > 2 ? (size_t)atoi(argv[2]) : 100, rows = argc > 3 ? (size_t)atoi(argv[3]) : 512, there = be == &pn_backend_cpu ? 3 : be->devices(&err);
    const char *only = argc > 4 ? argv[4] : "";
    if (rows < 3 || rows > MOST_ROWS) return 2;
    for (size_t n = 1; n <= 3 && n <= there; n++) check_sum(be, n);
    for (size_t n = 2; n <= 3 && n <= there; n++) {
        for (size_t i = 0; i < sizeof models / sizeof models[0]; i++)
            if (strstr(models[i][0], only) != NULL) check_model(be, models[i][0], models[i][1], n, steps, rows, 0, false);
        check_model(be, models[3][0], "", n, steps, rows, 0.5f, false);
        check_model(be, models[3][0], "", n, steps, rows, 0.5f, true);
        check_model(be, models[12][0], "", n, steps, rows, 0.5f, true);
        check_threads(be, n);
    }
    if (there < 2) printf("%-8s one device here: no model on several\n", be->name);
    return failures > 0;
}
