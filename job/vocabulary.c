/* spec.features: bucketize and vocabulary, what may be given or counted. */
#include <stdlib.h>
#include <string.h>
#include "job/sections.h"

#define KEYS(...) (const char *const[]){__VA_ARGS__, NULL}
#define MOST_GIVEN 4096

bool pn_job_prepares(const struct pn_job *job) {
    bool any = job->forest.trees > 0;
    for (size_t i = 0; i < job->n_fields; i++) any = any || job->fields[i].quantiles > 0 || pn_field_files(&job->fields[i]);
    return any;
}

void pn_job_read_boundaries(struct pn_yaml *y, struct fy_node *n, struct pn_field *f) {
    if (n == NULL) return;
    if (fy_node_get_type(n) == FYNT_MAPPING) {
        if (!pn_yaml_keys(y, n, "bucketize", KEYS("quantiles", "rows"), NULL)) return;
        if (pn_yaml_get(n, "quantiles") == NULL) pn_yaml_problem(y, n, "bucketize needs quantiles: how many parts, or is a list of rising numbers");
        pn_yaml_count32(y, pn_yaml_get(n, "quantiles"), "quantiles", 2, 1000, &f->quantiles);
        pn_yaml_count(y, pn_yaml_get(n, "rows"), "rows", 0, 1ull << 40, &f->quantile_rows);
        if (f->standardize) pn_yaml_problem(y, n, "bucketize goes by clip and log1p, not by standardize; leave it out");
        return;
    }
    int count = fy_node_get_type(n) == FYNT_SEQUENCE ? fy_node_sequence_item_count(n) : 0;
    if (count < 1 || count > 10000) {
        pn_yaml_problem(y, n, "bucketize must be a list of 1 to 10000 rising numbers, or {quantiles: N}");
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

/* values: [a, b]: into lines. */
static void read_values(struct pn_yaml *y, struct fy_node *n, struct pn_vocabulary_spec *v) {
    const int count = fy_node_get_type(n) == FYNT_SEQUENCE ? fy_node_sequence_item_count(n) : 0;
    if (count < 1 || count > MOST_GIVEN) {
        pn_yaml_problem(y, n, "vocabulary: values must be a list of 1 to %d values; more go into a file: {file: PATH}", MOST_GIVEN);
        return;
    }
    v->values = calloc((size_t)count, PN_VOCABULARY_VALUE + 1);
    if (v->values == NULL) {
        y->no_memory = true;
        return;
    }
    void *it = NULL;
    size_t at = 0;
    for (struct fy_node *e; (e = fy_node_sequence_iterate(n, &it)) != NULL;) {
        char value[PN_VOCABULARY_VALUE] = "";
        if (!pn_yaml_text(y, e, "a value", value, sizeof value)) continue;
        if (value[0] == '\0' || strpbrk(value, "\r\n") != NULL) {
            pn_yaml_problem(y, e, "a vocabulary's value is not empty and has no line break");
            continue;
        }
        const size_t length = strlen(value);
        for (const char *p = v->values; *p; p = strchr(p, '\n') + 1)
            if (strncmp(p, value, length) == 0 && p[length] == '\n') {
                pn_yaml_problem(y, e, "\"%s\" stands twice in the vocabulary", value);
                break;
            }
        memcpy(v->values + at, value, length);
        v->values[at + length] = '\n';
        at += length + 1;
    }
}

void pn_job_read_vocabulary(struct pn_yaml *y, struct fy_node *n, const char *base, struct pn_job *job, struct pn_field *f) {
    struct pn_vocabulary_spec *v = &f->vocabulary;
    if (n == NULL || !pn_yaml_keys(y, n, "vocabulary", KEYS("minCount", "maxSize", "rows", "oov", "values", "file", "of"), NULL)) return;
    struct fy_node *values = pn_yaml_get(n, "values"), *file = pn_yaml_get(n, "file"), *of = pn_yaml_get(n, "of");
    *v = (struct pn_vocabulary_spec){.kind = values != NULL ? PN_VOCABULARY_GIVEN : file != NULL ? PN_VOCABULARY_FILE : of != NULL ? PN_VOCABULARY_OF : PN_VOCABULARY_COUNTED,
                                     .oov = 1, .min_count = 1, .max_size = PN_VOCABULARY_MOST};
    if ((values != NULL) + (file != NULL) + (of != NULL) > 1) pn_yaml_problem(y, n, "a vocabulary has one source: values, a file, that of another feature, or none of these (it is counted)");
    pn_yaml_count32(y, pn_yaml_get(n, "oov"), "oov", 1, 1u << 20, &v->oov);
    pn_yaml_count32(y, pn_yaml_get(n, "minCount"), "minCount", 1, 1u << 31, &v->min_count);
    pn_yaml_count32(y, pn_yaml_get(n, "maxSize"), "maxSize", 1, PN_VOCABULARY_MOST, &v->max_size);
    pn_yaml_count(y, pn_yaml_get(n, "rows"), "rows", 0, 1ull << 40, &v->rows);
    static const char *const counted[] = {"minCount", "maxSize", "rows"};
    for (size_t i = 0; i < 3; i++)
        if (v->kind != PN_VOCABULARY_COUNTED && pn_yaml_get(n, counted[i]) != NULL) pn_yaml_problem(y, pn_yaml_get(n, counted[i]), "%s is for a vocabulary that is counted", counted[i]);
    if (f->buckets > 0) pn_yaml_problem(y, n, "vocabulary and buckets do not go together: oov says how many keys the other values share");
    if (values != NULL) read_values(y, values, v);
    if (file != NULL) pn_job_read_path(y, file, base, v->path);
    char name[64] = "";
    if (of == NULL || !pn_yaml_text(y, of, "of", name, sizeof name)) return;
    const int other = pn_job_find_field(job, name);
    if (other < 0 || other == (int)job->n_fields - 1 || job->fields[other].vocabulary.kind == PN_VOCABULARY_NONE || job->fields[other].vocabulary.kind == PN_VOCABULARY_OF)
        pn_yaml_problem(y, of, "vocabulary of \"%s\": no earlier feature of that name has a vocabulary of its own", name);
    else if (job->fields[other].hash_seed != f->hash_seed)
        pn_yaml_problem(y, of, "vocabulary of \"%s\": the features must share their keys, too: hash: {share: %s}, with the same seed", name, name);
    else if (pn_yaml_get(n, "oov") != NULL && job->fields[other].vocabulary.oov != v->oov)
        pn_yaml_problem(y, of, "vocabulary of \"%s\" has oov: %u; here it is %u", name, job->fields[other].vocabulary.oov, v->oov);
    else {
        v->of = (uint32_t)other;
        v->oov = job->fields[other].vocabulary.oov;
    }
}
