/* The learning curve of a job: what its producers said of loss, and what was measured on validation, over time and samples. At most MOST points of each: then every
 * two become one (of validation the later one stays) and the distance doubles. It travels with the job's record and comes back with it. */
#include <string.h>
#include "coordinator/internal.h"

enum { MOST = 400, FIRST_MS = 250 };

static void add_point(struct json_object *list, double seconds, uint64_t samples, double loss) {
    struct json_object *e = json_object_new_array();
    json_object_array_add(e, json_object_new_double(seconds));
    json_object_array_add(e, json_object_new_uint64(samples));
    json_object_array_add(e, json_object_new_double(loss));
    json_object_array_add(list, e);
}
static double number_at(struct json_object *list, size_t i, size_t k) { return json_object_get_double(pn_json_at(pn_json_at(list, i), k)); }

/* Points 2k and 2k + 1 become one at the later place, its loss weighted by their samples. */
static struct json_object *thinned(struct json_object *list) {
    struct json_object *out = json_object_new_array();
    double before = 0;
    for (size_t i = 0; i + 1 < pn_json_length(list); i += 2) {
        const double middle = number_at(list, i, 1), end = number_at(list, i + 1, 1), n = end - before;
        const double loss = n > 0 ? (number_at(list, i, 2) * (middle - before) + number_at(list, i + 1, 2) * (end - middle)) / n : number_at(list, i + 1, 2);
        add_point(out, number_at(list, i + 1, 0), (uint64_t)end, loss);
        before = end;
    }
    return out;
}

void pn_curve_take(struct pn_coordinator *c, struct pn_job_run *j) {
    struct pn_curve *k = &j->curve;
    const uint64_t now = pn_now_ms(c->env);
    uint64_t rows = 0, samples = 0;
    double loss = 0;
    for (uint32_t p = 0; p < j->n_producers; p++) {
        rows += j->units[p].loss_rows;
        loss += j->units[p].loss_sum;
        samples += j->units[p].samples;
    }
    if (k->train == NULL) k->train = json_object_new_array();
    if (k->last_ms > 0) k->train_ms += now - k->last_ms;
    k->last_ms = now;
    if (k->distance_ms < FIRST_MS) k->distance_ms = FIRST_MS;
    if (rows < k->rows) { /* a producer began again: its sums, too */
        k->rows = rows;
        k->loss = loss;
    }
    if (k->train_ms >= k->next_ms && rows > k->rows) {
        add_point(k->train, (double)k->train_ms / 1000, samples, (loss - k->loss) / (double)(rows - k->rows));
        k->rows = rows;
        k->loss = loss;
        k->next_ms = k->train_ms + k->distance_ms;
        if (pn_json_length(k->train) >= MOST) {
            struct json_object *less = thinned(k->train);
            json_object_put(k->train);
            k->train = less;
            k->distance_ms *= 2;
        }
    }
}

/* ---- validation ---- */
static uint64_t epoch_at(struct json_object *list, size_t i) { return pn_json_u64(pn_json_at(list, i), "epoch", 0); } /* 0: a point of before they were told */

static bool add_measured(struct json_object *list, double seconds, uint64_t samples, const struct pn_metric *m) {
    struct json_object *e = json_object_new_object();
    pn_metric_write(e, "", m);
    const bool any = json_object_object_length(e) > 0;
    if (any) {
        pn_json_add_double(e, "seconds", seconds);
        pn_json_add_u64(e, "samples", samples);
        if (m->epoch > 0) pn_json_add_u64(e, "epoch", m->epoch);
        json_object_array_add(list, e);
    } else json_object_put(e);
    return any;
}

/* Every second point goes; the newest stays. */
static void thin_out(struct json_object *list) {
    for (size_t i = pn_json_length(list); i >= 2; i -= 2) json_object_array_del_idx(list, i - 2, 1);
}

/* A point is an epoch's: one that is measured again, behind a way back, takes the place of the old one and of those behind it. Of epochs nearer to one another than the
 * distance only the newest stands, until the next one comes. */
void pn_curve_measured(struct pn_job_run *j) {
    struct pn_curve *k = &j->curve;
    const struct pn_metric *m = &j->epoch_validation;
    uint64_t samples = 0;
    for (uint32_t p = 0; p < j->n_producers; p++) samples += j->units[p].samples;
    if (k->validation == NULL) k->validation = json_object_new_array();
    if (k->distance_epochs == 0) k->distance_epochs = 1;
    struct json_object *list = k->validation;
    size_t n = pn_json_length(list);
    for (; n > 0 && m->epoch > 0 && epoch_at(list, n - 1) >= m->epoch; n--) json_object_array_del_idx(list, n - 1, 1);
    if (n >= 2 && epoch_at(list, n - 1) > 0 && epoch_at(list, n - 1) - epoch_at(list, n - 2) < k->distance_epochs) json_object_array_del_idx(list, n - 1, 1);
    if (!add_measured(list, (double)k->train_ms / 1000, samples, m) || pn_json_length(list) < MOST) return;
    thin_out(list);
    k->distance_epochs *= 2;
}

/* ---- in the job's record ---- */
struct json_object *pn_curve_json(const struct pn_job_run *j) {
    struct json_object *o = json_object_new_object();
    if (j->curve.train != NULL) pn_json_add(o, "train", json_object_get(j->curve.train));
    if (j->curve.validation != NULL) pn_json_add(o, "validation", json_object_get(j->curve.validation));
    pn_json_add_u64(o, "distance_ms", j->curve.distance_ms);
    pn_json_add_u64(o, "distance_epochs", j->curve.distance_epochs);
    return o;
}

/* The points of a record; in one of before they held more than two figures each is [seconds, samples, AUC, log loss]. */
static struct json_object *load_measured(struct json_object *list) {
    struct json_object *out = json_object_new_array();
    for (size_t i = 0; i < pn_json_length(list); i++) {
        struct json_object *e = pn_json_at(list, i);
        if (pn_json_length(e) == 0) {
            json_object_array_add(out, json_object_get(e));
            continue;
        }
        struct json_object *two = json_object_new_object();
        pn_json_add_double(two, "auc", number_at(list, i, 2));
        pn_json_add_double(two, "logloss", number_at(list, i, 3));
        const struct pn_metric m = pn_metric_read(two);
        add_measured(out, number_at(list, i, 0), (uint64_t)number_at(list, i, 1), &m);
        json_object_put(two);
    }
    return out;
}

void pn_curve_load(struct pn_job_run *j, struct json_object *o) {
    struct pn_curve *k = &j->curve;
    struct json_object *train = pn_json_get(o, "train"), *validation = pn_json_get(o, "validation");
    if (train != NULL) k->train = json_object_get(train);
    if (validation != NULL) k->validation = load_measured(validation);
    k->distance_ms = pn_json_u64(o, "distance_ms", 0);
    k->distance_epochs = pn_json_u64(o, "distance_epochs", 1);
    for (size_t i = 0; i < pn_json_length(train); i++) k->train_ms = (uint64_t)(number_at(train, i, 0) * 1000);
}

void pn_curve_free(struct pn_job_run *j) {
    json_object_put(j->curve.train);
    json_object_put(j->curve.validation);
}
