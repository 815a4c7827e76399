/* One table says which arrays each kind has: one reader and one writer for all, so that there is one place to check and to fuzz. */
#include <assert.h>
#include <string.h>
#include "privacy/secagg/round.h"

static const struct shape { uint8_t sets, who, signature, words; uint32_t record_bytes, max_count; } shapes[] = {
    [PN_AGG_ROUND - 40] = {.record_bytes = 32, .max_count = 1},
    [PN_AGG_KEYS - 40] = {.record_bytes = sizeof(struct pn_agg_keys), .max_count = 1},
    [PN_AGG_LIST - 40] = {.sets = 1, .record_bytes = sizeof(struct pn_agg_keys), .max_count = PN_AGG_MAX_WORKERS},
    [PN_AGG_SHARES - 40] = {.record_bytes = sizeof(struct pn_agg_share), .max_count = PN_AGG_MAX_DEGREE},
    [PN_AGG_DELIVER - 40] = {.who = 1, .record_bytes = sizeof(struct pn_agg_share), .max_count = PN_AGG_MAX_DEGREE},
    [PN_AGG_MASKED - 40] = {.signature = 1, .words = 1},
    [PN_AGG_HELD - 40] = {0},
    [PN_AGG_RECEIVED - 40] = {.sets = 1, .record_bytes = 32, .max_count = 1},
    [PN_AGG_SURVIVORS - 40] = {.sets = 1},
    [PN_AGG_SIGNED - 40] = {.signature = 1},
    [PN_AGG_PROOF - 40] = {.sets = 2, .who = 1, .record_bytes = 64, .max_count = PN_AGG_MAX_DEGREE},
    [PN_AGG_REVEAL - 40] = {.who = 1, .record_bytes = 32, .max_count = PN_AGG_MAX_DEGREE},
    [PN_AGG_UNMASK - 40] = {.sets = 1, .record_bytes = sizeof(struct pn_mask), .max_count = PN_AGG_MAX_WORKERS * (PN_AGG_MAX_DEGREE + 1)},
    [PN_AGG_SUMMED - 40] = {0},
    [PN_AGG_STOP - 40] = {0},
    [PN_AGG_REFUSE - 40] = {0},
};
_Static_assert(sizeof(struct pn_agg_keys) == 160 && sizeof(struct pn_agg_share) == 144 && sizeof(struct pn_mask) == 33, "records are bytes on the wire");

static const uint8_t *take_set(struct pn_frame *f, uint32_t n) {
    const uint8_t *s = pn_frame_take(f, n, 1);
    for (uint32_t i = 0; s != NULL && i < n; i++)
        if (s[i] > 1) return NULL;
    return s;
}

enum pn_result pn_agg_read(const struct pn_frame *frame, uint32_t n, struct pn_agg_message *m, struct pn_error *err) {
    struct pn_frame f = *frame;
    uint64_t round[4], from = 0, count = 0;
    size_t n_round;
    memset(m, 0, sizeof *m);
    m->kind = (enum pn_agg_kind)f.kind;
    if ((unsigned)f.kind < PN_AGG_ROUND || (unsigned)f.kind > PN_AGG_REFUSE) return pn_fail(err, PN_INVALID, "message of kind %u is none of a secure sum", (unsigned)f.kind);
    const struct shape *s = &shapes[m->kind - PN_AGG_ROUND];
    if (!pn_frame_u64s(&f, "round", round, 4, &n_round) || n_round != 4 || !pn_frame_u64(&f, "from", &from) || from >= PN_AGG_MAX_WORKERS ||
        !pn_frame_u64(&f, "count", &count) || count > s->max_count)
        return pn_fail(err, PN_INVALID, "secure sum, message %u: round, from or count is missing or too large", (unsigned)m->kind);
    memcpy(m->round, round, 32);
    m->from = (uint32_t)from;
    m->count = (uint32_t)count;
    bool good = true;
    if (s->sets >= 1) good = (m->set = take_set(&f, n)) != NULL;
    if (good && s->sets >= 2) good = (m->set2 = take_set(&f, n)) != NULL;
    if (good && s->who) good = (m->who = pn_frame_take(&f, count, 4)) != NULL;
    for (uint32_t i = 0; good && s->who && i < m->count; i++) good = m->who[i] < n && (i == 0 || m->who[i] > m->who[i - 1]);
    if (good && s->record_bytes != 0) good = (m->records = pn_frame_take(&f, count, s->record_bytes)) != NULL;
    if (good && s->signature) good = (m->signature = pn_frame_take(&f, 1, 64)) != NULL;
    if (good && s->words) {
        m->word_bytes_all = f.body_bytes - f.i_body;
        m->words = f.body + f.i_body;
        f.i_body = f.body_bytes;
    }
    if (!good || f.i_body != f.body_bytes) return pn_fail(err, PN_INVALID, "secure sum, message %u from %u: its arrays do not have the lengths of its kind", (unsigned)m->kind, m->from);
    if (m->kind == PN_AGG_LIST && m->count != pn_agg_count(m->set, n)) return pn_fail(err, PN_INVALID, "secure sum: a list of %u keys for another number of workers", m->count);
    if (m->kind >= PN_AGG_STOP && !pn_frame_str(&f, "text", m->text, sizeof m->text)) m->text[0] = '\0';
    return PN_OK;
}

static uint8_t *put(uint8_t *at, const void *data, size_t n) {
    memset(at + (n & ~(size_t)7), 0, pn_pad8(n) - (n & ~(size_t)7));
    if (data != NULL && n > 0) memcpy(at, data, n);
    return at + pn_pad8(n);
}

struct pn_msg *pn_agg_write(struct pn_env *env, uint32_t n, const struct pn_agg_message *m, uint8_t **signature, uint8_t **words) {
    const struct shape *s = &shapes[m->kind - PN_AGG_ROUND];
    assert(m->count <= s->max_count);
    struct pn_writer w;
    uint64_t round[4];
    uint8_t *at;
    memcpy(round, m->round, 32);
    pn_write_start(&w, (enum pn_kind)m->kind, 0, 0);
    pn_write_u64s(&w, "round", round, 4);
    pn_write_u64(&w, "from", m->from);
    pn_write_u64(&w, "count", m->count);
    if (m->kind >= PN_AGG_STOP) pn_write_str(&w, "text", m->text);
    const size_t bytes = s->sets * pn_pad8(n) + (s->who ? pn_pad8(4u * m->count) : 0) + pn_pad8((size_t)s->record_bytes * m->count) + (s->signature ? 64 : 0) + pn_pad8(m->word_bytes_all);
    struct pn_msg *msg = pn_write_finish(&w, env, bytes, &at);
    if (msg == NULL) return NULL;
    if (s->sets >= 1) at = put(at, m->set, n);
    if (s->sets >= 2) at = put(at, m->set2, n);
    if (s->who) at = put(at, m->who, 4u * m->count);
    if (s->record_bytes != 0) at = put(at, m->records, (size_t)s->record_bytes * m->count);
    if (s->signature) {
        if (signature != NULL) *signature = at;
        at = put(at, m->signature, 64);
    }
    if (words == NULL) pn_msg_seal(msg);
    else {
        memset(at + (m->word_bytes_all & ~(size_t)7), 0, pn_pad8(m->word_bytes_all) - (m->word_bytes_all & ~(size_t)7));
        *words = at;
    }
    return msg;
}
