/* Raw columns to keys and numbers. The same code runs in training and in serving, on the same job text: they cannot differ. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "common/json.h"
#include "nn/forest.h"
#include "nn/model.h"

struct statistics { uint64_t n; double mean, m2; };

struct pn_features {
    const struct pn_job *job;
    size_t column[PN_MAX_FIELDS];        /* raw column of a field (crosses: none) */
    size_t sparse[PN_MAX_FIELDS], dense[PN_MAX_FIELDS], n_sparse, n_dense;
    struct statistics counted[PN_MAX_FIELDS];
    double mean[PN_MAX_FIELDS], std[PN_MAX_FIELDS];
    bool need;
    /* leaves (job->forest): which fields the trees see, one a column */
    size_t numbers[PN_MAX_FIELDS], n_numbers, categories[PN_MAX_FIELDS], n_categories, i_leaves; /* i_leaves: SIZE_MAX: none */
    struct pn_forest *forest;
    struct pn_forest_rows rows;          /* until it is trained */
    bool no_memory;
    size_t head_column[PN_MAX_HEADS], teacher; /* SIZE_MAX: not there, or no column of its own */
};

static bool is_dense(const struct pn_field *f) { return f->type == PN_FIELD_NUMERIC && f->n_boundaries == 0 && !f->criteo_log; }

static size_t column_of(const char *const *names, size_t n, const char *name) {
    size_t c = 0;
    while (c < n && strcmp(names[c], name) != 0) c++;
    return name[0] == '\0' || c == n ? SIZE_MAX : c;
}

/* What the trees see: each raw column once, numbers as they are, categorical values by what was counted of them. */
static void choose_columns(struct pn_features *f) {
    for (size_t i = 0; i < f->job->n_fields; i++) {
        const struct pn_field *field = &f->job->fields[i];
        const bool number = field->type == PN_FIELD_NUMERIC;
        if (!number && field->type != PN_FIELD_CATEGORICAL) continue;
        size_t *list = number ? f->numbers : f->categories, *n = number ? &f->n_numbers : &f->n_categories, k = 0;
        while (k < *n && f->column[list[k]] != f->column[i]) k++;
        if (k == *n) list[(*n)++] = i;
    }
    f->need = true;
}

enum pn_result pn_features_open(struct pn_features **out, const struct pn_job *job, const char *const *names, size_t n_columns, struct pn_error *err) {
    struct pn_features *f = calloc(1, sizeof *f);
    if (f == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for the features");
    f->job = job;
    f->i_leaves = SIZE_MAX;
    for (size_t i = 0; i < job->n_fields; i++) {
        const struct pn_field *field = &job->fields[i];
        if (is_dense(field)) f->dense[f->n_dense++] = i;
        f->mean[i] = field->mean;
        f->std[i] = field->std > 0 ? field->std : 1;
        f->need = f->need || (field->standardize && field->std <= 0);
        if (field->type == PN_FIELD_LEAVES) f->i_leaves = i;
        if (field->type == PN_FIELD_CROSS || field->type == PN_FIELD_LEAVES) continue;
        size_t c = 0;
        while (c < n_columns && strcmp(names[c], field->column) != 0) c++;
        if (c == n_columns) {
            char list[300] = "";
            for (size_t k = 0, n = 0; k < n_columns && n < sizeof list; k++) n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", k ? ", " : "", names[k]);
            free(f);
            return pn_fail(err, PN_INVALID, "feature \"%s\" needs a column \"%s\"; the data has: %s", field->name, field->column, list);
        }
        f->column[i] = c;
    }
    f->n_sparse = pn_batch_fields(job, f->sparse);
    if (f->i_leaves != SIZE_MAX) choose_columns(f);
    for (size_t i = 0; i < job->n_heads; i++) f->head_column[i] = column_of(names, n_columns, job->heads[i].column);
    f->teacher = column_of(names, n_columns, job->distill.column);
    *out = f;
    return PN_OK;
}

enum pn_result pn_features_labelled(const struct pn_features *f, bool teacher, struct pn_error *err) {
    for (size_t i = 0; i < f->job->n_heads; i++)
        if (f->job->heads[i].column[0] != '\0' && f->head_column[i] == SIZE_MAX)
            return pn_fail(err, PN_INVALID, "head \"%s\" needs a column \"%s\", which the data does not have", f->job->heads[i].name, f->job->heads[i].column);
    if (teacher && f->job->distill.weight > 0 && f->teacher == SIZE_MAX)
        return pn_fail(err, PN_INVALID, "distill needs a column \"%s\" with the teacher's logits, which the training data does not have", f->job->distill.column);
    return PN_OK;
}

static void free_rows(struct pn_forest_rows *r) {
    free(r->numbers);
    free(r->labels);
    free(r->keys);
    *r = (struct pn_forest_rows){0};
}

void pn_features_close(struct pn_features *f) {
    pn_forest_close(f->forest);
    free_rows(&f->rows);
    free(f);
}

/* ---- one value ---- */
struct slice { const char *text; size_t n; };

static struct slice cell(const struct pn_raw *raw, size_t column, size_t row) {
    size_t i = column * raw->n_rows + row;
    return (struct slice){raw->text + raw->offset[i], raw->length[i]};
}

/* A field's value; an empty one is the field's default. */
static struct slice cell_of(const struct pn_features *f, const struct pn_raw *raw, size_t i, size_t row) {
    const struct pn_field *field = &f->job->fields[i];
    const struct slice s = cell(raw, f->column[i], row);
    return s.n == 0 && field->missing[0] != '\0' ? (struct slice){field->missing, strlen(field->missing)} : s;
}

/* False: missing or no number; *out is left alone. */
static bool number(struct slice s, double *out) {
    char text[64], *end;
    if (s.n == 0 || s.n >= sizeof text) return false;
    memcpy(text, s.text, s.n);
    text[s.n] = '\0';
    const double x = strtod(text, &end);
    if (end != text + s.n || !isfinite(x)) return false;
    *out = x;
    return true;
}

/* A numeric field's value, or its default. False: missing. */
static bool number_of(const struct pn_features *f, const struct pn_raw *raw, size_t i, size_t row, double *x, uint64_t *n_bad) {
    const struct slice s = cell(raw, f->column[i], row);
    if (number(s, x)) return true;
    *n_bad += s.n > 0;
    return number((struct slice){f->job->fields[i].missing, strlen(f->job->fields[i].missing)}, x);
}

/* A key of a field that has a number of buckets becomes that of one of them. */
static uint64_t bucketed(const struct pn_field *f, uint64_t key) { return f->buckets > 0 ? pn_field_domain_key(f, pn_mix64(key) % f->buckets) : key; }
static uint64_t missing(const struct pn_field *f) { return pn_field_missing_key(f); }
static uint64_t missing_key(const struct pn_field *f) { return bucketed(f, missing(f)); }

static double transformed(const struct pn_field *f, double x) {
    if (f->clip) x = x < f->clip_low ? f->clip_low : x > f->clip_high ? f->clip_high : x;
    return f->log1p ? copysign(log1p(fabs(x)), x) : x;
}

static uint64_t numeric_key(const struct pn_field *f, double x) {
    int64_t bucket;
    if (f->criteo_log) {
        double v = x > 2 ? floor(log(x) * log(x)) : x;
        bucket = v > 1e15 ? (int64_t)1e15 : v < -1e15 ? (int64_t)-1e15 : (int64_t)v;
        if (x <= 2) bucket = bucket - 1000000; /* small numbers keep buckets of their own */
    } else {
        x = transformed(f, x);
        size_t low = 0, high = f->n_boundaries;
        while (low < high) {
            size_t middle = (low + high) / 2;
            if (f->boundaries[middle] <= x) low = middle + 1;
            else high = middle;
        }
        bucket = (int64_t)low;
    }
    return pn_hash(&bucket, sizeof bucket, f->hash_seed);
}

/* The single key of a field that has one (all but multi). */
static uint64_t key_of(const struct pn_features *f, const struct pn_raw *raw, size_t i, size_t row, uint64_t *n_bad) {
    const struct pn_field *field = &f->job->fields[i];
    if (field->type == PN_FIELD_CROSS) {
        uint64_t key = field->hash_seed;
        for (uint32_t k = 0; k < field->n_crossed; k++) key = pn_mix64(key ^ pn_mix64(key_of(f, raw, field->crossed[k], row, n_bad)));
        return bucketed(field, key);
    }
    double x;
    if (field->type != PN_FIELD_CATEGORICAL) return number_of(f, raw, i, row, &x, n_bad) ? bucketed(field, numeric_key(field, x)) : missing_key(field);
    const struct slice s = cell_of(f, raw, i, row);
    return s.n == 0 ? missing_key(field) : bucketed(field, pn_hash(s.text, s.n, field->hash_seed));
}

/* ---- statistics (Welford 1962), in the order of the rows ---- */
bool pn_features_need_statistics(const struct pn_features *f) { return f->need; }

/* A row as the trees see it, before categorical values are looked up. */
static void tree_row(const struct pn_features *f, const struct pn_raw *raw, size_t row, float *numbers, uint64_t *keys) {
    double x;
    uint64_t n_bad = 0; /* counted where the fields themselves are made */
    for (size_t i = 0; i < f->n_numbers; i++) numbers[i] = number_of(f, raw, f->numbers[i], row, &x, &n_bad) ? (float)x : NAN;
    for (size_t i = 0; i < f->n_categories; i++) keys[i] = key_of(f, raw, f->categories[i], row, &n_bad);
}

/* Keeps a batch's rows for the trees, up to job->forest.rows. */
static bool gather(struct pn_features *f, const struct pn_raw *raw) {
    struct pn_forest_rows *r = &f->rows;
    for (size_t i = 0; i < raw->n_rows && r->n < f->job->forest.rows; i++) {
        if (r->n == r->room) {
            const size_t room = r->room * 2 + 4096;
            float *numbers = realloc(r->numbers, (room * f->n_numbers + 1) * sizeof *numbers), *labels = realloc(r->labels, room * sizeof *labels);
            uint64_t *keys = realloc(r->keys, (room * f->n_categories + 1) * sizeof *keys);
            if (numbers != NULL) r->numbers = numbers;
            if (labels != NULL) r->labels = labels;
            if (keys != NULL) r->keys = keys;
            if (numbers == NULL || labels == NULL || keys == NULL) return false;
            r->room = room;
        }
        tree_row(f, raw, i, r->numbers + r->n * f->n_numbers, r->keys + r->n * f->n_categories);
        r->labels[r->n++] = raw->labels != NULL ? raw->labels[i] : 0;
    }
    return true;
}

enum pn_result pn_features_train(struct pn_features *f, struct pn_error *err) {
    if (f->i_leaves == SIZE_MAX) return PN_OK;
    if (f->no_memory) return pn_fail(err, PN_NO_MEMORY, "no memory for the rows that trees are trained on");
    pn_forest_close(f->forest);
    const enum pn_result r = pn_forest_train(&f->forest, &f->job->forest, f->job->seed, f->n_numbers, f->n_categories, &f->rows, err);
    free_rows(&f->rows);
    return r;
}

void pn_features_observe(struct pn_features *f, const struct pn_raw *raw) {
    if (f->i_leaves != SIZE_MAX && !gather(f, raw)) f->no_memory = true;
    for (size_t i = 0; i < f->job->n_fields; i++) {
        const struct pn_field *field = &f->job->fields[i];
        if (!field->standardize || field->std > 0) continue;
        struct statistics *s = &f->counted[i];
        for (size_t r = 0; r < raw->n_rows; r++) {
            double x;
            if (!number(cell(raw, f->column[i], r), &x)) continue;
            x = transformed(field, x);
            double delta = x - s->mean;
            s->mean += delta / (double)++s->n;
            s->m2 += delta * (x - s->mean);
        }
    }
}

void pn_features_freeze(struct pn_features *f) {
    for (size_t i = 0; i < f->job->n_fields; i++) {
        const struct statistics *s = &f->counted[i];
        if (s->n < 2) continue;
        f->mean[i] = s->mean;
        f->std[i] = sqrt(s->m2 / (double)(s->n - 1));
        if (!(f->std[i] > 0)) f->std[i] = 1;
    }
    f->need = false;
}

char *pn_features_statistics(const struct pn_features *f) {
    struct json_object *o = json_object_new_object();
    char text[64];
    for (size_t i = 0; i < f->job->n_fields; i++) {
        if (!f->job->fields[i].standardize) continue;
        struct json_object *e = json_object_new_object();
        snprintf(text, sizeof text, "%.17g", f->mean[i]);
        pn_json_add(e, "mean", json_object_new_double_s(f->mean[i], text));
        snprintf(text, sizeof text, "%.17g", f->std[i]);
        pn_json_add(e, "std", json_object_new_double_s(f->std[i], text));
        pn_json_add(o, f->job->fields[i].name, e);
    }
    if (f->forest != NULL) pn_json_add(o, f->job->fields[f->i_leaves].name, pn_forest_write(f->forest));
    char *out = strdup(pn_json_text(o));
    json_object_put(o);
    return out;
}

enum pn_result pn_features_set_statistics(struct pn_features *f, const char *json, struct pn_error *err) {
    struct json_object *o = pn_json_parse(json, strlen(json), err);
    if (o == NULL) return PN_INVALID;
    enum pn_result r = PN_OK;
    for (size_t i = 0; i < f->job->n_fields; i++) {
        if (!f->job->fields[i].standardize) continue;
        struct json_object *e = pn_json_get(o, f->job->fields[i].name);
        f->mean[i] = pn_json_double(e, "mean", NAN);
        f->std[i] = pn_json_double(e, "std", NAN);
        if (!(f->std[i] > 0) || !isfinite(f->mean[i])) r = pn_fail(err, PN_INVALID, "the statistics of feature \"%s\" are missing", f->job->fields[i].name);
    }
    if (r == PN_OK && f->i_leaves != SIZE_MAX) {
        pn_forest_close(f->forest);
        f->forest = pn_forest_read(pn_json_get(o, f->job->fields[f->i_leaves].name), f->n_numbers, f->n_categories, err);
        if (f->forest == NULL) r = PN_INVALID;
    }
    f->need = false;
    json_object_put(o);
    return r;
}

/* ---- a batch ---- */
static bool add_key(struct pn_batch *b, size_t *room, uint64_t key) {
    if (b->n_keys == *room) {
        size_t more = *room * 2 + 64;
        uint64_t *grown = realloc(b->keys, more * sizeof *grown);
        if (grown == NULL) return false;
        b->keys = grown;
        *room = more;
    }
    b->keys[b->n_keys++] = key;
    return true;
}

static bool add_multi(const struct pn_field *field, struct slice s, struct pn_batch *b, size_t *room) {
    uint32_t n = 0;
    const char *at = s.text, *end = s.text + s.n;
    while (at < end && n < field->max_length) {
        const char *stop = memchr(at, field->separator, (size_t)(end - at));
        if (stop == NULL) stop = end;
        if (stop > at) {
            if (!add_key(b, room, bucketed(field, pn_hash(at, (size_t)(stop - at), field->hash_seed)))) return false;
            n++;
        }
        at = stop + 1;
    }
    return n > 0 || add_key(b, room, missing_key(field));
}

/* The last max_length values, in their order. None: no key. */
static bool add_sequence(const struct pn_field *field, struct slice s, struct pn_batch *b, size_t *room) {
    const char *from = s.text + s.n;
    for (uint32_t n = 0; from > s.text; from--)
        if (from[-1] == field->separator && ++n == field->max_length) break;
    for (const char *at = from, *end = s.text + s.n; at < end;) {
        const char *stop = memchr(at, field->separator, (size_t)(end - at));
        if (stop == NULL) stop = end;
        if (stop > at && !add_key(b, room, bucketed(field, pn_hash(at, (size_t)(stop - at), field->hash_seed)))) return false;
        at = stop + 1;
    }
    return true;
}

/* One key of each tree: its number, the leaf, and the forest's version, so that another forest's leaves are other rows. */
static bool add_leaves(const struct pn_features *f, const struct pn_raw *raw, size_t row, struct pn_batch *b, size_t *room, float *x, uint64_t *keys, uint32_t *leaves) {
    const uint64_t salt = pn_mix64(f->job->fields[f->i_leaves].hash_seed ^ f->forest->version);
    tree_row(f, raw, row, x, keys);
    pn_forest_leaves(f->forest, x, keys, leaves);
    for (size_t t = 0; t < f->forest->n_trees; t++)
        if (!add_key(b, room, pn_mix64(salt ^ pn_mix64((uint64_t)t << 32 | leaves[t])))) return false;
    return true;
}

/* Further labels and the teacher's logits. */
static bool add_labels(const struct pn_features *f, const struct pn_raw *raw, struct pn_batch *b) {
    const size_t n = raw->n_rows;
    double x;
    if (f->job->n_heads > 0 && (b->head_labels = calloc(f->job->n_heads * n + 1, sizeof *b->head_labels)) == NULL) return false;
    for (size_t h = 0; h < f->job->n_heads; h++)
        for (size_t r = 0; r < n; r++) {
            if (f->head_column[h] == SIZE_MAX) x = raw->values != NULL ? (double)raw->values[r] : NAN;
            else if (!number(cell(raw, f->head_column[h], r), &x)) x = NAN;
            b->head_labels[h * n + r] = x >= f->job->heads[h].threshold;
        }
    if (f->teacher == SIZE_MAX) return true;
    if ((b->teacher = malloc((n + 1) * sizeof *b->teacher)) == NULL) return false;
    for (size_t r = 0; r < n; r++) b->teacher[r] = number(cell(raw, f->teacher, r), &x) ? (float)x : NAN;
    return true;
}

enum pn_result pn_features_batch(struct pn_features *f, const struct pn_raw *raw, struct pn_batch *b, uint64_t *n_bad) {
    const size_t n = raw->n_rows;
    size_t room = n * f->n_sparse + 64;
    memset(b, 0, sizeof *b);
    if (f->i_leaves != SIZE_MAX && f->forest == NULL) return PN_INVALID; /* neither trained nor read */
    float x[3 * PN_MAX_FIELDS];
    uint64_t categories[PN_MAX_FIELDS];
    uint32_t *leaves = f->forest != NULL ? malloc((f->forest->n_trees + 1) * sizeof *leaves) : NULL;
    if (f->forest != NULL && leaves == NULL) return PN_NO_MEMORY;
    b->n_examples = n;
    b->n_sparse = f->n_sparse;
    b->n_dense = f->n_dense;
    b->begin = malloc((f->n_sparse * n + 1) * sizeof *b->begin);
    b->keys = malloc(room * sizeof *b->keys);
    b->dense = malloc((f->n_dense * n + 1) * sizeof *b->dense);
    b->labels = malloc((n + 1) * sizeof *b->labels);
    b->log_q = calloc(n + 1, sizeof *b->log_q);
    bool ok = b->begin != NULL && b->keys != NULL && b->dense != NULL && b->labels != NULL && b->log_q != NULL;
    for (size_t s = 0; ok && s < f->n_sparse; s++) {
        const size_t i = f->sparse[s];
        const struct pn_field *field = &f->job->fields[i];
        for (size_t r = 0; ok && r < n; r++) {
            b->begin[s * n + r] = (uint32_t)b->n_keys;
            if (field->type == PN_FIELD_SEQUENCE) ok = add_sequence(field, cell(raw, f->column[i], r), b, &room);
            else if (field->type == PN_FIELD_LEAVES) ok = add_leaves(f, raw, r, b, &room, x, categories, leaves);
            else if (field->type == PN_FIELD_MULTI) ok = add_multi(field, cell_of(f, raw, i, r), b, &room);
            else ok = add_key(b, &room, key_of(f, raw, i, r, n_bad));
        }
    }
    free(leaves);
    if (ok) b->begin[f->n_sparse * n] = (uint32_t)b->n_keys;
    for (size_t d = 0; ok && d < f->n_dense; d++) {
        const size_t i = f->dense[d];
        const struct pn_field *field = &f->job->fields[i];
        for (size_t r = 0; r < n; r++) {
            double x = 0;
            const bool there = number_of(f, raw, i, r, &x, n_bad);
            if (there) x = transformed(field, x);
            if (field->standardize) x = there ? (x - f->mean[i]) / f->std[i] : 0; /* missing: the mean */
            b->dense[r * f->n_dense + d] = (float)x;
        }
    }
    if (ok && n > 0) {
        if (raw->labels != NULL) memcpy(b->labels, raw->labels, n * sizeof *b->labels);
        else memset(b->labels, 0, n * sizeof *b->labels);
        if (raw->log_q != NULL) memcpy(b->log_q, raw->log_q, n * sizeof *b->log_q);
    }
    ok = ok && add_labels(f, raw, b);
    ok = ok && pn_batch_unique(b, f->job, f->sparse);
    if (!ok) pn_batch_free(b);
    return ok ? PN_OK : PN_NO_MEMORY;
}
