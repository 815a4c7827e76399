/* Buckets and stash of a slot; the idea is in rows.h. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "ps/table/rows.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define AHEAD 24u          /* keys whose cache misses overlap */
#define BLOCK 256u
#define ALL_BITS 54u       /* of a mixed key below its slot's ten */

/* Of the 54 bits the upper 32 choose the home bucket, by multiplication: any number of buckets, and growth keeps the order. */
static inline uint32_t home(const struct pn_slot *s, uint64_t mix) { return (uint32_t)((uint64_t)(uint32_t)(mix >> 22) * s->n_buckets >> 32); }
static inline uint64_t *bucket_at(const struct pn_slot *s, uint32_t b) { return s->chunks[b / PN_CHUNK] + b % PN_CHUNK * PN_BUCKET; }
static inline uint64_t low_mask(const struct pn_slot *s) { return (1ull << s->low_bits) - 1; }

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

/* ---- finding, three times: one compare of a line differs ---- */

/* Bit i: entry i has these low bits. The empty entry is 0; a row's number is stored plus one, so no entry of a row is. */
static inline uint32_t match_portable(const uint64_t *bucket, uint64_t low, uint64_t mask) {
    uint32_t found = 0;
    for (uint32_t i = 0; i < PN_BUCKET; i++) found |= (uint32_t)((bucket[i] & mask) == low && bucket[i] != 0) << i;
    return found;
}
#if defined(__x86_64__)
__attribute__((target("avx2"), always_inline)) static inline uint32_t match_avx2(const uint64_t *bucket, uint64_t low, uint64_t mask) {
    const __m256i l = _mm256_set1_epi64x((long long)low), m = _mm256_set1_epi64x((long long)mask), zero = _mm256_setzero_si256();
    __m256i a = _mm256_load_si256((const void *)bucket), b = _mm256_load_si256((const void *)(bucket + 4));
    __m256i x = _mm256_andnot_si256(_mm256_cmpeq_epi64(a, zero), _mm256_cmpeq_epi64(_mm256_and_si256(a, m), l));
    __m256i y = _mm256_andnot_si256(_mm256_cmpeq_epi64(b, zero), _mm256_cmpeq_epi64(_mm256_and_si256(b, m), l));
    return (uint32_t)_mm256_movemask_pd(_mm256_castsi256_pd(x)) | (uint32_t)_mm256_movemask_pd(_mm256_castsi256_pd(y)) << 4;
}
__attribute__((target("avx512f,avx512dq"), always_inline)) static inline uint32_t match_avx512(const uint64_t *bucket, uint64_t low, uint64_t mask) {
    __m512i a = _mm512_load_si512(bucket);
    __mmask8 there = _mm512_test_epi64_mask(a, a);
    return _mm512_mask_cmpeq_epi64_mask(there, _mm512_and_si512(a, _mm512_set1_epi64((long long)mask)), _mm512_set1_epi64((long long)low));
}
#endif

/* One body, compiled for each machine: FIND(name, target, match). */
#define FIND(NAME, TARGET, MATCH)                                                                                                                  \
    TARGET static size_t NAME(const struct pn_rows *t, const uint64_t *keys, size_t n, pn_place *places) {                                         \
        size_t n_missing = 0;                                                                                                                      \
        uint64_t mix[BLOCK];                                                                                                                       \
        uint64_t *first[BLOCK];                                                                                                                    \
        for (size_t i = 0; i < n; i++) mix[i] = pn_mix64(keys[i]);                                                                                 \
        for (size_t i = 0; i < n + AHEAD; i++) {                                                                                                   \
            if (i < n) {                                                                                                                           \
                const struct pn_slot *s = &t->slots[mix[i] >> ALL_BITS];                                                                           \
                first[i] = s->n_buckets > 0 ? bucket_at(s, home(s, mix[i])) : NULL;                                                                \
                __builtin_prefetch(first[i]);                                                                                                      \
            }                                                                                                                                      \
            if (i < AHEAD) continue;                                                                                                               \
            const size_t k = i - AHEAD;                                                                                                            \
            const struct pn_slot *s = &t->slots[mix[k] >> ALL_BITS];                                                                               \
            const uint64_t mask = low_mask(s), low = mix[k] & mask;                                                                                \
            uint32_t row = PN_NO_ROW;                                                                                                              \
            if (first[k] != NULL) {                                                                                                                \
                const uint64_t *bucket = first[k];                                                                                                 \
                uint32_t b = 0, at = 0;                                                                                                            \
                for (;;) {                                                                                                                         \
                    uint32_t found = MATCH(bucket, low, mask);                                                                                     \
                    if (found) {                                                                                                                   \
                        row = (uint32_t)(bucket[__builtin_ctz(found)] >> s->low_bits) - 1;                                                         \
                        break;                                                                                                                     \
                    }                                                                                                                              \
                    if (bucket[PN_BUCKET - 1] == 0) break; /* filled from the front: nothing went on to the next */                                \
                    if (at == 0) b = home(s, mix[k]);                                                                                              \
                    if (++at == PN_REACH || at == s->n_buckets) {                                                                                  \
                        if (s->n_stashed > 0) {                                                                                                    \
                            uint32_t p = find_stashed(s, mix[k]);                                                                                  \
                            if (p < s->n_stashed && s->stash[p].mix == mix[k]) row = s->stash[p].i_row;                                            \
                        }                                                                                                                          \
                        break;                                                                                                                     \
                    }                                                                                                                              \
                    if (++b == s->n_buckets) b = 0;                                                                                                \
                    bucket = bucket_at(s, b);                                                                                                      \
                }                                                                                                                                  \
            }                                                                                                                                      \
            n_missing += row == PN_NO_ROW;                                                                                                         \
            places[k] = (pn_place)(mix[k] >> ALL_BITS) << 32 | row;                                                                                \
        }                                                                                                                                          \
        return n_missing;                                                                                                                          \
    }

FIND(find_portable, , match_portable)
#if defined(__x86_64__)
FIND(find_avx2, __attribute__((target("avx2,bmi"))), match_avx2)
FIND(find_avx512, __attribute__((target("avx512f,avx512dq,avx512vl,bmi"))), match_avx512)
#endif

static size_t find_first(const struct pn_rows *t, const uint64_t *keys, size_t n, pn_place *places);
static size_t (*find_block)(const struct pn_rows *, const uint64_t *, size_t, pn_place *) = find_first;

bool pn_index_use(int variant) {
    if (variant == 0) find_block = find_portable;
#if defined(__x86_64__)
    else if (variant == 1 && __builtin_cpu_supports("avx2")) find_block = find_avx2;
    else if (variant == 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) find_block = find_avx512;
#endif
    else return false;
    return true;
}

static size_t find_first(const struct pn_rows *t, const uint64_t *keys, size_t n, pn_place *places) {
    for (int variant = 2; !pn_index_use(variant); variant--) continue;
    return find_block(t, keys, n, places);
}

size_t pn_rows_find(const struct pn_rows *t, const uint64_t *keys, size_t n, pn_place *places) {
    size_t n_missing = 0;
    for (size_t begin = 0; begin < n; begin += BLOCK) n_missing += find_block(t, keys + begin, n - begin < BLOCK ? n - begin : BLOCK, places + begin);
    return n_missing;
}

/* ---- putting ---- */

/* False: its eight buckets are full. */
static bool put(struct pn_slot *s, uint64_t mix, uint32_t i_row) {
    uint32_t b = home(s, mix);
    for (uint32_t at = 0; at < PN_REACH && at < s->n_buckets; at++) {
        uint64_t *bucket = bucket_at(s, b);
        if (bucket[PN_BUCKET - 1] == 0)
            for (uint32_t i = 0; i < PN_BUCKET; i++)
                if (bucket[i] == 0) {
                    bucket[i] = (uint64_t)(i_row + 1) << s->low_bits | (mix & low_mask(s));
                    return true;
                }
        if (++b == s->n_buckets) b = 0;
    }
    return false;
}

void pn_index_put(struct pn_slot *s, uint64_t mix, uint32_t i_row) {
    if (put(s, mix, i_row)) return;
    assert(s->n_stashed < s->max_stashed && "no room was reserved");
    uint32_t p = find_stashed(s, mix);
    memmove(s->stash + p + 1, s->stash + p, (s->n_stashed - p) * sizeof *s->stash);
    s->stash[p] = (struct pn_stashed){mix, i_row};
    s->n_stashed++;
}

/* ---- the way back: from entries to keys ---- */

/* Calls each(ctx, mix, row) for every row in the index. The homes that reach bucket b begin at `start`; of all numbers from there on, one within
 * the reach has an entry's low bits. */
static void for_each(const struct pn_slot *s, uint32_t i_slot, void (*each)(void *, uint64_t, uint32_t), void *ctx) {
    const uint64_t mask = low_mask(s), all = (1ull << ALL_BITS) - 1, slot = (uint64_t)i_slot << ALL_BITS;
    for (uint32_t b = 0; b < s->n_buckets; b++) {
        const uint64_t *bucket = bucket_at(s, b);
        if (bucket[0] == 0) continue;
        uint32_t first = b >= PN_REACH - 1 ? b - (PN_REACH - 1) : b + s->n_buckets - (PN_REACH - 1);
        uint64_t start = s->n_buckets < PN_REACH ? 0 : ((((uint64_t)first << 32) + s->n_buckets - 1) / s->n_buckets) << 22;
        for (uint32_t i = 0; i < PN_BUCKET && bucket[i] != 0; i++) {
            uint64_t low = bucket[i] & mask, mix = s->low_bits == ALL_BITS ? low : ((start & ~mask) | low) + ((start & mask) > low ? mask + 1 : 0);
            each(ctx, (mix & all) | slot, (uint32_t)(bucket[i] >> s->low_bits) - 1);
        }
    }
    for (uint32_t i = 0; i < s->n_stashed; i++) each(ctx, s->stash[i].mix, s->stash[i].i_row);
}

/* The inverse of pn_mix64. */
static uint64_t unmix(uint64_t x) {
    x ^= x >> 31 ^ x >> 62;
    x *= 0x319642b2d24d8ec3ull;
    x ^= x >> 27 ^ x >> 54;
    x *= 0x96de1b173f119089ull;
    x ^= x >> 30 ^ x >> 60;
    return x - 0x9e3779b97f4a7c15ull;
}

struct key_list { uint64_t *keys; uint32_t n; };
static void list_key(void *ctx, uint64_t mix, uint32_t i_row) {
    struct key_list *l = ctx;
    if (i_row < l->n) l->keys[i_row] = unmix(mix);
}
void pn_index_keys(const struct pn_slot *s, uint32_t i_slot, uint32_t n, uint64_t *keys) {
    struct key_list l = {keys, n};
    for_each(s, i_slot, list_key, &l);
}

/* ---- growing ---- */

/* Small indexes are one block of just their size; from 64 buckets on, chunks of the pool. */
static size_t small_bytes(uint32_t n_buckets) { return (size_t)n_buckets * PN_BUCKET * sizeof(uint64_t); }
static uint32_t n_chunks(uint32_t n_buckets) { return (n_buckets + PN_CHUNK - 1) / PN_CHUNK; }

static void free_chunks(struct pn_rows *t, uint64_t **chunks, uint32_t n_buckets) {
    if (chunks == NULL) return;
    if (n_buckets < PN_CHUNK) {
        free(chunks[0]);
        t->n_small_bytes -= small_bytes(n_buckets);
    } else {
        for (uint32_t i = 0; i < n_chunks(n_buckets); i++) pn_pages_give(&t->index_pool, chunks[i]);
    }
    t->n_small_bytes -= n_chunks(n_buckets) * sizeof *chunks;
    free(chunks);
}

static uint64_t **take_chunks(struct pn_rows *t, uint32_t n_buckets) {
    const uint32_t n = n_chunks(n_buckets);
    uint64_t **chunks = calloc(n, sizeof *chunks);
    if (chunks == NULL) return NULL;
    if (n_buckets < PN_CHUNK) {
        chunks[0] = aligned_alloc(64, small_bytes(n_buckets));
        if (chunks[0] == NULL) {
            free(chunks);
            return NULL;
        }
        memset(chunks[0], 0, small_bytes(n_buckets));
        t->n_small_bytes += small_bytes(n_buckets);
    }
    for (uint32_t i = 0; n_buckets >= PN_CHUNK && i < n; i++) {
        if ((chunks[i] = pn_pages_take(&t->index_pool)) == NULL) {
            while (i-- > 0) pn_pages_give(&t->index_pool, chunks[i]);
            free(chunks);
            return NULL;
        }
        memset(chunks[i], 0, small_bytes(PN_CHUNK));
    }
    t->n_small_bytes += n * sizeof *chunks;
    return chunks;
}

void pn_index_free(struct pn_rows *t, struct pn_slot *s) {
    free_chunks(t, s->chunks, s->n_buckets);
    t->n_small_bytes -= s->max_stashed * sizeof *s->stash;
    free(s->stash);
    s->chunks = NULL;
    s->stash = NULL;
    s->n_buckets = s->n_stashed = s->max_stashed = 0;
}

static uint32_t room_of(uint32_t n_buckets) { return n_buckets < 4 ? n_buckets * PN_BUCKET : (uint32_t)((uint64_t)n_buckets * PN_BUCKET * 9 / 10); }

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

struct move { struct pn_rows *t; struct pn_slot *to; bool failed; };
static void move_entry(void *ctx, uint64_t mix, uint32_t i_row) {
    struct move *m = ctx;
    if (put(m->to, mix, i_row)) return;
    if (m->failed || !reserve_stash(m->t, m->to, m->to->n_stashed + 1)) m->failed = true;
    else pn_index_put(m->to, mix, i_row);
}

bool pn_index_reserve(struct pn_rows *t, uint32_t i_slot, uint32_t n_new) {
    struct pn_slot *s = &t->slots[i_slot];
    const uint64_t n_rows = (uint64_t)s->n_rows + n_new;
    assert(n_rows < PN_NO_ROW);
    /* Crafted keys may fill a few buckets and leave the rest empty: then the stash takes them, and the index does not grow for them alone. */
    bool crowded = s->n_stashed > 16 + s->n_rows / 32 && s->n_rows > room_of(s->n_buckets) / 2;
    uint32_t n_buckets = s->n_buckets > 0 ? s->n_buckets : 1;
    while (room_of(n_buckets) < n_rows || n_rows >> (64 - low_bits_of(n_buckets)) > 0 || crowded) {
        crowded = false;
        n_buckets += n_buckets < 8 ? 1 : n_buckets < 16 ? 1 + i_slot % 8 : n_buckets / 8; /* slots grow at different times */
    }
    if (n_buckets != s->n_buckets) {
        struct pn_slot grown = *s;
        grown.chunks = take_chunks(t, n_buckets);
        grown.stash = NULL;
        grown.n_buckets = n_buckets;
        grown.low_bits = low_bits_of(n_buckets);
        grown.n_stashed = grown.max_stashed = 0;
        if (grown.chunks == NULL) return false;
        struct move m = {t, &grown, false};
        for_each(s, i_slot, move_entry, &m);
        pn_index_free(t, m.failed ? &grown : s);
        if (m.failed) return false;
        *s = grown;
    }
    return reserve_stash(t, s, s->n_stashed + n_new);
}
