/* How often each value of a feature came: what a vocabulary is made of. Exact. */
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"
#include "nn/vocabulary.h"

struct entry { uint64_t hash, at, count; uint32_t n_bytes; };
struct pn_counts {
    struct entry *entries;
    uint32_t *index;        /* 1 + entry, open addressing by hash; 0: free */
    uint64_t mask;
    size_t n, room;
    char *bytes;            /* the values behind one another */
    size_t n_bytes, bytes_room;
};

struct pn_counts *pn_counts_open(void) { return calloc(1, sizeof(struct pn_counts)); }

void pn_counts_close(struct pn_counts *c) {
    if (c == NULL) return;
    free(c->entries);
    free(c->index);
    free(c->bytes);
    free(c);
}

/* Room for one entry more, the index at most half full. */
static bool more_entries(struct pn_counts *c) {
    if (c->n < c->room) return true;
    const size_t room = c->room == 0 ? 256 : c->room * 2;
    struct entry *entries = realloc(c->entries, room * sizeof *entries);
    if (entries == NULL) return false;
    c->entries = entries;
    uint32_t *index = calloc(room * 2, sizeof *index);
    if (index == NULL) return false;
    free(c->index);
    c->index = index;
    c->mask = room * 2 - 1;
    c->room = room;
    for (size_t i = 0; i < c->n; i++) {
        uint64_t at = entries[i].hash & c->mask;
        while (index[at] != 0) at = (at + 1) & c->mask;
        index[at] = (uint32_t)i + 1;
    }
    return true;
}

static bool more_bytes(struct pn_counts *c, size_t n) {
    if (n <= c->bytes_room - c->n_bytes) return true;
    const size_t room = c->bytes_room * 2 + n + 4096;
    char *bytes = realloc(c->bytes, room);
    if (bytes == NULL) return false;
    c->bytes = bytes;
    c->bytes_room = room;
    return true;
}

enum pn_result pn_counts_add(struct pn_counts *c, const char *value, size_t n_bytes) {
    if (n_bytes == 0 || value[n_bytes - 1] == '\r' || memchr(value, '\n', n_bytes) != NULL) return PN_OK;
    if (!more_entries(c)) return PN_NO_MEMORY;
    const uint64_t hash = pn_hash(value, n_bytes, 0);
    uint64_t at = hash & c->mask;
    for (; c->index[at] != 0; at = (at + 1) & c->mask) {
        struct entry *e = &c->entries[c->index[at] - 1];
        if (e->hash != hash || e->n_bytes != n_bytes || memcmp(c->bytes + e->at, value, n_bytes) != 0) continue;
        e->count++;
        return PN_OK;
    }
    if (c->n == PN_VOCABULARY_MOST || n_bytes > PN_VOCABULARY_BYTES / 2 - c->n_bytes) return PN_FULL;
    if (!more_bytes(c, n_bytes)) return PN_NO_MEMORY;
    memcpy(c->bytes + c->n_bytes, value, n_bytes);
    c->entries[c->n++] = (struct entry){hash, c->n_bytes, 1, (uint32_t)n_bytes};
    c->index[at] = (uint32_t)c->n;
    c->n_bytes += n_bytes;
    return PN_OK;
}

struct ranked { const char *value; uint64_t count; uint32_t n_bytes; };

static int by_rank(const void *a, const void *b) {
    const struct ranked *x = a, *y = b;
    if (x->count != y->count) return x->count < y->count ? 1 : -1;
    const int order = memcmp(x->value, y->value, x->n_bytes < y->n_bytes ? x->n_bytes : y->n_bytes);
    return order != 0 ? order : (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

enum pn_result pn_counts_text(const struct pn_counts *c, uint64_t min_count, uint32_t max_size, char **text, size_t *n_bytes, size_t *n_values) {
    struct ranked *list = malloc((c->n + 1) * sizeof *list);
    size_t n = 0, size = 0;
    *text = NULL;
    if (list == NULL) return PN_NO_MEMORY;
    for (size_t i = 0; i < c->n; i++) {
        const struct entry *e = &c->entries[i];
        if (e->count >= min_count) list[n++] = (struct ranked){c->bytes + e->at, e->count, e->n_bytes};
    }
    qsort(list, n, sizeof *list, by_rank);
    if (n > max_size) n = max_size;
    for (size_t i = 0; i < n; i++) size += list[i].n_bytes + 1;
    char *out = malloc(size + 1);
    for (size_t i = 0, at = 0; out != NULL && i < n; i++) {
        memcpy(out + at, list[i].value, list[i].n_bytes);
        at += list[i].n_bytes;
        out[at++] = '\n';
    }
    free(list);
    if (out == NULL) return PN_NO_MEMORY;
    out[size] = '\0';
    *text = out;
    *n_bytes = size;
    *n_values = n;
    return PN_OK;
}
