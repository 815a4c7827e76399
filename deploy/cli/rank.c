/* `pinion rank`: one request to a replica. Columns of the user by --set, one row of a CSV a candidate; a title column is kept here. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "deploy/cli/cli.h"

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* Splits a CSV line in place; quotes as in RFC 4180. */
static int split(char *line, char **cells, int most) {
    int n = 0;
    for (char *c = line; n < most; ) {
        char *to = c;
        cells[n++] = c;
        if (*c == '"') {
            for (c++; *c != '\0'; c++) {
                if (*c == '"' && c[1] == '"') c++;
                else if (*c == '"') {
                    c++;
                    break;
                }
                *to++ = *c;
            }
            while (*c != '\0' && *c != ',') c++;
        } else {
            while (*c != '\0' && *c != ',') c++;
            to = c;
        }
        bool more = *c == ',';
        *to = '\0';
        if (!more) break;
        c++;
    }
    return n;
}

static struct json_object *input(const char *name, size_t n, struct json_object *data) {
    struct json_object *o = json_object_new_object(), *shape = json_object_new_array();
    json_object_array_add(shape, json_object_new_uint64(n));
    json_object_array_add(shape, json_object_new_uint64(1));
    pn_json_add_str(o, "name", name);
    pn_json_add(o, "shape", shape);
    pn_json_add_str(o, "datatype", "BYTES");
    pn_json_add(o, "data", data);
    return o;
}

static int by_value(const void *a, const void *b) { return *(const double *)a < *(const double *)b ? -1 : *(const double *)a > *(const double *)b; }

int verb_rank(const struct cli *c) {
    const char *model = cli_option(c, "model", NULL), *file = cli_option(c, "candidates", NULL), *title_name = cli_option(c, "titles", NULL);
    long top = cli_number(c, "top", 10, 1, 100000), repeat = cli_number(c, "repeat", 1, 1, 100000);
    char url[600];
    if (model == NULL || file == NULL) cli_fail(EXIT_USAGE, "pinion rank needs --model M and --candidates FILE.csv (a header line, a row a candidate), and --set column=value for the user");
    const char *serving = cli_option(c, "serving", NULL);
    if (serving == NULL) {
        struct json_object *status = cli_must(c, "GET", "/api/v1/status", NULL), *nodes = pn_json_get(status, "nodes");
        for (size_t i = 0; i < pn_json_length(nodes); i++)
            if (strcmp(pn_json_str(pn_json_at(nodes, i), "role", ""), "serving") == 0 && pn_json_bool(pn_json_at(nodes, i), "alive", false)) serving = pn_json_str(pn_json_at(nodes, i), "http", NULL);
        if (serving == NULL) cli_fail(EXIT_UNREACHABLE, "no serving replica is alive; pinion status shows the nodes");
    }
    size_t n_bytes;
    char *text = cli_read_file(file, &n_bytes), *header[256], *cells[256], *save = NULL;
    if (text == NULL) cli_fail(EXIT_USAGE, "%s: there is no such file", file);
    char *line = strtok_r(text, "\r\n", &save);
    int n_columns = line == NULL ? 0 : split(line, header, 256), title = -1;
    struct json_object *data[256], *titles = json_object_new_array(), *inputs = json_object_new_array();
    for (int k = 0; k < n_columns; k++) {
        data[k] = json_object_new_array();
        if (title_name != NULL && strcmp(header[k], title_name) == 0) title = k;
    }
    size_t n = 0;
    while (n_columns > 0 && (line = strtok_r(NULL, "\r\n", &save)) != NULL) {
        if (split(line, cells, 256) != n_columns) cli_fail(EXIT_REFUSED, "%s: candidate %zu has not %d columns as the header says", file, n + 1, n_columns);
        for (int k = 0; k < n_columns; k++) json_object_array_add(data[k], json_object_new_string(cells[k]));
        json_object_array_add(titles, json_object_new_string(cells[title >= 0 ? title : 0]));
        n++;
    }
    if (n == 0) cli_fail(EXIT_REFUSED, "%s has no candidates", file);
    for (int k = 0; k < n_columns; k++)
        if (k != title) json_object_array_add(inputs, input(header[k], n, data[k]));
    for (char **o = c->options; *o != NULL; o += 2) {
        if (strcmp(o[0], "set") != 0) continue;
        char *equal = strchr(o[1], '='), name[100];
        if (equal == NULL || (size_t)(equal - o[1]) >= sizeof name) cli_fail(EXIT_USAGE, "--set %s: column=value is needed", o[1]);
        snprintf(name, sizeof name, "%.*s", (int)(equal - o[1]), o[1]);
        struct json_object *value = json_object_new_array();
        json_object_array_add(value, json_object_new_string(equal + 1));
        json_object_array_add(inputs, input(name, 1, value));
    }
    struct json_object *request = json_object_new_object(), *parameters = json_object_new_object(), *answer = NULL;
    pn_json_add_u64(parameters, "top_k", (uint64_t)top < n ? (uint64_t)top : n);
    pn_json_add(request, "parameters", parameters);
    pn_json_add(request, "inputs", inputs);
    snprintf(url, sizeof url, "%s/v2/models/%s/infer", serving, model);
    double *times = calloc((size_t)repeat, sizeof *times);
    if (times == NULL) cli_fail(EXIT_FAILED, "no memory");
    for (long i = 0; i < repeat; i++) {
        double begin = now_ms();
        if (answer != NULL) json_object_put(answer);
        int status = cli_http(url, "POST", json_object_get(request), &answer);
        if (status == 0) cli_fail(EXIT_UNREACHABLE, "the replica at %s does not answer", serving);
        if (status != 200) cli_fail(EXIT_REFUSED, "%s", pn_json_str(answer, "error", "the replica refused"));
        times[i] = now_ms() - begin;
    }
    qsort(times, (size_t)repeat, sizeof *times, by_value);
    struct json_object *outputs = pn_json_get(answer, "outputs"), *index = NULL, *score = NULL, *ranked = json_object_new_array();
    for (size_t i = 0; i < pn_json_length(outputs); i++) {
        struct json_object *o = pn_json_at(outputs, i);
        if (strcmp(pn_json_str(o, "name", ""), "index") == 0) index = pn_json_get(o, "data");
        if (strcmp(pn_json_str(o, "name", ""), "score") == 0) score = pn_json_get(o, "data");
    }
    if (!c->json) printf("%s version %s: the best %zu of %zu candidates\n", model, pn_json_str(answer, "model_version", "?"), pn_json_length(index), n);
    for (size_t i = 0; i < pn_json_length(index); i++) {
        size_t at = json_object_get_uint64(pn_json_at(index, i));
        const char *name = json_object_get_string(pn_json_at(titles, at));
        double s = json_object_get_double(pn_json_at(score, i));
        if (!c->json) printf("%3zu. %.4f  %s\n", i + 1, s, name != NULL ? name : "?");
        struct json_object *e = json_object_new_object();
        pn_json_add_str(e, "title", name != NULL ? name : "?");
        pn_json_add_double(e, "score", s);
        json_object_array_add(ranked, e);
    }
    struct json_object *out = json_object_new_object();
    pn_json_add_str(out, "version", pn_json_str(answer, "model_version", "?"));
    pn_json_add_double(out, "rank_ms_p50", times[repeat / 2]);
    pn_json_add(out, "ranked", ranked);
    if (c->json) printf("%s\n", pn_json_text(out));
    else if (repeat > 1) printf("median of %ld requests: %.2f ms\n", repeat, times[repeat / 2]);
    const char *to = cli_option(c, "json", NULL);
    FILE *f = to != NULL ? fopen(to, "w") : NULL;
    if (f != NULL) {
        fprintf(f, "%s\n", pn_json_text(out));
        fclose(f);
    }
    return EXIT_DONE;
}
