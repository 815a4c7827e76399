#include "serving/request.h"
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/json.h"
#include "common/text.h"

#define MAX_TEXT (1u << 30)
#define MAX_INPUTS 1024u

struct datatype { const char *name; enum { BOOLEAN, SIGNED, UNSIGNED, FLOATING, BYTES } kind; size_t n_bytes; };
static const struct datatype datatypes[] = {
    {"INT64", SIGNED, 8}, {"FP32", FLOATING, 4}, {"BYTES", BYTES, 0}, {"INT32", SIGNED, 4}, {"FP64", FLOATING, 8}, {"BOOL", BOOLEAN, 1}, {"INT8", SIGNED, 1},
    {"INT16", SIGNED, 2}, {"UINT8", UNSIGNED, 1}, {"UINT16", UNSIGNED, 2}, {"UINT32", UNSIGNED, 4}, {"UINT64", UNSIGNED, 8},
};

/* One input tensor while its values are read. */
struct tensor {
    struct pn_infer *q;
    const char *name;
    const struct datatype *type;
    size_t n_rows, width, n_seen;     /* shape [n_rows, width] */
    struct pn_values *values;         /* NULL: a column that the model does not read */
    char separator;
    struct pn_error *err;
};

static enum pn_result bad(struct tensor *t, const char *what) { return pn_fail(t->err, PN_INVALID, "input '%s': %s", t->name, what); }

/* The next value as raw text, as a reader of training files would have found it. A row of several is joined by its field's separator. */
static enum pn_result add(struct tensor *t, const char *text, size_t n) {
    struct pn_infer *q = t->q;
    size_t row = t->n_seen / t->width;
    if (t->n_seen++ >= t->n_rows * t->width) return bad(t, "data has more values than the shape says");
    if (t->values == NULL) return PN_OK;
    if (t->n_seen % t->width == 1 || t->width == 1) {
        t->values->offset[row] = (uint32_t)q->n_text;
        t->values->length[row] = 0;
    }
    bool joined = t->values->length[row] > 0 && n > 0;
    if (n > MAX_TEXT || q->n_text + n + 1 > MAX_TEXT) return bad(t, "the request's values are too long");
    if (q->n_text + n + 1 > q->room) {
        size_t room = (q->n_text + n + 1) * 2;
        char *grown = realloc(q->text, room);
        if (grown == NULL) return pn_fail(t->err, PN_NO_MEMORY, "no memory for the request's values");
        q->text = grown;
        q->room = room;
    }
    if (joined) q->text[q->n_text++] = t->separator;
    if (n > 0) memcpy(q->text + q->n_text, text, n);
    q->n_text += n;
    t->values->length[row] += (uint32_t)(n + joined);
    return PN_OK;
}

/* The shortest text that reads back as the same number: 0.1f becomes "0.1", as in the training data. */
static enum pn_result add_real(struct tensor *t, double x, bool single) {
    char text[40];
    int n = 0;
    if (!isfinite(x)) return add(t, "", 0); /* missing */
    for (int digits = single ? 6 : 15; digits <= 17; digits++) {
        n = snprintf(text, sizeof text, "%.*g", digits, x);
        if (single ? strtof(text, NULL) == (float)x : strtod(text, NULL) == x) break;
    }
    return add(t, text, (size_t)n);
}

static enum pn_result add_whole(struct tensor *t, bool negative, uint64_t magnitude) {
    char text[24], *at = text + sizeof text;
    do *--at = (char)('0' + magnitude % 10);
    while ((magnitude /= 10) > 0);
    if (negative) *--at = '-';
    return add(t, at, (size_t)(text + sizeof text - at));
}

static enum pn_result add_signed(struct tensor *t, int64_t v) { return add_whole(t, v < 0, v < 0 ? 0 - (uint64_t)v : (uint64_t)v); }

/* ---- data as JSON: nested or flat ---- */
static enum pn_result add_json(struct tensor *t, struct json_object *o) {
    enum json_type have = json_object_get_type(o);
    if (have == json_type_array) {
        for (size_t i = 0, n = json_object_array_length(o); i < n; i++) {
            enum pn_result r = add_json(t, json_object_array_get_idx(o, i));
            if (r != PN_OK) return r;
        }
        return PN_OK;
    }
    if (have == json_type_null) return add(t, "", 0); /* missing */
    switch (t->type->kind) {
    case BYTES:
        if (have != json_type_string) return bad(t, "datatype BYTES needs strings in data");
        return add(t, json_object_get_string(o), (size_t)json_object_get_string_len(o));
    case BOOLEAN:
        if (have != json_type_boolean) return bad(t, "datatype BOOL needs true or false in data");
        return add(t, json_object_get_boolean(o) ? "1" : "0", 1);
    case FLOATING:
        if (have == json_type_double) return add_real(t, json_object_get_double(o), false);
        if (have != json_type_int) return bad(t, "a floating datatype needs numbers in data");
        break;
    case SIGNED:
    case UNSIGNED:
        if (have != json_type_int) return bad(t, "an integer datatype needs whole numbers in data");
        if (t->type->kind == UNSIGNED && json_object_get_int64(o) < 0) return bad(t, "an unsigned datatype has a negative number in data");
        break;
    }
    int64_t v = json_object_get_int64(o);
    return v < 0 ? add_signed(t, v) : add_whole(t, false, json_object_get_uint64(o));
}

/* ---- data as bytes: little-endian, BYTES elements with a u32 length before each ---- */
static enum pn_result add_binary(struct tensor *t, const uint8_t *data, size_t n_bytes) {
    const size_t n = t->n_rows * t->width, size = t->type->n_bytes;
    enum pn_result r = PN_OK;
    if (t->type->kind == BYTES) {
        size_t at = 0;
        for (size_t i = 0; i < n && r == PN_OK; i++) {
            uint32_t length;
            if (n_bytes - at < 4) return bad(t, "binary data ends before the shape is filled");
            memcpy(&length, data + at, 4);
            at += 4;
            if (length > n_bytes - at) return bad(t, "an element of the binary data is longer than what is there");
            r = add(t, (const char *)data + at, length);
            at += length;
        }
        return r != PN_OK ? r : at == n_bytes ? PN_OK : bad(t, "binary data goes on behind the shape's last element");
    }
    if (n_bytes != n * size) return bad(t, "binary_data_size does not fit shape and datatype");
    for (size_t i = 0; i < n && r == PN_OK; i++) {
        const uint8_t *p = data + i * size;
        uint64_t u = 0;
        memcpy(&u, p, size);
        if (t->type->kind == BOOLEAN) r = add(t, u != 0 ? "1" : "0", 1);
        else if (t->type->kind == UNSIGNED) r = add_whole(t, false, u);
        else if (t->type->kind == SIGNED) r = add_signed(t, (int64_t)(u << (64 - 8 * size)) >> (64 - 8 * size));
        else if (size == 4) {
            float f;
            memcpy(&f, p, 4);
            r = add_real(t, (double)f, true);
        } else {
            double d;
            memcpy(&d, p, 8);
            r = add_real(t, d, false);
        }
    }
    return r;
}

static enum pn_result read_shape(struct tensor *t, struct json_object *shape) {
    size_t n = pn_json_length(shape), sides[2] = {1, 1};
    if (n < 1 || n > 2) return bad(t, "shape must be [candidates, 1] or [candidates, values]");
    for (size_t i = 0; i < n; i++) {
        struct json_object *o = pn_json_at(shape, i);
        int64_t v = json_object_is_type(o, json_type_int) ? json_object_get_int64(o) : -1;
        if (v < 1 || v > (i == 0 ? PN_MAX_CANDIDATES : 4096)) return bad(t, i == 0 ? "shape: 1 to 100000 candidates" : "shape: 1 to 4096 values a candidate");
        sides[i] = (size_t)v;
    }
    t->n_rows = sides[0];
    t->width = sides[1];
    return PN_OK;
}

static enum pn_result read_input(struct pn_infer *q, const struct pn_columns *columns, struct json_object *o, const uint8_t **binary, const uint8_t *end, struct pn_error *err) {
    struct tensor t = {.q = q, .name = pn_json_str(o, "name", NULL), .err = err, .separator = '|'};
    if (t.name == NULL) return pn_fail(err, PN_INVALID, "every entry of inputs needs a name");
    const char *type = pn_json_str(o, "datatype", "");
    for (size_t i = 0; i < sizeof datatypes / sizeof *datatypes; i++)
        if (strcmp(datatypes[i].name, type) == 0) t.type = &datatypes[i];
    if (t.type == NULL) return bad(&t, "datatype must be BYTES, BOOL, INT8 to INT64, UINT8 to UINT64, FP32 or FP64");
    enum pn_result r = read_shape(&t, pn_json_get(o, "shape"));
    if (r != PN_OK) return r;
    for (size_t i = 0; i < columns->n; i++) {
        if (strcmp(columns->names[i], t.name) != 0) continue;
        t.values = &q->candidates.columns[i];
        if (t.values->n > 0) return bad(&t, "stands twice");
        if (t.width > 1 && !pn_field_listed(columns->fields[i])) return bad(&t, "takes one value a candidate: shape [candidates, 1]");
        t.separator = columns->fields[i]->separator;
        t.values->n = t.n_rows;
        t.values->offset = calloc(t.n_rows, sizeof *t.values->offset);
        t.values->length = calloc(t.n_rows, sizeof *t.values->length);
        if (t.values->offset == NULL || t.values->length == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for input '%s'", t.name);
    }
    struct json_object *data = pn_json_get(o, "data"), *size = pn_json_get(pn_json_get(o, "parameters"), "binary_data_size");
    if (size != NULL) {
        uint64_t n = pn_json_u64(pn_json_get(o, "parameters"), "binary_data_size", UINT64_MAX);
        if (data != NULL) return bad(&t, "has both data and binary_data_size");
        if (*binary == NULL) return bad(&t, "binary_data_size without the header Inference-Header-Content-Length");
        if (n > (size_t)(end - *binary)) return bad(&t, "binary_data_size is more than the body holds");
        r = add_binary(&t, *binary, n);
        *binary += n;
    } else {
        if (data == NULL || !json_object_is_type(data, json_type_array)) return bad(&t, "has no data array");
        r = add_json(&t, data);
    }
    if (r == PN_OK && t.n_seen != t.n_rows * t.width) return bad(&t, "data has fewer values than the shape says");
    return r;
}

/* All columns there, and of one length or of one value. */
static enum pn_result check_columns(struct pn_infer *q, const struct pn_columns *columns, struct pn_error *err) {
    char missing[200], all[200];
    size_t n_missing = 0, at_missing = 0, at_all = 0, first = 0;
    for (size_t i = 0; i < columns->n; i++) {
        size_t n = q->candidates.columns[i].n;
        at_all += (size_t)snprintf(all + at_all, sizeof all - at_all, "%s%s", i > 0 ? ", " : "", columns->names[i]);
        if (at_all >= sizeof all) at_all = sizeof all - 1;
        if (n == 0) {
            at_missing += (size_t)snprintf(missing + at_missing, sizeof missing - at_missing, "%s%s", n_missing++ > 0 ? ", " : "", columns->names[i]);
            if (at_missing >= sizeof missing) at_missing = sizeof missing - 1;
        }
        if (n > q->candidates.n_rows) {
            q->candidates.n_rows = n;
            first = i;
        }
    }
    if (n_missing > 0) return pn_fail(err, PN_INVALID, "missing input%s: %s; this model expects: %s", n_missing > 1 ? "s" : "", missing, all);
    for (size_t i = 0; i < columns->n; i++) {
        size_t n = q->candidates.columns[i].n;
        if (n != 1 && n != q->candidates.n_rows)
            return pn_fail(err, PN_INVALID, "input '%s' has %zu candidates, '%s' has %zu: give all the same number, or 1 for a value that all share", columns->names[i], n,
                           columns->names[first], q->candidates.n_rows);
    }
    return PN_OK;
}

static enum pn_result read_outputs(struct pn_infer *q, struct json_object *o, struct pn_error *err) {
    struct json_object *parameters = pn_json_get(o, "parameters"), *k = pn_json_get(parameters, "top_k"), *outputs = pn_json_get(o, "outputs");
    if (parameters != NULL && !json_object_is_type(parameters, json_type_object)) return pn_fail(err, PN_INVALID, "parameters must be an object");
    if (k != NULL) {
        if (!json_object_is_type(k, json_type_int) || json_object_get_int64(k) < 1) return pn_fail(err, PN_INVALID, "parameters.top_k must be a whole number of 1 or more");
        uint64_t n = json_object_get_uint64(k);
        q->top_k = n > q->candidates.n_rows ? q->candidates.n_rows : (size_t)n;
    }
    bool binary = pn_json_bool(parameters, "binary_data_output", false);
    q->score.binary = q->index.binary = binary;
    if (outputs != NULL && !json_object_is_type(outputs, json_type_array)) return pn_fail(err, PN_INVALID, "outputs must be an array");
    if (pn_json_length(outputs) == 0) {
        q->score.wanted = true;
        q->index.wanted = q->top_k > 0;
    }
    for (size_t i = 0; i < pn_json_length(outputs); i++) {
        struct json_object *e = pn_json_at(outputs, i);
        const char *name = pn_json_str(e, "name", "");
        bool is_score = strcmp(name, "score") == 0;
        if (!is_score && (strcmp(name, "index") != 0 || q->top_k == 0))
            return pn_fail(err, PN_INVALID, "output '%.60s': there is only score, and with the parameter top_k also index", name);
        bool b = pn_json_bool(pn_json_get(e, "parameters"), "binary_data", binary);
        if (is_score) q->score.wanted = true, q->score.binary = b;
        else q->index.wanted = true, q->index.binary = b;
    }
    return PN_OK;
}

enum pn_result pn_infer_parse(struct pn_infer *q, const struct pn_columns *columns, const char *header_length, const uint8_t *body, size_t n_bytes, struct pn_error *err) {
    size_t n_json = n_bytes;
    memset(q, 0, sizeof *q);
    if (n_bytes == 0) return pn_fail(err, PN_INVALID, "the body is empty: it needs \"inputs\"");
    if (n_bytes >= 2 && body[0] == 0x1f && body[1] == 0x8b) return pn_fail(err, PN_INVALID, "compressed bodies are not accepted: send it without Content-Encoding");
    if (header_length != NULL) {
        char *end;
        errno = 0;
        unsigned long long v = strtoull(header_length, &end, 10);
        if (header_length[0] < '0' || header_length[0] > '9' || *end != '\0' || errno != 0 || v > n_bytes)
            return pn_fail(err, PN_INVALID, "Inference-Header-Content-Length must be the bytes of JSON at the start of the body, which has %zu", n_bytes);
        if (v == 0) return pn_fail(err, PN_INVALID, "a raw binary request (Inference-Header-Content-Length: 0) is not accepted: send the JSON part too");
        n_json = (size_t)v;
    }
    struct json_object *o = pn_json_parse((const char *)body, n_json, err), *inputs = pn_json_get(o, "inputs");
    if (o == NULL) return PN_INVALID;
    const uint8_t *binary = header_length != NULL ? body + n_json : NULL, *end = body + n_bytes;
    enum pn_result r = PN_OK;
    size_t n = pn_json_length(inputs);
    if (!json_object_is_type(o, json_type_object) || n == 0) r = pn_fail(err, PN_INVALID, "the body needs \"inputs\": an array of {name, shape, datatype, data}");
    else if (n > MAX_INPUTS) r = pn_fail(err, PN_INVALID, "%zu inputs are too many", n);
    for (size_t i = 0; r == PN_OK && i < n; i++) r = read_input(q, columns, pn_json_at(inputs, i), &binary, end, err);
    if (r == PN_OK && binary != NULL && binary != end) r = pn_fail(err, PN_INVALID, "%zu bytes of binary data belong to no input", (size_t)(end - binary));
    if (r == PN_OK) r = check_columns(q, columns, err);
    if (r == PN_OK) r = read_outputs(q, o, err);
    struct json_object *id = pn_json_get(o, "id");
    if (r == PN_OK && id != NULL) {
        if (!json_object_is_type(id, json_type_string) || json_object_get_string_len(id) > 1000) r = pn_fail(err, PN_INVALID, "id must be a text of at most 1000 bytes");
        else if ((q->id = strdup(json_object_get_string(id))) == NULL) r = pn_fail(err, PN_NO_MEMORY, "no memory for the request");
        q->has_id = q->id != NULL;
    }
    json_object_put(o);
    q->candidates.text = q->text != NULL ? q->text : "";
    return r;
}

void pn_infer_free(struct pn_infer *q) {
    for (size_t i = 0; i < PN_MAX_FIELDS; i++) {
        free(q->candidates.columns[i].offset);
        free(q->candidates.columns[i].length);
    }
    free(q->text);
    free(q->id);
}

/* ---- the answer ---- */

static void put_head(struct pn_text *t, const struct pn_infer *q, const char *name, const char *type, size_t n, bool binary, size_t *n_outputs) {
    if ((*n_outputs)++ > 0) pn_text_add(t, ",");
    pn_text_add(t, "{\"name\":\"%s\",\"datatype\":\"%s\",\"shape\":[%zu%s],", name, type, n, q->top_k > 0 ? "" : ",1");
    if (binary) pn_text_add(t, "\"parameters\":{\"binary_data_size\":%zu}}", n * 4);
    else pn_text_add(t, "\"data\":[");
}

enum pn_result pn_infer_render(const struct pn_infer *q, const char *model, uint64_t version, const float *scores, char **body, size_t *n_bytes, size_t *json_bytes) {
    const size_t n = q->top_k > 0 ? q->top_k : q->candidates.n_rows;
    struct pn_text t = {0};
    uint32_t *best = NULL;
    size_t n_outputs = 0;
    if (q->top_k > 0) {
        best = malloc(n * sizeof *best);
        if (best == NULL) return PN_NO_MEMORY;
        pn_top_k(scores, q->candidates.n_rows, n, best);
    }
    pn_text_add(&t, "{\"model_name\":");
    pn_text_quoted(&t, model);
    pn_text_add(&t, ",\"model_version\":\"%" PRIu64 "\"", version);
    if (q->has_id) {
        pn_text_add(&t, ",\"id\":");
        pn_text_quoted(&t, q->id);
    }
    pn_text_add(&t, ",\"outputs\":[");
    if (q->index.wanted) {
        put_head(&t, q, "index", "INT32", n, q->index.binary, &n_outputs);
        for (size_t i = 0; i < n && !q->index.binary; i++) pn_text_add(&t, "%s%u", i > 0 ? "," : "", best[i]);
        if (!q->index.binary) pn_text_add(&t, "]}");
    }
    if (q->score.wanted) {
        put_head(&t, q, "score", "FP32", n, q->score.binary, &n_outputs);
        for (size_t i = 0; i < n && !q->score.binary; i++) pn_text_add(&t, "%s%.9g", i > 0 ? "," : "", (double)scores[best != NULL ? best[i] : i]);
        if (!q->score.binary) pn_text_add(&t, "]}");
    }
    pn_text_add(&t, "]}");
    bool any_binary = (q->index.wanted && q->index.binary) || (q->score.wanted && q->score.binary);
    *json_bytes = any_binary ? t.n : 0;
    if (q->index.wanted && q->index.binary) pn_text_bytes(&t, best, n * 4);
    if (q->score.wanted && q->score.binary)
        for (size_t i = 0; i < n; i++) pn_text_bytes(&t, &scores[best != NULL ? best[i] : i], 4);
    free(best);
    if (t.failed) {
        free(t.text);
        return PN_NO_MEMORY;
    }
    *body = t.text;
    *n_bytes = t.n;
    return PN_OK;
}
