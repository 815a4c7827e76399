/* libpinion: pull and push embedding rows of a Pinion cluster from your own program. docs/client.md has the guarantees and examples.
 *
 * A session joins one external job (spec.data.external) as one of its producers, or only to read. A push is one step of that producer: the
 * gradients of any number of tables, applied as one, once, whatever process dies. The session runs a thread of its own; it touches neither
 * signals nor stdout nor stderr.
 *
 * Threads: every function is safe from any thread at any time, but for pinion_close, which must be the last call of a session, and a ticket,
 *   which is one thread's at a time. Calls of several threads run at once; pushes get their steps in the order of the calls. Not safe
 *   across fork: open the session in the child.
 * Times: timeout_ms < 0 waits for ever, 0 does not wait. No other call waits.
 * Errors: a code, and one line of text in *err (may be NULL) unless PINION_OK. */
#ifndef PINION_H
#define PINION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#define PINION_API __attribute__((visibility("default")))

enum pinion_code {
    PINION_OK = 0,
    PINION_FAILED,      /* none of the below: err has what is known */
    PINION_INVALID,     /* the caller's mistake: unknown table, a gradient that is no number, a request beyond the limits. No effect */
    PINION_DEADLINE,    /* not done in time, taken back: a push had no effect and never will */
    PINION_PENDING,     /* a push was not acknowledged in time, but it is out: it will be applied once. Do not push it again */
    PINION_FENCED,      /* this client lost its producer, or the job went back to a checkpoint: pinion_resume says where to go on */
    PINION_ENDED,       /* the job is over, cancelled, unknown or not external; or this producer has finished */
    PINION_NO_MEMORY
};
/* "fenced" and so on; static. */
PINION_API const char *pinion_code_name(int code);

struct pinion_error { char text[480]; };
struct pinion_session;
struct pinion_ticket;

struct pinion_options {
    const char *coordinator;    /* its ZeroMQ address, "tcp://127.0.0.1:7701", with #KEY behind it where the cluster is encrypted */
    const char *job;            /* "job-1": what submitting it answered */
    const char *name;           /* of this member, kept over restarts of the process: it then gets its producer back at once. NULL: a random one */
    bool read_only;             /* takes no producer: pulls only */
    void (*log)(void *owner, int level /* 0 debug .. 3 error */, const char *line); /* on the session's thread; NULL: nowhere */
    void *log_owner;
    /* An encrypted cluster: the folder with KEY.key and authorized/ (pinion keygen --role worker KEY). A name, if one is given, is KEY or begins with "KEY.". NULL: not encrypted, loopback only */
    const char *keys, *key;
};

/* Waits until the job runs, its servers are up, and a producer is free for us. Strings are copied. On any error *s is not set.
 * Errors: INVALID (options), ENDED, DEADLINE (text says what was missing), NO_MEMORY, FAILED. */
PINION_API int pinion_open(struct pinion_session **s, const struct pinion_options *, int timeout_ms, struct pinion_error *err);
/* Gives the producer back and frees all; tickets not waited for are dropped. What was acknowledged stays applied as long as the servers live,
 * and for ever if a checkpoint was committed behind it: pinion_checkpoint or pinion_finish first, unless losing it is fine. NULL is fine. */
PINION_API void pinion_close(struct pinion_session *s);

struct pinion_table { char name[64]; uint32_t dim; }; /* dim: floats a row */
/* Fills at most `room` of out; returns how many tables the job has. A table's number is its place here. */
PINION_API size_t pinion_tables(struct pinion_session *s, struct pinion_table *out, size_t room);

/* One table's share of a request. Keys in any order, repeats allowed: a pull gives each its row, a push adds their gradients up first (the
 * optimizer steps once a key). No table twice in a request; at most 2^24 keys and 128 MiB of keys and rows in one. */
struct pinion_part {
    uint32_t table;
    size_t n_keys;
    const uint64_t *keys;
    float *rows;           /* n_keys * dim, row-major. Pull: out, written only on PINION_OK (on other codes: undefined). Push: gradients, only read */
};

/* Reads rows of all parts in one round trip a server. A key without a row reads as the table's initializer would make it. Rows of one server
 * are of one moment, those of several are not. Goes straight from the wire into `rows`.
 * Errors: INVALID, DEADLINE, ENDED, NO_MEMORY, FAILED. A server that restarts is waited for; FENCED never comes. */
PINION_API int pinion_pull(struct pinion_session *s, const struct pinion_part *parts, size_t n_parts, int timeout_ms, struct pinion_error *err);
/* One step of this session's producer. OK: applied by all servers (a pull behind it sees it). *step (may be NULL): the step's number, 0 on errors
 * without effect. n_parts 0 is an empty step. Errors: INVALID, DEADLINE, PENDING, FENCED, ENDED, NO_MEMORY, FAILED. */
PINION_API int pinion_push(struct pinion_session *s, const struct pinion_part *parts, size_t n_parts, uint64_t *step, int timeout_ms, struct pinion_error *err);

/* The same without waiting for the answer. parts may go at once; keys and rows must stay, and rows of a push unchanged, until the ticket is
 * waited for or dropped. Credit: at most 64 pushes (the job's training.inFlight) and 256 pulls of a session are open; beyond that the call waits
 * for one to be answered, up to timeout_ms (then DEADLINE). On an error *ticket is not set. */
PINION_API int pinion_pull_start(struct pinion_session *s, const struct pinion_part *parts, size_t n_parts, struct pinion_ticket **ticket, int timeout_ms,
                                 struct pinion_error *err);
PINION_API int pinion_push_start(struct pinion_session *s, const struct pinion_part *parts, size_t n_parts, struct pinion_ticket **ticket, int timeout_ms,
                                 struct pinion_error *err);
/* Waits, and frees the ticket unless DEADLINE (here: not answered yet, the ticket stays good). step as in pinion_push, may be NULL. */
PINION_API int pinion_wait(struct pinion_ticket *ticket, uint64_t *step, int timeout_ms, struct pinion_error *err);
/* Gives up: frees the ticket, its arrays are the caller's again. DEADLINE: it had no effect. PENDING: the push is out. Else its answer. */
PINION_API int pinion_drop(struct pinion_ticket *ticket);

/* Takes a checkpoint and waits until it holds all pushes of this session whose call has returned (_start too). Then a client that takes the
 * producer over goes on right behind them. Errors: DEADLINE, FENCED, ENDED, INVALID (read only). */
PINION_API int pinion_checkpoint(struct pinion_session *s, int timeout_ms, struct pinion_error *err);
/* Says that this producer pushes nothing more, and waits until a checkpoint holds that. The job ends when all its producers have finished.
 * Errors as pinion_checkpoint; on DEADLINE or PENDING call it again. */
PINION_API int pinion_finish(struct pinion_session *s, int timeout_ms, struct pinion_error *err);
/* After FENCED: waits until this session has a producer again. *first_step (may be NULL): the step that the next push will have. Steps from there
 * on that were applied before are recognised and not applied again, so push what they were (see docs/client.md). Also fine when nothing happened. */
PINION_API int pinion_resume(struct pinion_session *s, uint64_t *first_step, int timeout_ms, struct pinion_error *err);

struct pinion_status {
    bool open, fenced, ended, has_producer, finished;
    uint32_t producer, n_producers, incarnation;
    uint64_t generation;       /* rises when the whole job went back to a checkpoint */
    uint64_t first_step;       /* where this incarnation of the producer began */
    uint64_t next_step;        /* of the next push, if nothing waits in line */
    uint64_t clock;            /* all steps up to it are acknowledged by all servers */
    uint64_t committed_step;   /* all steps up to it are in the newest committed checkpoint */
    uint64_t open_pushes, open_pulls, retries, replays; /* replays: pushes sent again to a server that had lost its memory */
    char why[480];             /* what is waited for, or what happened; empty while all is well */
};
PINION_API void pinion_status(struct pinion_session *s, struct pinion_status *out);

#ifdef __cplusplus
}
#endif
#endif
