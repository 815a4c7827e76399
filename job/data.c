/* spec.data: where rows come from, in which format, and which of them. */
#include <stdio.h>
#include <string.h>
#include "job/sections.h"

#define KEYS(...) (const char *const[]){__VA_ARGS__, NULL}

static const char *const formats[] = {"csv", "criteo", "movielens", "audit", "libfm", "ncf", "lightgcn", "sasrec", "s3rec", "jsonl", "parquet", "libsvm", "tsv", NULL};

/* A path or file:// URI into out. */
void pn_job_read_path(struct pn_yaml *y, struct fy_node *uri, const char *base, char out[400]) {
    char text[400] = "";
    if (fy_node_get_type(uri) == FYNT_SEQUENCE) pn_yaml_problem(y, uri, "a list of files has a meaning for csv, criteo, libfm, libsvm, jsonl and parquet without negatives only; give one uri");
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

/* uri: a path, or a list of them. */
static void read_files(struct pn_yaml *y, struct fy_node *uri, const char *base, struct pn_data *d, bool negatives) {
    if (!pn_format_lists(d->format) || negatives || fy_node_get_type(uri) != FYNT_SEQUENCE) {
        pn_job_read_path(y, uri, base, d->path);
        return;
    }
    const int n = fy_node_sequence_item_count(uri);
    if (n < 1 || n > PN_MAX_FILES) {
        pn_yaml_problem(y, uri, "uri must be a path or a list of 1 to %d paths", PN_MAX_FILES);
        return;
    }
    void *it = NULL;
    for (int i = 0; i < n; i++) {
        struct fy_node *file = fy_node_sequence_iterate(uri, &it);
        if (fy_node_get_type(file) == FYNT_SEQUENCE) pn_yaml_problem(y, file, "a list of lists");
        else pn_job_read_path(y, file, base, i == 0 ? d->path : d->more[d->n_more++]);
    }
}

bool pn_data_names(const char *columns, const char *name) {
    const size_t n = strlen(name);
    for (const char *at = columns; n > 0 && (at = strstr(at, name)) != NULL; at++)
        if ((at == columns || at[-1] == ',') && (at[n] == ',' || at[n] == '\0')) return true;
    return false;
}

/* A column of a libfm file by its id: 8=age. Its name and where it begins; NULL: no such thing, said. */
static const char *name_behind_id(struct pn_yaml *y, struct fy_node *c, const char *text) {
    const char *name = text + strspn(text, "0123456789");
    if (name == text || *name != '=' || name[1] == '\0' || (text[0] == '0' && name > text + 1)) pn_yaml_problem(y, c, "column \"%s\": by id it is ID=NAME, such as 8=age", text);
    else if (strcmp(name + 1, PN_LIBFM_IDS) == 0) pn_yaml_problem(y, c, "column \"%s\" is what all ids without a name become: take another name", PN_LIBFM_IDS);
    else return name + 1;
    return NULL;
}

/* Does a column, or with ids either half of one, stand there already? */
static bool stands(const struct pn_data *d, const char *text, const char *name) {
    if (name == text) return pn_data_names(d->columns, text);
    for (const char *c = d->columns, *end; *c != '\0'; c = *end != '\0' ? end + 1 : end) {
        end = c + strcspn(c, ",");
        const char *equals = memchr(c, '=', (size_t)(end - c));
        if (equals == NULL) continue;
        if ((size_t)(equals - c) == (size_t)(name - 1 - text) && memcmp(c, text, (size_t)(equals - c)) == 0) return true;
        if ((size_t)(end - equals - 1) == strlen(name) && memcmp(equals + 1, name, strlen(name)) == 0) return true;
    }
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
        const bool by_id = d->format == PN_FORMAT_LIBFM && strchr(name, '=') != NULL;
        const char *own = by_id ? name_behind_id(y, c, name) : name;
        if (own == NULL) continue;
        if (used > 0 && by_id != pn_data_by_id(d)) pn_yaml_problem(y, c, "columns go all by their place (NAME) or all by id (ID=NAME)");
        else if (name[0] == '\0' || strchr(name, ',') != NULL) pn_yaml_problem(y, c, "a column's name is not empty and has no comma");
        else if (stands(d, name, own)) pn_yaml_problem(y, c, "column \"%s\" stands twice", name);
        else if (used + strlen(name) + 2 > sizeof d->columns) pn_yaml_problem(y, c, "the columns' names are longer than %zu characters together", sizeof d->columns - 1);
        else snprintf(d->columns + used, sizeof d->columns - used, "%s%s", used > 0 ? "," : "", name);
    }
}

static void read_seen(struct pn_yaml *y, struct fy_node *seen, const char *what, const char *base, struct pn_data *d) {
    if (fy_node_get_type(seen) != FYNT_SEQUENCE || fy_node_sequence_item_count(seen) < 1 || fy_node_sequence_item_count(seen) > 4) {
        pn_yaml_problem(y, seen, "%s must be a list of 1 to 4 files", what);
        return;
    }
    void *it = NULL;
    for (struct fy_node *s; (s = fy_node_sequence_iterate(seen, &it)) != NULL;) pn_job_read_path(y, s, base, d->negatives.seen[d->negatives.n_seen++]);
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
    if (!pairs && !pn_data_names(d->columns, d->negatives.column)) pn_yaml_problem(y, n, "negatives: the data has no column \"%s\" (columns names them)", d->negatives.column);
    if (!pairs && !pn_data_names(d->columns, d->negatives.group)) pn_yaml_problem(y, n, "negatives: the data has no column \"%s\" (columns names them)", d->negatives.group);
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

void pn_job_read_data(struct pn_yaml *y, struct fy_node *n, const char *what, const char *base, struct pn_data *d) {
    if (n == NULL) return;
    *d = (struct pn_data){.present = true, .threshold = 0.5};
    if (!pn_yaml_keys(y, n, what, KEYS("format", "uri", "label", "threshold", "rows", "firstRow", "split", "part", "columns", "negatives", "holdOut", "rankAll", "history", "kafka"), KEYS("stream", "weight"))) return;
    int format = -1, part = PN_PART_ALL;
    if (pn_yaml_get(n, "format") == NULL) pn_yaml_problem(y, n, "%s needs a format: csv, tsv, jsonl, parquet, criteo, movielens, libfm, libsvm, ncf, lightgcn, sasrec, s3rec or audit", what);
    if (!pn_yaml_choice(y, pn_yaml_get(n, "format"), "format", formats, NULL, &format) || format < 0) return;
    d->format = format == 11 ? PN_FORMAT_LIBFM : format == 12 ? PN_FORMAT_CSV : (enum pn_format)format; /* libsvm is the same as libfm, tsv a csv with tabs */
    d->tabs = format == 12;
    if (pn_yaml_get(n, "kafka") != NULL) {
        if (strcmp(what, "spec.data.train") != 0) pn_yaml_problem(y, pn_yaml_get(n, "kafka"), "%s: only train can come out of a topic; measure on files", what);
        for (const char *const *key = KEYS("uri", "rows", "firstRow", "split", "part", "negatives", "holdOut", "rankAll", "history"); *key != NULL; key++)
            if (pn_yaml_get(n, *key) != NULL) pn_yaml_problem(y, pn_yaml_get(n, *key), "%s has no meaning beside kafka", *key);
        snprintf(d->label, sizeof d->label, "label");
        pn_yaml_text(y, pn_yaml_get(n, "label"), "label", d->label, sizeof d->label);
        pn_yaml_real(y, pn_yaml_get(n, "threshold"), "threshold", -1e9, 1e9, &d->threshold);
        struct fy_node *names = pn_yaml_get(n, "columns");
        read_columns(y, names, d);
        const bool labelled = pn_data_names(d->columns, d->label), csv = d->format == PN_FORMAT_CSV;
        if (csv && (names == NULL || !labelled)) pn_yaml_problem(y, names != NULL ? names : n, "%s: messages have no header, so csv and tsv need columns: all fields in their order, the label \"%s\" among them", what, d->label);
        if (d->format == PN_FORMAT_JSONL && (names == NULL || labelled)) pn_yaml_problem(y, names != NULL ? names : n, "%s needs columns: the keys of a message's object that are columns, without the label", what);
        if (names != NULL && !csv && d->format != PN_FORMAT_JSONL) pn_yaml_problem(y, names, "columns have a meaning for csv, tsv and jsonl here");
        pn_job_read_kafka(y, pn_yaml_get(n, "kafka"), what, d);
        return;
    }
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
    if (pn_yaml_choice(y, pn_yaml_get(n, "part"), "part", KEYS("all", "train", "test", "held", "validation"), NULL, &part)) d->part = part;
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
    else read_files(y, uri, base, d, pn_yaml_get(n, "negatives") != NULL);
    struct fy_node *columns = pn_yaml_get(n, "columns"), *negatives = pn_yaml_get(n, "negatives");
    if (d->format == PN_FORMAT_JSONL && columns == NULL) pn_yaml_problem(y, n, "%s needs columns: the keys of a line's object that are columns", what);
    if ((d->format == PN_FORMAT_JSONL || d->format == PN_FORMAT_PARQUET) && negatives == NULL) {
        read_columns(y, columns, d);
        if (pn_data_names(d->columns, d->label)) pn_yaml_problem(y, columns, "the label \"%s\" cannot be a column, too: a model would learn it from itself", d->label);
        read_pairs(y, n, what, base, d);
        return;
    }
    if (d->format != PN_FORMAT_LIBFM && (columns != NULL || (negatives != NULL && !pn_format_pairs(d->format) && !pn_format_sequences(d->format)))) {
        pn_yaml_problem(y, columns != NULL ? columns : negatives, "%s has a meaning for the formats libfm and libsvm%s only", columns != NULL ? "columns" : "negatives",
                        columns != NULL ? "" : ", ncf and lightgcn");
        return;
    }
    read_columns(y, columns, d);
    read_negatives(y, negatives, base, d);
    read_pairs(y, n, what, base, d);
}

void pn_job_check_weights(struct pn_job *job) {
    bool weighted = true;
    for (size_t i = 0; i < job->n_fields; i++) weighted = weighted && (strcmp(job->fields[i].column, PN_LIBFM_IDS) != 0 || job->fields[i].weighted);
    job->train.weighted = job->validation.weighted = job->test.weighted = weighted;
}
