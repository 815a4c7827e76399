/* What a replica tells about itself: metadata, configuration, statistics, index, metrics. */
#include <inttypes.h>
#include "common/text.h"
#include "serving/internal.h"

static const char *datatype_of(const struct pn_field *f) { return f->type == PN_FIELD_NUMERIC ? "FP32" : "BYTES"; }

void pn_report_metadata(struct pn_model_state *m, const struct pn_served *v, struct pn_text *t) {
    const struct pn_columns *c = &v->scorer.columns;
    pn_text_add(t, "{\"name\":");
    pn_text_quoted(t, m->name);
    pn_text_add(t, ",\"versions\":[");
    for (const struct pn_served *x = m->versions; x != NULL; x = x->next) pn_text_add(t, "%s\"%" PRIu64 "\"", x != m->versions ? "," : "", x->version);
    pn_text_add(t, "],\"platform\":\"pinion\",\"inputs\":[");
    for (size_t i = 0; i < c->n; i++) {
        pn_text_add(t, "%s{\"name\":", i > 0 ? "," : "");
        pn_text_quoted(t, c->names[i]);
        pn_text_add(t, ",\"datatype\":\"%s\",\"shape\":[-1,%s]}", datatype_of(c->fields[i]), pn_field_listed(c->fields[i]) ? "-1" : "1");
    }
    pn_text_add(t, "],\"outputs\":[{\"name\":\"score\",\"datatype\":\"FP32\",\"shape\":[-1,1]}]}");
}

/* max_batch_size 0: the first dimension belongs to the tensor, a request is one batch of candidates. */
void pn_report_config(struct pn_model_state *m, const struct pn_served *v, struct pn_text *t) {
    const struct pn_columns *c = &v->scorer.columns;
    pn_text_add(t, "{\"name\":");
    pn_text_quoted(t, m->name);
    pn_text_add(t, ",\"platform\":\"pinion\",\"backend\":\"pinion\",\"version_policy\":{\"specific\":{\"versions\":[%" PRIu64 "]}},\"max_batch_size\":0,\"input\":[", v->version);
    for (size_t i = 0; i < c->n; i++) {
        pn_text_add(t, "%s{\"name\":", i > 0 ? "," : "");
        pn_text_quoted(t, c->names[i]);
        pn_text_add(t, ",\"data_type\":\"%s\",\"dims\":[-1,%s]}", c->fields[i]->type == PN_FIELD_NUMERIC ? "TYPE_FP32" : "TYPE_STRING",
                    pn_field_listed(c->fields[i]) ? "-1" : "1");
    }
    pn_text_add(t, "],\"output\":[{\"name\":\"score\",\"data_type\":\"TYPE_FP32\",\"dims\":[-1,1]}]}");
}

static void put_count(struct pn_text *t, const char *name, const struct pn_count *c, const char *behind) {
    pn_text_add(t, "\"%s\":{\"count\":%" PRIu64 ",\"ns\":%" PRIu64 "}%s", name, c->n, c->ns, behind);
}

static void put_stats(struct pn_text *t, const struct pn_model_state *m, const struct pn_served *v, size_t *n) {
    const struct pn_count none = {0}, waited = {v->success.n + v->fail.n, 0};
    pn_text_add(t, "%s{\"name\":", (*n)++ > 0 ? "," : "");
    pn_text_quoted(t, m->name);
    pn_text_add(t, ",\"version\":\"%" PRIu64 "\",\"last_inference\":%" PRIu64 ",\"inference_count\":%" PRIu64 ",\"execution_count\":%" PRIu64 ",\"inference_stats\":{",
                v->version, v->last_ms, v->success.n, v->n_executions);
    put_count(t, "success", &v->success, ",");
    put_count(t, "fail", &v->fail, ",");
    put_count(t, "queue", &waited, ",");
    put_count(t, "compute_input", &v->input, ",");
    put_count(t, "compute_infer", &v->infer, ",");
    put_count(t, "compute_output", &v->output, ",");
    put_count(t, "cache_hit", &none, ",");
    put_count(t, "cache_miss", &none, "},\"batch_stats\":[]}");
}

void pn_report_stats(struct pn_serving *s, struct pn_model_state *only, const struct pn_served *version, struct pn_text *t) {
    size_t n = 0;
    pn_text_add(t, "{\"model_stats\":[");
    for (struct pn_model_state *m = s->models; m != NULL; m = m->next)
        for (const struct pn_served *v = m->versions; v != NULL; v = v->next)
            if ((only == NULL || only == m) && (version == NULL || version == v)) put_stats(t, m, v, &n);
    pn_text_add(t, "]}");
}

static void put_index(struct pn_text *t, const struct pn_model_state *m, uint64_t version, const char *state, const char *reason, size_t *n) {
    pn_text_add(t, "%s{\"name\":", (*n)++ > 0 ? "," : "");
    pn_text_quoted(t, m->name);
    pn_text_add(t, ",\"version\":\"%" PRIu64 "\",\"state\":\"%s\",\"reason\":", version, state);
    pn_text_quoted(t, reason);
    pn_text_add(t, "}");
}

void pn_report_index(struct pn_serving *s, bool ready_only, struct pn_text *t) {
    size_t n = 0;
    pn_text_add(t, "[");
    for (struct pn_model_state *m = s->models; m != NULL; m = m->next) {
        for (const struct pn_served *v = m->versions; v != NULL; v = v->next) put_index(t, m, v->version, "READY", v == m->active ? "active" : "", &n);
        if (ready_only || !m->planned) continue;
        if (m->failed_version != 0) put_index(t, m, m->failed_version, "UNAVAILABLE", m->failed_error, &n);
        else if (m->loading != NULL) put_index(t, m, m->wanted, "LOADING", "", &n);
    }
    pn_text_add(t, "]");
}

/* ---- Prometheus ---- */

static void head(struct pn_text *t, const char *name, const char *type, const char *help) {
    pn_text_add(t, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void sample(struct pn_text *t, const char *name, const struct pn_model_state *m, const char *more, uint64_t v) {
    pn_text_add(t, "%s{model=", name);
    pn_text_quoted(t, m->name);
    pn_text_add(t, "%s} %" PRIu64 "\n", more, v);
}

#define EACH(m) for (struct pn_model_state *m = s->models; m != NULL; m = m->next)

static void put_durations(struct pn_text *t, const struct pn_model_state *m) {
    const char *const name = "pinion_serve_request_duration_seconds";
    uint64_t sum = 0;
    for (size_t k = 0; k <= PN_BUCKETS; k++) {
        sum += m->bucket[k];
        pn_text_add(t, "%s_bucket{model=", name);
        pn_text_quoted(t, m->name);
        if (k < PN_BUCKETS) pn_text_add(t, ",le=\"%.9g\"} %" PRIu64 "\n", 50e-6 * (double)(1u << k), sum);
        else pn_text_add(t, ",le=\"+Inf\"} %" PRIu64 "\n", sum);
    }
    pn_text_add(t, "%s_sum{model=", name);
    pn_text_quoted(t, m->name);
    pn_text_add(t, "} %.9f\n", (double)m->duration_ns / 1e9);
    pn_text_add(t, "%s_count{model=", name);
    pn_text_quoted(t, m->name);
    pn_text_add(t, "} %" PRIu64 "\n", m->n_durations);
}

void pn_report_metrics(struct pn_serving *s, struct pn_text *t) {
    uint64_t now_ms = s->env->ops->wall_ms(s->env);
    head(t, "pinion_serve_ready", "gauge", "1 when every planned model has an active version.");
    pn_text_add(t, "pinion_serve_ready %d\n", pn_serving_ready(s, NULL));
    head(t, "pinion_serve_requests_total", "counter", "Ranking requests by the status class they were answered with.");
    EACH(m) {
        sample(t, "pinion_serve_requests_total", m, ",code=\"200\"", m->n_ok);
        sample(t, "pinion_serve_requests_total", m, ",code=\"4xx\"", m->n_refused);
        sample(t, "pinion_serve_requests_total", m, ",code=\"500\"", m->n_errors);
        sample(t, "pinion_serve_requests_total", m, ",code=\"503\"", m->n_busy);
    }
    head(t, "pinion_serve_request_duration_seconds", "histogram", "From a ranking request's last byte to its answer.");
    EACH(m) put_durations(t, m);
    head(t, "pinion_serve_candidates_total", "counter", "Candidates scored.");
    EACH(m) sample(t, "pinion_serve_candidates_total", m, "", m->n_candidates);
    head(t, "pinion_serve_embedding_hits_total", "counter", "Unique keys of a request that the snapshot has.");
    EACH(m) sample(t, "pinion_serve_embedding_hits_total", m, "", m->n_found);
    head(t, "pinion_serve_embedding_misses_total", "counter", "Unique keys of a request that the snapshot lacks.");
    EACH(m) sample(t, "pinion_serve_embedding_misses_total", m, "", m->n_absent);
    head(t, "pinion_serve_model_version", "gauge", "The active version; 0: none.");
    EACH(m) sample(t, "pinion_serve_model_version", m, "", m->active != NULL ? m->active->version : 0);
    head(t, "pinion_serve_model_rows", "gauge", "Embedding rows of the active version.");
    EACH(m) sample(t, "pinion_serve_model_rows", m, "", m->active != NULL ? pn_snapshot_rows(m->active->snapshot) : 0);
    head(t, "pinion_serve_snapshot_age_seconds", "gauge", "Time since the active version was published.");
    EACH(m) {
        uint64_t published = m->active != NULL ? pn_snapshot_published_ms(m->active->snapshot) : 0;
        if (published > 0) sample(t, "pinion_serve_snapshot_age_seconds", m, "", now_ms > published ? (now_ms - published) / 1000 : 0);
    }
    head(t, "pinion_serve_version_swaps_total", "counter", "Times another version became active.");
    EACH(m) sample(t, "pinion_serve_version_swaps_total", m, "", m->n_swaps);
    head(t, "pinion_serve_version_refused", "gauge", "The wanted version that does not verify; 0: none.");
    EACH(m) sample(t, "pinion_serve_version_refused", m, "", m->failed_version);
    head(t, "pinion_serve_waiting_requests", "gauge", "Ranking requests that wait for a thread.");
    pn_text_add(t, "pinion_serve_waiting_requests %zu\n", s->n_waiting);
    head(t, "pinion_serve_not_found_total", "counter", "Requests for a path, model or version that is not there.");
    pn_text_add(t, "pinion_serve_not_found_total %" PRIu64 "\n", s->n_not_found);
}
