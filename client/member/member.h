/* A client process as a member of the cluster: one external job, at most one of its producers, pulls and pushes in order.
 *
 * The idea: towards the coordinator it is a worker that says which job it came for. So leases, incarnations, shard maps, replays and cuts
 * work as for workers (docs/architecture.md, "Clients"); but where a worker makes its steps itself, here they come from outside, one push a
 * step. A push waits in line while a cut drains, while the replay ring is full and while too many are unacknowledged; its step number is
 * given when it leaves the line, so one that is taken back leaves no gap.
 *
 * A core: one thread, over pn_env, never blocks. client/session.c puts a thread around it. */
#ifndef PN_CLIENT_MEMBER_MEMBER_H
#define PN_CLIENT_MEMBER_MEMBER_H

#include "ps/client/client.h"

struct pn_member_options {
    char name[64], coordinator[128], job[32];
    bool takes_producer;   /* false: pulls only */
};

enum pn_member_state {
    PN_MEMBER_WAITING,     /* what for: pn_member_view.why */
    PN_MEMBER_OPEN,        /* the tables are known, all servers were up once, and the producer (if one is wanted) is ours */
    PN_MEMBER_MOVED,       /* the producer was taken away or the job went back to a checkpoint: no pushes until pn_member_resume */
    PN_MEMBER_ENDED        /* the job is over, was never there, or is not external: why */
};

/* All that a user may ask; a copy, good for any thread. */
struct pn_member_view {
    enum pn_member_state state;
    bool succeeded;                 /* ENDED: with success */
    char why[480];
    uint64_t generation;
    bool has_producer, finished;
    uint32_t producer, incarnation, n_producers;
    uint64_t first_step;            /* where this incarnation began: the committed cut's step + 1 */
    uint64_t started, clock;        /* highest step handed out; all steps up to clock are acknowledged by all servers */
    uint64_t committed;             /* the newest committed checkpoint holds all steps up to here */
    uint64_t n_waiting;             /* pushes in line */
    struct pn_client_counters counters;
};

struct pn_member;
struct pn_member_flight;
enum pn_member_op {
    PN_MEMBER_PULL,
    PN_MEMBER_PUSH,        /* one step; done when every server has applied it */
    PN_MEMBER_CHECKPOINT,  /* asks for a checkpoint; done when one is committed that holds all pushes before this request */
    PN_MEMBER_FINISH       /* the producer's last, empty push; done when it is in a committed checkpoint */
};

/* Owned by the caller until done() ran. */
struct pn_member_request {
    enum pn_member_op op;
    struct pn_client_part parts[PN_MAX_TABLES];
    size_t n_parts;
    void (*done)(struct pn_member_request *); /* never from inside the call that started it, except for errors known at once */
    void *owner;
    enum pn_result result;        /* out. PN_FENCED: not (or not surely) applied by us, go on from first_step after a resume */
    struct pn_error error;        /* out: one line unless PN_OK */
    uint64_t step;                /* out: PUSH, FINISH */
    /* kept by the member */
    struct pn_member *member;
    struct pn_member_request *next;
    struct pn_member_flight *flight;
    enum { PN_REQUEST_IDLE, PN_REQUEST_LINE, PN_REQUEST_OUT, PN_REQUEST_COMMITS } stage;
    uint64_t covers;
};

struct pn_member *pn_member_open(struct pn_env *, const struct pn_member_options *, void (*changed)(void *owner), void *owner);
/* Sends one last beat, so that nobody waits for our lease. Requests that are open are forgotten: their done() does not run. */
void pn_member_close(struct pn_member *);
extern const struct pn_core_ops pn_member_core;

void pn_member_start(struct pn_member *, struct pn_member_request *);
/* Gives a request up. True: it had no effect and never will (done() does not run). False: a push that is out already; it will be applied
 * once, unless the producer is fenced; done() does not run either, and its buffers are free. */
bool pn_member_take_back(struct pn_member *, struct pn_member_request *);
/* After MOVED: pushes are accepted again as soon as a producer is ours; the first is step first_step. */
void pn_member_resume(struct pn_member *);
void pn_member_look(const struct pn_member *, struct pn_member_view *);
/* The job's declaration of the tables, NULL while it is not known. Does not change and stays until the member is closed. */
const struct pn_job *pn_member_job(const struct pn_member *);

#endif
