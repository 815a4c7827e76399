/* The idea: five phases, each with the set of those who must answer. A phase ends when all have, or at its deadline with those who have, if they are enough;
 * the next phase's set is this one's answers. What has not been answered is asked again every retry_ms, so that a lost message costs time only. */
#include "privacy/secagg/coordinator.h"
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include "privacy/secagg/shamir.h"

enum phase { ADVERTISE, SHARE, MASK, SIGN, REVEAL, UNMASK, DONE, OVER };
static const char *const names[] = {"advertise keys", "share secrets", "send masked segments", "sign the survivors", "reveal shares", "unmask"};

struct shown { uint32_t n; uint8_t points[PN_AGG_MAX_DEGREE]; uint8_t (*shares)[32]; }; /* good shares of one worker's secret; room for t */

struct pn_agg_coordinator {
    struct pn_env *env;
    struct pn_agg_coordinator_setup s;
    const struct pn_agg_terms *terms;
    enum phase phase;
    uint32_t fewest, t, n_left;
    uint8_t round[32], terms_digest[32], list[32];
    uint8_t asked[PN_AGG_MAX_WORKERS], answered[PN_AGG_MAX_WORKERS]; /* in this phase */
    uint8_t advertised[PN_AGG_MAX_WORKERS], shared[PN_AGG_MAX_WORKERS], survivors[PN_AGG_MAX_WORKERS], dropped[PN_AGG_MAX_WORKERS], signers[PN_AGG_MAX_WORKERS];
    uint8_t received[PN_AGG_MAX_SERVERS][PN_AGG_MAX_WORKERS];
    uint8_t life[PN_AGG_MAX_SERVERS][32];
    bool known[PN_AGG_MAX_SERVERS], summed[PN_AGG_MAX_SERVERS];
    struct pn_agg_keys keys[PN_AGG_MAX_WORKERS], *records; /* by number; by index, as in the list */
    struct pn_agg_graph graph;
    uint16_t index[PN_AGG_MAX_WORKERS], member[PN_AGG_MAX_WORKERS];
    struct pn_agg_share *shares[PN_AGG_MAX_WORKERS];  /* k each, by point of the giver */
    uint8_t signatures[PN_AGG_MAX_WORKERS][64];
    struct shown shown[PN_AGG_MAX_WORKERS];
    uint32_t wrong[PN_AGG_MAX_WORKERS];
    struct pn_mask *masks;
    size_t n_masks;
    struct pn_timer retry, deadline;
};

static struct pn_agg_message blank(const struct pn_agg_coordinator *c, enum pn_agg_kind kind) {
    struct pn_agg_message m = {.kind = kind};
    memcpy(m.round, c->round, 32);
    return m;
}
static void post(struct pn_agg_coordinator *c, pn_peer to, const struct pn_agg_message *m) {
    struct pn_msg *msg = to == 0 ? NULL : pn_agg_write(c->env, c->terms->n, m, NULL, NULL);
    if (msg != NULL) pn_send(c->env, to, msg);
}

static void end(struct pn_agg_coordinator *c, enum pn_result r, const char *line) {
    if (c->phase >= DONE) return;
    c->phase = r == PN_OK ? DONE : OVER;
    pn_timer_stop(c->env, &c->retry);
    pn_timer_stop(c->env, &c->deadline);
    if (c->masks != NULL) sodium_memzero(c->masks, c->n_masks * sizeof *c->masks);
    if (r != PN_OK) {
        struct pn_agg_message m = blank(c, PN_AGG_STOP);
        memcpy(m.text, line, strnlen(line, sizeof m.text - 1));
        for (uint32_t i = 0; i < c->terms->n; i++) post(c, c->s.workers[i], &m);
        for (uint32_t s = 0; s < c->terms->n_servers; s++) post(c, c->s.servers[s], &m);
        pn_log(c->env, PN_WARN, "secure sum: %s", line);
    }
    c->s.done(c->s.owner, r, r == PN_OK ? c->survivors : NULL, r == PN_OK ? c->n_left : 0, line);
}
#define END(c, r, ...) do { struct pn_error e_; pn_fail(&e_, r, __VA_ARGS__); end(c, r, e_.text); return; } while (0)

/* ---- asking ---- */
static void ask_worker(struct pn_agg_coordinator *c, uint32_t i) {
    struct pn_agg_message m;
    uint32_t who[PN_AGG_MAX_DEGREE];
    if (c->phase == ADVERTISE) {
        m = blank(c, PN_AGG_ROUND);
        m.count = 1;
        m.records = c->terms_digest;
        post(c, c->s.workers[i], &m);
        return;
    }
    if (c->phase == SHARE) {
        m = blank(c, PN_AGG_LIST);
        m.set = c->advertised;
        m.count = c->graph.n;
        m.records = (const uint8_t *)c->records;
        post(c, c->s.workers[i], &m);
        return;
    }
    if (c->phase == SIGN) {
        m = blank(c, PN_AGG_SURVIVORS);
        m.set = c->survivors;
        post(c, c->s.workers[i], &m);
        return;
    }
    if (c->phase != MASK && c->phase != REVEAL) return;
    m = blank(c, c->phase == MASK ? PN_AGG_DELIVER : PN_AGG_PROOF);
    const uint8_t *from = c->phase == MASK ? c->shared : c->signers;
    static _Thread_local uint8_t records[PN_AGG_MAX_DEGREE * sizeof(struct pn_agg_share)];
    for (uint32_t j = 0; j < c->terms->n; j++) {
        if (!from[j] || j == i) continue;
        const uint32_t point = pn_agg_point(&c->graph, c->index[j], c->index[i]);
        if (point == 0) continue;
        if (c->phase == MASK) memcpy(records + m.count * sizeof(struct pn_agg_share), &c->shares[j][point - 1], sizeof(struct pn_agg_share));
        else memcpy(records + m.count * 64u, c->signatures[j], 64);
        who[m.count++] = j;
    }
    m.set = c->survivors;
    m.set2 = c->dropped;
    m.who = who;
    m.records = records;
    post(c, c->s.workers[i], &m);
}

static void ask_servers(struct pn_agg_coordinator *c) {
    struct pn_agg_message round = blank(c, PN_AGG_ROUND), list = blank(c, PN_AGG_LIST), unmask = blank(c, PN_AGG_UNMASK);
    round.count = 1;
    round.records = c->terms_digest;
    list.set = c->advertised;
    list.count = c->graph.n;
    list.records = (const uint8_t *)c->records;
    unmask.set = c->survivors;
    unmask.count = (uint32_t)c->n_masks;
    unmask.records = (const uint8_t *)c->masks;
    for (uint32_t s = 0; s < c->terms->n_servers; s++) {
        if (c->phase == ADVERTISE || c->phase == SHARE || c->phase == MASK) post(c, c->s.servers[s], &round);
        if (c->phase == SHARE || c->phase == MASK) post(c, c->s.servers[s], &list);
        if (c->phase == UNMASK && !c->summed[s]) post(c, c->s.servers[s], &unmask);
    }
}
static void ask(struct pn_agg_coordinator *c) {
    ask_servers(c);
    for (uint32_t i = 0; i < c->terms->n && c->phase < UNMASK; i++)
        if (c->asked[i] && !c->answered[i]) ask_worker(c, i);
    pn_timer_start(c->env, &c->retry, c->terms->retry_ms);
}
static void retry_fire(struct pn_timer *t) { ask(t->owner); }

static void enter(struct pn_agg_coordinator *c, enum phase phase, const uint8_t *asked) {
    uint8_t copy[PN_AGG_MAX_WORKERS];
    memcpy(copy, asked, c->terms->n);
    c->phase = phase;
    memcpy(c->asked, copy, c->terms->n);
    memset(c->answered, 0, sizeof c->answered);
    pn_timer_start(c->env, &c->deadline, c->terms->phase_ms);
    ask(c);
}

/* ---- what a phase leads to ---- */
static void list_ready(struct pn_agg_coordinator *c) {
    memcpy(c->advertised, c->answered, c->terms->n);
    c->records = malloc(c->terms->n * sizeof *c->records);
    if (c->records == NULL) END(c, PN_NO_MEMORY, "no memory for a list of keys");
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->terms->n; i++)
        if (c->advertised[i]) c->records[n++] = c->keys[i];
    pn_agg_digest_list(c->terms_digest, c->terms->n, c->advertised, c->records, c->list);
    struct pn_error err;
    enum pn_result r = pn_agg_layout(c->terms, c->advertised, c->list, &c->graph, &c->t, c->index, c->member, &err);
    if (r != PN_OK) END(c, r, "%s", err.text);
    enter(c, SHARE, c->advertised);
}

static void survivors_ready(struct pn_agg_coordinator *c) {
    c->n_left = 0;
    for (uint32_t i = 0; i < c->terms->n; i++) {
        c->survivors[i] = c->answered[i];
        c->dropped[i] = c->shared[i] && !c->answered[i];
        c->n_left += c->survivors[i];
    }
    enter(c, SIGN, c->survivors);
}

/* The left-over masks: each survivor's own, and those of a dropped worker with its surviving neighbours. */
static void unmask(struct pn_agg_coordinator *c) {
    const uint32_t n = c->terms->n;
    c->masks = malloc((size_t)n * (c->graph.k + 1) * sizeof *c->masks);
    if (c->masks == NULL) END(c, PN_NO_MEMORY, "no memory for masks");
    for (uint32_t i = 0; i < n; i++) {
        if (!c->survivors[i] && !c->dropped[i]) continue;
        uint8_t secret[32], check[32];
        pn_shamir_join(c->t, c->shown[i].points, (const uint8_t(*)[32])c->shown[i].shares, secret);
        if (c->survivors[i]) pn_agg_commit(secret, check);
        else crypto_scalarmult_base(check, secret);
        if (memcmp(check, c->survivors[i] ? c->keys[i].commitment : c->keys[i].mask_key, 32) != 0)
            END(c, PN_REFUSED, "worker %u shared another secret than it had committed to: nothing is released", i);
        if (c->survivors[i]) {
            memcpy(c->masks[c->n_masks].seed, secret, 32);
            c->masks[c->n_masks++].sign = -1;
        } else {
            for (uint32_t p = 1; p <= c->graph.k; p++) {
                const uint32_t j = c->member[pn_agg_neighbour(&c->graph, c->index[i], p)];
                if (!c->survivors[j]) continue;
                if (!pn_agg_pair(c->list, secret, c->keys[j].mask_key, i, j, c->masks[c->n_masks].seed)) END(c, PN_REFUSED, "worker %u's key is of low order", j);
                c->masks[c->n_masks++].sign = j < i ? -1 : 1; /* j added it if it has the lower number */
            }
        }
        sodium_memzero(secret, sizeof secret);
    }
    static const uint8_t nobody[PN_AGG_MAX_WORKERS];
    enter(c, UNMASK, nobody);
}

static bool enough_shown(const struct pn_agg_coordinator *c) {
    for (uint32_t i = 0; i < c->terms->n; i++)
        if ((c->survivors[i] || c->dropped[i]) && c->shown[i].n < c->t) return false;
    return true;
}

/* All who were asked have answered, or (late) the phase's time is up. */
static void advance(struct pn_agg_coordinator *c, bool late) {
    const uint32_t here = pn_agg_count(c->answered, c->terms->n), wanted = pn_agg_count(c->asked, c->terms->n);
    if (c->phase == REVEAL && enough_shown(c)) {
        unmask(c);
        return;
    }
    if (c->phase == UNMASK) {
        bool all = true;
        for (uint32_t s = 0; s < c->terms->n_servers; s++) all &= c->summed[s];
        if (all) end(c, PN_OK, "");
        else if (late) END(c, PN_DEADLINE, "a server has not summed in time: nothing is released");
        return;
    }
    if (here < wanted && !late) return;
    if (c->phase == REVEAL) {
        for (uint32_t i = 0; i < c->terms->n; i++)
            if ((c->survivors[i] || c->dropped[i]) && c->shown[i].n < c->t)
                END(c, PN_REFUSED, "%u good shares of worker %u's %s have been revealed, %u are needed: nothing is released", c->shown[i].n, i, c->survivors[i] ? "seed" : "key", c->t);
    }
    const uint32_t least = c->phase == SIGN ? c->t : c->fewest; /* who signs only vouches: how many reveal is counted a secret at a time */
    if (here < least) END(c, PN_REFUSED, "%u of %u workers were there to %s, %u are the fewest: nothing is released", here, c->terms->n, names[c->phase], least);
    if (c->phase == ADVERTISE) list_ready(c);
    else if (c->phase == SHARE) {
        memcpy(c->shared, c->answered, c->terms->n);
        enter(c, MASK, c->shared);
    } else if (c->phase == MASK) survivors_ready(c);
    else if (c->phase == SIGN) {
        memcpy(c->signers, c->answered, c->terms->n);
        enter(c, REVEAL, c->signers);
    }
}
static void deadline_fire(struct pn_timer *t) { advance(t->owner, true); }

/* ---- answers ---- */
static void on_reveal(struct pn_agg_coordinator *c, uint32_t i, const struct pn_agg_message *m) {
    for (uint32_t a = 0; a < m->count; a++) {
        const uint32_t j = m->who[a];
        const uint32_t point = (c->survivors[j] || c->dropped[j]) && j != i ? pn_agg_point(&c->graph, c->index[j], c->index[i]) : 0;
        if (point == 0) {
            c->wrong[i]++;
            pn_log(c->env, PN_WARN, "secure sum: worker %u revealed a share of worker %u, which it does not hold: left out", i, j);
            continue;
        }
        uint8_t check[32];
        pn_agg_commit(m->records + 32u * a, check);
        const struct pn_agg_share *given = &c->shares[j][point - 1];
        if (memcmp(check, c->survivors[j] ? given->seed_check : given->key_check, 32) != 0) {
            c->wrong[i]++;
            pn_log(c->env, PN_WARN, "secure sum: worker %u revealed a wrong share of worker %u's %s: left out", i, j, c->survivors[j] ? "seed" : "key");
            continue;
        }
        struct shown *s = &c->shown[j];
        if (s->shares == NULL) s->shares = malloc(c->t * sizeof *s->shares);
        if (s->shares == NULL || s->n == c->t) continue;
        memcpy(s->shares[s->n], m->records + 32u * a, 32);
        s->points[s->n++] = (uint8_t)point;
    }
}

static void on_worker(struct pn_agg_coordinator *c, uint32_t i, const struct pn_agg_message *m) {
    if (m->kind == PN_AGG_REFUSE) {
        pn_log(c->env, PN_WARN, "secure sum: worker %u refuses: %s", i, m->text);
        if (c->asked[i] && !c->answered[i]) {
            c->asked[i] = 0; /* as one that has dropped out */
            advance(c, false);
        }
        return;
    }
    static const enum pn_agg_kind wanted[] = {PN_AGG_KEYS, PN_AGG_SHARES, 0, PN_AGG_SIGNED, PN_AGG_REVEAL};
    if (c->phase > REVEAL || c->phase == MASK || m->kind != wanted[c->phase]) return; /* late, or early: asked again if it matters */
    if (!c->asked[i] || c->answered[i]) return;                                       /* the first answer stays */
    if (m->kind == PN_AGG_KEYS) {
        if (m->count != 1) return;
        memcpy(&c->keys[i], m->records, sizeof c->keys[i]);
        if (!pn_agg_verify("keys", c->terms_digest, i, &c->keys[i], 96, c->terms->identities[i], c->keys[i].signature)) {
            pn_log(c->env, PN_WARN, "secure sum: the keys of worker %u are not signed by its identity: left out", i);
            return;
        }
    } else if (m->kind == PN_AGG_SHARES) {
        if (m->count != c->graph.k || (c->shares[i] = malloc(m->count * sizeof **c->shares)) == NULL) return;
        memcpy(c->shares[i], m->records, m->count * sizeof **c->shares);
    } else if (m->kind == PN_AGG_SIGNED) {
        if (!pn_agg_verify("survivors", c->list, 0, c->survivors, c->terms->n, c->terms->identities[i], m->signature)) {
            pn_log(c->env, PN_WARN, "secure sum: worker %u's signature of the survivors is wrong: left out", i);
            return;
        }
        memcpy(c->signatures[i], m->signature, 64);
    } else on_reveal(c, i, m);
    c->answered[i] = 1;
    advance(c, false);
}

static void on_server(struct pn_agg_coordinator *c, uint32_t s, const struct pn_agg_message *m) {
    if (m->kind == PN_AGG_REFUSE) END(c, PN_REFUSED, "server %u: %s", s, m->text);
    if (m->kind == PN_AGG_RECEIVED && c->phase == MASK) {
        if (m->count != 1) return;
        if (c->known[s] && memcmp(c->life[s], m->records, 32) != 0) END(c, PN_REFUSED, "server %u was restarted and has lost its segments: nothing is released", s);
        memcpy(c->life[s], m->records, 32);
        c->known[s] = true;
        for (uint32_t i = 0; i < c->terms->n; i++) c->received[s][i] |= m->set[i]; /* they may overtake one another */
        for (uint32_t i = 0; i < c->terms->n; i++) {
            bool everywhere = c->asked[i];
            for (uint32_t o = 0; o < c->terms->n_servers; o++) everywhere &= c->received[o][i];
            c->answered[i] = everywhere;
        }
        advance(c, false);
    } else if (m->kind == PN_AGG_SUMMED && c->phase == UNMASK) {
        c->summed[s] = true;
        advance(c, false);
    }
}

enum pn_result pn_agg_coordinator_open(struct pn_agg_coordinator **out, struct pn_env *env, const struct pn_agg_coordinator_setup *s, struct pn_error *err) {
    enum pn_result r = pn_agg_terms_check(s->terms, err);
    if (r != PN_OK) return r;
    uint32_t here = 0;
    for (uint32_t i = 0; i < s->terms->n; i++) here += s->workers[i] != 0;
    if (here < pn_agg_fewest(s->terms)) return pn_fail(err, PN_REFUSED, "%u of %u workers are here, %u are the fewest a sum is made of: no round begins", here, s->terms->n, pn_agg_fewest(s->terms));
    struct pn_agg_coordinator *c = calloc(1, sizeof *c);
    if (c == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for a secure sum");
    c->env = env;
    c->s = *s;
    c->terms = s->terms;
    c->fewest = pn_agg_fewest(s->terms);
    c->retry = (struct pn_timer){.fire = retry_fire, .owner = c};
    c->deadline = (struct pn_timer){.fire = deadline_fire, .owner = c};
    pn_agg_random(env, c->round, 32);
    pn_agg_digest_terms(c->terms, c->round, c->terms_digest);
    uint8_t all[PN_AGG_MAX_WORKERS];
    for (uint32_t i = 0; i < c->terms->n; i++) all[i] = c->s.workers[i] != 0;
    *out = c;
    enter(c, ADVERTISE, all);
    return PN_OK;
}

void pn_agg_coordinator_message(struct pn_agg_coordinator *c, pn_peer from, const struct pn_frame *f) {
    struct pn_agg_message m;
    if (c->phase >= DONE || pn_agg_read(f, c->terms->n, &m, NULL) != PN_OK || memcmp(m.round, c->round, 32) != 0) return;
    /* The return address says who speaks: nobody answers for another. */
    if (m.from < c->terms->n && from == c->s.workers[m.from]) on_worker(c, m.from, &m);
    else if (m.from < c->terms->n_servers && from == c->s.servers[m.from]) on_server(c, m.from, &m);
}

void pn_agg_coordinator_close(struct pn_agg_coordinator *c) {
    if (c == NULL) return;
    if (c->phase < DONE) end(c, PN_FAILED, "the round was ended");
    for (uint32_t i = 0; i < c->terms->n; i++) {
        if (c->shown[i].shares != NULL) sodium_memzero(c->shown[i].shares, c->t * sizeof *c->shown[i].shares);
        free(c->shown[i].shares);
        free(c->shares[i]);
    }
    free(c->masks);
    free(c->records);
    free(c);
}

uint32_t pn_agg_coordinator_wrong_shares(const struct pn_agg_coordinator *c, uint32_t i) { return c->wrong[i]; }
