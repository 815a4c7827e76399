/* Private steps: the norms and the sum of clipped gradients that pn_net_step_clipped makes, and what nn/device.h makes over a backend. Units: examples, users of 1 to 5 examples, of 5
 * each, one user for the whole batch. Keys that repeat in one example, between a user's, and between a field and a sequence; several keys a field, sequences of no token, two labels, an
 * empty batch, all clipped and none. And that what comes out is clipped: one unit's gradient has at most the norm it may have.
 *   parity-private cpu | emulated | MODULE.so [ROWS [MODELS]] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "nn/device_inside.h"
#include "tests/parity/parity.h"

enum { COLUMNS = 6, MOST = 4096 };
static const char *const names[COLUMNS] = {"user", "item", "g", "n", "s", "s2"};
enum units { EXAMPLES, USERS, USERS_OF_FIVE, ONE_USER };
static const char *const unit_names[] = {"examples", "users", "users of 5", "one user"};
static struct pn_rng rng;
static int failures;

static void make_batch(struct pn_features *f, struct pn_batch *b, size_t rows) {
    static char text[MOST * 150];
    static uint32_t offset[COLUMNS * MOST], length[COLUMNS * MOST];
    static float labels[MOST], values[MOST];
    size_t at = 0;
    uint64_t n_bad = 0;
    for (size_t i = 0; i < rows; i++) {
        for (size_t c = 0; c < COLUMNS; c++) {
            char *to = text + at;
            int n = 0;
            if (c == 0 || c == 1) n = sprintf(to, "%u", (unsigned)(pn_rng_next(&rng) % 30));
            if (c == 2)
                for (uint64_t m = pn_rng_next(&rng) % 5, j = 0; j < m; j++) n += sprintf(to + n, "%s%u", j ? "|" : "", (unsigned)(pn_rng_next(&rng) % 4)); /* often a key twice */
            if (c == 3) n = sprintf(to, "%.3f", pn_rng_normal(&rng));
            if (c >= 4)
                for (uint64_t m = pn_rng_next(&rng) % 7, j = 0; j < m; j++) n += sprintf(to + n, "%s%u", j ? "|" : "", (unsigned)(pn_rng_next(&rng) % 8));
            offset[c * rows + i] = (uint32_t)at;
            length[c * rows + i] = (uint32_t)n;
            at += (size_t)n;
        }
        labels[i] = pn_rng_next(&rng) % 3 == 0;
        values[i] = (float)(1 + pn_rng_next(&rng) % 5);
    }
    const struct pn_raw raw = {rows, COLUMNS, names, text, offset, length, labels, NULL, values};
    if (pn_features_batch(f, &raw, b, &n_bad) != PN_OK) exit(1);
}

static void make_units(struct pn_batch *b, enum units units) {
    const size_t n = b->n_examples;
    if (units == EXAMPLES) return;
    b->unit_begin = calloc(n + 1, sizeof *b->unit_begin);
    for (size_t at = 0; at < n; b->unit_begin[++b->n_units] = (uint32_t)at) {
        at += units == USERS ? 1 + pn_rng_next(&rng) % 5 : units == USERS_OF_FIVE ? 5 : n;
        if (at > n) at = n;
    }
}

static void check(const struct pn_backend *be, const char *model, const char *features, enum units units, float most, size_t most_rows) {
    static struct pn_job job;
    char text[2000];
    struct pn_error err = {""};
    struct pn_features *f;
    struct pn_net *net;
    struct pn_device *device;
    const size_t n_dense = strstr(features, "numeric") != NULL;
    snprintf(text, sizeof text,
             "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: csv, uri: /x, label: y}}\n  features:\n%s  model: {name: %s}\n", features, model);
    if (pn_job_parse(&job, text, strlen(text), "t", NULL, NULL, &err) != PN_OK || pn_features_open(&f, &job, names, COLUMNS, &err) != PN_OK ||
        pn_net_open(&net, &job, n_dense, &err) != PN_OK || pn_device_open(&device, be, 0, &job, n_dense, &err) != PN_OK || pn_device_clip_units(device, most, &err) != PN_OK) {
        fprintf(stderr, "%s: %s\n", model, err.text);
        exit(1);
    }
    const size_t n_parameters = pn_net_parameters(net), padded = (n_parameters + PN_DENSE_ROW - 1) / PN_DENSE_ROW * PN_DENSE_ROW;
    float *p = calloc(padded + 1, 4), *dp[2] = {calloc(padded + 1, 4), calloc(padded + 1, 4)}, *scores[2] = {calloc(MOST, 4), calloc(MOST, 4)}, *norms = calloc(MOST, 4);
    pn_net_init(net, 3, p);
    double worst = 0, norms_apart = 0;
    size_t clipped = 0, all = 0;
    for (size_t round = 0; round < 6; round++) { /* the third step of a shape is captured */
        const size_t n = round == 3 ? 0 : round == 4 ? 1 : most_rows;
        struct pn_batch b;
        make_batch(f, &b, n);
        make_units(&b, units);
        const size_t n_units = b.unit_begin != NULL ? b.n_units : n;
        float *rows[PN_MAX_TABLES] = {0}, *g[2][PN_MAX_TABLES] = {{0}};
        const float *in[PN_MAX_TABLES] = {0};
        for (uint32_t t = 0; t < job.i_dense_table; t++) {
            const size_t cells = b.n_unique[t] * job.tables[t].dim;
            in[t] = rows[t] = malloc((cells + 1) * 4);
            for (int k = 0; k < 2; k++) g[k][t] = malloc((cells + 1) * 4);
            for (size_t i = 0; i < cells; i++) rows[t][i] = (float)(0.4 * pn_rng_normal(&rng));
        }
        double loss[2] = {0};
        memset(dp[1], 0xff, padded * 4);
        if (pn_net_step_clipped(net, &b, in, p, round, most, 0, g[0], dp[0], scores[0], norms, &loss[0]) != PN_OK || pn_device_begin(device, round % 2, &b, in, p, round, &err) != PN_OK ||
            pn_device_end(device, round % 2, &b, g[1], dp[1], scores[1], &loss[1], &err) != PN_OK) {
            fprintf(stderr, "%s: %s\n", model, err.text);
            exit(1);
        }
        double squares = 0, off = 0, whole = 0;
        for (uint32_t t = 0; t <= job.i_dense_table; t++) {
            const size_t cells = t < job.i_dense_table ? b.n_unique[t] * job.tables[t].dim : n_parameters;
            const float *a = t < job.i_dense_table ? g[0][t] : dp[0], *c = t < job.i_dense_table ? g[1][t] : dp[1];
            for (size_t i = 0; i < cells; i++) {
                off += ((double)a[i] - (double)c[i]) * ((double)a[i] - (double)c[i]);
                whole += (double)a[i] * (double)a[i];
                squares += (double)c[i] * (double)c[i];
            }
        }
        const double apart = sqrt(off) / (sqrt(whole) + 1e-3);
        if (!(apart < 2e-4) || !(fabs(loss[0] - loss[1]) < 1e-4 * (fabs(loss[0]) + 1e-3))) {
            fprintf(stderr, "%s, %s clipped to %g, %zu examples: sums part by %.3g of their norm, losses %.9g and %.9g\n", model, unit_names[units], (double)most, n, apart, loss[0], loss[1]);
            failures++;
        }
        if (n_units == 1 && !(sqrt(squares) <= (double)most)) { /* one unit: what comes out is what may leave */
            fprintf(stderr, "%s, %s of %zu examples: one unit's gradient has norm %.9g, more than %g\n", model, unit_names[units], n, sqrt(squares), (double)most);
            failures++;
        }
        double *found = calloc(n_units + 1, sizeof *found), largest = 1e-3;
        if (n > 0) device->be->download(device->ctx, found, device->slots[round % 2].parts[PN_PART_SQUARES].dev, n_units * sizeof *found);
        device->be->finish(device->ctx, NULL);
        for (size_t u = 0; u < n_units; u++) largest = (double)norms[u] > largest ? (double)norms[u] : largest;
        for (size_t u = 0; u < n_units; u++) {
            const double off = fabs(sqrt(found[u]) - (double)norms[u]) / largest;
            norms_apart = off > norms_apart || isnan(off) ? off : norms_apart;
        }
        free(found);
        if (n == 0 && squares > 0) failures++, fprintf(stderr, "%s: no examples and a gradient\n", model);
        for (size_t u = 0; u < n_units; u++, all++) clipped += norms[u] > most;
        worst = apart > worst ? apart : worst;
        for (uint32_t t = 0; t < job.i_dense_table; t++) {
            free(rows[t]);
            free(g[0][t]);
            free(g[1][t]);
        }
        pn_batch_free(&b);
    }
    if (!(norms_apart < 1e-4)) {
        fprintf(stderr, "%s, %s: norms part by %.3g of the largest\n", model, unit_names[units], norms_apart);
        failures++;
    }
    printf("%-8s private, %3zu of %zu %-10s clipped to %-6g apart: sums %.1e, norms %.1e  %.70s\n", be->name, clipped, all, unit_names[units], (double)most, worst, norms_apart, model);
    for (int k = 0; k < 2; k++) free(dp[k]), free(scores[k]);
    free(p);
    free(norms);
    pn_device_close(device);
    pn_net_close(net);
    pn_features_close(f);
    pn_job_free(&job);
}

/* What cannot be clipped one by one is refused, not computed otherwise. */
static void refuses(const struct pn_backend *be, const char *model, const char *training, const char *line) {
    static struct pn_job job;
    char text[1000];
    struct pn_error err = {""};
    struct pn_device *device;
    snprintf(text, sizeof text,
             "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: csv, uri: /x, label: y}}\n  features:\n    - {name: user, type: categorical}\n"
             "%s  model: {name: %s}\n  training: {%s}\n",
             strstr(model, "sequence") != NULL ? "    - {name: s, type: sequence, maxLength: 6, hash: {share: user}}\n" : "", model, training);
    if (pn_job_parse(&job, text, strlen(text), "t", NULL, NULL, &err) != PN_OK || pn_device_open(&device, be, 0, &job, 0, &err) != PN_OK) {
        fprintf(stderr, "%s: %s\n", model, err.text);
        exit(1);
    }
    if (pn_device_clip_units(device, 1, &err) != PN_REFUSED || strstr(err.text, line) == NULL) failures++, fprintf(stderr, "%s is not refused: %s\n", model, err.text);
    pn_device_close(device);
    pn_job_free(&job);
}

int main(int argc, char **argv) {
    static const char one[] = "    - {name: user, type: categorical}\n    - {name: item, type: categorical}\n";
    static const char many[] = "    - {name: user, type: categorical, table: all}\n    - {name: item, type: categorical, table: all, hash: {share: user}}\n"
                               "    - {name: g, type: multi, pooling: mean}\n    - {name: n, type: numeric}\n";
    static const char sequence[] = "    - {name: user, type: categorical}\n    - {name: item, type: categorical, table: items}\n    - {name: n, type: numeric}\n"
                                   "    - {name: s, type: sequence, maxLength: 6, table: items, hash: {share: item}}\n";
    static const char sequences[] = "    - {name: item, type: categorical, table: items}\n    - {name: g, type: multi, table: items, hash: {share: item}}\n    - {name: n, type: numeric}\n"
                                    "    - {name: s, type: sequence, maxLength: 6, table: items, hash: {share: item}}\n    - {name: s2, type: sequence, maxLength: 6, table: items, hash: {share: item}}\n";
    static const struct { const char *model, *features; } cases[] = {
        {"lr", many}, {"deepfm, embeddingDim: 6, hidden: [16, 8], dropout: 0.2", many}, {"wide_deep, embeddingDim: 5, hidden: [12, 8], norm: layer", many},
        {"dcn_v2, embeddingDim: 4, hidden: [12], cross: 2, structure: stacked", many}, {"dlrm, embeddingDim: 8, bottom: [6], hidden: [12, 6]", many},
        {"dcn_v2, embeddingDim: 4, hidden: [8], cross: 1, heads: [{name: high, threshold: 4, weight: 0.5}]", many}, {"neumf, embeddingDim: 4, mlpDim: 6, hidden: [8, 4]", one},
        {"mf, embeddingDim: 6", one}, {"mf, embeddingDim: 4, bias: false", one},
        {"dcn_v2, embeddingDim: 4, hidden: [8], cross: 1, sequence: {fields: [s, s2], candidate: item, blocks: 2, heads: 2, width: 8, feedForward: 6, recent: 2, dropout: 0.1}", sequences},
        {"deepfm, embeddingDim: 4, hidden: [8], sequence: {fields: [s], blocks: 1, width: 4, positions: false}", sequence},
        {"wide_deep, embeddingDim: 6, hidden: [4], sequence: {fields: [s], blocks: 1, width: 40, heads: 4, recent: 1}", sequence}};
    const struct pn_backend *be = argc > 1 && strcmp(argv[1], "cpu") == 0 ? &pn_backend_cpu : parity_backend(argc, argv);
    const size_t rows = argc > 2 ? (size_t)atoi(argv[2]) : 40;
    const char *only = argc > 3 ? argv[3] : "";
    if (rows > MOST) return 2;
    rng = (struct pn_rng){11};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (enum units units = EXAMPLES; strstr(cases[i].model, only) != NULL && units <= ONE_USER; units++)
            for (int k = units == EXAMPLES ? 0 : 2; k < 4; k++) check(be, cases[i].model, cases[i].features, units, (const float[]){0.05f, 0.8f, 3, 1000}[k], rows);
    refuses(be, "deepfm, embeddingDim: 4, hidden: [8], norm: batch, sequence: {fields: [s], blocks: 1, width: 4}", "epochs: 1", "mixes examples");
    refuses(be, "lr", "precision: tf32", "float32");
    return failures > 0;
}
