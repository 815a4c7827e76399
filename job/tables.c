/* spec.tables and spec.optimizer: rows, their first values, and what a push does to them. */
#include <stdio.h>
#include <string.h>
#include "common/hash.h"
#include "job/sections.h"

#define KEYS(...) (const char *const[]){__VA_ARGS__, NULL}

static const char *const optimizers[] = {"sgd", "adagrad", "rowwise-adagrad", "adam", "ftrl", "adamw", NULL};
static const enum pn_optimizer kinds[] = {PN_SGD, PN_ADAGRAD, PN_ROWWISE_ADAGRAD, PN_ADAM, PN_FTRL, PN_ADAMW};

int pn_job_find_table(const struct pn_job *job, const char *name) {
    for (size_t i = 0; i < job->n_tables; i++)
        if (strcmp(job->tables[i].name, name) == 0) return (int)i;
    return -1;
}

static void read_schedule(struct pn_yaml *y, struct fy_node *n, struct pn_optimizer_spec *o) {
    if (n == NULL || !pn_yaml_keys(y, n, "schedule", KEYS("warmup", "shape", "steps", "floor"), NULL)) return;
    int shape = 0;
    if (pn_yaml_choice(y, pn_yaml_get(n, "shape"), "shape", KEYS("linear", "cosine", "exponential"), NULL, &shape)) o->shape = (enum pn_schedule_shape)shape;
    pn_yaml_count32(y, pn_yaml_get(n, "warmup"), "warmup", 1, 1u << 30, &o->warmup);
    pn_yaml_count32(y, pn_yaml_get(n, "steps"), "steps", 1, 1u << 30, &o->lr_steps);
    pn_yaml_real32(y, pn_yaml_get(n, "floor"), "floor", 0, 1, &o->lr_floor);
    if (o->shape == PN_EXPONENTIAL && (o->lr_steps == 0 || !(o->lr_floor > 0)))
        pn_yaml_problem(y, n, "an exponential schedule needs steps and a floor above 0: the rate falls by the same factor each step, to floor after steps");
}

static void read_optimizer(struct pn_yaml *y, struct fy_node *n, struct pn_optimizer_spec *o) {
    if (n == NULL) return;
    if (!pn_yaml_keys(y, n, "optimizer", KEYS("name", "lr", "epsilon", "initialAccumulator", "beta1", "beta2", "l1", "l2", "beta", "decay", "decayCap", "schedule", "momentum", "nesterov", "weightDecay"),
                      KEYS("warmup", "clip"))) return;
    read_schedule(y, pn_yaml_get(n, "schedule"), o);
    if (o->kind == PN_MOMENTUM) o->kind = PN_SGD; /* what it is called here */
    int choice = 0;
    if (pn_yaml_choice(y, pn_yaml_get(n, "name"), "optimizer", optimizers, KEYS("lamb", "rmsprop"), &choice) && kinds[choice] != o->kind) {
        const enum pn_optimizer kind = kinds[choice];
        o->epsilon = kind == PN_ADAM || kind == PN_ADAMW ? 1e-8f : 1e-10f;
        if (kind == PN_ADAMW) o->l2 = 0.01f;
        else if (o->kind == PN_ADAMW) o->l2 = 0;
        o->momentum = 0;
        o->nesterov = false;
        o->kind = kind;
    }
    pn_yaml_real32(y, pn_yaml_get(n, "lr"), "lr", 0, 1000, &o->lr);
    pn_yaml_real32(y, pn_yaml_get(n, "epsilon"), "epsilon", 0, 1, &o->epsilon);
    pn_yaml_real32(y, pn_yaml_get(n, "initialAccumulator"), "initialAccumulator", 0, 1000, &o->initial_accumulator);
    pn_yaml_real32(y, pn_yaml_get(n, "beta1"), "beta1", 0, 0.999999, &o->beta1);
    pn_yaml_real32(y, pn_yaml_get(n, "beta2"), "beta2", 0, 0.9999999, &o->beta2);
    pn_yaml_real32(y, pn_yaml_get(n, "l1"), "l1", 0, 1000, &o->l1);
    pn_yaml_real32(y, pn_yaml_get(n, "l2"), "l2", 0, 1000, &o->l2);
    pn_yaml_real32(y, pn_yaml_get(n, "beta"), "beta", 0, 1000, &o->ftrl_beta);
    pn_yaml_real32(y, pn_yaml_get(n, "weightDecay"), "weightDecay", 0, 1000, &o->l2);
    pn_yaml_real32(y, pn_yaml_get(n, "momentum"), "momentum", 0, 0.999999, &o->momentum);
    pn_yaml_truth(y, pn_yaml_get(n, "nesterov"), "nesterov", &o->nesterov);
    if (pn_yaml_get(n, "weightDecay") != NULL && o->kind != PN_ADAMW) pn_yaml_problem(y, pn_yaml_get(n, "weightDecay"), "weightDecay is adamw's; here it is l2");
    if (pn_yaml_get(n, "l2") != NULL && o->kind == PN_ADAMW) pn_yaml_problem(y, pn_yaml_get(n, "l2"), "adamw decays weights apart from the gradient: weightDecay in place of l2");
    if (pn_yaml_get(n, "momentum") != NULL && o->kind != PN_SGD) pn_yaml_problem(y, pn_yaml_get(n, "momentum"), "momentum has a meaning for sgd only; adam has beta1");
    if (o->nesterov && !(o->momentum > 0)) pn_yaml_problem(y, n, "nesterov needs sgd with momentum above 0");
    if (o->kind == PN_SGD && o->momentum > 0) o->kind = PN_MOMENTUM;
    if (pn_yaml_get(n, "schedule") != NULL && o->kind == PN_FTRL) pn_yaml_problem(y, pn_yaml_get(n, "schedule"), "ftrl has no schedule: its rate is part of what a row remembers");
    int decay = o->decay_cap > 0;
    if (pn_yaml_choice(y, pn_yaml_get(n, "decay"), "decay", KEYS("touched", "lazy"), NULL, &decay)) o->decay_cap = decay ? 50 : 0;
    pn_yaml_count32(y, pn_yaml_get(n, "decayCap"), "decayCap", 1, 1u << 20, &o->decay_cap);
    if (pn_yaml_get(n, "decayCap") != NULL && !decay) pn_yaml_problem(y, pn_yaml_get(n, "decayCap"), "decayCap has a meaning for decay: lazy only");
    if (o->decay_cap > 0 && o->kind == PN_FTRL) pn_yaml_problem(y, n, "decay: lazy has no meaning for ftrl, whose closed form has l1 and l2 in it");
}

struct pn_optimizer_spec pn_job_default_optimizer(enum pn_optimizer kind, float lr) {
    return (struct pn_optimizer_spec){.kind = kind, .lr = lr, .epsilon = kind == PN_ADAM || kind == PN_ADAMW ? 1e-8f : 1e-10f, .beta1 = 0.9f, .beta2 = 0.999f, .ftrl_beta = 1.0f};
}

static void read_table(struct pn_yaml *y, struct fy_node *n, const char *what, bool external, struct pn_table_spec *t) {
    if (n == NULL) return;
    if (!pn_yaml_keys(y, n, what, KEYS("optimizer", "init", "seed", "storage", "admission", "eviction", "memory", "preallocate", "dim", "import"), NULL)) return;
    struct fy_node *dim = pn_yaml_get(n, "dim");
    uint64_t width = t->dim;
    if (dim != NULL && !external) pn_yaml_problem(y, dim, "dim is for external jobs; here the model says how wide a row is (spec.model.embeddingDim)");
    else if (pn_yaml_count(y, dim, "dim", 1, 1024, &width)) t->dim = (uint32_t)width;
    int storage = (int)t->storage;
    if (pn_yaml_choice(y, pn_yaml_get(n, "storage"), "storage", pn_codec_names, NULL, &storage)) t->storage = (enum pn_codec)storage;
    read_optimizer(y, pn_yaml_get(n, "optimizer"), &t->optimizer);
    pn_yaml_count(y, pn_yaml_get(n, "seed"), "seed", 0, UINT64_MAX, &t->init_seed);
    struct fy_node *a = pn_yaml_get(n, "admission"), *e = pn_yaml_get(n, "eviction");
    if (a != NULL && pn_yaml_keys(y, a, "admission", KEYS("count", "probability", "counters"), NULL)) {
        uint64_t count = 0, counters = 16u << 20;
        if (pn_yaml_count(y, pn_yaml_get(a, "count"), "count", 1, 255, &count)) t->admit_count = (uint32_t)count;
        if (pn_yaml_bytes(y, pn_yaml_get(a, "counters"), "counters", 1u << 16, 1u << 30, &counters)) t->admit_counters = (uint32_t)counters;
        pn_yaml_real32(y, pn_yaml_get(a, "probability"), "probability", 0.000001, 1, &t->admit_probability);
        if (pn_yaml_get(a, "count") != NULL && pn_yaml_get(a, "probability") != NULL) pn_yaml_problem(y, a, "admission is by count or by probability, not by both");
        if (pn_yaml_get(a, "count") == NULL && pn_yaml_get(a, "probability") == NULL) pn_yaml_problem(y, a, "admission needs count or probability");
    }
    if (e != NULL && pn_yaml_keys(y, e, "eviction", KEYS("ageSteps", "maxRows"), NULL)) {
        pn_yaml_count(y, pn_yaml_get(e, "ageSteps"), "ageSteps", 1, 1ull << 31, &t->evict_age);
        pn_yaml_count(y, pn_yaml_get(e, "maxRows"), "maxRows", PN_SLOTS, 1ull << 40, &t->evict_rows);
        if (t->evict_age == 0 && t->evict_rows == 0) pn_yaml_problem(y, n, "eviction needs ageSteps or maxRows");
    }
    pn_yaml_bytes(y, pn_yaml_get(n, "memory"), "memory", 1u << 16, 1ull << 50, &t->memory);
    pn_yaml_bytes(y, pn_yaml_get(n, "preallocate"), "preallocate", 0, 1ull << 50, &t->preallocate);
    if (t->memory > 0 && t->preallocate > t->memory) pn_yaml_problem(y, n, "preallocate is more than memory lets the table have");
    if (t->memory > 0 && (t->evict_age > 0 || t->evict_rows > 0)) pn_yaml_problem(y, n, "memory and eviction do not go together: with a second tier every row is kept");
    t->track = t->memory > 0 || t->evict_age > 0 || t->evict_rows > 0 || t->optimizer.decay_cap > 0;
    struct fy_node *init = pn_yaml_get(n, "init");
    static const char *const names[] = {"zero", "constant", "uniform", "normal", "xavier", NULL};
    if (init == NULL) return;
    if (fy_node_get_type(init) == FYNT_SCALAR) {
        int kind = -1;
        if (pn_yaml_choice(y, init, "init", KEYS("zero"), NULL, &kind)) t->init = PN_INIT_ZERO;
        return;
    }
    if (!pn_yaml_keys(y, init, "init", KEYS("constant", "uniform", "normal", "xavier"), NULL)) return;
    for (int i = 1; i <= 4; i++)
        if (pn_yaml_get(init, names[i]) != NULL) {
            t->init = (enum pn_init)i;
            pn_yaml_real32(y, pn_yaml_get(init, names[i]), names[i], i == 1 ? -1000 : 0, 1000, &t->init_scale);
        }
}

void pn_job_read_tables(struct pn_yaml *y, struct fy_node *n, struct pn_job *job) {
    struct pn_table_spec defaults = {.optimizer = pn_job_default_optimizer(PN_ADAGRAD, 0.05f), .init = PN_INIT_NORMAL, .init_scale = 0.01f, .admit_counters = 16u << 20};
    const char *known[PN_MAX_TABLES + 2] = {"defaults"};
    for (size_t i = 0; i < job->n_tables; i++) known[i + 1] = job->tables[i].name;
    if (n != NULL && !pn_yaml_keys(y, n, "spec.tables", known, NULL)) return;
    const bool external = job->model == PN_MODEL_EXTERNAL;
    read_table(y, pn_yaml_get(n, "defaults"), "tables.defaults", external, &defaults);
    for (size_t i = 0; i < job->n_tables; i++) {
        struct pn_table_spec *t = &job->tables[i];
        char name[64];
        snprintf(name, sizeof name, "%s", t->name);
        *t = defaults;
        snprintf(t->name, sizeof t->name, "%s", name);
        if (!external) t->dim = pn_job_width(job) + pn_job_wide(job);
        t->init_seed = pn_hash(name, strlen(name), pn_mix64(job->seed));
        read_table(y, pn_yaml_get(n, name), "a table", external, t);
        if (t->dim == 0) pn_yaml_problem(y, pn_yaml_get(n, name), "table \"%s\" needs dim: the floats of a row (or tables.defaults has it for all)", name);
    }
}

/* An external job has no features that would name its tables: spec.tables does, in its order. */
void pn_job_declare_tables(struct pn_yaml *y, struct fy_node *spec, struct pn_job *job) {
    struct fy_node *n = pn_yaml_get(spec, "tables");
    if (n == NULL || fy_node_get_type(n) != FYNT_MAPPING) {
        pn_yaml_problem(y, n != NULL ? n : spec, "an external job needs spec.tables: a name and what a row is for each, e.g. {users: {dim: 16}}");
        return;
    }
    void *it = NULL;
    for (struct fy_node_pair *pair; (pair = fy_node_mapping_iterate(n, &it)) != NULL;) {
        struct fy_node *key = fy_node_pair_key(pair);
        char name[64] = "";
        if (!pn_yaml_text(y, key, "a table's name", name, sizeof name) || strcmp(name, "defaults") == 0) continue;
        if (name[0] == '\0' || strcmp(name, "dense") == 0) pn_yaml_problem(y, key, "table name \"%s\" is taken", name);
        else if (job->n_tables >= PN_MAX_TABLES - 1) pn_yaml_problem(y, key, "more than %d tables", PN_MAX_TABLES - 1);
        else if (pn_job_find_table(job, name) < 0) { /* one that stands twice is refused by the reader of keys */
            struct pn_table_spec *t = &job->tables[job->n_tables++];
            *t = (struct pn_table_spec){0};
            snprintf(t->name, sizeof t->name, "%s", name);
        }
    }
    if (job->n_tables == 0) pn_yaml_problem(y, n, "an external job needs at least one table besides defaults");
}

void pn_job_add_dense_table(struct pn_yaml *y, struct fy_node *optimizer, struct pn_job *job) {
    job->i_dense_table = (uint32_t)job->n_tables;
    struct pn_table_spec *t = &job->tables[job->n_tables++];
    *t = (struct pn_table_spec){.dim = PN_DENSE_ROW, .optimizer = pn_job_default_optimizer(PN_ADAM, 0.001f), .explicit_rows = true};
    snprintf(t->name, sizeof t->name, "dense");
    read_optimizer(y, optimizer, &t->optimizer);
    t->optimizer.decay_cap = 0; /* every step touches all of it */
}
