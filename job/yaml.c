#include "job/yaml.h"
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void place(struct fy_node *at, int *line, int *column) {
    *line = *column = 0;
    if (at == NULL) return;
    struct fy_token *t = NULL;
    if (fy_node_get_type(at) == FYNT_SCALAR) t = fy_node_get_scalar_token(at);
    if (t == NULL) { /* a mapping or sequence begins where its first scalar does */
        if (fy_node_get_type(at) == FYNT_MAPPING) {
            void *it = NULL;
            struct fy_node_pair *p = fy_node_mapping_iterate(at, &it);
            if (p != NULL) place(fy_node_pair_key(p), line, column);
        } else if (fy_node_get_type(at) == FYNT_SEQUENCE) {
            void *it = NULL;
            struct fy_node *n = fy_node_sequence_iterate(at, &it);
            if (n != NULL) place(n, line, column);
        }
        return;
    }
    const struct fy_mark *m = fy_token_start_mark(t);
    if (m == NULL) return;
    *line = m->line + 1;
    *column = m->column + 1;
}

static void append(struct pn_yaml *y, const char *text, size_t n) {
    if (y->n_report > (64u << 10)) return; /* enough is enough */
    if (y->n_report + n + 1 > y->report_room) {
        size_t room = (y->n_report + n + 1) * 2;
        char *grown = realloc(y->report, room);
        if (grown == NULL) {
            y->no_memory = true;
            return;
        }
        y->report = grown;
        y->report_room = room;
    }
    memcpy(y->report + y->n_report, text, n);
    y->n_report += n;
    y->report[y->n_report] = '\0';
}

void pn_yaml_problem(struct pn_yaml *y, struct fy_node *at, const char *format, ...) {
    int line, column;
    place(at, &line, &column);
    char what[400];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    struct pn_error e;
    if (line > 0) pn_fail(&e, PN_INVALID, "%s:%d:%d: error: %s", y->file, line, column, what);
    else pn_fail(&e, PN_INVALID, "%s: error: %s", y->file, what);
    if (y->n_problems++ == 0) y->first = e;
    append(y, e.text, strlen(e.text));
    append(y, "\n", 1);
    if (line == 0) return;
    const char *p = y->text, *end = y->text + y->n_bytes;
    for (int i = 1; i < line && p < end; i++) {
        const char *next = memchr(p, '\n', (size_t)(end - p));
        p = next == NULL ? end : next + 1;
    }
    const char *stop = memchr(p, '\n', (size_t)(end - p));
    if (stop == NULL) stop = end;
    size_t n = (size_t)(stop - p) > 200 ? 200 : (size_t)(stop - p);
    append(y, "    ", 4);
    append(y, p, n);
    append(y, "\n    ", 5);
    for (int i = 1; i < column && i < 200; i++) append(y, " ", 1);
    append(y, "^\n", 2);
}

static unsigned edits(const char *a, const char *b) {
    size_t n = strlen(a), m = strlen(b);
    if (n > 63 || m > 63) return 99;
    unsigned row[64];
    for (size_t j = 0; j <= m; j++) row[j] = (unsigned)j;
    for (size_t i = 1; i <= n; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= m; j++) {
            unsigned up = row[j], cost = (a[i - 1] | 32) == (b[j - 1] | 32) ? 0u : 1u, best = diagonal + cost;
            if (up + 1 < best) best = up + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = up;
            row[j] = best;
        }
    }
    return row[m];
}

const char *pn_nearest(const char *found, const char *const *names) {
    const char *best = NULL;
    unsigned least = (unsigned)(strlen(found) + 2) / 3 + 1;
    for (; *names != NULL; names++) {
        unsigned e = edits(found, *names);
        if (e < least) {
            least = e;
            best = *names;
        }
    }
    return best;
}

static void join(char *out, size_t room, const char *const *names) {
    size_t n = 0;
    out[0] = '\0';
    for (; *names != NULL && n < room; names++) {
        int k = snprintf(out + n, room - n, "%s%s", n == 0 ? "" : ", ", *names);
        if (k > 0) n += (size_t)k;
    }
}

static bool among(const char *found, const char *const *names) {
    for (; names != NULL && *names != NULL; names++)
        if (strcmp(found, *names) == 0) return true;
    return false;
}

static const char *kind_of(struct fy_node *n) {
    switch (fy_node_get_type(n)) {
    case FYNT_MAPPING: return "a mapping";
    case FYNT_SEQUENCE: return "a list";
    default: return "a single value";
    }
}

/* A plain copy of a scalar's text; false when it is none or holds NUL or is too long. */
static bool scalar(struct fy_node *n, char *out, size_t room) {
    if (n == NULL || fy_node_get_type(n) != FYNT_SCALAR || fy_node_is_alias(n)) return false;
    size_t length = 0;
    const char *text = fy_node_get_scalar(n, &length);
    if (text == NULL) length = 0;
    if (length >= room || (length > 0 && memchr(text, 0, length) != NULL)) return false;
    if (length > 0) memcpy(out, text, length);
    out[length] = '\0';
    return true;
}

bool pn_yaml_keys(struct pn_yaml *y, struct fy_node *map, const char *what, const char *const *known, const char *const *later) {
    char list[300], name[80];
    if (map == NULL || fy_node_get_type(map) != FYNT_MAPPING) {
        join(list, sizeof list, known);
        pn_yaml_problem(y, map, "%s must be a mapping; found %s; allowed keys: %s", what, map == NULL ? "nothing" : kind_of(map), list);
        return false;
    }
    void *it = NULL;
    for (struct fy_node_pair *p; (p = fy_node_mapping_iterate(map, &it)) != NULL;) {
        struct fy_node *key = fy_node_pair_key(p);
        if (!scalar(key, name, sizeof name)) {
            pn_yaml_problem(y, key, "a key of %s must be one short word", what);
        } else if (among(name, known)) {
            continue;
        } else if (among(name, later)) {
            pn_yaml_problem(y, key, "\"%s\" in %s is not available yet in this version; remove it", name, what);
        } else {
            const char *near = pn_nearest(name, known);
            join(list, sizeof list, known);
            pn_yaml_problem(y, key, "unknown key \"%s\" in %s; allowed: %s%s%s%s", name, what, list, near ? "; did you mean \"" : "",
                            near ? near : "", near ? "\"?" : "");
        }
    }
    return true;
}

struct fy_node *pn_yaml_get(struct fy_node *map, const char *key) {
    if (map == NULL || fy_node_get_type(map) != FYNT_MAPPING) return NULL;
    void *it = NULL;
    char name[80];
    for (struct fy_node_pair *p; (p = fy_node_mapping_iterate(map, &it)) != NULL;)
        if (scalar(fy_node_pair_key(p), name, sizeof name) && strcmp(name, key) == 0) return fy_node_pair_value(p);
    return NULL;
}

bool pn_yaml_text(struct pn_yaml *y, struct fy_node *n, const char *what, char *out, size_t room) {
    if (n == NULL) return true;
    if (scalar(n, out, room) && out[0] != '\0') return true;
    pn_yaml_problem(y, n, "%s must be a text of 1 to %zu characters; found %s", what, room - 1,
                    fy_node_get_type(n) == FYNT_SCALAR ? "one that is empty or too long" : kind_of(n));
    return false;
}

static bool number(struct fy_node *n, char *text, size_t room, double *value) {
    if (!scalar(n, text, room) || text[0] == '\0' || strchr(" +\t", text[0]) != NULL) return false;
    char *end;
    *value = strtod(text, &end);
    return *end == '\0' && isfinite(*value) && strpbrk(text, "xX") == NULL;
}

bool pn_yaml_count(struct pn_yaml *y, struct fy_node *n, const char *what, uint64_t low, uint64_t high, uint64_t *out) {
    if (n == NULL) return true;
    char text[64] = "";
    char *end = text;
    errno = 0;
    uint64_t v = 0;
    bool ok = scalar(n, text, sizeof text) && text[0] >= '0' && text[0] <= '9';
    if (ok) v = strtoull(text, &end, 10);
    if (ok && *end == '\0' && errno == 0 && v >= low && v <= high) {
        *out = v;
        return true;
    }
    pn_yaml_problem(y, n, "%s must be a whole number from %llu to %llu; found %s%.40s%s", what, (unsigned long long)low, (unsigned long long)high,
                    text[0] ? "\"" : "", text[0] ? text : kind_of(n), text[0] ? "\"" : "");
    return false;
}

bool pn_yaml_real(struct pn_yaml *y, struct fy_node *n, const char *what, double low, double high, double *out) {
    if (n == NULL) return true;
    char text[64] = "";
    double v;
    if (number(n, text, sizeof text, &v) && v >= low && v <= high) {
        *out = v;
        return true;
    }
    pn_yaml_problem(y, n, "%s must be a number from %g to %g; found %s%.40s%s", what, low, high, text[0] ? "\"" : "", text[0] ? text : kind_of(n),
                    text[0] ? "\"" : "");
    return false;
}

void pn_yaml_real32(struct pn_yaml *y, struct fy_node *n, const char *what, double low, double high, float *out) {
    double v = (double)*out;
    if (pn_yaml_real(y, n, what, low, high, &v)) *out = (float)v;
}

void pn_yaml_count32(struct pn_yaml *y, struct fy_node *n, const char *what, uint64_t low, uint64_t high, uint32_t *out) {
    uint64_t v = *out;
    if (pn_yaml_count(y, n, what, low, high, &v)) *out = (uint32_t)v;
}

bool pn_yaml_truth(struct pn_yaml *y, struct fy_node *n, const char *what, bool *out) {
    static const char *const names[] = {"false", "true", NULL};
    int i = *out;
    if (!pn_yaml_choice(y, n, what, names, NULL, &i)) return false;
    *out = i == 1;
    return true;
}

static bool quantity(struct pn_yaml *y, struct fy_node *n, const char *what, const char *const *units, const double *factors, const char *like,
                     double low, double high, uint64_t *out) {
    if (n == NULL) return true;
    char text[64] = "";
    if (scalar(n, text, sizeof text) && text[0] >= '0' && text[0] <= '9') {
        char *unit;
        double v = strtod(text, &unit);
        for (int i = 0; units[i] != NULL; i++)
            if (strcmp(unit, units[i]) == 0 && v * factors[i] >= low && v * factors[i] <= high) {
                *out = (uint64_t)(v * factors[i]);
                return true;
            }
    }
    pn_yaml_problem(y, n, "%s must be a quantity like %s (from %g to %g in base units); found \"%.40s\"", what, like, low, high, text);
    return false;
}

bool pn_yaml_duration(struct pn_yaml *y, struct fy_node *n, const char *what, uint64_t *out_ms) {
    static const char *const units[] = {"ms", "s", "m", "h", NULL};
    static const double factors[] = {1, 1e3, 6e4, 3.6e6};
    return quantity(y, n, what, units, factors, "500ms, 30s, 10m, 2h", 1, 3.6e9, out_ms);
}

bool pn_yaml_bytes(struct pn_yaml *y, struct fy_node *n, const char *what, uint64_t low, uint64_t high, uint64_t *out) {
    static const char *const units[] = {"", "Ki", "Mi", "Gi", NULL};
    static const double factors[] = {1, 1024, 1048576, 1073741824};
    return quantity(y, n, what, units, factors, "64Ki, 256Mi, 16Gi", (double)low, (double)high, out);
}

bool pn_yaml_choice(struct pn_yaml *y, struct fy_node *n, const char *what, const char *const *names, const char *const *later, int *out) {
    if (n == NULL) return true;
    char text[80] = "", list[300];
    if (scalar(n, text, sizeof text))
        for (int i = 0; names[i] != NULL; i++)
            if (strcmp(text, names[i]) == 0) {
                *out = i;
                return true;
            }
    if (among(text, later)) {
        pn_yaml_problem(y, n, "%s \"%s\" is not available yet in this version", what, text);
        return false;
    }
    join(list, sizeof list, names);
    const char *near = pn_nearest(text, names);
    pn_yaml_problem(y, n, "%s must be one of: %s; found %s%.40s%s%s%s%s", what, list, text[0] ? "\"" : "", text[0] ? text : kind_of(n), text[0] ? "\"" : "",
                    near && text[0] ? "; did you mean \"" : "", near && text[0] ? near : "", near && text[0] ? "\"?" : "");
    return false;
}
