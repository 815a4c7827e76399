/* A model with random weights and rows as ONNX, beside what our net scores on a random batch, for onnxruntime to repeat (onnx_export.py).
 *   onnx-trace JOB.yaml DIR: DIR/model.onnx; DIR/inputs, lines "NAME TYPE ROWS COLUMNS" (COLUMNS 0: one dimension); DIR/NAME each as raw numbers;
 *   DIR/score and DIR/score.HEAD, float32. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "nn/onnx/onnx.h"

enum { N = 64, KEYS = 40, MOST = 4, LONGEST = 16 };

static void save(const char *dir, const char *name, const void *data, size_t n_bytes) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (f == NULL || fwrite(data, 1, n_bytes, f) != n_bytes || fclose(f) != 0) exit(1);
}

/* Lists of random length for the sequence fields, one empty unless the model needs a target; the graph has them at the end of `most` places. */
static bool sequences(const struct pn_net *net, const char *dir, FILE *list, struct pn_batch *b, struct pn_rng *r) {
    static uint32_t lengths[PN_MAX_FIELDS][N];
    static int64_t at[N * LONGEST];
    static float present[N * LONGEST];
    const struct pn_sequence_spec *q = &net->job->sequence;
    const bool sasrec = net->job->model == PN_MODEL_SASREC;
    char name[160];
    if (net->most > LONGEST) return false;
    for (size_t s = net->n_sparse; s < b->n_sparse; s++)
        for (size_t e = 0; e < N; e++) lengths[s][e] = e == 0 && !sasrec ? 0 : 1 + (uint32_t)(pn_rng_uniform(r) * (double)net->most);
    const uint32_t *m = lengths[net->first_sequence];
    for (size_t s = net->n_sparse; s < b->n_sparse; s++) {
        const uint32_t i_field = (uint32_t)net->fields[s];
        bool action = false;
        for (uint32_t i = 0; i < q->n_fields; i++) action = action || q->fields[i] == i_field;
        memset(at, 0, sizeof at);
        for (size_t e = 0; e < N; e++) {
            const size_t own = sasrec && !action && q->target != i_field + 1 ? m[e] : lengths[s][e]; /* as many negatives as places */
            for (size_t i = 0; i < own; i++) {
                const uint32_t k = (uint32_t)(pn_rng_uniform(r) * (KEYS + 1));
                const size_t left = own - i;
                b->position[b->n_keys++] = k;
                if (action && left <= m[e]) at[(e + 1) * net->most - left] = k < KEYS ? k + 1 : 0;
                if (left == 1 && sasrec && q->target == i_field + 1) at[e] = k < KEYS ? k + 1 : 0;
            }
            b->begin[s * N + e + 1] = (uint32_t)b->n_keys;
        }
        if (!action && q->target != i_field + 1) continue;
        snprintf(name, sizeof name, "rows.%s", net->job->fields[i_field].name);
        save(dir, name, at, N * (action ? net->most : 1) * sizeof *at);
        fprintf(list, "%s int64 %d %zu\n", name, N, action ? net->most : 0);
    }
    for (size_t e = 0; e < N; e++)
        for (size_t i = 0; i < m[e]; i++) present[(e + 1) * net->most - 1 - i] = 1;
    save(dir, "present", present, N * net->most * sizeof *present);
    fprintf(list, "present float32 %d %zu\n", N, net->most);
    return true;
}

int main(int argc, char **argv) {
    static char text[65536];
    static struct pn_job job;
    struct pn_error err = {""};
    FILE *f = argc == 3 ? fopen(argv[1], "r") : NULL;
    if (f == NULL) return 2;
    const size_t n_text = fread(text, 1, sizeof text, f);
    fclose(f);
    size_t n_numbers = 0;
    struct pn_net *net;
    if (pn_job_parse(&job, text, n_text, "job.yaml", NULL, NULL, &err) != PN_OK) goto failed;
    for (size_t i = 0; i < job.n_fields; i++) n_numbers += !pn_field_keyed(&job.fields[i]);
    if (pn_net_open(&net, &job, n_numbers, &err) != PN_OK) goto failed;
    struct pn_rng r = {7};
    const size_t n_parameters = pn_net_parameters(net);
    float *p = calloc(n_parameters + PN_DENSE_ROW, sizeof *p);
    pn_net_init(net, 3, p);
    for (size_t i = 0; i < n_parameters; i++) { /* away from zeros; variances of batch norm stay above 0 */
        const bool state = net->n_state > 0 && i >= pn_net_state(net);
        p[i] = state ? fabsf(p[i]) + 0.5f + (float)pn_rng_uniform(&r) : p[i] + (float)(0.2 * pn_rng_normal(&r));
    }
    struct pn_onnx_table tables[PN_MAX_TABLES] = {{0, NULL}};
    const float *rows[PN_MAX_TABLES] = {NULL};
    struct pn_batch b = {.n_examples = N, .n_sparse = net->n_sparse + net->n_sequences, .n_dense = n_numbers};
    for (uint32_t t = 0; t < job.i_dense_table; t++) { /* the last row of a batch is that of a key that the tables lack */
        float *own = calloc((KEYS + 1) * job.tables[t].dim, sizeof *own);
        for (size_t i = 0; i < KEYS * job.tables[t].dim; i++) own[i] = (float)(0.5 * pn_rng_normal(&r));
        rows[t] = own;
        tables[t] = (struct pn_onnx_table){KEYS, own};
        b.n_unique[t] = KEYS + 1;
    }
    b.begin = calloc(b.n_sparse * N + 1, sizeof *b.begin);
    b.position = calloc(b.n_sparse * N * LONGEST + 1, sizeof *b.position);
    b.weights = calloc(b.n_sparse * N * LONGEST + 1, sizeof *b.weights);
    b.dense = calloc(N * n_numbers + 1, sizeof *b.dense);
    b.labels = calloc(N, sizeof *b.labels);
    b.log_q = calloc(N, sizeof *b.log_q);
    b.head_labels = calloc(N * (job.n_heads + 1), sizeof *b.head_labels);
    char path[600], name[160];
    snprintf(path, sizeof path, "%s/inputs", argv[2]);
    if ((f = fopen(path, "w")) == NULL) return 1;
    for (size_t s = 0; s < net->n_sparse; s++) {
        const struct pn_field *field = &job.fields[net->fields[s]];
        static int64_t at[N * LONGEST];
        static float weights[N * LONGEST];
        const bool leaves = field->type == PN_FIELD_LEAVES, listed = field->type == PN_FIELD_MULTI || leaves;
        const size_t most = leaves ? job.forest.trees : listed ? MOST : 1;
        if (most > LONGEST) return 1;
        memset(at, 0, sizeof at);
        memset(weights, 0, sizeof weights);
        for (size_t e = 0; e < N; e++) {
            const size_t n = leaves ? most : listed ? 1 + (size_t)(pn_rng_uniform(&r) * MOST) : 1;
            for (size_t i = 0; i < n; i++) {
                const uint32_t k = (uint32_t)(pn_rng_uniform(&r) * (KEYS + 1));
                const float times = field->weighted ? (float)pn_rng_normal(&r) : 1;
                b.weights[b.n_keys] = times;
                b.position[b.n_keys++] = k;
                at[e * most + i] = k < KEYS ? k + 1 : 0;
                weights[e * most + i] = field->weighted ? times : field->pooling == PN_POOL_SUM ? 1 : field->pooling == PN_POOL_MEAN ? 1 / (float)n : 1 / sqrtf((float)n);
            }
            b.begin[s * N + e + 1] = (uint32_t)b.n_keys;
        }
        snprintf(name, sizeof name, "rows.%s", field->name);
        save(argv[2], name, at, N * most * sizeof *at);
        fprintf(f, "%s int64 %d %zu\n", name, N, listed ? most : 0);
        if (!listed) continue;
        snprintf(name, sizeof name, "weights.%s", field->name);
        save(argv[2], name, weights, N * most * sizeof *weights);
        fprintf(f, "%s float32 %d %zu\n", name, N, most);
    }
    if (net->n_sequences > 0 && !sequences(net, argv[2], f, &b, &r)) return 1;
    for (size_t i = 0; i < N * n_numbers; i++) b.dense[i] = (float)pn_rng_normal(&r);
    if (n_numbers > 0) {
        save(argv[2], "numbers", b.dense, N * n_numbers * sizeof *b.dense);
        fprintf(f, "numbers float32 %d %zu\n", N, n_numbers);
    }
    fclose(f);
    void *image;
    size_t n_bytes;
    if (pn_onnx_write(net, p, tables, &image, &n_bytes, &err) != PN_OK) goto failed;
    save(argv[2], "model.onnx", image, n_bytes);
    float scores[N];
    if (pn_net_forward(net, &b, rows, p, scores) != PN_OK) return 1;
    save(argv[2], "score", scores, sizeof scores);
    for (size_t h = 0; h < job.n_heads; h++) {
        snprintf(name, sizeof name, "score.%s", job.heads[h].name);
        save(argv[2], name, pn_net_head_scores(net, h), sizeof scores);
    }
    return 0;
failed:
    fprintf(stderr, "%s\n", err.text);
    return 1;
}
