/* Whole models: the same batches through pn_net_step and through nn/device.h over a backend, each side learning with its own gradients; the two curves of the loss stay
 * together. Over the CPU's table they are the same bits: that is what shows that device.c and device_blocks.c do what net.c and layers.c do.
 *   parity-steps cpu | emulated | MODULE.so [STEPS [ROWS]] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/parity/models.h"

/* pn_net_clip once more, of all that is no state. */
static void clip(struct side *s, const struct pn_job *job, const struct pn_batch *b, const struct pn_net *net, size_t n_parameters) {
    double squares = 0;
    for (int pass = 0; pass < 2; pass++) {
        const double norm = sqrt(squares);
        const float scale = pass == 1 ? (float)((double)job->clip_norm / norm) : 1;
        if (pass == 1 && !(norm > (double)job->clip_norm)) return;
        for (uint32_t t = 0; t <= job->i_dense_table; t++) {
            float *g = t < job->i_dense_table ? s->gradients[t] : s->dp;
            const size_t n = t < job->i_dense_table ? b->n_unique[t] * job->tables[t].dim : n_parameters;
            for (size_t i = 0; i < n; i++) {
                if (t == job->i_dense_table && pn_net_row_key(net, i / PN_DENSE_ROW) & PN_STATE_KEY) break;
                if (pass == 0) squares += (double)g[i] * (double)g[i];
                else g[i] *= scale;
            }
        }
    }
}

static int failures;
static void check_model(const struct pn_backend *be, const char *model, const char *training, size_t steps, size_t most_rows, const char *precision) {
    static struct pn_job job;
    static struct raw raw;
    struct pn_features *f;
    struct pn_net *net;
    struct pn_device *device;
    struct pn_error err = {""};
    const bool pair = is_pair(model, training), sequence = strstr(model, "sequence") != NULL;
    open_job(&job, &f, model, training, precision);
    const size_t n_dense = dense_inputs(model, training);
    if (pn_net_open(&net, &job, n_dense, &err) != PN_OK || pn_device_open(&device, be, 0, &job, n_dense, &err) != PN_OK) {
        fprintf(stderr, "%s: %s\n", model, err.text);
        exit(1);
    }
    const size_t n_parameters = pn_net_parameters(net), padded = padded_of(net);
    struct side side[2];
    open_sides(side, &job, net);
    const bool bits = be == &pn_backend_cpu && job.clip_norm == 0;
    double furthest = 0, first = 0, last = 0;
    for (size_t i = 0; i < steps; i++) {
        struct pn_batch b;
        uint64_t n_bad = 0;
        make_raw(&raw, i % 10 == 9 ? 1 + most_rows / 3 : most_rows, pair);
        if (pn_features_batch(f, &raw.raw, &b, &n_bad) != PN_OK) exit(1);
        for (int k = 0; k < 2; k++) {
            struct side *s = &side[k];
            gather(s, &job, &b);
            const float *in[PN_MAX_TABLES];
            for (size_t t = 0; t < PN_MAX_TABLES; t++) in[t] = s->rows[t];
            enum pn_result r;
            if (k == 0) {
                r = pn_net_step(net, &b, in, s->p, i, s->gradients, s->dp, s->scores, &s->loss);
                if (job.clip_norm > 0) clip(s, &job, &b, net, n_parameters);
            } else {
                memset(s->dp, 0xff, padded * sizeof(float));
                r = pn_device_begin(device, i % PN_DEVICE_SLOTS, &b, in, s->p, i, &err);
                if (r == PN_OK) r = pn_device_end(device, i % PN_DEVICE_SLOTS, &b, s->gradients, s->dp, s->scores, &s->loss, &err);
            }
            if (r != PN_OK) {
                fprintf(stderr, "%s, step %zu: %s\n", model, i, err.text);
                exit(1);
            }
        }
        bool same = side[0].loss == side[1].loss && memcmp(side[0].dp, side[1].dp, n_parameters * sizeof(float)) == 0 &&
                    memcmp(side[0].scores, side[1].scores, b.n_examples * sizeof(float)) == 0;
        for (uint32_t t = 0; t < job.i_dense_table; t++) same = same && memcmp(side[0].gradients[t], side[1].gradients[t], b.n_unique[t] * job.tables[t].dim * sizeof(float)) == 0;
        if (bits && !same) {
            fprintf(stderr, "%s, %s: step %zu has other bits than pn_net_step (loss %.17g and %.17g)\n", model, training, i, side[0].loss, side[1].loss);
            failures++;
            break;
        }
        const double off = fabs(side[0].loss - side[1].loss) / (fabs(side[0].loss) + 1e-3 * (double)b.n_examples);
        furthest = off > furthest || isnan(off) ? off : furthest;
        if (i == 0) first = side[0].loss / (double)b.n_examples;
        last = side[0].loss / (double)b.n_examples;
        /* Small steps where there is attention: at .1 a run with the candidate in it is chaotic, and any last bit comes to hundredths of the loss in twelve steps. */
        for (int k = 0; k < 2; k++) learn(&side[k], &job, &b, n_parameters, sequence ? 0.02f : 0.1f);
        pn_batch_free(&b);
    }
    const double allowed = strcmp(precision, "float32") == 0 ? 2e-3 : 5e-2;
    const struct pn_device_counts c = pn_device_look(device);
    if (!(furthest < allowed)) {
        fprintf(stderr, "%s, %s, %s: the losses part by %.3g of themselves (allowed %.3g)\n", model, training, precision, furthest, allowed);
        failures++;
    }
    printf("%-8s %-8s %4zu steps of %zu, %zu replayed, loss %.4f to %.4f, apart %.1e%s  %.70s %s\n", be->name, precision, steps, most_rows, (size_t)c.replayed, first, last, furthest,
           bits ? ", the same bits" : "", model, training);
    close_sides(side);
    pn_device_close(device);
    pn_net_close(net);
    pn_features_close(f);
    pn_job_free(&job);
}

/* Two steps at once in the two slots give what they give one after the other. */
static void check_slots(const struct pn_backend *be) {
    static struct pn_job job;
    static struct raw raw[2];
    struct pn_error err = {""};
    struct pn_features *f;
    struct pn_device *device;
    struct pn_batch b[2];
    uint64_t n_bad = 0;
    const char *text = "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: csv, uri: /x, label: y}}\n  features:\n    - {name: user, type: categorical}\n"
                       "    - {name: g, type: multi}\n  model: {name: deepfm, embeddingDim: 4, hidden: [8], dropout: 0.3}\n";
    if (pn_job_parse(&job, text, strlen(text), "t", NULL, NULL, &err) != PN_OK || pn_features_open(&f, &job, names, COLUMNS, &err) != PN_OK ||
        pn_device_open(&device, be, 0, &job, 0, &err) != PN_OK) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    float *rows[2], *g[2][2], *p = calloc(4096, sizeof *p), *dp[2][2], *scores = calloc(256, sizeof *scores);
    double loss[2][2];
    const size_t dim = job.tables[0].dim;
    for (int i = 0; i < 4096; i++) p[i] = (float)(0.1 * pn_rng_normal(&rng));
    for (int k = 0; k < 2; k++) {
        make_raw(&raw[k], k == 0 ? 50 : 70, false);
        if (pn_features_batch(f, &raw[k].raw, &b[k], &n_bad) != PN_OK) exit(1);
        rows[k] = calloc(b[k].n_unique[0] * dim, sizeof(float));
        for (size_t i = 0; i < b[k].n_unique[0] * dim; i++) rows[k][i] = (float)pn_rng_normal(&rng);
        for (int way = 0; way < 2; way++) {
            g[way][k] = calloc(b[k].n_unique[0] * dim, sizeof(float));
            dp[way][k] = calloc(4096, sizeof(float));
        }
    }
    enum pn_result r = PN_OK;
    for (int way = 0; way < 2; way++)
        for (size_t turn = 0; turn < 4; turn++) { /* begins and ends: 0 0 1 1, then 0 1 0 1 */
            const size_t k = way == 0 ? turn / 2 : turn % 2;
            const bool begin = way == 0 ? turn % 2 == 0 : turn < 2;
            const float *in[PN_MAX_TABLES] = {rows[k]};
            float *out[PN_MAX_TABLES] = {g[way][k]};
            if (r == PN_OK && begin) r = pn_device_begin(device, k, &b[k], in, p, 5 + k, &err);
            if (r == PN_OK && !begin) r = pn_device_end(device, k, &b[k], out, dp[way][k], scores, &loss[way][k], &err);
        }
    bool same = r == PN_OK;
    for (int k = 0; k < 2; k++)
        same = same && loss[0][k] == loss[1][k] && memcmp(g[0][k], g[1][k], b[k].n_unique[0] * dim * sizeof(float)) == 0 && memcmp(dp[0][k], dp[1][k], 4096 * sizeof(float)) == 0;
    if (!same) {
        fprintf(stderr, "two steps in flight differ from one after the other %s\n", err.text);
        failures++;
    } else printf("%-8s two steps in flight are the same bits as one after the other\n", be->name);
    pn_device_close(device);
}

int main(int argc, char **argv) {
    static const char *const models[][2] = {
        {"lr", ""}, {"fm, embeddingDim: 6", ""}, {"wide_deep, embeddingDim: 5, hidden: [12, 8], norm: layer", ""}, {"deepfm, embeddingDim: 6, hidden: [16, 8], dropout: 0.2, embeddingDropout: 0.1", ""},
        {"dcn_v2, embeddingDim: 4, hidden: [12], cross: 3, norm: batch", ""}, {"dcn_v2, embeddingDim: 4, hidden: [12], cross: 2, structure: stacked", "clipNorm: 0.5"},
        {"dlrm, embeddingDim: 8, bottom: [6], hidden: [12, 6]", ""}, {"dlrm, embeddingDim: 4, bottom: [6], hidden: [8], interaction: both, norm: batch", "clipNorm: 0.3"},
        {"gmf, embeddingDim: 6", "loss: {name: softmax, temperature: 0.7}"}, {"gmf, embeddingDim: 5", "loss: {name: bpr}"}, {"neumf, embeddingDim: 4, mlpDim: 6, hidden: [8, 4]", "loss: {name: hinge, margin: 0.5}"},
        {"dcn_v2, embeddingDim: 4, hidden: [8], cross: 1, heads: [{name: high, threshold: 4, weight: 0.5}], distill: {column: n, weight: 0.6, temperature: 2}", ""},
        {"dcn_v2, embeddingDim: 4, hidden: [8], cross: 1, sequence: {fields: [s], candidate: item, blocks: 2, heads: 2, width: 8, feedForward: 6, recent: 2, dropout: 0.1}", ""},
        {"deepfm, embeddingDim: 4, hidden: [8], sequence: {fields: [s], blocks: 1, width: 4, positions: false}", ""},
        {"mf, embeddingDim: 6", "loss: {name: bpr}"}, {"mf, embeddingDim: 5, bias: false, embeddingL2: 0.01", "loss: {name: softmax}"}, {"mf, embeddingDim: 6, bias: false, similarity: cosine", "loss: {name: in-batch-softmax, temperature: 0.5}"},
        {"mf, embeddingDim: 4, embeddingL2: 0.02, embeddingDropout: 0.1", ""}, {"deepfm, embeddingDim: 4, hidden: [8], embeddingL2: 0.01", "clipNorm: 0.4"},
        {"sasrec, embeddingDim: 8, sequence: {fields: [h], target: t, negatives: q, loss: bce, blocks: 1, heads: 2, dropout: 0.1}", ""},
        {"sasrec, embeddingDim: 6, sequence: {fields: [h], target: t, negatives: q, loss: softmax, blocks: 2, heads: 1}", ""}};
    const struct pn_backend *be = argc > 1 && strcmp(argv[1], "cpu") == 0 ? &pn_backend_cpu : parity_backend(argc, argv);
    const size_t steps = argc > 2 ? (size_t)atoi(argv[2]) : 200, rows = argc > 3 ? (size_t)atoi(argv[3]) : 512;
    const char *only = argc > 4 ? argv[4] : ""; /* models whose text has this, without the other precisions */
    if (rows > MOST_ROWS) return 2;
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++)
        if (strstr(models[i][0], only) != NULL) check_model(be, models[i][0], models[i][1], steps, rows, "float32");
    for (size_t i = 1; i < 4 && be != &pn_backend_cpu && *only == '\0'; i++) {
        const char *const precisions[] = {"float32", "tf32", "bfloat16", "float16"};
        check_model(be, models[3][0], "", steps, rows, precisions[i]);
        check_model(be, models[4][0], "", steps, rows, precisions[i]);
        check_model(be, models[6][0], "", steps, rows, precisions[i]);
    }
    check_slots(be);
    return failures > 0;
}
