#include "ps/request.h"
#include <stdlib.h>
#include <string.h>

void pn_request_drop(struct pn_request *q) {
    for (size_t i = 0; i < q->n_parts; i++) free(q->parts[i].decoded);
    q->n_parts = 0;
}

/* Everything is checked before anything is done. */
const char *pn_request_read(const struct pn_shard *s, struct pn_frame *f, struct pn_request *q, bool values, bool rising) {
    uint64_t tables[PN_MAX_TABLES], counts[PN_MAX_TABLES];
    size_t n = 0, n_counts = 0;
    memset(q, 0, sizeof *q);
    f->i_body = 0;
    if (!pn_frame_u64s(f, "tables", tables, PN_MAX_TABLES, &n) || !pn_frame_u64s(f, "counts", counts, PN_MAX_TABLES, &n_counts) || n != n_counts)
        return "tables and counts must be lists of the same length";
    q->n_parts = n;
    uint32_t seen = 0;
    for (size_t i = 0; i < n; i++) {
        if (tables[i] >= s->job.n_tables) return "no such table";
        if (seen >> tables[i] & 1) return "a table stands twice in one request";
        seen |= 1u << tables[i];
        struct pn_part *p = &q->parts[i];
        size_t cells;
        p->i_table = (uint32_t)tables[i];
        p->n = counts[i];
        if (__builtin_mul_overflow(p->n, (size_t)s->job.tables[p->i_table].dim, &cells)) return "count too large";
        p->keys = pn_frame_take(f, p->n, 8);
        if (p->keys == NULL) return "fewer keys than the header says";
        const enum pn_codec codec = pn_job_codec(&s->job, p->i_table);
        const void *bytes = values ? pn_frame_take(f, p->n, pn_codec_row_bytes(codec, s->job.tables[p->i_table].dim)) : NULL;
        if (values && bytes == NULL) return "fewer values than the header says";
        p->values = bytes;
        if (values && codec != PN_CODEC_FLOAT32) {
            if ((p->decoded = malloc((cells + 1) * sizeof *p->decoded)) == NULL) return "the server is out of memory";
            pn_codec_decode(codec, bytes, p->n, s->job.tables[p->i_table].dim, p->decoded);
            p->values = p->decoded;
        }
        const uint64_t low = (uint64_t)s->first_slot << 54, high = ((uint64_t)s->last_slot << 54) | (~0ull >> 10);
        uint64_t last = 0;
        bool foreign = false, falls = false;
        for (size_t k = 0; k < p->n; k++) {
            const uint64_t mix = pn_mix64(p->keys[k]);
            foreign |= mix < low || mix > high;
            falls |= k > 0 && mix <= last;
            last = mix;
        }
        if (foreign) return "a key of a slot that this shard does not own";
        if (rising && falls) return "keys of a push must be unique and rising by their mix (docs/wire.md)";
    }
    return NULL;
}

bool pn_request_finite(const struct pn_shard *s, const struct pn_request *q) {
    for (size_t i = 0; i < q->n_parts; i++) {
        const size_t n = q->parts[i].n * s->job.tables[q->parts[i].i_table].dim;
        const uint32_t *bits = (const uint32_t *)(const void *)q->parts[i].values;
        uint32_t bad = 0; /* an exponent of all ones: neither NaN nor infinity has another */
        for (size_t k = 0; k < n; k++) bad |= (bits[k] & 0x7f800000u) == 0x7f800000u;
        if (bad) return false;
    }
    return true;
}

void pn_request_slots(const struct pn_request *q, uint64_t bits[PN_SLOTS / 64]) {
    memset(bits, 0, PN_SLOTS / 8);
    for (size_t i = 0; i < q->n_parts; i++)
        for (size_t k = 0; k < q->parts[i].n; k++) {
            uint32_t slot = pn_slot_of(q->parts[i].keys[k]);
            bits[slot / 64] |= 1ull << slot % 64;
        }
}
