/* Index and pages of a table's records; the idea is in rows.h. */
#include "ps/table/rows.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "ps/table/tags.h"

#define PAGE_BYTES 4096u   /* about: what one image costs */
#define MAX_PAGE_SHIFT 7u
#define BLOCK 32u          /* keys whose misses overlap */
#define CACHE_LINE 64u

static uint8_t tag_of(uint64_t hash) { return (uint8_t)(0x80u | (hash >> 47 & 0x7f)); }
static uint32_t slot_of(uint64_t hash) { return (uint32_t)(hash >> 54); }
static uint32_t group_of(const struct pn_slot *s, uint64_t hash) { return (uint32_t)hash & (s->n_places / PN_TAG_GROUP - 1); }
/* Seven eighths full at most: every probe meets an empty tag. */
static uint32_t room_of(uint32_t n_places) { return n_places - n_places / 8; }

bool pn_rows_open(struct pn_rows *t, size_t record_bytes) {
    assert(record_bytes >= sizeof(struct pn_row) && record_bytes % 8 == 0);
    *t = (struct pn_rows){.record_bytes = record_bytes};
    while (t->shift < MAX_PAGE_SHIFT && (record_bytes << (t->shift + 1)) <= PAGE_BYTES) t->shift++;
    t->mask = (1u << t->shift) - 1;
    t->page_bytes = record_bytes << t->shift;
    t->slots = calloc(PN_SLOTS, sizeof(*t->slots));
    t->n_bytes = PN_SLOTS * sizeof(*t->slots);
    return t->slots != NULL;
}

void pn_rows_close(struct pn_rows *t) {
    if (!t->slots) return;
    pn_rows_cut_abort(t);
    for (uint32_t i = 0; i < PN_SLOTS; i++) {
        struct pn_slot *s = &t->slots[i];
        for (uint32_t p = 0; p < s->n_pages; p++) free(s->pages[p].rows);
        free(s->pages);
        free(s->block);
    }
    free(t->slots);
    t->slots = NULL;
}

/* ---- finding ---- */

static uint32_t find(const struct pn_rows *t, uint64_t hash, uint64_t key) {
    const struct pn_slot *s = &t->slots[slot_of(hash)];
    if (s->n_places == 0) return PN_NO_ROW;
    const uint32_t last = s->n_places / PN_TAG_GROUP - 1;
    const uint8_t tag = tag_of(hash);
    /* Triangular steps visit every group when their number is a power of two. */
    for (uint32_t g = group_of(s, hash), step = 1;; g = (g + step++) & last) {
        const uint8_t *tags = s->tags + g * PN_TAG_GROUP;
        for (uint32_t found = pn_tags_match(tags, tag); found; found &= found - 1) {
            uint32_t i_row = s->refs[g * PN_TAG_GROUP + (uint32_t)__builtin_ctz(found)];
            if (pn_rows_at(t, slot_of(hash), i_row)->key == key) return i_row;
        }
        if (pn_tags_match(tags, 0)) return PN_NO_ROW;
        assert(step <= last + 1 && "an index without an empty tag");
    }
}

static void prefetch_row(const struct pn_rows *t, uint32_t i_slot, uint32_t i_row) {
    const char *row = (const char *)pn_rows_at(t, i_slot, i_row);
    size_t n = t->record_bytes < 4 * CACHE_LINE ? t->record_bytes : 4 * CACHE_LINE;
    for (size_t i = 0; i < n; i += CACHE_LINE) __builtin_prefetch(row + i);
}

void pn_rows_find(const struct pn_rows *t, const uint64_t *keys, size_t n, pn_place *places) {
    uint64_t hash[BLOCK];
    for (size_t begin = 0; begin < n; begin += BLOCK) {
        size_t count = n - begin < BLOCK ? n - begin : BLOCK;
        for (size_t i = 0; i < count; i++) {
            hash[i] = pn_mix64(keys[begin + i]);
            const struct pn_slot *s = &t->slots[slot_of(hash[i])];
            if (s->n_places == 0) continue;
            uint32_t first = group_of(s, hash[i]) * PN_TAG_GROUP;
            __builtin_prefetch(s->tags + first);
            __builtin_prefetch(s->refs + first);
        }
        for (size_t i = 0; i < count; i++) {
            const struct pn_slot *s = &t->slots[slot_of(hash[i])];
            if (s->n_places == 0) continue;
            uint32_t first = group_of(s, hash[i]) * PN_TAG_GROUP;
            uint32_t found = pn_tags_match(s->tags + first, tag_of(hash[i]));
            if (found) prefetch_row(t, slot_of(hash[i]), s->refs[first + (uint32_t)__builtin_ctz(found)]);
        }
        for (size_t i = 0; i < count; i++)
            places[begin + i] = (pn_place)slot_of(hash[i]) << 32 | find(t, hash[i], keys[begin + i]);
    }
}

/* ---- growth: all memory is found before anything changes ---- */

static void index_put(struct pn_slot *s, uint64_t hash, uint32_t i_row) {
    const uint32_t last = s->n_places / PN_TAG_GROUP - 1;
    for (uint32_t g = group_of(s, hash), step = 1;; g = (g + step++) & last) {
        uint32_t empty = pn_tags_match(s->tags + g * PN_TAG_GROUP, 0);
        if (!empty) continue;
        uint32_t place = g * PN_TAG_GROUP + (uint32_t)__builtin_ctz(empty);
        s->tags[place] = tag_of(hash);
        s->refs[place] = i_row;
        return;
    }
}

static size_t block_bytes(uint32_t n_places) { return (size_t)n_places * (sizeof(uint32_t) + 1) + CACHE_LINE; }

static bool grow_index(struct pn_rows *t, uint32_t i_slot, uint32_t n_rows) {
    struct pn_slot *s = &t->slots[i_slot];
    uint32_t n_places = s->n_places ? s->n_places : PN_TAG_GROUP;
    while (room_of(n_places) < n_rows) n_places *= 2;
    if (n_places == s->n_places) return true;
    void *block = malloc(block_bytes(n_places));
    if (!block) return false;
    t->n_bytes += block_bytes(n_places) - (s->block ? block_bytes(s->n_places) : 0);
    free(s->block);
    s->block = block;
    s->n_places = n_places;
    /* A group's sixteen row numbers are one cache line. */
    s->refs = (uint32_t *)(((uintptr_t)block + CACHE_LINE - 1) & ~(uintptr_t)(CACHE_LINE - 1));
    s->tags = (uint8_t *)(s->refs + n_places);
    memset(s->tags, 0, n_places);
    for (uint32_t i = 0; i < s->n_rows; i++) index_put(s, pn_mix64(pn_rows_at(t, i_slot, i)->key), i);
    return true;
}

static bool grow_pages(struct pn_rows *t, struct pn_slot *s, uint32_t n_rows) {
    uint32_t n_pages = (n_rows + t->mask) >> t->shift;
    if (n_pages > s->max_pages) {
        uint32_t max = s->max_pages ? s->max_pages : 2;
        while (max < n_pages) max *= 2;
        struct pn_page *pages = realloc(s->pages, max * sizeof(*pages));
        if (!pages) return false;
        t->n_bytes += (max - s->max_pages) * sizeof(*pages);
        s->pages = pages;
        s->max_pages = max;
    }
    for (; s->n_pages < n_pages; s->n_pages++) {
        uint8_t *rows = malloc(t->page_bytes);
        if (!rows) return false;
        s->pages[s->n_pages] = (struct pn_page){.rows = rows};
        t->n_bytes += t->page_bytes;
    }
    return true;
}

/* Puts the page of a row aside, if the scanner still needs what is there now. */
static bool keep_page(struct pn_rows *t, uint32_t i_slot, uint32_t i_row) {
    struct pn_slot *s = &t->slots[i_slot];
    uint32_t i_page = i_row >> t->shift;
    struct pn_page *page = &s->pages[i_page];
    if (page->kept == t->i_cut) return true;
    if (i_page << t->shift >= s->n_rows_at_cut) return true;
    if (i_slot < t->scan_slot || (i_slot == t->scan_slot && (i_page + 1) << t->shift <= t->scan_row)) return true;
    struct pn_image *image = malloc(sizeof(*image) + t->page_bytes);
    if (!image) return false;
    *image = (struct pn_image){.next = t->images, .i_slot = i_slot, .i_page = i_page};
    /* Only what has been written: the rest of the last page holds nothing yet. */
    uint32_t n = s->n_rows - (i_page << t->shift);
    if (n > t->mask + 1) n = t->mask + 1;
    memcpy(image->rows, page->rows, n * t->record_bytes);
    if (t->images) t->images->previous = image;
    t->images = image;
    page->image = image;
    page->kept = t->i_cut;
    t->n_bytes += sizeof(*image) + t->page_bytes;
    return true;
}

enum pn_result pn_rows_prepare(struct pn_rows *t, const pn_place *places, size_t n, const uint64_t *skip, bool change, bool make) {
    bool enough = true;
    for (size_t i = 0; i < n && enough; i++) {
        uint32_t i_slot = (uint32_t)(places[i] >> 32), i_row = (uint32_t)places[i];
        if (pn_slot_skipped(skip, i_slot)) continue;
        if (i_row != PN_NO_ROW) enough = !change || !t->cut || keep_page(t, i_slot, i_row);
        else if (make) t->slots[i_slot].pending++;
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t i_slot = (uint32_t)(places[i] >> 32);
        struct pn_slot *s = &t->slots[i_slot];
        if (s->pending == 0) continue;
        assert(s->n_rows < PN_NO_ROW - s->pending);
        enough = enough && grow_pages(t, s, s->n_rows + s->pending) && grow_index(t, i_slot, s->n_rows + s->pending);
        s->pending = 0;
    }
    return enough ? PN_OK : PN_NO_MEMORY;
}

struct pn_row *pn_rows_make(struct pn_rows *t, uint64_t key, bool *made) {
    uint64_t hash = pn_mix64(key);
    uint32_t i_slot = slot_of(hash), i_row = find(t, hash, key);
    *made = i_row == PN_NO_ROW;
    if (!*made) return pn_rows_at(t, i_slot, i_row);
    struct pn_slot *s = &t->slots[i_slot];
    assert(s->n_rows < s->n_pages << t->shift && s->n_rows < room_of(s->n_places) && "no room was prepared");
    i_row = s->n_rows++;
    t->n_rows++;
    index_put(s, hash, i_row);
    struct pn_row *row = pn_rows_at(t, i_slot, i_row);
    memset(row, 0, t->record_bytes);
    row->key = key;
    return row;
}

/* ---- snapshot ---- */

bool pn_rows_cut(struct pn_rows *t) {
    if (t->cut) return false;
    assert(!t->images);
    for (uint32_t i = 0; i < PN_SLOTS; i++) t->slots[i].n_rows_at_cut = t->slots[i].n_rows;
    t->cut = true;
    t->i_cut++;
    t->scan_slot = t->scan_row = 0;
    return true;
}

static void drop_image(struct pn_rows *t, struct pn_image *image) {
    if (image->previous) image->previous->next = image->next;
    else t->images = image->next;
    if (image->next) image->next->previous = image->previous;
    t->slots[image->i_slot].pages[image->i_page].image = NULL;
    t->n_bytes -= sizeof(*image) + t->page_bytes;
    free(image);
}

void pn_rows_cut_abort(struct pn_rows *t) {
    while (t->images) drop_image(t, t->images);
    t->cut = false;
}

size_t pn_rows_scan(struct pn_rows *t, void *out, size_t max) {
    assert(max > 0);
    size_t given = 0;
    while (t->cut && given < max) {
        if (t->scan_slot == PN_SLOTS) break;
        struct pn_slot *s = &t->slots[t->scan_slot];
        if (t->scan_row == s->n_rows_at_cut) {
            t->scan_slot++;
            t->scan_row = 0;
            continue;
        }
        /* What is left of this page, at once. */
        struct pn_page *page = &s->pages[t->scan_row >> t->shift];
        uint32_t first = t->scan_row & t->mask, end = t->mask + 1;
        if (end > s->n_rows_at_cut - (t->scan_row - first)) end = s->n_rows_at_cut - (t->scan_row - first);
        size_t n = end - first < max - given ? end - first : max - given;
        const uint8_t *rows = page->image ? page->image->rows : page->rows;
        memcpy((uint8_t *)out + given * t->record_bytes, rows + first * t->record_bytes, n * t->record_bytes);
        given += n;
        t->scan_row += (uint32_t)n;
        if (first + n == end && page->image) drop_image(t, page->image);
    }
    if (t->cut && given == 0) pn_rows_cut_abort(t);
    return given;
}
