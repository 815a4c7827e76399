#include "privacy/secagg/server.h"
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

enum { IDLE, OPEN, SUMMING, DONE, OVER };

struct pn_agg_server {
    struct pn_env *env;
    struct pn_agg_server_setup s;
    const struct pn_agg_terms *terms; /* kept: a sum may be made when the owner has already closed */
    struct pn_agg_terms kept;
    uint64_t first[PN_AGG_MAX_SERVERS + 1];
    int state;
    bool closed, working, listed;
    uint8_t round[32], terms_digest[32], list[32], life[32];
    uint8_t in_list[PN_AGG_MAX_WORKERS], here[PN_AGG_MAX_WORKERS];
    struct pn_msg *segment[PN_AGG_MAX_WORKERS];
    const void *words[PN_AGG_MAX_WORKERS];
    const void *chosen[PN_AGG_MAX_WORKERS]; /* the survivors' words */
    uint32_t n_chosen;
    size_t n_words;
    struct pn_mask *masks;
    size_t n_masks;
    void *sum;
    struct pn_timer retry;
    struct pn_work work;
};

static void tell(struct pn_agg_server *s, pn_peer to, enum pn_agg_kind kind, const char *text) {
    struct pn_agg_message m = {.kind = kind, .from = s->s.self, .set = s->here};
    memcpy(m.round, s->round, 32);
    if (kind == PN_AGG_RECEIVED) {
        m.count = 1;
        m.records = s->life;
    }
    if (text != NULL) memcpy(m.text, text, strnlen(text, sizeof m.text - 1));
    struct pn_msg *msg = pn_agg_write(s->env, s->terms->n, &m, NULL, NULL);
    if (msg != NULL) pn_send(s->env, to, msg);
}

static void drop_segments(struct pn_agg_server *s) {
    for (uint32_t i = 0; i < s->terms->n; i++) {
        pn_msg_unref(s->segment[i]);
        s->segment[i] = NULL;
    }
    if (s->masks != NULL) sodium_memzero(s->masks, s->n_masks * sizeof *s->masks);
    free(s->masks);
    s->masks = NULL;
}
static void end(struct pn_agg_server *s, enum pn_result r, const char *line) {
    if (s->state == OVER) return;
    s->state = OVER;
    pn_timer_stop(s->env, &s->retry);
    if (!s->working) drop_segments(s);
    if (r == PN_REFUSED || r == PN_NO_MEMORY) tell(s, s->s.coordinator, PN_AGG_REFUSE, line);
    pn_log(s->env, PN_WARN, "secure sum, server %u: %s", s->s.self, line);
    s->s.done(s->s.owner, r, NULL, 0, line);
}

static void on_round(struct pn_agg_server *s, const struct pn_agg_message *m) {
    if (s->state == IDLE) {
        memcpy(s->round, m->round, 32);
        pn_agg_digest_terms(s->terms, s->round, s->terms_digest);
        if (m->count != 1 || memcmp(m->records, s->terms_digest, 32) != 0) {
            end(s, PN_REFUSED, "the coordinator's terms of the round are not this server's: all must run the same job file");
            return;
        }
        s->state = OPEN;
    }
}

static void on_list(struct pn_agg_server *s, const struct pn_agg_message *m) {
    if (s->state != OPEN || s->listed) return;
    memcpy(s->in_list, m->set, s->terms->n);
    pn_agg_digest_list(s->terms_digest, s->terms->n, m->set, (const struct pn_agg_keys *)(const void *)m->records, s->list);
    s->listed = true;
}

static void on_masked(struct pn_agg_server *s, pn_peer from, struct pn_msg *msg, const struct pn_agg_message *m) {
    const uint32_t i = m->from;
    if (!s->listed || i >= s->terms->n || !s->in_list[i]) return; /* the list is on its way; the worker asks again */
    const size_t bytes = s->n_words * s->terms->word_bytes;
    if (s->here[i] && from != 0) {
        tell(s, from, PN_AGG_HELD, NULL); /* a second one changes nothing, whatever it says */
        return;
    }
    if (s->state != OPEN) return;
    uint8_t digest[32];
    const bool fits = m->word_bytes_all == pn_pad8(bytes);
    if (fits) crypto_generichash(digest, 32, m->words, bytes, NULL, 0);
    if (!fits || !pn_agg_verify("masked", s->list, i | s->s.self << 16, digest, 32, s->terms->identities[i], m->signature)) {
        struct pn_error e;
        if (fits) pn_fail(&e, PN_INVALID, "worker %u's segment is not signed by its identity for this round: left out", i);
        else pn_fail(&e, PN_INVALID, "worker %u sent %zu bytes where the segment has %zu: left out", i, m->word_bytes_all, bytes);
        pn_log(s->env, PN_WARN, "secure sum, server %u: %s", s->s.self, e.text);
        return;
    }
    s->segment[i] = pn_msg_ref(msg);
    s->words[i] = m->words;
    s->here[i] = 1;
    tell(s, from, PN_AGG_HELD, NULL);
    tell(s, s->s.coordinator, PN_AGG_RECEIVED, NULL);
    if (!s->retry.active) pn_timer_start(s->env, &s->retry, s->terms->retry_ms);
}
static void retry_fire(struct pn_timer *t) {
    struct pn_agg_server *s = t->owner;
    if (s->state != OPEN) return;
    tell(s, s->s.coordinator, PN_AGG_RECEIVED, NULL);
    pn_timer_start(s->env, &s->retry, s->terms->retry_ms);
}

static void sum_run(struct pn_work *w) {
    struct pn_agg_server *s = w->owner;
    pn_mask_sum(s->sum, s->terms->word_bytes, s->n_words, s->chosen, s->n_chosen);
    pn_mask_add(s->sum, s->terms->word_bytes, s->terms->first[s->s.self], s->n_words, s->masks, s->n_masks);
}
static void release(struct pn_agg_server *s) {
    drop_segments(s);
    free(s->sum);
    free(s);
}
static void sum_done(struct pn_work *w) {
    struct pn_agg_server *s = w->owner;
    s->working = false;
    drop_segments(s);
    if (s->closed) {
        release(s);
        return;
    }
    if (s->state != SUMMING) return;
    s->state = DONE;
    tell(s, s->s.coordinator, PN_AGG_SUMMED, NULL);
    s->s.done(s->s.owner, PN_OK, s->sum, s->n_chosen, "");
}

static void on_unmask(struct pn_agg_server *s, const struct pn_agg_message *m) {
    if (s->state == DONE) tell(s, s->s.coordinator, PN_AGG_SUMMED, NULL);
    if (s->state != OPEN) return; /* one sum a round: what comes later, even with other survivors, makes none */
    struct pn_error e;
    if (pn_agg_count(m->set, s->terms->n) < pn_agg_fewest(s->terms)) {
        end(s, PN_REFUSED, "the coordinator asks for a sum of fewer workers than may be: nothing is released");
        return;
    }
    s->n_chosen = 0;
    for (uint32_t i = 0; i < s->terms->n; i++) {
        if (!m->set[i]) continue;
        if (!s->here[i]) {
            pn_fail(&e, PN_REFUSED, "the segment of worker %u, who is to be in the sum, is not here (was this server restarted?): nothing is released", i);
            end(s, PN_REFUSED, e.text);
            return;
        }
        s->chosen[s->n_chosen++] = s->words[i];
    }
    s->n_masks = m->count;
    s->masks = malloc((s->n_masks + 1) * sizeof *s->masks);
    s->sum = malloc(s->n_words * s->terms->word_bytes);
    if (s->masks == NULL || s->sum == NULL) {
        end(s, PN_NO_MEMORY, "no memory for a sum");
        return;
    }
    memcpy(s->masks, m->records, s->n_masks * sizeof *s->masks);
    s->state = SUMMING;
    s->working = true;
    pn_timer_stop(s->env, &s->retry);
    pn_work_start(s->env, &s->work);
}

enum pn_result pn_agg_server_open(struct pn_agg_server **out, struct pn_env *env, const struct pn_agg_server_setup *setup, struct pn_error *err) {
    enum pn_result r = pn_agg_terms_check(setup->terms, err);
    if (r != PN_OK) return r;
    if (setup->self >= setup->terms->n_servers) return pn_fail(err, PN_INVALID, "server %u of %u", setup->self, setup->terms->n_servers);
    struct pn_agg_server *s = calloc(1, sizeof *s);
    if (s == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for a secure sum");
    s->env = env;
    s->s = *setup;
    s->kept = *setup->terms;
    memcpy(s->first, setup->terms->first, (setup->terms->n_servers + 1) * sizeof *s->first);
    s->kept.first = s->first;
    s->terms = &s->kept;
    pn_agg_random(env, s->life, sizeof s->life);
    s->n_words = (size_t)(s->terms->first[s->s.self + 1] - s->terms->first[s->s.self]);
    s->retry = (struct pn_timer){.fire = retry_fire, .owner = s};
    s->work = (struct pn_work){.run = sum_run, .done = sum_done, .owner = s};
    *out = s;
    return PN_OK;
}

void pn_agg_server_message(struct pn_agg_server *s, pn_peer from, struct pn_msg *msg, const struct pn_frame *f) {
    struct pn_agg_message m;
    struct pn_error e;
    if (s->state == OVER) return;
    if (pn_agg_read(f, s->terms->n, &m, &e) != PN_OK) {
        pn_log(s->env, PN_WARN, "secure sum, server %u: %s", s->s.self, e.text);
        return;
    }
    if (m.kind == PN_AGG_ROUND && from == s->s.coordinator) on_round(s, &m);
    if (s->state == IDLE || s->state == OVER || memcmp(m.round, s->round, 32) != 0) return;
    if (m.kind == PN_AGG_MASKED) on_masked(s, from, msg, &m);
    if (from != s->s.coordinator) return;
    if (m.kind == PN_AGG_LIST) on_list(s, &m);
    else if (m.kind == PN_AGG_UNMASK) on_unmask(s, &m);
    else if (m.kind == PN_AGG_STOP && s->state != DONE) end(s, PN_FAILED, m.text);
}

void pn_agg_server_close(struct pn_agg_server *s) {
    if (s == NULL) return;
    pn_timer_stop(s->env, &s->retry);
    s->closed = true;
    s->state = OVER;
    if (!s->working) release(s);
}
