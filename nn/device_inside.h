/* The inside of nn/device.h, for device.c and device_blocks.c. */
#ifndef PN_NN_DEVICE_INSIDE_H
#define PN_NN_DEVICE_INSIDE_H

#include "nn/cache.h"
#include "nn/device.h"
#include "nn/net.h"

#define PN_DEVICE_SEQUENCES PN_TOKEN_FIELDS
#define PN_DEVICE_GRAPHS 8u

/* What a slot brings and leaves: pinned host memory and the device's copy of it. An inverse takes five parts: order, chunk_begin, chunk_row, wide_begin, partial; a
 * sequence field six: its tokens' rows, then their inverse. */
enum { PN_PARTS_AN_INVERSE = 5, PN_PARTS_A_SEQUENCE = 6 };
enum pn_device_parts {
    PN_PART_HEADER, /* uint64_t seed, then two uint32_t (the counts) for each inverse, then what PN_HEADER_.. name */
    PN_PART_BEGIN, PN_PART_POSITION, PN_PART_POOLING, PN_PART_ROWS, PN_PART_P, PN_PART_DENSE, PN_PART_LABELS, PN_PART_HEAD_LABELS, PN_PART_TEACHER, PN_PART_LOG_Q, PN_PART_ITEMS,
    PN_PART_INVERSE,
    PN_PART_TOKEN_BEGIN = PN_PART_INVERSE + PN_PARTS_AN_INVERSE, PN_PART_EXAMPLE, PN_PART_LEFT,
    PN_PART_SEQUENCES,
    PN_PART_PULLED = PN_PART_SEQUENCES + PN_DEVICE_SEQUENCES * PN_PARTS_A_SEQUENCE, PN_PART_SOURCE, /* with a cache: pulled rows, and where each row comes from */
    PN_PART_SHARES, /* of the decay, by row */
    PN_PART_ENTRY_BEGIN, PN_PART_ENTRY_ROW, PN_PART_ENTRY_TOKEN, PN_PART_ENTRY_INVERSE, /* SASRec: what tokens are held against */
    PN_PART_UNION = PN_PART_ENTRY_INVERSE + PN_PARTS_AN_INVERSE, PN_PART_Z,
    PN_PART_UNITS, PN_PART_UNIT_TOKENS, PN_PART_UNIT, /* private: examples and tokens of each unit; each example's unit */
    PN_PART_TOUCHES, PN_PART_TOUCH_BEGIN, PN_PART_UNIT_GROUPS, PN_PART_TOUCH_SQUARES, PN_PART_SQUARES, /* pn_touches; squared norms of the units' gradients */
    PN_PART_ROW_GRADIENTS, PN_PART_DP, PN_PART_SCORES, PN_PART_LOSS,
    PN_PARTS
};
struct pn_device_part { void *host, *dev; size_t room; /* bytes */ };
/* Of a device among several (devices.c): which examples of a step's batch it has, and what the whole is, of which its losses are to be shares. */
struct pn_device_share {
    size_t first, first_token, n;             /* where its part begins; the whole's examples */
    size_t n_targets;                         /* SASRec: the whole's */
    float of_loss, of_heads;                  /* its part's share in the mean of the loss, and of log losses: its gradients take these factors */
    double loss;                              /* ... and what it says of the first as a sum takes this */
    const uint32_t *which[PN_MAX_TABLES];     /* the place of each of its rows among the whole's */
};
struct pn_device_slot {
    struct pn_device_part parts[PN_PARTS];
    size_t used[PN_PARTS];                 /* bytes to bring */
    size_t n, n_tokens, n_rows, n_targets, n_union, n_units;
    bool teacher;
    const struct pn_device_share *share;   /* NULL: the batch is whole */
};
struct pn_device_graph { void *graph; size_t slot, n, n_units; bool teacher; };
struct pn_device_seen { size_t n, n_units, times; };

/* Events of a slot: each stage's end; behind those of all slots and of the cache each stage's beginning; then when its own gradients are there, which several devices sum. */
enum { PN_STAGES_OF_STEP = 3, PN_EVENT_BEGIN = PN_STAGES_OF_STEP * PN_DEVICE_SLOTS + 2, PN_EVENT_OWN = PN_EVENT_BEGIN + PN_STAGES_OF_STEP * PN_DEVICE_SLOTS };
struct pn_device_run {
    const char *name;
    void (*forward)(struct pn_device *, size_t i_block, struct pn_device_slot *);
    void (*backward)(struct pn_device *, size_t i_block, struct pn_device_slot *);
    void (*norms)(struct pn_device *, size_t i_block, struct pn_device_slot *); /* behind backward; NULL: no parameters, or it mixes examples */
};
/* Of a step that was found and not begun: its keys, its rows as far as they were there, and which were. Device memory; host: pinned. */
struct pn_device_look { void *keys, *hit, *host_keys, *host_hit; float *rows; size_t room, n, base[PN_MAX_TABLES]; uint64_t now; };
struct pn_device_cached {
    uint32_t staleness;
    struct pn_cache *tables[PN_MAX_TABLES];
    struct pn_device_look looks[PN_DEVICE_LOOKS];
    struct pn_device_cache_counts counts;
    uint64_t finds;
};
void pn_device_cache_close(struct pn_device *);
/* device.c: a begin in two. queue: up to the gradients; a step's rows as they come: all of them (look NULL) or those that the cache had not; share: NULL, or this device's, kept
 * until the step's end. collect: the copies out; dense: of the parameters' gradients too. And what an end does first: waits. */
enum pn_result pn_device_queue(struct pn_device *, size_t slot, struct pn_device_look *, bool keep, const struct pn_device_share *, const struct pn_batch *,
                               const float *const rows[PN_MAX_TABLES], const float *parameters, uint64_t seed, struct pn_error *);
void pn_device_collect(struct pn_device *, size_t slot, bool dense);
enum pn_result pn_device_await(struct pn_device *, size_t slot, struct pn_error *);
double pn_device_loss(const struct pn_device *, const struct pn_device_slot *); /* behind await: its mean over the whole batch times the batch's examples, as far as it is this device's */
/* device_cache.c: what begin_step asks of it. Packs the pulled rows at *pulled and says in source[n_rows] where each row comes from; returns how many were packed. */
size_t pn_device_cache_pack(struct pn_device *, struct pn_device_look *, const struct pn_batch *, const float *const rows[PN_MAX_TABLES], float *pulled, uint32_t *source);
void pn_device_cache_place(struct pn_device *, struct pn_device_slot *, struct pn_device_look *, bool keep, const struct pn_batch *);

enum { PN_ENTRIES_INVERSE = 1 + PN_DEVICE_SEQUENCES, PN_INVERSES, PN_HEADER_ROWS = 2 + 2 * PN_INVERSES, PN_HEADER_FIRST, PN_HEADER_FIRST_TOKEN, PN_HEADER_OF_LOSS, PN_HEADER_OF_HEADS, PN_HEADER_WORDS = PN_HEADER_OF_HEADS + 2 };
/* ---- device.c, for the files beside it ---- */
/* Part i gets n bytes of room; what fills them is returned. NULL: no memory. */
void *pn_device_stage(struct pn_device *, struct pn_device_slot *, size_t i, size_t n);
bool pn_device_room(struct pn_device *, struct pn_device_part *, size_t n); /* on both sides, to bring nothing */
bool pn_device_scratch(struct pn_device *, size_t n_floats);
/* The inverse of rows[n] into the parts from `first` on. */
bool pn_device_stage_inverse(struct pn_device *, struct pn_device_slot *, size_t first, size_t i_inverse, const uint32_t *rows, const uint32_t *id, size_t n, size_t n_rows);
struct pn_inverse pn_device_inverse(const struct pn_device_slot *, size_t first, size_t i_inverse);
/* ---- device_sasrec.c: the sequences have been staged ---- */
bool pn_device_sasrec_stage(struct pn_device *, struct pn_device_slot *, const struct pn_batch *);
void pn_device_sasrec_loss(struct pn_device *, struct pn_device_slot *);

/* ---- device_private.c ---- */
size_t pn_device_units_scratch(const struct pn_device *, size_t n_rows, size_t n_keys, size_t n_tokens); /* words of d->build that the next takes */
bool pn_device_stage_units(struct pn_device *, struct pn_device_slot *, const struct pn_batch *); /* positions and sequences have been staged */
struct pn_units pn_device_units(const struct pn_device_slot *, bool tokens);
void pn_device_row_norms(struct pn_device *, struct pn_device_slot *); /* of all blocks over rows together; behind the way back of all */

/* ---- device_blocks.c ---- */
struct pn_pool_view pn_device_pool_view(const struct pn_device *, const struct pn_device_slot *);
/* NULL: that kind has none. */
const struct pn_device_run *pn_device_block(const char *kind);

struct pn_device {
    const struct pn_backend *be;
    struct pn_ctx *ctx;
    struct pn_net *net;                    /* its blocks and values; none of its own memory is used */
    size_t dim;                            /* floats of a row */
    const struct pn_device_run *runs[PN_MAX_BLOCKS];
    float *arena, *gradients, *keep, *scratch;
    size_t arena_room, gradient_room, keep_room, scratch_room, n_values_floats, n_room, token_room;
    float *x[PN_MAX_VALUES], *g[PN_MAX_VALUES], *kept[PN_MAX_BLOCKS][2], *own[PN_MAX_BLOCKS];
    struct pn_device_slot slots[PN_DEVICE_SLOTS];
    struct pn_device_graph graphs[PN_DEVICE_GRAPHS];
    struct pn_device_seen seen[PN_DEVICE_SLOTS];
    struct pn_device_counts counts;
    struct pn_device_cached cached;
    struct pn_device_seconds seconds;
    float clip_each;                       /* > 0: private */
    bool shares;                           /* one of several (devices.c) */
    uint32_t *build;                       /* host scratch of the inverses */
    size_t build_room;
};
#endif
