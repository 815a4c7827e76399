/* The same raw rows through every transform, on training's way (a file, the reader, the pass for statistics) and on serving's (a request as a client writes it), are the
 * keys and numbers of golden.txt. A change of either way, or of what a stored model's keys mean, fails here: published models would no longer be read right.
 * (PINION_GOLDEN=write writes golden.txt anew: only for a transform that is new.) */
#include "common/json.h"
#include "nn/vocabulary.h"
#include "serving/request.h"
#include "snapshot/artifacts.h"
#include "tests/unit/reader/env.h"

static const char job_text[] =
    "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: golden}\nspec:\n  data:\n    train: {format: csv, uri: /d/a, label: click}\n  features:\n"
    "    - {name: user, type: categorical}\n"
    "    - {name: item, type: categorical, hash: {seed: 7}}\n"
    "    - {name: city, type: categorical, default: nowhere}\n"
    "    - {name: tags, type: multi, pooling: sqrtn, maxLength: 3}\n"
    "    - {name: words, type: multi, separator: ' ', default: none}\n"
    "    - {name: liked, type: sequence, column: history, maxLength: 2, hash: {share: item, seed: 7}}\n"
    "    - {name: age, type: numeric}\n"
    "    - {name: price, type: numeric, transform: [log1p, standardize]}\n"
    "    - {name: clipped, column: price, type: numeric, clip: [0, 10], transform: [log1p]}\n"
    "    - {name: filled, column: age, type: numeric, default: 30}\n"
    "    - {name: given, column: age, type: numeric, transform: [standardize], mean: 30, std: 8}\n"
    "    - {name: bucket, column: age, type: numeric, bucketize: [18, 30, 65]}\n"
    "    - {name: count, column: price, type: numeric, criteoLog: true}\n"
    "    - {name: both, type: cross, of: [user, bucket, city]}\n"
    "    - {name: known, column: item, type: categorical, vocabulary: {minCount: 3, oov: 2}}\n"
    "    - {name: past, column: history, type: multi, hash: {share: known}, vocabulary: {of: known, oov: 2}}\n"
    "    - {name: few, column: tags, type: multi, maxLength: 3, default: c, vocabulary: {values: [a, c]}}\n"
    "    - {name: part, column: price, type: numeric, transform: [log1p], bucketize: {quantiles: 3}}\n"
    "    - {name: pair, type: cross, of: [known, part]}\n"
    "    - {name: leaf, type: leaves, table: leaves, trees: 3, minCount: 1}\n"
    "  model: {name: wide_deep, embeddingDim: 2, hidden: [2], sequence: {fields: [liked], width: 4, heads: 1, feedForward: 4}}\n";

/* user item city tags words history age price */
enum { ROWS = 7, COLUMNS = 8 };
static const char *const names[COLUMNS] = {"user", "item", "city", "tags", "words", "history", "age", "price"};
static const char *const cells[ROWS][COLUMNS] = {
    {"u1", "42", "Bern", "a|b|c|d", "two words", "7|42|9", "17", "0"},   {"u2", "42", "", "a", "", "", "18", "9.5"},
    {"", "", "Z\xc3\xbcrich", "", "one", "42", "", "-3"},                {"u1", "9", "Bern", "|b||", " x  y ", "1||2", "29.999", "1e6"},
    {"u3", "9", "Bern", "c|b|a", "one", "9", "65", "2"},                 {"u3", "7", " Bern", "b", "One", "7", "old", "2.0001"},
    {"u1", "42", "Bern", "a", "one", "42", "1e400", ""},
};

/* Three trees over [age, price, then each of user, item and city as its share of clicks and log(1 + rows)]: what XGBoost would grow of these rows is its own affair and may change. Counts and
 * shares stay those of the rows. A node: column, threshold, left, right, whether a missing number goes left; -1: a leaf. */
static const char roots[] = "[0, 5, 8, 13]", nodes[] = "[0, 18, 1, 2, 0,  -1,  1, 5, 3, 4, 1,  -1, -1,   4, 0.43, 1, 2, 0,  -1, -1,   3, 1, 1, 2, 1,  -1,  6, 0.4, 3, 4, 0,  -1, -1]";

static char *with_trees(char *statistics) {
    struct pn_error err = {""};
    struct json_object *o = pn_json_parse(statistics, strlen(statistics), &err), *forest = pn_json_get(o, "leaf");
    ck_assert_msg(forest != NULL, "no forest; %s", err.text);
    pn_json_add(forest, "roots", pn_json_parse(roots, strlen(roots), &err));
    pn_json_add(forest, "nodes", pn_json_parse(nodes, strlen(nodes), &err));
    free(statistics);
    statistics = strdup(pn_json_text(o));
    json_object_put(o);
    return statistics;
}

/* What a worker writes as a file of the job, and a snapshot holds. */
static char vocabulary[1000];

/* As training and serving get them: those of the job, and the file that the statistics name. */
static void open_vocabularies(struct pn_vocabularies *v, const struct pn_job *job, const char *statistics) {
    struct pn_artifact *files;
    struct pn_error err = {""};
    size_t n;
    ck_assert_int_eq(pn_vocabularies_open(v, job, &err), PN_OK);
    ck_assert_int_eq(pn_artifacts_read(statistics, &files, &n, &err), PN_OK);
    ck_assert_uint_eq(n, 1);
    for (size_t i = 0; i < job->n_fields; i++) {
        if (strcmp(job->fields[i].name, files[0].feature) != 0) continue;
        ck_assert_int_eq(pn_artifact_verify(&files[0], vocabulary, strlen(vocabulary), &err), PN_OK);
        ck_assert_int_eq(pn_vocabulary_read(&v->of[i], vocabulary, strlen(vocabulary), job->fields[i].hash_seed, &err), PN_OK);
    }
    free(files);
}

static struct pn_features *open_features(const struct pn_job *job, const char *const *columns, size_t n) {
    struct pn_features *f;
    struct pn_error err = {""};
    ck_assert_msg(pn_features_open(&f, job, columns, n, &err) == PN_OK, "%s", err.text);
    return f;
}

/* The rows' keys by field and their numbers, as text. */
static void dump(struct pn_features *f, const struct pn_raw *raw, char *out) {
    struct pn_batch b;
    uint64_t n_bad = 0;
    ck_assert_int_eq(pn_features_batch(f, raw, &b, &n_bad), PN_OK);
    for (size_t e = 0; e < b.n_examples; e++) {
        out += sprintf(out, "row %zu\n", e);
        for (size_t s = 0; s < b.n_sparse; s++) {
            out += sprintf(out, " keys %zu:", s);
            for (uint32_t k = b.begin[s * b.n_examples + e]; k < b.begin[s * b.n_examples + e + 1]; k++) out += sprintf(out, " %016llx", (unsigned long long)b.keys[k]);
            out += sprintf(out, "\n");
        }
        out += sprintf(out, " numbers:");
        for (size_t d = 0; d < b.n_dense; d++) out += sprintf(out, " %.9g", (double)b.dense[e * b.n_dense + d]);
        out += sprintf(out, "\n");
    }
    sprintf(out, "bad %llu\n", (unsigned long long)n_bad);
    pn_batch_free(&b);
}

/* Through a file: the pass for statistics, then the rows. */
static char *trained(const struct pn_job *job, char *out) {
    struct fake_env f;
    char text[2000] = "", *at = text, *statistics = NULL;
    struct pn_vocabularies vocabularies;
    for (int c = 0; c < COLUMNS; c++) at += sprintf(at, "%s,", names[c]);
    at += sprintf(at, "click\n");
    for (int r = 0; r < ROWS; r++) {
        for (int c = 0; c < COLUMNS; c++) at += sprintf(at, "%s,", cells[r][c]);
        at += sprintf(at, "%d\n", r % 2);
    }
    fake_init(&f, 1);
    fake_put_text(&f, "/d/a", text);
    for (int pass = 0; pass < 2; pass++) {
        struct pn_reader *r = pn_reader_open(&f.env, &job->train, &(struct pn_reader_options){.n_producers = 1, .batch_size = 100});
        const struct answer a = next(&f, r);
        ck_assert_msg(a.result == PN_OK, "%s", a.err.text);
        struct pn_features *features = open_features(job, a.raw->names, a.raw->n_columns);
        struct pn_error err = {""};
        if (pass == 0) {
            ck_assert(pn_features_need_statistics(features));
            pn_features_observe(features, a.raw);
            ck_assert_msg(pn_features_train(features, &err) == PN_OK, "%s", err.text);
            pn_features_freeze(features);
            statistics = with_trees(pn_features_statistics(features));
            for (size_t i = 0, n; i < job->n_fields; i++) {
                char name[PN_VOCABULARY_NAME];
                const char *made = pn_features_file(features, i, &n, name);
                if (made != NULL) snprintf(vocabulary, sizeof vocabulary, "%s", made);
            }
        } else {
            ck_assert_msg(pn_features_set_statistics(features, statistics, &err) == PN_OK, "%s", err.text);
            open_vocabularies(&vocabularies, job, statistics);
            pn_features_use(features, &vocabularies);
            dump(features, a.raw, out);
            pn_vocabularies_close(&vocabularies);
        }
        pn_features_close(features);
        close_reader(&f, r);
    }
    fake_free(&f);
    return statistics;
}

/* Through a request, with the job and the statistics as a snapshot holds them. */
static void served(const struct pn_job *job, const char *statistics, char *out) {
    struct pn_columns columns;
    struct pn_infer q;
    struct pn_error err = {""};
    char body[4000] = "{\"inputs\":[", *at = body + strlen(body);
    for (int c = 0; c < COLUMNS; c++) {
        at += sprintf(at, "%s{\"name\":\"%s\",\"shape\":[%d],\"datatype\":\"BYTES\",\"data\":[", c ? "," : "", names[c], ROWS);
        for (int r = 0; r < ROWS; r++) at += sprintf(at, "%s\"%s\"", r ? "," : "", cells[r][c]);
        at += sprintf(at, "]}");
    }
    sprintf(at, "]}");
    pn_columns_of(&columns, job);
    ck_assert_msg(pn_infer_parse(&q, &columns, NULL, (const uint8_t *)body, strlen(body), &err) == PN_OK, "%s", err.text);
    ck_assert_uint_eq(q.candidates.n_rows, ROWS);
    uint32_t offset[COLUMNS * ROWS], length[COLUMNS * ROWS];
    const struct pn_raw raw = pn_candidates_raw(&columns, &q.candidates, 0, ROWS, offset, length);
    struct pn_features *f = open_features(job, columns.names, columns.n);
    ck_assert_msg(pn_features_set_statistics(f, statistics, &err) == PN_OK, "%s", err.text);
    struct pn_vocabularies vocabularies;
    open_vocabularies(&vocabularies, job, statistics);
    pn_features_use(f, &vocabularies);
    dump(f, &raw, out);
    pn_vocabularies_close(&vocabularies);
    pn_features_close(f);
    pn_infer_free(&q);
}

START_TEST(training_and_serving_make_the_keys_and_numbers_of_the_golden_file) {
    static struct pn_job job, again;
    static char training[20000], serving[20000], golden[20000];
    struct pn_error err = {""};
    ck_assert_msg(pn_job_parse(&job, job_text, strlen(job_text), "job", NULL, NULL, &err) == PN_OK, "%s", err.text);
    char *text = pn_job_text(&job), *statistics = trained(&job, training);
    ck_assert_msg(pn_job_parse(&again, text, strlen(text), "job", NULL, NULL, &err) == PN_OK, "%s", err.text);
    served(&again, statistics, serving);
    ck_assert_str_eq(training, serving);
    const char *path = PINION_SOURCE "/tests/unit/serving/golden.txt";
    if (getenv("PINION_GOLDEN") != NULL) {
        FILE *f = fopen(path, "w");
        ck_assert(f != NULL);
        fputs(training, f);
        fclose(f);
    }
    FILE *f = fopen(path, "r");
    ck_assert_msg(f != NULL, "%s is not there", path);
    golden[fread(golden, 1, sizeof golden - 1, f)] = '\0';
    fclose(f);
    ck_assert_str_eq(training, golden);
    free(text);
    free(statistics);
    pn_job_free(&job);
    pn_job_free(&again);
} END_TEST

int main(void) {
    TCase *c = tcase_create("golden");
    tcase_add_test(c, training_and_serving_make_the_keys_and_numbers_of_the_golden_file);
    return run_suite(c);
}
