/* A training step of the net alone, in process, one thread, by the CPU time of that thread: forward, loss, backward.
 *   bench-step [--seconds S] [--neumf]
 * step.neumf8: the model and batch of docs/jobs/ml1m-neumf8.yaml over 6,040 users and 3,706 items, five examples of a user behind one another; step.deepfm: 26 fields, dimension 16, tower 400-400-400, batch 2,048. */
#include <getopt.h>
#include "nn/model.h"
#include "tests/benchmarks/workload.h"

static double cpu_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* n examples with one key each a field, uniform over the field's values; `group` examples behind one another have the first field's in common. */
static void make_batch(const struct pn_job *job, size_t n, const uint32_t *values, size_t group, struct pn_batch *b) {
    size_t fields[PN_MAX_FIELDS];
    struct pn_rng g = {3};
    const size_t f = job->n_fields;
    *b = (struct pn_batch){.n_examples = n, .n_sparse = f, .n_keys = f * n};
    b->begin = malloc((f * n + 1) * sizeof *b->begin);
    b->keys = malloc(f * n * sizeof *b->keys);
    b->labels = malloc(n * sizeof *b->labels);
    for (uint32_t i = 0; i <= f * n; i++) b->begin[i] = i;
    for (size_t i = 0; i < f * n; i++)
        b->keys[i] = i < n && i % group > 0 ? b->keys[i - 1] : pn_hash(&(uint64_t){pn_rng_next(&g) % values[i / n]}, 8, job->fields[i / n].hash_seed);
    for (size_t i = 0; i < n; i++) b->labels[i] = pn_rng_uniform(&g) < 0.2;
    pn_batch_fields(job, fields);
    if (!pn_batch_unique(b, job, fields)) exit(1);
}

static void measure(const char *name, const char *text, size_t n, const uint32_t *values, size_t group, double seconds) {
    static struct pn_job job;
    struct pn_batch b;
    struct pn_net *net;
    struct pn_error err = {""};
    if (pn_job_parse(&job, text, strlen(text), "bench", NULL, NULL, &err) != PN_OK || pn_net_open(&net, &job, 0, &err) != PN_OK) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    make_batch(&job, n, values, group, &b);
    const size_t n_dense = (pn_net_parameters(net) + PN_DENSE_ROW - 1) / PN_DENSE_ROW * PN_DENSE_ROW;
    float *p = calloc(n_dense, sizeof *p), *dp = calloc(n_dense, sizeof *dp), *scores = malloc(n * sizeof *scores), *rows[PN_MAX_TABLES] = {0}, *drows[PN_MAX_TABLES] = {0};
    struct pn_rng g = {5};
    pn_net_init(net, 1, p);
    for (uint32_t t = 0; t < job.i_dense_table; t++) {
        const size_t cells = b.n_unique[t] * job.tables[t].dim;
        rows[t] = malloc(cells * sizeof(float));
        drows[t] = malloc(cells * sizeof(float));
        for (size_t i = 0; i < cells; i++) rows[t][i] = (float)(0.01 * pn_rng_normal(&g));
    }
    const float *in[PN_MAX_TABLES];
    for (size_t t = 0; t < PN_MAX_TABLES; t++) in[t] = rows[t];
    static double took[2000];
    size_t steps = 0;
    double loss = 0;
    for (const double end = now_s() + seconds; steps < 5 || (now_s() < end && steps < 2000); steps++) {
        const double begin = cpu_s();
        if (pn_net_step(net, &b, in, p, 1, drows, dp, scores, &loss) != PN_OK) exit(1);
        took[steps] = (cpu_s() - begin) * 1e6 / (double)n;
    }
    report(name, quantile(took, steps, 0.5), "us of a core a sample", -1, NULL);
    pn_net_close(net);
    pn_batch_free(&b);
    for (size_t t = 0; t < PN_MAX_TABLES; t++) {
        free(rows[t]);
        free(drows[t]);
    }
    free(p);
    free(dp);
    free(scores);
    pn_job_free(&job);
}

int main(int argc, char **argv) {
    static const struct option options[] = {{"seconds", 1, 0, 's'}, {"neumf", 0, 0, 'n'}, {0}};
    bool one = false;
    double seconds = 1;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 's') seconds = atof(optarg);
        else if (c == 'n') one = true;
        else return 2;
    }
    static const char neumf[] = "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: bench}\nspec:\n  data: {train: {format: csv, uri: /none, label: y}}\n  features:\n"
                                "    - {name: user, type: categorical, table: users}\n    - {name: item, type: categorical, table: items}\n"
                                "  model: {name: neumf, embeddingDim: 8, mlpDim: 32, hidden: [32, 16, 8]}\n  training: {batchSize: 5120}\n";
    static char deepfm[8000];
    int n = snprintf(deepfm, sizeof deepfm, "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: bench}\nspec:\n  data: {train: {format: csv, uri: /none, label: y}}\n  features:\n");
    for (int f = 0; f < 26; f++) n += snprintf(deepfm + n, sizeof deepfm - (size_t)n, "    - {name: f%d, type: categorical}\n", f);
    snprintf(deepfm + n, sizeof deepfm - (size_t)n, "  model: {name: deepfm, embeddingDim: 16, hidden: [400, 400, 400]}\n  training: {batchSize: 2048}\n");
    uint32_t values[26] = {6040, 3706};
    measure("step.neumf8", neumf, 5120, values, 5, seconds);
    for (size_t f = 0; f < 26; f++) values[f] = 1000;
    if (!one) measure("step.deepfm.26x16", deepfm, 2048, values, 1, seconds);
    return 0;
}
