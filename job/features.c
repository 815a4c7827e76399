/* spec.features: raw columns and what becomes of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "job/sections.h"

#define KEYS(...) (const char *const[]){__VA_ARGS__, NULL}

int pn_job_find_field(const struct pn_job *job, const char *name) {
    for (size_t i = 0; i < job->n_fields; i++)
        if (strcmp(job->fields[i].name, name) == 0) return (int)i;
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
        if (!pn_yaml_choice(y, t, "transform", names, KEYS("squash"), &which)) continue;
        if (which == 0 && f->standardize) pn_yaml_problem(y, t, "log1p must stand before standardize");
        if (which == 0) f->log1p = true;
        if (which == 1) f->standardize = true;
    }
}

static void read_clip(struct pn_yaml *y, struct fy_node *n, struct pn_field *f) {
    if (n == NULL) return;
    double at[2] = {0, 0};
    if (fy_node_get_type(n) != FYNT_SEQUENCE || fy_node_sequence_item_count(n) != 2) {
        pn_yaml_problem(y, n, "clip must be a list of two numbers: the lowest and the highest");
        return;
    }
    for (int i = 0; i < 2; i++)
        if (!pn_yaml_real(y, fy_node_sequence_get_by_index(n, i), "clip", -1e300, 1e300, &at[i])) return;
    if (at[0] > at[1]) pn_yaml_problem(y, n, "clip: the lowest, %g, is above the highest, %g", at[0], at[1]);
    f->clip = true;
    f->clip_low = at[0];
    f->clip_high = at[1];
}

static void read_default(struct pn_yaml *y, struct fy_node *n, struct pn_field *f) {
    if (n == NULL || !pn_yaml_text(y, n, "default", f->missing, sizeof f->missing)) return;
    char *end;
    const double x = strtod(f->missing, &end);
    if (f->type == PN_FIELD_NUMERIC && (*end != '\0' || !(x - x == 0))) pn_yaml_problem(y, n, "default \"%s\" of a numeric feature is no number", f->missing);
}

void pn_job_read_feature(struct pn_yaml *y, struct fy_node *n, const char *base, struct pn_job *job) {
    static const char *const types[] = {"categorical", "multi", "numeric", "cross", "sequence", "leaves", NULL};
    if (!pn_yaml_keys(y, n, "a feature",
                      KEYS("name", "column", "type", "table", "hash", "transform", "criteoLog", "mean", "std", "bucketize", "separator", "pooling", "maxLength", "of", "buckets", "clip", "default",
                           "trees", "depth", "minCount", "rows", "rate", "l2", "minWeight", "rowShare", "columnShare", "vocabulary", "weighted"),
                      KEYS("admission", "positions", "ttlSteps")))
        return;
    struct pn_field *f = &job->fields[job->n_fields];
    *f = (struct pn_field){.separator = '|', .max_length = 64};
    if (pn_yaml_get(n, "name") == NULL) pn_yaml_problem(y, n, "a feature needs a name");
    if (!pn_yaml_text(y, pn_yaml_get(n, "name"), "name", f->name, sizeof f->name) || f->name[0] == '\0') return;
    if (pn_job_find_field(job, f->name) >= 0) {
        pn_yaml_problem(y, pn_yaml_get(n, "name"), "feature \"%s\" stands twice", f->name);
        return;
    }
    snprintf(f->column, sizeof f->column, "%s", f->name);
    pn_yaml_text(y, pn_yaml_get(n, "column"), "column", f->column, sizeof f->column);
    int type = -1;
    if (pn_yaml_get(n, "type") == NULL) pn_yaml_problem(y, n, "feature \"%s\" needs a type: categorical, multi, numeric, cross, sequence or leaves", f->name);
    if (!pn_yaml_choice(y, pn_yaml_get(n, "type"), "type", types, KEYS("embedding", "text"), &type) || type < 0) return;
    f->type = (enum pn_field_type)type;
    job->n_fields++;

    static const struct { const char *key; unsigned types; } only[] = {
        {"transform", 1u << PN_FIELD_NUMERIC}, {"criteoLog", 1u << PN_FIELD_NUMERIC}, {"mean", 1u << PN_FIELD_NUMERIC}, {"std", 1u << PN_FIELD_NUMERIC},
        {"bucketize", 1u << PN_FIELD_NUMERIC}, {"clip", 1u << PN_FIELD_NUMERIC},
        {"vocabulary", 1u << PN_FIELD_CATEGORICAL | 1u << PN_FIELD_MULTI | 1u << PN_FIELD_SEQUENCE},
        {"default", 1u << PN_FIELD_CATEGORICAL | 1u << PN_FIELD_NUMERIC | 1u << PN_FIELD_MULTI}, {"separator", 1u << PN_FIELD_MULTI | 1u << PN_FIELD_SEQUENCE}, {"pooling", 1u << PN_FIELD_MULTI},
        {"weighted", 1u << PN_FIELD_MULTI},
        {"maxLength", 1u << PN_FIELD_MULTI | 1u << PN_FIELD_SEQUENCE}, {"of", 1u << PN_FIELD_CROSS},
        {"trees", 1u << PN_FIELD_LEAVES}, {"depth", 1u << PN_FIELD_LEAVES}, {"minCount", 1u << PN_FIELD_LEAVES},
        {"rows", 1u << PN_FIELD_LEAVES}, {"rate", 1u << PN_FIELD_LEAVES}, {"l2", 1u << PN_FIELD_LEAVES}, {"minWeight", 1u << PN_FIELD_LEAVES},
        {"rowShare", 1u << PN_FIELD_LEAVES}, {"columnShare", 1u << PN_FIELD_LEAVES}};
    for (size_t i = 0; i < sizeof only / sizeof *only; i++) {
        struct fy_node *v = pn_yaml_get(n, only[i].key);
        if (v != NULL && !(only[i].types >> f->type & 1)) pn_yaml_problem(y, v, "%s has no meaning for a %s feature", only[i].key, types[f->type]);
    }
    if (f->type == PN_FIELD_LEAVES) pn_job_read_leaves(y, n, job);
    read_transforms(y, pn_yaml_get(n, "transform"), f);
    read_clip(y, pn_yaml_get(n, "clip"), f);
    read_default(y, pn_yaml_get(n, "default"), f);
    pn_yaml_truth(y, pn_yaml_get(n, "criteoLog"), "criteoLog", &f->criteo_log);
    pn_job_read_boundaries(y, pn_yaml_get(n, "bucketize"), f);
    pn_yaml_real(y, pn_yaml_get(n, "mean"), "mean", -1e300, 1e300, &f->mean);
    pn_yaml_real(y, pn_yaml_get(n, "std"), "std", 1e-300, 1e300, &f->std);
    if ((pn_yaml_get(n, "mean") != NULL) != (pn_yaml_get(n, "std") != NULL)) pn_yaml_problem(y, n, "mean and std come together or not at all");
    if (f->criteo_log && (f->clip || f->n_boundaries > 0 || f->quantiles > 0 || f->log1p || f->standardize)) pn_yaml_problem(y, n, "criteoLog stands alone: it makes the key by itself");
    char text[8] = "";
    if (pn_yaml_get(n, "separator") != NULL && pn_yaml_text(y, pn_yaml_get(n, "separator"), "separator", text, sizeof text)) {
        if (text[1] != '\0') pn_yaml_problem(y, pn_yaml_get(n, "separator"), "separator must be one character");
        f->separator = text[0];
    }
    pn_yaml_truth(y, pn_yaml_get(n, "weighted"), "weighted", &f->weighted);
    int pooling = PN_POOL_SUM;
    if (f->type == PN_FIELD_MULTI && !f->weighted) pooling = PN_POOL_MEAN;
    if (pn_yaml_choice(y, pn_yaml_get(n, "pooling"), "pooling", KEYS("sum", "mean", "sqrtn"), KEYS("attention", "max"), &pooling)) f->pooling = (enum pn_pooling)pooling;
    if (f->weighted && f->pooling != PN_POOL_SUM) pn_yaml_problem(y, pn_yaml_get(n, "pooling"), "feature \"%s\" is weighted: its rows are added up with their weights, pooling: sum", f->name);
    if (f->weighted && f->separator == ':') pn_yaml_problem(y, n, "feature \"%s\" is weighted: ':' stands between a value and its weight and cannot separate values", f->name);
    const uint64_t most = f->type == PN_FIELD_SEQUENCE || f->weighted ? 1u << 20 : 4096;
    if (f->weighted) f->max_length = (uint32_t)most; /* a row cut off would be another row */
    uint64_t count = f->max_length;
    if (pn_yaml_count(y, pn_yaml_get(n, "maxLength"), "maxLength", 1, most, &count)) f->max_length = (uint32_t)count;

    pn_yaml_count32(y, pn_yaml_get(n, "buckets"), "buckets", 1, 1u << 31, &f->buckets);
    if (f->buckets > 0 && !pn_field_keyed(f)) pn_yaml_problem(y, pn_yaml_get(n, "buckets"), "feature \"%s\" is a plain number: it has no keys to put into buckets", f->name);

    if (f->type == PN_FIELD_CROSS) {
        struct fy_node *of = pn_yaml_get(n, "of");
        void *it = NULL;
        if (of == NULL || fy_node_get_type(of) != FYNT_SEQUENCE || fy_node_sequence_item_count(of) < 2 || fy_node_sequence_item_count(of) > 4)
            pn_yaml_problem(y, of != NULL ? of : n, "a cross needs of: a list of 2 to 4 earlier features");
        else
            for (struct fy_node *o; (o = fy_node_sequence_iterate(of, &it)) != NULL;) {
                char name[64] = "";
                if (!pn_yaml_text(y, o, "a crossed feature", name, sizeof name)) continue;
                int other = pn_job_find_field(job, name);
                if (other < 0 || other == (int)job->n_fields - 1) pn_yaml_problem(y, o, "cross of \"%s\": no earlier feature has that name", name);
                else if (job->fields[other].type != PN_FIELD_CATEGORICAL && !(job->fields[other].type == PN_FIELD_NUMERIC && pn_field_keyed(&job->fields[other])))
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
    pn_job_read_vocabulary(y, pn_yaml_get(n, "vocabulary"), base, job, f);
    if (!pn_field_keyed(f) && (hash != NULL || pn_yaml_get(n, "table") != NULL))
        pn_yaml_problem(y, n, "feature \"%s\" is a plain number: it has neither keys nor a table (bucketize would make keys)", f->name);
    if (pn_field_keyed(f)) {
        char table[64] = "embedding";
        pn_yaml_text(y, pn_yaml_get(n, "table"), "table", table, sizeof table);
        int i = pn_job_find_table(job, table);
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
