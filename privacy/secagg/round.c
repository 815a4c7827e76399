#include "privacy/secagg/round.h"
#include <math.h>
#include <sodium.h>
#include <string.h>

uint32_t pn_agg_fewest(const struct pn_agg_terms *t) {
    const uint32_t left = t->n - (uint32_t)floor(t->max_dropout * t->n + 1e-9);
    return left > t->min_workers ? left : t->min_workers;
}
static uint32_t colluding(const struct pn_agg_terms *t) { return (uint32_t)floor(t->max_colluding * t->n + 1e-9); }

enum pn_result pn_agg_terms_check(const struct pn_agg_terms *t, struct pn_error *err) {
    if (t->n < PN_AGG_MIN_WORKERS || t->n > PN_AGG_MAX_WORKERS)
        return pn_fail(err, PN_REFUSED, "secure aggregation of %u workers: it takes %u to %u", t->n, PN_AGG_MIN_WORKERS, PN_AGG_MAX_WORKERS);
    if (t->min_workers < PN_AGG_MIN_WORKERS) return pn_fail(err, PN_REFUSED, "min_workers %u: at least %u, or one worker and a server learn another's update", t->min_workers, PN_AGG_MIN_WORKERS);
    if (t->n < t->min_workers) return pn_fail(err, PN_REFUSED, "%u workers are below min_workers %u: no round begins", t->n, t->min_workers);
    if (!(t->max_dropout >= 0 && t->max_dropout < 1) || !(t->max_colluding >= 0 && t->max_colluding < 1)) return pn_fail(err, PN_INVALID, "max_dropout and the colluding share lie from 0 to below 1");
    if (t->word_bytes != 4 && t->word_bytes != 8) return pn_fail(err, PN_INVALID, "words of %u bytes: 4 or 8", t->word_bytes);
    if (t->n_servers < 1 || t->n_servers > PN_AGG_MAX_SERVERS || t->first[0] != 0) return pn_fail(err, PN_INVALID, "%u servers: 1 to %u, the first from word 0", t->n_servers, PN_AGG_MAX_SERVERS);
    for (uint32_t s = 0; s < t->n_servers; s++) {
        if (t->first[s + 1] <= t->first[s] || t->first[s] % 16 != 0) return pn_fail(err, PN_INVALID, "server %u's segment begins at word %llu: segments rise by multiples of 16", s, (unsigned long long)t->first[s]);
        if ((t->first[s + 1] - t->first[s]) * t->word_bytes > PN_FRAME_MAX_BYTES - 4096) return pn_fail(err, PN_INVALID, "server %u's segment does not fit a frame: more servers", s);
    }
    uint32_t k, need;
    const uint32_t fewest = pn_agg_fewest(t); /* between the two the conditions are monotone only nearly: the round itself checks again */
    enum pn_result r = pn_agg_params(t->n, colluding(t), t->n - fewest, t->security_bits, t->correctness_bits, &k, &need, err);
    return r != PN_OK ? r : pn_agg_params(fewest, colluding(t), 0, t->security_bits, t->correctness_bits, &k, &need, err);
}

enum pn_result pn_agg_layout(const struct pn_agg_terms *terms, const uint8_t *set, const uint8_t list[32], struct pn_agg_graph *g, uint32_t *t,
                             uint16_t index[PN_AGG_MAX_WORKERS], uint16_t member[PN_AGG_MAX_WORKERS], struct pn_error *err) {
    uint32_t n = 0, k;
    for (uint32_t i = 0; i < terms->n; i++) {
        index[i] = (uint16_t)n;
        if (set[i]) member[n++] = (uint16_t)i;
    }
    const uint32_t fewest = pn_agg_fewest(terms);
    if (n < fewest) return pn_fail(err, PN_REFUSED, "%u workers have come, %u are the fewest: nothing is summed", n, fewest);
    enum pn_result r = pn_agg_params(n, colluding(terms), n - fewest, terms->security_bits, terms->correctness_bits, &k, t, err);
    if (r == PN_OK) pn_agg_graph_draw(g, n, k, list);
    return r;
}

/* ---- keys ---- */

void pn_agg_random(struct pn_env *env, void *out, size_t n) {
    for (size_t at = 0; at < n; at += 8) {
        const uint64_t v = env->ops->random(env);
        memcpy((uint8_t *)out + at, &v, n - at < 8 ? n - at : 8);
    }
}

static void start(crypto_generichash_state *h, const char *what) {
    uint8_t name[32] = "pinion secagg 1 ";
    memcpy(name + 16, what, strlen(what));
    crypto_generichash_init(h, NULL, 0, 32);
    crypto_generichash_update(h, name, sizeof name);
}
static void add(crypto_generichash_state *h, const void *data, size_t n) { crypto_generichash_update(h, data, n); }
static void add64(crypto_generichash_state *h, uint64_t v) { add(h, &v, sizeof v); }

void pn_agg_digest_terms(const struct pn_agg_terms *t, const uint8_t round[32], uint8_t out[32]) {
    crypto_generichash_state h;
    start(&h, "terms");
    add(&h, round, 32);
    add64(&h, t->n);
    add64(&h, t->min_workers);
    add(&h, &t->max_dropout, 8);
    add(&h, &t->max_colluding, 8);
    add64(&h, t->security_bits);
    add64(&h, t->correctness_bits);
    add64(&h, t->word_bytes);
    add64(&h, t->n_servers);
    add(&h, t->first, (t->n_servers + 1) * sizeof *t->first);
    add(&h, t->identities, t->n * sizeof *t->identities);
    crypto_generichash_final(&h, out, 32);
}

static void signed_digest(const char *what, const uint8_t digest[32], uint32_t from, const void *data, size_t n, uint8_t out[32]) {
    crypto_generichash_state h;
    start(&h, what);
    add(&h, digest, 32);
    add64(&h, from);
    add(&h, data, n);
    crypto_generichash_final(&h, out, 32);
}
void pn_agg_sign(const char *what, const uint8_t digest[32], uint32_t from, const void *data, size_t n, const uint8_t secret[64], uint8_t signature[64]) {
    uint8_t m[32];
    signed_digest(what, digest, from, data, n, m);
    crypto_sign_detached(signature, NULL, m, sizeof m, secret);
}
bool pn_agg_verify(const char *what, const uint8_t digest[32], uint32_t from, const void *data, size_t n, const uint8_t identity[32], const uint8_t signature[64]) {
    uint8_t m[32];
    signed_digest(what, digest, from, data, n, m);
    return crypto_sign_verify_detached(signature, m, sizeof m, identity) == 0;
}

void pn_agg_digest_list(const uint8_t terms[32], uint32_t n, const uint8_t *set, const struct pn_agg_keys *records, uint8_t out[32]) {
    crypto_generichash_state h;
    start(&h, "list");
    add(&h, terms, 32);
    add(&h, set, n);
    add(&h, records, pn_agg_count(set, n) * sizeof *records);
    crypto_generichash_final(&h, out, 32);
}

static bool agree(const char *what, const uint8_t list[32], const uint8_t secret[32], const uint8_t public_key[32], uint32_t a, uint32_t b, uint8_t out[32]) {
    uint8_t q[32];
    if (crypto_scalarmult(q, secret, public_key) != 0) return false;
    crypto_generichash_state h;
    start(&h, what);
    add(&h, list, 32);
    add(&h, q, sizeof q);
    add64(&h, a);
    add64(&h, b);
    crypto_generichash_final(&h, out, 32);
    sodium_memzero(q, sizeof q);
    sodium_memzero(&h, sizeof h);
    return true;
}
bool pn_agg_pair(const uint8_t list[32], const uint8_t secret[32], const uint8_t public_key[32], uint32_t a, uint32_t b, uint8_t seed[32]) {
    return agree("pair", list, secret, public_key, a < b ? a : b, a < b ? b : a, seed);
}
bool pn_agg_seal_key(const uint8_t list[32], const uint8_t secret[32], const uint8_t public_key[32], uint32_t from, uint32_t to, uint8_t key[32]) {
    return agree("seal", list, secret, public_key, from, to, key);
}
void pn_agg_commit(const uint8_t value[32], uint8_t out[32]) {
    crypto_generichash_state h;
    start(&h, "commit");
    add(&h, value, 32);
    crypto_generichash_final(&h, out, 32);
}
