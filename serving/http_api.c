/* The Open Inference Protocol v2 over HTTP: which path asks for what. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "common/text.h"
#include "serving/internal.h"

enum { MAX_PARTS = 8 };

static void answer_text(struct pn_http_request *r, const char *type, struct pn_text *t) {
    if (t->failed) pn_answer_fail(r, 503, "no memory for the answer");
    else r->answer(r, 200, type, NULL, t->text, t->n);
    free(t->text);
}
static void answer_json(struct pn_http_request *r, struct pn_text *t) { answer_text(r, "application/json", t); }

static bool is_get(const struct pn_http_request *r) { return strcmp(r->method, "GET") == 0 || strcmp(r->method, "HEAD") == 0; }

static void wrong_method(struct pn_http_request *r, const char *right) {
    struct pn_text t = {0};
    pn_text_add(&t, "%.20s is not for this path: use %s", r->method, right);
    pn_text_bytes(&t, "", 1);
    pn_answer_fail(r, 405, t.failed ? "use another method" : t.text);
    free(t.text);
}

static void not_found(struct pn_serving *s, struct pn_http_request *r, const char *what, const char *name) {
    struct pn_text t = {0};
    s->n_not_found++;
    pn_text_add(&t, "%s '%.200s'", what, name);
    pn_text_bytes(&t, "", 1);
    pn_answer_fail(r, 404, t.failed ? what : t.text);
    free(t.text);
}

static void server_metadata(const struct pn_serving *s, struct pn_http_request *r) {
    struct pn_text t = {0};
    pn_text_add(&t, "{\"name\":");
    pn_text_quoted(&t, s->options.name[0] ? s->options.name : "pinion-serve");
    pn_text_add(&t, ",\"version\":\"0.1.0\",\"extensions\":[\"binary_tensor_data\",\"model_repository\",\"model_configuration\",\"statistics\",\"parameters\"]}");
    answer_json(r, &t);
}

static void health(const struct pn_serving *s, struct pn_http_request *r, const char *what) {
    struct pn_error why = {""};
    struct pn_text t = {0};
    if (strcmp(what, "ready") == 0 && !pn_serving_ready(s, &why)) {
        pn_answer_fail(r, 503, why.text);
        return;
    }
    pn_text_add(&t, "{\"%s\":true}", what);
    answer_json(r, &t);
}

static void repository_index(struct pn_serving *s, struct pn_http_request *r) {
    struct pn_error err = {""};
    struct pn_text t = {0};
    bool ready_only = false;
    if (r->body_bytes > 0) {
        struct json_object *o = pn_json_parse((const char *)r->body, r->body_bytes, &err);
        if (o == NULL) {
            pn_answer_fail(r, 400, err.text);
            return;
        }
        ready_only = pn_json_bool(o, "ready", false);
        json_object_put(o);
    }
    pn_report_index(s, ready_only, &t);
    answer_json(r, &t);
}

/* /v2/models/M[/versions/V][/ready|config|stats|infer]; part[0] is M. */
static void model_path(struct pn_serving *s, struct pn_http_request *r, char **part, size_t n) {
    struct pn_model_state *m = pn_model_of(s, part[0]);
    if (m == NULL || !m->planned) {
        not_found(s, r, "there is no model", part[0]);
        return;
    }
    struct pn_served *v = m->active;
    bool versioned = n >= 3 && strcmp(part[1], "versions") == 0;
    if (versioned) {
        char *end;
        uint64_t number = strtoull(part[2], &end, 10);
        v = part[2][0] >= '0' && part[2][0] <= '9' && *end == '\0' ? pn_served_of(m, number) : NULL;
        if (v == NULL) {
            not_found(s, r, "this model has no loaded version", part[2]);
            return;
        }
        part += 2;
        n -= 2;
    }
    const char *verb = n == 1 ? "" : part[1];
    bool infer = strcmp(verb, "infer") == 0;
    if (n > 2 || (n == 2 && !infer && strcmp(verb, "ready") != 0 && strcmp(verb, "config") != 0 && strcmp(verb, "stats") != 0)) {
        not_found(s, r, "a model has ready, config, stats and infer, not", part[n > 2 ? 2 : 1]);
        return;
    }
    if (infer ? strcmp(r->method, "POST") != 0 : !is_get(r)) {
        wrong_method(r, infer ? "POST" : "GET");
        return;
    }
    if (v == NULL) {
        m->n_busy += infer;
        pn_answer_fail(r, 503, m->failed_version != 0 ? m->failed_error : "this model is loading");
        return;
    }
    struct pn_text t = {0};
    if (infer) {
        pn_infer_start(s, m, v, r);
        return;
    }
    if (strcmp(verb, "ready") == 0) {
        pn_text_add(&t, "{\"name\":");
        pn_text_quoted(&t, m->name);
        pn_text_add(&t, ",\"ready\":true}");
    } else if (strcmp(verb, "config") == 0) {
        pn_report_config(m, v, &t);
    } else if (strcmp(verb, "stats") == 0) {
        pn_report_stats(s, m, versioned ? v : NULL, &t);
    } else {
        pn_report_metadata(m, v, &t);
    }
    answer_json(r, &t);
}

/* The parts of a path behind "v2", wherever it is mounted; the text is cut up. */
static size_t split(char *path, char **parts) {
    size_t n = 0;
    for (char *save = NULL, *p = strtok_r(path, "/", &save); p != NULL && n <= MAX_PARTS; p = strtok_r(NULL, "/", &save)) parts[n++] = p;
    return n;
}

void pn_serving_http(void *core, struct pn_http_request *r) {
    struct pn_serving *s = core;
    char *path = strdup(r->path), *parts[MAX_PARTS + 1];
    if (path == NULL) {
        pn_answer_fail(r, 503, "no memory for the request");
        return;
    }
    size_t n = split(path, parts), first = 0;
    while (first < n && strcmp(parts[first], "v2") != 0) first++;
    char **part = parts + first + 1;
    size_t left = first < n ? n - first - 1 : 0;
    struct pn_text t = {0};
    bool one = first == n && n == 1;
    if (n > MAX_PARTS) {
        not_found(s, r, "there is nothing at", r->path);
    } else if (one && strcmp(parts[0], "metrics") == 0) {
        pn_report_metrics(s, &t);
        answer_text(r, "text/plain; version=0.0.4", &t);
    } else if (one && strcmp(parts[0], "health") == 0) {
        pn_text_add(&t, "{\"ready\":%s}", pn_serving_ready(s, NULL) ? "true" : "false");
        answer_json(r, &t);
    } else if (first == n) {
        not_found(s, r, "this is an Open Inference Protocol server: see /v2 and /metrics; there is nothing at", r->path);
    } else if (left == 0) {
        if (is_get(r)) server_metadata(s, r);
        else wrong_method(r, "GET");
    } else if (left == 2 && strcmp(part[0], "health") == 0 && (strcmp(part[1], "live") == 0 || strcmp(part[1], "ready") == 0)) {
        if (is_get(r)) health(s, r, part[1]);
        else wrong_method(r, "GET");
    } else if (left == 2 && strcmp(part[0], "models") == 0 && strcmp(part[1], "stats") == 0 && pn_model_of(s, "stats") == NULL) {
        if (is_get(r)) {
            pn_report_stats(s, NULL, NULL, &t);
            answer_json(r, &t);
        } else {
            wrong_method(r, "GET");
        }
    } else if (left >= 2 && strcmp(part[0], "models") == 0) {
        model_path(s, r, part + 1, left - 1);
    } else if (left == 2 && strcmp(part[0], "repository") == 0 && strcmp(part[1], "index") == 0) {
        if (strcmp(r->method, "POST") == 0) repository_index(s, r);
        else wrong_method(r, "POST");
    } else if (left == 4 && strcmp(part[0], "repository") == 0 && strcmp(part[1], "models") == 0) {
        pn_answer_fail(r, 501, "versions are activated by the coordinator: pinion publish, pinion rollback");
    } else {
        not_found(s, r, "there is nothing at", r->path);
    }
    free(path);
}
