/* Raw columns to keys and numbers. The same code runs in training and in serving, on the same job text: they cannot differ. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "nn/features_inside.h"

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
        if (!pn_field_keyed(field)) f->dense[f->n_dense++] = i;
        f->mean[i] = field->mean;
        f->std[i] = field->std > 0 ? field->std : 1;
        f->boundaries[i] = field->boundaries;
        f->n_boundaries[i] = field->n_boundaries;
        f->weighted = f->weighted || field->weighted;
        f->need = f->need || (field->standardize && field->std <= 0) || field->quantiles > 0 || field->vocabulary.kind == PN_VOCABULARY_COUNTED;
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
    f->user = column_of(names, n_columns, job->privacy.user_field);
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

void pn_features_close(struct pn_features *f) {
    pn_forest_close(f->forest);
    pn_features_free_counted(f);
    free(f);
}

void pn_features_use(struct pn_features *f, const struct pn_vocabularies *v) { f->vocabularies = v; }

/* ---- keys ---- */
/* A key of a field that has a number of buckets becomes that of one of them. */
static uint64_t bucketed(const struct pn_field *f, uint64_t key) { return f->buckets > 0 ? pn_field_domain_key(f, pn_mix64(key) % f->buckets) : key; }
static uint64_t missing(const struct pn_field *f) { return pn_field_missing_key(f); }
static uint64_t missing_key(const struct pn_field *f) { return bucketed(f, missing(f)); }

/* The key of a value of a field with one or several values. */
static uint64_t value_key(const struct pn_features *f, size_t i, const char *value, size_t n) {
    const struct pn_field *field = &f->job->fields[i];
    const uint64_t key = pn_hash(value, n, field->hash_seed);
    const struct pn_vocabulary_spec *v = &field->vocabulary;
    if (v->kind == PN_VOCABULARY_NONE) return bucketed(field, key);
    return pn_vocabulary_has(f->vocabularies->of[v->kind == PN_VOCABULARY_OF ? v->of : i], key) ? key : pn_vocabulary_other(field->hash_seed, v->oov, key);
}

bool pn_field_value_key(const struct pn_field *f, const char *value, size_t n, uint64_t *key) {
    if (f->type != PN_FIELD_CATEGORICAL && !pn_field_listed(f)) return false;
    *key = bucketed(f, pn_hash(value, n, f->hash_seed));
    return true;
}

static uint64_t numeric_key(const struct pn_features *features, size_t i, double x) {
    const struct pn_field *f = &features->job->fields[i];
    const double *boundaries = features->boundaries[i];
    int64_t bucket;
    if (f->criteo_log) {
        double v = x > 2 ? floor(log(x) * log(x)) : x;
        bucket = v > 1e15 ? (int64_t)1e15 : v < -1e15 ? (int64_t)-1e15 : (int64_t)v;
        if (x <= 2) bucket = bucket - 1000000; /* small numbers keep buckets of their own */
    } else {
        x = pn_transformed(f, x);
        size_t low = 0, high = features->n_boundaries[i];
        while (low < high) {
            size_t middle = (low + high) / 2;
            if (boundaries[middle] <= x) low = middle + 1;
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
    if (field->type != PN_FIELD_CATEGORICAL) return pn_number_of(f, raw, i, row, &x, n_bad) ? bucketed(field, numeric_key(f, i, x)) : missing_key(field);
    const struct pn_slice s = pn_cell_of(f, raw, i, row);
    return s.n == 0 ? missing_key(field) : value_key(f, i, s.text, s.n);
}

/* A row as the trees see it, before categorical values are looked up: those that share a key by a vocabulary are told apart. */
void pn_features_tree_row(const struct pn_features *f, const struct pn_raw *raw, size_t row, float *numbers, uint64_t *keys) {
    double x;
    uint64_t n_bad = 0; /* counted where the fields themselves are made */
    for (size_t i = 0; i < f->n_numbers; i++) numbers[i] = pn_number_of(f, raw, f->numbers[i], row, &x, &n_bad) ? (float)x : NAN;
    for (size_t i = 0; i < f->n_categories; i++) {
        const struct pn_field *field = &f->job->fields[f->categories[i]];
        const struct pn_slice s = pn_cell_of(f, raw, f->categories[i], row);
        keys[i] = s.n == 0 ? missing_key(field) : bucketed(field, pn_hash(s.text, s.n, field->hash_seed));
    }
}

/* ---- a batch ---- */
static bool add_key(struct pn_batch *b, size_t *room, uint64_t key) {
    if (b->n_keys == *room) {
        size_t more = *room * 2 + 64;
        uint64_t *grown = realloc(b->keys, more * sizeof *grown);
        if (grown == NULL) return false;
        b->keys = grown;
        float *weights = b->weights != NULL ? realloc(b->weights, more * sizeof *weights) : NULL;
        if (b->weights != NULL && weights == NULL) return false;
        b->weights = weights;
        *room = more;
    }
    if (b->weights != NULL) b->weights[b->n_keys] = 1;
    b->keys[b->n_keys++] = key;
    return true;
}

/* A weighted field's values as it weighs them; those of weight 0 are not there, and a row without any is zeros: a key of no weight. */
static bool add_multi(const struct pn_features *f, size_t i, struct pn_slice s, struct pn_batch *b, size_t *room, uint64_t *n_bad) {
    const struct pn_field *field = &f->job->fields[i];
    uint32_t n = 0;
    const char *at = s.text, *end = s.text + s.n;
    while (at < end && n < field->max_length) {
        const char *stop = memchr(at, field->separator, (size_t)(end - at));
        if (stop == NULL) stop = end;
        struct pn_slice value = {at, (size_t)(stop - at)};
        float weight;
        const bool good = pn_weighed(field, &value, &weight);
        *n_bad += !good;
        if (good && value.n > 0 && weight != 0) {
            if (!add_key(b, room, value_key(f, i, value.text, value.n))) return false;
            if (field->weighted) b->weights[b->n_keys - 1] = weight;
            n++;
        }
        at = stop + 1;
    }
    if (n > 0) return true;
    if (!add_key(b, room, missing_key(field))) return false;
    if (field->weighted) b->weights[b->n_keys - 1] = 0;
    return true;
}

/* The last max_length values, in their order. None: no key. */
static bool add_sequence(const struct pn_features *f, size_t i, struct pn_slice s, struct pn_batch *b, size_t *room) {
    const struct pn_field *field = &f->job->fields[i];
    const char *from = s.text + s.n;
    for (uint32_t n = 0; from > s.text; from--)
        if (from[-1] == field->separator && ++n == field->max_length) break;
    for (const char *at = from, *end = s.text + s.n; at < end;) {
        const char *stop = memchr(at, field->separator, (size_t)(end - at));
        if (stop == NULL) stop = end;
        if (stop > at && !add_key(b, room, value_key(f, i, at, (size_t)(stop - at)))) return false;
        at = stop + 1;
    }
    return true;
}

enum pn_result pn_features_whole(const struct pn_features *f, const struct pn_raw *raw, struct pn_error *err) {
    const struct pn_job *job = f->job;
    const uint32_t roles[] = {job->sequence.negatives, job->sequence.seen};
    for (size_t i = 0; i < sizeof roles / sizeof *roles && job->model == PN_MODEL_SASREC; i++) {
        if (roles[i] == 0) continue;
        const struct pn_field *field = &job->fields[roles[i] - 1];
        for (size_t row = 0; row < raw->n_rows; row++) {
            const struct pn_slice s = pn_cell_of(f, raw, roles[i] - 1, row);
            if (s.n / 2 < field->max_length) continue; /* a value and its separator are two bytes at the least */
            size_t n = 1;
            for (const char *at = s.text, *end = s.text + s.n; (at = memchr(at, field->separator, (size_t)(end - at))) != NULL; at++) n++;
            if (n > field->max_length)
                return pn_fail(err, PN_INVALID, "feature \"%s\": a row has a list of %zu items, and maxLength is %u: what is %s must be there whole; give it maxLength: %zu or more", field->name, n, field->max_length,
                               i == 0 ? "ranked or trained against" : "not to be ranked", n);
        }
    }
    return PN_OK;
}

/* One key of each tree: its number, the leaf, and the forest's version, so that another forest's leaves are other rows. */
static bool add_leaves(const struct pn_features *f, const struct pn_raw *raw, size_t row, bool learned, struct pn_batch *b, size_t *room, float *x, uint64_t *keys, uint32_t *leaves) {
    const uint64_t salt = pn_mix64(f->job->fields[f->i_leaves].hash_seed ^ f->forest->version);
    pn_features_tree_row(f, raw, row, x, keys);
    const uint32_t fold = learned ? pn_forest_fold(x, f->n_numbers, keys, f->n_categories) : PN_NO_FOLD;
    pn_forest_leaves(f->forest, x, keys, fold, leaves);
    for (size_t t = 0; t < f->forest->n_trees; t++)
        if (!add_key(b, room, pn_mix64(salt ^ pn_mix64((uint64_t)t << 32 | leaves[t])))) return false;
    return true;
}

uint64_t pn_user_of(const char *text, size_t n) { return pn_hash(text, n, 0x75736572ull); }

/* Further labels, the teacher's logits, and whose the rows are. */
static bool add_labels(const struct pn_features *f, const struct pn_raw *raw, struct pn_batch *b) {
    const size_t n = raw->n_rows;
    double x;
    if (f->job->n_heads > 0 && (b->head_labels = calloc(f->job->n_heads * n + 1, sizeof *b->head_labels)) == NULL) return false;
    for (size_t h = 0; h < f->job->n_heads; h++)
        for (size_t r = 0; r < n; r++) {
            if (f->head_column[h] == SIZE_MAX) x = raw->values != NULL ? (double)raw->values[r] : NAN;
            else if (!pn_number(pn_cell(raw, f->head_column[h], r), &x)) x = NAN;
            b->head_labels[h * n + r] = x >= f->job->heads[h].threshold;
        }
    if (f->user != SIZE_MAX && (b->user = malloc((n + 1) * sizeof *b->user)) == NULL) return false;
    for (size_t r = 0; r < n && f->user != SIZE_MAX; r++) {
        const struct pn_slice s = pn_cell(raw, f->user, r);
        b->user[r] = pn_user_of(s.text, s.n);
    }
    if (f->teacher == SIZE_MAX) return true;
    if ((b->teacher = malloc((n + 1) * sizeof *b->teacher)) == NULL) return false;
    for (size_t r = 0; r < n; r++) b->teacher[r] = pn_number(pn_cell(raw, f->teacher, r), &x) ? (float)x : NAN;
    return true;
}

static enum pn_result make_batch(struct pn_features *f, const struct pn_raw *raw, bool learned, struct pn_batch *b, uint64_t *n_bad) {
    const size_t n = raw->n_rows;
    size_t room = n * f->n_sparse + 64;
    memset(b, 0, sizeof *b);
    if (f->i_leaves != SIZE_MAX && f->forest == NULL) return PN_INVALID; /* neither trained nor read */
    for (size_t i = 0; i < f->job->n_fields; i++) {
        const struct pn_field *field = &f->job->fields[i];
        if (field->quantiles > 0 && f->boundaries[i] == NULL) return PN_INVALID;
        if (field->vocabulary.kind != PN_VOCABULARY_NONE && field->vocabulary.kind != PN_VOCABULARY_OF && (f->vocabularies == NULL || f->vocabularies->of[i] == NULL)) return PN_INVALID;
    }
    float x[3 * PN_MAX_FIELDS];
    uint64_t categories[PN_MAX_FIELDS];
    uint32_t *leaves = f->forest != NULL ? malloc((f->forest->n_trees + 1) * sizeof *leaves) : NULL;
    if (f->forest != NULL && leaves == NULL) return PN_NO_MEMORY;
    b->n_examples = n;
    b->n_sparse = f->n_sparse;
    b->n_dense = f->n_dense;
    b->begin = malloc((f->n_sparse * n + 1) * sizeof *b->begin);
    b->keys = malloc(room * sizeof *b->keys);
    b->weights = f->weighted ? malloc(room * sizeof *b->weights) : NULL;
    b->dense = malloc((f->n_dense * n + 1) * sizeof *b->dense);
    b->labels = malloc((n + 1) * sizeof *b->labels);
    b->log_q = calloc(n + 1, sizeof *b->log_q);
    bool ok = b->begin != NULL && b->keys != NULL && b->dense != NULL && b->labels != NULL && b->log_q != NULL && (!f->weighted || b->weights != NULL);
    for (size_t s = 0; ok && s < f->n_sparse; s++) {
        const size_t i = f->sparse[s];
        const struct pn_field *field = &f->job->fields[i];
        for (size_t r = 0; ok && r < n; r++) {
            b->begin[s * n + r] = (uint32_t)b->n_keys;
            if (field->type == PN_FIELD_SEQUENCE) ok = add_sequence(f, i, pn_cell(raw, f->column[i], r), b, &room);
            else if (field->type == PN_FIELD_LEAVES) ok = add_leaves(f, raw, r, learned, b, &room, x, categories, leaves);
            else if (field->type == PN_FIELD_MULTI) ok = add_multi(f, i, pn_cell_of(f, raw, i, r), b, &room, n_bad);
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
            const bool there = pn_number_of(f, raw, i, r, &x, n_bad);
            if (there) x = pn_transformed(field, x);
            if (field->standardize) x = there ? (x - f->mean[i]) / f->std[i] : 0; /* missing: the mean */
            const bool fits = isfinite((float)x); /* 1e39 is a number, and no float */
            if (!fits && n_bad != NULL) ++*n_bad;
            b->dense[r * f->n_dense + d] = fits ? (float)x : 0;
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

enum pn_result pn_features_batch(struct pn_features *f, const struct pn_raw *raw, struct pn_batch *b, uint64_t *n_bad) { return make_batch(f, raw, false, b, n_bad); }

enum pn_result pn_features_learned(struct pn_features *f, const struct pn_raw *raw, struct pn_batch *b, uint64_t *n_bad) { return make_batch(f, raw, true, b, n_bad); }
