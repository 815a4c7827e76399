/* Jobs, raw rows and a table of rows for the programs that run whole models (steps.c, devices.c). */
#ifndef PN_TESTS_PARITY_MODELS_H
#define PN_TESTS_PARITY_MODELS_H

#include "nn/device.h"
#include "tests/parity/parity.h"

#define TABLE 8192u /* rows of the local table; keys that fall together share one, on both sides */
enum { COLUMNS = 8, MOST_ROWS = 65536 };
static const char *const names[COLUMNS] = {"user", "item", "g", "n", "s", "h", "t", "q"};
static struct pn_rng rng;

struct raw { char *text; uint32_t *offset, *length; float *labels, *values, *log_q; struct pn_raw raw; };
static void make_raw(struct raw *r, size_t rows, bool groups) {
    size_t at = 0;
    r->text = realloc(r->text, rows * 300);
    r->offset = realloc(r->offset, rows * COLUMNS * 4);
    r->length = realloc(r->length, rows * COLUMNS * 4);
    r->labels = realloc(r->labels, rows * 4);
    r->values = realloc(r->values, rows * 4);
    r->log_q = realloc(r->log_q, rows * 4);
    for (size_t i = 0; i < rows; i++) {
        const unsigned user = (unsigned)(pn_rng_next(&rng) % 40), item = (unsigned)(pn_rng_next(&rng) % 60);
        const uint64_t tokens = pn_rng_next(&rng) % 7, targets = tokens - (tokens > 0 ? pn_rng_next(&rng) % 2 : 0); /* h, t, q: what was, what came next, two negatives each */
        for (size_t c = 0; c < COLUMNS; c++) {
            char *to = r->text + at;
            int n = 0;
            if (c == 0) n = sprintf(to, "%u", user);
            if (c == 1) n = sprintf(to, "%u", i % 7 == 0 ? 1 : item); /* one item in every seventh row: more than a chunk in a large batch */
            if (c == 2)
                for (uint64_t m = pn_rng_next(&rng) % 4, j = 0; j < m; j++) n += sprintf(to + n, "%s%u", j ? "|" : "", (unsigned)(pn_rng_next(&rng) % 20));
            if (c == 3 && pn_rng_next(&rng) % 9 > 0) n = sprintf(to, "%.3f", pn_rng_normal(&rng));
            if (c == 4)
                for (uint64_t m = pn_rng_next(&rng) % 7, j = 0; j < m; j++) n += sprintf(to + n, "%s%u", j ? "|" : "", (unsigned)(pn_rng_next(&rng) % 60));
            for (uint64_t m = c == 5 ? tokens : c == 6 ? targets : c == 7 ? 2 * tokens : 0, j = 0; j < m; j++)
                n += sprintf(to + n, "%s%u", j ? "|" : "", i % 7 == 0 && c == 7 ? 1 : (unsigned)(pn_rng_next(&rng) % 60));
            r->offset[c * rows + i] = (uint32_t)at;
            r->length[c * rows + i] = (uint32_t)n;
            at += (size_t)n;
        }
        r->labels[i] = groups ? i % 3 == 0 : (user + item + pn_rng_next(&rng) % 40) % 80 < 30;
        r->values[i] = (float)(1 + pn_rng_next(&rng) % 5);
        r->log_q[i] = -(float)(1 + pn_rng_uniform(&rng));
    }
    r->raw = (struct pn_raw){rows, COLUMNS, names, r->text, r->offset, r->length, r->labels, r->log_q, r->values};
}

struct side { float *p, *dp, *table, *rows[PN_MAX_TABLES], *gradients[PN_MAX_TABLES], *scores; double loss; };
static void gather(struct side *s, const struct pn_job *job, const struct pn_batch *b) {
    for (uint32_t t = 0; t < job->i_dense_table; t++) {
        const size_t dim = job->tables[t].dim, n = b->n_unique[t];
        s->rows[t] = realloc(s->rows[t], (n * dim + 1) * sizeof(float));
        s->gradients[t] = realloc(s->gradients[t], (n * dim + 1) * sizeof(float));
        for (size_t i = 0; i < n; i++) memcpy(s->rows[t] + i * dim, s->table + (t * TABLE + b->unique[t][i] % TABLE) * dim, dim * sizeof(float));
    }
}
static void learn(struct side *s, const struct pn_job *job, const struct pn_batch *b, size_t n_parameters, float lr) {
    for (uint32_t t = 0; t < job->i_dense_table; t++)
        for (size_t i = 0, dim = job->tables[t].dim; i < b->n_unique[t]; i++)
            for (size_t d = 0; d < dim; d++) s->table[(t * TABLE + b->unique[t][i] % TABLE) * dim + d] -= lr * s->gradients[t][i * dim + d];
    for (size_t i = 0; i < n_parameters; i++) s->p[i] -= lr * s->dp[i];
}
static size_t padded_of(const struct pn_net *net) { return (pn_net_parameters(net) + PN_DENSE_ROW - 1) / PN_DENSE_ROW * PN_DENSE_ROW; }
/* Two of the same parameters and table. */
static void open_sides(struct side side[2], const struct pn_job *job, const struct pn_net *net) {
    const size_t padded = padded_of(net), cells = job->i_dense_table * TABLE * job->tables[0].dim;
    memset(side, 0, 2 * sizeof *side);
    for (int k = 0; k < 2; k++) {
        side[k].p = calloc(padded + 1, sizeof(float));
        side[k].dp = calloc(padded + 1, sizeof(float));
        side[k].table = calloc(cells, sizeof(float));
        side[k].scores = calloc(MOST_ROWS, sizeof(float));
    }
    rng = (struct pn_rng){7};
    pn_net_init(net, 3, side[0].p);
    for (size_t i = 0; i < cells; i++) side[0].table[i] = (float)(0.2 * pn_rng_normal(&rng));
    memcpy(side[1].p, side[0].p, padded * sizeof(float));
    memcpy(side[1].table, side[0].table, cells * sizeof(float));
}
static void close_sides(struct side side[2]) {
    for (int k = 0; k < 2; k++) {
        free(side[k].p);
        free(side[k].dp);
        free(side[k].table);
        free(side[k].scores);
        for (size_t t = 0; t < PN_MAX_TABLES; t++) {
            free(side[k].rows[t]);
            free(side[k].gradients[t]);
        }
    }
}

/* What a model of this text reads. Each side keeps a job of its own: pn_job_free. */
static bool is_pair(const char *model, const char *training) { return strstr(model, "mf") != NULL || strstr(training, "loss") != NULL; }
static bool is_sasrec(const char *model) { return strncmp(model, "sasrec", 6) == 0; }
static void open_job(struct pn_job *job, struct pn_features **f, const char *model, const char *training, const char *precision) {
    char text[2000];
    struct pn_error err = {""};
    const bool pair = is_pair(model, training), sequence = strstr(model, "sequence") != NULL;
    snprintf(text, sizeof text,
             "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: %s, uri: /x%s}}\n  features:\n"
             "    - {name: user, type: categorical, table: users}\n    - {name: item, type: categorical, table: items}\n%s%s  tables: {defaults: {optimizer: {name: sgd, lr: 0.1}}}\n"
             "  model: {name: %s}\n  training: {%s%sprecision: %s}\n",
             pair ? "ncf" : "csv", pair ? strstr(training, "in-batch") ? "" : ", negatives: {perPositive: 2}" : ", label: y",
             pair ? "" : "    - {name: g, type: multi, pooling: mean}\n    - {name: n, type: numeric}\n    - {name: x, type: cross, of: [user, item]}\n",
             sequence ? "    - {name: s, type: sequence, maxLength: 6, hash: {share: item}}\n" : "", model, training, training[0] ? ", " : "", precision);
    if (is_sasrec(model))
        snprintf(text, sizeof text,
                 "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: sasrec, uri: /x, part: train, history: 6}}\n  features:\n"
                 "    - {name: h, type: sequence, maxLength: 6, hash: {share: i}}\n    - {name: t, type: sequence, maxLength: 6, hash: {share: i}}\n"
                 "    - {name: q, type: sequence, maxLength: 12, hash: {share: i}}\n  tables: {defaults: {optimizer: {name: sgd, lr: 0.1}}}\n  model: {name: %s}\n"
                 "  training: {%s%sprecision: %s}\n", model, training, training[0] ? ", " : "", precision);
    if (pn_job_parse(job, text, strlen(text), "t", NULL, NULL, &err) != PN_OK || pn_features_open(f, job, names, COLUMNS, &err) != PN_OK) {
        fprintf(stderr, "%s: %s\n", model, err.text);
        exit(1);
    }
}
/* Numbers that a batch of it has beside keys. */
static size_t dense_inputs(const char *model, const char *training) { return is_pair(model, training) || is_sasrec(model) ? 0 : 1; }
#endif
