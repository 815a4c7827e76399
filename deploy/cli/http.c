#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "deploy/cli/cli.h"

struct text { char *data; size_t n; };

static size_t collect(char *data, size_t size, size_t n, void *ctx) {
    struct text *t = ctx;
    char *grown = realloc(t->data, t->n + size * n + 1);
    if (grown == NULL) return 0;
    memcpy(grown + t->n, data, size * n);
    t->data = grown;
    t->n += size * n;
    t->data[t->n] = '\0';
    return size * n;
}

int cli_http(const char *url, const char *method, struct json_object *body, struct json_object **answer) {
    CURL *curl = curl_easy_init();
    struct text t = {0};
    long status = 0;
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    headers = curl_slist_append(headers, "Expect:");
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, collect);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &t);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, 300L);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, 5L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    if (strcmp(method, "POST") == 0) curl_easy_setopt(curl, CURLOPT_COPYPOSTFIELDS, body != NULL ? pn_json_text(body) : "{}");
    if (curl_easy_perform(curl) == CURLE_OK) curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    if (answer != NULL) *answer = t.n > 0 ? pn_json_parse(t.data, t.n, NULL) : NULL;
    free(t.data);
    if (body != NULL) json_object_put(body);
    return (int)status;
}

char *cli_read_file(const char *path, size_t *n) {
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    if (f == NULL) return NULL;
    struct text t = {0};
    char part[65536];
    size_t got;
    while ((got = fread(part, 1, sizeof part, f)) > 0)
        if (collect(part, 1, got, &t) == 0) break;
    if (f != stdin) fclose(f);
    *n = t.n;
    return t.data != NULL ? t.data : calloc(1, 1);
}

struct json_object *cli_read_json(const char *path) {
    size_t n;
    char *text = cli_read_file(path, &n);
    struct json_object *o = text != NULL ? pn_json_parse(text, n, NULL) : NULL;
    free(text);
    return o;
}

const char *cli_coordinator(const struct cli *c) {
    static char url[200];
    if (c->coordinator != NULL && c->coordinator[0] != '\0') {
        snprintf(url, sizeof url, "%s", c->coordinator);
        return url;
    }
    char path[600];
    snprintf(path, sizeof path, "%s/cluster.json", c->dir);
    struct json_object *o = cli_read_json(path);
    const char *found = pn_json_str(pn_json_get(o, "coordinator"), "http", NULL);
    if (found == NULL) cli_fail(EXIT_UNREACHABLE, "no cluster: %s is not there; start one with `pinion up --local --dir %s` or give --coordinator URL", path, c->dir);
    snprintf(url, sizeof url, "%s", found);
    json_object_put(o);
    return url;
}

int cli_ask(const struct cli *c, const char *method, const char *path, struct json_object *body, struct json_object **answer) {
    char url[600];
    snprintf(url, sizeof url, "%s%s", cli_coordinator(c), path);
    int status = cli_http(url, method, body, answer);
    if (status == 0) cli_fail(EXIT_UNREACHABLE, "the coordinator at %s does not answer; `pinion up` starts a cluster, its log is under DIR/logs", cli_coordinator(c));
    return status;
}

struct json_object *cli_must(const struct cli *c, const char *method, const char *path, struct json_object *body) {
    struct json_object *answer = NULL;
    int status = cli_ask(c, method, path, body, &answer);
    if (status / 100 != 2) {
        const char *report = pn_json_str(answer, "report", NULL);
        if (report != NULL && report[0] != '\0') {
            fputs(report, stderr);
            exit(EXIT_REFUSED);
        }
        cli_fail(EXIT_REFUSED, "%s", pn_json_str(answer, "error", "refused"));
    }
    return answer;
}
