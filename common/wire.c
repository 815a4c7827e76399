/* The idea: MessagePack-C allocates what a header claims, so every header is first walked here with hard bounds (depth,
 * counts against bytes that are there); only then does msgpack_unpack_next see it. */
#include "common/wire.h"
#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"

#define MAGIC "PNW1"
#define VERSION 1u
#define MAX_DEPTH 3u
#define MAX_FIELDS 64u
#define MAX_HEADER_BYTES (64u << 10)

static void put32(uint8_t *p, uint32_t v) { memcpy(p, &v, 4); }
static void put64(uint8_t *p, uint64_t v) { memcpy(p, &v, 8); }
static uint32_t get32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static uint64_t get64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }

/* ---- building ---- */

void pn_write_start(struct pn_writer *w, enum pn_kind kind, uint64_t term, uint64_t request) {
    msgpack_sbuffer_init(&w->header);
    msgpack_packer_init(&w->packer, &w->header, msgpack_sbuffer_write);
    w->n_fields = 0;
    w->kind = (uint8_t)kind;
    w->term = term;
    w->request = request;
}

static void key(struct pn_writer *w, const char *name) {
    w->n_fields++;
    msgpack_pack_str_with_body(&w->packer, name, strlen(name));
}

void pn_write_u64(struct pn_writer *w, const char *name, uint64_t value) {
    key(w, name);
    msgpack_pack_uint64(&w->packer, value);
}

void pn_write_str(struct pn_writer *w, const char *name, const char *value) {
    key(w, name);
    msgpack_pack_str_with_body(&w->packer, value, strlen(value));
}

void pn_write_u64s(struct pn_writer *w, const char *name, const uint64_t *values, size_t n) {
    key(w, name);
    msgpack_pack_array(&w->packer, n);
    for (size_t i = 0; i < n; i++) msgpack_pack_uint64(&w->packer, values[i]);
}

struct pn_msg *pn_write_finish(struct pn_writer *w, struct pn_env *env, size_t body_bytes, uint8_t **body) {
    assert(w->n_fields <= MAX_FIELDS && "a header of ours has few fields");
    /* The map's own head is written last, when the count is known: three bytes (map 16). */
    size_t header_bytes = pn_pad8(3 + w->header.size);
    struct pn_msg *m = NULL;
    if (header_bytes <= MAX_HEADER_BYTES && body_bytes <= PN_FRAME_MAX_BYTES - PN_ENVELOPE_BYTES - header_bytes)
        m = env->ops->message(env, PN_ENVELOPE_BYTES + header_bytes + body_bytes);
    if (m != NULL) {
        uint8_t *p = m->data;
        memset(p, 0, PN_ENVELOPE_BYTES);
        memcpy(p, MAGIC, 4);
        p[4] = VERSION;
        p[5] = w->kind;
        put64(p + 8, w->term);
        put64(p + 16, w->request);
        put32(p + 24, (uint32_t)header_bytes);
        uint8_t *h = p + PN_ENVELOPE_BYTES;
        h[0] = 0xde;
        h[1] = (uint8_t)(w->n_fields >> 8);
        h[2] = (uint8_t)w->n_fields;
        if (w->header.size > 0) memcpy(h + 3, w->header.data, w->header.size);
        memset(h + 3 + w->header.size, 0, header_bytes - 3 - w->header.size);
        *body = h + header_bytes;
    }
    msgpack_sbuffer_destroy(&w->header);
    return m;
}

void pn_msg_seal(struct pn_msg *m) {
    put32(m->data + 28, 0);
    put32(m->data + 28, pn_crc32c(0, m->data, m->n_bytes));
}

/* ---- reading ---- */

/* Walks one MessagePack value within [*at, end). Says how far it goes; false when it does not fit its bounds. */
static bool walk(const uint8_t **at, const uint8_t *end, unsigned depth) {
    if (depth > MAX_DEPTH || *at >= end) return false;
    const uint8_t tag = *(*at)++;
    const size_t left = (size_t)(end - *at);
    size_t skip = 0, items = 0;
    if (tag <= 0x7f || tag >= 0xe0 || tag == 0xc0 || tag == 0xc2 || tag == 0xc3) return true;
    if (tag >= 0xa0 && tag <= 0xbf) skip = tag & 0x1f;
    else if (tag >= 0x90 && tag <= 0x9f) items = tag & 0x0f;
    else if (tag >= 0x80 && tag <= 0x8f) items = 2u * (tag & 0x0f);
    else switch (tag) {
        case 0xcc: case 0xd0: skip = 1; break;
        case 0xcd: case 0xd1: skip = 2; break;
        case 0xce: case 0xd2: case 0xca: skip = 4; break;
        case 0xcf: case 0xd3: case 0xcb: skip = 8; break;
        case 0xd9: case 0xc4:
            if (left < 1) return false;
            skip = 1u + (*at)[0];
            break;
        case 0xda: case 0xc5:
            if (left < 2) return false;
            skip = 2u + ((size_t)(*at)[0] << 8 | (*at)[1]);
            break;
        case 0xdc: case 0xde:
            if (left < 2) return false;
            items = (size_t)(*at)[0] << 8 | (*at)[1];
            if (tag == 0xde) items *= 2;
            *at += 2;
            break;
        default: return false; /* ext, 32-bit lengths: no header of ours needs them */
    }
    if (skip > (size_t)(end - *at)) return false;
    *at += skip;
    if (items > (size_t)(end - *at)) return false; /* each item takes at least a byte */
    for (size_t i = 0; i < items; i++)
        if (!walk(at, end, depth + 1)) return false;
    return true;
}

enum pn_result pn_frame_open(struct pn_frame *f, const void *data, size_t n_bytes, struct pn_error *err) {
    const uint8_t *p = data;
    memset(f, 0, sizeof *f);
    if (n_bytes < PN_ENVELOPE_BYTES || n_bytes > PN_FRAME_MAX_BYTES)
        return pn_fail(err, PN_CORRUPT, "frame of %zu bytes: an envelope takes 32, a frame at most %u", n_bytes, PN_FRAME_MAX_BYTES);
    if (memcmp(p, MAGIC, 4) != 0) return pn_fail(err, PN_CORRUPT, "frame does not begin with " MAGIC);
    if (p[4] != VERSION) return pn_fail(err, PN_INVALID, "protocol version %u; this build speaks %u", p[4], VERSION);
    uint32_t header_bytes = get32(p + 24);
    if (header_bytes % 8 != 0 || header_bytes > MAX_HEADER_BYTES || header_bytes > n_bytes - PN_ENVELOPE_BYTES)
        return pn_fail(err, PN_CORRUPT, "header length %u does not fit a frame of %zu bytes", header_bytes, n_bytes);
    static const uint8_t zero[4];
    uint32_t crc = pn_crc32c(0, p, 28);
    crc = pn_crc32c(crc, zero, 4);
    crc = pn_crc32c(crc, p + 32, n_bytes - 32);
    if (crc != get32(p + 28)) return pn_fail(err, PN_CORRUPT, "frame checksum is wrong");
    const uint8_t *at = p + PN_ENVELOPE_BYTES, *end = at + header_bytes;
    bool map = at < end && ((at[0] & 0xf0) == 0x80 || at[0] == 0xde);
    size_t fields = !map ? 0 : at[0] == 0xde ? (end - at >= 3 ? (size_t)(at[1] << 8 | at[2]) : SIZE_MAX) : at[0] & 0x0fu;
    if (!map || fields > MAX_FIELDS || !walk(&at, end, 1))
        return pn_fail(err, PN_CORRUPT, "frame header is no bounded MessagePack map");
    for (const uint8_t *pad = at; pad < end; pad++)
        if (*pad != 0 || end - at > 7) return pn_fail(err, PN_CORRUPT, "bytes behind the frame header");

    f->zone = msgpack_zone_new(1024);
    if (f->zone == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for a frame header");
    size_t offset = 0;
    msgpack_unpack_return r = msgpack_unpack((const char *)p + PN_ENVELOPE_BYTES, (size_t)(at - p) - PN_ENVELOPE_BYTES, &offset,
                                             f->zone, &f->header);
    if ((r != MSGPACK_UNPACK_SUCCESS && r != MSGPACK_UNPACK_EXTRA_BYTES) || f->header.type != MSGPACK_OBJECT_MAP) {
        msgpack_zone_free(f->zone);
        f->zone = NULL;
        return pn_fail(err, PN_CORRUPT, "frame header cannot be unpacked");
    }
    f->kind = (enum pn_kind)p[5];
    f->term = get64(p + 8);
    f->request = get64(p + 16);
    f->body = p + PN_ENVELOPE_BYTES + header_bytes;
    f->body_bytes = n_bytes - PN_ENVELOPE_BYTES - header_bytes;
    return PN_OK;
}

void pn_frame_close(struct pn_frame *f) {
    if (f->zone != NULL) msgpack_zone_free(f->zone);
    f->zone = NULL;
}

static const msgpack_object *find(const struct pn_frame *f, const char *name) {
    size_t n = strlen(name);
    for (uint32_t i = 0; i < f->header.via.map.size; i++) {
        const msgpack_object_kv *kv = &f->header.via.map.ptr[i];
        if (kv->key.type == MSGPACK_OBJECT_STR && kv->key.via.str.size == n && memcmp(kv->key.via.str.ptr, name, n) == 0) return &kv->val;
    }
    return NULL;
}

bool pn_frame_u64(const struct pn_frame *f, const char *name, uint64_t *value) {
    const msgpack_object *o = find(f, name);
    if (o == NULL || o->type != MSGPACK_OBJECT_POSITIVE_INTEGER) return false;
    *value = o->via.u64;
    return true;
}

bool pn_frame_str(const struct pn_frame *f, const char *name, char *text, size_t n) {
    const msgpack_object *o = find(f, name);
    if (o == NULL || o->type != MSGPACK_OBJECT_STR || o->via.str.size >= n) return false;
    if (o->via.str.size > 0 && memchr(o->via.str.ptr, 0, o->via.str.size) != NULL) return false;
    if (o->via.str.size > 0) memcpy(text, o->via.str.ptr, o->via.str.size);
    text[o->via.str.size] = '\0';
    return true;
}

bool pn_frame_u64s(const struct pn_frame *f, const char *name, uint64_t *values, size_t max, size_t *n) {
    const msgpack_object *o = find(f, name);
    if (o == NULL || o->type != MSGPACK_OBJECT_ARRAY || o->via.array.size > max) return false;
    for (uint32_t i = 0; i < o->via.array.size; i++) {
        if (o->via.array.ptr[i].type != MSGPACK_OBJECT_POSITIVE_INTEGER) return false;
        values[i] = o->via.array.ptr[i].via.u64;
    }
    *n = o->via.array.size;
    return true;
}

const void *pn_frame_take(struct pn_frame *f, size_t n, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || bytes > f->body_bytes - f->i_body) return NULL;
    const void *at = f->body + f->i_body;
    size_t padded = pn_pad8(bytes);
    f->i_body = padded > f->body_bytes - f->i_body ? f->body_bytes : f->i_body + padded;
    return at;
}
