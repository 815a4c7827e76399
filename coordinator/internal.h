/* Shared by the coordinator's files. */
#ifndef PN_COORDINATOR_INTERNAL_H
#define PN_COORDINATOR_INTERNAL_H

#include "common/file.h"
#include "common/json.h"
#include "common/ledger.h"
#include "coordinator/coordinator.h"
#include "job/job.h"

#define PN_MAX_NODES 256u
#define PN_PAST_LIVES 8u

/* ---- members.c ---- */
enum pn_role { PN_ROLE_PS, PN_ROLE_WORKER, PN_ROLE_SERVING };
struct pn_node {
    struct pn_node *next;            /* by name */
    enum pn_role role;
    char name[64], address[128], http[128];
    uint64_t incarnation, seen_ms;   /* seen_ms: by the coordinator's clock_ms */
    char serves[32];                 /* a client process: the one external job whose producers it takes; "" for all others */
    uint32_t takes;                  /* how many of them at most */
    bool left;                       /* said that it goes: not alive from then on */
    pn_peer peer;
    struct json_object *beat;        /* the last one */
    char *plan;                      /* text of the last plan sent */
    uint64_t revision;               /* of that plan */
    uint64_t past[PN_PAST_LIVES];    /* incarnations of its earlier lives: a late beat of one counts for nothing */
    uint32_t n_past;
};

/* ---- a committed checkpoint ---- */
struct pn_checkpoint {
    struct pn_checkpoint *next;      /* newest first */
    uint64_t epoch, bytes, rows, committed_ms;
    uint64_t steps[PN_MAX_PRODUCERS];
    bool finished[PN_MAX_PRODUCERS];
    bool bad;                        /* does not verify, or was gone back behind */
    uint64_t forgot;                 /* the newest request of forget.c whose rows it is without */
    char dir[480];
    struct json_object *files;       /* [{name, bytes, digest, rows}] */
    struct json_object *ledgers;     /* of a job that reads a topic: each producer's position (common/ledger.h); else NULL */
    bool dirty;
};

enum pn_job_state { PN_PENDING, PN_RUNNING, PN_SUCCEEDED, PN_JOB_FAILED, PN_CANCELLED };
enum pn_phase { PN_TRAIN, PN_FINAL, PN_EVALUATE_VALIDATION, PN_EVALUATE_TEST, PN_PUBLISH, PN_ENDED };

struct pn_work_unit {                /* a producer as the coordinator sees it */
    uint64_t incarnation, owner_incarnation, first_step;
    uint64_t charged;                /* private jobs: steps that its owners, one after the other, may have run; never falls */
    uint32_t lives;                  /* ... and how many owners there were; of a secure job: how often rows were chosen */
    char owner[64];
    /* as last reported */
    uint64_t started, clock, samples, loss_rows, epoch;
    uint64_t lag;                    /* of a topic: offsets behind its last batch, where lag_known */
    double loss_sum, seconds, fraction;
    bool finished, ring_full, waiting, lag_known;
};
struct pn_shard_seat { char node[64], address[128]; uint64_t term, incarnation, open_term, retry_ms; };
struct pn_metric { bool known; double auc, logloss, ne, calibration, ece, gauc, head_auc[PN_MAX_HEADS], hr, ndcg, recall, mrr; uint64_t rows, epoch; }; /* NaN: not measured. epoch: behind which; 0: not told */
struct pn_metric pn_metric_read(struct json_object *);                                        /* as a worker reports it and a record holds it */
void pn_metric_write(struct json_object *, const char *prefix, const struct pn_metric *);    /* PREFIXauc ...; what is NaN is left out */
void pn_metric_say(const struct pn_metric *, char *text, size_t room);                       /* "auc 0.79012, logloss 0.44013": for the log */
/* As Prometheus text at out, one gauge pinion_job_FIGURE a figure; how much was written. */
size_t pn_metric_gauges(const struct pn_metric *, const char *job, char *out, size_t room);

/* A cut under way. */
struct pn_cut {
    enum { PN_NO_CUT, PN_DRAIN, PN_FLIP, PN_WRITE, PN_MANIFEST } phase;
    uint64_t epoch, upto, since_ms;
    uint64_t steps[PN_MAX_PRODUCERS];
    bool finished[PN_MAX_PRODUCERS];
    char dir[480];
    struct json_object *files, *manifest;
};

struct pn_asker { struct pn_asker *next; struct pn_http_request *request; };

/* stream.c */
struct pn_stream_window;
struct pn_stream {
    struct pn_stream_window *pending; /* by index: not all producers have said theirs */
    uint64_t next;                   /* the first that is not in the history */
    uint64_t seen[PN_MAX_PRODUCERS], samples; /* seen: 1 + the last window of a producer */
    bool ended[PN_MAX_PRODUCERS];
    struct json_object *history;     /* figures of the newest windows; NULL: none */
};

/* curve.c */
struct pn_curve {
    struct json_object *train;       /* [[seconds, samples, mean loss since the point before], ..] */
    struct json_object *validation;  /* [{seconds, samples, epoch, and the figures of pn_metric}, ..], epochs rising */
    uint64_t train_ms, last_ms, next_ms, distance_ms, rows, distance_epochs;
    double loss;
};

struct pn_job_run {
    struct pn_job_run *next;         /* in order of submission */
    char id[32], key[128], reason[480];
    struct pn_job job;
    char *text;
    enum pn_job_state state;
    enum pn_phase phase;
    uint64_t generation, next_epoch, restarts, last_checkpoint_ms;
    uint32_t n_producers, n_shards;
    struct pn_work_unit units[PN_MAX_PRODUCERS];
    struct pn_shard_seat seats[64];
    struct pn_checkpoint *checkpoints;
    struct pn_cut cut;
    bool cut_wanted, cut_untold, dirty;
    uint64_t commit_revision; /* plans behind it tell of the last commit of this life */
    uint64_t open_revision;   /* plans behind it tell of the last server that opened */
    struct pn_asker *cut_askers;
    struct pn_metric epoch_validation, validation, test;
    /* early stopping (gate.c) */
    enum pn_gate { PN_GATE_OPEN, PN_GATE_EVALUATE, PN_GATE_SAVE } gate;
    uint64_t gate_epochs, gate_step, gate_try, gate_lives, best_epoch, best_checkpoint, misses, train_ms; /* train_ms: spent before this coordinator's life */
    uint64_t began_ms;
    struct pn_metric best;
    bool stopped;                    /* training is over: only evaluation and publication follow */
    struct json_object *history;     /* [{epoch, seconds, and the figures of pn_metric}] of each epoch; NULL: none */
    struct pn_curve curve;
    struct pn_stream stream;
    struct pn_ledger *ledgers;       /* one a producer, of a job that reads a topic; else NULL */
    uint64_t version;
    struct json_object *model;       /* statistics (their file's name, or text), blocks, parameters: from the workers */
    bool told_unsound, tidied;       /* statistics.c */
    double samples_per_s;
    char evaluator[64];
    struct pn_secure_run *secure;    /* secure.c; NULL: not a secure job, or not begun */
};

struct pn_publication;
struct pn_version { struct pn_version *next; uint64_t version, checkpoint, forgot /* its checkpoint's */; char job[32], dir[480]; }; /* newest first */
struct json_object *pn_version_write(const struct pn_version *); /* as a record holds it and the API shows it */
struct pn_model_entry {
    struct pn_model_entry *next;
    char name[64];
    uint64_t next_version, active, publication;
    struct pn_version *versions;
    bool dirty;
};

struct pn_coordinator {
    struct pn_env *env;
    struct pn_store *store;
    struct pn_coordinator_options options;
    struct pn_timer tick;
    uint64_t epoch, term, revision, job_sequence;
    uint64_t clock_ms, looked_ms, started_ms; /* clock_ms: time in which it looked; leases go by it (pn_look). looked_ms: the machine's. started_ms: by clock_ms */
    bool counters_dirty, ready, quiet, store_failing, reconciling;
    struct pn_node *nodes;
    struct pn_job_run *jobs;
    struct pn_model_entry *models;
    struct pn_publication *publication; /* one at a time */
    struct pn_forget *forgets;       /* by number, rising; kept for good */
    struct pn_scrubbing *scrubbing;
    struct pn_sweep *sweep;
    struct pn_tidying *tidying;
    uint64_t forget_retry_ms, sweep_retry_ms, scrub_sequence;
    uint64_t n_checkpoints, n_checkpoint_failures, n_beats, n_plans, liar_ms; /* liar_ms: when the log last told of one */
};

/* members.c */
struct pn_node *pn_node_find(struct pn_coordinator *, const char *name);
bool pn_node_alive(const struct pn_coordinator *, const struct pn_node *);
bool pn_node_knows_plan(const struct pn_coordinator *, const struct pn_node *); /* its last beat was written behind the newest plan for it */
void pn_node_beat(struct pn_coordinator *, pn_peer, const struct pn_frame *);
struct json_object *pn_node_job(const struct pn_node *, const struct pn_job_run *); /* its beat's job if it is this one and generation, else NULL */
void pn_nodes_free(struct pn_coordinator *);

/* records.c: durability */
bool pn_records_load(struct pn_coordinator *, struct pn_error *); /* false: nothing of it is in memory, try again */
bool pn_records_flush(struct pn_coordinator *); /* all that is dirty in one transaction; false: nothing was written, nothing may be shown */
void pn_records_forget(struct pn_coordinator *, struct pn_job_run *, struct pn_checkpoint *); /* removes a checkpoint's record, then its files */

/* jobs.c */
void pn_jobs_step(struct pn_coordinator *);
struct pn_job_run *pn_job_find(struct pn_coordinator *, const char *id);
struct pn_job_run *pn_job_running(struct pn_coordinator *);   /* the one at work, or NULL */
struct pn_job_run *pn_job_on_servers(struct pn_coordinator *); /* the running one, else the last that ended */
struct pn_checkpoint *pn_job_committed(const struct pn_job_run *); /* newest good one, or NULL */
void pn_job_end(struct pn_coordinator *, struct pn_job_run *, enum pn_job_state, const char *reason);
void pn_job_free_run(struct pn_job_run *);
bool pn_job_all_finished(const struct pn_job_run *);
bool pn_job_may_have(const struct pn_job_run *, const struct pn_node *); /* is this node one that takes this job's producers? */
const char *pn_job_state_name(const struct pn_coordinator *, const struct pn_job_run *);

static inline bool pn_job_ended(const struct pn_job_run *j) { return j->state > PN_RUNNING; }
void pn_job_task(const struct pn_job_run *, char task[80]);   /* names the evaluation that the job waits for */
void pn_job_after_training(struct pn_coordinator *, struct pn_job_run *); /* to the phase behind the final checkpoint */
bool pn_job_begin(struct pn_coordinator *, struct pn_job_run *); /* seats and owners anew, from the newest good checkpoint; false: no server or no worker */
void pn_job_again(struct pn_coordinator *, struct pn_job_run *, const char *who); /* the whole job goes back to its newest good checkpoint; a restart */
bool pn_job_evaluated(struct pn_coordinator *, struct pn_job_run *, struct pn_metric *); /* its figures are there; one that failed ends the job */
struct pn_node *pn_job_evaluator(struct pn_coordinator *, struct pn_job_run *); /* the live worker that evaluates, or NULL */

/* statistics.c: of a job that prepares (pn_job_prepares) */
void pn_job_folder(const struct pn_coordinator *, const struct pn_job_run *, char dir[480]); /* where its vocabularies and the text of its statistics lie */
void pn_statistics_take(struct pn_coordinator *, struct pn_job_run *, const struct pn_node *, struct json_object *model); /* out of a worker's beat; of any job */
void pn_statistics_tidy(struct pn_coordinator *); /* removes what no record needs from folders of ended jobs, one job at a time, in the background */
void pn_tidying_close(struct pn_coordinator *);

/* gate.c: early stopping */
void pn_gate_step(struct pn_coordinator *, struct pn_job_run *);
bool pn_gate_asks(const struct pn_job_run *);                 /* an evaluation of validation is wanted from j->evaluator */

/* curve.c */
void pn_curve_take(struct pn_coordinator *, struct pn_job_run *);    /* behind the workers' reports */
void pn_curve_measured(struct pn_job_run *);                         /* epoch_validation is new */
struct json_object *pn_curve_json(const struct pn_job_run *);
void pn_curve_load(struct pn_job_run *, struct json_object *);       /* NULL: none */
void pn_curve_free(struct pn_job_run *);

/* stream.c: what a stream's windows say (spec.data.stream) */
/* Takes the windows of a producer's entry in a beat. */
void pn_stream_take(struct pn_coordinator *, struct pn_job_run *, uint32_t producer, struct json_object *windows);
void pn_stream_step(struct pn_coordinator *, struct pn_job_run *);   /* finishes windows; may end the job (the guard) */
void pn_stream_again(struct pn_job_run *);                            /* the producers begin again: what is not in the history comes anew */
void pn_stream_load(struct pn_job_run *, struct json_object *history); /* NULL: none */
/* The newest window as Prometheus text at out; how much was written, 0 if there is no window or no room. */
size_t pn_stream_metrics(const struct pn_job_run *, char *out, size_t room);
void pn_stream_free(struct pn_job_run *);

/* ledgers.c: what the data shards of a job that reads a topic are dealt */
void pn_ledgers_begin(struct pn_coordinator *, struct pn_job_run *);         /* with a new generation: from its checkpoint */
void pn_ledgers_take(struct pn_coordinator *, struct pn_job_run *, uint32_t producer, struct json_object *proposal); /* out of a beat of its owner; NULL: none */
void pn_ledgers_trim(struct pn_job_run *);                                   /* what the newest durable checkpoint holds goes */
struct json_object *pn_ledgers_write(const struct pn_job_run *);             /* for the job's record; NULL: no topic */
struct json_object *pn_ledgers_at(const struct pn_job_run *, const uint64_t *steps); /* for a checkpoint; NULL: no topic */
bool pn_ledgers_load(struct pn_job_run *, struct json_object *);             /* false: a damaged record */
bool pn_ledgers_lag(const struct pn_job_run *, uint64_t *offsets);           /* what the topic has and no batch had, as last reported; false: not known, or no topic */
void pn_ledgers_free(struct pn_job_run *);

/* files.c: patterns and folders among a job's files become lists. done() takes the job, at once if there are none; else the request is answered and the job is freed. */
void pn_files_look_up(struct pn_coordinator *, struct pn_http_request *, struct pn_job_run *, void (*done)(struct pn_coordinator *, struct pn_http_request *, struct pn_job_run *));

/* checkpoints.c */
void pn_cut_step(struct pn_coordinator *, struct pn_job_run *);
void pn_cut_abandon(struct pn_coordinator *, struct pn_job_run *, const char *why);
void pn_remove_files(struct pn_env *, const char *dir, struct json_object *files); /* manifest first; in the background */

/* publications.c */
/* asker may be NULL. false: err says why not. */
bool pn_publication_start(struct pn_coordinator *, struct pn_job_run *, bool force, struct pn_http_request *asker, struct pn_error *);
void pn_publication_step(struct pn_coordinator *);
bool pn_publication_uses(const struct pn_coordinator *, const struct pn_job_run *, uint64_t epoch); /* that checkpoint's files are being read */
bool pn_publication_writes(const struct pn_coordinator *, const char *model, const char *version);
void pn_publication_close(struct pn_coordinator *);
struct json_object *pn_publication_plan(struct pn_coordinator *, const struct pn_node *); /* for a ps; NULL: none */
bool pn_model_rollback(struct pn_coordinator *, struct pn_model_entry *, uint64_t version, struct pn_error *);
struct pn_model_entry *pn_model_find(struct pn_coordinator *, const char *name, bool make);
void pn_models_free(struct pn_coordinator *);

/* budget.c: the privacy budget of data sets. It lies in the jobs' records: what a producer was charged is written in the transaction that gives it to a worker,
 * before any plan shows it; nothing gives any of it back. */
/* At submission: false, and err says why, if the job does not fit into what its data set has left. */
bool pn_budget_admit(const struct pn_coordinator *, const struct pn_job *, struct pn_error *);
/* Producer p begins at its first_step under a new owner: all steps from there on are charged. False: the budget does not have them; nothing is charged. */
bool pn_budget_charge(const struct pn_coordinator *, struct pn_job_run *, uint32_t p, struct pn_error *);
/* Secure jobs: one more round, or `choice`: one more count of all that holders have. False: the budget does not have it; nothing is charged. The record must be durable before a plan shows the round. */
bool pn_budget_charge_round(const struct pn_coordinator *, struct pn_job_run *, bool choice, struct pn_error *);
struct json_object *pn_budget_describe(const struct pn_coordinator *);
size_t pn_budget_metrics(const struct pn_coordinator *, char *text, size_t n);

/* forget.c: rows that people want gone */
struct pn_forget {
    struct pn_forget *next;
    uint64_t number, asked_ms, done_ms;
    char job[32], field[64], who[64];
    struct json_object *keys;        /* [[table, key], ..] */
    uint64_t server_rows, checkpoint_rows, n_checkpoints, n_versions; /* what was removed */
    bool done, dirty;
    bool again;                      /* earlier requests have all its keys: it is done when they are */
    char note[300];                  /* what it waits for */
};
struct json_object *pn_forget_write(const struct pn_forget *);
bool pn_forget_load(struct pn_coordinator *, struct json_object *);
void pn_forgets_free(struct pn_coordinator *);
void pn_forget_step(struct pn_coordinator *);
void pn_forget_post(struct pn_coordinator *, struct pn_http_request *, struct json_object *body);
struct json_object *pn_forget_describe(const struct pn_coordinator *);
uint64_t pn_forget_number(const struct pn_coordinator *, const struct pn_job_run *); /* the job's newest request; 0: none */
bool pn_forget_settled(struct pn_coordinator *, const struct pn_job_run *);         /* all shards are without what is to be forgotten: a cut may begin */
struct json_object *pn_forget_keys(const struct pn_coordinator *, const char *job);  /* of all its requests. The caller's */
void pn_forget_say(struct pn_forget *, const char *format, ...) __attribute__((format(printf, 2, 3))); /* what it waits for */
/* scrub.c, sweep.c: parts of pn_forget_step. True: nothing is left to do */
bool pn_forget_checkpoints(struct pn_coordinator *, struct pn_forget *, struct pn_job_run *);
void pn_scrubbing_drop(struct pn_coordinator *);
bool pn_scrubbing_writes(const struct pn_coordinator *, const struct pn_job_run *, const char *folder); /* its last part */
bool pn_forget_files(struct pn_coordinator *, struct pn_forget *, struct pn_job_run *);
void pn_sweep_close(struct pn_coordinator *);
bool pn_forget_copies(const struct pn_coordinator *, const struct pn_job_run *, uint64_t epoch); /* a server reads that checkpoint's files */
struct json_object *pn_forget_plan(const struct pn_coordinator *, const struct pn_job_run *);  /* for a shard of the job; NULL: nothing */
struct json_object *pn_forget_scrub_plan(struct pn_coordinator *, const struct pn_node *);     /* for a ps; NULL: nothing */
/* secure.c: the rounds of a secure job */
bool pn_secure_seated(struct pn_coordinator *, struct pn_job_run *);  /* may the job begin? The first time its data holders are chosen for good: all must be there; later the fewest of a sum */
struct pn_node *pn_secure_holder(struct pn_coordinator *, struct pn_job_run *, uint32_t producer); /* alive and with the right identity, or NULL */
void pn_secure_step(struct pn_coordinator *, struct pn_job_run *);
void pn_secure_message(struct pn_coordinator *, pn_peer from, const struct pn_frame *); /* of kinds 40 to 55 */
bool pn_secure_idle(const struct pn_job_run *);                       /* no round is under way, and the servers' step is known: a cut may be taken */
void pn_secure_again(struct pn_job_run *);                            /* the job begins from a checkpoint */
struct json_object *pn_secure_plan(const struct pn_job_run *);        /* of all parts' plans; NULL: none */
void pn_secure_save(const struct pn_job_run *, struct json_object *record);
void pn_secure_load(struct pn_coordinator *, struct pn_job_run *, struct json_object *record);
void pn_secure_free(struct pn_job_run *);

/* plan.c */
uint32_t pn_plan_first_slot(const struct pn_job_run *, uint32_t shard);
void pn_plans_send(struct pn_coordinator *);
void pn_plan_repeat(struct pn_coordinator *, struct pn_node *);

/* api.c */
void pn_answer_json(struct pn_http_request *, int status, struct json_object *taken);
void pn_answer_error(struct pn_http_request *, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));
void pn_answer_all(struct pn_asker **list, int status, const char *key, uint64_t value, const char *error);

/* coordinator.c */
/* Time goes on for leases: as much as since the last look, but never by much. A coordinator that stood still (a long computation, a slow disk, a busy machine) has left the
 * beats of that time unread, and nobody is dead for it. */
void pn_look(struct pn_coordinator *);
void pn_reconcile(struct pn_coordinator *); /* looks at all, takes the next steps, makes them durable, shows them */

#endif
