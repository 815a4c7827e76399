#include <check.h>
#include <stdio.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "job/job.h"

static const char good[] =
    "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n"
    "  data:\n    train: {format: csv, uri: train.csv, label: click}\n    test: {format: csv, uri: /abs/test.csv, label: click, firstRow: 5, rows: 10}\n"
    "  features:\n    - {name: u, type: categorical}\n    - {name: i, type: categorical, hash: {share: thing}}\n    - {name: g, type: multi, separator: \"|\", pooling: sqrtn}\n"
    "    - {name: n, type: numeric, transform: [log1p, standardize]}\n    - {name: b, type: numeric, bucketize: [1, 2.5, 7]}\n    - {name: x, type: cross, of: [u, i]}\n"
    "  tables: {defaults: {optimizer: {name: ftrl, lr: 0.1, l1: 0.01}, init: {xavier: 0.05}, storage: bfloat16, preallocate: 1Gi, admission: {count: 3, counters: 1Mi}, eviction: {ageSteps: 1000, maxRows: 50000}}}\n"
    "  model: {name: deepfm, embeddingDim: 4, linearScale: 2.5, hidden: [8, 4], dropout: 0.25}\n  optimizer: {name: adam, lr: 0.001}\n"
    "  training: {batchSize: 32, epochs: 2, seed: 9, consistency: {mode: ssp, staleness: 2, ack: applied}}\n"
    "  checkpoint: {every: 10s, keep: 2, ringBytes: 1Mi}\n  publish: {model: m, storage: int8, gate: {minAuc: 0.7}}\n";

static enum pn_result parse(struct pn_job *job, const char *text, struct pn_error *err) {
    char *report = NULL;
    enum pn_result r = pn_job_parse(job, text, strlen(text), "job.yaml", "/base", &report, err);
    ck_assert(r == PN_OK || (report != NULL && strlen(report) > 0));
    free(report);
    return r;
}

START_TEST(a_good_job_is_read_as_written) {
    static struct pn_job j;
    struct pn_error err = {""};
    ck_assert_msg(parse(&j, good, &err) == PN_OK, "%s", err.text);
    ck_assert_str_eq(j.train.path, "/base/train.csv");
    ck_assert_str_eq(j.test.path, "/abs/test.csv");
    ck_assert_uint_eq(j.test.first_row, 5);
    ck_assert_uint_eq(j.n_fields, 6);
    ck_assert_uint_eq(j.fields[4].n_boundaries, 3);
    ck_assert_uint_eq(j.tables[0].dim, 5);
    ck_assert_int_eq(j.tables[0].optimizer.kind, PN_FTRL);
    ck_assert(j.tables[j.i_dense_table].explicit_rows);
    ck_assert_int_eq(j.consistency, PN_SSP);
    ck_assert(!j.ack_durable);
    ck_assert(j.tables[0].admit_count == 3 && j.tables[0].evict_age == 1000 && j.tables[0].evict_rows == 50000 && j.tables[0].track && j.tables[0].init == PN_INIT_XAVIER);
    ck_assert(j.tables[0].storage == PN_CODEC_BFLOAT16 && j.tables[0].preallocate == 1u << 30);
    ck_assert(fabsf(j.linear_scale - 2.5f) < 1e-6f);
    ck_assert_uint_eq(j.checkpoint_every_ms, 10000);
    ck_assert_uint_eq(j.ring_bytes, 1u << 20);
    pn_job_free(&j);
} END_TEST

START_TEST(a_job_printed_and_read_again_is_the_same_job) {
    static struct pn_job j, again;
    struct pn_error err = {""};
    ck_assert_int_eq(parse(&j, good, &err), PN_OK);
    char *text = pn_job_text(&j);
    ck_assert_msg(parse(&again, text, &err) == PN_OK, "%s", err.text);
    char *twice = pn_job_text(&again);
    ck_assert_str_eq(text, twice);
    ck_assert_uint_eq(j.fields[1].hash_seed, again.fields[1].hash_seed);
    ck_assert_uint_eq(j.tables[0].init_seed, again.tables[0].init_seed);
    ck_assert(again.tables[0].storage == PN_CODEC_BFLOAT16 && again.tables[0].preallocate == 1u << 30);
    free(text);
    free(twice);
    pn_job_free(&j);
    pn_job_free(&again);
} END_TEST

/* One change to the good job, and what the first line must hold. */
static const struct { const char *from, *to, *place, *words; } bad[] = {
    {"name: deepfm", "name: deepmf", "job.yaml:16:17", "did you mean \"deepfm\"?"},
    {"type: categorical}\n    - {name: i", "tyep: categorical}\n    - {name: i", "job.yaml:9:17", "unknown key \"tyep\""},
    {"name: deepfm", "name: finalmlp", "job.yaml:16:17", "not available yet"},
    {"batchSize: 32", "batchSize: -1", "job.yaml:18:25", "whole number from 1"},
    {"batchSize: 32", "batchSize: many", "job.yaml:18:25", "\"many\""},
    {"admission: {count: 3,", "admission: {count: 3, probability: 0.5,", "job.yaml:15:", "not by both"},
    {"ageSteps: 1000, maxRows: 50000", "", "job.yaml:15:", "needs ageSteps or maxRows"},
    {"maxRows: 50000", "maxRows: 5", "job.yaml:15:", "from 1024"},
    {"linearScale: 2.5", "linearScale: 0", "job.yaml:16:", "from 0.001 to 1000"},
    {"dropout: 0.25", "dropout: 1.5", "job.yaml:16:", "from 0 to 0.95"},
    {"bucketize: [1, 2.5, 7]", "bucketize: [1, 7, 2.5]", "job.yaml:13:", "must rise"},
    {"of: [u, i]", "of: [u, q]", "job.yaml:14:", "no earlier feature"},
    {"transform: [log1p, standardize]}", "clip: [3, 1]}", "job.yaml:12:", "is above the highest"},
    {"transform: [log1p, standardize]}", "clip: 3}", "job.yaml:12:", "two numbers"},
    {"transform: [log1p, standardize]}", "default: none}", "job.yaml:12:", "no number"},
    {"name: u, type: categorical", "name: u, type: categorical, default: \"\"", "job.yaml:9:", "1 to 63 characters"},
    {"every: 10s", "every: 10 parsecs", "job.yaml:19:", "30s"},
    {"storage: int8", "storage: int4", "job.yaml:20:", "not available yet"},
    {"format: csv, uri: train", "format: parquet, columns: [user, user], uri: train", "job.yaml:6:", "stands twice"},
    {"format: csv, uri: train", "format: parquet, columns: [click], uri: train", "job.yaml:6:", "cannot be a column, too"},
    {"format: csv, uri: train", "format: kafka, uri: train", "job.yaml:6:", "format must be one of"},
    {"format: csv, uri: train.csv", "format: csv, uri: []", "job.yaml", "1 to 64"},
    {"format: csv, uri: train.csv", "format: jsonl, uri: train.csv", "job.yaml:6:", "needs columns"},
    {"format: csv, uri: train.csv", "format: movielens, uri: [a, b]", "job.yaml:6:", "a list of files"},
    {"uri: train.csv", "uri: s3://b/train.csv", "job.yaml:6:", "file://"},
    {"pinion/v1", "pinion/v2", "job.yaml:1:13", "pinion/v1"},
    {"  publish:", "  privacy: {epsilon: 1}\n  publish:", "job.yaml:20:13", "needs rows"},
    {"metadata: {name: t}", "metadata: {name: t", "job.yaml:", "error"},
    {"name: u, type", "name: i, type", "job.yaml:10:", "stands twice"},
    {"mode: ssp, ", "mode: async, ", "job.yaml:18:", "staleness"},
};

START_TEST(every_mistake_is_named_by_line_and_column) {
    static struct pn_job j;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[4096];
        const char *at = strstr(good, bad[i].from);
        ck_assert_ptr_nonnull(at);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, bad[i].to, at + strlen(bad[i].from));
        struct pn_error err = {""};
        ck_assert_int_eq(parse(&j, text, &err), PN_INVALID);
        ck_assert_msg(strncmp(err.text, bad[i].place, strlen(bad[i].place)) == 0, "%s: %s", bad[i].to, err.text);
        ck_assert_msg(strstr(err.text, bad[i].words) != NULL, "%s: %s", bad[i].to, err.text);
        ck_assert_ptr_null(strchr(err.text, '\n'));
    }
} END_TEST

static const char external[] =
    "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: e}\nspec:\n  data: {external: true}\n"
    "  tables:\n    defaults: {dim: 16, optimizer: {name: sgd, lr: 1}, init: zero}\n    users: {}\n    items: {dim: 3, eviction: {maxRows: 5000}}\n"
    "  model: {name: external}\n  training: {dataShards: 2, codec: float16, consistency: {mode: ssp, staleness: 3}}\n  checkpoint: {every: 1s}\n";

START_TEST(an_external_job_declares_its_tables_and_is_printed_and_read_again) {
    static struct pn_job j, again;
    struct pn_error err = {""};
    ck_assert_msg(parse(&j, external, &err) == PN_OK, "%s", err.text);
    ck_assert(j.model == PN_MODEL_EXTERNAL && j.n_tables == 3 && j.i_dense_table == 2 && j.n_producers == 2 && j.max_in_flight == 64 && !j.train.present);
    ck_assert_str_eq(j.tables[0].name, "users");
    ck_assert(j.tables[0].dim == 16 && j.tables[1].dim == 3 && j.tables[1].evict_rows == 5000);
    char *text = pn_job_text(&j);
    ck_assert_msg(parse(&again, text, &err) == PN_OK, "%s\n%s", err.text, text);
    char *twice = pn_job_text(&again);
    ck_assert_str_eq(text, twice);
    ck_assert(memcmp(j.tables, again.tables, sizeof j.tables) == 0 && again.staleness == 3);
    free(text);
    free(twice);
    pn_job_free(&j);
    pn_job_free(&again);
} END_TEST

static const struct { const char *from, *to, *place, *words; } bad_external[] = {
    {"name: external", "name: lr", "job.yaml:10:", "go together"},
    {"{external: true}", "{external: yes please}", "job.yaml:5:", "external"},
    {"{external: true}", "{}", "job.yaml:", "external: true"},
    {"{external: true}", "{external: true, shuffle: {seed: 1}}", "job.yaml:5:", "has no shuffle"},
    {"dim: 16, ", "", "job.yaml:", "needs dim"},
    {"dim: 3", "dim: 0", "job.yaml:9:", "from 1 to 1024"},
    {"    users: {}\n", "    dense: {}\n", "job.yaml:8:", "is taken"},
    {"    users: {}\n    items: {dim: 3, eviction: {maxRows: 5000}}\n", "", "job.yaml:7:", "at least one table"},
    {"items: {dim", "users: {dim", "job.yaml:", ""},
    {"name: external}", "name: external, hidden: [3]}", "job.yaml:10:", "hidden has no meaning"},
    {"dataShards: 2", "batchSize: 2", "job.yaml:11:", "batchSize has no meaning"},
    {"  checkpoint:", "  features: [1]\n  checkpoint:", "job.yaml:12:", "takes no features"},
    {"  checkpoint:", "  optimizer: {name: sgd}\n  checkpoint:", "job.yaml:12:", "dense parameters"},
    {"  checkpoint:", "  publish: {model: m}\n  checkpoint:", "job.yaml:12:", "cannot be published"},
};

START_TEST(every_mistake_of_an_external_job_is_named_by_line) {
    static struct pn_job j;
    for (size_t i = 0; i < sizeof bad_external / sizeof *bad_external; i++) {
        char text[4096];
        const char *at = strstr(external, bad_external[i].from);
        ck_assert_ptr_nonnull(at);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - external), external, bad_external[i].to, at + strlen(bad_external[i].from));
        struct pn_error err = {""};
        ck_assert_msg(parse(&j, text, &err) == PN_INVALID, "%s", bad_external[i].to);
        ck_assert_msg(strncmp(err.text, bad_external[i].place, strlen(bad_external[i].place)) == 0 && strstr(err.text, bad_external[i].words) != NULL, "%s: %s",
                      bad_external[i].to, err.text);
    }
} END_TEST

START_TEST(bytes_that_are_no_text_never_reach_the_yaml_reader) {
    static struct pn_job j;
    struct pn_error err;
    static const char *const texts[] = {"%a\xf8", "\xff\xfe", "a: \x01", "%YAML 1.2\n---\na: 1", "\xc0\x80", "\xed\xa0\x80", ""};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) ck_assert_int_eq(parse(&j, texts[i], &err), PN_INVALID);
} END_TEST

/* The click-through keys: data drawn on the fly, models, schedules, early stopping. */
static const char ctr[] =
    "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n"
    "  data:\n    train: {format: libsvm, uri: a, columns: [user, item], negatives: {perPositive: 2, seen: [a, b], seed: 7, redraw: true}}\n"
    "    validation: {format: libfm, uri: v, columns: [user, item]}\n"
    "  features:\n    - {name: user, type: categorical}\n    - {name: item, type: categorical}\n"
    "  tables: {defaults: {optimizer: {name: adam, lr: 0.01, l2: 0.1, decay: lazy, schedule: {shape: cosine, warmup: 5, steps: 100, floor: 0.1}}}}\n"
    "  model: {name: %s}\n  training: {earlyStopping: {metric: logloss, patience: 3, minDelta: 0.001}, clipNorm: 10}\n  validation: {groupBy: item}\n";

START_TEST(click_through_jobs_are_read_as_written_and_printed_again) {
    static const struct { const char *model; uint32_t dim; } models[] = {
        {"lr", 1}, {"fm, embeddingDim: 4", 5}, {"wide_deep, embeddingDim: 4, hidden: [8], norm: batch", 5}, {"deepfm, embeddingDim: 4, norm: layer, embeddingDropout: 0.5", 5},
        {"dcn_v2, embeddingDim: 4, cross: 3, structure: stacked", 4}, {"dlrm, embeddingDim: 4, bottom: [8, 6], interaction: both", 4}};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        static struct pn_job j, again;
        struct pn_error err = {""};
        char text[4096];
        snprintf(text, sizeof text, ctr, models[i].model);
        ck_assert_msg(parse(&j, text, &err) == PN_OK, "%s: %s", models[i].model, err.text);
        ck_assert_uint_eq(j.tables[0].dim, models[i].dim);
        ck_assert(j.train.format == PN_FORMAT_LIBFM && j.train.negatives.per_positive == 2 && j.train.negatives.redraw && j.train.negatives.n_seen == 2);
        ck_assert_str_eq(j.train.negatives.seen[1], "/base/b");
        ck_assert_str_eq(j.train.columns, "user,item");
        ck_assert(j.patience == 3 && j.stop_by == PN_BY_LOGLOSS && j.group_by == 2 && j.tables[0].optimizer.shape == PN_COSINE && j.tables[0].optimizer.warmup == 5);
        char *once = pn_job_text(&j);
        ck_assert_msg(parse(&again, once, &err) == PN_OK, "%s", err.text);
        char *twice = pn_job_text(&again);
        ck_assert_str_eq(once, twice);
        ck_assert(again.model == j.model && again.norm == j.norm && again.n_cross == j.n_cross && again.stacked == j.stacked && again.interaction == j.interaction);
        ck_assert(again.n_hidden == j.n_hidden && again.n_bottom == j.n_bottom && again.train.negatives.seed == 7 && again.patience == 3 && again.group_by == 2);
        free(once);
        free(twice);
        pn_job_free(&j);
        pn_job_free(&again);
    }
} END_TEST

/* The dense optimizers and schedules: what a text says is what is printed again, and what has no meaning is refused. */
START_TEST(dense_optimizers_are_read_as_written_and_printed_again) {
    static const struct { const char *text, *words; enum pn_optimizer kind; float l2, momentum; } cases[] = {
        {"name: sgd, lr: 0.1, l2: 0.5", NULL, PN_SGD, 0.5f, 0},
        {"name: sgd, lr: 0.1, momentum: 0.5", NULL, PN_MOMENTUM, 0, 0.5f},
        {"name: sgd, momentum: 0.25, nesterov: true, schedule: {shape: exponential, steps: 10, floor: 0.1}", NULL, PN_MOMENTUM, 0, 0.25f},
        {"name: adamw", NULL, PN_ADAMW, 0.01f, 0},
        {"name: adamw, weightDecay: 0.25", NULL, PN_ADAMW, 0.25f, 0},
        {"name: adam, weightDecay: 0.25", "weightDecay is adamw's", 0, 0, 0},
        {"name: adamw, l2: 0.25", "weightDecay in place of l2", 0, 0, 0},
        {"name: adam, momentum: 0.5", "momentum has a meaning for sgd only", 0, 0, 0},
        {"name: sgd, nesterov: true", "nesterov needs sgd with momentum", 0, 0, 0},
        {"name: adam, schedule: {shape: exponential, steps: 10}", "a floor above 0", 0, 0, 0},
        {"name: adam, schedule: {shape: exponential, floor: 0.5}", "needs steps", 0, 0, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static struct pn_job j, again;
        struct pn_error err = {""};
        char text[2048];
        snprintf(text, sizeof text, "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: csv, uri: a, label: y}}\n"
                                    "  features: [{name: u, type: categorical}]\n  model: {name: lr}\n  optimizer: {%s}\n", cases[i].text);
        const enum pn_result r = parse(&j, text, &err);
        if (cases[i].words != NULL) {
            ck_assert_int_eq(r, PN_INVALID);
            ck_assert_msg(strstr(err.text, cases[i].words) != NULL, "%s: %s", cases[i].text, err.text);
            continue;
        }
        ck_assert_msg(r == PN_OK, "%s: %s", cases[i].text, err.text);
        char *once = pn_job_text(&j);
        ck_assert_msg(parse(&again, once, &err) == PN_OK, "%s", err.text);
        const struct pn_optimizer_spec *a = &j.tables[j.i_dense_table].optimizer, *b = &again.tables[again.i_dense_table].optimizer;
        ck_assert(a->kind == cases[i].kind && a->l2 == cases[i].l2 && a->momentum == cases[i].momentum);
        ck_assert(b->kind == a->kind && b->l2 == a->l2 && b->momentum == a->momentum && b->nesterov == a->nesterov && b->shape == a->shape && b->epsilon == a->epsilon && b->lr == a->lr);
        free(once);
        pn_job_free(&j);
        pn_job_free(&again);
    }
} END_TEST

START_TEST(keys_that_do_not_fit_their_model_or_data_are_refused) {
    static const struct { const char *from, *to, *words; } wrong[] = {
        {"name: %s", "name: lr, hidden: [3]", "hidden has a meaning for"},
        {"name: %s", "name: deepfm, cross: 3", "cross has a meaning for dcn_v2 only"},
        {"name: %s", "name: dcn_v2, bottom: [3]", "bottom has a meaning for dlrm only"},
        {"columns: [user, item], neg", "columns: [user, user], neg", "stands twice"},
        {"columns: [user, item], neg", "columns: [owner, item], neg", "has no column \"user\""},
        {"format: libsvm", "format: csv", "for the formats libfm and libsvm only"},
        {"groupBy: item", "groupBy: nobody", "no feature with keys"},
        {"    validation: {format: libfm, uri: v, columns: [user, item]}\n", "", "needs spec.data.validation"},
        {"name: adam, lr: 0.01, l2: 0.1, decay: lazy", "name: ftrl", "ftrl has no schedule"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        static struct pn_job j;
        char text[4096], whole[4096];
        const char *at = strstr(ctr, wrong[i].from);
        ck_assert_ptr_nonnull(at);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - ctr), ctr, wrong[i].to, at + strlen(wrong[i].from));
        const char *model = strstr(text, "%s");
        if (model != NULL) snprintf(whole, sizeof whole, "%.*sfm%s", (int)(model - text), text, model + 2);
        else snprintf(whole, sizeof whole, "%s", text);
        struct pn_error err = {""};
        ck_assert_int_eq(parse(&j, whole, &err), PN_INVALID);
        ck_assert_msg(strstr(err.text, wrong[i].words) != NULL, "%s: %s", wrong[i].to, err.text);
    }
} END_TEST

/* Values of libsvm files: a feature that takes weights, and columns by id. */
START_TEST(weights_and_columns_by_id_are_read_as_written_and_printed_again) {
    static const struct { const char *columns, *feature, *words; } jobs[] = {
        {"", "name: features, type: multi, weighted: true", NULL},
        {"", "name: features, type: multi, weighted: true}\n    - {name: plain, column: features, type: multi", NULL},
        {", columns: [1=age, 20=height]", "name: age, type: numeric}\n    - {name: features, type: multi, weighted: true", NULL},
        {", columns: [1=age, height]", "name: age, type: categorical", "all by their place (NAME) or all by id (ID=NAME)"},
        {", columns: [1=age, 1=height]", "name: age, type: categorical", "stands twice"},
        {", columns: [1=age, 2=age]", "name: age, type: categorical", "stands twice"},
        {", columns: [1=features]", "name: age, type: categorical", "take another name"},
        {", columns: [x=age]", "name: age, type: categorical", "by id it is ID=NAME"},
        {", columns: [01=age]", "name: age, type: categorical", "by id it is ID=NAME"},
        {", columns: [1=age], negatives: {perPositive: 1, column: age, group: age}", "name: age, type: categorical", "has no column \"age\""},
        {"", "name: features, type: multi, weighted: true, pooling: mean", "pooling: sum"},
        {"", "name: features, type: multi, weighted: true, separator: ':'", "cannot separate values"},
        {"", "name: features, type: categorical, weighted: true", "no meaning for a categorical feature"},
    };
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
        static struct pn_job j, again;
        struct pn_error err = {""};
        char text[1000];
        snprintf(text, sizeof text, "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: libsvm, uri: a%s}}\n  features:\n    - {%s}\n  model: {name: lr}\n",
                 jobs[i].columns, jobs[i].feature);
        const enum pn_result r = parse(&j, text, &err);
        ck_assert_msg((r == PN_OK) == (jobs[i].words == NULL), "%zu: %s", i, err.text);
        if (r != PN_OK) {
            ck_assert_msg(strstr(err.text, jobs[i].words) != NULL, "%s", err.text);
            continue;
        }
        char *once = pn_job_text(&j);
        ck_assert_msg(parse(&again, once, &err) == PN_OK, "%s", err.text);
        char *twice = pn_job_text(&again);
        ck_assert_str_eq(once, twice);
        ck_assert(j.train.weighted == (i != 1) && again.train.weighted == j.train.weighted); /* one of two features would take 8:0.5 as a value */
        const struct pn_field *f = &again.fields[i == 2 ? 1 : 0];
        ck_assert(f->weighted && f->pooling == PN_POOL_SUM && f->max_length == 1u << 20);
        free(once);
        free(twice);
        pn_job_free(&j);
        pn_job_free(&again);
    }
} END_TEST

/* Ranking: pairs of users and items, what is held out, losses, metrics by place, and what a job begins with. */
static const char ranking[] =
    "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n"
    "  data:\n    train: {format: ncf, uri: a, part: train, holdOut: {perUser: 2, seed: 9}, negatives: {perPositive: 3, distribution: popularity, power: 0.75, unseen: false}}\n"
    "    validation: {format: ncf, uri: a, part: held, holdOut: {perUser: 2, seed: 9}, negatives: {perPositive: 99, seed: 3}}\n    test: {format: lightgcn, uri: b, rankAll: [a, c]}\n"
    "  features:\n    - {name: user, type: categorical, table: users}\n    - {name: item, type: categorical, table: items}\n"
    "  model: {name: mf, embeddingDim: 4}\n  training: {loss: {name: softmax, temperature: 0.5, logQ: true}, earlyStopping: {metric: \"ndcg@20\"}}\n"
    "  validation: {groupBy: user, metrics: [\"recall@20\"]}\n";

START_TEST(ranking_jobs_are_read_as_written_and_printed_again) {
    static const struct { const char *model; uint32_t dim; } models[] = {{"mf, embeddingDim: 4", 5}, {"mf, embeddingDim: 4, embeddingL2: 0.25, similarity: cosine, bias: false, start: [{snapshot: s, alpha: 0.25}]", 4}};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        static struct pn_job j, again;
        struct pn_error err = {""};
        char text[4096];
        const char *at = strstr(ranking, "mf, embeddingDim: 4");
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - ranking), ranking, models[i].model, at + strlen("mf, embeddingDim: 4"));
        ck_assert_msg(parse(&j, text, &err) == PN_OK, "%s: %s", models[i].model, err.text);
        char *once = pn_job_text(&j);
        ck_assert_msg(parse(&again, once, &err) == PN_OK, "%s", err.text);
        char *twice = pn_job_text(&again);
        ck_assert_str_eq(once, twice);
        for (int k = 0; k < 2; k++) {
            const struct pn_job *x = k == 0 ? &j : &again;
            ck_assert(x->tables[0].dim == models[i].dim && x->tables[1].dim == models[i].dim && x->loss == PN_LOSS_SOFTMAX && x->log_q && x->temperature == 0.5f);
            ck_assert(x->train.hold_out == 2 && x->train.hold_out_seed == 9 && x->train.part == PN_PART_TRAIN && x->train.negatives.n_seen == 1 && x->train.negatives.any);
            ck_assert(x->train.negatives.power == 0.75 && x->validation.part == PN_PART_HELD && !x->validation.negatives.any && x->validation.negatives.power == 0);
            ck_assert(x->test.rank_all && x->test.negatives.n_seen == 2 && x->test.negatives.per_positive == 0 && x->stop_by == PN_BY_NDCG && x->rank_k == 20 && x->group_by == 1);
            ck_assert_str_eq(x->test.negatives.seen[1], "/base/c");
            ck_assert(x->embedding_l2 == (i == 0 ? 0 : 0.25f) && x->cosine == (i == 1));
            ck_assert(x->n_starts == i && (i == 0 || (x->starts[0].alpha == 0.25 && strcmp(x->starts[0].path, "/base/s") == 0)));
        }
        free(once);
        free(twice);
        pn_job_free(&j);
        pn_job_free(&again);
    }
} END_TEST

START_TEST(early_stopping_goes_by_any_figure_that_is_measured) {
    static const struct { const char *by, *metrics; enum pn_metric_kind kind; uint32_t k; } right[] = {
        {"mrr", "\"recall@20\"", PN_BY_MRR, 20}, {"mrr", "auc", PN_BY_MRR, 10}, {"logloss", "mrr", PN_BY_LOGLOSS, 10}, {"gauc", "mrr, hr@7", PN_BY_GAUC, 7}, {"ne", "hr@5", PN_BY_NE, 5}, {"hr@5", "mrr", PN_BY_HR, 5}};
    for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
        static struct pn_job j, again;
        struct pn_error err = {""};
        char text[4096];
        const char *at = strstr(ranking, "ndcg@20");
        snprintf(text, sizeof text, "%.*s%s\"}}\n  validation: {groupBy: user, metrics: [%s]}\n", (int)(at - ranking), ranking, right[i].by, right[i].metrics);
        ck_assert_msg(parse(&j, text, &err) == PN_OK, "%s: %s", text, err.text);
        char *once = pn_job_text(&j);
        ck_assert_msg(parse(&again, once, &err) == PN_OK, "%s", err.text);
        for (int k = 0; k < 2; k++) ck_assert_msg((k ? &again : &j)->stop_by == right[i].kind && (k ? &again : &j)->rank_k == right[i].k, "%s, read %d times", right[i].by, k + 1);
        free(once);
        pn_job_free(&j);
        pn_job_free(&again);
    }
} END_TEST

START_TEST(ranking_keys_that_do_not_fit_are_refused) {
    static const struct { const char *from, *to, *words; } wrong[] = {
        {"metrics: [\"recall@20\"]", "metrics: [\"recall@10\"]", "a job has one K"},
        {"groupBy: user, ", "", "hr, ndcg, recall and mrr need spec.validation.groupBy"},
        {"mf, embeddingDim: 4", "neumf", "rankAll needs model mf"},
        {"mf, embeddingDim: 4", "mf, mlpDim: 4", "mlpDim has a meaning for neumf only"},
        {"mf, embeddingDim: 4", "mf, similarity: cosine", "cosine goes with bias: false"},
        {"mf, embeddingDim: 4", "mf, embeddingL2: -1", "embeddingL2"},
        {"mf, embeddingDim: 4", "gmf, bias: true", "bias has a meaning for mf only"},
        {"name: softmax, temperature: 0.5, logQ: true", "name: in-batch-softmax", "bias: false"},
        {"name: softmax, temperature", "name: bpr, temperature", "for softmax and in-batch-softmax only"},
        {"distribution: popularity, power", "power", "for distribution: popularity only"},
        {"part: train, holdOut: {perUser: 2, seed: 9}", "part: train", "part goes with holdOut here"},
        {"rankAll: [a, c]", "rankAll: [a], negatives: {}", "do not go together"},
        {"name: item, type: categorical", "name: item, type: multi", "take two categorical features"},
        {"format: ncf, uri: a, part: train", "format: csv, uri: a, part: train", "for the formats libfm and libsvm, ncf and lightgcn only"},
        {"ndcg@20", "ndcg@x", "allowed: auc, logloss, ne, gauc, hr@K, ndcg@K, recall@K, mrr"},
        {"ndcg@20", "mrr@20", "allowed: auc"},
        {"ndcg@20", "hr", "allowed: auc"},
        {"[\"recall@20\"]", "[mrr@20]", "metric must be one of: auc"},
        {"ndcg@20\"}}\n  validation: {groupBy: user, metrics: [\"recall@20\"]}", "mrr\"}}\n", "mrr need spec.validation.groupBy"},
        {"ndcg@20\"}}\n  validation: {groupBy: user, metrics: [\"recall@20\"]}", "gauc\"}}\n", "gauc needs spec.validation.groupBy"},
        {"negatives: {perPositive: 99, seed: 3}}\n    test: {format: lightgcn, uri: b, rankAll: [a, c]}\n  features:\n    - {name: user, type: categorical, table: users}\n"
         "    - {name: item, type: categorical, table: items}\n  model: {name: mf, embeddingDim: 4}\n"
         "  training: {loss: {name: softmax, temperature: 0.5, logQ: true}, earlyStopping: {metric: \"ndcg@20\"}}",
         "rankAll: [a]}\n  features:\n    - {name: user, type: categorical, table: users}\n    - {name: item, type: categorical, table: items}\n  model: {name: mf, embeddingDim: 4}\n"
         "  training: {loss: {name: softmax}, earlyStopping: {metric: ne}}",
         "rankAll measures hr, ndcg, recall and mrr, not ne"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        static struct pn_job j;
        char text[4096], *report = NULL;
        const char *at = strstr(ranking, wrong[i].from);
        ck_assert_ptr_nonnull(at);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - ranking), ranking, wrong[i].to, at + strlen(wrong[i].from));
        struct pn_error err = {""};
        ck_assert_int_eq(pn_job_parse(&j, text, strlen(text), "job.yaml", "/base", &report, &err), PN_INVALID);
        ck_assert_msg(report != NULL && strstr(report, wrong[i].words) != NULL, "%s: %s", wrong[i].to, report);
        free(report);
    }
} END_TEST

static const char streamed[] =
    "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n"
    "  data:\n    train: {format: csv, uri: /d/train.csv, label: click}\n    stream: {window: 5000, segment: country, guard: {labelRate: 3, calibration: 1.5, after: 7}}\n"
    "  features:\n    - {name: u, type: categorical}\n  model: {name: lr}\n  training: {batchSize: 32}\n";

START_TEST(a_stream_is_read_as_written_and_printed_again) {
    static struct pn_job j, k;
    struct pn_error err = {""};
    ck_assert_msg(parse(&j, streamed, &err) == PN_OK, "%s", err.text);
    char *text = pn_job_text(&j);
    ck_assert_msg(parse(&k, text, &err) == PN_OK, "%s", err.text);
    ck_assert_int_eq(memcmp(&j.stream, &k.stream, sizeof j.stream), 0);
    ck_assert(k.stream.window == 5000 && k.stream.guard_rate == 3 && k.stream.guard_calibration == 1.5 && k.stream.guard_after == 7);
    ck_assert_str_eq(k.stream.segment, "country");
    free(text);
    pn_job_free(&j);
    pn_job_free(&k);
} END_TEST

START_TEST(lists_of_files_and_json_lines_are_read_as_written_and_printed_again) {
    static const char text[] = "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n"
                               "  data:\n    train: {format: jsonl, uri: [a.jsonl, file:///x/b.jsonl.zst, c], label: click, columns: [u, v]}\n    test: {format: parquet, uri: [t.parquet, u.parquet], label: click, columns: [u, v]}\n"
                               "  features:\n    - {name: u, type: categorical}\n  model: {name: lr}\n";
    static struct pn_job j, k;
    struct pn_error err = {""};
    ck_assert_msg(parse(&j, text, &err) == PN_OK, "%s", err.text);
    char *again = pn_job_text(&j);
    ck_assert_msg(parse(&k, again, &err) == PN_OK, "%s", err.text);
    ck_assert_int_eq(memcmp(&j.train, &k.train, sizeof j.train), 0);
    ck_assert_int_eq(memcmp(&j.test, &k.test, sizeof j.test), 0);
    ck_assert(k.train.format == PN_FORMAT_JSONL && k.train.n_more == 2 && k.test.format == PN_FORMAT_PARQUET && k.test.n_more == 1);
    ck_assert_str_eq(k.train.path, "/base/a.jsonl");
    ck_assert_str_eq(k.train.more[0], "/x/b.jsonl.zst");
    ck_assert_str_eq(k.train.more[1], "/base/c");
    ck_assert_str_eq(k.test.path, "/base/t.parquet");
    free(again);
    pn_job_free(&j);
    pn_job_free(&k);
} END_TEST

START_TEST(what_does_not_go_with_a_stream_is_refused) {
    static const struct { const char *from, *to, *why; } bad[] = {
        {"batchSize: 32", "epochs: 2", "epochs must be 1"}, {"window: 5000", "window: 5", "window"}, {"labelRate: 3", "labelRate: 0.5", "labelRate"},
        {"labelRate: 3, calibration: 1.5, ", "", "guard needs"}, {"window: 5000", "windows: 5000", "windows"}, {"    stream:", "    shuffle: {buffer: 10}\n    stream:", "shuffle"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        static struct pn_job j;
        struct pn_error err = {""};
        const char *at = strstr(streamed, bad[i].from);
        char text[1200];
        ck_assert(at != NULL);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - streamed), streamed, bad[i].to, at + strlen(bad[i].from));
        ck_assert_msg(parse(&j, text, &err) == PN_INVALID, "case %zu was taken", i);
        ck_assert_msg(strstr(err.text, bad[i].why) != NULL, "case %zu: %s", i, err.text);
    }
} END_TEST

int main(void) {
    Suite *s = suite_create("job");
    TCase *t = tcase_create("job");
    tcase_set_timeout(t, 30);
    tcase_add_test(t, a_good_job_is_read_as_written);
    tcase_add_test(t, a_job_printed_and_read_again_is_the_same_job);
    tcase_add_test(t, every_mistake_is_named_by_line_and_column);
    tcase_add_test(t, an_external_job_declares_its_tables_and_is_printed_and_read_again);
    tcase_add_test(t, every_mistake_of_an_external_job_is_named_by_line);
    tcase_add_test(t, bytes_that_are_no_text_never_reach_the_yaml_reader);
    tcase_add_test(t, click_through_jobs_are_read_as_written_and_printed_again);
    tcase_add_test(t, dense_optimizers_are_read_as_written_and_printed_again);
    tcase_add_test(t, keys_that_do_not_fit_their_model_or_data_are_refused);
    tcase_add_test(t, weights_and_columns_by_id_are_read_as_written_and_printed_again);
    tcase_add_test(t, ranking_jobs_are_read_as_written_and_printed_again);
    tcase_add_test(t, early_stopping_goes_by_any_figure_that_is_measured);
    tcase_add_test(t, ranking_keys_that_do_not_fit_are_refused);
    tcase_add_test(t, a_stream_is_read_as_written_and_printed_again);
    tcase_add_test(t, lists_of_files_and_json_lines_are_read_as_written_and_printed_again);
    tcase_add_test(t, what_does_not_go_with_a_stream_is_refused);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
