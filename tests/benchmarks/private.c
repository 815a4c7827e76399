/* A private step beside the same step without privacy, in process, one thread: DeepFM, 26 fields of BUCKETS rows each, dimension 16, tower 400-400-400, batch 2,048.
 *   bench-private [--buckets N] [--seconds S]
 * private.step.* has clipping by example, the choice of rows (DP-AdaFEST) and noise on them and on all weights; private.clip.* the clipping alone. */
#include <getopt.h>
#include "nn/model.h"
#include "tests/benchmarks/workload.h"
#include "worker/private.h"

enum { FIELDS = 26, BATCH = 2048, KINDS = 3 };

static void make_job(struct pn_job *job, unsigned buckets) {
    static char text[8000];
    struct pn_error err = {""};
    int n = snprintf(text, sizeof text, "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: bench}\nspec:\n  data: {train: {format: csv, uri: /none, label: y}}\n  features:\n");
    for (int f = 0; f < FIELDS; f++) n += snprintf(text + n, sizeof text - (size_t)n, "    - {name: f%d, type: categorical, buckets: %u}\n", f, buckets);
    snprintf(text + n, sizeof text - (size_t)n, "  model: {name: deepfm, embeddingDim: 16, hidden: [400, 400, 400]}\n  training: {batchSize: %d}\n", BATCH);
    if (pn_job_parse(job, text, strlen(text), "bench", NULL, NULL, &err) != PN_OK) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
}

/* A batch of uniform values: every row of it is rare, which is the most work. */
static void make_batch(const struct pn_job *job, unsigned buckets, struct pn_batch *b) {
    size_t fields[PN_MAX_FIELDS];
    struct pn_rng g = {3};
    *b = (struct pn_batch){.n_examples = BATCH, .n_sparse = FIELDS, .n_keys = FIELDS * BATCH};
    b->begin = malloc((FIELDS * BATCH + 1) * sizeof *b->begin);
    b->keys = malloc(FIELDS * BATCH * sizeof *b->keys);
    b->labels = malloc(BATCH * sizeof *b->labels);
    b->log_q = calloc(BATCH, sizeof *b->log_q);
    for (uint32_t i = 0; i <= FIELDS * BATCH; i++) b->begin[i] = i;
    for (size_t i = 0; i < FIELDS * BATCH; i++) b->keys[i] = pn_field_domain_key(&job->fields[i / BATCH], pn_rng_next(&g) % buckets);
    for (size_t i = 0; i < BATCH; i++) b->labels[i] = pn_rng_uniform(&g) < 0.25;
    pn_batch_fields(job, fields);
    if (!pn_batch_unique(b, job, fields)) exit(1);
}

int main(int argc, char **argv) {
    static const struct option options[] = {{"buckets", 1, 0, 'b'}, {"seconds", 1, 0, 's'}, {0}};
    unsigned buckets = 1000;
    double seconds = 3;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'b') buckets = (unsigned)atoi(optarg);
        else if (c == 's') seconds = atof(optarg);
        else return 2;
    }
    static struct pn_job job;
    struct pn_batch b;
    struct pn_net *net;
    struct pn_error err;
    make_job(&job, buckets);
    make_batch(&job, buckets, &b);
    if (pn_net_open(&net, &job, 0, &err) != PN_OK) return 1;
    const size_t n_parameters = pn_net_parameters(net), n_dense = (n_parameters + PN_DENSE_ROW - 1) / PN_DENSE_ROW * PN_DENSE_ROW, cells = b.n_unique[0] * job.tables[0].dim;
    float *p = calloc(n_dense, sizeof *p), *dp = calloc(n_dense, sizeof *dp), *rows = calloc(cells, sizeof *rows), *drows = calloc(cells, sizeof *drows), *scores = malloc(BATCH * sizeof *scores);
    struct pn_rng g = {5};
    pn_net_init(net, 1, p);
    for (size_t i = 0; i < cells; i++) rows[i] = (float)(0.01 * pn_rng_normal(&g));
    const float *in[PN_MAX_TABLES] = {rows};
    float *out[PN_MAX_TABLES] = {drows};
    const struct pn_private_spec spec = {.rows = 1e6, .batch = BATCH, .per_unit = 1, .clip = 1, .noise = 1, .selection = PN_SELECT_ADAFEST, .each = {5, 5, 80}};
    struct pn_private *private = pn_private_open(&job, &spec);
    struct pn_draws noise;
    uint8_t seed[PN_DRAWS_KEY_BYTES] = {1};
    pn_draws_open(&noise, seed);
    double rates[KINDS][200], end = now_s() + seconds * KINDS;
    size_t n = 0, sent = 0;
    for (; n < 3 || (now_s() < end && n < 200); n++) /* in turns, so that all see the same machine */
        for (int kind = 0; kind < KINDS; kind++) {
            const double begin = now_s();
            double loss;
            struct pn_private_push push;
            const enum pn_result r = kind == 0 ? pn_net_step(net, &b, in, p, 1, out, dp, scores, &loss) : pn_net_step_clipped(net, &b, in, p, 1, 1, 0, out, dp, scores, NULL, &loss);
            if (r != PN_OK || (kind == 2 && pn_private_release(private, &noise, &b, out, dp, n_dense, &push) != PN_OK)) return 1;
            rates[kind][n] = BATCH / (now_s() - begin);
            if (kind == 2) {
                sent = push.n[0];
                pn_private_push_free(&push);
            }
        }
    static const char *const names[KINDS] = {"private.plain", "private.clip", "private.step"};
    double median[KINDS];
    for (int kind = 0; kind < KINDS; kind++) {
        char name[100];
        median[kind] = quantile(rates[kind], n, 0.5);
        snprintf(name, sizeof name, "%s.deepfm.26x16.%u", names[kind], buckets);
        report(name, median[kind], "samples/s of one core", kind > 0 ? median[kind] / median[0] : -1, "the same step without privacy");
    }
    char name[100];
    snprintf(name, sizeof name, "private.rows.26x16.%u", buckets);
    report(name, (double)sent, "rows sent of a step", (double)sent / (FIELDS * (double)buckets), "the rows of the table, which dense noise would send");
    return 0;
}
