#include "nn/vocabulary.h"
#include <stdlib.h>
#include <string.h>
#include "common/hash.h"

/* Open addressing by the key's mix; an empty place holds 0, and the key 0 is told apart. */
struct pn_vocabulary { uint64_t *keys, mask; size_t n; bool zero; };

size_t pn_vocabulary_size(const struct pn_vocabulary *v) { return v->n; }

static uint64_t place(const struct pn_vocabulary *v, uint64_t key) {
    uint64_t at = pn_mix64(key) & v->mask;
    while (v->keys[at] != 0 && v->keys[at] != key) at = (at + 1) & v->mask;
    return at;
}

bool pn_vocabulary_has(const struct pn_vocabulary *v, uint64_t key) { return key == 0 ? v->zero : v->keys[place(v, key)] != 0; }

uint64_t pn_vocabulary_other(uint64_t hash_seed, uint32_t n_oov, uint64_t key) {
    const uint64_t i = pn_mix64(key) % n_oov; /* behind a mix of its own: no value's key */
    return pn_mix64(pn_mix64(hash_seed ^ 0x6f74686572ull) + i);
}

void pn_vocabulary_close(struct pn_vocabulary *v) {
    if (v == NULL) return;
    free(v->keys);
    free(v);
}

/* Takes a value in; false: it was there. */
static bool take(struct pn_vocabulary *v, uint64_t key) {
    if (pn_vocabulary_has(v, key)) return false;
    if (key == 0) v->zero = true;
    else v->keys[place(v, key)] = key;
    v->n++;
    return true;
}

enum pn_result pn_vocabulary_read(struct pn_vocabulary **out, const char *text, size_t n_bytes, uint64_t hash_seed, struct pn_error *err) {
    size_t n = 0, line = 1;
    *out = NULL;
    if (n_bytes == 0) return pn_fail(err, PN_INVALID, "it is empty; a vocabulary is a value a line");
    if (n_bytes > PN_VOCABULARY_BYTES) return pn_fail(err, PN_INVALID, "it has %zu bytes; a vocabulary has at most %u", n_bytes, PN_VOCABULARY_BYTES);
    for (const char *at = text, *end = text + n_bytes; at != NULL && at < end; n++) {
        at = memchr(at, '\n', (size_t)(end - at));
        if (at != NULL) at++;
    }
    if (n > PN_VOCABULARY_MOST) return pn_fail(err, PN_INVALID, "it has %zu lines; a vocabulary has at most %u values", n, PN_VOCABULARY_MOST);
    struct pn_vocabulary *v = calloc(1, sizeof *v);
    uint64_t room = 16;
    while (room < 2 * n) room *= 2;
    if (v != NULL) v->keys = calloc(room, sizeof *v->keys);
    if (v == NULL || v->keys == NULL) {
        free(v);
        return pn_fail(err, PN_NO_MEMORY, "no memory for a vocabulary of %zu values", n);
    }
    v->mask = room - 1;
    enum pn_result r = PN_OK;
    for (const char *at = text, *end = text + n_bytes, *stop; r == PN_OK && at < end; at = stop + 1, line++) {
        stop = memchr(at, '\n', (size_t)(end - at));
        if (stop == NULL) stop = end;
        const size_t length = (size_t)(stop - at) - (stop > at && stop[-1] == '\r');
        if (length == 0) r = pn_fail(err, PN_INVALID, "line %zu is empty; a missing value has a key of its own", line);
        else if (!take(v, pn_hash(at, length, hash_seed))) r = pn_fail(err, PN_INVALID, "line %zu: \"%.*s\" stands twice", line, length < 60 ? (int)length : 60, at);
    }
    if (r != PN_OK) pn_vocabulary_close(v);
    else *out = v;
    return r;
}

enum pn_result pn_vocabularies_open(struct pn_vocabularies *v, const struct pn_job *job, struct pn_error *err) {
    enum pn_result r = PN_OK;
    *v = (struct pn_vocabularies){0};
    for (size_t i = 0; r == PN_OK && i < job->n_fields; i++) {
        const struct pn_field *f = &job->fields[i];
        struct pn_error why = {""};
        if (f->vocabulary.kind != PN_VOCABULARY_GIVEN) continue;
        r = pn_vocabulary_read(&v->of[i], f->vocabulary.values, strlen(f->vocabulary.values), f->hash_seed, &why);
        if (r != PN_OK) pn_fail(err, r, "the vocabulary of feature \"%s\": %s", f->name, why.text);
    }
    if (r != PN_OK) pn_vocabularies_close(v);
    return r;
}

void pn_vocabularies_close(struct pn_vocabularies *v) {
    for (size_t i = 0; i < PN_MAX_FIELDS; i++) pn_vocabulary_close(v->of[i]);
    *v = (struct pn_vocabularies){0};
}
