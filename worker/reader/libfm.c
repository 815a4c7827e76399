/* libFM and LIBSVM lines, `label id:value id:value ...`, and negatives drawn for their positive rows.
 *
 * A column is one of these:
 *   all ids   no columns are named: a line's ids are the column "features", joined by '|', for a field of type multi. A value other than 1 goes along,
 *             as id:value, which a weighted field reads; one that is 0 is not there.
 *   by id     ID=NAME: the column is that id's value, 0 where the line has none. Ids without a name are the column "features" as above.
 *   by place  NAME: the place of a pair on the line says whose it is, and the id is the value of the column (a one-hot coding: values are 1, or 0 for "not there").
 *
 * Negatives: behind each positive row come rows that differ from it in one column (the item), whose value is drawn uniformly from all values that
 * the positive rows of the `seen` files have in it, but for those that they have together with this row's group (the user). What is drawn
 * is a function of (seed, line, number of the negative), and of the epoch when they are to be redrawn: the same on every producer and after a restart. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "worker/reader/internal.h"

#define MOST_TRIES 10000u /* a group that has nearly all values: beyond, the data is not what sampling is for */

bool pn_libfm_columns(struct pn_reader *r) {
    const char *text = r->data.columns[0] != '\0' ? r->data.columns : PN_LIBFM_IDS;
    const bool by_id = pn_data_by_id(&r->data);
    size_t n = 1, i = 0;
    for (const char *p = text; *p; p++) n += *p == ',';
    r->name_text = strdup(text);
    r->names = calloc(n + by_id, sizeof(*r->names));
    if (by_id) r->ids = calloc(n, sizeof(*r->ids));
    if (!r->name_text || !r->names || (by_id && !r->ids)) return false;
    r->n_names = n + by_id;
    if (by_id) r->names[n] = PN_LIBFM_IDS;
    for (char *p = r->name_text; p; i++) {
        if (by_id) {
            char *equals = strchr(p, '=');
            *equals = '\0';
            r->ids[i].id = p;
            p = equals + 1;
        }
        r->names[i] = p;
        p = strchr(p, ',');
        if (p) *p++ = '\0';
        if (strcmp(r->names[i], r->data.negatives.column) == 0) r->negatives.i_column = i;
        if (strcmp(r->names[i], r->data.negatives.group) == 0) r->negatives.i_group = i;
    }
    return true;
}

struct pair { const char *id, *value; size_t n_id, n_value; double x; };

static const char *blank_end(const char *p, const char *end) {
    while (p < end && (*p == ' ' || *p == '\t')) p++;
    return p;
}
static const char *word_end(const char *p, const char *end) {
    while (p < end && *p != ' ' && *p != '\t') p++;
    return p;
}

/* The pair at *at, which moves behind it. 1: here is one; 0: the line is over (or its comment begins); -1: bad, said. */
static int next_pair(struct pn_reader *r, const struct pn_record *record, const char **at, struct pair *pair) {
    const char *end = record->text + record->n_bytes, *p = blank_end(*at, end), *stop = word_end(p, end);
    *at = stop;
    if (p == end || *p == '#') return 0;
    const char *colon = p;
    while (colon < stop && *colon >= '0' && *colon <= '9') colon++;
    const char *value = colon + 1;
    const size_t n = stop > value ? (size_t)(stop - value) : 0;
    if (colon == p || colon == stop || *colon != ':' || n == 0 || n >= 32) {
        pn_row_bad(r, record->line, "\"%.*s\" is no id:value", stop - p < 40 ? (int)(stop - p) : 40, p);
        return -1;
    }
    double x = 1;
    if (n != 1 || *value != '1') {
        char text[32], *last;
        memcpy(text, value, n);
        text[n] = '\0';
        x = strtod(text, &last);
        if (last != text + n || !isfinite((float)x)) {
            pn_row_bad(r, record->line, "\"%.*s\": the value is no number", stop - p < 40 ? (int)(stop - p) : 40, p);
            return -1;
        }
    }
    *pair = (struct pair){p, value, (size_t)(colon - p), n, x};
    return 1;
}

/* A pair whose value nobody reads. */
static bool one_hot(struct pn_reader *r, const struct pn_record *record, const struct pair *pair) {
    const int n = pair->n_id + pair->n_value < 40 ? (int)(pair->n_id + 1 + pair->n_value) : 40;
    return pair->x == 0 || pair->x == 1 ||
           pn_row_bad(r, record->line,
                      "\"%.*s\": a value other than 0 and 1 is read by a feature of type multi with weighted: true (column " PN_LIBFM_IDS "), or from a column by id, such as %.*s=NAME",
                      n, pair->id, pair->n_id < 20 ? (int)pair->n_id : 20, pair->id);
}

/* One more of the ids that are the column "features". */
static bool join(struct pn_reader *r, const struct pn_record *record, const struct pair *pair, struct pn_text *joined) {
    if (!r->data.weighted && !one_hot(r, record, pair)) return false;
    if (pair->x == 0) return true;
    const size_t n = pair->x == 1 ? pair->n_id : pair->n_id + 1 + pair->n_value;
    return ((joined->n == 0 || pn_text_bytes(joined, "|", 1)) && pn_text_bytes(joined, pair->id, n)) || pn_reader_no_memory(r);
}

static const char *label_of(const struct pn_record *record, size_t *n) {
    const char *end = record->text + record->n_bytes, *p = blank_end(record->text, end);
    *n = (size_t)(word_end(p, end) - p);
    return p;
}

static bool by_place(struct pn_reader *r, const struct pn_record *record, const char *at) {
    struct pair pair;
    size_t i = 0;
    for (int there; (there = next_pair(r, record, &at, &pair)) != 0; i++)
        if (there < 0 || !one_hot(r, record, &pair) || (i < r->n_names && !pn_row_field(r, pair.id, pair.x != 0 ? pair.n_id : 0))) return false;
    return i == r->n_names || pn_row_bad(r, record->line, "found %zu id:value pairs, expected %zu (columns)", i, r->n_names);
}

/* The columns by id, and behind them all others. Ids of a line rise, mostly, as do those of the columns: the next is looked for from the last on. */
static bool by_id(struct pn_reader *r, const struct pn_record *record, const char *at) {
    const size_t n = r->ids != NULL ? r->n_names - 1 : 0;
    struct pair pair;
    struct pn_text joined = {0};
    bool good = true;
    size_t from = 0;
    for (size_t c = 0; c < n; c++) r->ids[c].value = NULL;
    for (int there; good && (there = next_pair(r, record, &at, &pair)) != 0;) {
        size_t k = 0, c = 0;
        for (; there > 0 && k < n; k++) {
            c = from + k < n ? from + k : from + k - n;
            if (strncmp(r->ids[c].id, pair.id, pair.n_id) == 0 && r->ids[c].id[pair.n_id] == '\0') break;
        }
        if (there < 0) good = false;
        else if (k == n) good = join(r, record, &pair, &joined);
        else if (r->ids[c].value != NULL) good = pn_row_bad(r, record->line, "id %s stands twice", r->ids[c].id);
        else {
            r->ids[c].value = pair.value;
            r->ids[c].n_value = pair.n_value;
            from = c + 1 < n ? c + 1 : 0;
        }
    }
    for (size_t c = 0; good && c < n; c++) good = r->ids[c].value != NULL ? pn_row_field(r, r->ids[c].value, r->ids[c].n_value) : pn_row_field(r, "0", 1);
    good = good && pn_row_field(r, joined.text, joined.n);
    free(joined.text);
    return good;
}

bool pn_libfm_row(struct pn_reader *r, const struct pn_record *record) {
    size_t n;
    float label;
    const char *at = label_of(record, &n);
    if (!pn_row_label(r, record->line, at, n, &label)) return false;
    const bool place = r->data.columns[0] != '\0' && r->ids == NULL;
    return (place ? by_place : by_id)(r, record, at + n) && pn_row_end(r, label);
}

/* ---- negatives ---- */

/* The pairs at the places of group and column. False: bad, said. */
static bool both(struct pn_reader *r, const struct pn_record *record, struct pair *group, struct pair *column) {
    size_t n, i = 0;
    const char *at = label_of(record, &n);
    at += n;
    struct pair pair;
    *group = *column = (struct pair){0};
    for (int there; (there = next_pair(r, record, &at, &pair)) != 0; i++) {
        if (there < 0) return false;
        if (i == r->negatives.i_group) *group = pair;
        if (i == r->negatives.i_column) *column = pair;
    }
    return (group->id && column->id) || pn_row_bad(r, record->line, "found %zu id:value pairs, expected %zu (columns)", i, r->n_names);
}

static bool positive(struct pn_reader *r, const struct pn_record *record, bool *yes) {
    size_t n;
    float label;
    const char *text = label_of(record, &n);
    if (!pn_row_label(r, record->line, text, n, &label)) return false;
    *yes = label > 0;
    return true;
}

/* A set of numbers: open addressing, at most half full; 0 is never put in. */
static bool set_has(const struct pn_number_set *s, uint64_t x) {
    if (s->room == 0) return false;
    for (size_t i = x & (s->room - 1);; i = (i + 1) & (s->room - 1)) {
        if (s->at[i] == x) return true;
        if (s->at[i] == 0) return false;
    }
}

static bool set_put(struct pn_number_set *s, uint64_t x) {
    if (2 * (s->n + 1) > s->room) {
        struct pn_number_set grown = {.room = s->room ? 2 * s->room : 1024};
        if (!(grown.at = calloc(grown.room, sizeof(*grown.at)))) return false;
        for (size_t i = 0; i < s->room; i++)
            if (s->at[i]) set_put(&grown, s->at[i]);
        free(s->at);
        *s = grown;
    }
    size_t i = x & (s->room - 1);
    while (s->at[i] && s->at[i] != x) i = (i + 1) & (s->room - 1);
    s->n += s->at[i] == 0;
    s->at[i] = x;
    return true;
}

static uint64_t number_of(const char *text, size_t n, uint64_t seed) {
    uint64_t x = pn_hash(text, n, seed);
    return x ? x : 1;
}
static uint64_t pair_number(uint64_t group, const char *column, size_t n) { return number_of(column, n, group); }

bool pn_negatives_load(struct pn_reader *r, const struct pn_record *record) {
    struct pn_negatives *g = &r->negatives;
    struct pair group, column;
    bool yes;
    if (!positive(r, record, &yes)) return false;
    if (!yes) return true;
    if (!both(r, record, &group, &column)) return false;
    if (!set_put(&g->seen, pair_number(number_of(group.id, group.n_id, 1), column.id, column.n_id))) return pn_reader_no_memory(r);
    const uint64_t value = number_of(column.id, column.n_id, 2);
    if (set_has(&g->known, value)) return true;
    if (!set_put(&g->known, value)) return pn_reader_no_memory(r);
    if (g->n_values == g->max_values) {
        const size_t max = g->max_values ? 2 * g->max_values : 1024;
        void *grown = realloc(g->values, max * sizeof(*g->values));
        if (!grown) return pn_reader_no_memory(r);
        g->values = grown;
        g->max_values = max;
    }
    g->values[g->n_values++] = (struct pn_span){(uint32_t)g->text.n, (uint32_t)column.n_id};
    return pn_text_bytes(&g->text, column.id, column.n_id) || pn_reader_no_memory(r);
}

bool pn_negatives_owe(struct pn_reader *r, const struct pn_record *record) {
    bool yes;
    if (!positive(r, record, &yes)) return false;
    if (!yes) return true;
    r->negatives.of = *record;
    r->negatives.n_owed = r->data.negatives.per_positive;
    return true;
}

bool pn_negatives_next(struct pn_reader *r, struct pn_record *out) {
    struct pn_negatives *g = &r->negatives;
    const struct pn_record *of = &g->of;
    struct pair group, column;
    if (!both(r, of, &group, &column)) return false;
    const uint64_t owner = number_of(group.id, group.n_id, 1);
    const uint64_t epoch = r->data.negatives.redraw ? r->options.epoch + 1u : 0;
    struct pn_rng rng = {pn_mix64(r->data.negatives.seed ^ pn_mix64(of->line ^ pn_mix64(g->n_owed ^ pn_mix64(epoch))))};
    const char *drawn = NULL;
    size_t n = 0;
    for (uint32_t i = 0; !drawn && i < MOST_TRIES && g->n_values > 0; i++) {
        const struct pn_span *v = &g->values[(size_t)((unsigned __int128)pn_rng_next(&rng) * g->n_values >> 64)];
        if (!set_has(&g->seen, pair_number(owner, g->text.text + v->offset, v->length))) {
            drawn = g->text.text + v->offset;
            n = v->length;
        }
    }
    if (!drawn) return pn_row_bad(r, of->line, "no negative can be drawn: nearly every value of \"%s\" was seen with this \"%s\"", r->data.negatives.column, r->data.negatives.group);
    size_t n_label;
    const char *label = label_of(of, &n_label), *behind = column.id + column.n_id;
    char below[40];
    const int k = snprintf(below, sizeof(below), "%.9g", r->data.threshold - 1);
    g->line.n = 0;
    if (!pn_text_bytes(&g->line, below, (size_t)k) || !pn_text_bytes(&g->line, label + n_label, (size_t)(column.id - label) - n_label) ||
        !pn_text_bytes(&g->line, drawn, n) || !pn_text_bytes(&g->line, behind, (size_t)(of->text + of->n_bytes - behind)))
        return pn_reader_no_memory(r);
    g->n_owed--;
    *out = (struct pn_record){g->line.text, g->line.n, of->line};
    return true;
}

void pn_negatives_free(struct pn_reader *r) {
    free(r->negatives.seen.at);
    free(r->negatives.known.at);
    free(r->negatives.values);
    free(r->negatives.text.text);
    free(r->negatives.line.text);
}
