/* Pages, images and the scan of a table's rows; the idea is in rows.h, the index in index.c. */
#include "ps/table/rows.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES (8u << 10)        /* about */
#define MAX_PAGE_SHIFT 7u
static const uint32_t first_pages[2] = {1, 4}; /* in units of four rows: a slot's first page begins small */

bool pn_rows_open(struct pn_rows *t, size_t row_bytes) {
    assert(row_bytes > 0 && row_bytes % 4 == 0);
    *t = (struct pn_rows){.row_bytes = row_bytes, .page_shift = 4};
    while (t->page_shift < MAX_PAGE_SHIFT && row_bytes << (t->page_shift + 1) <= PAGE_BYTES) t->page_shift++;
    t->page_mask = (1u << t->page_shift) - 1;
    const uint32_t sizes[PN_PAGE_SIZES] = {first_pages[0], first_pages[1], (t->page_mask + 1) / PN_ROW_UNIT};
    t->slots = calloc(PN_SLOTS, sizeof(*t->slots));
    t->indexes = calloc(PN_SLOTS, sizeof(*t->indexes));
    t->n_small_bytes = PN_SLOTS * (sizeof(*t->slots) + sizeof *t->indexes);
    bool ok = t->slots && t->indexes && pn_pages_open(&t->row_memory, row_bytes * PN_ROW_UNIT, sizes) && pn_index_open(t);
    if (!ok) {
        pn_pages_close(&t->row_memory);
        pn_pages_close(&t->index_memory);
        free(t->slots);
        free(t->indexes);
        t->slots = NULL;
    }
    return ok;
}

void pn_rows_close(struct pn_rows *t) {
    if (!t->slots) return;
    pn_rows_cut_abort(t);
    pn_index_close(t);
    pn_pages_close(&t->row_memory);
    free(t->chunk_of);
    free(t->page_of);
    free(t->slots);
    free(t->indexes);
    t->slots = NULL;
}

/* ---- the cut ---- */

/* A row as it was at the cut. */
struct pn_image {
    struct pn_image *next;  /* of the same slot */
    struct pn_block *block;
    uint32_t i_row;
    uint8_t row[];
};
#define BLOCK_BYTES (256u << 10)
struct pn_block {           /* images are taken from blocks; a block goes when its last image does */
    struct pn_block *previous, *next;
    size_t used, room, n_live;
    _Alignas(16) uint8_t bytes[];
};

struct pn_cut {
    uint32_t n_rows[PN_SLOTS];           /* of each slot, at the cut */
    uint64_t base[PN_SLOTS];             /* where its bits begin in `kept` */
    struct pn_image *images[PN_SLOTS];
    uint64_t *kept;                      /* a bit a row: its image has been put aside */
    struct pn_block *blocks;             /* the first one has room */
    size_t n_kept_words;
    uint64_t n_block_bytes;
    uint32_t i_slot, i_row;              /* the next row to give */
    bool loaded;                         /* keys and olds are those of i_slot */
    uint64_t *keys;                      /* by row number */
    const struct pn_image **olds;        /* by row number; NULL: the row itself */
    uint32_t max_loaded;                 /* rows of the largest slot: no memory is needed on the way */
};

bool pn_rows_cut(struct pn_rows *t) {
    if (t->cut) return false;
    struct pn_cut *c = calloc(1, sizeof *c);
    if (!c) return false;
    uint64_t n = 0;
    uint32_t most = 0;
    for (uint32_t i = 0; i < PN_SLOTS; i++) {
        if (t->slots[i].n_rows > most) most = t->slots[i].n_rows;
        c->n_rows[i] = t->slots[i].n_rows;
        c->base[i] = n;
        n += t->slots[i].n_rows;
    }
    c->n_kept_words = n / 64 + 1;
    c->kept = calloc(c->n_kept_words, sizeof *c->kept);
    c->keys = malloc((most + 1) * sizeof *c->keys);
    c->olds = malloc((most + 1) * sizeof *c->olds);
    c->max_loaded = most + 1;
    t->cut = c;
    if (c->kept && c->keys && c->olds) return true;
    pn_rows_cut_abort(t);
    return false;
}

static size_t image_bytes(const struct pn_rows *t) { return (sizeof(struct pn_image) + t->row_bytes + 15) & ~(size_t)15; }

static struct pn_image *new_image(struct pn_rows *t) {
    struct pn_cut *c = t->cut;
    const size_t n = image_bytes(t);
    if (!c->blocks || c->blocks->room - c->blocks->used < n) {
        size_t room = BLOCK_BYTES > n ? BLOCK_BYTES : n;
        struct pn_block *b = malloc(sizeof *b + room);
        if (!b) return NULL;
        *b = (struct pn_block){.next = c->blocks, .room = room};
        if (c->blocks) c->blocks->previous = b;
        c->blocks = b;
        c->n_block_bytes += sizeof *b + room;
    }
    struct pn_image *image = (struct pn_image *)(void *)(c->blocks->bytes + c->blocks->used);
    c->blocks->used += n;
    c->blocks->n_live++;
    image->block = c->blocks;
    return image;
}

static void drop_block(struct pn_cut *c, struct pn_block *b) {
    if (b->previous) b->previous->next = b->next;
    else c->blocks = b->next;
    if (b->next) b->next->previous = b->previous;
    c->n_block_bytes -= sizeof *b + b->room;
    free(b);
}

/* Puts a row aside, if the scanner still needs what is there now. */
static bool keep_row(struct pn_rows *t, uint32_t i_slot, uint32_t i_row) {
    struct pn_cut *c = t->cut;
    if (i_row >= c->n_rows[i_slot] || i_slot < c->i_slot || (i_slot == c->i_slot && i_row < c->i_row)) return true;
    uint64_t bit = c->base[i_slot] + i_row, mask = 1ull << bit % 64;
    if (c->kept[bit / 64] & mask) return true;
    struct pn_image *image = new_image(t);
    if (!image) return false;
    image->next = c->images[i_slot];
    image->i_row = i_row;
    memcpy(image->row, pn_rows_at(t, (pn_place)i_slot << 32 | i_row), t->row_bytes);
    c->images[i_slot] = image;
    c->kept[bit / 64] |= mask;
    if (c->loaded && i_slot == c->i_slot) c->olds[i_row] = image;
    return true;
}

void pn_rows_cut_abort(struct pn_rows *t) {
    struct pn_cut *c = t->cut;
    if (!c) return;
    while (c->blocks) drop_block(c, c->blocks);
    free(c->kept);
    free(c->keys);
    free(c->olds);
    free(c);
    t->cut = NULL;
}

/* Keys and images of the slot that the scan enters. */
static void load_slot(struct pn_rows *t) {
    struct pn_cut *c = t->cut;
    const uint32_t n = c->n_rows[c->i_slot];
    memset(c->olds, 0, n * sizeof *c->olds);
    pn_index_keys(t, c->i_slot, n, c->keys);
    for (struct pn_image *i = c->images[c->i_slot]; i; i = i->next) c->olds[i->i_row] = i;
    c->loaded = true;
}

static void leave_slot(struct pn_cut *c) {
    for (struct pn_image *i = c->images[c->i_slot]; i;) {
        struct pn_image *next = i->next;
        if (--i->block->n_live == 0 && i->block != c->blocks) drop_block(c, i->block);
        i = next;
    }
    c->images[c->i_slot] = NULL;
    c->i_slot++;
    c->i_row = 0;
    c->loaded = false;
}

size_t pn_rows_scan(struct pn_rows *t, uint64_t *keys, void *rows, size_t max) {
    struct pn_cut *c = t->cut;
    if (!c) return 0;
    assert(max > 0);
    size_t given = 0;
    while (given < max && c->i_slot < PN_SLOTS) {
        if (c->i_row == c->n_rows[c->i_slot]) {
            leave_slot(c);
            continue;
        }
        if (!c->loaded) load_slot(t);
        for (; given < max && c->i_row < c->n_rows[c->i_slot]; c->i_row++, given++) {
            const struct pn_image *old = c->olds[c->i_row];
            keys[given] = c->keys[c->i_row];
            memcpy((uint8_t *)rows + given * t->row_bytes, old ? old->row : pn_rows_at(t, (pn_place)c->i_slot << 32 | c->i_row), t->row_bytes);
        }
    }
    if (given == 0) pn_rows_cut_abort(t);
    return given;
}

uint64_t pn_rows_bytes(const struct pn_rows *t) {
    const struct pn_cut *c = t->cut;
    uint64_t n = t->n_small_bytes + pn_pages_bytes(&t->row_memory) + pn_pages_bytes(&t->index_memory);
    if (c) n += sizeof *c + c->n_kept_words * 8 + c->n_block_bytes + c->max_loaded * (sizeof *c->keys + sizeof *c->olds);
    return n;
}

/* ---- growth: all memory is found before anything changes ---- */

static bool grow_rows(struct pn_rows *t, uint32_t i_slot, uint32_t n_rows) {
    struct pn_slot *s = &t->slots[i_slot];
    const uint32_t full = t->page_mask + 1;
    if (s->room >= n_rows) return true;
    if (!pn_map_reserve(t, &t->page_of, &t->max_pages, (n_rows + full - 1) >> t->page_shift)) return false;
    while (s->room < n_rows) {
        const uint32_t small = first_pages[0] * PN_ROW_UNIT, middle = first_pages[1] * PN_ROW_UNIT;
        const int size = s->room >= full || n_rows > middle ? 2 : n_rows > small ? 1 : 0;
        const uint32_t block = pn_pages_take(&t->row_memory, size);
        if (block == PN_NO_BLOCK) return false;
        if (s->room > 0 && s->room < full) { /* the small first page moves */
            const uint32_t old = t->page_of[i_slot];
            memcpy(pn_pages_at(&t->row_memory, block), pn_pages_at(&t->row_memory, old), s->n_rows * t->row_bytes);
            pn_pages_give(&t->row_memory, old, s->room == small ? 0 : 1);
            s->room = 0;
        }
        t->page_of[(size_t)(s->room >> t->page_shift) * PN_SLOTS + i_slot] = block;
        s->room = size == 2 ? s->room + full : size == 1 ? middle : small;
    }
    return true;
}

enum pn_result pn_rows_prepare(struct pn_rows *t, const pn_place *places, size_t n, const uint64_t *skip, bool change, bool make) {
    bool enough = true;
    for (size_t i = 0; i < n && enough; i++) {
        uint32_t i_slot = (uint32_t)(places[i] >> 32), i_row = (uint32_t)places[i];
        if (pn_slot_skipped(skip, i_slot)) continue;
        if (i_row == PN_DROPPED) continue;
        if (i_row != PN_NO_ROW) enough = !change || !t->cut || keep_row(t, i_slot, i_row);
        else if (make) t->slots[i_slot].pending++;
    }
    if (!make) return enough ? PN_OK : PN_NO_MEMORY;
    for (size_t i = 0; i < n; i++) {
        uint32_t i_slot = (uint32_t)(places[i] >> 32);
        struct pn_slot *s = &t->slots[i_slot];
        if (s->pending == 0) continue;
        assert(s->n_rows < PN_NO_ROW - s->pending);
        enough = enough && grow_rows(t, i_slot, s->n_rows + s->pending) && pn_index_reserve(t, i_slot, s->pending);
        s->pending = 0;
    }
    return enough ? PN_OK : PN_NO_MEMORY;
}

void *pn_rows_make_new(struct pn_rows *t, uint64_t key) {
    const uint64_t mix = pn_mix64(key);
    struct pn_slot *s = &t->slots[mix >> 54];
    assert(s->n_rows < s->room && "no room was prepared");
    const uint32_t i_row = s->n_rows++;
    t->n_rows++;
    pn_index_put(t, mix, i_row);
    return memset(pn_rows_at(t, (pn_place)(mix >> 54) << 32 | i_row), 0, t->row_bytes);
}

void *pn_rows_make(struct pn_rows *t, uint64_t key, bool *made) {
    const uint64_t mix = pn_mix64(key);
    const uint32_t there = pn_index_find(t, mix);
    *made = there == PN_NO_ROW;
    return *made ? pn_rows_make_new(t, key) : pn_rows_at(t, (pn_place)(mix >> 54) << 32 | there);
}

/* ---- deletion ---- */

bool pn_rows_remove(struct pn_rows *t, uint32_t i_slot, const bool *gone) {
    struct pn_slot *s = &t->slots[i_slot];
    assert(!t->cut && "the rows of a cut keep their numbers");
    if (s->n_rows == 0) return true;
    uint64_t *keys = malloc(s->n_rows * sizeof *keys);
    uint32_t *from = malloc(s->n_rows * sizeof *from); /* row i will be what row from[i] is */
    bool ok = keys && from;
    uint32_t n = 0, end = s->n_rows;
    if (ok) {
        pn_index_keys(t, i_slot, s->n_rows, keys);
        for (; n < end; n++) {
            from[n] = n;
            if (!gone[n]) continue;
            do end--;
            while (end > n && gone[end]);
            if (end == n) break;
            from[n] = end;
            keys[n] = keys[end];
        }
        ok = n == s->n_rows || pn_index_remake(t, i_slot, keys, n);
    }
    if (ok) {
        for (uint32_t i = 0; i < n; i++)
            if (from[i] != i) memcpy(pn_rows_at(t, (pn_place)i_slot << 32 | i), pn_rows_at(t, (pn_place)i_slot << 32 | from[i]), t->row_bytes);
        t->n_rows -= s->n_rows - n;
        s->n_rows = n;
        /* Whole pages behind the last row go back, but for the first. */
        const uint32_t full = t->page_mask + 1;
        while (s->room > full && s->room - full >= n) {
            s->room -= full;
            pn_pages_give(&t->row_memory, t->page_of[(size_t)(s->room >> t->page_shift) * PN_SLOTS + i_slot], 2);
        }
    }
    free(keys);
    free(from);
    return ok;
}

void pn_rows_grow_ahead(struct pn_rows *t, size_t n_new) {
    const size_t visits = n_new / 16 + 4 < PN_SLOTS ? n_new / 16 + 4 : PN_SLOTS;
    size_t n_grown = 0;
    for (size_t i = 0; i < visits && n_grown <= n_new / 1024; i++, t->i_ahead = (t->i_ahead + 1) % PN_SLOTS) {
        const uint32_t n = t->slots[t->i_ahead].n_rows;
        bool grown = false;
        if (n >= 256 && !pn_index_grow(t, t->i_ahead, n / 50, &grown)) return; /* no memory: it will be said when it is needed */
        n_grown += grown;
    }
}
