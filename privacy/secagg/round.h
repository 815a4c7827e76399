/* What all parts of a secure sum share: the terms of a round, its keys and signatures, its messages. docs/secure-aggregation.md has the flow.
 *
 * Three cores: worker.h (a data holder), server.h (a shard: one segment of the vector), coordinator.h (relays what is small). Each object lives for one
 * round; a round that fails is followed by another with fresh keys. Randomness comes from pn_env's `random`, which is getrandom() in the shell. */
#ifndef PN_SECAGG_ROUND_H
#define PN_SECAGG_ROUND_H

#include "common/wire.h"
#include "privacy/secagg/mask.h"
#include "privacy/secagg/params.h"

#define PN_AGG_MAX_SERVERS 64u

/* The terms, the same for all parts (they come with the job). Plain data; the arrays belong to the caller and live as long as the round. */
struct pn_agg_terms {
    uint32_t n;                   /* workers invited, numbered 0..n-1 */
    uint32_t min_workers;         /* a sum of fewer is never made */
    double max_dropout;           /* share of n that may fall silent */
    double max_colluding;         /* share of n that may work with the servers */
    unsigned security_bits, correctness_bits; /* 40 and 40 are usual */
    unsigned word_bytes;          /* 4 or 8 */
    uint32_t n_servers;
    const uint64_t *first;        /* n_servers + 1: server s has the words first[s]..first[s+1]; all but the last a multiple of 16 */
    const uint8_t (*identities)[32]; /* n long-term Ed25519 keys */
    uint64_t retry_ms, phase_ms;  /* messages are repeated; a phase waits so long for those who have not answered */
};
/* PN_REFUSED, PN_INVALID: a line that says which term and why. Includes pn_agg_params for all n and for the fewest that may remain. */
enum pn_result pn_agg_terms_check(const struct pn_agg_terms *, struct pn_error *);
/* The fewest workers a sum is made of: max(min_workers, n - floor(max_dropout * n)). */
uint32_t pn_agg_fewest(const struct pn_agg_terms *);

/* ---- messages: common/wire.h frames; the header has `round` (u64[4]), `from`, `count`, and `text` in the last two ---- */
enum pn_agg_kind {
    PN_AGG_ROUND = 40,    /* coordinator -> worker, server: records 1 x 32 (digest of the terms) */
    PN_AGG_KEYS = 41,     /* worker -> coordinator: records 1 x 160 (struct pn_agg_keys) */
    PN_AGG_LIST = 42,     /* coordinator -> worker, server: a set (who has advertised), records x 160 in their order */
    PN_AGG_SHARES = 43,   /* worker -> coordinator: records k x 144 (struct pn_agg_share), by point */
    PN_AGG_DELIVER = 44,  /* coordinator -> worker: who[], records x 144: the shares of those neighbours */
    PN_AGG_MASKED = 45,   /* worker -> server: signature, words of the server's segment */
    PN_AGG_HELD = 46,     /* server -> worker: the segment is here */
    PN_AGG_RECEIVED = 47, /* server -> coordinator: a set (whose segments are here), records 1 x 32 (the server object's life: drawn when it opens) */
    PN_AGG_SURVIVORS = 48,/* coordinator -> worker: a set */
    PN_AGG_SIGNED = 49,   /* worker -> coordinator: signature of the survivors */
    PN_AGG_PROOF = 50,    /* coordinator -> worker: two sets (whose seed, whose key is asked for), who[], records x 64: their signatures */
    PN_AGG_REVEAL = 51,   /* worker -> coordinator: who[], records x 32: a share of each */
    PN_AGG_UNMASK = 52,   /* coordinator -> server: a set (survivors), records x 33 (struct pn_mask) */
    PN_AGG_SUMMED = 53,   /* server -> coordinator */
    PN_AGG_STOP = 54,     /* coordinator -> all: the round is over without a sum; text */
    PN_AGG_REFUSE = 55    /* worker, server -> coordinator: will not go on; text */
};
/* All are bytes, so that they have no padding and any alignment. */
struct pn_agg_keys { uint8_t mask_key[32], seal_key[32], commitment[32], signature[64]; };
struct pn_agg_share { uint8_t sealed[80], seed_check[32], key_check[32]; };

struct pn_agg_message {
    enum pn_agg_kind kind;
    uint8_t round[32];
    uint32_t from, count;
    const uint8_t *set, *set2;  /* n bytes, each 0 or 1 */
    const uint32_t *who;        /* count, each < n, rising */
    const uint8_t *records;     /* count of the kind's size */
    const uint8_t *signature;   /* 64 */
    const void *words;
    size_t word_bytes_all;
    char text[240];
};
/* Reads and checks one: the kind's arrays are there, of the right length, and nothing behind them. Pointers go into the frame. */
enum pn_result pn_agg_read(const struct pn_frame *, uint32_t n, struct pn_agg_message *, struct pn_error *);
/* Makes one, unsealed if `words` is wanted (*words points to word_bytes_all bytes to fill; then pn_msg_seal), else sealed. NULL: no memory. */
struct pn_msg *pn_agg_write(struct pn_env *, uint32_t n, const struct pn_agg_message *, uint8_t **signature, uint8_t **words);

/* ---- keys ---- */
void pn_agg_random(struct pn_env *, void *out, size_t n);
void pn_agg_digest_terms(const struct pn_agg_terms *, const uint8_t round[32], uint8_t out[32]);
/* Signs and checks. `what` keeps signatures of one kind from passing as another's. */
void pn_agg_sign(const char *what, const uint8_t digest[32], uint32_t from, const void *data, size_t n, const uint8_t secret[64], uint8_t signature[64]);
bool pn_agg_verify(const char *what, const uint8_t digest[32], uint32_t from, const void *data, size_t n, const uint8_t identity[32], const uint8_t signature[64]);
/* Of all advertised keys: seeds the graph, and goes into every later key and signature, so that workers who were told different things cannot go on. */
void pn_agg_digest_list(const uint8_t terms[32], uint32_t n, const uint8_t *set, const struct pn_agg_keys *records, uint8_t out[32]);
/* The pair's mask seed, the same from both sides. False: the peer's key is of low order. */
bool pn_agg_pair(const uint8_t list[32], const uint8_t secret[32], const uint8_t public_key[32], uint32_t a, uint32_t b, uint8_t seed[32]);
/* The key under which `from` sends shares to `to`; used for one message. */
bool pn_agg_seal_key(const uint8_t list[32], const uint8_t secret[32], const uint8_t public_key[32], uint32_t from, uint32_t to, uint8_t key[32]);
/* What a share (or a seed) is checked against once it is shown: BLAKE2b, 32 bytes; the share has 256 bits nobody knows. */
void pn_agg_commit(const uint8_t value[32], uint8_t out[32]);
/* Degree, threshold and graph for those in the list. Every part computes them (in doubles: were two machines to round a bound differently, a share count would not
 * fit and the round would end, with nothing revealed). */
enum pn_result pn_agg_layout(const struct pn_agg_terms *, const uint8_t *set, const uint8_t list[32], struct pn_agg_graph *, uint32_t *t,
                             uint16_t index[PN_AGG_MAX_WORKERS], uint16_t member[PN_AGG_MAX_WORKERS], struct pn_error *);
static inline uint32_t pn_agg_count(const uint8_t *set, uint32_t n) {
    uint32_t c = 0;
    for (uint32_t i = 0; i < n; i++) c += set[i];
    return c;
}

#endif
