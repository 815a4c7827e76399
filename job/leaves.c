/* A feature of type leaves: boosted trees over the job's other features, whose leaves are its keys (nn/boost.c). */
#include "job/sections.h"

void pn_job_read_leaves(struct pn_yaml *y, struct fy_node *n, struct pn_job *job) {
    struct pn_forest_spec *s = &job->forest;
    if (s->trees > 0) pn_yaml_problem(y, n, "a job has one feature of type leaves");
    *s = (struct pn_forest_spec){.trees = 100, .depth = 5, .min_count = 20, .rows = 200000, .rate = 0.05f, .l2 = 5, .min_weight = 20, .row_share = 0.8f, .column_share = 0.5f,
                                 .wanted = s->wanted};
    pn_yaml_count32(y, pn_yaml_get(n, "trees"), "trees", 1, 1000, &s->trees);
    pn_yaml_count32(y, pn_yaml_get(n, "depth"), "depth", 1, 10, &s->depth);
    pn_yaml_count32(y, pn_yaml_get(n, "minCount"), "minCount", 1, 1u << 30, &s->min_count);
    pn_yaml_count(y, pn_yaml_get(n, "rows"), "rows", 2, 1u << 24, &s->rows);
    pn_yaml_real32(y, pn_yaml_get(n, "rate"), "rate", 0.0001, 1, &s->rate);
    pn_yaml_real32(y, pn_yaml_get(n, "l2"), "l2", 0, 1e6, &s->l2);
    pn_yaml_real32(y, pn_yaml_get(n, "minWeight"), "minWeight", 0, 1e9, &s->min_weight);
    pn_yaml_real32(y, pn_yaml_get(n, "rowShare"), "rowShare", 0.01, 1, &s->row_share);
    pn_yaml_real32(y, pn_yaml_get(n, "columnShare"), "columnShare", 0.01, 1, &s->column_share);
}

void pn_job_check_leaves(struct pn_yaml *y, struct fy_node *features, const struct pn_job *job) {
    size_t seen = 0;
    for (size_t i = 0; i < job->n_fields; i++) seen += job->fields[i].type == PN_FIELD_CATEGORICAL || job->fields[i].type == PN_FIELD_NUMERIC;
    if (job->forest.wanted && job->forest.trees == 0) pn_yaml_problem(y, features, "gbdt+lr needs a feature of type leaves: {name: leaves, type: leaves, table: leaves}");
    if (job->forest.trees > 0 && seen == 0) pn_yaml_problem(y, features, "leaves need a numeric or categorical feature beside them, which the trees are grown over");
    if (job->forest.trees > 0 && pn_model_pair(job->model)) pn_yaml_problem(y, features, "leaves have no place in mf, gmf, mlp and neumf");
}
