/* Segments: rows of tables, quantised, found by key. One image holds
 *
 *   header   64 bytes: "PNSEGM\r\n", u32 version 1, u32 storage, u32 n_tables, u32 crc (header and entries, this field 0), u64 bytes of
 *            the file, zeros
 *   entries  64 bytes a table: u32 i_table, u32 dim, u64 n_rows, u64 offsets of keys, scales, rows, u32 crc of keys, scales, rows, zeros
 *   sections of each table in turn, each starting at a multiple of 64 (zeros between): keys u64[n] sorted, scales f32[n] (int8 only), rows
 *
 * There is one right place for everything: a reader computes it and refuses what stands elsewhere, so that no offset of the file is
 * ever trusted. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "snapshot/internal.h"

static const char magic[8] = {'P', 'N', 'S', 'E', 'G', 'M', '\r', '\n'};

struct header { char magic[8]; uint32_t version, storage, n_tables, crc; uint64_t n_bytes; uint8_t zero[32]; };
struct entry { uint32_t i_table, dim; uint64_t n_rows, keys, scales, rows; uint32_t crc[3]; uint8_t zero[12]; };
static_assert(sizeof(struct header) == 64 && sizeof(struct entry) == 64, "the layout of the file");

#define MAX_DIM 65536u

static size_t align(size_t n) { return (n + PN_SEGMENT_ALIGN - 1) & ~(size_t)(PN_SEGMENT_ALIGN - 1); }

size_t pn_segment_row_bytes(int storage, uint32_t dim) {
    return (size_t)dim * (storage == PN_STORE_FLOAT32 ? 4u : storage == PN_STORE_FLOAT16 ? 2u : 1u);
}

/* Sets the entry's offsets behind *end and moves *end. False: no file is that long. */
static bool place(struct entry *e, int storage, size_t *end) {
    const size_t limit = SIZE_MAX / 4;
    size_t row = pn_segment_row_bytes(storage, e->dim) + 8 + 4 + 1;
    if (e->n_rows > limit / row || *end > limit) return false;
    e->keys = *end;
    e->scales = align(e->keys + e->n_rows * 8);
    e->rows = storage == PN_STORE_INT8 ? align(e->scales + e->n_rows * 4) : e->scales;
    *end = align(e->rows + e->n_rows * pn_segment_row_bytes(storage, e->dim));
    return true;
}

/* ---- writing ---- */
struct rows {
    bool used;
    uint32_t dim;
    size_t n, room;
    uint64_t *keys;
    float *scales;
    uint8_t *data;
};
struct pn_segment_writer { int storage; struct rows tables[PN_MAX_TABLES]; };

struct pn_segment_writer *pn_segment_start(int storage) {
    assert(storage == PN_STORE_FLOAT32 || storage == PN_STORE_FLOAT16 || storage == PN_STORE_INT8);
    struct pn_segment_writer *w = calloc(1, sizeof *w);
    if (w != NULL) w->storage = storage;
    return w;
}

void pn_segment_abandon(struct pn_segment_writer *w) {
    if (w == NULL) return;
    for (uint32_t t = 0; t < PN_MAX_TABLES; t++) {
        free(w->tables[t].keys);
        free(w->tables[t].scales);
        free(w->tables[t].data);
    }
    free(w);
}

static bool make_room(struct rows *r, size_t row_bytes, size_t n) {
    if (n <= r->room - r->n) return true;
    if (n > SIZE_MAX / 4 - r->n) return false;
    size_t room = (r->n + n) + (r->n + n) / 2 + 64;
    if (room > SIZE_MAX / 4 / (row_bytes + 8)) return false;
    uint64_t *keys = realloc(r->keys, room * sizeof *keys);
    if (keys != NULL) r->keys = keys;
    float *scales = realloc(r->scales, room * sizeof *scales);
    if (scales != NULL) r->scales = scales;
    uint8_t *data = realloc(r->data, room * row_bytes);
    if (data != NULL) r->data = data;
    if (keys == NULL || scales == NULL || data == NULL) return false;
    r->room = room;
    return true;
}

/* False: a number that this storage cannot hold. */
static bool quantise(int storage, const float *row, uint32_t dim, uint8_t *out, float *scale) {
    float most = 0;
    bool finite = true;
    for (uint32_t d = 0; d < dim; d++) {
        finite = finite && isfinite(row[d]);
        most = fmaxf(most, fabsf(row[d]));
    }
    *scale = 0;
    if (!finite) return false;
    if (storage == PN_STORE_FLOAT32) {
        memcpy(out, row, dim * sizeof *row);
    } else if (storage == PN_STORE_FLOAT16) {
        if (most >= 65520.0f) return false;
        pn_halves_from_floats(row, (uint16_t *)(void *)out, dim);
    } else {
        /* A row too small for a normal scale becomes zeros: its error is below 1e-34. */
        *scale = most >= 1e-34f ? most / 127.0f : 0;
        for (uint32_t d = 0; d < dim; d++) {
            float q = *scale > 0 ? nearbyintf(row[d] / *scale) : 0;
            out[d] = (uint8_t)(int8_t)(q > 127 ? 127 : q < -127 ? -127 : q);
        }
    }
    return true;
}

enum pn_result pn_segment_add(struct pn_segment_writer *w, uint32_t i_table, uint32_t dim, const uint64_t *keys, const float *rows, size_t n) {
    if (i_table >= PN_MAX_TABLES || dim == 0 || dim > MAX_DIM) return PN_INVALID;
    struct rows *r = &w->tables[i_table];
    if (r->used && r->dim != dim) return PN_INVALID;
    const size_t row_bytes = pn_segment_row_bytes(w->storage, dim);
    if (!make_room(r, row_bytes, n)) return PN_NO_MEMORY;
    r->used = true;
    r->dim = dim;
    for (size_t i = 0; i < n; i++) {
        if (!quantise(w->storage, rows + i * dim, dim, r->data + r->n * row_bytes, &r->scales[r->n])) return PN_INVALID;
        r->keys[r->n++] = keys[i];
    }
    return PN_OK;
}

struct place { uint64_t key; size_t i; };

/* The order of the rows by key: radix sort from the low byte up; a byte that all keys share costs one pass of counting. */
static struct place *sorted(const struct rows *r) {
    struct place *a = malloc((r->n + 1) * sizeof *a), *b = malloc((r->n + 1) * sizeof *b);
    if (a == NULL || b == NULL) {
        free(a);
        free(b);
        return NULL;
    }
    for (size_t i = 0; i < r->n; i++) a[i] = (struct place){r->keys[i], i};
    for (unsigned shift = 0; shift < 64; shift += 8) {
        size_t at[257] = {0};
        for (size_t i = 0; i < r->n; i++) at[(a[i].key >> shift & 255) + 1]++;
        bool one = false;
        for (int v = 0; v < 256; v++) {
            one = one || at[v + 1] == r->n;
            at[v + 1] += at[v];
        }
        if (one) continue;
        for (size_t i = 0; i < r->n; i++) b[at[a[i].key >> shift & 255]++] = a[i];
        struct place *swap = a;
        a = b;
        b = swap;
    }
    free(b);
    return a;
}

static enum pn_result lay_out(const struct rows *r, int storage, struct entry *e, uint8_t *image) {
    const size_t row_bytes = pn_segment_row_bytes(storage, r->dim);
    struct place *order = sorted(r);
    if (order == NULL) return PN_NO_MEMORY;
    enum pn_result result = PN_OK;
    uint64_t *keys = (uint64_t *)(void *)(image + e->keys);
    float *scales = (float *)(void *)(image + e->scales);
    for (size_t i = 0; i < r->n; i++) {
        if (i > 0 && order[i].key == order[i - 1].key) result = PN_INVALID;
        keys[i] = order[i].key;
        if (storage == PN_STORE_INT8) scales[i] = r->scales[order[i].i];
        memcpy(image + e->rows + i * row_bytes, r->data + order[i].i * row_bytes, row_bytes);
    }
    free(order);
    e->crc[0] = pn_crc32c(0, keys, r->n * 8);
    e->crc[1] = pn_crc32c(0, scales, storage == PN_STORE_INT8 ? r->n * 4 : 0);
    e->crc[2] = pn_crc32c(0, image + e->rows, r->n * row_bytes);
    return result;
}

enum pn_result pn_segment_finish(struct pn_segment_writer *w, void **image, size_t *n_bytes, char digest_hex[65]) {
    struct header h = {.version = 1, .storage = (uint32_t)w->storage};
    struct entry entries[PN_MAX_TABLES] = {0};
    memcpy(h.magic, magic, sizeof magic);
    for (uint32_t t = 0; t < PN_MAX_TABLES; t++)
        if (w->tables[t].used) entries[h.n_tables++] = (struct entry){.i_table = t, .dim = w->tables[t].dim, .n_rows = w->tables[t].n};
    size_t end = sizeof h + h.n_tables * sizeof *entries;
    enum pn_result result = PN_OK;
    uint8_t *out = NULL;
    for (uint32_t i = 0; i < h.n_tables; i++)
        if (!place(&entries[i], w->storage, &end)) result = PN_NO_MEMORY;
    if (result == PN_OK && posix_memalign((void **)&out, PN_SEGMENT_ALIGN, end) != 0) {
        out = NULL;
        result = PN_NO_MEMORY;
    }
    if (result == PN_OK) memset(out, 0, end);
    for (uint32_t i = 0; result == PN_OK && i < h.n_tables; i++) result = lay_out(&w->tables[entries[i].i_table], w->storage, &entries[i], out);
    if (result == PN_OK) {
        h.n_bytes = end;
        h.crc = pn_crc32c(pn_crc32c(0, &h, sizeof h), entries, h.n_tables * sizeof *entries);
        memcpy(out, &h, sizeof h);
        memcpy(out + sizeof h, entries, h.n_tables * sizeof *entries);
        struct pn_digest d;
        pn_digest_start(&d);
        pn_digest_add(&d, out, end);
        pn_digest_hex(&d, digest_hex);
        *image = out;
        *n_bytes = end;
    } else {
        free(out);
    }
    pn_segment_abandon(w);
    return result;
}

/* ---- reading ---- */
static bool zeros(const uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (p[i] != 0) return false;
    return true;
}

static enum pn_result corrupt(struct pn_error *err, uint32_t i_table, const char *what) {
    return pn_fail(err, PN_CORRUPT, "block of table %u: %s", i_table, what);
}

static enum pn_result read_table(struct pn_segment *s, const struct entry *e, const uint8_t *image, size_t end, struct pn_error *err) {
    const size_t n = e->n_rows, scale_bytes = s->storage == PN_STORE_INT8 ? n * 4 : 0, row_bytes = n * pn_segment_row_bytes(s->storage, e->dim);
    const uint64_t *keys = (const uint64_t *)(const void *)(image + e->keys);
    const float *scales = (const float *)(const void *)(image + e->scales);
    if (pn_crc32c(0, keys, n * 8) != e->crc[0]) return corrupt(err, e->i_table, "the keys' checksum is wrong");
    if (pn_crc32c(0, scales, scale_bytes) != e->crc[1]) return corrupt(err, e->i_table, "the scales' checksum is wrong");
    if (pn_crc32c(0, image + e->rows, row_bytes) != e->crc[2]) return corrupt(err, e->i_table, "the rows' checksum is wrong");
    size_t keys_end = e->keys + n * 8, scales_end = e->scales + scale_bytes, rows_end = e->rows + row_bytes;
    if (!zeros(image + keys_end, e->scales - keys_end) || !zeros(image + scales_end, e->rows - scales_end) || !zeros(image + rows_end, end - rows_end))
        return corrupt(err, e->i_table, "the space between sections is not zero");
    for (size_t i = 1; i < n; i++)
        if (keys[i] <= keys[i - 1]) return corrupt(err, e->i_table, "the keys do not rise");
    for (size_t i = 0; i < scale_bytes / 4; i++)
        if (!(scales[i] >= 0) || !isfinite(scales[i])) return corrupt(err, e->i_table, "a scale is no number");
    s->tables[s->n_tables++] = (struct pn_segment_table){e->i_table, e->dim, n, keys, scales, image + e->rows};
    return PN_OK;
}

enum pn_result pn_segment_read(struct pn_segment *s, const void *image, size_t n_bytes, struct pn_error *err) {
    *s = (struct pn_segment){0};
    struct header h;
    struct entry entries[PN_MAX_TABLES];
    if (n_bytes < sizeof h) return pn_fail(err, PN_CORRUPT, "header: %zu bytes are no segment", n_bytes);
    memcpy(&h, image, sizeof h);
    if (memcmp(h.magic, magic, sizeof magic) != 0) return pn_fail(err, PN_CORRUPT, "header: not a segment");
    if (h.version != 1) return pn_fail(err, PN_CORRUPT, "header: format version %u, this program reads 1", h.version);
    if (h.storage > PN_STORE_INT8 || h.n_tables > PN_MAX_TABLES || n_bytes < sizeof h + h.n_tables * sizeof *entries)
        return pn_fail(err, PN_CORRUPT, "header: impossible storage or number of tables");
    memcpy(entries, (const uint8_t *)image + sizeof h, h.n_tables * sizeof *entries);
    uint32_t crc = h.crc;
    h.crc = 0;
    if (pn_crc32c(pn_crc32c(0, &h, sizeof h), entries, h.n_tables * sizeof *entries) != crc) return pn_fail(err, PN_CORRUPT, "header: the checksum is wrong");
    if (!zeros(h.zero, sizeof h.zero)) return pn_fail(err, PN_CORRUPT, "header: unknown fields");
    size_t end = sizeof h + h.n_tables * sizeof *entries, ends[PN_MAX_TABLES];
    for (uint32_t i = 0; i < h.n_tables; i++) {
        struct entry right = {.i_table = entries[i].i_table, .dim = entries[i].dim, .n_rows = entries[i].n_rows};
        memcpy(right.crc, entries[i].crc, sizeof right.crc);
        if (right.i_table >= PN_MAX_TABLES || (i > 0 && right.i_table <= entries[i - 1].i_table) || right.dim == 0 || right.dim > MAX_DIM ||
            !place(&right, (int)h.storage, &end) || memcmp(&right, &entries[i], sizeof right) != 0)
            return corrupt(err, right.i_table, "impossible size or place");
        ends[i] = end;
    }
    if (h.n_bytes != n_bytes || end != n_bytes)
        return pn_fail(err, PN_CORRUPT, "header: %zu bytes are there, its tables need %zu", n_bytes, end);
    s->storage = (int)h.storage;
    for (uint32_t i = 0; i < h.n_tables; i++) {
        enum pn_result r = read_table(s, &entries[i], image, ends[i], err);
        if (r != PN_OK) return r;
    }
    return PN_OK;
}

size_t pn_segment_guess(const struct pn_segment_table *t, uint64_t key) {
    if (t->n_rows < 2 || key <= t->keys[0]) return 0;
    uint64_t span = t->keys[t->n_rows - 1] - t->keys[0], from = key - t->keys[0];
    if (from >= span) return t->n_rows - 1;
    return (size_t)((unsigned __int128)from * (t->n_rows - 1) / span);
}

size_t pn_segment_find(const struct pn_segment_table *t, uint64_t key, size_t guess) {
    const uint64_t *keys = t->keys;
    if (t->n_rows == 0 || key < keys[0] || key > keys[t->n_rows - 1]) return SIZE_MAX;
    if (guess >= t->n_rows) guess = t->n_rows - 1;
    /* Doubling steps away from the guess until the key is between lo and hi, then halves. keys[lo] <= key < keys[hi] */
    size_t lo, hi, step = 8;
    if (keys[guess] <= key) {
        lo = guess;
        hi = lo + 1;
        while (hi < t->n_rows && keys[hi] <= key) {
            lo = hi;
            hi = t->n_rows - lo > step ? lo + step : t->n_rows;
            step *= 2;
        }
    } else {
        hi = guess;
        lo = hi - 1; /* guess > 0, as keys[0] <= key */
        while (keys[lo] > key) {
            hi = lo;
            lo = lo > step ? lo - step : 0;
            step *= 2;
        }
    }
    while (hi - lo > 1) {
        size_t middle = lo + (hi - lo) / 2;
        if (keys[middle] <= key) lo = middle;
        else hi = middle;
    }
    return keys[lo] == key ? lo : SIZE_MAX;
}

void pn_segment_row(const struct pn_segment *s, const struct pn_segment_table *t, size_t i, float *row) {
    const uint8_t *data = t->rows + i * pn_segment_row_bytes(s->storage, t->dim);
    if (s->storage == PN_STORE_FLOAT32) {
        memcpy(row, data, t->dim * sizeof *row);
    } else if (s->storage == PN_STORE_FLOAT16) {
        pn_floats_from_halves((const uint16_t *)(const void *)data, row, t->dim);
    } else {
        const int8_t *q = (const int8_t *)data;
        for (uint32_t d = 0; d < t->dim; d++) row[d] = t->scales[i] * (float)q[d];
    }
}
