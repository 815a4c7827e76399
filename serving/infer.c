/* One ranking request: parse, score, render. Small ones at once on the core's thread, large ones on a work thread, a bounded number at
 * a time and a bounded number waiting behind them; each holds its version until it is answered. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "serving/internal.h"

#define SMALL_BYTES 8192u

struct pn_call {
    struct pn_call *next;
    struct pn_serving *serving;
    struct pn_model_state *model;
    struct pn_served *version;
    struct pn_http_request *request;
    struct pn_ranker *ranker;
    struct pn_work work;
    uint64_t start_ns;
    /* filled by the three steps */
    struct pn_infer infer;
    float *scores;
    uint64_t n_found, n_absent;
    enum pn_result result;
    struct pn_error err;
    char *body;
    size_t n_body, n_json;
};

void pn_answer_fail(struct pn_http_request *r, int status, const char *text) {
    struct json_object *o = json_object_new_object();
    pn_json_add_str(o, "error", text);
    const char *body = pn_json_text(o);
    r->answer(r, status, "application/json", status == 503 ? "Retry-After: 1" : NULL, body, strlen(body));
    json_object_put(o);
}

static int status_of(enum pn_result r) {
    switch (r) {
    case PN_OK: return 200;
    case PN_INVALID: return 400;
    case PN_NOT_FOUND: return 404;
    case PN_BUSY:
    case PN_NO_MEMORY: return 503;
    case PN_REFUSED: return 501;
    default: return 500;
    }
}

/* ---- the steps; pure ---- */
static void parse(struct pn_call *c) {
    const struct pn_http_request *r = c->request;
    c->result = pn_infer_parse(&c->infer, &c->version->scorer.columns, r->inference_header_length, r->body, r->body_bytes, &c->err);
}
static void score(struct pn_call *c) {
    if (c->result != PN_OK) return;
    c->scores = malloc(c->infer.candidates.n_rows * sizeof *c->scores);
    if (c->scores == NULL) c->result = pn_fail(&c->err, PN_NO_MEMORY, "no memory for the scores");
    else c->result = pn_ranker_score(c->ranker, &c->version->scorer, &c->infer.candidates, c->scores, &c->n_found, &c->n_absent, &c->err);
}
static void render(struct pn_call *c) {
    if (c->result != PN_OK) return;
    c->result = pn_infer_render(&c->infer, c->model->name, c->version->version, c->scores, &c->body, &c->n_body, &c->n_json);
    if (c->result != PN_OK) pn_fail(&c->err, c->result, "no memory for the answer");
}
static void all_steps(struct pn_work *w) {
    struct pn_call *c = w->owner;
    parse(c);
    score(c);
    render(c);
}

/* ---- on the core's thread ---- */
static void count(struct pn_call *c, uint64_t ns) {
    struct pn_model_state *m = c->model;
    struct pn_served *v = c->version;
    struct pn_count *which = c->result == PN_OK ? &v->success : &v->fail;
    which->n++;
    which->ns += ns;
    v->last_ms = c->serving->env->ops->wall_ms(c->serving->env);
    size_t k = 0;
    while (k < PN_BUCKETS && ns > 50000ull << k) k++;
    m->bucket[k]++;
    m->duration_ns += ns;
    m->n_durations++;
    if (c->result == PN_OK) {
        m->n_ok++;
        m->n_candidates += c->infer.candidates.n_rows;
        v->n_candidates += c->infer.candidates.n_rows;
        v->n_executions++;
    } else if (status_of(c->result) < 500) {
        m->n_refused++;
    } else {
        m->n_errors++;
    }
    m->n_found += c->n_found;
    m->n_absent += c->n_absent;
}

static void finish(struct pn_call *c) {
    struct pn_http_request *r = c->request;
    if (c->ranker != NULL) {
        c->ranker->next = c->version->idle;
        c->version->idle = c->ranker;
    }
    count(c, pn_now_ns(c->serving->env) - c->start_ns);
    if (c->result != PN_OK) {
        if (status_of(c->result) == 500) pn_log(c->serving->env, PN_ERROR, "model %s: %s", c->model->name, c->err.text);
        pn_answer_fail(r, status_of(c->result), c->err.text);
    } else if (c->n_json > 0) {
        char header[64];
        snprintf(header, sizeof header, "Inference-Header-Content-Length: %zu", c->n_json);
        r->answer(r, 200, "application/octet-stream", header, c->body, c->n_body);
    } else {
        r->answer(r, 200, "application/json", NULL, c->body, c->n_body);
    }
    pn_infer_free(&c->infer);
    free(c->scores);
    free(c->body);
    pn_served_unref(c->version);
    free(c);
}

static void take_ranker(struct pn_call *c) {
    struct pn_served *v = c->version;
    if (v->idle != NULL) {
        c->ranker = v->idle;
        v->idle = c->ranker->next;
    } else {
        c->result = pn_ranker_open(&c->ranker, &v->scorer, &c->err);
    }
}

static void computed(struct pn_work *w);

static void next_call(struct pn_serving *s) {
    while (s->waiting != NULL && s->n_ranking < PN_MAX_RANKING) {
        struct pn_call *c = s->waiting;
        s->waiting = c->next;
        if (s->waiting == NULL) s->waiting_end = &s->waiting;
        s->n_waiting--;
        take_ranker(c);
        if (c->result != PN_OK) {
            finish(c);
            continue;
        }
        s->n_ranking++;
        s->n_outstanding++;
        c->work = (struct pn_work){.run = all_steps, .done = computed, .owner = c};
        pn_work_start(s->env, &c->work);
    }
}

static void computed(struct pn_work *w) {
    struct pn_call *c = w->owner;
    struct pn_serving *s = c->serving;
    uint64_t ns = pn_now_ns(s->env) - c->start_ns;
    c->version->infer.n++;
    c->version->infer.ns += ns; /* on a work thread nobody looks at a clock: the three steps count as one */
    c->version->input.n++;
    c->version->output.n++;
    finish(c);
    s->n_ranking--;
    if (!s->closed) next_call(s);
    pn_serving_release(s);
}

static void compute_now(struct pn_call *c) {
    struct pn_env *env = c->serving->env;
    struct pn_served *v = c->version;
    take_ranker(c);
    if (c->result == PN_OK) {
        uint64_t begin = c->start_ns, parsed, scored;
        parse(c);
        parsed = pn_now_ns(env);
        score(c);
        scored = pn_now_ns(env);
        render(c);
        v->input.n++;
        v->infer.n++;
        v->output.n++;
        v->input.ns += parsed - begin;
        v->infer.ns += scored - parsed;
        v->output.ns += pn_now_ns(env) - scored;
    }
    finish(c);
}

void pn_infer_start(struct pn_serving *s, struct pn_model_state *m, struct pn_served *v, struct pn_http_request *r) {
    if (!v->can_rank) {
        m->n_refused++;
        pn_answer_fail(r, 501, "this model has no features to rank by");
        return;
    }
    struct pn_call *c = s->n_waiting < PN_MAX_WAITING ? calloc(1, sizeof *c) : NULL;
    if (c == NULL) {
        m->n_busy++;
        pn_answer_fail(r, 503, "too many requests wait: try again later or add a replica");
        return;
    }
    c->serving = s;
    c->model = m;
    c->version = v;
    v->refs++;
    c->request = r;
    c->start_ns = pn_now_ns(s->env);
    if (r->body_bytes <= SMALL_BYTES) {
        compute_now(c);
        return;
    }
    *s->waiting_end = c;
    s->waiting_end = &c->next;
    s->n_waiting++;
    next_call(s);
}

void pn_infer_close(struct pn_serving *s) {
    while (s->waiting != NULL) {
        struct pn_call *c = s->waiting;
        s->waiting = c->next;
        c->result = pn_fail(&c->err, PN_BUSY, "this replica stops");
        finish(c);
    }
    s->waiting_end = &s->waiting;
    s->n_waiting = 0;
}
