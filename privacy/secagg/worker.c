/* Every answer is kept and given again when its question is repeated; a question that comes again with another content is refused, by name. The rule
 * that matters: of each neighbour one share is shown, that of its seed or that of its key, and which one is fixed when the survivors are signed. */
#include "privacy/secagg/worker.h"
#include <assert.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "privacy/secagg/shamir.h"

enum { IDLE, ADVERTISED, SHARED, MASKED, SIGNED, REVEALED, OVER };
struct held { bool in, whole; uint8_t seed_share[32], key_share[32]; }; /* of the neighbour at my point p + 1: sends masks; its shares could be read */

struct pn_agg_worker {
    struct pn_env *env;
    struct pn_agg_worker_setup s;
    const struct pn_agg_terms *terms; /* kept: a mask may be made when the owner has already closed */
    struct pn_agg_terms kept;
    uint64_t first[PN_AGG_MAX_SERVERS + 1];
    uint8_t identity[64];
    int state;
    bool closed, working;
    uint8_t round[32], terms_digest[32], list[32];
    uint8_t mask_secret[32], seal_secret[32], seed[32];
    struct pn_agg_keys own;
    struct pn_agg_keys *keys;      /* of all in the list, by index */
    struct pn_agg_graph graph;
    uint32_t t, me;
    uint16_t index[PN_AGG_MAX_WORKERS], member[PN_AGG_MAX_WORKERS];
    bool listed[PN_AGG_MAX_WORKERS];
    struct held *held;             /* k */
    uint8_t survivors[PN_AGG_MAX_WORKERS];
    struct pn_msg *answer[REVEALED + 1]; /* by the state it led to */
    struct pn_msg *masked[PN_AGG_MAX_SERVERS];
    uint8_t *words[PN_AGG_MAX_SERVERS], *signatures[PN_AGG_MAX_SERVERS];
    bool arrived[PN_AGG_MAX_SERVERS];
    struct pn_mask *masks;
    size_t n_masks;
    struct pn_timer retry;
    struct pn_work work;
};

static void wipe(struct pn_agg_worker *w) {
    sodium_memzero(w->mask_secret, 32);
    sodium_memzero(w->seal_secret, 32);
    sodium_memzero(w->seed, 32);
    if (w->held != NULL) sodium_memzero(w->held, w->graph.k * sizeof *w->held);
    if (w->masks != NULL && !w->working) sodium_memzero(w->masks, w->n_masks * sizeof *w->masks);
}

static struct pn_agg_message blank(const struct pn_agg_worker *w, enum pn_agg_kind kind) {
    struct pn_agg_message m = {.kind = kind, .from = w->s.self};
    memcpy(m.round, w->round, 32);
    return m;
}

static void send_kept(struct pn_agg_worker *w, pn_peer to, struct pn_msg *m) {
    if (m != NULL) pn_send(w->env, to, pn_msg_ref(m));
}

static void end(struct pn_agg_worker *w, enum pn_result r, const char *line) {
    if (w->state == OVER) return;
    if (r == PN_REFUSED || r == PN_INVALID) {
        struct pn_agg_message m = blank(w, PN_AGG_REFUSE);
        memcpy(m.text, line, strnlen(line, sizeof m.text - 1));
        struct pn_msg *msg = pn_agg_write(w->env, w->terms->n, &m, NULL, NULL);
        if (msg != NULL) pn_send(w->env, w->s.coordinator, msg);
    }
    if (r != PN_OK) pn_log(w->env, PN_WARN, "secure sum, worker %u: %s", w->s.self, line);
    if (r != PN_OK) { /* PN_OK: a repeated question still gets its answer */
        w->state = OVER;
        pn_timer_stop(w->env, &w->retry);
    }
    wipe(w);
    w->s.done(w->s.owner, r, line);
}
#define END(w, r, ...) do { struct pn_error e_; pn_fail(&e_, r, __VA_ARGS__); end(w, r, e_.text); return; } while (0)

static void answer(struct pn_agg_worker *w, int state, const struct pn_agg_message *m) {
    w->answer[state] = pn_agg_write(w->env, w->terms->n, m, NULL, NULL);
    if (w->answer[state] == NULL) END(w, PN_NO_MEMORY, "no memory for a message");
    w->state = state;
    send_kept(w, w->s.coordinator, w->answer[state]);
}

/* ---- advertise ---- */
static void on_round(struct pn_agg_worker *w, const struct pn_agg_message *m) {
    if (w->state != IDLE) {
        if (memcmp(m->round, w->round, 32) == 0) send_kept(w, w->s.coordinator, w->answer[ADVERTISED]);
        return;
    }
    memcpy(w->round, m->round, 32);
    pn_agg_digest_terms(w->terms, w->round, w->terms_digest);
    if (m->count != 1 || memcmp(m->records, w->terms_digest, 32) != 0) END(w, PN_REFUSED, "the coordinator's terms of the round are not this worker's: all must run the same job file");
    pn_agg_random(w->env, w->mask_secret, 32);
    pn_agg_random(w->env, w->seal_secret, 32);
    pn_agg_random(w->env, w->seed, 32);
    crypto_scalarmult_base(w->own.mask_key, w->mask_secret);
    crypto_scalarmult_base(w->own.seal_key, w->seal_secret);
    pn_agg_commit(w->seed, w->own.commitment);
    pn_agg_sign("keys", w->terms_digest, w->s.self, &w->own, 96, w->identity, w->own.signature);
    struct pn_agg_message out = blank(w, PN_AGG_KEYS);
    out.count = 1;
    out.records = (const uint8_t *)&w->own;
    answer(w, ADVERTISED, &out);
}

/* ---- share ---- */
static void on_list(struct pn_agg_worker *w, const struct pn_agg_message *m) {
    uint8_t list[32];
    const uint32_t n = w->terms->n, self = w->s.self;
    struct pn_error err;
    pn_agg_digest_list(w->terms_digest, n, m->set, (const struct pn_agg_keys *)(const void *)m->records, list);
    if (w->state > ADVERTISED) {
        if (memcmp(list, w->list, 32) != 0) END(w, PN_REFUSED, "the coordinator sent two different lists of keys in one round");
        send_kept(w, w->s.coordinator, w->answer[SHARED]);
        return;
    }
    if (w->state != ADVERTISED) return;
    memcpy(w->list, list, 32);
    enum pn_result r = pn_agg_layout(w->terms, m->set, list, &w->graph, &w->t, w->index, w->member, &err);
    if (r != PN_OK) END(w, r, "%s", err.text);
    w->me = w->index[self];
    const struct pn_agg_keys *records = (const struct pn_agg_keys *)(const void *)m->records;
    if (!m->set[self] || memcmp(&records[w->me], &w->own, sizeof w->own) != 0) END(w, PN_REFUSED, "the list of keys does not have this worker's own (it came twice, or after a restart): the next round will");
    const uint32_t k = w->graph.k;
    w->keys = malloc(w->graph.n * sizeof *w->keys);
    w->held = calloc(k, sizeof *w->held);
    w->masks = calloc(k + 1u, sizeof *w->masks);
    uint8_t *coefficients = malloc(2u * w->t * 32u);
    uint8_t(*shares)[32] = malloc(2u * k * sizeof *shares);
    struct pn_agg_share *sealed = malloc(k * sizeof *sealed);
    if (w->keys == NULL || w->held == NULL || w->masks == NULL || coefficients == NULL || shares == NULL || sealed == NULL) {
        r = pn_fail(&err, PN_NO_MEMORY, "no memory for shares");
        goto out;
    }
    memcpy(w->keys, records, w->graph.n * sizeof *w->keys);
    for (uint32_t i = 0; i < n; i++) w->listed[i] = m->set[i];
    pn_agg_random(w->env, coefficients, 2u * (w->t - 1) * 32u);
    pn_shamir_split(w->seed, w->t, k, coefficients, shares);
    pn_shamir_split(w->mask_secret, w->t, k, coefficients + (w->t - 1) * 32u, shares + k);
    for (uint32_t p = 0; p < k; p++) {
        const uint32_t other = pn_agg_neighbour(&w->graph, w->me, p + 1), number = w->member[other];
        if (!pn_agg_verify("keys", w->terms_digest, number, &w->keys[other], 96, w->terms->identities[number], w->keys[other].signature)) {
            r = pn_fail(&err, PN_REFUSED, "the keys of worker %u are not signed by its identity", number);
            goto out;
        }
        uint8_t key[32], plain[64];
        static const uint8_t nonce[crypto_aead_chacha20poly1305_ietf_NPUBBYTES]; /* a key seals one message */
        if (!pn_agg_seal_key(w->list, w->seal_secret, w->keys[other].seal_key, self, number, key)) {
            r = pn_fail(&err, PN_REFUSED, "worker %u's key is of low order", number);
            goto out;
        }
        memcpy(plain, shares[p], 32);
        memcpy(plain + 32, shares[k + p], 32);
        crypto_aead_chacha20poly1305_ietf_encrypt(sealed[p].sealed, NULL, plain, sizeof plain, w->list, 32, NULL, nonce, key);
        pn_agg_commit(plain, sealed[p].seed_check);
        pn_agg_commit(plain + 32, sealed[p].key_check);
        sodium_memzero(key, sizeof key);
        sodium_memzero(plain, sizeof plain);
    }
    struct pn_agg_message out = blank(w, PN_AGG_SHARES);
    out.count = k;
    out.records = (const uint8_t *)sealed;
    answer(w, SHARED, &out);
out:
    if (coefficients != NULL) sodium_memzero(coefficients, 2u * w->t * 32u);
    if (shares != NULL) sodium_memzero(shares, 2u * k * sizeof *shares);
    free(coefficients);
    free(shares);
    free(sealed);
    if (r != PN_OK) end(w, r, err.text);
}

/* ---- mask ---- */
static void mask_run(struct pn_work *work) { /* on a work thread: touches only the messages and the masks, which rest meanwhile */
    struct pn_agg_worker *w = work->owner;
    const unsigned wb = w->terms->word_bytes;
    for (uint32_t s = 0; s < w->terms->n_servers; s++) {
        const uint64_t first = w->terms->first[s];
        const size_t count = (size_t)(w->terms->first[s + 1] - first);
        uint8_t digest[32];
        pn_mask_add(w->words[s], wb, first, count, w->masks, w->n_masks);
        crypto_generichash(digest, 32, w->words[s], count * wb, NULL, 0);
        pn_agg_sign("masked", w->list, w->s.self | s << 16, digest, 32, w->identity, w->signatures[s]);
        pn_msg_seal(w->masked[s]);
    }
}
static void release(struct pn_agg_worker *w) {
    wipe(w);
    sodium_memzero(w->identity, sizeof w->identity);
    for (int i = 0; i <= REVEALED; i++) pn_msg_unref(w->answer[i]);
    for (uint32_t s = 0; s < w->terms->n_servers; s++) pn_msg_unref(w->masked[s]);
    free(w->keys);
    free(w->held);
    free(w->masks);
    free(w);
}
static void push_segments(struct pn_agg_worker *w) {
    bool all = true;
    for (uint32_t s = 0; s < w->terms->n_servers; s++)
        if (!w->arrived[s]) {
            all = false;
            send_kept(w, w->s.servers[s], w->masked[s]);
        }
    if (!all) pn_timer_start(w->env, &w->retry, w->terms->retry_ms * 4); /* these are large */
}
static void retry_fire(struct pn_timer *t) { push_segments(t->owner); }
static void mask_done(struct pn_work *work) {
    struct pn_agg_worker *w = work->owner;
    w->working = false;
    sodium_memzero(w->masks, w->n_masks * sizeof *w->masks);
    if (w->closed) release(w);
    else if (w->state == MASKED) push_segments(w);
}

static void on_deliver(struct pn_agg_worker *w, const struct pn_agg_message *m) {
    if (w->state != SHARED) return; /* repeated: the segments have their own timer */
    const struct pn_agg_share *in = (const struct pn_agg_share *)(const void *)m->records;
    if (m->count < w->t) END(w, PN_REFUSED, "%u neighbours have shared their secrets, %u are needed", m->count, w->t);
    w->n_masks = 1;
    memcpy(w->masks[0].seed, w->seed, 32);
    w->masks[0].sign = 1;
    for (uint32_t i = 0; i < m->count; i++) {
        const uint32_t number = m->who[i], other = w->index[number], point = w->listed[number] && number != w->s.self ? pn_agg_point(&w->graph, w->me, other) : 0;
        if (point == 0) END(w, PN_REFUSED, "the coordinator delivered shares of worker %u, no neighbour", number);
        struct held *h = &w->held[point - 1];
        uint8_t key[32], plain[64], check[32];
        static const uint8_t nonce[crypto_aead_chacha20poly1305_ietf_NPUBBYTES];
        h->in = true;
        struct pn_mask *mask = &w->masks[w->n_masks++];
        mask->sign = w->s.self < number ? 1 : -1;
        if (!pn_agg_pair(w->list, w->mask_secret, w->keys[other].mask_key, w->s.self, number, mask->seed) ||
            !pn_agg_seal_key(w->list, w->seal_secret, w->keys[other].seal_key, number, w->s.self, key))
            END(w, PN_REFUSED, "worker %u's key is of low order", number);
        h->whole = crypto_aead_chacha20poly1305_ietf_decrypt(plain, NULL, NULL, in[i].sealed, sizeof in[i].sealed, w->list, 32, nonce, key) == 0;
        if (h->whole) {
            pn_agg_commit(plain, check);
            h->whole = memcmp(check, in[i].seed_check, 32) == 0;
            pn_agg_commit(plain + 32, check);
            h->whole &= memcmp(check, in[i].key_check, 32) == 0;
            memcpy(h->seed_share, plain, 32);
            memcpy(h->key_share, plain + 32, 32);
        }
        if (!h->whole) pn_log(w->env, PN_WARN, "secure sum, worker %u: the shares of worker %u cannot be read or are not those it committed to: left out", w->s.self, number);
        sodium_memzero(key, sizeof key);
        sodium_memzero(plain, sizeof plain);
    }
    for (uint32_t s = 0; s < w->terms->n_servers; s++) {
        struct pn_agg_message out = blank(w, PN_AGG_MASKED);
        out.word_bytes_all = (size_t)(w->terms->first[s + 1] - w->terms->first[s]) * w->terms->word_bytes;
        w->masked[s] = pn_agg_write(w->env, w->terms->n, &out, &w->signatures[s], &w->words[s]);
        if (w->masked[s] == NULL) END(w, PN_NO_MEMORY, "no memory for a masked segment");
        memcpy(w->words[s], (const uint8_t *)w->s.words + w->terms->first[s] * w->terms->word_bytes, out.word_bytes_all);
    }
    w->state = MASKED;
    w->working = true;
    pn_work_start(w->env, &w->work);
}

/* ---- sign the survivors ---- */
static void on_survivors(struct pn_agg_worker *w, const struct pn_agg_message *m) {
    const uint32_t n = w->terms->n;
    if (w->state >= SIGNED) {
        for (uint32_t i = 0; i < n; i++)
            if (m->set[i] != w->survivors[i]) END(w, PN_REFUSED, "the coordinator named two different sets of survivors, which asks for both shares of worker %u", i);
        send_kept(w, w->s.coordinator, w->answer[SIGNED]);
        return;
    }
    if (w->state != MASKED || w->working) return;
    const uint32_t fewest = pn_agg_fewest(w->terms), left = pn_agg_count(m->set, n);
    for (uint32_t i = 0; i < n; i++)
        if (m->set[i] && !w->listed[i]) END(w, PN_REFUSED, "the coordinator names worker %u a survivor, who was not in its list: it would be counted among the fewest whose noise is in the sum", i);
    if (left < fewest || !m->set[w->s.self]) END(w, PN_REFUSED, "%u survivors (with this worker: %u): %u are the fewest a sum is made of", left, m->set[w->s.self], fewest);
    uint32_t near = 0;
    for (uint32_t p = 0; p < w->graph.k; p++) near += w->held[p].in && m->set[w->member[pn_agg_neighbour(&w->graph, w->me, p + 1)]];
    if (near < w->t) END(w, PN_REFUSED, "%u neighbours survive, %u are needed", near, w->t);
    memcpy(w->survivors, m->set, n);
    uint8_t signature[64];
    pn_agg_sign("survivors", w->list, 0, w->survivors, n, w->identity, signature);
    struct pn_agg_message out = blank(w, PN_AGG_SIGNED);
    out.signature = signature;
    pn_timer_stop(w->env, &w->retry);
    answer(w, SIGNED, &out);
}

/* ---- reveal ---- */
static void on_proof(struct pn_agg_worker *w, const struct pn_agg_message *m) {
    const uint32_t n = w->terms->n;
    if (w->state < SIGNED || w->state == OVER) return;
    for (uint32_t i = 0; i < n; i++) {
        if (m->set[i] && m->set2[i]) END(w, PN_REFUSED, "the coordinator asks for both shares of worker %u", i);
        if (m->set[i] != w->survivors[i]) END(w, PN_REFUSED, "the coordinator asks for the %s of worker %u against the survivors it had signed", m->set[i] ? "seed" : "key", i);
    }
    if (w->state == REVEALED) {
        send_kept(w, w->s.coordinator, w->answer[REVEALED]);
        return;
    }
    uint32_t valid = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        const uint32_t number = m->who[i];
        if (number == w->s.self || !w->listed[number] || !w->survivors[number] || pn_agg_point(&w->graph, w->me, w->index[number]) == 0) continue;
        if (!pn_agg_verify("survivors", w->list, 0, w->survivors, n, w->terms->identities[number], m->records + 64u * i))
            END(w, PN_REFUSED, "worker %u has not signed the survivors this worker was told", number);
        valid++;
    }
    if (valid < w->t) END(w, PN_REFUSED, "%u neighbours have signed the survivors, %u are needed", valid, w->t);
    uint32_t who[PN_AGG_MAX_DEGREE];
    uint8_t shares[PN_AGG_MAX_DEGREE][32];
    struct pn_agg_message out = blank(w, PN_AGG_REVEAL);
    out.who = who;
    out.records = (const uint8_t *)shares;
    for (uint32_t number = 0; number < n; number++) {
        const uint32_t point = w->listed[number] && number != w->s.self ? pn_agg_point(&w->graph, w->me, w->index[number]) : 0;
        if (point == 0 || !w->held[point - 1].whole || !(m->set[number] || m->set2[number])) continue;
        who[out.count] = number;
        memcpy(shares[out.count++], m->set[number] ? w->held[point - 1].seed_share : w->held[point - 1].key_share, 32);
    }
    answer(w, REVEALED, &out);
    sodium_memzero(shares, sizeof shares);
    if (w->state == REVEALED) end(w, PN_OK, "");
}

enum pn_result pn_agg_worker_open(struct pn_agg_worker **out, struct pn_env *env, const struct pn_agg_worker_setup *s, struct pn_error *err) {
    enum pn_result r = pn_agg_terms_check(s->terms, err);
    if (r != PN_OK) return r;
    if (s->self >= s->terms->n || memcmp(s->identity + 32, s->terms->identities[s->self], 32) != 0)
        return pn_fail(err, PN_INVALID, "the identity given is not that of worker %u in the job", s->self);
    struct pn_agg_worker *w = calloc(1, sizeof *w);
    if (w == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for a secure sum");
    w->env = env;
    w->s = *s;
    w->kept = *s->terms;
    memcpy(w->first, s->terms->first, (s->terms->n_servers + 1) * sizeof *w->first);
    w->kept.first = w->first;
    w->terms = &w->kept;
    memcpy(w->identity, s->identity, sizeof w->identity);
    w->retry = (struct pn_timer){.fire = retry_fire, .owner = w};
    w->work = (struct pn_work){.run = mask_run, .done = mask_done, .owner = w};
    *out = w;
    return PN_OK;
}

void pn_agg_worker_message(struct pn_agg_worker *w, pn_peer from, const struct pn_frame *f) {
    struct pn_agg_message m;
    if (w->state == OVER || pn_agg_read(f, w->terms->n, &m, NULL) != PN_OK) return;
    if (m.kind == PN_AGG_HELD) {
        if (memcmp(m.round, w->round, 32) == 0 && m.from < w->terms->n_servers && from == w->s.servers[m.from]) w->arrived[m.from] = true;
        return;
    }
    if (from != w->s.coordinator) return;
    if (m.kind == PN_AGG_ROUND) on_round(w, &m);
    if (w->state == IDLE || memcmp(m.round, w->round, 32) != 0) return; /* of another round */
    if (m.kind == PN_AGG_LIST) on_list(w, &m);
    else if (m.kind == PN_AGG_DELIVER) on_deliver(w, &m);
    else if (m.kind == PN_AGG_SURVIVORS) on_survivors(w, &m);
    else if (m.kind == PN_AGG_PROOF) on_proof(w, &m);
    else if (m.kind == PN_AGG_STOP && w->state != REVEALED) end(w, PN_FAILED, m.text);
}

void pn_agg_worker_close(struct pn_agg_worker *w) {
    if (w == NULL) return;
    pn_timer_stop(w->env, &w->retry);
    w->closed = true;
    w->state = OVER;
    if (!w->working) release(w);
}
