/* What a model learns from besides its label: spec.model.heads and spec.model.distill. */
#include <string.h>
#include "job/sections.h"

#define KEYS(...) (const char *const[]){__VA_ARGS__, NULL}

static void read_head(struct pn_yaml *y, struct fy_node *n, struct pn_job *job) {
    if (!pn_yaml_keys(y, n, "a head", KEYS("name", "column", "threshold", "weight"), NULL)) return;
    struct pn_head_spec *h = &job->heads[job->n_heads];
    *h = (struct pn_head_spec){.threshold = 0.5, .weight = 1};
    if (!pn_yaml_text(y, pn_yaml_get(n, "name"), "name", h->name, sizeof h->name) || h->name[0] == '\0') {
        pn_yaml_problem(y, n, "a head needs a name");
        return;
    }
    for (size_t i = 0; i < job->n_heads; i++)
        if (strcmp(job->heads[i].name, h->name) == 0) pn_yaml_problem(y, n, "head \"%s\" stands twice", h->name);
    double weight = 1;
    pn_yaml_text(y, pn_yaml_get(n, "column"), "column", h->column, sizeof h->column);
    pn_yaml_real(y, pn_yaml_get(n, "threshold"), "threshold", -1e9, 1e9, &h->threshold);
    if (pn_yaml_real(y, pn_yaml_get(n, "weight"), "weight", 0.000001, 1e6, &weight)) h->weight = (float)weight;
    job->n_heads++;
}

void pn_job_read_heads(struct pn_yaml *y, struct fy_node *n, struct pn_job *job) {
    if (n == NULL) return;
    if (!pn_model_deep(job->model) || job->n_hidden == 0) pn_yaml_problem(y, n, "heads stand on the hidden layers of wide_deep, deepfm, dcn_v2 and dlrm");
    if (fy_node_get_type(n) != FYNT_SEQUENCE || fy_node_sequence_item_count(n) < 1 || fy_node_sequence_item_count(n) > PN_MAX_HEADS) {
        pn_yaml_problem(y, n, "heads must be a list of 1 to %d further labels", PN_MAX_HEADS);
        return;
    }
    void *it = NULL;
    for (struct fy_node *h; (h = fy_node_sequence_iterate(n, &it)) != NULL;) read_head(y, h, job);
}

void pn_job_read_distill(struct pn_yaml *y, struct fy_node *n, struct pn_job *job) {
    if (n == NULL || !pn_yaml_keys(y, n, "distill", KEYS("column", "weight", "temperature"), KEYS("model", "teacher"))) return;
    double weight = 0.5, temperature = 1;
    if (!pn_yaml_text(y, pn_yaml_get(n, "column"), "column", job->distill.column, sizeof job->distill.column) || job->distill.column[0] == '\0')
        pn_yaml_problem(y, n, "distill needs column: where the training data has the teacher's logits");
    pn_yaml_real(y, pn_yaml_get(n, "weight"), "weight", 0.000001, 1, &weight);
    pn_yaml_real(y, pn_yaml_get(n, "temperature"), "temperature", 0.1, 100, &temperature);
    job->distill.weight = (float)weight;
    job->distill.temperature = (float)temperature;
}
