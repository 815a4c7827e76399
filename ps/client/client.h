/* Pull and push against all shards of a job: splits by shard, retries, keeps push ids, replays after a restore.
 *
 * A core component: runs on its owner's thread over pn_env, calls back, never blocks. The owner hands it the map and
 * every message of the kinds ROWS, ACK and REFUSAL. One client serves all producers of a worker. */
#ifndef PN_PS_CLIENT_CLIENT_H
#define PN_PS_CLIENT_CLIENT_H

#include "common/env.h"
#include "common/hash.h"
#include "common/json.h"
#include "job/job.h"

#define PN_MAX_IN_FLIGHT 64u
#define PN_MAX_SHARDS 64u

struct pn_client;

/* One table's part of a request. Arrays are the caller's and must live until the request's callback. */
struct pn_client_part {
    uint32_t i_table;
    size_t n_keys;
    const uint64_t *keys;   /* unique within the part; in the order of pn_unique nothing has to be sorted */
    float *rows;            /* pull: out. push, seed: in, read during the call only. The row of keys[k] lies at rows + place * dim, where */
    const uint32_t *places; /* place = places[k], each below 2^31; NULL: place = k */
};

struct pn_shard_map {
    uint32_t n_shards;
    struct { char address[128]; uint64_t term; } shards[PN_MAX_SHARDS];
    uint16_t owner[PN_SLOTS];   /* slot -> index of shard */
};

/* The map of a plan's job (docs/architecture.md, PLAN body). False: it is not sound. */
bool pn_shard_map_read(struct json_object *plan_job, struct pn_shard_map *);

struct pn_client *pn_client_open(struct pn_env *, const struct pn_job *job /* borrowed */, const char *job_id);
void pn_client_close(struct pn_client *); /* no callback runs any more */

/* A new map. A shard whose term rose came back from the last committed checkpoint: the client re-sends, in order and at
 * most 64 ahead, every kept push (and seed) to it, and repeats open pulls. */
void pn_client_map(struct pn_client *, const struct pn_shard_map *);
/* Adds a producer. Its first push has step first_step (>= 1); steps rise by one. */
enum pn_result pn_client_producer(struct pn_client *, uint32_t producer, uint32_t incarnation, uint64_t first_step);
void pn_client_producer_remove(struct pn_client *, uint32_t producer);
void pn_client_message(struct pn_client *, pn_peer from, struct pn_msg *, struct pn_frame *);

/* Reads rows. done(owner, PN_OK) once every shard has answered; retried for ever until the owner closes (each retry is
 * counted). `clock`: the producer's finished step, for ssp (0 for evaluation: reads without waiting). */
void pn_client_pull(struct pn_client *, uint32_t producer, uint64_t clock, struct pn_client_part *parts, size_t n_parts,
                    void (*done)(void *owner, enum pn_result), void *owner);
/* One step's gradients, all tables in one message a shard (applied as one). Every shard gets a message, also an empty
 * one. last: this producer sends nothing after this step. done() when every shard has acknowledged at `applied`;
 * PN_FENCED: a newer incarnation took over, stop. The message is kept in the ring until pn_client_committed covers it
 * (safe), or acknowledged (fast). Refuses with PN_BUSY when 64 are in flight. A full ring (below) does
 * not refuse: its owner starts no new steps, but what is started goes out, or no checkpoint could ever drain it. */
enum pn_result pn_client_push(struct pn_client *, uint32_t producer, uint64_t step, bool last,
                              const struct pn_client_part *parts, size_t n_parts,
                              void (*done)(void *owner, enum pn_result), void *owner);
/* First values of explicit tables (dense parameters). Kept for good and replayed before any push: the next commit's
 * cut may have been taken before they came. done: PN_INVALID when a shard refused them. */
void pn_client_seed(struct pn_client *, const struct pn_client_part *part,
                    void (*done)(void *owner, enum pn_result), void *owner);
/* A checkpoint with cut `step` of this producer is committed: pushes up to it leave the ring. */
void pn_client_committed(struct pn_client *, uint32_t producer, uint64_t step);
/* The owner goes away: its open pulls are dropped, its other callbacks do not run. Pushes and seeds stay. */
void pn_client_cancel(struct pn_client *, const void *owner);
bool pn_client_ring_full(const struct pn_client *, uint32_t producer); /* the owner asks for a checkpoint */
/* Highest step with all steps up to it acknowledged by all shards. */
uint64_t pn_client_clock(const struct pn_client *, uint32_t producer);

struct pn_client_counters { uint64_t pulls, pushes, retries, replays, stale_terms; };
const struct pn_client_counters *pn_client_counters(const struct pn_client *);

#endif
