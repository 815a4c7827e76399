/* The learning curve of a job: what its producers said of loss, and what was measured on validation, over time and samples. At most MOST points: then every
 * two become one and the distance doubles. It travels with the job's record and comes back with it. */
#include <math.h>
#include <string.h>
#include "coordinator/internal.h"

enum { MOST = 400, FIRST_MS = 250 };

static void add_point(struct json_object *list, double seconds, uint64_t samples, double a, double b) {
    struct json_object *e = json_object_new_array();
    json_object_array_add(e, json_object_new_double(seconds));
    json_object_array_add(e, json_object_new_uint64(samples));
    json_object_array_add(e, json_object_new_double(a));
    if (isfinite(b)) json_object_array_add(e, json_object_new_double(b));
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
        add_point(out, number_at(list, i + 1, 0), (uint64_t)end, loss, NAN);
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
    if (k->validation == NULL) k->validation = json_object_new_array();
    if (k->last_ms > 0) k->train_ms += now - k->last_ms;
    k->last_ms = now;
    if (k->distance_ms < FIRST_MS) k->distance_ms = FIRST_MS;
    if (rows < k->rows) { /* a producer began again: its sums, too */
        k->rows = rows;
        k->loss = loss;
    }
    if (k->train_ms >= k->next_ms && rows > k->rows) {
        add_point(k->train, (double)k->train_ms / 1000, samples, (loss - k->loss) / (double)(rows - k->rows), NAN);
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
    const struct pn_metric *m = &j->epoch_validation;
    const size_t n = pn_json_length(k->validation);
    if (!m->known || n >= MOST || !isfinite(m->auc) || !isfinite(m->logloss)) return;
    if (n > 0 && number_at(k->validation, n - 1, 2) == m->auc && number_at(k->validation, n - 1, 3) == m->logloss) return; /* the same measurement */
    add_point(k->validation, (double)k->train_ms / 1000, samples, m->auc, m->logloss);
}

struct json_object *pn_curve_json(const struct pn_job_run *j) {
    struct json_object *o = json_object_new_object();
    if (j->curve.train != NULL) pn_json_add(o, "train", json_object_get(j->curve.train));
    if (j->curve.validation != NULL) pn_json_add(o, "validation", json_object_get(j->curve.validation));
    pn_json_add_u64(o, "distance_ms", j->curve.distance_ms);
    return o;
}

void pn_curve_load(struct pn_job_run *j, struct json_object *o) {
    struct pn_curve *k = &j->curve;
    struct json_object *train = pn_json_get(o, "train"), *validation = pn_json_get(o, "validation");
    if (train != NULL) k->train = json_object_get(train);
    if (validation != NULL) k->validation = json_object_get(validation);
    k->distance_ms = pn_json_u64(o, "distance_ms", 0);
    for (size_t i = 0; i < pn_json_length(train); i++) k->train_ms = (uint64_t)(number_at(train, i, 0) * 1000);
}

void pn_curve_free(struct pn_job_run *j) {
    json_object_put(j->curve.train);
    json_object_put(j->curve.validation);
}
