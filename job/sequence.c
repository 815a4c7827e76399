/* spec.model.sequence: a transformer over the user's last actions. */
#include <string.h>
#include "job/sections.h"

#define KEYS(...) (const char *const[]){__VA_ARGS__, NULL}

static int find(const struct pn_job *job, const char *name) {
    for (size_t i = 0; i < job->n_fields; i++)
        if (strcmp(job->fields[i].name, name) == 0) return (int)i;
    return -1;
}

static void count(struct pn_yaml *y, struct fy_node *n, const char *what, uint64_t low, uint64_t high, uint32_t *out) {
    uint64_t v = *out;
    if (pn_yaml_count(y, pn_yaml_get(n, what), what, low, high, &v)) *out = (uint32_t)v;
}

static void read_fields(struct pn_yaml *y, struct fy_node *n, struct pn_job *job) {
    struct pn_sequence_spec *s = &job->sequence;
    struct fy_node *fields = pn_yaml_get(n, "fields");
    void *it = NULL;
    if (fields == NULL || fy_node_get_type(fields) != FYNT_SEQUENCE || fy_node_sequence_item_count(fields) < 1 || fy_node_sequence_item_count(fields) > 4) {
        pn_yaml_problem(y, fields != NULL ? fields : n, "sequence needs fields: a list of 1 to 4 features of type sequence");
        return;
    }
    for (struct fy_node *f; (f = fy_node_sequence_iterate(fields, &it)) != NULL;) {
        char name[64] = "";
        if (!pn_yaml_text(y, f, "a sequence's field", name, sizeof name)) continue;
        const int i = find(job, name);
        if (i < 0 || job->fields[i].type != PN_FIELD_SEQUENCE) pn_yaml_problem(y, f, "sequence: no feature of type sequence is named \"%s\"", name);
        else s->fields[s->n_fields++] = (uint32_t)i;
    }
}

void pn_job_read_sequence(struct pn_yaml *y, struct fy_node *n, struct pn_job *job) {
    struct pn_sequence_spec *s = &job->sequence;
    *s = (struct pn_sequence_spec){.blocks = 2, .heads = 1, .width = job->embedding_dim, .feed_forward = job->embedding_dim, .positions = true};
    if (n != NULL && pn_yaml_keys(y, n, "sequence", KEYS("fields", "candidate", "blocks", "heads", "width", "feedForward", "recent", "positions", "dropout"), KEYS("pooling", "window"))) {
        read_fields(y, n, job);
        char name[64] = "";
        struct fy_node *candidate = pn_yaml_get(n, "candidate");
        if (candidate != NULL && pn_yaml_text(y, candidate, "candidate", name, sizeof name)) {
            const int i = find(job, name);
            if (i < 0 || !pn_field_keyed(&job->fields[i]) || job->fields[i].type == PN_FIELD_SEQUENCE)
                pn_yaml_problem(y, candidate, "candidate: no feature with one embedding is named \"%s\"", name);
            else s->candidate = (uint32_t)i + 1;
        }
        count(y, n, "blocks", 1, 4, &s->blocks);
        count(y, n, "heads", 1, 16, &s->heads);
        count(y, n, "width", 1, 256, &s->width);
        s->feed_forward = s->width;
        count(y, n, "feedForward", 1, 1024, &s->feed_forward);
        count(y, n, "recent", 0, 50, &s->recent);
        pn_yaml_truth(y, pn_yaml_get(n, "positions"), "positions", &s->positions);
        double dropout = 0;
        if (pn_yaml_real(y, pn_yaml_get(n, "dropout"), "dropout", 0, 0.95, &dropout)) s->dropout = (float)dropout;
        if (s->width % s->heads != 0) pn_yaml_problem(y, n, "sequence: width %u is not a multiple of heads %u", s->width, s->heads);
        for (uint32_t i = 0; i < s->n_fields; i++)
            if (job->fields[s->fields[i]].max_length > 200) pn_yaml_problem(y, n, "sequence: maxLength of \"%s\" is above 200", job->fields[s->fields[i]].name);
    }
    for (size_t i = 0; i < job->n_fields; i++) {
        bool used = job->fields[i].type != PN_FIELD_SEQUENCE;
        for (uint32_t k = 0; k < s->n_fields; k++) used = used || s->fields[k] == i;
        if (!used) pn_yaml_problem(y, n, "feature \"%s\" is a sequence that no model reads: spec.model.sequence.fields names those it takes", job->fields[i].name);
    }
}
