#include "common/npy.h"
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/codec.h"

/* The value behind 'key': in the header, a Python dictionary that NumPy writes in one form. NULL: it is not there. */
static const char *value_of(const char *header, const char *key) {
    char quoted[40];
    snprintf(quoted, sizeof quoted, "'%s':", key);
    const char *at = strstr(header, quoted);
    if (at == NULL) return NULL;
    at += strlen(quoted);
    while (*at == ' ') at++;
    return at;
}

static bool read_descr(const char *at, struct pn_npy *out, bool *big) {
    char order, kind, *end;
    if (at == NULL || at[0] != '\'' || strchr("<>=|", at[1]) == NULL || at[1] == '\0' || at[2] == '\0') return false;
    order = at[1];
    kind = at[2];
    if (at[3] < '0' || at[3] > '9') return false;
    const unsigned long n = strtoul(at + 3, &end, 10);
    if (*end != '\'' || n == 0 || n > 4096) return false;
    *big = order == '>' && n > 1;
    out->kind = kind;
    out->item_bytes = (uint32_t)(kind == 'U' ? 4 * n : n);
    return kind == 'S' || kind == 'U' || (kind == 'f' && (n == 2 || n == 4 || n == 8)) || ((kind == 'i' || kind == 'u') && (n == 1 || n == 2 || n == 4 || n == 8));
}

static bool read_shape(const char *at, struct pn_npy *out) {
    if (at == NULL || *at++ != '(') return false;
    out->shape[0] = out->shape[1] = 1;
    for (out->n_dims = 0;;) {
        while (*at == ' ' || *at == ',') at++;
        if (*at == ')') return out->n_dims > 0;
        char *end;
        if (*at < '0' || *at > '9' || out->n_dims == 2) return false;
        out->shape[out->n_dims++] = strtoull(at, &end, 10);
        at = end;
    }
}

enum pn_result pn_npy_read(const void *bytes, size_t n_bytes, const char *file, struct pn_npy *out, struct pn_error *err) {
    const uint8_t *b = bytes;
    char header[4096];
    memset(out, 0, sizeof *out);
    if (n_bytes < 12 || memcmp(b, "\x93NUMPY", 6) != 0) return pn_fail(err, PN_INVALID, "%s is no .npy file (numpy.save writes one; the arrays of an .npz each need a file of their own)", file);
    const size_t prefix = b[6] == 1 ? 10 : 12;
    const size_t n = b[6] == 1 ? (size_t)b[8] | (size_t)b[9] << 8 : (size_t)b[8] | (size_t)b[9] << 8 | (size_t)b[10] << 16 | (size_t)b[11] << 24;
    if (b[6] < 1 || b[6] > 3 || n >= sizeof header || n > n_bytes - prefix) return pn_fail(err, PN_INVALID, "%s: its .npy header is damaged or of an unknown version", file);
    memcpy(header, b + prefix, n);
    header[n] = '\0';
    bool big = false;
    if (!read_descr(value_of(header, "descr"), out, &big))
        return pn_fail(err, PN_INVALID, "%s: its items are not numbers or strings that are read here; save array.astype('float32'), 'uint64' or str", file);
    if (big) return pn_fail(err, PN_INVALID, "%s: its items are big-endian; save array.astype(array.dtype.newbyteorder('<'))", file);
    const char *order = value_of(header, "fortran_order");
    if (order == NULL || !read_shape(value_of(header, "shape"), out)) return pn_fail(err, PN_INVALID, "%s: an array of one or two dimensions is wanted", file);
    if (strncmp(order, "False", 5) != 0 && out->shape[1] > 1) return pn_fail(err, PN_INVALID, "%s is stored by columns; save numpy.ascontiguousarray(array)", file);
    const uint64_t room = (n_bytes - prefix - n) / out->item_bytes;
    if (out->shape[0] > 0 && out->shape[1] > room / out->shape[0])
        return pn_fail(err, PN_INVALID, "%s ends early: %" PRIu64 " x %" PRIu64 " items are announced, %" PRIu64 " are there", file, out->shape[0], out->shape[1], room);
    out->data = b + prefix + n;
    return PN_OK;
}

static uint64_t word(const struct pn_npy *a, uint64_t i, uint32_t n) {
    uint64_t x = 0;
    memcpy(&x, a->data + i * a->item_bytes, n);
    return x;
}

uint64_t pn_npy_u64(const struct pn_npy *a, uint64_t i) { return word(a, i, 8); }

float pn_npy_float(const struct pn_npy *a, uint64_t i) {
    float f;
    double d;
    const uint64_t x = word(a, i, a->item_bytes);
    const uint32_t half = (uint32_t)x;
    if (a->item_bytes == 8) {
        memcpy(&d, &x, sizeof d);
        return (float)d;
    }
    if (a->item_bytes == 4) memcpy(&f, &half, sizeof f);
    else pn_codec_decode(PN_CODEC_FLOAT16, &x, 1, 1, &f);
    return f;
}

/* A code point as UTF-8; 0: it is none. */
static size_t utf8(uint32_t c, char out[4]) {
    if (c < 0x80) return out[0] = (char)c, 1;
    if (c < 0x800) return out[0] = (char)(0xc0 | c >> 6), out[1] = (char)(0x80 | (c & 0x3f)), 2;
    if (c >= 0xd800 && c < 0xe000) return 0;
    if (c < 0x10000) return out[0] = (char)(0xe0 | c >> 12), out[1] = (char)(0x80 | (c >> 6 & 0x3f)), out[2] = (char)(0x80 | (c & 0x3f)), 3;
    if (c > 0x10ffff) return 0;
    return out[0] = (char)(0xf0 | c >> 18), out[1] = (char)(0x80 | (c >> 12 & 0x3f)), out[2] = (char)(0x80 | (c >> 6 & 0x3f)), out[3] = (char)(0x80 | (c & 0x3f)), 4;
}

size_t pn_npy_text(const struct pn_npy *a, uint64_t i, char *text, size_t n) {
    const uint8_t *at = a->data + i * a->item_bytes;
    size_t length = 0;
    if (a->kind == 'u' || a->kind == 'i') {
        const uint64_t x = word(a, i, a->item_bytes);
        const unsigned shift = 64 - 8 * a->item_bytes;
        const int k = a->kind == 'u' ? snprintf(text, n, "%" PRIu64, x) : snprintf(text, n, "%" PRId64, (int64_t)(x << shift) >> shift);
        return k > 0 && (size_t)k < n ? (size_t)k : 0;
    }
    if (a->kind == 'S') {
        while (length < a->item_bytes && at[length] != '\0') length++;
        if (length > n) return 0;
        memcpy(text, at, length);
        return length;
    }
    for (uint32_t k = 0; k < a->item_bytes; k += 4) {
        char one[4];
        uint32_t c;
        memcpy(&c, at + k, sizeof c);
        if (c == 0) break;
        const size_t m = utf8(c, one);
        if (m == 0 || length + m > n) return 0;
        memcpy(text + length, one, m);
        length += m;
    }
    return length;
}
