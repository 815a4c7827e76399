/* The job file: its shape, its limits, and what names mean. One function a section; each fills its part of struct pn_job. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "job/sections.h"
#include "job/yaml.h"

#define KEYS(...) (const char *const[]){__VA_ARGS__, NULL}

static const char *const formats[] = {"csv", "criteo", "movielens", "audit", "libfm", "ncf", "lightgcn", "sasrec", "s3rec", "libsvm", NULL};
static const char *const formats_later[] = {"parquet", "kafka", "jsonl", NULL};
static const char *const models[] = {"lr", "fm", "deepfm", "audit", "external", "wide_deep", "dcn_v2", "dlrm", "mf", "gmf", "mlp", "neumf", "sasrec", NULL};
static const char *const models_later[] = {"gbdt+lr", "finalmlp", NULL};
static const char *const optimizers[] = {"sgd", "adagrad", "rowwise-adagrad", "adam", "ftrl", NULL};

/* A path or file:// URI into out. */
static void read_path(struct pn_yaml *y, struct fy_node *uri, const char *base, char out[400]) {
    char text[400] = "";
    if (fy_node_get_type(uri) == FYNT_SEQUENCE) pn_yaml_problem(y, uri, "a list of files is not available yet in this version; give one uri");
    else if (pn_yaml_text(y, uri, "uri", text, sizeof text)) {
        const char *path = strncmp(text, "file://", 7) == 0 ? text + 7 : text;
        if (path == text && strstr(text, "://") != NULL) pn_yaml_problem(y, uri, "uri \"%s\": only file:// and plain paths are available yet", text);
        else if (strstr(path, "${") != NULL) pn_yaml_problem(y, uri, "uri \"%s\": the only variable is ${PINION_DATA}, replaced by `pinion submit`; it is not set", text);
        else {
            int k = path[0] == '/' || base == NULL ? snprintf(out, 400, "%s", path) : snprintf(out, 400, "%s/%s", base, path);
            if (k < 0 || k >= 400) pn_yaml_problem(y, uri, "the path is longer than 399 characters");
        }
    }
}

/* ",a,b,c," has ",b,": is it one of the columns? */
static bool has_column(const char *columns, const char *name) {
    const size_t n = strlen(name);
    for (const char *at = columns; n > 0 && (at = strstr(at, name)) != NULL; at++)
        if ((at == columns || at[-1] == ',') && (at[n] == ',' || at[n] == '\0')) return true;
    return false;
}

static void read_columns(struct pn_yaml *y, struct fy_node *n, struct pn_data *d) {
    if (n == NULL) return;
    if (fy_node_get_type(n) != FYNT_SEQUENCE || fy_node_sequence_item_count(n) < 1 || fy_node_sequence_item_count(n) > PN_MAX_FIELDS) {
        pn_yaml_problem(y, n, "columns must be a list of 1 to %d names", PN_MAX_FIELDS);
        return;
    }
    void *it = NULL;
    for (struct fy_node *c; (c = fy_node_sequence_iterate(n, &it)) != NULL;) {
        char name[64] = "";
        if (!pn_yaml_text(y, c, "a column", name, sizeof name)) continue;
        const size_t used = strlen(d->columns);
        if (name[0] == '\0' || strchr(name, ',') != NULL) pn_yaml_problem(y, c, "a column's name is not empty and has no comma");
        else if (has_column(d->columns, name)) pn_yaml_problem(y, c, "column \"%s\" stands twice", name);
        else if (used + strlen(name) + 2 > sizeof d->columns) pn_yaml_problem(y, c, "the columns' names are longer than %zu characters together", sizeof d->columns - 1);
        else snprintf(d->columns + used, sizeof d->columns - used, "%s%s", used > 0 ? "," : "", name);
    }
}

static bool pn_format_pairs(enum pn_format f) { return f == PN_FORMAT_NCF || f == PN_FORMAT_LIGHTGCN; }

static void read_seen(struct pn_yaml *y, struct fy_node *seen, const char *what, const char *base, struct pn_data *d) {
    if (fy_node_get_type(seen) != FYNT_SEQUENCE || fy_node_sequence_item_count(seen) < 1 || fy_node_sequence_item_count(seen) > 4) {
        pn_yaml_problem(y, seen, "%s must be a list of 1 to 4 files", what);
        return;
    }
    void *it = NULL;
    for (struct fy_node *s; (s = fy_node_sequence_iterate(seen, &it)) != NULL;) read_path(y, s, base, d->negatives.seen[d->negatives.n_seen++]);
}

static void read_negatives(struct pn_yaml *y, struct fy_node *n, const char *base, struct pn_data *d) {
    if (n == NULL || !pn_yaml_keys(y, n, "negatives", KEYS("perPositive", "column", "group", "seen", "seed", "redraw", "distribution", "power", "unseen"), NULL)) return;
    const bool pairs = pn_format_pairs(d->format);
    uint64_t count = 1;
    for (const char *const *key = pairs ? KEYS("column", "group") : KEYS("distribution", "power", "unseen"); *key != NULL; key++)
        if (pn_yaml_get(n, *key) != NULL) pn_yaml_problem(y, pn_yaml_get(n, *key), "%s has a meaning for the formats %s only", *key, pairs ? "libfm and libsvm" : "ncf and lightgcn");
    int distribution = 0;
    bool unseen = true;
    pn_yaml_choice(y, pn_yaml_get(n, "distribution"), "distribution", KEYS("uniform", "popularity"), NULL, &distribution);
    d->negatives.power = distribution;
    pn_yaml_real(y, pn_yaml_get(n, "power"), "power", 0.01, 10, &d->negatives.power);
    if (pn_yaml_get(n, "power") != NULL && distribution == 0) pn_yaml_problem(y, pn_yaml_get(n, "power"), "power has a meaning for distribution: popularity only");
    if (pn_yaml_truth(y, pn_yaml_get(n, "unseen"), "unseen", &unseen)) d->negatives.any = !unseen;
    pn_yaml_count(y, pn_yaml_get(n, "perPositive"), "perPositive", 1, 1000, &count);
    d->negatives.per_positive = (uint32_t)count;
    pn_yaml_count(y, pn_yaml_get(n, "seed"), "seed", 0, UINT64_MAX, &d->negatives.seed);
    pn_yaml_truth(y, pn_yaml_get(n, "redraw"), "redraw", &d->negatives.redraw);
    if (pn_format_sequences(d->format)) return;
    snprintf(d->negatives.column, sizeof d->negatives.column, "item");
    snprintf(d->negatives.group, sizeof d->negatives.group, "user");
    pn_yaml_text(y, pn_yaml_get(n, "column"), "column", d->negatives.column, sizeof d->negatives.column);
    pn_yaml_text(y, pn_yaml_get(n, "group"), "group", d->negatives.group, sizeof d->negatives.group);
    if (!pairs && !has_column(d->columns, d->negatives.column)) pn_yaml_problem(y, n, "negatives: the data has no column \"%s\" (columns names them)", d->negatives.column);
    if (!pairs && !has_column(d->columns, d->negatives.group)) pn_yaml_problem(y, n, "negatives: the data has no column \"%s\" (columns names them)", d->negatives.group);
    struct fy_node *seen = pn_yaml_get(n, "seen");
    if (seen == NULL) { /* the file itself */
        snprintf(d->negatives.seen[0], sizeof d->negatives.seen[0], "%s", d->path);
        d->negatives.n_seen = 1;
        return;
    }
    read_seen(y, seen, "seen", base, d);
}

/* What is for pairs of users and items only, and what follows from it. */
static void read_pairs(struct pn_yaml *y, struct fy_node *n, const char *what, const char *base, struct pn_data *d) {
    struct fy_node *hold = pn_yaml_get(n, "holdOut"), *all = pn_yaml_get(n, "rankAll"), *part = pn_yaml_get(n, "part");
    if (!pn_format_pairs(d->format)) {
        if (hold != NULL || all != NULL) pn_yaml_problem(y, hold != NULL ? hold : all, "%s has a meaning for the formats ncf and lightgcn only", hold != NULL ? "holdOut" : "rankAll");
        if (d->part == PN_PART_HELD) pn_yaml_problem(y, part, "part: held has a meaning for the formats ncf and lightgcn only");
        return;
    }
    if (hold != NULL && pn_yaml_keys(y, hold, "holdOut", KEYS("perUser", "seed"), NULL)) {
        uint64_t count = 1;
        pn_yaml_count(y, pn_yaml_get(hold, "perUser"), "perUser", 1, 16, &count);
        pn_yaml_count(y, pn_yaml_get(hold, "seed"), "seed", 0, UINT64_MAX, &d->hold_out_seed);
        d->hold_out = (uint32_t)count;
        if (d->part != PN_PART_TRAIN && d->part != PN_PART_HELD) pn_yaml_problem(y, n, "%s: with holdOut goes part: train or part: held", what);
    } else if (d->part != PN_PART_ALL) pn_yaml_problem(y, part, "%s: part goes with holdOut here", what);
    if (all != NULL && d->negatives.per_positive > 0) pn_yaml_problem(y, all, "negatives and rankAll do not go together");
    else if (all != NULL) {
        read_seen(y, all, "rankAll", base, d);
        d->rank_all = true;
    }
    bool own = d->rank_all;
    for (uint32_t i = 0; i < d->negatives.n_seen; i++) own = own || strcmp(d->negatives.seen[i], d->path) == 0;
    if (d->hold_out > 0 && d->negatives.n_seen == 0) snprintf(d->negatives.seen[d->negatives.n_seen++], sizeof d->negatives.seen[0], "%s", d->path);
    else if (d->hold_out > 0 && !own) pn_yaml_problem(y, n, "%s: with holdOut the file itself must be among those of seen", what);
}

static void read_data(struct pn_yaml *y, struct fy_node *n, const char *what, const char *base, struct pn_data *d) {
    if (n == NULL) return;
    *d = (struct pn_data){.present = true, .threshold = 0.5};
    if (!pn_yaml_keys(y, n, what, KEYS("format", "uri", "label", "threshold", "rows", "firstRow", "split", "part", "columns", "negatives", "holdOut", "rankAll", "history"), KEYS("stream", "kafka", "weight"))) return;
    int format = -1, part = PN_PART_ALL;
    if (pn_yaml_get(n, "format") == NULL) pn_yaml_problem(y, n, "%s needs a format: csv, criteo, movielens, libfm, libsvm, ncf, lightgcn, sasrec, s3rec or audit", what);
    if (!pn_yaml_choice(y, pn_yaml_get(n, "format"), "format", formats, formats_later, &format) || format < 0) return;
    d->format = format == 9 ? PN_FORMAT_LIBFM : (enum pn_format)format; /* libsvm is the same */
    pn_yaml_count(y, pn_yaml_get(n, "rows"), "rows", 1, 1ull << 48, &d->n_rows);
    pn_yaml_count(y, pn_yaml_get(n, "firstRow"), "firstRow", 0, 1ull << 48, &d->first_row);
    if (d->format == PN_FORMAT_AUDIT) {
        if (d->n_rows == 0) pn_yaml_problem(y, n, "%s: the audit format needs rows", what);
        return;
    }
    if (d->format == PN_FORMAT_MOVIELENS) d->threshold = 4;
    pn_yaml_real(y, pn_yaml_get(n, "threshold"), "threshold", -1e9, 1e9, &d->threshold);
    snprintf(d->label, sizeof d->label, "label");
    pn_yaml_text(y, pn_yaml_get(n, "label"), "label", d->label, sizeof d->label);
    snprintf(d->split, sizeof d->split, "u1");
    if (pn_yaml_text(y, pn_yaml_get(n, "split"), "split", d->split, sizeof d->split) && strchr(d->split, '/') != NULL)
        pn_yaml_problem(y, pn_yaml_get(n, "split"), "split must be a plain name such as u1");
    if (pn_yaml_choice(y, pn_yaml_get(n, "part"), "part", KEYS("all", "train", "test", "validation", "held"), NULL, &part)) d->part = part;
    uint64_t history = 0;
    if (pn_yaml_count(y, pn_yaml_get(n, "history"), "history", 1, 200, &history)) d->history = (uint32_t)history;
    if (d->history > 0 && d->format != PN_FORMAT_MOVIELENS && !pn_format_sequences(d->format))
        pn_yaml_problem(y, pn_yaml_get(n, "history"), "history has a meaning for the formats movielens, sasrec and s3rec only");
    if (pn_format_sequences(d->format) && d->history == 0) pn_yaml_problem(y, n, "%s needs history: the most actions of a row, 1 to 200", what);
    if (pn_format_sequences(d->format) && part == PN_PART_ALL) pn_yaml_problem(y, n, "%s needs part: train, validation or test (leave one out)", what);
    if (d->part == PN_PART_VALIDATION && !pn_format_sequences(d->format) && (d->format != PN_FORMAT_MOVIELENS || strcmp(d->split, "time") != 0))
        pn_yaml_problem(y, pn_yaml_get(n, "part"), "part: validation goes with sasrec, s3rec, and movielens with split: time");
    struct fy_node *uri = pn_yaml_get(n, "uri");
    if (uri == NULL) pn_yaml_problem(y, n, "%s needs a uri: the path of its file (movielens: of its folder)", what);
    else read_path(y, uri, base, d->path);
    struct fy_node *columns = pn_yaml_get(n, "columns"), *negatives = pn_yaml_get(n, "negatives");
    if (d->format != PN_FORMAT_LIBFM && (columns != NULL || (negatives != NULL && !pn_format_pairs(d->format) && !pn_format_sequences(d->format)))) {
        pn_yaml_problem(y, columns != NULL ? columns : negatives, "%s has a meaning for the formats libfm and libsvm%s only", columns != NULL ? "columns" : "negatives",
                        columns != NULL ? "" : ", ncf, lightgcn, sasrec and s3rec");
        return;
    }
    read_columns(y, columns, d);
    read_negatives(y, negatives, base, d);
    read_pairs(y, n, what, base, d);
}

static int find_field(const struct pn_job *job, const char *name) {
    for (size_t i = 0; i < job->n_fields; i++)
        if (strcmp(job->fields[i].name, name) == 0) return (int)i;
    return -1;
}

static int find_table(const struct pn_job *job, const char *name) {
    for (size_t i = 0; i < job->n_tables; i++)
        if (strcmp(job->tables[i].name, name) == 0) return (int)i;
    return -1;
}

static void read_transforms(struct pn_yaml *y, struct fy_node *n, struct pn_field *f) {
    static const char *const names[] = {"log1p", "standardize", NULL};
    if (n == NULL) return;
    if (fy_node_get_type(n) != FYNT_SEQUENCE) {
        pn_yaml_problem(y, n, "transform must be a list of: log1p, standardize");
        return;
    }
    void *it = NULL;
    for (struct fy_node *t; (t = fy_node_sequence_iterate(n, &it)) != NULL;) {
        int which = -1;
        if (!pn_yaml_choice(y, t, "transform", names, KEYS("vocabulary", "clip", "squash"), &which)) continue;
        if (which == 0 && f->standardize) pn_yaml_problem(y, t, "log1p must stand before standardize");
        if (which == 0) f->log1p = true;
        if (which == 1) f->standardize = true;
    }
}

static void read_boundaries(struct pn_yaml *y, struct fy_node *n, struct pn_field *f) {
    if (n == NULL) return;
    int count = fy_node_get_type(n) == FYNT_SEQUENCE ? fy_node_sequence_item_count(n) : 0;
    if (count < 1 || count > 10000) {
        pn_yaml_problem(y, n, "bucketize must be a list of 1 to 10000 rising numbers");
        return;
    }
    f->boundaries = calloc((size_t)count, sizeof *f->boundaries);
    if (f->boundaries == NULL) {
        y->no_memory = true;
        return;
    }
    void *it = NULL;
    for (struct fy_node *b; (b = fy_node_sequence_iterate(n, &it)) != NULL;) {
        double v = 0;
        if (!pn_yaml_real(y, b, "a boundary", -1e300, 1e300, &v)) continue;
        if (f->n_boundaries > 0 && v <= f->boundaries[f->n_boundaries - 1]) pn_yaml_problem(y, b, "boundaries must rise; %g stands behind %g", v, f->boundaries[f->n_boundaries - 1]);
        f->boundaries[f->n_boundaries++] = v;
    }
}

static bool keyed(const struct pn_field *f) { return pn_field_keyed(f); }

static void read_field(struct pn_yaml *y, struct fy_node *n, struct pn_job *job) {
    static const char *const types[] = {"categorical", "multi", "numeric", "cross", "sequence", NULL};
    if (!pn_yaml_keys(y, n, "a feature",
                      KEYS("name", "column", "type", "table", "hash", "transform", "criteoLog", "mean", "std", "bucketize", "separator", "pooling", "maxLength", "of"),
                      KEYS("admission", "vocabulary", "positions", "ttlSteps")))
        return;
    struct pn_field *f = &job->fields[job->n_fields];
    *f = (struct pn_field){.separator = '|', .max_length = 64};
    if (pn_yaml_get(n, "name") == NULL) pn_yaml_problem(y, n, "a feature needs a name");
    if (!pn_yaml_text(y, pn_yaml_get(n, "name"), "name", f->name, sizeof f->name) || f->name[0] == '\0') return;
    if (find_field(job, f->name) >= 0) {
        pn_yaml_problem(y, pn_yaml_get(n, "name"), "feature \"%s\" stands twice", f->name);
        return;
    }
    snprintf(f->column, sizeof f->column, "%s", f->name);
    pn_yaml_text(y, pn_yaml_get(n, "column"), "column", f->column, sizeof f->column);
    int type = -1;
    if (pn_yaml_get(n, "type") == NULL) pn_yaml_problem(y, n, "feature \"%s\" needs a type: categorical, multi, numeric, cross or sequence", f->name);
    if (!pn_yaml_choice(y, pn_yaml_get(n, "type"), "type", types, KEYS("embedding", "text"), &type) || type < 0) return;
    f->type = (enum pn_field_type)type;
    job->n_fields++;

    static const struct { const char *key; unsigned types; } only[] = {
        {"transform", 1u << PN_FIELD_NUMERIC}, {"criteoLog", 1u << PN_FIELD_NUMERIC}, {"mean", 1u << PN_FIELD_NUMERIC}, {"std", 1u << PN_FIELD_NUMERIC},
        {"bucketize", 1u << PN_FIELD_NUMERIC}, {"separator", 1u << PN_FIELD_MULTI | 1u << PN_FIELD_SEQUENCE}, {"pooling", 1u << PN_FIELD_MULTI},
        {"maxLength", 1u << PN_FIELD_MULTI | 1u << PN_FIELD_SEQUENCE}, {"of", 1u << PN_FIELD_CROSS}};
    for (size_t i = 0; i < sizeof only / sizeof *only; i++) {
        struct fy_node *v = pn_yaml_get(n, only[i].key);
        if (v != NULL && !(only[i].types >> f->type & 1)) pn_yaml_problem(y, v, "%s has no meaning for a %s feature", only[i].key, types[f->type]);
    }
    read_transforms(y, pn_yaml_get(n, "transform"), f);
    pn_yaml_truth(y, pn_yaml_get(n, "criteoLog"), "criteoLog", &f->criteo_log);
    read_boundaries(y, pn_yaml_get(n, "bucketize"), f);
    pn_yaml_real(y, pn_yaml_get(n, "mean"), "mean", -1e300, 1e300, &f->mean);
    pn_yaml_real(y, pn_yaml_get(n, "std"), "std", 1e-300, 1e300, &f->std);
    if ((pn_yaml_get(n, "mean") != NULL) != (pn_yaml_get(n, "std") != NULL)) pn_yaml_problem(y, n, "mean and std come together or not at all");
    if (f->criteo_log && (f->n_boundaries > 0 || f->log1p || f->standardize)) pn_yaml_problem(y, n, "criteoLog stands alone: it makes the key by itself");
    char text[8] = "";
    if (pn_yaml_get(n, "separator") != NULL && pn_yaml_text(y, pn_yaml_get(n, "separator"), "separator", text, sizeof text)) {
        if (text[1] != '\0') pn_yaml_problem(y, pn_yaml_get(n, "separator"), "separator must be one character");
        f->separator = text[0];
    }
    int pooling = PN_POOL_SUM;
    if (f->type == PN_FIELD_MULTI) pooling = PN_POOL_MEAN;
    if (pn_yaml_choice(y, pn_yaml_get(n, "pooling"), "pooling", KEYS("sum", "mean", "sqrtn"), KEYS("attention", "max"), &pooling)) f->pooling = (enum pn_pooling)pooling;
    uint64_t count = f->max_length;
    if (pn_yaml_count(y, pn_yaml_get(n, "maxLength"), "maxLength", 1, f->type == PN_FIELD_SEQUENCE ? 1u << 20 : 4096, &count)) f->max_length = (uint32_t)count;

    if (f->type == PN_FIELD_CROSS) {
        struct fy_node *of = pn_yaml_get(n, "of");
        void *it = NULL;
        if (of == NULL || fy_node_get_type(of) != FYNT_SEQUENCE || fy_node_sequence_item_count(of) < 2 || fy_node_sequence_item_count(of) > 4)
            pn_yaml_problem(y, of != NULL ? of : n, "a cross needs of: a list of 2 to 4 earlier features");
        else
            for (struct fy_node *o; (o = fy_node_sequence_iterate(of, &it)) != NULL;) {
                char name[64] = "";
                if (!pn_yaml_text(y, o, "a crossed feature", name, sizeof name)) continue;
                int other = find_field(job, name);
                if (other < 0 || other == (int)job->n_fields - 1) pn_yaml_problem(y, o, "cross of \"%s\": no earlier feature has that name", name);
                else if (job->fields[other].type != PN_FIELD_CATEGORICAL && !(job->fields[other].type == PN_FIELD_NUMERIC && keyed(&job->fields[other])))
                    pn_yaml_problem(y, o, "cross of \"%s\": only categorical and bucketized features can be crossed", name);
                else f->crossed[f->n_crossed++] = (uint32_t)other;
            }
    }

    /* the seed of the field's keys: by its own name, or by the shared name, so that two fields can mean the same things */
    char share[64];
    uint64_t seed = 0;
    snprintf(share, sizeof share, "%s", f->name);
    struct fy_node *hash = pn_yaml_get(n, "hash");
    if (hash != NULL && pn_yaml_keys(y, hash, "hash", KEYS("seed", "share", "resolved"), NULL)) {
        pn_yaml_count(y, pn_yaml_get(hash, "seed"), "seed", 0, UINT64_MAX, &seed);
        pn_yaml_text(y, pn_yaml_get(hash, "share"), "share", share, sizeof share);
    }
    f->hash_seed = pn_hash(share, strlen(share), pn_mix64(seed));
    if (hash != NULL) pn_yaml_count(y, pn_yaml_get(hash, "resolved"), "resolved", 0, UINT64_MAX, &f->hash_seed);
    if (!keyed(f) && (hash != NULL || pn_yaml_get(n, "table") != NULL))
        pn_yaml_problem(y, n, "feature \"%s\" is a plain number: it has neither keys nor a table (bucketize would make keys)", f->name);
    if (keyed(f)) {
        char table[64] = "embedding";
        pn_yaml_text(y, pn_yaml_get(n, "table"), "table", table, sizeof table);
        int i = find_table(job, table);
        if (i < 0 && job->n_tables >= PN_MAX_TABLES - 1) pn_yaml_problem(y, n, "more than %d tables", PN_MAX_TABLES - 1);
        else if (strcmp(table, "dense") == 0 || strcmp(table, "defaults") == 0) pn_yaml_problem(y, n, "table name \"%s\" is taken", table);
        else if (i < 0) {
            i = (int)job->n_tables++;
            job->tables[i] = (struct pn_table_spec){0};
            snprintf(job->tables[i].name, sizeof job->tables[i].name, "%s", table);
        }
        f->i_table = i < 0 ? 0 : (uint32_t)i;
    }
}

static void read_real32(struct pn_yaml *y, struct fy_node *n, const char *what, double low, double high, float *out) {
    double v = (double)*out;
    if (pn_yaml_real(y, n, what, low, high, &v)) *out = (float)v;
}

static void count32(struct pn_yaml *y, struct fy_node *n, const char *what, uint64_t low, uint64_t high, uint32_t *out) {
    uint64_t v = *out;
    if (pn_yaml_count(y, n, what, low, high, &v)) *out = (uint32_t)v;
}

static void read_schedule(struct pn_yaml *y, struct fy_node *n, struct pn_optimizer_spec *o) {
    if (n == NULL || !pn_yaml_keys(y, n, "schedule", KEYS("warmup", "shape", "steps", "floor"), NULL)) return;
    int shape = 0;
    if (pn_yaml_choice(y, pn_yaml_get(n, "shape"), "shape", KEYS("linear", "cosine"), KEYS("exponential"), &shape)) o->cosine = shape == 1;
    count32(y, pn_yaml_get(n, "warmup"), "warmup", 1, 1u << 30, &o->warmup);
    count32(y, pn_yaml_get(n, "steps"), "steps", 1, 1u << 30, &o->lr_steps);
    read_real32(y, pn_yaml_get(n, "floor"), "floor", 0, 1, &o->lr_floor);
}

static void read_optimizer(struct pn_yaml *y, struct fy_node *n, struct pn_optimizer_spec *o) {
    if (n == NULL) return;
    if (!pn_yaml_keys(y, n, "optimizer", KEYS("name", "lr", "epsilon", "initialAccumulator", "beta1", "beta2", "l1", "l2", "beta", "decay", "decayCap", "schedule"),
                      KEYS("momentum", "weightDecay", "warmup", "clip"))) return;
    read_schedule(y, pn_yaml_get(n, "schedule"), o);
    int kind = (int)o->kind;
    if (pn_yaml_choice(y, pn_yaml_get(n, "name"), "optimizer", optimizers, KEYS("adamw", "lamb", "rmsprop", "momentum"), &kind)) {
        if (kind != (int)o->kind) o->epsilon = kind == PN_ADAM ? 1e-8f : 1e-10f;
        o->kind = (enum pn_optimizer)kind;
    }
    read_real32(y, pn_yaml_get(n, "lr"), "lr", 0, 1000, &o->lr);
    read_real32(y, pn_yaml_get(n, "epsilon"), "epsilon", 0, 1, &o->epsilon);
    read_real32(y, pn_yaml_get(n, "initialAccumulator"), "initialAccumulator", 0, 1000, &o->initial_accumulator);
    read_real32(y, pn_yaml_get(n, "beta1"), "beta1", 0, 0.999999, &o->beta1);
    read_real32(y, pn_yaml_get(n, "beta2"), "beta2", 0, 0.9999999, &o->beta2);
    read_real32(y, pn_yaml_get(n, "l1"), "l1", 0, 1000, &o->l1);
    read_real32(y, pn_yaml_get(n, "l2"), "l2", 0, 1000, &o->l2);
    read_real32(y, pn_yaml_get(n, "beta"), "beta", 0, 1000, &o->ftrl_beta);
    if (pn_yaml_get(n, "schedule") != NULL && o->kind == PN_FTRL) pn_yaml_problem(y, pn_yaml_get(n, "schedule"), "ftrl has no schedule: its rate is part of what a row remembers");
    int decay = o->decay_cap > 0;
    if (pn_yaml_choice(y, pn_yaml_get(n, "decay"), "decay", KEYS("touched", "lazy"), NULL, &decay)) o->decay_cap = decay ? 50 : 0;
    count32(y, pn_yaml_get(n, "decayCap"), "decayCap", 1, 1u << 20, &o->decay_cap);
    if (pn_yaml_get(n, "decayCap") != NULL && !decay) pn_yaml_problem(y, pn_yaml_get(n, "decayCap"), "decayCap has a meaning for decay: lazy only");
    if (o->decay_cap > 0 && o->kind == PN_FTRL) pn_yaml_problem(y, n, "decay: lazy has no meaning for ftrl, whose closed form has l1 and l2 in it");
}

static struct pn_optimizer_spec default_optimizer(enum pn_optimizer kind, float lr) {
    return (struct pn_optimizer_spec){.kind = kind, .lr = lr, .epsilon = kind == PN_ADAM ? 1e-8f : 1e-10f, .beta1 = 0.9f, .beta2 = 0.999f, .ftrl_beta = 1.0f};
}

static void read_table(struct pn_yaml *y, struct fy_node *n, const char *what, bool external, struct pn_table_spec *t) {
    if (n == NULL) return;
    if (!pn_yaml_keys(y, n, what, KEYS("optimizer", "init", "seed", "storage", "admission", "eviction", "memory", "preallocate", "dim"), NULL)) return;
    struct fy_node *dim = pn_yaml_get(n, "dim");
    uint64_t width = t->dim;
    if (dim != NULL && !external) pn_yaml_problem(y, dim, "dim is for external jobs; here the model says how wide a row is (spec.model.embeddingDim)");
    else if (pn_yaml_count(y, dim, "dim", 1, 1024, &width)) t->dim = (uint32_t)width;
    int storage = (int)t->storage;
    if (pn_yaml_choice(y, pn_yaml_get(n, "storage"), "storage", pn_codec_names, NULL, &storage)) t->storage = (enum pn_codec)storage;
    read_optimizer(y, pn_yaml_get(n, "optimizer"), &t->optimizer);
    pn_yaml_count(y, pn_yaml_get(n, "seed"), "seed", 0, UINT64_MAX, &t->init_seed);
    struct fy_node *a = pn_yaml_get(n, "admission"), *e = pn_yaml_get(n, "eviction");
    if (a != NULL && pn_yaml_keys(y, a, "admission", KEYS("count", "probability", "counters"), NULL)) {
        uint64_t count = 0, counters = 16u << 20;
        if (pn_yaml_count(y, pn_yaml_get(a, "count"), "count", 1, 255, &count)) t->admit_count = (uint32_t)count;
        if (pn_yaml_bytes(y, pn_yaml_get(a, "counters"), "counters", 1u << 16, 1u << 30, &counters)) t->admit_counters = (uint32_t)counters;
        read_real32(y, pn_yaml_get(a, "probability"), "probability", 0.000001, 1, &t->admit_probability);
        if (pn_yaml_get(a, "count") != NULL && pn_yaml_get(a, "probability") != NULL) pn_yaml_problem(y, a, "admission is by count or by probability, not by both");
        if (pn_yaml_get(a, "count") == NULL && pn_yaml_get(a, "probability") == NULL) pn_yaml_problem(y, a, "admission needs count or probability");
    }
    if (e != NULL && pn_yaml_keys(y, e, "eviction", KEYS("ageSteps", "maxRows"), NULL)) {
        pn_yaml_count(y, pn_yaml_get(e, "ageSteps"), "ageSteps", 1, 1ull << 31, &t->evict_age);
        pn_yaml_count(y, pn_yaml_get(e, "maxRows"), "maxRows", PN_SLOTS, 1ull << 40, &t->evict_rows);
        if (t->evict_age == 0 && t->evict_rows == 0) pn_yaml_problem(y, n, "eviction needs ageSteps or maxRows");
    }
    pn_yaml_bytes(y, pn_yaml_get(n, "memory"), "memory", 1u << 16, 1ull << 50, &t->memory);
    pn_yaml_bytes(y, pn_yaml_get(n, "preallocate"), "preallocate", 0, 1ull << 50, &t->preallocate);
    if (t->memory > 0 && t->preallocate > t->memory) pn_yaml_problem(y, n, "preallocate is more than memory lets the table have");
    if (t->memory > 0 && (t->evict_age > 0 || t->evict_rows > 0)) pn_yaml_problem(y, n, "memory and eviction do not go together: with a second tier every row is kept");
    t->track = t->memory > 0 || t->evict_age > 0 || t->evict_rows > 0 || t->optimizer.decay_cap > 0;
    struct fy_node *init = pn_yaml_get(n, "init");
    static const char *const names[] = {"zero", "constant", "uniform", "normal", "xavier", NULL};
    if (init == NULL) return;
    if (fy_node_get_type(init) == FYNT_SCALAR) {
        int kind = -1;
        if (pn_yaml_choice(y, init, "init", KEYS("zero"), NULL, &kind)) t->init = PN_INIT_ZERO;
        return;
    }
    if (!pn_yaml_keys(y, init, "init", KEYS("constant", "uniform", "normal", "xavier"), NULL)) return;
    for (int i = 1; i <= 4; i++)
        if (pn_yaml_get(init, names[i]) != NULL) {
            t->init = (enum pn_init)i;
            read_real32(y, pn_yaml_get(init, names[i]), names[i], i == 1 ? -1000 : 0, 1000, &t->init_scale);
        }
}

static void read_tables(struct pn_yaml *y, struct fy_node *n, struct pn_job *job) {
    struct pn_table_spec defaults = {.optimizer = default_optimizer(PN_ADAGRAD, 0.05f), .init = PN_INIT_NORMAL, .init_scale = 0.01f, .admit_counters = 16u << 20};
    const char *known[PN_MAX_TABLES + 2] = {"defaults"};
    for (size_t i = 0; i < job->n_tables; i++) known[i + 1] = job->tables[i].name;
    if (n != NULL && !pn_yaml_keys(y, n, "spec.tables", known, NULL)) return;
    const bool external = job->model == PN_MODEL_EXTERNAL;
    read_table(y, pn_yaml_get(n, "defaults"), "tables.defaults", external, &defaults);
    for (size_t i = 0; i < job->n_tables; i++) {
        struct pn_table_spec *t = &job->tables[i];
        char name[64];
        snprintf(name, sizeof name, "%s", t->name);
        *t = defaults;
        snprintf(t->name, sizeof t->name, "%s", name);
        if (!external) t->dim = pn_job_width(job) + pn_job_wide(job);
        t->init_seed = pn_hash(name, strlen(name), pn_mix64(job->seed));
        read_table(y, pn_yaml_get(n, name), "a table", external, t);
        if (t->dim == 0) pn_yaml_problem(y, pn_yaml_get(n, name), "table \"%s\" needs dim: the floats of a row (or tables.defaults has it for all)", name);
    }
}

/* A list of layer widths; NULL: what is there stays. */
static void read_widths(struct pn_yaml *y, struct fy_node *n, const char *what, uint32_t widths[PN_MAX_LAYERS], size_t *count) {
    if (n == NULL) return;
    if (fy_node_get_type(n) != FYNT_SEQUENCE || fy_node_sequence_item_count(n) < 1 || fy_node_sequence_item_count(n) > PN_MAX_LAYERS) {
        pn_yaml_problem(y, n, "%s must be a list of 1 to %d layer widths", what, PN_MAX_LAYERS);
        return;
    }
    void *it = NULL;
    uint64_t v = 0;
    *count = 0;
    for (struct fy_node *h; (h = fy_node_sequence_iterate(n, &it)) != NULL;)
        if (pn_yaml_count(y, h, "a layer width", 1, 8192, &v)) widths[(*count)++] = (uint32_t)v;
}

/* An external job has no features that would name its tables: spec.tables does, in its order. */
static void declare_tables(struct pn_yaml *y, struct fy_node *spec, struct pn_job *job) {
    struct fy_node *n = pn_yaml_get(spec, "tables");
    if (n == NULL || fy_node_get_type(n) != FYNT_MAPPING) {
        pn_yaml_problem(y, n != NULL ? n : spec, "an external job needs spec.tables: a name and what a row is for each, e.g. {users: {dim: 16}}");
        return;
    }
    void *it = NULL;
    for (struct fy_node_pair *pair; (pair = fy_node_mapping_iterate(n, &it)) != NULL;) {
        struct fy_node *key = fy_node_pair_key(pair);
        char name[64] = "";
        if (!pn_yaml_text(y, key, "a table's name", name, sizeof name) || strcmp(name, "defaults") == 0) continue;
        if (name[0] == '\0' || strcmp(name, "dense") == 0) pn_yaml_problem(y, key, "table name \"%s\" is taken", name);
        else if (job->n_tables >= PN_MAX_TABLES - 1) pn_yaml_problem(y, key, "more than %d tables", PN_MAX_TABLES - 1);
        else if (find_table(job, name) < 0) { /* one that stands twice is refused by the reader of keys */
            struct pn_table_spec *t = &job->tables[job->n_tables++];
            *t = (struct pn_table_spec){0};
            snprintf(t->name, sizeof t->name, "%s", name);
        }
    }
    if (job->n_tables == 0) pn_yaml_problem(y, n, "an external job needs at least one table besides defaults");
}

/* start: [{snapshot: FOLDER, alpha: SHARE}]. */
static void read_starts(struct pn_yaml *y, struct fy_node *n, const char *base, struct pn_job *job) {
    if (n == NULL) return;
    if (fy_node_get_type(n) != FYNT_SEQUENCE || fy_node_sequence_item_count(n) < 1 || fy_node_sequence_item_count(n) > PN_MAX_STARTS) {
        pn_yaml_problem(y, n, "start must be a list of 1 to %d published models: {snapshot: FOLDER, alpha: SHARE}", PN_MAX_STARTS);
        return;
    }
    if (!pn_model_pair(job->model)) pn_yaml_problem(y, n, "start has a meaning for mf, gmf, mlp and neumf only");
    void *it = NULL;
    for (struct fy_node *s; (s = fy_node_sequence_iterate(n, &it)) != NULL;) {
        if (!pn_yaml_keys(y, s, "start", KEYS("snapshot", "alpha"), NULL)) continue;
        job->starts[job->n_starts].alpha = 1;
        pn_yaml_real(y, pn_yaml_get(s, "alpha"), "alpha", 0, 1, &job->starts[job->n_starts].alpha);
        if (pn_yaml_get(s, "snapshot") == NULL) pn_yaml_problem(y, s, "start needs snapshot: the folder of a published version");
        else read_path(y, pn_yaml_get(s, "snapshot"), base, job->starts[job->n_starts].path);
        job->n_starts++;
    }
}

static void read_model(struct pn_yaml *y, struct fy_node *n, const char *base, struct pn_job *job) {
    job->embedding_dim = 8;
    job->linear_scale = 1;
    job->model = PN_MODEL_LR;
    if (n == NULL) {
        pn_yaml_problem(y, NULL, "spec.model is missing; allowed names: lr, fm, wide_deep, deepfm, dcn_v2, dlrm, mf, gmf, mlp, neumf, sasrec, audit, external");
        return;
    }
    if (!pn_yaml_keys(y, n, "spec.model", KEYS("name", "embeddingDim", "linearScale", "hidden", "dropout", "embeddingDropout", "norm", "cross", "structure", "bottom", "interaction", "mlpDim", "bias", "start", "sequence", "heads", "distill"),
                      KEYS("attention", "experts"))) return;
    int model = -1;
    if (pn_yaml_get(n, "name") == NULL) pn_yaml_problem(y, n, "the model needs a name: lr, fm, wide_deep, deepfm, dcn_v2, dlrm, mf, gmf, mlp, neumf, sasrec, audit or external");
    if (!pn_yaml_choice(y, pn_yaml_get(n, "name"), "model", models, models_later, &model) || model < 0) return;
    job->model = (enum pn_model)model;
    for (const char *const *key = KEYS("embeddingDim", "linearScale", "hidden", "dropout", "embeddingDropout", "norm", "cross", "structure", "bottom", "interaction", "mlpDim", "bias", "start", "sequence", "heads", "distill");
         job->model == PN_MODEL_EXTERNAL && *key != NULL; key++)
        if (pn_yaml_get(n, *key) != NULL) pn_yaml_problem(y, pn_yaml_get(n, *key), "%s has no meaning for an external job: its model is the client's", *key);
    if (job->model == PN_MODEL_EXTERNAL) {
        job->n_producers = 1;
        job->max_in_flight = 64;
        return;
    }
    uint64_t v = job->embedding_dim;
    if (pn_yaml_count(y, pn_yaml_get(n, "embeddingDim"), "embeddingDim", 1, 1023, &v)) job->embedding_dim = (uint32_t)v;
    read_real32(y, pn_yaml_get(n, "dropout"), "dropout", 0, 0.95, &job->dropout);
    read_real32(y, pn_yaml_get(n, "linearScale"), "linearScale", 0.001, 1000, &job->linear_scale);
    read_real32(y, pn_yaml_get(n, "embeddingDropout"), "embeddingDropout", 0, 0.95, &job->embedding_dropout);
    int norm = PN_NORM_NONE;
    if (pn_yaml_choice(y, pn_yaml_get(n, "norm"), "norm", KEYS("none", "layer", "batch"), NULL, &norm)) job->norm = (enum pn_norm)norm;
    enum { deep = 1u << PN_MODEL_DEEPFM | 1u << PN_MODEL_WIDE_DEEP | 1u << PN_MODEL_DCN_V2 | 1u << PN_MODEL_DLRM | 1u << PN_MODEL_MLP | 1u << PN_MODEL_NEUMF };
    static const char tower[] = "wide_deep, deepfm, dcn_v2, dlrm, mlp and neumf";
    static const struct { const char *key; unsigned models; const char *where; } only[] = {
        {"hidden", deep, tower},
        {"norm", deep, tower},
        {"cross", 1u << PN_MODEL_DCN_V2, "dcn_v2"}, {"structure", 1u << PN_MODEL_DCN_V2, "dcn_v2"},
        {"sequence", 1u << PN_MODEL_WIDE_DEEP | 1u << PN_MODEL_DEEPFM | 1u << PN_MODEL_DCN_V2 | 1u << PN_MODEL_SASREC, "wide_deep, deepfm, dcn_v2 and sasrec"},
        {"bottom", 1u << PN_MODEL_DLRM, "dlrm"}, {"interaction", 1u << PN_MODEL_DLRM, "dlrm"},
        {"mlpDim", 1u << PN_MODEL_NEUMF, "neumf"}, {"bias", 1u << PN_MODEL_MF, "mf"}};
    for (size_t i = 0; i < sizeof only / sizeof *only; i++)
        if (pn_yaml_get(n, only[i].key) != NULL && !(only[i].models >> job->model & 1)) pn_yaml_problem(y, pn_yaml_get(n, only[i].key), "%s has a meaning for %s only", only[i].key, only[i].where);
    read_starts(y, pn_yaml_get(n, "start"), base, job);
    job->bias = job->model == PN_MODEL_MF;
    pn_yaml_truth(y, pn_yaml_get(n, "bias"), "bias", &job->bias);
    if (job->model == PN_MODEL_NEUMF) job->mlp_dim = job->embedding_dim;
    count32(y, pn_yaml_get(n, "mlpDim"), "mlpDim", 1, 1023, &job->mlp_dim);
    if (job->embedding_dim + job->mlp_dim > 1023) pn_yaml_problem(y, n, "embeddingDim and mlpDim are at most 1023 together");
    job->n_cross = 2;
    count32(y, pn_yaml_get(n, "cross"), "cross", 1, PN_MAX_LAYERS, &job->n_cross);
    int structure = 0, interaction = PN_INTERACTION_DOT;
    if (pn_yaml_choice(y, pn_yaml_get(n, "structure"), "structure", KEYS("parallel", "stacked"), NULL, &structure)) job->stacked = structure == 1;
    if (pn_yaml_choice(y, pn_yaml_get(n, "interaction"), "interaction", KEYS("dot", "cat", "both"), NULL, &interaction)) job->interaction = (enum pn_interaction)interaction;
    if (pn_model_deep(job->model)) { /* where hidden does not say otherwise */
        job->hidden[0] = 64;
        job->hidden[1] = 32;
        job->n_hidden = 2;
    }
    read_widths(y, pn_yaml_get(n, "hidden"), "hidden", job->hidden, &job->n_hidden);
    read_widths(y, pn_yaml_get(n, "bottom"), "bottom", job->bottom, &job->n_bottom);
    pn_job_read_heads(y, pn_yaml_get(n, "heads"), job);
    pn_job_read_distill(y, pn_yaml_get(n, "distill"), job);
}

/* "hr@10" and the like: one K for a job. False: no such name. */
static bool ranking_metric(struct pn_yaml *y, struct fy_node *n, const char *text, struct pn_job *job, enum pn_metric_kind *kind) {
    static const char *const names[] = {"hr@", "ndcg@", "recall@"};
    for (int i = 0; i < 3; i++) {
        const size_t k = strlen(names[i]);
        char *end;
        if (strncmp(text, names[i], k) != 0 || text[k] < '1' || text[k] > '9') continue;
        const unsigned long top = strtoul(text + k, &end, 10);
        if (*end != '\0' || top > 10000) continue;
        if (job->rank_k > 0 && job->rank_k != top) pn_yaml_problem(y, n, "%s: a job has one K, and another metric says @%u", text, job->rank_k);
        job->rank_k = (uint32_t)top;
        *kind = (enum pn_metric_kind)(PN_BY_HR + i);
        return true;
    }
    return false;
}

/* What is learned: bce goes by each row, the others by a positive row and those behind it. */
static void read_loss(struct pn_yaml *y, struct fy_node *n, struct pn_job *job) {
    job->margin = job->temperature = 1;
    if (n == NULL || !pn_yaml_keys(y, n, "loss", KEYS("name", "margin", "temperature", "logQ"), NULL)) return;
    int loss = PN_LOSS_BCE;
    if (pn_yaml_choice(y, pn_yaml_get(n, "name"), "loss", KEYS("bce", "bpr", "hinge", "softmax", "in-batch-softmax"), NULL, &loss)) job->loss = (enum pn_loss)loss;
    job->log_q = job->loss == PN_LOSS_IN_BATCH;
    read_real32(y, pn_yaml_get(n, "margin"), "margin", 0, 1000, &job->margin);
    read_real32(y, pn_yaml_get(n, "temperature"), "temperature", 0.001, 1000, &job->temperature);
    pn_yaml_truth(y, pn_yaml_get(n, "logQ"), "logQ", &job->log_q);
    if (pn_yaml_get(n, "margin") != NULL && job->loss != PN_LOSS_HINGE) pn_yaml_problem(y, n, "margin has a meaning for hinge only");
    const bool softmax = job->loss == PN_LOSS_SOFTMAX || job->loss == PN_LOSS_IN_BATCH;
    if (!softmax && (pn_yaml_get(n, "temperature") != NULL || pn_yaml_get(n, "logQ") != NULL)) pn_yaml_problem(y, n, "temperature and logQ have a meaning for softmax and in-batch-softmax only");
    if (job->loss == PN_LOSS_BCE) return;
    struct pn_data *d = &job->train;
    if (!pn_format_pairs(d->format)) pn_yaml_problem(y, n, "this loss needs train data of format ncf or lightgcn, where a positive row's negatives stand behind it");
    if (job->loss == PN_LOSS_IN_BATCH) {
        if (job->model != PN_MODEL_MF || job->bias) pn_yaml_problem(y, n, "in-batch-softmax goes with model {name: mf, bias: false} only");
        if (d->negatives.per_positive > 0) pn_yaml_problem(y, n, "in-batch-softmax draws no negatives: the batch's other items are");
        if (d->negatives.n_seen == 0) snprintf(d->negatives.seen[d->negatives.n_seen++], sizeof d->negatives.seen[0], "%s", d->path); /* their shares of the rows */
    } else if (d->negatives.per_positive == 0) pn_yaml_problem(y, n, "this loss needs negatives in spec.data.train");
}

static void read_early_stopping(struct pn_yaml *y, struct fy_node *n, struct pn_job *job) {
    if (n == NULL || !pn_yaml_keys(y, n, "earlyStopping", KEYS("metric", "patience", "minDelta"), NULL)) return;
    char metric[16] = "auc";
    job->patience = 2;
    job->min_delta = 1e-6;
    struct fy_node *by = pn_yaml_get(n, "metric");
    if (by != NULL && pn_yaml_text(y, by, "metric", metric, sizeof metric)) {
        if (strcmp(metric, "logloss") == 0) job->stop_by = PN_BY_LOGLOSS;
        else if (strcmp(metric, "auc") != 0 && !ranking_metric(y, by, metric, job, &job->stop_by)) pn_yaml_problem(y, by, "metric \"%s\" is unknown; allowed: auc, logloss, hr@K, ndcg@K, recall@K", metric);
    }
    count32(y, pn_yaml_get(n, "patience"), "patience", 1, 100000, &job->patience);
    pn_yaml_real(y, pn_yaml_get(n, "minDelta"), "minDelta", 0, 1, &job->min_delta);
    if (!job->validation.present) pn_yaml_problem(y, n, "earlyStopping needs spec.data.validation");
    if (job->model == PN_MODEL_AUDIT) pn_yaml_problem(y, n, "the audit model has no metric to stop by");
}

static void read_training(struct pn_yaml *y, struct fy_node *n, struct pn_job *job) {
    if (n == NULL) return;
    if (!pn_yaml_keys(y, n, "spec.training", KEYS("batchSize", "epochs", "maxSteps", "seed", "consistency", "inFlight", "dataShards", "device", "codec", "earlyStopping", "clipNorm", "loss"),
                      KEYS("precision", "negatives"))) return;
    read_early_stopping(y, pn_yaml_get(n, "earlyStopping"), job);
    read_loss(y, pn_yaml_get(n, "loss"), job);
    read_real32(y, pn_yaml_get(n, "clipNorm"), "clipNorm", 1e-6, 1e9, &job->clip_norm);
    for (const char *const *key = KEYS("batchSize", "epochs", "maxSteps", "device", "earlyStopping", "clipNorm", "loss"); job->model == PN_MODEL_EXTERNAL && *key != NULL; key++)
        if (pn_yaml_get(n, *key) != NULL) pn_yaml_problem(y, pn_yaml_get(n, *key), "%s has no meaning for an external job: its clients decide", *key);
    count32(y, pn_yaml_get(n, "batchSize"), "batchSize", 1, 1u << 20, &job->batch_size);
    count32(y, pn_yaml_get(n, "epochs"), "epochs", 1, 100000, &job->epochs);
    pn_yaml_count(y, pn_yaml_get(n, "maxSteps"), "maxSteps", 1, 1ull << 48, &job->max_steps);
    pn_yaml_count(y, pn_yaml_get(n, "seed"), "seed", 0, UINT64_MAX, &job->seed);
    count32(y, pn_yaml_get(n, "inFlight"), "inFlight", 1, 64, &job->max_in_flight);
    count32(y, pn_yaml_get(n, "dataShards"), "dataShards", 1, PN_MAX_PRODUCERS, &job->n_producers);
    int device = 0, codec = 0;
    if (pn_yaml_choice(y, pn_yaml_get(n, "codec"), "codec", pn_codec_names, NULL, &codec)) job->codec = (enum pn_codec)codec;
    pn_yaml_choice(y, pn_yaml_get(n, "device"), "device", KEYS("auto", "cpu"), KEYS("cuda", "cuda:0", "gpu"), &device);
    struct fy_node *c = pn_yaml_get(n, "consistency");
    if (c == NULL || !pn_yaml_keys(y, c, "consistency", KEYS("mode", "staleness", "ack"), NULL)) return;
    int mode = PN_ASYNC, ack = 0;
    if (pn_yaml_choice(y, pn_yaml_get(c, "mode"), "mode", KEYS("async", "sync", "ssp"), NULL, &mode)) job->consistency = (enum pn_consistency)mode;
    if (pn_yaml_choice(y, pn_yaml_get(c, "ack"), "ack", KEYS("durable", "applied"), KEYS("replicated"), &ack)) job->ack_durable = ack == 0;
    pn_yaml_count(y, pn_yaml_get(c, "staleness"), "staleness", 0, 1000000, &job->staleness);
    if (pn_yaml_get(c, "staleness") != NULL && job->consistency != PN_SSP) pn_yaml_problem(y, pn_yaml_get(c, "staleness"), "staleness has a meaning for mode ssp only");
}

static void read_rest(struct pn_yaml *y, struct fy_node *spec, struct pn_job *job) {
    struct fy_node *n = pn_yaml_get(spec, "checkpoint");
    if (n != NULL && pn_yaml_keys(y, n, "spec.checkpoint", KEYS("every", "keep", "ringBytes"), KEYS("uri", "fullEvery", "incremental"))) {
        pn_yaml_duration(y, pn_yaml_get(n, "every"), "every", &job->checkpoint_every_ms);
        count32(y, pn_yaml_get(n, "keep"), "keep", 2, 1000, &job->checkpoint_keep);
        pn_yaml_bytes(y, pn_yaml_get(n, "ringBytes"), "ringBytes", 4096, 1ull << 40, &job->ring_bytes);
    }
    n = pn_yaml_get(spec, "failurePolicy");
    if (n != NULL && pn_yaml_keys(y, n, "spec.failurePolicy", KEYS("maxRestarts"), KEYS("onNaN")))
        count32(y, pn_yaml_get(n, "maxRestarts"), "maxRestarts", 0, 1u << 30, &job->max_restarts);
    n = pn_yaml_get(spec, "validation");
    if (n != NULL && pn_yaml_keys(y, n, "spec.validation", KEYS("metrics", "everyEpoch", "groupBy"), KEYS("gate", "segments"))) {
        char name[64] = "";
        if (pn_yaml_get(n, "groupBy") != NULL && pn_yaml_text(y, pn_yaml_get(n, "groupBy"), "groupBy", name, sizeof name)) {
            const int i = find_field(job, name);
            if (i < 0 || !keyed(&job->fields[i]) || job->fields[i].type == PN_FIELD_SEQUENCE) pn_yaml_problem(y, pn_yaml_get(n, "groupBy"), "groupBy: no feature with keys is named \"%s\"", name);
            else job->group_by = (uint32_t)i + 1;
        }
        pn_yaml_truth(y, pn_yaml_get(n, "everyEpoch"), "everyEpoch", &job->evaluate_every_epoch);
        struct fy_node *m = pn_yaml_get(n, "metrics");
        void *it = NULL;
        if (m != NULL && fy_node_get_type(m) != FYNT_SEQUENCE) pn_yaml_problem(y, m, "metrics must be a list of: auc, logloss, ne, calibration, ece, gauc, hr@K, ndcg@K, recall@K");
        else if (m != NULL)
            for (struct fy_node *x; (x = fy_node_sequence_iterate(m, &it)) != NULL;) {
                char text[64] = "";
                int which;
                enum pn_metric_kind kind;
                if (strchr(pn_yaml_text(y, x, "metric", text, sizeof text) ? text : "", '@') == NULL || !ranking_metric(y, x, text, job, &kind))
                    pn_yaml_choice(y, x, "metric", KEYS("auc", "logloss", "ne", "calibration", "ece", "gauc"), NULL, &which);
            }
    }
    if (job->rank_k > 0 && job->group_by == 0 && job->model != PN_MODEL_SASREC) pn_yaml_problem(y, n != NULL ? n : spec, "hr, ndcg and recall need spec.validation.groupBy: the field whose rows are one list");
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

static void add_dense_table(struct pn_yaml *y, struct fy_node *optimizer, struct pn_job *job) {
    job->i_dense_table = (uint32_t)job->n_tables;
    struct pn_table_spec *t = &job->tables[job->n_tables++];
    *t = (struct pn_table_spec){.dim = PN_DENSE_ROW, .optimizer = default_optimizer(PN_ADAM, 0.001f), .explicit_rows = true};
    snprintf(t->name, sizeof t->name, "dense");
    read_optimizer(y, optimizer, &t->optimizer);
    t->optimizer.decay_cap = 0; /* every step touches all of it */
}

static void read_spec(struct pn_yaml *y, struct fy_node *spec, const char *base, struct pn_job *job) {
    if (!pn_yaml_keys(y, spec, "spec", KEYS("data", "features", "tables", "model", "optimizer", "training", "checkpoint", "failurePolicy", "validation", "publish", "audit"),
                      KEYS("privacy", "tracking", "resources", "stream", "schedule"))) return;
    struct fy_node *data = pn_yaml_get(spec, "data");
    bool external = false;
    if (pn_yaml_keys(y, data, "spec.data", KEYS("train", "validation", "test", "shuffle", "external"), KEYS("stream"))) {
        pn_yaml_truth(y, pn_yaml_get(data, "external"), "external", &external);
        for (const char *const *key = KEYS("train", "validation", "test", "shuffle"); external && *key != NULL; key++)
            if (pn_yaml_get(data, *key) != NULL) pn_yaml_problem(y, pn_yaml_get(data, *key), "an external job has no %s: its clients bring the data", *key);
        read_data(y, pn_yaml_get(data, "train"), "spec.data.train", base, &job->train);
        read_data(y, pn_yaml_get(data, "validation"), "spec.data.validation", base, &job->validation);
        read_data(y, pn_yaml_get(data, "test"), "spec.data.test", base, &job->test);
        if (job->train.rank_all) pn_yaml_problem(y, data, "rankAll is for validation and test");
        if (!job->train.present && !external) pn_yaml_problem(y, data, "spec.data needs train, or external: true for a job whose clients bring the data");
        struct fy_node *shuffle = pn_yaml_get(data, "shuffle");
        if (shuffle != NULL && pn_yaml_keys(y, shuffle, "shuffle", KEYS("buffer", "seed"), NULL)) {
            pn_yaml_count(y, pn_yaml_get(shuffle, "buffer"), "buffer", 0, 100000000, &job->shuffle_buffer);
            pn_yaml_count(y, pn_yaml_get(shuffle, "seed"), "seed", 0, UINT64_MAX, &job->shuffle_seed);
        }
    }
    read_model(y, pn_yaml_get(spec, "model"), base, job);
    read_training(y, pn_yaml_get(spec, "training"), job);
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
        job->tables[0] = (struct pn_table_spec){.name = "audit", .dim = 8, .optimizer = default_optimizer(PN_SGD, 1.0f), .init = PN_INIT_ZERO,
                                                .memory = audit_memory, .track = audit_memory > 0};
        job->n_tables = 1;
    } else if (job->model == PN_MODEL_EXTERNAL) {
        if (features != NULL) pn_yaml_problem(y, features, "an external job takes no features: its clients make the keys");
        if (audit != NULL) pn_yaml_problem(y, audit, "spec.audit goes with the audit model only");
        if (pn_yaml_get(spec, "optimizer") != NULL)
            pn_yaml_problem(y, pn_yaml_get(spec, "optimizer"), "spec.optimizer is for dense parameters, which an external job keeps itself; a table's is tables.NAME.optimizer");
        declare_tables(y, spec, job);
        read_tables(y, pn_yaml_get(spec, "tables"), job);
    } else {
        if (audit != NULL) pn_yaml_problem(y, audit, "spec.audit goes with the audit model only");
        if (features == NULL || fy_node_get_type(features) != FYNT_SEQUENCE || fy_node_sequence_item_count(features) < 1 ||
            fy_node_sequence_item_count(features) > PN_MAX_FIELDS)
            pn_yaml_problem(y, features != NULL ? features : spec, "spec.features must be a list of 1 to %d features", PN_MAX_FIELDS);
        else {
            void *it = NULL;
            for (struct fy_node *f; (f = fy_node_sequence_iterate(features, &it)) != NULL;) read_field(y, f, job);
        }
        pn_job_read_sequence(y, pn_yaml_get(pn_yaml_get(spec, "model"), "sequence"), job);
        read_tables(y, pn_yaml_get(spec, "tables"), job);
        if (pn_model_pair(job->model)) {
            bool pair = job->n_fields == 2;
            for (size_t i = 0; i < job->n_fields; i++) pair = pair && job->fields[i].type == PN_FIELD_CATEGORICAL;
            if (!pair) pn_yaml_problem(y, features, "mf, gmf, mlp and neumf take two categorical features: first the user, then the item");
        }
        if (job->n_tables == 0 && y->n_problems == 0) pn_yaml_problem(y, features, "no feature has keys: a model needs at least one categorical feature");
    }
    add_dense_table(y, pn_yaml_get(spec, "optimizer"), job);
    read_rest(y, spec, job);
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
        if (opens && (c == '&' || c == '*' || c == '!') && next != ' ' && next != '\n') return "anchors, aliases and tags (& * !) have no place in a job file";
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
    }
}
