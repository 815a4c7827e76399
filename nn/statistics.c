/* The pass over the training data that some transforms need: sums, quantiles, counts of values, rows for trees; and what comes of it as text. */
#include <stdio.h>
#include "nn/features_inside.h"

#define MOST_ROWS 100000u /* for means and deviations; trees, quantiles and vocabularies have limits of their own */

static void free_rows(struct pn_forest_rows *r) {
    free(r->numbers);
    free(r->labels);
    free(r->keys);
    *r = (struct pn_forest_rows){0};
}

void pn_features_free_counted(struct pn_features *f) {
    free_rows(&f->rows);
    for (size_t i = 0; i < PN_MAX_FIELDS; i++) {
        pn_quantiles_close(f->counted[i].quantiles);
        pn_counts_close(f->counted[i].counts);
        free(f->counted[i].boundaries);
        free(f->counted[i].text);
    }
}

bool pn_features_need_statistics(const struct pn_features *f) { return f->need; }

/* ---- rows ---- */
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
        pn_features_tree_row(f, raw, i, r->numbers + r->n * f->n_numbers, r->keys + r->n * f->n_categories);
        r->labels[r->n++] = raw->labels != NULL ? raw->labels[i] : 0;
    }
    return true;
}

static void went_wrong(struct pn_features *f, enum pn_result r, size_t i) {
    if (r == PN_OK || f->wrong != PN_OK) return;
    f->wrong = r;
    f->i_wrong = i;
}

/* Welford 1962 */
static void observe_number(struct pn_counted *s, double x) {
    const double delta = x - s->mean;
    s->mean += delta / (double)++s->n;
    s->m2 += delta * (x - s->mean);
}

/* Each value of a list counts, those beyond maxLength, too: which are kept is another question. */
static enum pn_result observe_values(struct pn_counts *c, const struct pn_field *field, struct pn_slice s) {
    if (!pn_field_listed(field)) return pn_counts_add(c, s.text, s.n);
    enum pn_result r = PN_OK;
    for (const char *at = s.text, *end = s.text + s.n, *stop; r == PN_OK && at < end; at = stop + 1) {
        stop = memchr(at, field->separator, (size_t)(end - at));
        if (stop == NULL) stop = end;
        struct pn_slice value = {at, (size_t)(stop - at)};
        float weight;
        if (pn_weighed(field, &value, &weight)) r = pn_counts_add(c, value.text, value.n);
    }
    return r;
}

/* So many of a batch's rows are still wanted of a feature that takes `limit` of all (0: each). */
static size_t wanted(const struct pn_features *f, uint64_t limit, size_t n) { return limit == 0 || f->seen + n <= limit ? n : f->seen < limit ? (size_t)(limit - f->seen) : 0; }

static uint64_t standard_rows(const struct pn_features *f) { return f->job->forest.trees > 0 ? f->job->forest.rows : MOST_ROWS; }

void pn_features_observe(struct pn_features *f, const struct pn_raw *raw) {
    if (f->i_leaves != SIZE_MAX && !gather(f, raw)) went_wrong(f, PN_NO_MEMORY, f->i_leaves);
    for (size_t i = 0; i < f->job->n_fields; i++) {
        const struct pn_field *field = &f->job->fields[i];
        struct pn_counted *s = &f->counted[i];
        double x;
        uint64_t n_bad = 0; /* counted where the fields themselves are made */
        if (field->standardize && !(field->std > 0) && f->seen < standard_rows(f)) /* batches whole, as they always were */
            for (size_t r = 0; r < raw->n_rows; r++)
                if (pn_number(pn_cell(raw, f->column[i], r), &x)) observe_number(s, pn_transformed(field, x));
        if (field->quantiles > 0) {
            if (s->quantiles == NULL && (s->quantiles = pn_quantiles_open()) == NULL) went_wrong(f, PN_NO_MEMORY, i);
            for (size_t r = 0, n = wanted(f, field->quantile_rows, raw->n_rows); s->quantiles != NULL && r < n; r++)
                if (pn_number_of(f, raw, i, r, &x, &n_bad) && !pn_quantiles_add(s->quantiles, pn_transformed(field, x))) went_wrong(f, PN_NO_MEMORY, i);
        }
        if (field->vocabulary.kind == PN_VOCABULARY_COUNTED) {
            if (s->counts == NULL && (s->counts = pn_counts_open()) == NULL) went_wrong(f, PN_NO_MEMORY, i);
            for (size_t r = 0, n = wanted(f, field->vocabulary.rows, raw->n_rows); s->counts != NULL && r < n && f->wrong == PN_OK; r++)
                went_wrong(f, observe_values(s->counts, field, pn_cell_of(f, raw, i, r)), i);
        }
    }
    f->seen += raw->n_rows;
}

bool pn_features_want_rows(const struct pn_features *f) {
    if (f->wrong != PN_OK) return false;
    bool more = f->i_leaves != SIZE_MAX && f->seen < f->job->forest.rows;
    for (size_t i = 0; i < f->job->n_fields; i++) {
        const struct pn_field *field = &f->job->fields[i];
        more = more || (field->standardize && !(field->std > 0) && f->seen < standard_rows(f));
        more = more || (field->quantiles > 0 && wanted(f, field->quantile_rows, 1) > 0);
        more = more || (field->vocabulary.kind == PN_VOCABULARY_COUNTED && wanted(f, field->vocabulary.rows, 1) > 0);
    }
    return more;
}

/* ---- what comes of them ---- */
static enum pn_result choose_boundaries(struct pn_features *f, size_t i, struct pn_error *err) {
    const struct pn_field *field = &f->job->fields[i];
    struct pn_counted *s = &f->counted[i];
    if (s->quantiles == NULL || pn_quantiles_count(s->quantiles) == 0)
        return pn_fail(err, PN_INVALID, "feature \"%s\": there is no number in column \"%s\" of the %llu rows that were read, so there are no quantiles", field->name, field->column,
                       (unsigned long long)f->seen);
    s->boundaries = malloc(field->quantiles * sizeof *s->boundaries);
    const size_t n = s->boundaries != NULL ? pn_quantiles_boundaries(s->quantiles, field->quantiles, s->boundaries) : SIZE_MAX;
    pn_quantiles_close(s->quantiles);
    s->quantiles = NULL;
    if (n == SIZE_MAX) return pn_fail(err, PN_NO_MEMORY, "no memory for the quantiles of feature \"%s\"", field->name);
    f->boundaries[i] = s->boundaries;
    f->n_boundaries[i] = n;
    return PN_OK;
}

static enum pn_result choose_values(struct pn_features *f, size_t i, struct pn_error *err) {
    const struct pn_field *field = &f->job->fields[i];
    struct pn_counted *s = &f->counted[i];
    char *text = NULL;
    size_t n_bytes = 0, n_values = 0;
    if (s->counts != NULL && pn_counts_text(s->counts, field->vocabulary.min_count, field->vocabulary.max_size, &text, &n_bytes, &n_values) != PN_OK)
        return pn_fail(err, PN_NO_MEMORY, "no memory for the vocabulary of feature \"%s\"", field->name);
    pn_counts_close(s->counts);
    s->counts = NULL;
    if (n_values > 0) return pn_features_give(f, i, text, n_bytes, err);
    free(text);
    return pn_fail(err, PN_INVALID, "feature \"%s\": no value of column \"%s\" came %u times in the %llu rows that were read, so there is no vocabulary", field->name, field->column,
                   field->vocabulary.min_count, (unsigned long long)f->seen);
}

enum pn_result pn_features_train(struct pn_features *f, struct pn_error *err) {
    const struct pn_field *wrong = &f->job->fields[f->i_wrong];
    if (f->wrong == PN_FULL)
        return pn_fail(err, PN_INVALID, "feature \"%s\": more than %u different values (or %u MB of them) to count; take buckets, or fewer rows: vocabulary: {rows: N}", wrong->name,
                       PN_VOCABULARY_MOST, PN_VOCABULARY_BYTES >> 21);
    if (f->wrong != PN_OK) return pn_fail(err, f->wrong, "no memory for what feature \"%s\" needs of the rows", wrong->name);
    for (size_t i = 0; i < f->job->n_fields; i++) {
        const struct pn_field *field = &f->job->fields[i];
        enum pn_result r = PN_OK;
        if (field->quantiles > 0) r = choose_boundaries(f, i, err);
        else if (field->vocabulary.kind == PN_VOCABULARY_COUNTED) r = choose_values(f, i, err);
        if (r != PN_OK) return r;
    }
    if (f->i_leaves == SIZE_MAX) return PN_OK;
    pn_forest_close(f->forest);
    const enum pn_result r = pn_forest_train(&f->forest, &f->job->forest, f->job->seed, f->n_numbers, f->n_categories, &f->rows, err);
    free_rows(&f->rows);
    return r;
}

enum pn_result pn_features_give(struct pn_features *f, size_t i, char *text, size_t n_bytes, struct pn_error *err) {
    struct pn_counted *s = &f->counted[i];
    struct pn_vocabulary *v = NULL;
    struct pn_digest d;
    const enum pn_result r = pn_vocabulary_read(&v, text, n_bytes, f->job->fields[i].hash_seed, err);
    if (r != PN_OK) {
        free(text);
        return r;
    }
    free(s->text);
    s->text = text;
    s->n_bytes = n_bytes;
    s->n_values = pn_vocabulary_size(v);
    pn_vocabulary_close(v);
    pn_digest_start(&d);
    pn_digest_add(&d, text, n_bytes);
    pn_digest_hex(&d, s->digest);
    return PN_OK;
}

const char *pn_features_file(const struct pn_features *f, size_t i, size_t *n_bytes, char name[PN_VOCABULARY_NAME]) {
    const struct pn_counted *s = &f->counted[i];
    if (s->text != NULL) snprintf(name, PN_VOCABULARY_NAME, "%.32s.vocabulary", s->digest);
    *n_bytes = s->n_bytes;
    return s->text;
}

void pn_features_freeze(struct pn_features *f) {
    for (size_t i = 0; i < f->job->n_fields; i++) {
        const struct pn_counted *s = &f->counted[i];
        if (s->n < 2) continue;
        f->mean[i] = s->mean;
        f->std[i] = sqrt(s->m2 / (double)(s->n - 1));
        if (!(f->std[i] > 0)) f->std[i] = 1;
    }
    f->need = false;
}

/* ---- as text ---- */
static struct json_object *exact(double x) {
    char text[64];
    snprintf(text, sizeof text, "%.17g", x);
    return json_object_new_double_s(x, text);
}

char *pn_features_statistics(const struct pn_features *f) {
    struct json_object *o = json_object_new_object();
    for (size_t i = 0; i < f->job->n_fields; i++) {
        const struct pn_field *field = &f->job->fields[i];
        struct json_object *e = json_object_new_object();
        if (field->standardize) {
            pn_json_add(e, "mean", exact(f->mean[i]));
            pn_json_add(e, "std", exact(f->std[i]));
        }
        if (field->quantiles > 0) {
            struct json_object *list = json_object_new_array();
            for (size_t k = 0; k < f->n_boundaries[i]; k++) json_object_array_add(list, exact(f->boundaries[i][k]));
            pn_json_add(e, "boundaries", list);
        }
        size_t n_bytes;
        char name[PN_VOCABULARY_NAME];
        if (pn_field_files(field) && pn_features_file(f, i, &n_bytes, name) != NULL) {
            struct json_object *v = json_object_new_object();
            pn_json_add_u64(v, "format", 1);
            pn_json_add_str(v, "name", name);
            pn_json_add_u64(v, "bytes", n_bytes);
            pn_json_add_str(v, "digest", f->counted[i].digest);
            pn_json_add_u64(v, "values", f->counted[i].n_values);
            pn_json_add(e, "vocabulary", v);
        }
        if (json_object_object_length(e) > 0) pn_json_add(o, field->name, e);
        else json_object_put(e);
    }
    if (f->forest != NULL) pn_json_add(o, f->job->fields[f->i_leaves].name, pn_forest_write(f->forest));
    char *out = strdup(pn_json_text(o));
    json_object_put(o);
    return out;
}

/* Boundaries as statistics() wrote them: rising, fewer than the parts. */
static bool read_boundaries(struct pn_features *f, size_t i, struct json_object *list) {
    const size_t n = pn_json_length(list);
    struct pn_counted *s = &f->counted[i];
    if (list == NULL || !json_object_is_type(list, json_type_array) || n >= f->job->fields[i].quantiles) return false;
    free(s->boundaries);
    f->boundaries[i] = s->boundaries = malloc((n + 1) * sizeof *s->boundaries);
    f->n_boundaries[i] = n;
    if (s->boundaries == NULL) return false;
    for (size_t k = 0; k < n; k++) {
        struct json_object *e = pn_json_at(list, k);
        const double x = json_object_is_type(e, json_type_double) || json_object_is_type(e, json_type_int) ? json_object_get_double(e) : NAN;
        if (!isfinite(x) || (k > 0 && !(x > s->boundaries[k - 1]))) return false;
        s->boundaries[k] = x;
    }
    return true;
}

enum pn_result pn_features_set_statistics(struct pn_features *f, const char *json, struct pn_error *err) {
    struct json_object *o = pn_json_parse(json, strlen(json), err);
    if (o == NULL) return PN_INVALID;
    enum pn_result r = PN_OK;
    for (size_t i = 0; i < f->job->n_fields; i++) {
        const struct pn_field *field = &f->job->fields[i];
        struct json_object *e = pn_json_get(o, field->name);
        bool good = true;
        if (field->standardize) {
            f->mean[i] = pn_json_double(e, "mean", NAN);
            f->std[i] = pn_json_double(e, "std", NAN);
            good = f->std[i] > 0 && isfinite(f->mean[i]);
        }
        if (field->quantiles > 0) good = read_boundaries(f, i, pn_json_get(e, "boundaries"));
        if (!good) r = pn_fail(err, PN_INVALID, "the statistics of feature \"%s\" are missing", field->name);
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

