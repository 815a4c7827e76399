/* Buckets and stash of a slot; the idea is in rows.h. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "ps/table/rows.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define ALL_BITS 54u       /* of a mixed key below its slot's ten */

/* An index as it is, or as it will be: growth makes a new one beside the old. */
struct index { const struct pn_rows *t; uint32_t i_slot, n_buckets, low_bits; const uint32_t *chunks; size_t stride; };

static struct index index_of(const struct pn_rows *t, uint32_t i_slot) {
    return (struct index){t, i_slot, t->indexes[i_slot].n_buckets, t->indexes[i_slot].low_bits, t->chunk_of + i_slot, PN_SLOTS};
}

/* Of the 54 bits the upper 32 choose the home bucket, by multiplication: any number of buckets, and growth keeps the order. */
static inline uint32_t home(uint32_t n_buckets, uint64_t mix) { return (uint32_t)((uint64_t)(uint32_t)(mix >> 22) * n_buckets >> 32); }
static inline uint64_t *bucket_of(const struct pn_rows *t, uint32_t i_slot, uint32_t b) {
    return (uint64_t *)(void *)(t->index_memory.base + ((uint64_t)t->chunk_of[(size_t)(b / PN_CHUNK) * PN_SLOTS + i_slot] + b % PN_CHUNK) * 64);
}
static uint64_t *bucket_at(const struct index *x, uint32_t b) { return pn_pages_at(&x->t->index_memory, (uint64_t)x->chunks[b / PN_CHUNK * x->stride] + b % PN_CHUNK); }
static inline uint64_t mask_of(uint32_t low_bits) { return (1ull << low_bits) - 1; }

/* Enough low bits to tell the keys apart whose homes are the eight buckets that reach one place. */
static uint32_t low_bits_of(uint32_t n_buckets) {
    uint32_t log = 31u - (uint32_t)__builtin_clz(n_buckets), bits = ALL_BITS - log + 3;
    return bits < ALL_BITS ? bits : ALL_BITS;
}

static uint32_t find_stashed(const struct pn_slot *s, uint64_t mix) {
    uint32_t low = 0, high = s->n_stashed;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (s->stash[middle].mix < mix) low = middle + 1;
        else high = middle;
    }
    return low;
}

static uint32_t stashed_row(const struct pn_slot *s, uint64_t mix) {
    if (s->n_stashed == 0) return PN_NO_ROW;
    const uint32_t p = find_stashed(s, mix);
    return p < s->n_stashed && s->stash[p].mix == mix ? s->stash[p].i_row : PN_NO_ROW;
}

/* ---- finding, three times: one compare of a line differs ---- */

/* Bit i: entry i has these low bits. An empty entry is 0 and may match, too; but it comes behind all rows of the bucket, and as a row's number is
 * stored plus one, it reads as PN_NO_ROW, which is the truth: nothing went on to the next bucket. */
static inline uint32_t match_portable(const uint64_t *bucket, uint64_t low, uint64_t mask) {
    uint32_t found = 0;
    for (uint32_t i = 0; i < PN_BUCKET; i++) found |= (uint32_t)((bucket[i] & mask) == low) << i;
    return found;
}
#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2,bmi,bmi2")))
#define AVX512 __attribute__((target("avx512f,avx512dq,avx512vl,bmi,bmi2")))
__attribute__((target("avx2,bmi,bmi2"), always_inline)) static inline uint32_t match_avx2(const uint64_t *bucket, uint64_t low, uint64_t mask) {
    const __m256i l = _mm256_set1_epi64x((long long)low), m = _mm256_set1_epi64x((long long)mask);
    __m256i x = _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_load_si256((const void *)bucket), m), l);
    __m256i y = _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_load_si256((const void *)(bucket + 4)), m), l);
    return (uint32_t)_mm256_movemask_pd(_mm256_castsi256_pd(x)) | (uint32_t)_mm256_movemask_pd(_mm256_castsi256_pd(y)) << 4;
}
__attribute__((target("avx512f,avx512dq,avx512vl,bmi,bmi2"), always_inline)) static inline uint32_t match_avx512(const uint64_t *bucket, uint64_t low, uint64_t mask) {
    return _mm512_testn_epi64_mask(_mm512_xor_si512(_mm512_load_si512(bucket), _mm512_set1_epi64((long long)low)), _mm512_set1_epi64((long long)mask));
}
#endif

/* Behind the home bucket, from bucket number `at` of the reach on. */
#define FURTHER(NAME, TARGET, MATCH)                                                                                     \
    TARGET static uint32_t NAME(const struct pn_rows *t, uint64_t mix, uint32_t at) {                                    \
        const uint32_t i_slot = (uint32_t)(mix >> ALL_BITS);                                                             \
        const struct pn_slot_index x = t->indexes[i_slot];                                                               \
        const uint64_t mask = mask_of(x.low_bits);                                                                       \
        uint32_t b = home(x.n_buckets, mix) + at;                                                                        \
        for (; at < PN_REACH && at < x.n_buckets; at++, b++) {                                                           \
            if (b >= x.n_buckets) b -= x.n_buckets;                                                                      \
            const uint64_t *bucket = bucket_of(t, i_slot, b);                                                            \
            const uint32_t found = MATCH(bucket, mix & mask, mask);                                                      \
            if (found) return (uint32_t)(bucket[__builtin_ctz(found)] >> x.low_bits) - 1;                                \
            if (bucket[PN_BUCKET - 1] == 0) return PN_NO_ROW;                                                            \
        }                                                                                                                \
        return stashed_row(&t->slots[i_slot], mix);                                                                      \
    }

FURTHER(further_portable, , match_portable)
#if defined(__x86_64__)
FURTHER(further_avx2, AVX2, match_avx2)
FURTHER(further_avx512, AVX512, match_avx512)
#endif

uint32_t pn_index_find(const struct pn_rows *t, uint64_t mix) { return t->indexes[mix >> ALL_BITS].n_buckets > 0 ? further_portable(t, mix, 0) : PN_NO_ROW; }

static const _Alignas(64) uint64_t no_bucket[PN_BUCKET]; /* where the keys of a slot without an index are looked for */

#define BLOCK PN_FIND_BLOCK
#define AHEAD 64u /* lines on their way: more than the core can wait for at once, so that it never runs out */
#define LAG 16u   /* keys between the order for a line of the map of pages and the reading of it */

/* Where a row is, its first bytes asked for; the line of the map of pages that tells it has been asked for before. */
static inline const void *ask_for(const struct pn_rows *t, pn_place place, size_t n_bytes) {
    if ((uint32_t)place == PN_NO_ROW) return NULL;
    const uint8_t *row = pn_rows_at(t, place);
    for (size_t b = 0; b < n_bytes && b < PN_MOST_ASKED; b += PN_LINE) __builtin_prefetch(row + b);
    return row;
}

/* One body, compiled for each machine. No load that waits for memory stands between the orders for others: the lines of the index are asked for some keys
 * ahead; when an entry has come, the line of the map of pages that tells where its row is; LAG keys later the row, and it is read by the caller behind the
 * block. */
#define FIND(NAME, TARGET, MATCH, FURTHER)                                                                                        \
    TARGET static size_t NAME(const struct pn_rows *t, const uint64_t *keys, size_t n, pn_place *places, const void **rows, size_t n_bytes) { \
        size_t n_missing = 0, n_further = 0;                                                                             \
        uint32_t further[BLOCK];                                                                                         \
        uint64_t mix[BLOCK];                                                                                             \
        const uint64_t *first[BLOCK + AHEAD];                                                                            \
        for (size_t i = 0; i < n; i++) mix[i] = pn_mix64(keys[i]);                                                       \
        for (size_t i = 0; i < n; i++) {                                                                                 \
            const uint32_t i_slot = (uint32_t)(mix[i] >> ALL_BITS), n_buckets = t->indexes[i_slot].n_buckets;            \
            first[i] = n_buckets > 0 ? bucket_of(t, i_slot, home(n_buckets, mix[i])) : no_bucket;                        \
        }                                                                                                                \
        for (size_t i = 0; i < AHEAD; i++) first[n + i] = no_bucket;                                                     \
        for (size_t i = 0; i < AHEAD; i++) __builtin_prefetch(first[i]);                                                 \
        for (size_t i = 0; i < n; i++) {                                                                                 \
            __builtin_prefetch(first[i + AHEAD]);                                                                        \
            if (rows != NULL && i >= LAG) rows[i - LAG] = ask_for(t, places[i - LAG], n_bytes);                          \
            const uint32_t i_slot = (uint32_t)(mix[i] >> ALL_BITS);                                                      \
            const uint32_t low_bits = t->indexes[i_slot].low_bits;                                                       \
            const uint64_t *bucket = first[i], mask = mask_of(low_bits), low = mix[i] & mask;                            \
            uint32_t found = MATCH(bucket, low, mask), row;                                                              \
            if (__builtin_expect(found != 0, 1)) row = (uint32_t)(bucket[__builtin_ctz(found)] >> low_bits) - 1;         \
            else if (bucket[PN_BUCKET - 1] == 0) row = PN_NO_ROW; /* filled from the front: nothing went on */           \
            else { /* a fiftieth: its next line is asked for, and read when the others are done */                       \
                __builtin_prefetch(bucket + PN_BUCKET);                                                                  \
                __builtin_prefetch(bucket + 2 * PN_BUCKET);                                                              \
                further[n_further++] = (uint32_t)i;                                                                      \
                places[i] = PN_NO_ROW; /* for now: nothing to ask for */                                                 \
                continue;                                                                                                \
            }                                                                                                            \
            n_missing += row == PN_NO_ROW;                                                                               \
            places[i] = (pn_place)i_slot << 32 | row;                                                                    \
            if (rows != NULL && row != PN_NO_ROW) __builtin_prefetch(pn_rows_page(t, places[i]));                        \
        }                                                                                                                \
        for (size_t i = n > LAG ? n - LAG : 0; rows != NULL && i < n; i++) rows[i] = ask_for(t, places[i], n_bytes);     \
        for (size_t k = 0; k < n_further; k++) {                                                                         \
            const uint32_t row = FURTHER(t, mix[further[k]], 1);                                                         \
            n_missing += row == PN_NO_ROW;                                                                               \
            places[further[k]] = (mix[further[k]] >> ALL_BITS) << 32 | row;                                              \
            if (rows != NULL) rows[further[k]] = ask_for(t, places[further[k]], n_bytes);                                \
        }                                                                                                                \
        return n_missing;                                                                                                \
    }

FIND(find_portable, , match_portable, further_portable)
#if defined(__x86_64__)
FIND(find_avx2, AVX2, match_avx2, further_avx2)
FIND(find_avx512, AVX512, match_avx512, further_avx512)
#endif

static size_t find_first(const struct pn_rows *t, const uint64_t *keys, size_t n, pn_place *places, const void **rows, size_t n_bytes);
static size_t (*find_block)(const struct pn_rows *, const uint64_t *, size_t, pn_place *, const void **, size_t) = find_first;

bool pn_index_use(int variant) {
    if (variant == 0) find_block = find_portable;
#if defined(__x86_64__)
    else if (variant == 1 && __builtin_cpu_supports("avx2")) find_block = find_avx2;
    else if (variant == 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) find_block = find_avx512;
#endif
    else return false;
    return true;
}

static size_t find_first(const struct pn_rows *t, const uint64_t *keys, size_t n, pn_place *places, const void **rows, size_t n_bytes) {
    for (int variant = 2; !pn_index_use(variant); variant--) continue;
    return find_block(t, keys, n, places, rows, n_bytes);
}

size_t pn_rows_find(const struct pn_rows *t, const uint64_t *keys, size_t n, pn_place *places) {
    size_t n_missing = 0;
    for (size_t begin = 0; begin < n; begin += BLOCK) n_missing += find_block(t, keys + begin, n - begin < BLOCK ? n - begin : BLOCK, places + begin, NULL, 0);
    return n_missing;
}

size_t pn_rows_ask(const struct pn_rows *t, const uint64_t *keys, size_t n, const void **rows, size_t n_bytes) {
    pn_place places[BLOCK];
    assert(n <= BLOCK);
    return find_block(t, keys, n, places, rows, n_bytes);
}

/* ---- putting ---- */

/* False: its eight buckets are full. */
static bool put(const struct index *x, uint64_t mix, uint32_t i_row) {
    uint32_t b = home(x->n_buckets, mix);
    for (uint32_t at = 0; at < PN_REACH && at < x->n_buckets; at++) {
        uint64_t *bucket = bucket_at(x, b);
        if (bucket[PN_BUCKET - 1] == 0)
            for (uint32_t i = 0; i < PN_BUCKET; i++)
                if (bucket[i] == 0) {
                    bucket[i] = (uint64_t)(i_row + 1) << x->low_bits | (mix & mask_of(x->low_bits));
                    return true;
                }
        if (++b == x->n_buckets) b = 0;
    }
    return false;
}

static void put_stashed(struct pn_slot *s, uint64_t mix, uint32_t i_row) {
    assert(s->n_stashed < s->max_stashed && "no room was reserved");
    uint32_t p = find_stashed(s, mix);
    memmove(s->stash + p + 1, s->stash + p, (s->n_stashed - p) * sizeof *s->stash);
    s->stash[p] = (struct pn_stashed){mix, i_row};
    s->n_stashed++;
}

void pn_index_put(struct pn_rows *t, uint64_t mix, uint32_t i_row) {
    const uint32_t i_slot = (uint32_t)(mix >> ALL_BITS);
    const struct index x = index_of(t, i_slot);
    if (!put(&x, mix, i_row)) put_stashed(&t->slots[i_slot], mix, i_row);
}

/* ---- the way back: from entries to keys ---- */

/* Calls each(ctx, mix, row) for every row in the index. The homes that reach bucket b begin at `start`; of all numbers from there on, one within
 * the reach has an entry's low bits. */
static void for_each(const struct index *x, const struct pn_slot *s, void (*each)(void *, uint64_t, uint32_t), void *ctx) {
    const uint64_t mask = mask_of(x->low_bits), all = (1ull << ALL_BITS) - 1, slot = (uint64_t)x->i_slot << ALL_BITS;
    for (uint32_t b = 0; b < x->n_buckets; b++) {
        const uint64_t *bucket = bucket_at(x, b);
        if (bucket[0] == 0) continue;
        uint32_t first = b >= PN_REACH - 1 ? b - (PN_REACH - 1) : b + x->n_buckets - (PN_REACH - 1);
        uint64_t start = x->n_buckets < PN_REACH ? 0 : ((((uint64_t)first << 32) + x->n_buckets - 1) / x->n_buckets) << 22;
        for (uint32_t i = 0; i < PN_BUCKET && bucket[i] != 0; i++) {
            uint64_t low = bucket[i] & mask, mix = x->low_bits == ALL_BITS ? low : ((start & ~mask) | low) + ((start & mask) > low ? mask + 1 : 0);
            each(ctx, (mix & all) | slot, (uint32_t)(bucket[i] >> x->low_bits) - 1);
        }
    }
    for (uint32_t i = 0; i < s->n_stashed; i++) each(ctx, s->stash[i].mix, s->stash[i].i_row);
}

struct key_list { uint64_t *keys; uint32_t n; };
static void list_key(void *ctx, uint64_t mix, uint32_t i_row) {
    struct key_list *l = ctx;
    if (i_row < l->n) l->keys[i_row] = pn_unmix64(mix);
}
void pn_index_keys(const struct pn_rows *t, uint32_t i_slot, uint32_t n, uint64_t *keys) {
    struct key_list l = {keys, n};
    const struct index x = index_of(t, i_slot);
    for_each(&x, &t->slots[i_slot], list_key, &l);
}

/* ---- growing ---- */

static const uint32_t chunk_sizes[PN_PAGE_SIZES] = {1, 8, PN_CHUNK}; /* buckets: an index of one chunk may have a smaller one */
static int size_of(uint32_t n_buckets) { return n_buckets <= 1 ? 0 : n_buckets <= 8 ? 1 : 2; }
static uint32_t n_chunks(uint32_t n_buckets) { return (n_buckets + PN_CHUNK - 1) / PN_CHUNK; }

bool pn_index_open(struct pn_rows *t) { return pn_pages_open(&t->index_memory, PN_BUCKET * sizeof(uint64_t), chunk_sizes); }

void pn_index_close(struct pn_rows *t) {
    pn_pages_close(&t->index_memory);
    for (uint32_t i = 0; i < PN_SLOTS; i++) free(t->slots[i].stash);
}

bool pn_map_reserve(struct pn_rows *t, uint32_t **map, size_t *max, size_t blocks) {
    if (blocks <= *max) return true;
    const size_t more = *max < 4 ? blocks : blocks + *max / 4;
    uint32_t *grown = aligned_alloc(64, more * PN_SLOTS * sizeof *grown);
    if (grown == NULL) return false;
    if (*max > 0) memcpy(grown, *map, *max * PN_SLOTS * sizeof *grown);
    t->n_small_bytes += (more - *max) * PN_SLOTS * sizeof *grown;
    free(*map);
    *map = grown;
    *max = more;
    return true;
}

static bool reserve_stash(struct pn_rows *t, struct pn_slot *s, uint32_t n) {
    if (n <= s->max_stashed) return true;
    uint32_t max = n + n / 4;
    struct pn_stashed *stash = realloc(s->stash, max * sizeof *stash);
    if (stash == NULL) return false;
    t->n_small_bytes += (max - s->max_stashed) * sizeof *stash;
    s->stash = stash;
    s->max_stashed = max;
    return true;
}

static void free_stash(struct pn_rows *t, struct pn_slot *s) {
    t->n_small_bytes -= s->max_stashed * sizeof *s->stash;
    free(s->stash);
    s->stash = NULL;
    s->n_stashed = s->max_stashed = 0;
}

static void give_chunks(struct pn_rows *t, const uint32_t *chunks, size_t stride, uint32_t n_buckets) {
    for (uint32_t i = n_chunks(n_buckets); i-- > 0;) pn_pages_give(&t->index_memory, chunks[i * stride], size_of(n_buckets));
}

static uint32_t room_of(uint32_t n_buckets) { return n_buckets < 4 ? n_buckets * PN_BUCKET : (uint32_t)((uint64_t)n_buckets * PN_BUCKET * 7 / 8); }

struct move { struct pn_rows *t; struct index to; struct pn_slot stash; bool failed; };
static void move_entry(void *ctx, uint64_t mix, uint32_t i_row) {
    struct move *m = ctx;
    if (put(&m->to, mix, i_row)) return;
    if (m->failed || !reserve_stash(m->t, &m->stash, m->stash.n_stashed + 1)) m->failed = true;
    else put_stashed(&m->stash, mix, i_row);
}

/* keys NULL: what the index holds now. */
static bool rebuild(struct pn_rows *t, uint32_t i_slot, uint32_t n_buckets, const uint64_t *keys, uint32_t n_keys) {
    struct pn_slot *s = &t->slots[i_slot];
    const uint32_t n = n_chunks(n_buckets);
    if (!pn_map_reserve(t, &t->chunk_of, &t->max_chunks, n)) return false;
    uint32_t *chunks = malloc(n * sizeof *chunks);
    if (chunks == NULL) return false;
    struct move m = {.t = t, .to = {t, i_slot, n_buckets, low_bits_of(n_buckets), chunks, 1}};
    for (uint32_t i = 0; i < n; i++) {
        chunks[i] = pn_pages_take(&t->index_memory, size_of(n_buckets));
        if (chunks[i] == PN_NO_BLOCK) {
            while (i-- > 0) pn_pages_give(&t->index_memory, chunks[i], size_of(n_buckets));
            free(chunks);
            return false;
        }
        memset(pn_pages_at(&t->index_memory, chunks[i]), 0, (size_t)chunk_sizes[size_of(n_buckets)] * t->index_memory.unit_bytes);
    }
    const struct index old = index_of(t, i_slot);
    if (keys == NULL) for_each(&old, s, move_entry, &m);
    for (uint32_t i = 0; keys != NULL && i < n_keys; i++) move_entry(&m, pn_mix64(keys[i]), i);
    if (m.failed) {
        give_chunks(t, chunks, 1, n_buckets);
        free_stash(t, &m.stash);
    } else {
        give_chunks(t, old.chunks, old.stride, old.n_buckets);
        free_stash(t, s);
        for (uint32_t i = 0; i < n; i++) t->chunk_of[(size_t)i * PN_SLOTS + i_slot] = chunks[i];
        t->indexes[i_slot] = (struct pn_slot_index){n_buckets, m.to.low_bits};
        s->stash = m.stash.stash;
        s->n_stashed = m.stash.n_stashed;
        s->max_stashed = m.stash.max_stashed;
    }
    free(chunks);
    return !m.failed;
}

bool pn_index_grow(struct pn_rows *t, uint32_t i_slot, uint32_t n_new, bool *grown) {
    struct pn_slot *s = &t->slots[i_slot];
    const uint64_t n_rows = (uint64_t)s->n_rows + n_new;
    const uint32_t before = t->indexes[i_slot].n_buckets;
    assert(n_rows < PN_NO_ROW);
    /* Crafted keys may fill a few buckets and leave the rest empty: then the stash takes them, and the index does not grow for them alone. */
    bool crowded = s->n_stashed > 16 + s->n_rows / 32 && s->n_rows - s->n_stashed > room_of(before) / 2;
    uint32_t n_buckets = before > 0 ? before : 1;
    while (room_of(n_buckets) < n_rows || n_rows >> (64 - low_bits_of(n_buckets)) > 0 || crowded) {
        crowded = false;
        n_buckets += n_buckets < 8 ? 1 : n_buckets < 16 ? 1 + i_slot % 8 : n_buckets / 8; /* slots grow at different times */
    }
    *grown = n_buckets != before;
    return !*grown || rebuild(t, i_slot, n_buckets, NULL, 0);
}

bool pn_index_reserve(struct pn_rows *t, uint32_t i_slot, uint32_t n_new) {
    bool grown;
    return pn_index_grow(t, i_slot, n_new, &grown) && reserve_stash(t, &t->slots[i_slot], t->slots[i_slot].n_stashed + n_new);
}

bool pn_index_remake(struct pn_rows *t, uint32_t i_slot, const uint64_t *keys, uint32_t n) { return rebuild(t, i_slot, t->indexes[i_slot].n_buckets, keys, n); }
