/* spec.privacy: training whose steps are differentially private (docs/privacy.md). What cannot be kept is refused here, with the reason. */
#include <math.h>
#include <string.h>
#include "job/sections.h"
#include "privacy/accountant.h"

#define KEYS(...) (const char *const[]){__VA_ARGS__, NULL}

bool pn_job_chooses(const struct pn_privacy_spec *v) { return v->selection == PN_SELECT_FEST || (v->selection == PN_SELECT_ADAFEST && v->choice.threshold > 0); }

size_t pn_job_privacy_events(const struct pn_job *job, uint64_t steps, uint32_t lives, struct pn_privacy_event *events) {
    const struct pn_privacy_spec *v = &job->privacy;
    const double rate = (double)job->batch_size * job->n_producers / (double)v->rows;
    size_t n = 0;
    /* AdaFEST's votes and gradients are of one draw: together they are one release at the whole noise. */
    events[n++] = (struct pn_privacy_event){.rate = rate < 1 ? rate : 1, .noise = v->noise, .steps = steps};
    if (pn_job_chooses(v)) events[n++] = (struct pn_privacy_event){.rate = 1, .noise = v->selection == PN_SELECT_FEST ? v->vote_noise : v->choice.noise, .steps = lives};
    return n;
}

uint64_t pn_job_privacy_steps(const struct pn_job *job) {
    const uint64_t shard = (job->privacy.rows + job->n_producers - 1) / job->n_producers, epoch = (shard + job->batch_size - 1) / job->batch_size, steps = epoch * job->epochs;
    return job->max_steps > 0 && job->max_steps < steps ? job->max_steps : steps;
}

/* Discrete noise is accounted for by whole orders alone. */
static enum pn_result (*by_orders(const struct pn_job *job))(const struct pn_privacy_event *, size_t, double, double *, struct pn_error *) {
    return job->privacy.secure ? pn_privacy_epsilon_rdp_whole : pn_privacy_epsilon_rdp;
}

static bool is_enough(struct pn_job *job, double noise) {
    struct pn_privacy_event events[2];
    double epsilon;
    job->privacy.noise = noise;
    const size_t n = pn_job_privacy_events(job, pn_job_privacy_steps(job), 1, events);
    return by_orders(job)(events, n, job->privacy.delta, &epsilon, NULL) == PN_OK && epsilon <= job->privacy.epsilon;
}

/* The least noise by which the whole job stays within its (epsilon, delta), by Renyi orders, rounded up; HUGE_VAL: none. */
static double calibrate(struct pn_job *job) {
    double low = 0.3, high = 1000;
    if (!is_enough(job, high)) return HUGE_VAL;
    while (high > low * (1 + 1e-7)) {
        const double middle = sqrt(low * high);
        if (is_enough(job, middle)) high = middle;
        else low = middle;
    }
    return high;
}

enum { FEW = 4096, LARGE = 2048, SMALL = 512 };
size_t pn_job_piece(size_t units) { return units <= FEW ? LARGE : SMALL; }
static double roundoff(double units, uint32_t per_unit, double piece) {
    const double c = fmin(units, piece), k = per_unit > 1 ? per_unit : 1;
    return 2 * 0x1p-24 * (c * sqrt(c) * k * sqrt(units / c) + units);
}
double pn_job_roundoff(double units, uint32_t per_unit, bool in_pieces) {
    if (!in_pieces) return roundoff(units, per_unit, units);
    const double few = roundoff(fmin(units, FEW), per_unit, LARGE); /* of a draw that is smaller than expected */
    return units > FEW ? fmax(few, roundoff(units, per_unit, SMALL)) : few;
}
double pn_job_most_units(const struct pn_privacy_spec *v, uint32_t n_producers) { return 2 * (double)v->rows / n_producers + 64; }
float pn_job_spread(const struct pn_privacy_spec *v) { return v->per_user > 0 ? sqrtf((float)v->per_user) : 0; }

/* What would let the data through some other way than noisy sums. */
static void refuse(struct pn_yaml *y, struct fy_node *n, const struct pn_job *job) {
    const struct pn_data *d = &job->train;
    if (job->model == PN_MODEL_AUDIT || job->model == PN_MODEL_EXTERNAL || job->model == PN_MODEL_SASREC || job->loss != PN_LOSS_BCE)
        pn_yaml_problem(y, n, "privacy needs a model and a loss whose gradient is a sum over examples: not sasrec, audit, external, nor losses of groups of rows");
    if (job->norm == PN_NORM_BATCH) pn_yaml_problem(y, n, "privacy: batch norm mixes the examples of a batch and keeps their statistics; take norm: layer");
    if (job->patience > 0) pn_yaml_problem(y, n, "privacy and earlyStopping do not go together: which epoch is best would be told of validation rows without noise");
    if (job->stream.window > 0) pn_yaml_problem(y, n, "privacy and stream do not go together: a stream's figures are of single windows, without noise");
    if (d->negatives.per_positive > 0 || pn_format_pairs(d->format)) pn_yaml_problem(y, n, "privacy: negatives drawn behind a positive row belong to it, which clipping by row does not know");
    if (d->history > 0 && job->privacy.per_user == 0)
        pn_yaml_problem(y, n, "privacy: with history a row stands in the history of later ones, which clipping by example does not know; take unit: user, or leave history out");
    if (d->history > 0 && job->privacy.per_user > 0 && strcmp(job->privacy.user_field, "user") != 0)
        pn_yaml_problem(y, n, "privacy: with history a row stands in the history of its user's later ones: userField must be \"user\", and not \"%s\", whose rows are in the histories of others", job->privacy.user_field);
    if (job->clip_norm > 0) pn_yaml_problem(y, n, "privacy clips each example (privacy.clip); training.clipNorm has no place beside it");
    if (job->embedding_l2 > 0) pn_yaml_problem(y, n, "privacy: embeddingL2 counts per example and is not clipped with it; take the optimizer's l2");
    for (size_t i = 0; i < job->n_fields; i++) {
        const struct pn_field *f = &job->fields[i];
        if (f->type == PN_FIELD_LEAVES) pn_yaml_problem(y, n, "privacy: the trees of feature \"%s\" are grown of the rows as they are, without noise", f->name);
        else if (pn_field_keyed(f) && f->buckets == 0 && !(f->type == PN_FIELD_NUMERIC && (f->n_boundaries > 0 || f->quantiles > 0)) && f->vocabulary.kind == PN_VOCABULARY_NONE)
            pn_yaml_problem(y, n, "privacy: feature \"%s\" can have any number of keys; give it buckets: N, so that rows nobody touched can have their noise", f->name);
        if (f->vocabulary.kind != PN_VOCABULARY_NONE || f->quantiles > 0)
            pn_yaml_problem(y, n, "privacy: the %s of feature \"%s\" would be of the rows as they are, without noise; give %s", f->quantiles > 0 ? "quantiles" : "vocabulary", f->name,
                            f->quantiles > 0 ? "the boundaries" : "buckets");
        if (f->standardize && !(f->std > 0)) pn_yaml_problem(y, n, "privacy: feature \"%s\" takes mean and std from the rows, without noise; give both", f->name);
    }
    for (size_t i = 0; i < job->n_fields; i++)
        for (size_t k = 0; k < i; k++) {
            const struct pn_field *f = &job->fields[i], *other = &job->fields[k];
            if (pn_fields_share(f, other) && (pn_field_domain(f) != pn_field_domain(other) || (f->buckets > 0) != (other->buckets > 0)))
                pn_yaml_problem(y, n, "privacy: features \"%s\" and \"%s\" share rows and have not the same keys: which rows nobody touched would be counted wrong; give both as many buckets, or as many boundaries", other->name, f->name);
        }
    if (job->cache_rows > 0) pn_yaml_problem(y, n, "privacy and deviceCache do not go together: what a cache has to pull would tell servers what is in a batch; a worker of a private job keeps a copy of all rows in its memory");
    for (uint32_t t = 0; t < job->i_dense_table; t++) {
        const struct pn_table_spec *s = &job->tables[t];
        if (s->admit_count > 1 || s->admit_probability > 0) pn_yaml_problem(y, n, "privacy and admission do not go together: which rows are sent is chosen with noise already");
        if (s->evict_age > 0 || s->evict_rows > 0) pn_yaml_problem(y, n, "privacy and eviction do not go together (table %s): workers keep copies of the rows, which change by pushes alone", s->name);
        if (s->memory > 0) pn_yaml_problem(y, n, "privacy and a table's memory limit do not go together (table %s): all rows that were pushed are in the workers' memory as well, and servers list them for that", s->name);
    }
}

/* frequent: {threshold, noise, clip} */
static void read_choice(struct pn_yaml *y, struct fy_node *n, struct pn_privacy_spec *v) {
    if (n == NULL || !pn_yaml_keys(y, n, "privacy.frequent", KEYS("threshold", "noise", "clip"), NULL)) return;
    v->choice.clip = v->vote_clip;
    v->choice.noise = 10;
    if (v->selection != PN_SELECT_ADAFEST) pn_yaml_problem(y, n, "frequent has a meaning for selection: adafest only: fest sends all rows that its one count chose");
    if (v->secure) pn_yaml_problem(y, n, "frequent has a meaning for aggregation: central only: a secure round counts votes for buckets of rows");
    if (pn_yaml_get(n, "threshold") == NULL) pn_yaml_problem(y, n, "frequent needs threshold: how many votes of all rows of train, with noise, let a row have votes later");
    pn_yaml_real(y, pn_yaml_get(n, "threshold"), "frequent.threshold", 1e-6, 1e12, &v->choice.threshold);
    pn_yaml_real(y, pn_yaml_get(n, "noise"), "frequent.noise", 0.3, 1e6, &v->choice.noise);
    pn_yaml_real(y, pn_yaml_get(n, "clip"), "frequent.clip", 1e-3, 1e6, &v->choice.clip);
}

void pn_job_read_privacy(struct pn_yaml *y, struct fy_node *n, struct pn_job *job) {
    if (n == NULL || !pn_yaml_keys(y, n, "spec.privacy", KEYS("unit", "users", "userField", "examplesPerUser", "rows", "epsilon", "delta", "clip", "noiseMultiplier", "sampling", "selection", "voteClip", "voteNoise", "threshold", "frequent", "aggregation", "dataset", "budget",
                                        "minWorkers", "maxDropout", "maxColluding", "voteBuckets", "phaseTimeout", "data"), NULL)) return;
    struct pn_privacy_spec *v = &job->privacy;
    char noise[40] = "auto";
    int which = 0, selection = PN_SELECT_ADAFEST;
    pn_yaml_choice(y, pn_yaml_get(n, "unit"), "unit", KEYS("example", "user"), NULL, &which);
    const bool by_user = which == 1;
    pn_yaml_choice(y, pn_yaml_get(n, "sampling"), "sampling", KEYS("poisson"), NULL, &which);
    int aggregation = 0;
    pn_yaml_choice(y, pn_yaml_get(n, "aggregation"), "aggregation", KEYS("central", "secure"), NULL, &aggregation);
    v->secure = aggregation == 1;
    if (pn_yaml_choice(y, pn_yaml_get(n, "selection"), "selection", KEYS("dense", "fest", "adafest"), NULL, &selection)) v->selection = (enum pn_selection)selection;
    else v->selection = PN_SELECT_ADAFEST;
    const char *const needed[] = {by_user ? "users" : "rows", "epsilon", "delta", "dataset", "userField"};
    for (size_t i = 0; i < (by_user ? 5 : 4); i++)
        if (pn_yaml_get(n, needed[i]) == NULL)
            pn_yaml_problem(y, n, "spec.privacy needs %s", i == 0 ? by_user ? "users: how many users have training rows, a public number" : "rows: how many training rows there are, a public number"
                                                          : i == 4 ? "userField: the column that says whose a row is" : i == 3 ? "dataset: the name under which the budget of these data adds up over jobs" : needed[i]);
    v->clip = 1;
    pn_yaml_count(y, pn_yaml_get(n, needed[0]), needed[0], 1, 1ull << 40, &v->rows);
    for (const char *const *key = by_user ? KEYS("rows") : KEYS("users", "userField", "examplesPerUser"); *key != NULL; key++)
        if (pn_yaml_get(n, *key) != NULL) pn_yaml_problem(y, pn_yaml_get(n, *key), by_user ? "%s has no meaning for unit: user: batches are of users; say how many there are (users)" : "%s has a meaning for unit: user only", *key);
    if (by_user) {
        v->per_user = 1;
        pn_yaml_count32(y, pn_yaml_get(n, "examplesPerUser"), "examplesPerUser", 1, 4096, &v->per_user);
        if (pn_yaml_text(y, pn_yaml_get(n, "userField"), "userField", v->user_field, sizeof v->user_field) && v->user_field[0] == '\0') pn_yaml_problem(y, pn_yaml_get(n, "userField"), "userField: the name of a column is needed");
    }
    pn_yaml_real(y, pn_yaml_get(n, "epsilon"), "epsilon", 1e-3, 100, &v->epsilon);
    pn_yaml_real(y, pn_yaml_get(n, "delta"), "delta", 1e-15, 0.01, &v->delta);
    pn_yaml_real32(y, pn_yaml_get(n, "clip"), "clip", 1e-6, 1e6, &v->clip);
    if (pn_yaml_text(y, pn_yaml_get(n, "dataset"), "dataset", v->dataset, sizeof v->dataset) && (v->dataset[0] == '\0' || strpbrk(v->dataset, "\"\\\n") != NULL))
        pn_yaml_problem(y, pn_yaml_get(n, "dataset"), "a dataset's name is not empty and has no quote or backslash");
    struct fy_node *budget = pn_yaml_get(n, "budget"), *multiplier = pn_yaml_get(n, "noiseMultiplier");
    v->limit = v->epsilon;
    pn_yaml_real(y, budget, "budget", 1e-3, 1000, &v->limit);
    if (v->limit < v->epsilon) pn_yaml_problem(y, budget, "budget: the data set's limit of epsilon is below what this job alone may spend");
    if (v->rows > 0 && v->delta >= 1 / (double)v->rows) pn_yaml_problem(y, n, "delta must be below 1 / %s: at %g one %s in the clear would be allowed", needed[0], v->delta, by_user ? "user" : "row");
    if (job->n_producers == 0) pn_yaml_problem(y, n, "privacy needs training.dataShards: how the rows are dealt decides the sampling rate");
    else if (v->rows > 0 && (double)job->batch_size * job->n_producers >= (double)v->rows) pn_yaml_problem(y, n, "privacy: a batch is expected to hold fewer than all %llu %s of its shard", (unsigned long long)v->rows / job->n_producers, needed[0]);
    /* votes: their noise is as much of the whole as its square says */
    v->vote_clip = 1;
    pn_yaml_real(y, pn_yaml_get(n, "voteClip"), "voteClip", 1e-3, 1e6, &v->vote_clip);
    if (v->selection == PN_SELECT_DENSE) {
        for (const char *const *key = KEYS("voteClip", "voteNoise", "threshold", "frequent"); *key != NULL; key++)
            if (pn_yaml_get(n, *key) != NULL) pn_yaml_problem(y, pn_yaml_get(n, *key), "%s has a meaning for selection: adafest and fest only", *key);
    } else {
        if (pn_yaml_get(n, "threshold") == NULL) pn_yaml_problem(y, n, "selection: %s needs threshold: how many votes, with noise, let a row in", v->selection == PN_SELECT_FEST ? "fest" : "adafest");
        pn_yaml_real(y, pn_yaml_get(n, "threshold"), "threshold", 1e-6, 1e12, &v->threshold);
        v->vote_noise = v->selection == PN_SELECT_FEST ? 10 : 0;
        pn_yaml_real(y, pn_yaml_get(n, "voteNoise"), "voteNoise", 0.3, 1e6, &v->vote_noise);
        read_choice(y, pn_yaml_get(n, "frequent"), v);
    }
    if (y->n_problems > 0) return;
    refuse(y, n, job);
    if (y->n_problems == 0) pn_job_read_secure(y, n, job);
    if (y->n_problems > 0) return;
    if (multiplier != NULL && (!pn_yaml_text(y, multiplier, "noiseMultiplier", noise, sizeof noise) || (strcmp(noise, "auto") != 0 && !pn_yaml_real(y, multiplier, "noiseMultiplier", 0.3, 1e6, &v->noise)))) return;
    if (strcmp(noise, "auto") == 0) v->noise = calibrate(job);
    if (!isfinite(v->noise)) {
        pn_yaml_problem(y, n, "privacy: no noise below 1000 keeps %llu steps within epsilon %g at delta %g; fewer epochs, smaller batches or a larger epsilon are needed",
                        (unsigned long long)pn_job_privacy_steps(job), v->epsilon, v->delta);
        return;
    }
    struct pn_privacy_event events[2];
    double spent = HUGE_VAL;
    if (v->selection == PN_SELECT_ADAFEST) {
        if (v->vote_noise <= 0) v->vote_noise = v->noise * 4; /* the map takes a sixteenth of the whole */
        if (v->vote_noise <= v->noise) pn_yaml_problem(y, n, "voteNoise must be above the whole noise multiplier (%.4g): votes and gradients share it", v->noise);
    }
    if (by_orders(job)(events, pn_job_privacy_events(job, pn_job_privacy_steps(job), 1, events), v->delta, &spent, NULL) != PN_OK || spent > v->epsilon * (1 + 1e-9))
        pn_yaml_problem(y, n, "privacy: with noiseMultiplier %g the job would spend epsilon %.4g, and %g are allowed", v->noise, spent, v->epsilon);
}
