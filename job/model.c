/* spec.model: which blocks, and how wide. */
#include "job/sections.h"

#define KEYS(...) (const char *const[]){__VA_ARGS__, NULL}

static const char *const models[] = {"lr", "fm", "deepfm", "audit", "external", "wide_deep", "dcn_v2", "dlrm", "mf", "gmf", "mlp", "neumf", "sasrec", "gbdt+lr", NULL};
static const char *const models_later[] = {"finalmlp", NULL};

/* A list of layer widths; NULL: what is there stays. */
static void read_widths(struct pn_yaml *y, struct fy_node *n, const char *what, uint32_t widths[PN_MAX_LAYERS], size_t *count) {
    if (n == NULL) return;
    if (fy_node_get_type(n) != FYNT_SEQUENCE || fy_node_sequence_item_count(n) < 1 || fy_node_sequence_item_count(n) > PN_MAX_LAYERS) {
        pn_yaml_problem(y, n, "%s must be a list of 1 to %d layer widths", what, PN_MAX_LAYERS);
        return;
    }
    void *it = NULL;
    uint64_t v = 0;
    *count = 0;
    for (struct fy_node *h; (h = fy_node_sequence_iterate(n, &it)) != NULL;)
        if (pn_yaml_count(y, h, "a layer width", 1, 8192, &v)) widths[(*count)++] = (uint32_t)v;
}

/* start: [{snapshot: FOLDER, alpha: SHARE}]. */
static void read_starts(struct pn_yaml *y, struct fy_node *n, const char *base, struct pn_job *job) {
    if (n == NULL) return;
    if (fy_node_get_type(n) != FYNT_SEQUENCE || fy_node_sequence_item_count(n) < 1 || fy_node_sequence_item_count(n) > PN_MAX_STARTS) {
        pn_yaml_problem(y, n, "start must be a list of 1 to %d published models: {snapshot: FOLDER, alpha: SHARE}", PN_MAX_STARTS);
        return;
    }
    if (!pn_model_pair(job->model)) pn_yaml_problem(y, n, "start has a meaning for mf, gmf, mlp and neumf only");
    void *it = NULL;
    for (struct fy_node *s; (s = fy_node_sequence_iterate(n, &it)) != NULL;) {
        if (!pn_yaml_keys(y, s, "start", KEYS("snapshot", "alpha"), NULL)) continue;
        job->starts[job->n_starts].alpha = 1;
        pn_yaml_real(y, pn_yaml_get(s, "alpha"), "alpha", 0, 1, &job->starts[job->n_starts].alpha);
        if (pn_yaml_get(s, "snapshot") == NULL) pn_yaml_problem(y, s, "start needs snapshot: the folder of a published version");
        else pn_job_read_path(y, pn_yaml_get(s, "snapshot"), base, job->starts[job->n_starts].path);
        job->n_starts++;
    }
}

void pn_job_read_model(struct pn_yaml *y, struct fy_node *n, const char *base, struct pn_job *job) {
    job->embedding_dim = 8;
    job->linear_scale = 1;
    job->model = PN_MODEL_LR;
    if (n == NULL) {
        pn_yaml_problem(y, NULL, "spec.model is missing; allowed names: lr, gbdt+lr, fm, wide_deep, deepfm, dcn_v2, dlrm, mf, gmf, mlp, neumf, sasrec, audit, external");
        return;
    }
    if (!pn_yaml_keys(y, n, "spec.model", KEYS("name", "embeddingDim", "linearScale", "hidden", "dropout", "embeddingDropout", "embeddingL2", "norm", "cross", "structure", "bottom", "interaction", "mlpDim", "bias", "similarity", "start", "sequence", "heads", "distill"),
                      KEYS("attention", "experts"))) return;
    int model = -1;
    if (pn_yaml_get(n, "name") == NULL) pn_yaml_problem(y, n, "the model needs a name: lr, gbdt+lr, fm, wide_deep, deepfm, dcn_v2, dlrm, mf, gmf, mlp, neumf, sasrec, audit or external");
    if (!pn_yaml_choice(y, pn_yaml_get(n, "name"), "model", models, models_later, &model) || model < 0) return;
    job->forest.wanted = model == PN_MODEL_SASREC + 1; /* gbdt+lr is lr over leaves too */
    job->model = job->forest.wanted ? PN_MODEL_LR : (enum pn_model)model;
    for (const char *const *key = KEYS("embeddingDim", "linearScale", "hidden", "dropout", "embeddingDropout", "embeddingL2", "norm", "cross", "structure", "bottom", "interaction", "mlpDim", "bias", "similarity", "start", "sequence", "heads", "distill");
         job->model == PN_MODEL_EXTERNAL && *key != NULL; key++)
        if (pn_yaml_get(n, *key) != NULL) pn_yaml_problem(y, pn_yaml_get(n, *key), "%s has no meaning for an external job: its model is the client's", *key);
    if (job->model == PN_MODEL_EXTERNAL) {
        job->n_producers = 1;
        job->max_in_flight = 64;
        return;
    }
    uint64_t v = job->embedding_dim;
    if (pn_yaml_count(y, pn_yaml_get(n, "embeddingDim"), "embeddingDim", 1, 1023, &v)) job->embedding_dim = (uint32_t)v;
    pn_yaml_real32(y, pn_yaml_get(n, "dropout"), "dropout", 0, 0.95, &job->dropout);
    pn_yaml_real32(y, pn_yaml_get(n, "linearScale"), "linearScale", 0.001, 1000, &job->linear_scale);
    pn_yaml_real32(y, pn_yaml_get(n, "embeddingDropout"), "embeddingDropout", 0, 0.95, &job->embedding_dropout);
    pn_yaml_real32(y, pn_yaml_get(n, "embeddingL2"), "embeddingL2", 0, 10, &job->embedding_l2);
    if (pn_yaml_get(n, "embeddingL2") != NULL && job->model == PN_MODEL_SASREC) pn_yaml_problem(y, pn_yaml_get(n, "embeddingL2"), "embeddingL2 has no meaning for sasrec: its rows are those of sequences");
    int norm = PN_NORM_NONE;
    if (pn_yaml_choice(y, pn_yaml_get(n, "norm"), "norm", KEYS("none", "layer", "batch"), NULL, &norm)) job->norm = (enum pn_norm)norm;
    enum { deep = 1u << PN_MODEL_DEEPFM | 1u << PN_MODEL_WIDE_DEEP | 1u << PN_MODEL_DCN_V2 | 1u << PN_MODEL_DLRM | 1u << PN_MODEL_MLP | 1u << PN_MODEL_NEUMF };
    static const char tower[] = "wide_deep, deepfm, dcn_v2, dlrm, mlp and neumf";
    static const struct { const char *key; unsigned models; const char *where; } only[] = {
        {"hidden", deep, tower},
        {"norm", deep, tower},
        {"cross", 1u << PN_MODEL_DCN_V2, "dcn_v2"}, {"structure", 1u << PN_MODEL_DCN_V2, "dcn_v2"},
        {"sequence", 1u << PN_MODEL_WIDE_DEEP | 1u << PN_MODEL_DEEPFM | 1u << PN_MODEL_DCN_V2 | 1u << PN_MODEL_SASREC, "wide_deep, deepfm, dcn_v2 and sasrec"},
        {"bottom", 1u << PN_MODEL_DLRM, "dlrm"}, {"interaction", 1u << PN_MODEL_DLRM, "dlrm"},
        {"mlpDim", 1u << PN_MODEL_NEUMF, "neumf"}, {"bias", 1u << PN_MODEL_MF, "mf"}, {"similarity", 1u << PN_MODEL_MF, "mf"}};
    for (size_t i = 0; i < sizeof only / sizeof *only; i++)
        if (pn_yaml_get(n, only[i].key) != NULL && !(only[i].models >> job->model & 1)) pn_yaml_problem(y, pn_yaml_get(n, only[i].key), "%s has a meaning for %s only", only[i].key, only[i].where);
    read_starts(y, pn_yaml_get(n, "start"), base, job);
    job->bias = job->model == PN_MODEL_MF;
    pn_yaml_truth(y, pn_yaml_get(n, "bias"), "bias", &job->bias);
    int similarity = 0;
    if (pn_yaml_choice(y, pn_yaml_get(n, "similarity"), "similarity", KEYS("dot", "cosine"), NULL, &similarity)) job->cosine = similarity == 1;
    if (job->cosine && job->bias) pn_yaml_problem(y, pn_yaml_get(n, "similarity"), "similarity: cosine goes with bias: false");
    if (job->model == PN_MODEL_NEUMF) job->mlp_dim = job->embedding_dim;
    pn_yaml_count32(y, pn_yaml_get(n, "mlpDim"), "mlpDim", 1, 1023, &job->mlp_dim);
    if (job->embedding_dim + job->mlp_dim > 1023) pn_yaml_problem(y, n, "embeddingDim and mlpDim are at most 1023 together");
    job->n_cross = 2;
    pn_yaml_count32(y, pn_yaml_get(n, "cross"), "cross", 1, PN_MAX_LAYERS, &job->n_cross);
    int structure = 0, interaction = PN_INTERACTION_DOT;
    if (pn_yaml_choice(y, pn_yaml_get(n, "structure"), "structure", KEYS("parallel", "stacked"), NULL, &structure)) job->stacked = structure == 1;
    if (pn_yaml_choice(y, pn_yaml_get(n, "interaction"), "interaction", KEYS("dot", "cat", "both"), NULL, &interaction)) job->interaction = (enum pn_interaction)interaction;
    if (pn_model_deep(job->model)) { /* where hidden does not say otherwise */
        job->hidden[0] = 64;
        job->hidden[1] = 32;
        job->n_hidden = 2;
    }
    read_widths(y, pn_yaml_get(n, "hidden"), "hidden", job->hidden, &job->n_hidden);
    read_widths(y, pn_yaml_get(n, "bottom"), "bottom", job->bottom, &job->n_bottom);
    pn_job_read_heads(y, pn_yaml_get(n, "heads"), job);
    pn_job_read_distill(y, pn_yaml_get(n, "distill"), job);
}
