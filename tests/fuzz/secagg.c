/* What the parts of a secure sum do with frames from the network whose checksum is right. The first byte chooses whom they reach: the reader alone, or a
 * worker, a server or a coordinator that has been brought to a phase by honest peers; then frames follow, raw or with a good header and the round's id. */
#include "tests/unit/secagg/world.h"

static uint8_t round_id[32]; /* of the round that goes on */
struct input { const uint8_t *p, *end; };
static uint64_t take(struct input *in, size_t n) {
    uint64_t v = 0;
    if ((size_t)(in->end - in->p) < n) n = (size_t)(in->end - in->p);
    memcpy(&v, in->p, n);
    in->p += n;
    return v;
}

/* A frame of a kind with arrays of the lengths the header tells, or nearly. */
static struct pn_msg *built(struct world *w, struct input *in) {
    static const struct { unsigned sets, who, record, signature; } shapes[] = {{0, 0, 32, 0}, {0, 0, 160, 0}, {1, 0, 160, 0}, {0, 0, 144, 0}, {0, 1, 144, 0}, {0, 0, 0, 1}, {0, 0, 0, 0}, {1, 0, 32, 0},
                                                                               {1, 0, 0, 0}, {0, 0, 0, 1}, {2, 1, 64, 0}, {0, 1, 32, 0}, {1, 0, 33, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}};
    const unsigned kind = (unsigned)take(in, 1) % 16, n = w->terms.n;
    const size_t count = take(in, 1) % 12, rest = kind == PN_AGG_MASKED - PN_AGG_ROUND ? 32u * 4 - take(in, 1) % 3 * 8 : take(in, 1) % 32 == 31 ? 8 : 0;
    uint64_t round[4];
    struct pn_writer wr;
    pn_write_start(&wr, (enum pn_kind)(PN_AGG_ROUND + kind), 0, 0);
    memcpy(round, round_id, 32);
    pn_write_u64s(&wr, "round", round, take(in, 1) % 32 == 31 ? 3 : 4);
    pn_write_u64(&wr, "from", take(in, 1) % 8);
    pn_write_u64(&wr, "count", take(in, 1) % 16 == 15 ? take(in, 8) : count);
    if (take(in, 1) % 2) pn_write_str(&wr, "text", "text");
    const size_t bytes = shapes[kind].sets * pn_pad8(n) + (shapes[kind].who ? pn_pad8(4 * count) : 0) + pn_pad8(shapes[kind].record * count) + 64u * shapes[kind].signature + rest;
    uint8_t *body;
    struct pn_msg *m = pn_write_finish(&wr, &w->nodes[0].env, bytes, &body);
    if (m == NULL) return NULL;
    memset(body, 0, bytes);
    size_t at = 0;
    for (unsigned s = 0; s < shapes[kind].sets; s++, at += pn_pad8(n))
        for (unsigned i = 0; i < n; i++) body[at + i] = take(in, 1) % 16 == 15 ? 2 : (uint8_t)take(in, 1) & 1;
    if (shapes[kind].who) {
        uint32_t last = 0;
        for (size_t i = 0; i < count; i++) {
            last += (uint32_t)take(in, 1) % 4;
            memcpy(body + at + 4 * i, &last, 4);
        }
        at += pn_pad8(4 * count);
    }
    for (; at < bytes && in->p < in->end; at++) body[at] = (uint8_t)take(in, 1);
    return m;
}

static bool note(struct world *w, uint32_t from, uint32_t to, struct pn_msg **m) {
    struct pn_frame f;
    struct pn_agg_message in;
    (void)from;
    (void)to;
    if ((*m)->data[5] == PN_AGG_ROUND && pn_frame_open(&f, (*m)->data, (*m)->n_bytes, NULL) == PN_OK) {
        if (pn_agg_read(&f, w->terms.n, &in, NULL) == PN_OK) memcpy(round_id, in.round, 32);
        pn_frame_close(&f);
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 4 || sodium_init() < 0) return 0;
    struct input in = {data, data + size};
    struct world *w = w_open(1, 4, 2, 48, 4);
    struct pn_error err;
    const unsigned whom = (unsigned)take(&in, 1), steps = (unsigned)take(&in, 1) % 120;
    w->terms.max_colluding = 0;
    w->change = note;
    if (w_start(w, &err) != PN_OK) abort();
    for (unsigned i = 0; i < steps && !w->over && w_step(w); i++) {}
    while (in.p < in.end) {
        struct pn_msg *m;
        if (take(&in, 1) % 8 == 0) {
            size_t n = take(&in, 1);
            if (n > (size_t)(in.end - in.p)) n = (size_t)(in.end - in.p);
            m = w_message(&w->nodes[0].env, PN_ENVELOPE_BYTES + n);
            memset(m->data, 0, PN_ENVELOPE_BYTES);
            memcpy(m->data + PN_ENVELOPE_BYTES, in.p, n);
            in.p += n;
            m->data[5] = (uint8_t)(PN_AGG_ROUND + take(&in, 1) % 16);
            const uint32_t header = (uint32_t)(take(&in, 1) * 8);
            memcpy(m->data + 24, &header, 4);
        } else m = built(w, &in);
        if (m == NULL) continue;
        memcpy(m->data, "PNW1\x01", 5);
        pn_msg_seal(m);
        const uint32_t to = whom % 3 == 0 ? 0 : whom % 3 == 1 ? w_worker(whom % 4) : w_server(w, whom % 2);
        const uint32_t from = to == 0 ? 1 + (uint32_t)take(&in, 1) % 6 : 0; /* a worker and a server hear the coordinator, which is taken to lie */
        struct event e = {.from = from, .to = to, .m = m};
        w_hand(w, &e);
        pn_msg_unref(m);
        for (unsigned i = (unsigned)take(&in, 1) % 4; i > 0 && w_step(w); i--) {}
    }
    w_close(w);
    return 0;
}
