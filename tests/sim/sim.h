/* The simulator: a whole cluster in one thread, over a virtual clock and seeded faults.
 *
 * The idea: every role's core runs unchanged over another pn_env. All that can differ between two runs (latency, loss, crash,
 * torn write, order) is drawn from one seed, so the same seed gives the same trace; its hash is compared. The trade: libzmq,
 * the kernel and threads are not in it; tests/faults looks there. */
#ifndef PN_TESTS_SIM_SIM_H
#define PN_TESTS_SIM_SIM_H

#include <stdio.h>
#include "common/env.h"
#include "common/hash.h"
#include "common/http.h"
#include "common/store.h"

#define SIM_NODES 12
#define MS 1000000ull

enum sim_role { SIM_COORDINATOR, SIM_PS, SIM_WORKER, SIM_SERVING, SIM_CHECKER };

/* What may go wrong, drawn once a seed (swarm testing: each seed has its own mix). Probabilities are per event. */
struct sim_faults {
    double loss, duplicate, slow, corrupt; /* messages */
    double io_error, sync_error;           /* file operations */
    uint64_t latency_ns, slow_ns;
    uint64_t turn_ns;                      /* a timer that is due at once may take so long */
    uint64_t crash_every_ms;               /* mean time between crashes of a random node; 0: none */
    double power_cut;                      /* of crashes: unsynced data of that node may be lost or torn */
    double crash_all;                      /* of crashes: everything at once */
    uint64_t pause_every_ms, pause_ms;
    uint64_t partition_every_ms, partition_ms;
    uint64_t disk_full_every_ms, disk_full_ms;
};

struct sim_counts {
    uint64_t events, sent, lost, duplicated, delayed, corrupted, partitioned, crashes, power_cuts, pauses, io, io_errors, sync_errors,
        torn, names_lost, disk_full, commits;
};

struct sim;
struct sim_node {
    struct pn_env env;        /* first: pn_env is the node */
    struct sim *sim;
    int index;
    enum sim_role role;
    char name[32], address[64];
    bool up, paused;
    uint32_t life;            /* rises with each crash: events of an older life are dropped */
    void *core;
    const struct pn_core_ops *ops;
};

struct sim_event;
struct sim {
    uint64_t seed, now_ns, sequence;
    struct pn_rng rng;
    struct sim_faults faults;
    bool faults_on;
    struct sim_counts counts;
    uint64_t trace;           /* hash of all that happened */
    FILE *log;                /* NULL: quiet */
    struct sim_node nodes[SIM_NODES];
    int n_nodes;
    struct sim_event **heap;
    size_t n_heap, heap_room;
    uint64_t cut[SIM_NODES];  /* bit b: messages from a to b are dropped */
    bool disk_full;
    struct sim_disk *disk;
    struct sim_store *store;
    struct sim_budget *budget; /* NULL: not a private job */
    struct sim_statistics *statistics; /* NULL: not a counted job */
    const char *mark_names[64];
    struct { uint64_t bytes[256], n, pushes, rounds[4096], charged, sums_a_charge; uint8_t seen[8192]; size_t n_rounds; bool uncharged, chooses; } wire; /* secure.c: what servers get of data holders */
};

/* world.c */
void sim_open(struct sim *, uint64_t seed);
void sim_close(struct sim *);
struct sim_node *sim_add(struct sim *, enum sim_role, int i);
void sim_boot(struct sim *, struct sim_node *);               /* a fresh life of its core */
void sim_crash(struct sim *, struct sim_node *, bool power_cut);
void sim_run_until(struct sim *, uint64_t at_ns);
uint64_t sim_draw(struct sim *, uint64_t below);              /* 0 .. below - 1; below > 0 */
bool sim_chance(struct sim *, double p);
void sim_trace(struct sim *, const char *what, uint64_t a, uint64_t b);
/* Runs fn(arg) at a time, whatever crashes meanwhile. */
void sim_at(struct sim *, uint64_t at_ns, void (*fn)(struct sim *, uint64_t arg), uint64_t arg);
/* For disk.c: completes an io of this life of the node later. */
void sim_finish_io(struct sim *, struct sim_node *, struct pn_io *, uint64_t at_ns);

/* disk.c: one disk that all nodes share, as a cluster's file system; what a node did not sync may be lost with its power. */
struct sim_disk *sim_disk_open(void);
void sim_disk_close(struct sim_disk *);
void sim_disk_start(struct sim *, struct sim_node *, struct pn_io *);
void sim_disk_apply(struct sim *, struct sim_node *, struct pn_io *); /* at completion: the effect happens now */
void sim_disk_power_cut(struct sim *, struct sim_node *);
enum pn_result sim_disk_map(struct sim *, const char *path, const void **data, size_t *n_bytes);
void sim_disk_unmap(const void *data);
void sim_disk_put(struct sim_disk *, const char *path, const void *data, size_t n_bytes); /* a file that was there before */
char *sim_disk_lasting(struct sim_disk *, const char *path, size_t *n_bytes); /* what a loss of all power would leave of a file for certain; malloc, with a NUL behind it. NULL: nothing */
size_t sim_disk_count(struct sim_disk *, const char *folder); /* files in it */

/* store.c: the coordinator's records; a commit is atomic and lasts. */
struct sim_store *sim_store_open(struct sim *);
void sim_store_close(struct sim_store *);
struct pn_store *sim_store_connect(struct sim_store *); /* drops a transaction left open by a dead life */

const char *sim_store_first(const struct sim_store *, const char *kind); /* the first committed record of a kind; NULL: none */

/* budget.c: a private job, and what its noise cost. */
struct sim_budget;
void sim_budget_draw(struct sim *, uint32_t n_producers, const char *mode, char *yaml, size_t room);
struct sim_budget *sim_budget_open(void);
void sim_budget_sent(struct sim_budget *, struct sim *, const struct pn_msg *); /* any message, as it is sent */
extern bool sim_neighbour; /* one example is another */
/* asked: a hash of all that workers asked servers for. NULL: it held. */
const char *sim_budget_close(struct sim_budget *, struct sim *, uint64_t *asked, char *line, size_t room);

/* statistics.c: a job whose features are counted first, and whether what was counted lasts. */
struct sim_statistics;
void sim_statistics_draw(struct sim *, uint32_t n_producers, const char *mode, char *yaml, size_t room);
struct sim_statistics *sim_statistics_open(void);
void sim_statistics_sent(struct sim_statistics *, struct sim *, const struct sim_node *from, const struct pn_msg *); /* any message, as it is sent */
/* trained: the job has succeeded. NULL: it held. */
const char *sim_statistics_close(struct sim_statistics *, struct sim *, bool trained, char *line, size_t room);

/* scenario.c: one seed from start to verdict. Returns 0 when all held; else `line` says what broke. */
/* client.c: a process that pushes the oracle's steps as a client of an external job. */
struct sim_client_options {
    char name[64], coordinator[128];
    const char *job_id;       /* read again and again: "" until the job was submitted */
    uint64_t n_keys, n_steps;
    void (*changed)(void *owner); /* set by client.c */
};
void *sim_client_open(struct pn_env *, const struct sim_client_options *);
extern const struct pn_core_ops sim_client_core;

/* secure.c: a job of secure sums */
void sim_secure_job(struct sim *, char *yaml, size_t room, uint64_t *steps);
void sim_secure_sent(struct sim *, const struct pn_msg *);
bool sim_secure_wire(const struct sim *, char *line, size_t room); /* false: a push in the clear, or masked words that are not uniform */
void sim_secure_identity(int holder, uint8_t secret[64]);
/* *missing: UINT64_MAX at first; behind the last file the rows of a fest job's choice that are in none. */
bool sim_secure_check(struct sim *, const char *yaml, const void *image, size_t n_bytes, const char *digest, uint64_t steps, uint64_t *rows, uint64_t *missing, char *line, size_t room);

struct sim_verdict { int failed; char line[512]; uint64_t trace, asked /* SIM_PRIVATE */; struct sim_counts counts; uint64_t virtual_ms; };
enum sim_kind { SIM_ORACLE, SIM_CLIENTS /* the job is external */, SIM_PRIVATE, SIM_SECURE, SIM_STATISTICS };
void sim_scenario(uint64_t seed, enum sim_kind, FILE *log, struct sim_verdict *out);

#endif
