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

/* One of SASRec's own fields; 0: not there. */
static uint32_t read_role(struct pn_yaml *y, struct fy_node *n, const char *key, const struct pn_job *job, bool needed) {
    char name[64] = "";
    struct fy_node *node = pn_yaml_get(n, key);
    if (node == NULL) {
        if (needed) pn_yaml_problem(y, n, "sequence of a sasrec model needs %s: the name of a feature of type sequence", key);
        return 0;
    }
    if (job->model != PN_MODEL_SASREC) {
        pn_yaml_problem(y, node, "%s has a meaning for the model sasrec only", key);
        return 0;
    }
    if (!pn_yaml_text(y, node, key, name, sizeof name)) return 0;
    const int i = find(job, name);
    if (i >= 0 && job->fields[i].type == PN_FIELD_SEQUENCE) return (uint32_t)i + 1;
    pn_yaml_problem(y, node, "%s: no feature of type sequence is named \"%s\"", key, name);
    return 0;
}

static void read_sasrec(struct pn_yaml *y, struct fy_node *n, struct pn_job *job) {
    struct pn_sequence_spec *s = &job->sequence;
    const bool sasrec = job->model == PN_MODEL_SASREC;
    int loss = 0;
    s->target = read_role(y, n, "target", job, sasrec);
    s->negatives = read_role(y, n, "negatives", job, sasrec);
    s->seen = read_role(y, n, "seen", job, false);
    struct fy_node *l = pn_yaml_get(n, "loss");
    if (l != NULL && !sasrec) pn_yaml_problem(y, l, "loss has a meaning for the model sasrec only");
    if (pn_yaml_choice(y, l, "loss", KEYS("bce", "softmax"), KEYS("gbce"), &loss)) s->softmax = loss == 1;
    if (!sasrec) return;
    for (size_t i = 0; i < job->n_fields; i++)
        if (job->fields[i].type != PN_FIELD_SEQUENCE || job->fields[i].i_table != job->fields[0].i_table || job->fields[i].hash_seed != job->fields[0].hash_seed)
            pn_yaml_problem(y, n, "feature \"%s\": all features of a sasrec model are sequences of one table with one hash.share", job->fields[i].name);
    if (s->n_fields != 1 || s->candidate > 0 || s->recent > 0) pn_yaml_problem(y, n, "a sasrec model has one sequence field and neither candidate nor recent");
    if (s->width != job->embedding_dim) pn_yaml_problem(y, n, "width of a sasrec model is its embeddingDim, for inputs and outputs are the same rows");
}

void pn_job_read_sequence(struct pn_yaml *y, struct fy_node *n, struct pn_job *job) {
    struct pn_sequence_spec *s = &job->sequence;
    *s = (struct pn_sequence_spec){.blocks = 2, .heads = 1, .width = job->embedding_dim, .feed_forward = job->embedding_dim, .positions = true};
    if (n != NULL && pn_yaml_keys(y, n, "sequence", KEYS("fields", "candidate", "blocks", "heads", "width", "feedForward", "recent", "positions", "dropout", "target", "negatives", "seen", "loss"), KEYS("pooling", "window"))) {
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
        read_sasrec(y, n, job);
        for (uint32_t i = 0; i < s->n_fields; i++)
            if (job->fields[s->fields[i]].max_length > 200) pn_yaml_problem(y, n, "sequence: maxLength of \"%s\" is above 200", job->fields[s->fields[i]].name);
    }
    if (n == NULL && job->model == PN_MODEL_SASREC) pn_yaml_problem(y, n, "a sasrec model needs sequence");
    for (size_t i = 0; i < job->n_fields; i++) {
        bool used = job->fields[i].type != PN_FIELD_SEQUENCE || s->target == i + 1 || s->negatives == i + 1 || s->seen == i + 1;
        for (uint32_t k = 0; k < s->n_fields; k++) used = used || s->fields[k] == i;
        if (!used) pn_yaml_problem(y, n, "feature \"%s\" is a sequence that no model reads: spec.model.sequence.fields names those it takes", job->fields[i].name);
    }
}
