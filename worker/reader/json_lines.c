/* JSON lines: one object a line, {"user": "u7", "hour": 13, "tags": ["a", "b"], "click": 1}; the columns are those that the job declares. A number is taken as it is
 * written; true and false are 1 and 0; a list's values are joined by '|'; null and a key that is not there are missing; other keys are passed over. */
#include <stdlib.h>
#include <string.h>
#include "common/json.h"
#include "worker/reader/internal.h"

bool pn_json_columns(struct pn_reader *r) {
    char *names = strdup(r->data.columns), *next = names;
    r->name_text = names;
    size_t n = 1;
    for (const char *c = r->data.columns; *c; c++) n += *c == ',';
    r->names = calloc(n, sizeof *r->names);
    if (names == NULL || r->names == NULL) return false;
    for (char *name; (name = strsep(&next, ",")) != NULL;) r->names[r->n_names++] = name;
    return true;
}

/* A scalar's text. Its bytes live as long as o. False: it is none. */
static bool scalar(struct json_object *o, const char **text, size_t *n) {
    switch (json_object_get_type(o)) {
    case json_type_null: *text = ""; *n = 0; return true;
    case json_type_boolean: *text = json_object_get_boolean(o) ? "1" : "0"; *n = 1; return true;
    case json_type_string: *text = json_object_get_string(o); *n = (size_t)json_object_get_string_len(o); return true;
    case json_type_int:
    case json_type_double: *text = json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN); *n = strlen(*text); return true;
    default: return false;
    }
}

static bool field(struct pn_reader *r, uint64_t line, const char *name, struct json_object *o) {
    const char *text;
    size_t n;
    if (scalar(o, &text, &n)) return pn_row_field(r, text, n);
    if (!json_object_is_type(o, json_type_array)) return pn_row_bad(r, line, "\"%.60s\" is an object; a column's value is a string, a number, true, false, null or a list of these", name);
    struct pn_text joined = {0};
    bool good = true;
    for (size_t i = 0; good && i < json_object_array_length(o); i++) {
        if (!scalar(json_object_array_get_idx(o, i), &text, &n)) good = pn_row_bad(r, line, "the list \"%.60s\" holds something else than strings and numbers", name);
        else if ((i > 0 && !pn_text_bytes(&joined, "|", 1)) || !pn_text_bytes(&joined, text, n)) good = pn_reader_no_memory(r);
    }
    good = good && pn_row_field(r, joined.text != NULL ? joined.text : "", joined.n);
    free(joined.text);
    return good;
}

bool pn_json_row(struct pn_reader *r, const struct pn_record *record) {
    struct pn_error why = {""};
    struct json_object *o = pn_json_parse(record->text, record->n_bytes, &why);
    bool good = o != NULL || pn_row_bad(r, record->line, "no JSON: %.150s", why.text);
    if (good && !json_object_is_type(o, json_type_object)) good = pn_row_bad(r, record->line, "found no JSON object; a row is {\"column\": value, ...}");
    for (size_t c = 0; good && c < r->n_names; c++) good = field(r, record->line, r->names[c], pn_json_get(o, r->names[c]));
    const char *text = "";
    size_t n = 0;
    float label = 0;
    if (good && !scalar(pn_json_get(o, r->data.label), &text, &n)) n = 0;
    if (good && n == 0) good = pn_row_bad(r, record->line, "there is no label \"%.60s\"", r->data.label);
    good = good && pn_row_label(r, record->line, text, n, &label) && pn_row_end(r, label);
    json_object_put(o);
    return good;
}
