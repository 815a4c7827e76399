#include "common/json.h"
#include <limits.h>
#include <string.h>

struct json_object *pn_json_parse(const char *text, size_t n_bytes, struct pn_error *err) {
    if (n_bytes > INT_MAX) {
        pn_fail(err, PN_INVALID, "JSON text of %zu bytes is too long", n_bytes);
        return NULL;
    }
    struct json_tokener *tok = json_tokener_new_ex(24);
    if (tok == NULL) {
        pn_fail(err, PN_NO_MEMORY, "no memory to read JSON");
        return NULL;
    }
    json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    struct json_object *o = json_tokener_parse_ex(tok, text, (int)n_bytes);
    enum json_tokener_error e = json_tokener_get_error(tok);
    if (e == json_tokener_continue) { /* a bare number or word ends only with the text: a NUL tells so */
        o = json_tokener_parse_ex(tok, "", -1);
        e = json_tokener_get_error(tok);
    } else if (e == json_tokener_success) {
        for (size_t i = json_tokener_get_parse_end(tok); i < n_bytes; i++)
            if (strchr(" \t\r\n", text[i]) == NULL || text[i] == '\0') {
                json_object_put(o);
                o = NULL;
                pn_fail(err, PN_INVALID, "JSON: something stands behind the value, at byte %zu", i);
                json_tokener_free(tok);
                return NULL;
            }
    }
    if (e != json_tokener_success) {
        pn_fail(err, PN_INVALID, "JSON: %s at byte %zu", json_tokener_error_desc(e), json_tokener_get_parse_end(tok));
        if (o != NULL) json_object_put(o);
        o = NULL;
    } else if (o == NULL) {
        pn_fail(err, PN_INVALID, "JSON: null where a value is needed");
    }
    json_tokener_free(tok);
    return o;
}

struct json_object *pn_json_get(struct json_object *o, const char *key) {
    struct json_object *v = NULL;
    if (o == NULL || !json_object_is_type(o, json_type_object)) return NULL;
    return json_object_object_get_ex(o, key, &v) ? v : NULL;
}

uint64_t pn_json_u64(struct json_object *o, const char *key, uint64_t otherwise) {
    struct json_object *v = pn_json_get(o, key);
    if (v == NULL || !json_object_is_type(v, json_type_int)) return otherwise;
    /* json-c keeps numbers above INT64_MAX as unsigned; get_uint64 gives 0 for negative ones. */
    return json_object_get_int64(v) < 0 ? otherwise : json_object_get_uint64(v);
}

double pn_json_double(struct json_object *o, const char *key, double otherwise) {
    struct json_object *v = pn_json_get(o, key);
    if (v == NULL || !(json_object_is_type(v, json_type_double) || json_object_is_type(v, json_type_int))) return otherwise;
    return json_object_get_double(v);
}

bool pn_json_bool(struct json_object *o, const char *key, bool otherwise) {
    struct json_object *v = pn_json_get(o, key);
    return v != NULL && json_object_is_type(v, json_type_boolean) ? json_object_get_boolean(v) : otherwise;
}

const char *pn_json_str(struct json_object *o, const char *key, const char *otherwise) {
    struct json_object *v = pn_json_get(o, key);
    return v != NULL && json_object_is_type(v, json_type_string) ? json_object_get_string(v) : otherwise;
}

size_t pn_json_length(struct json_object *array) {
    return array != NULL && json_object_is_type(array, json_type_array) ? json_object_array_length(array) : 0;
}

struct json_object *pn_json_at(struct json_object *array, size_t i) {
    return i < pn_json_length(array) ? json_object_array_get_idx(array, i) : NULL;
}

void pn_json_add_u64(struct json_object *o, const char *key, uint64_t v) { json_object_object_add(o, key, json_object_new_uint64(v)); }
void pn_json_add_double(struct json_object *o, const char *key, double v) {
    /* JSON knows neither NaN nor infinity. */
    bool finite = v - v == 0.0;
    json_object_object_add(o, key, finite ? json_object_new_double(v) : NULL);
}
void pn_json_add_bool(struct json_object *o, const char *key, bool v) { json_object_object_add(o, key, json_object_new_boolean(v)); }
void pn_json_add_str(struct json_object *o, const char *key, const char *v) { json_object_object_add(o, key, json_object_new_string(v)); }
void pn_json_add(struct json_object *o, const char *key, struct json_object *v) { json_object_object_add(o, key, v); }

const char *pn_json_text(struct json_object *o) {
    return json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
}

struct pn_msg *pn_control_write(struct pn_env *env, enum pn_kind kind, uint64_t epoch, uint64_t revision, struct json_object *o) {
    const char *text = pn_json_text(o);
    size_t n = strlen(text);
    struct pn_writer w;
    pn_write_start(&w, kind, epoch, revision);
    pn_write_u64(&w, "bytes", n);
    uint8_t *body;
    struct pn_msg *m = pn_write_finish(&w, env, pn_pad8(n), &body);
    if (m == NULL) return NULL;
    memcpy(body, text, n);
    memset(body + n, 0, pn_pad8(n) - n);
    pn_msg_seal(m);
    return m;
}

struct json_object *pn_control_read(const struct pn_frame *f, struct pn_error *err) {
    uint64_t n;
    if (!pn_frame_u64(f, "bytes", &n) || n > f->body_bytes) {
        pn_fail(err, PN_CORRUPT, "control message without its text");
        return NULL;
    }
    struct json_object *o = pn_json_parse((const char *)f->body, n, err);
    if (o != NULL && !json_object_is_type(o, json_type_object)) {
        json_object_put(o);
        pn_fail(err, PN_INVALID, "control message is no JSON object");
        return NULL;
    }
    return o;
}
