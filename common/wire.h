/* The wire: envelope, MessagePack header, raw arrays. docs/wire.md is the same in words.
 *
 *   offset  bytes
 *        0  4  magic "PNW1"
 *        4  1  protocol version (1)
 *        5  1  kind (enum pn_kind)
 *        6  2  flags (0)
 *        8  8  term: the shard's term on the data plane, the coordinator's epoch on the control plane
 *       16  8  request: chosen by the asker, repeated in the answer
 *       24  4  header length in bytes, padding to a multiple of 8 included
 *       28  4  CRC-32C of the whole frame with this field as 0
 *       32     header: one MessagePack map with short text keys; zero padding to a multiple of 8
 *              body: raw little-endian arrays, one behind the other, each padded to a multiple of 8
 */
#ifndef PN_COMMON_WIRE_H
#define PN_COMMON_WIRE_H

#include <msgpack.h>
#include "common/env.h"

#define PN_ENVELOPE_BYTES 32u
#define PN_FRAME_MAX_BYTES (256u << 20)

enum pn_kind {
    /* control plane: body = JSON text (common/json.h) */
    PN_BEAT = 1,  /* node -> coordinator: all that this node is and has */
    PN_PLAN = 2,  /* coordinator -> node: all that this node should be and have; request = revision */
    /* data plane */
    PN_PULL = 10, /* client -> shard */
    PN_ROWS = 11, /* shard -> client */
    PN_PUSH = 12, /* client -> shard */
    PN_SEED = 13, /* client -> shard: first values of rows, kept only where the row is absent */
    PN_ACK = 14,  /* shard -> client: answers PUSH and SEED */
    PN_REFUSAL = 15, /* shard -> client: {code, text}: the request had no effect */
    PN_CHANGES = 16, /* worker -> shard: which rows changed; names no row */
    PN_CHANGED = 17  /* shard -> worker: their keys and values */
};

/* ---- building: header first, then room for the body, filled in place, then seal ---- */
struct pn_writer {
    msgpack_sbuffer header;
    msgpack_packer packer;
    uint32_t n_fields;
    uint8_t kind;
    uint64_t term, request;
};
void pn_write_start(struct pn_writer *, enum pn_kind, uint64_t term, uint64_t request);
void pn_write_u64(struct pn_writer *, const char *key, uint64_t value);
void pn_write_str(struct pn_writer *, const char *key, const char *value);
/* A flat array of unsigned numbers: counts, table ids. */
void pn_write_u64s(struct pn_writer *, const char *key, const uint64_t *values, size_t n);
/* Makes the message with `body_bytes` of uninitialised room (*body, 8-aligned). Frees the writer.
 * NULL without memory or when the frame would pass PN_FRAME_MAX_BYTES. The caller fills *body, then seals. */
struct pn_msg *pn_write_finish(struct pn_writer *, struct pn_env *, size_t body_bytes, uint8_t **body);
void pn_msg_seal(struct pn_msg *);
static inline size_t pn_pad8(size_t n) { return (n + 7u) & ~(size_t)7u; }

/* ---- reading ---- */
struct pn_frame {
    enum pn_kind kind;
    uint64_t term, request;
    const uint8_t *body; /* 8-aligned if the message was */
    size_t body_bytes;
    size_t i_body;       /* how much pn_frame_take has handed out */
    msgpack_object header;
    msgpack_zone *zone;
};
/* Checks everything (length, magic, version, checksum, bounded walk of the header: depth <= 3, at most 64
 * fields, counts and lengths within the bytes that are there) before MessagePack-C sees it. PN_OK: the
 * caller frees with pn_frame_close. Otherwise nothing to free. `data` must outlive the frame. */
enum pn_result pn_frame_open(struct pn_frame *, const void *data, size_t n_bytes, struct pn_error *);
void pn_frame_close(struct pn_frame *);
/* A field of the header. False when missing or of another type. pn_frame_str copies at most n-1 bytes and refuses
 * longer ones and ones with NUL inside. pn_frame_u64s gives at most `max` values. */
bool pn_frame_u64(const struct pn_frame *, const char *key, uint64_t *value);
bool pn_frame_str(const struct pn_frame *, const char *key, char *text, size_t n);
bool pn_frame_u64s(const struct pn_frame *, const char *key, uint64_t *values, size_t max, size_t *n);
/* The next array of the body: n elements of `size` bytes, padding skipped; NULL when so many are not there. */
const void *pn_frame_take(struct pn_frame *, size_t n, size_t size);

#endif
