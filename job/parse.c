/* The job file as a whole: what its text may be, and its sections in order. A section has a file of its own (job/sections.h). */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include "job/sections.h"

#define KEYS(...) (const char *const[]){__VA_ARGS__, NULL}

/* Early stopping by what is never measured would take the first epoch for the best. */
static void check_stop_by(struct pn_yaml *y, struct fy_node *n, const struct pn_job *job) {
    const enum pn_metric_kind by = job->stop_by;
    const bool lists = by == PN_BY_HR || by == PN_BY_NDCG || by == PN_BY_RECALL || by == PN_BY_MRR;
    if (job->patience == 0 || lists) return;
    if (job->validation.rank_all) pn_yaml_problem(y, n, "earlyStopping: rankAll measures hr, ndcg, recall and mrr, not %s", pn_metric_names[by]);
    else if (job->model == PN_MODEL_SASREC && (by == PN_BY_GAUC || by == PN_BY_NE)) pn_yaml_problem(y, n, "earlyStopping: %s is not measured for sasrec, whose lists have one target each", pn_metric_names[by]);
    else if (by == PN_BY_GAUC && job->group_by == 0) pn_yaml_problem(y, n, "earlyStopping: gauc needs spec.validation.groupBy: the field whose rows are one group");
}

static void read_rest(struct pn_yaml *y, struct fy_node *spec, struct pn_job *job) {
    bool mrr = job->stop_by == PN_BY_MRR;
    struct fy_node *n = pn_yaml_get(spec, "checkpoint");
    if (n != NULL && pn_yaml_keys(y, n, "spec.checkpoint", KEYS("every", "keep", "ringBytes"), KEYS("uri", "fullEvery", "incremental"))) {
        pn_yaml_duration(y, pn_yaml_get(n, "every"), "every", &job->checkpoint_every_ms);
        pn_yaml_count32(y, pn_yaml_get(n, "keep"), "keep", 2, 1000, &job->checkpoint_keep);
        pn_yaml_bytes(y, pn_yaml_get(n, "ringBytes"), "ringBytes", 4096, 1ull << 40, &job->ring_bytes);
    }
    n = pn_yaml_get(spec, "failurePolicy");
    if (n != NULL && pn_yaml_keys(y, n, "spec.failurePolicy", KEYS("maxRestarts"), KEYS("onNaN")))
        pn_yaml_count32(y, pn_yaml_get(n, "maxRestarts"), "maxRestarts", 0, 1u << 30, &job->max_restarts);
    n = pn_yaml_get(spec, "validation");
    if (n != NULL && pn_yaml_keys(y, n, "spec.validation", KEYS("metrics", "everyEpoch", "groupBy"), KEYS("gate", "segments"))) {
        char name[64] = "";
        if (pn_yaml_get(n, "groupBy") != NULL && pn_yaml_text(y, pn_yaml_get(n, "groupBy"), "groupBy", name, sizeof name)) {
            const int i = pn_job_find_field(job, name);
            if (i < 0 || !pn_field_keyed(&job->fields[i]) || job->fields[i].type == PN_FIELD_SEQUENCE) pn_yaml_problem(y, pn_yaml_get(n, "groupBy"), "groupBy: no feature with keys is named \"%s\"", name);
            else job->group_by = (uint32_t)i + 1;
        }
        pn_yaml_truth(y, pn_yaml_get(n, "everyEpoch"), "everyEpoch", &job->evaluate_every_epoch);
        struct fy_node *m = pn_yaml_get(n, "metrics");
        void *it = NULL;
        if (m != NULL && fy_node_get_type(m) != FYNT_SEQUENCE) pn_yaml_problem(y, m, "metrics must be a list of: auc, logloss, ne, calibration, ece, gauc, hr@K, ndcg@K, recall@K, mrr");
        else if (m != NULL)
            for (struct fy_node *x; (x = fy_node_sequence_iterate(m, &it)) != NULL;) {
                char text[64] = "";
                int which;
                enum pn_metric_kind kind;
                if (strchr(pn_yaml_text(y, x, "metric", text, sizeof text) ? text : "", '@') == NULL || !pn_job_ranking_metric(y, x, text, job, &kind))
                    pn_yaml_choice(y, x, "metric", KEYS("auc", "logloss", "ne", "calibration", "ece", "gauc", "mrr"), NULL, &which);
                mrr = mrr || strcmp(text, "mrr") == 0;
            }
    }
    if (mrr && job->rank_k == 0) job->rank_k = 10; /* MRR has no K; what is measured beside it has */
    check_stop_by(y, spec, job);
    if (job->model != PN_MODEL_SASREC && job->rank_k > 0 && job->group_by == 0) pn_yaml_problem(y, n != NULL ? n : spec, "hr, ndcg, recall and mrr need spec.validation.groupBy: the field whose rows are one list");
    for (int i = 0; i < 2; i++)
        if ((i == 0 ? &job->validation : &job->test)->rank_all && (job->model != PN_MODEL_MF || job->rank_k == 0 || job->group_by != 1))
            pn_yaml_problem(y, spec, "rankAll needs model mf, a metric such as recall@20 and groupBy of the first feature (the user)");
    n = pn_yaml_get(spec, "publish");
    if (n != NULL && pn_yaml_keys(y, n, "spec.publish", KEYS("model", "storage", "gate"), KEYS("every", "delta", "labels"))) {
        if (job->model == PN_MODEL_EXTERNAL) pn_yaml_problem(y, n, "an external job cannot be published: no features are known by which a replica could rank");
        job->publish = true;
        int storage = PN_STORE_FLOAT16;
        if (pn_yaml_get(n, "model") == NULL) pn_yaml_problem(y, n, "spec.publish needs a model name");
        if (pn_yaml_text(y, pn_yaml_get(n, "model"), "model", job->publish_model, sizeof job->publish_model) && strpbrk(job->publish_model, "/\\ .") != NULL)
            pn_yaml_problem(y, pn_yaml_get(n, "model"), "a model's name has no slash, blank or dot: it names a folder");
        if (pn_yaml_choice(y, pn_yaml_get(n, "storage"), "storage", KEYS("float32", "float16", "int8"), KEYS("bfloat16", "int4"), &storage)) job->publish_storage = storage;
        struct fy_node *g = pn_yaml_get(n, "gate");
        if (g != NULL && pn_yaml_keys(y, g, "gate", KEYS("minAuc"), NULL)) pn_yaml_real(y, pn_yaml_get(g, "minAuc"), "minAuc", 0, 1, &job->publish_min_auc);
    }
}

static void read_spec(struct pn_yaml *y, struct fy_node *spec, const char *base, struct pn_job *job) {
    if (!pn_yaml_keys(y, spec, "spec", KEYS("data", "features", "tables", "model", "optimizer", "training", "checkpoint", "failurePolicy", "validation", "publish", "audit", "privacy"),
                      KEYS("tracking", "resources", "stream", "schedule"))) return;
    struct fy_node *data = pn_yaml_get(spec, "data");
    bool external = false;
    if (pn_yaml_keys(y, data, "spec.data", KEYS("train", "validation", "test", "shuffle", "external", "stream"), NULL)) {
        pn_yaml_truth(y, pn_yaml_get(data, "external"), "external", &external);
        for (const char *const *key = KEYS("train", "validation", "test", "shuffle"); external && *key != NULL; key++)
            if (pn_yaml_get(data, *key) != NULL) pn_yaml_problem(y, pn_yaml_get(data, *key), "an external job has no %s: its clients bring the data", *key);
        pn_job_read_data(y, pn_yaml_get(data, "train"), "spec.data.train", base, &job->train);
        pn_job_read_data(y, pn_yaml_get(data, "validation"), "spec.data.validation", base, &job->validation);
        pn_job_read_data(y, pn_yaml_get(data, "test"), "spec.data.test", base, &job->test);
        if (job->train.rank_all) pn_yaml_problem(y, data, "rankAll is for validation and test");
        if (!job->train.present && !external) pn_yaml_problem(y, data, "spec.data needs train, or external: true for a job whose clients bring the data");
        struct fy_node *shuffle = pn_yaml_get(data, "shuffle");
        if (shuffle != NULL && pn_yaml_keys(y, shuffle, "shuffle", KEYS("buffer", "seed"), NULL)) {
            pn_yaml_count(y, pn_yaml_get(shuffle, "buffer"), "buffer", 0, 100000000, &job->shuffle_buffer);
            pn_yaml_count(y, pn_yaml_get(shuffle, "seed"), "seed", 0, UINT64_MAX, &job->shuffle_seed);
        }
    }
    pn_job_read_model(y, pn_yaml_get(spec, "model"), base, job);
    pn_job_read_training(y, pn_yaml_get(spec, "training"), job);
    pn_job_read_device_cache(y, pn_yaml_get(spec, "training"), job);
    if ((job->model == PN_MODEL_AUDIT) != (job->train.format == PN_FORMAT_AUDIT) && job->train.present)
        pn_yaml_problem(y, pn_yaml_get(spec, "model"), "the audit model and the audit data format go together");
    if ((job->model == PN_MODEL_SASREC) != pn_format_sequences(job->train.format) && job->train.present)
        pn_yaml_problem(y, pn_yaml_get(spec, "model"), "the model sasrec and the data formats sasrec and s3rec go together");
    if ((job->model == PN_MODEL_EXTERNAL) != external && (external || job->train.present))
        pn_yaml_problem(y, pn_yaml_get(spec, "model"), "model {name: external} and data {external: true} go together");
    struct fy_node *features = pn_yaml_get(spec, "features"), *audit = pn_yaml_get(spec, "audit");
    uint64_t audit_memory = 0;
    job->audit_keys = 1000;
    if (audit != NULL && pn_yaml_keys(y, audit, "spec.audit", KEYS("keys", "memory"), NULL)) {
        pn_yaml_count(y, pn_yaml_get(audit, "keys"), "keys", 1, 100000000, &job->audit_keys);
        pn_yaml_bytes(y, pn_yaml_get(audit, "memory"), "memory", 1024, 1ull << 50, &audit_memory);
    }
    if (job->model == PN_MODEL_AUDIT) {
        if (features != NULL) pn_yaml_problem(y, features, "the audit model takes no features");
        job->tables[0] = (struct pn_table_spec){.name = "audit", .dim = 8, .optimizer = pn_job_default_optimizer(PN_SGD, 1.0f), .init = PN_INIT_ZERO,
                                                .memory = audit_memory, .track = audit_memory > 0};
        job->n_tables = 1;
    } else if (job->model == PN_MODEL_EXTERNAL) {
        if (features != NULL) pn_yaml_problem(y, features, "an external job takes no features: its clients make the keys");
        if (audit != NULL) pn_yaml_problem(y, audit, "spec.audit goes with the audit model only");
        if (pn_yaml_get(spec, "optimizer") != NULL)
            pn_yaml_problem(y, pn_yaml_get(spec, "optimizer"), "spec.optimizer is for dense parameters, which an external job keeps itself; a table's is tables.NAME.optimizer");
        pn_job_declare_tables(y, spec, job);
        pn_job_read_tables(y, pn_yaml_get(spec, "tables"), job);
        pn_job_read_imports(y, pn_yaml_get(spec, "tables"), base, job);
    } else {
        if (audit != NULL) pn_yaml_problem(y, audit, "spec.audit goes with the audit model only");
        if (features == NULL || fy_node_get_type(features) != FYNT_SEQUENCE || fy_node_sequence_item_count(features) < 1 ||
            fy_node_sequence_item_count(features) > PN_MAX_FIELDS)
            pn_yaml_problem(y, features != NULL ? features : spec, "spec.features must be a list of 1 to %d features", PN_MAX_FIELDS);
        else {
            void *it = NULL;
            for (struct fy_node *f; (f = fy_node_sequence_iterate(features, &it)) != NULL;) pn_job_read_feature(y, f, base, job);
        }
        pn_job_check_leaves(y, features, job);
        pn_job_check_weights(job);
        pn_job_read_sequence(y, pn_yaml_get(pn_yaml_get(spec, "model"), "sequence"), job);
        pn_job_read_tables(y, pn_yaml_get(spec, "tables"), job);
        pn_job_read_imports(y, pn_yaml_get(spec, "tables"), base, job);
        if (pn_model_pair(job->model)) {
            bool pair = job->n_fields == 2;
            for (size_t i = 0; i < job->n_fields; i++) pair = pair && job->fields[i].type == PN_FIELD_CATEGORICAL;
            if (!pair) pn_yaml_problem(y, features, "mf, gmf, mlp and neumf take two categorical features: first the user, then the item");
        }
        if (job->n_tables == 0 && y->n_problems == 0) pn_yaml_problem(y, features, "no feature has keys: a model needs at least one categorical feature");
    }
    pn_job_add_dense_table(y, pn_yaml_get(spec, "optimizer"), job);
    pn_job_read_stream(y, pn_yaml_get(data, "stream"), job);
    read_rest(y, spec, job);
    pn_job_read_privacy(y, pn_yaml_get(spec, "privacy"), job);
    pn_job_check_kafka(y, data, job);
    pn_job_check_devices(y, pn_yaml_get(spec, "training"), job);
}

static void quiet(struct fy_diag *d, void *user, const char *text, size_t n) {
    struct pn_error *e = user;
    (void)d;
    if (e->text[0] == '\0') pn_fail(e, PN_INVALID, "%.*s", (int)(n > 300 ? 300 : n), text);
}

/* libfyaml 0.7.12 does not come back from some texts that are no UTF-8 (found by fuzzing: "%a" and a byte F8): they never reach it. */
static bool plain_text(const char *text, size_t n, size_t *bad) {
    const unsigned char *p = (const unsigned char *)text;
    for (size_t i = 0; i < n;) {
        *bad = i;
        unsigned c = p[i];
        size_t more = c < 0x80 ? 0 : c >= 0xc2 && c < 0xe0 ? 1 : c >= 0xe0 && c < 0xf0 ? 2 : c >= 0xf0 && c < 0xf5 ? 3 : 4;
        if (c < 0x20 && c != '\n' && c != '\r' && c != '\t') return false;
        if (c == 0x7f || more == 4 || i + more >= n + (more == 0)) return false;
        uint32_t point = more == 0 ? c : c & (0x3fu >> more);
        for (size_t k = 1; k <= more; k++) {
            if ((p[i + k] & 0xc0) != 0x80) return false;
            point = point << 6 | (p[i + k] & 0x3f);
        }
        static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
        if (point < least[more] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000) || (point >= 0x80 && point < 0xa0) || point == 0xfeff) return false;
        i += 1 + more;
    }
    return true;
}

/* Parts of YAML that no job needs, and on which libfyaml 0.7.12 was seen to hang or crash. NULL: none is there; else what, and the line. */
static const char *beyond_a_job(const char *text, size_t n, size_t *line) {
    bool indent = true; /* nothing but blanks since the line began */
    *line = 1;
    for (size_t i = 0; i < n; i++) {
        const char c = text[i], next = i + 1 < n ? text[i + 1] : '\n';
        const bool opens = indent || strchr(" [{,:-?", text[i - 1]) != NULL;
        if (c == '\t') return "a tab character; indent with blanks";
        if (indent && c == '%') return "YAML directives (%) have no place in a job file";
        if (opens && c == '?' && (next == ' ' || next == '\n')) return "a complex key (?) has no place in a job file";
        const bool word = c == '*' && i > 1 && text[i - 1] == '-' && (isalnum((unsigned char)text[i - 2]) || text[i - 2] == '_'); /* part-*.csv */
        if (opens && !word && (c == '&' || c == '*' || c == '!') && next != ' ' && next != '\n') return "anchors, aliases and tags (& * !) have no place in a job file";
        if (c == '\n' || c == '\r') {
            indent = true;
            *line += c == '\n';
        } else if (c != ' ') {
            indent = false;
        }
    }
    return NULL;
}

enum pn_result pn_job_parse(struct pn_job *job, const char *text, size_t n_bytes, const char *file, const char *base, char **report, struct pn_error *err) {
    memset(job, 0, sizeof *job);
    *job = (struct pn_job){.batch_size = 512, .epochs = 1, .seed = 1, .ack_durable = true, .max_in_flight = 4, .max_restarts = 100,
                           .checkpoint_keep = 3, .ring_bytes = 256u << 20, .evaluate_every_epoch = true, .publish_storage = PN_STORE_FLOAT16};
    if (report != NULL) *report = NULL;
    struct pn_yaml y = {.file = file, .text = text, .n_bytes = n_bytes};
    struct pn_error syntax = {""};
    struct fy_document *doc = NULL;
    size_t bad = 0;
    const char *what;
    /* Anchors and aliases are refused by their first character: nothing in a job needs them, and they can blow up a tree. */
    if (n_bytes > (1u << 20)) pn_yaml_problem(&y, NULL, "the file has %zu bytes; a job file has at most 1048576", n_bytes);
    else if (!plain_text(text, n_bytes, &bad)) pn_yaml_problem(&y, NULL, "byte %zu is no UTF-8 text or a control character", bad);
    else if ((what = beyond_a_job(text, n_bytes, &bad)) != NULL) pn_yaml_problem(&y, NULL, "line %zu: %s", bad, what);
    else {
        struct fy_diag_cfg dc;
        fy_diag_cfg_default(&dc);
        dc.fp = NULL;
        dc.output_fn = quiet;
        dc.user = &syntax;
        dc.colorize = false;
        struct fy_diag *diag = fy_diag_create(&dc);
        struct fy_parse_cfg cfg = {.flags = FYPCF_DEFAULT_VERSION_AUTO, .diag = diag};
        doc = fy_document_build_from_string(&cfg, text, n_bytes);
        fy_diag_destroy(diag);
        if (doc == NULL || fy_document_root(doc) == NULL) {
            /* libfyaml's own line begins with "<memory-@0x..>:line:column: error:" */
            const char *at = strstr(syntax.text, ">:");
            if (at != NULL) {
                y.n_problems++;
                pn_fail(&y.first, PN_INVALID, "%s:%s", file, at + 2);
                y.report = strdup(y.first.text);
            } else {
                pn_yaml_problem(&y, NULL, "the file is no YAML document%s%s", syntax.text[0] ? ": " : " with anything in it", syntax.text);
            }
        }
    }
    if (y.n_problems == 0) {
        struct fy_node *root = fy_document_root(doc);
        if (pn_yaml_keys(&y, root, "the job file", KEYS("apiVersion", "kind", "metadata", "spec"), NULL)) {
            int which = -1, kind = -1;
            struct fy_node *meta = pn_yaml_get(root, "metadata");
            if (!pn_yaml_choice(&y, pn_yaml_get(root, "apiVersion"), "apiVersion", KEYS("pinion/v1"), NULL, &which)) which = 0;
            if (!pn_yaml_choice(&y, pn_yaml_get(root, "kind"), "kind", KEYS("TrainingJob"), NULL, &kind)) kind = 0;
            if (which < 0) pn_yaml_problem(&y, root, "apiVersion is missing; allowed: pinion/v1");
            if (kind < 0) pn_yaml_problem(&y, root, "kind is missing; allowed: TrainingJob");
            if (pn_yaml_keys(&y, meta, "metadata", KEYS("name", "labels"), NULL)) {
                if (pn_yaml_get(meta, "name") == NULL) pn_yaml_problem(&y, meta, "metadata needs a name");
                pn_yaml_text(&y, pn_yaml_get(meta, "name"), "name", job->name, sizeof job->name);
            }
            if (pn_yaml_get(root, "spec") == NULL) pn_yaml_problem(&y, root, "spec is missing");
            else read_spec(&y, pn_yaml_get(root, "spec"), base, job);
        }
    }
    if (doc != NULL) fy_document_destroy(doc);
    if (y.n_problems > 0 || y.no_memory) {
        if (err != NULL) *err = y.first;
        if (report != NULL) {
            *report = y.report;
            y.report = NULL;
        }
        free(y.report);
        pn_job_free(job);
        return y.no_memory ? pn_fail(err, PN_NO_MEMORY, "no memory to read %s", file) : PN_INVALID;
    }
    free(y.report);
    return PN_OK;
}

void pn_job_free(struct pn_job *job) {
    for (size_t i = 0; i < PN_MAX_FIELDS; i++) {
        free(job->fields[i].boundaries);
        job->fields[i].boundaries = NULL;
        free(job->fields[i].vocabulary.values);
        job->fields[i].vocabulary.values = NULL;
    }
}
