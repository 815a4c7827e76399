#include "common/ledger.h"
#include <stdlib.h>
#include <string.h>

void pn_ledger_free(struct pn_ledger *l) {
    free(l->positions);
    free(l->extents);
    *l = (struct pn_ledger){0};
}

bool pn_ledger_position(const struct pn_ledger *l, uint32_t partition, struct pn_position *out) {
    bool found = false;
    for (size_t i = 0; i < l->n_positions; i++)
        if (l->positions[i].partition == partition) {
            *out = l->positions[i];
            found = true;
        }
    for (size_t i = l->n_extents; i > 0; i--) { /* the last one says where it ended; the first one had the bound */
        const struct pn_extent *e = &l->extents[i - 1];
        if (e->partition != partition) continue;
        *out = (struct pn_position){partition, e->end, e->bound};
        return true;
    }
    return found;
}

uint64_t pn_ledger_rows(const struct pn_ledger *l) {
    uint64_t rows = l->rows;
    for (size_t i = 0; i < l->n_extents; i++) rows += l->extents[i].rows;
    return rows;
}

enum pn_result pn_ledger_add(struct pn_ledger *l, const struct pn_extent *e, struct pn_error *err) {
    struct pn_position known;
    struct pn_extent taken = *e;
    const bool old = pn_ledger_position(l, e->partition, &known);
    if (l->closed) return pn_fail(err, PN_INVALID, "an extent behind the end of a ledger");
    if (l->n_extents >= PN_LEDGER_EXTENTS) return pn_fail(err, PN_INVALID, "a ledger of more than %u extents", PN_LEDGER_EXTENTS);
    if (e->end < e->first || e->rows > e->end - e->first || (old && (e->first != known.offset || e->end > known.bound)) || (!old && e->end != e->first))
        return pn_fail(err, PN_INVALID, "an extent of partition %u that does not follow: offsets %llu to %llu, %llu rows", e->partition, (unsigned long long)e->first, (unsigned long long)e->end,
                       (unsigned long long)e->rows);
    if (old) taken.bound = known.bound;
    if (l->n_extents == l->room) {
        const size_t room = l->room > 0 ? 2 * l->room : 16;
        struct pn_extent *grown = realloc(l->extents, room * sizeof *grown);
        if (grown == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for a ledger");
        l->extents = grown;
        l->room = room;
    }
    l->extents[l->n_extents++] = taken;
    return PN_OK;
}

/* Where its partition stands behind this extent. False: no memory. */
static bool set_position(struct pn_ledger *l, const struct pn_extent *e) {
    const struct pn_position now = {e->partition, e->end, e->bound};
    for (size_t i = 0; i < l->n_positions; i++)
        if (l->positions[i].partition == e->partition) {
            l->positions[i] = now;
            return true;
        }
    struct pn_position *grown = realloc(l->positions, (l->n_positions + 1) * sizeof *grown);
    if (grown == NULL) return false;
    l->positions = grown;
    l->positions[l->n_positions++] = now;
    return true;
}

bool pn_ledger_trim(struct pn_ledger *l, uint64_t rows) {
    size_t n = 0;
    while (n < l->n_extents && l->rows + l->extents[n].rows <= rows && set_position(l, &l->extents[n])) {
        l->rows += l->extents[n].rows;
        n++;
    }
    if (n == 0) return false;
    l->n_extents -= n;
    l->at += n;
    memmove(l->extents, l->extents + n, l->n_extents * sizeof *l->extents);
    return true;
}

/* ---- JSON ---- */

static struct json_object *numbers(const uint64_t *v, size_t n) {
    struct json_object *list = json_object_new_array();
    for (size_t i = 0; i < n; i++) json_object_array_add(list, json_object_new_uint64(v[i]));
    return list;
}

static struct json_object *extent_list(const struct pn_extent *e, size_t n) {
    struct json_object *list = json_object_new_array();
    for (size_t i = 0; i < n; i++)
        json_object_array_add(list, numbers((uint64_t[]){e[i].partition, e[i].first, e[i].end, e[i].rows, e[i].bound}, e[i].bound == PN_NO_BOUND ? 4 : 5));
    return list;
}

static struct json_object *write_some(const struct pn_ledger *l, size_t n) {
    struct json_object *o = json_object_new_object(), *positions = json_object_new_array();
    pn_json_add_u64(o, "at", l->at);
    pn_json_add_u64(o, "rows", l->rows);
    for (size_t i = 0; i < l->n_positions; i++) {
        const struct pn_position *p = &l->positions[i];
        json_object_array_add(positions, numbers((uint64_t[]){p->partition, p->offset, p->bound}, p->bound == PN_NO_BOUND ? 2 : 3));
    }
    pn_json_add(o, "positions", positions);
    pn_json_add(o, "extents", extent_list(l->extents, n));
    pn_json_add_bool(o, "closed", l->closed && n == l->n_extents);
    return o;
}

struct json_object *pn_ledger_write(const struct pn_ledger *l) { return write_some(l, l->n_extents); }

struct json_object *pn_ledger_write_at(const struct pn_ledger *l, uint64_t rows) {
    size_t n = 0;
    uint64_t before = l->rows;
    /* those of no rows, too: where a partition begins must not be asked for again */
    while (n < l->n_extents && (before <= rows || l->extents[n].rows == 0)) before += l->extents[n++].rows;
    struct pn_ledger copy = {.at = l->at, .rows = l->rows, .closed = l->closed && n == l->n_extents};
    struct json_object *o = NULL, *whole = write_some(l, n);
    if (pn_ledger_read(&copy, whole, NULL) == PN_OK) {
        pn_ledger_trim(&copy, rows);
        o = pn_ledger_write(&copy);
    }
    pn_ledger_free(&copy);
    if (o == NULL) return whole;
    json_object_put(whole);
    return o;
}

/* The numbers of an inner list into v; how many there were, 0 if one is none. */
static size_t read_numbers(struct json_object *list, uint64_t v[5]) {
    const size_t n = pn_json_length(list);
    for (size_t i = 0; i < n && i < 5; i++) {
        struct json_object *x = pn_json_at(list, i);
        if (!json_object_is_type(x, json_type_int) || json_object_get_int64(x) < 0) return 0;
        v[i] = json_object_get_uint64(x);
    }
    return n > 5 || n == 0 || v[0] > UINT32_MAX ? 0 : n;
}

static enum pn_result read_extents(struct pn_ledger *l, struct json_object *list, struct pn_error *err) {
    for (size_t i = 0; i < pn_json_length(list); i++) {
        uint64_t v[5] = {0, 0, 0, 0, PN_NO_BOUND};
        if (read_numbers(pn_json_at(list, i), v) < 4) return pn_fail(err, PN_INVALID, "extent %zu of a ledger is not [partition, first, end, rows]", i);
        const enum pn_result r = pn_ledger_add(l, &(struct pn_extent){(uint32_t)v[0], v[1], v[2], v[3], v[4]}, err);
        if (r != PN_OK) return r;
    }
    return PN_OK;
}

enum pn_result pn_ledger_read(struct pn_ledger *l, struct json_object *o, struct pn_error *err) {
    struct json_object *positions = pn_json_get(o, "positions"), *extents = pn_json_get(o, "extents");
    if (extents == NULL || pn_json_length(positions) > PN_LEDGER_PARTITIONS) return pn_fail(err, PN_INVALID, "no ledger");
    *l = (struct pn_ledger){.at = pn_json_u64(o, "at", 0), .rows = pn_json_u64(o, "rows", 0)};
    enum pn_result r = PN_OK;
    for (size_t i = 0; r == PN_OK && i < pn_json_length(positions); i++) {
        uint64_t v[5] = {0, 0, PN_NO_BOUND};
        if (read_numbers(pn_json_at(positions, i), v) < 2) r = pn_fail(err, PN_INVALID, "position %zu of a ledger is not [partition, offset]", i);
        else if (!set_position(l, &(struct pn_extent){.partition = (uint32_t)v[0], .end = v[1], .bound = v[2]})) r = pn_fail(err, PN_NO_MEMORY, "no memory for a ledger");
    }
    if (r == PN_OK) r = read_extents(l, extents, err);
    l->closed = r == PN_OK && pn_json_bool(o, "closed", false);
    if (r != PN_OK) pn_ledger_free(l);
    return r;
}

enum pn_result pn_ledger_take(struct pn_ledger *l, struct json_object *proposal, bool *changed, struct pn_error *err) {
    struct json_object *list = pn_json_get(proposal, "extents");
    const uint64_t at = pn_json_u64(proposal, "at", UINT64_MAX), have = l->at + l->n_extents;
    *changed = false;
    if (list == NULL || at > have) return pn_fail(err, PN_INVALID, "a proposal that does not follow the ledger");
    if (l->closed || at < have) return PN_OK; /* a proposal is taken as a whole: this one was */
    const size_t before = l->n_extents;
    const enum pn_result r = read_extents(l, list, err);
    if (r != PN_OK) {
        l->n_extents = before;
        return r;
    }
    l->closed = pn_json_bool(proposal, "closed", false);
    *changed = l->n_extents > before || l->closed;
    return PN_OK;
}

struct json_object *pn_ledger_proposal(const struct pn_ledger *l, const struct pn_extent *e, size_t n, bool closed) {
    struct json_object *o = json_object_new_object();
    pn_json_add_u64(o, "at", l->at + l->n_extents);
    pn_json_add(o, "extents", extent_list(e, n));
    pn_json_add_bool(o, "closed", closed);
    return o;
}
