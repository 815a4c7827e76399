/* Shared by the worker's files: the run of one job. */
#ifndef PN_WORKER_INTERNAL_H
#define PN_WORKER_INTERNAL_H

#include "common/json.h"
#include "nn/model.h"
#include "nn/vocabulary.h"
#include "ps/client/client.h"
#include "ps/mirror/mirror.h"
#include "snapshot/artifacts.h"
#include "worker/hot.h"
#include "worker/reader/reader.h"
#include "worker/worker.h"

enum pn_stage { PN_STAGE_READ, PN_STAGE_FEATURES, PN_STAGE_PULL, PN_STAGE_COMPUTE, PN_STAGE_PUSH, PN_STAGE_COPY_IN, PN_STAGE_KERNELS, PN_STAGE_ALL_REDUCE, PN_STAGE_COPY_OUT, PN_STAGES }; /* the last four: on devices, inside compute */
extern const char *const pn_stage_names[PN_STAGES];

struct pn_producer;
struct pn_holder;
struct pn_evaluation;

/* One job at work in this process. Objects with requests in flight (producers, evaluations) free themselves when the last returned. */
struct pn_run {
    uint32_t refs;               /* the worker, and each object that may still compute */
    struct pn_env *env;
    struct pn_job job;
    char job_id[64];
    uint64_t generation;
    uint32_t n_producers;
    pn_topic_open *topic;        /* NULL: none */
    pn_parsed_open *parsed;      /* NULL: nobody reads Parquet */
    const struct pn_backend *backend; /* of GPUs; NULL: the CPU computes */
    bool told_cpu;               /* the log has why `auto` takes the CPU */
    struct pn_hot_life hot;
    uint64_t rows_wanted, rows_pulled, rows_evicted; /* of embeddings, by steps: what is not pulled was on the device */
    struct pn_client *client;
    struct pn_mirror *mirror;    /* of a private job: the rows, as no step may show which it reads; else NULL */
    char *statistics;            /* JSON of the transforms, once known */
    struct pn_artifact file;     /* of a job that prepares (pn_job_prepares): where that text lies, as beats and plans say it; no name: not known */
    bool given;                  /* a plan has named the file: it is for good */
    char dir[480];               /* where it and vocabularies lie */
    struct pn_vocabularies vocabularies;
    bool has_vocabularies;       /* all that the job needs are there */
    char *offered;               /* what this worker made and wrote to that file, until the coordinator has named it durably and all may use it */
    size_t n_dense_inputs, n_parameters, n_dense_rows;
    struct pn_producer *producers;
    struct pn_holder *holder;    /* of a secure job, in place of producers */
    struct pn_evaluation *validation, *evaluation;
    struct json_object *model;   /* what the beats tell of it: statistics, blocks, parameters */
    double stage_seconds[PN_STAGES];
    bool failed;
    enum pn_result code;
    struct pn_error error;
    void (*changed)(void *owner); /* something worth a beat */
    void *owner;
};
void pn_run_unref(struct pn_run *);
/* ---- gpu.c: where the run computes ---- */
struct pn_devices;
struct pn_private_spec;
/* Looks for what training.device wants. PN_OK with run->backend NULL: the CPU. */
enum pn_result pn_run_choose_device(struct pn_run *, const struct pn_backend *(*gpu)(struct pn_error *), struct pn_error *);
/* A producer's own devices, one or several as one, with the job's cache of hot rows; NULL where the CPU computes. private: of a private job, else NULL; its roundoff becomes
 * the devices'. False: the run has failed. */
bool pn_run_devices(struct pn_run *, uint32_t producer, struct pn_private_spec *private, struct pn_devices **);
void pn_run_fail(struct pn_run *, enum pn_result, const char *text);
/* What a reader says of a row that it cannot take has the row's text. Of a private job's it goes into this process's own log, and *why, which others will see, says so. Other results: nothing. */
void pn_run_hide_row(struct pn_run *, enum pn_result, struct pn_error *why);

/* ---- producer.c: one data shard's pipeline: read -> features -> pull -> compute -> push ---- */
struct pn_producer_state {
    uint32_t producer, incarnation;
    uint64_t started, clock, samples, loss_rows, epoch;
    double loss_sum, seconds; /* seconds: from the first step started to the last acknowledged */
    uint64_t lag;             /* pn_reader_lag */
    double fraction;          /* of the epoch that is being read, 0 to 1; 0 while its length is not known */
    bool finished, fenced, ring_full;
    bool waiting;             /* at the gate: all it may do is done and acknowledged */
};
struct pn_producer *pn_producer_open(struct pn_run *, uint32_t producer, uint32_t incarnation, uint64_t first_step);
void pn_producer_close(struct pn_producer *); /* nothing of it calls back any more */
void pn_producer_limit(struct pn_producer *, uint64_t last_step_to_start); /* UINT64_MAX: no limit */
/* Early stopping: no step of an epoch >= epochs is started but those up to last_step (that others wait for, in sync and ssp). UINT64_MAX: no gate. */
void pn_producer_gate(struct pn_producer *, uint64_t epochs, uint64_t last_step);
/* Of a topic: the ledger of its rows as a plan has it (borrowed); what a beat says of it (the caller's, NULL: nothing). */
void pn_producer_ledger(struct pn_producer *, struct json_object *);
struct json_object *pn_producer_proposal(const struct pn_producer *);
void pn_producer_poke(struct pn_producer *);  /* something changed: a commit, a map */
struct json_object *pn_producer_windows(const struct pn_producer *); /* of a stream, for a beat; NULL: no stream */
void pn_producer_look(const struct pn_producer *, struct pn_producer_state *);
struct pn_producer *pn_producer_next(struct pn_producer *);
uint64_t pn_run_rows_held(const struct pn_run *); /* in the caches of its producers' devices */

/* ---- windows.c: progressive validation of a stream (spec.data.stream), a producer's part ---- */
struct pn_windows;
struct pn_windows *pn_windows_open(const struct pn_job *, uint32_t n_producers); /* NULL: no memory. job is borrowed */
void pn_windows_close(struct pn_windows *);                                      /* NULL is allowed */
/* The segment of each row of a batch: numbers for pn_windows_add. malloc. NULL: err says why. */
uint8_t *pn_windows_segments(struct pn_windows *, const struct pn_raw *, struct pn_error *);
/* Scores of a step, from before it was learned; steps in order. last: none follows. n 0: a step without rows. True: a window is complete. */
bool pn_windows_add(struct pn_windows *, uint64_t step, bool last, const float *scores, const float *labels, const uint8_t *segments, size_t n);
struct json_object *pn_windows_json(const struct pn_windows *);                  /* the last complete windows, for a beat. Taken by the caller */

/* Infinite ones are none either: gradients of them no server takes, and among scores that are -infinity, which is what stands for an item that is left out of a ranking, all would be at the first place. */
static inline bool pn_all_numbers(const float *x, size_t n) {
    uint32_t none = 0;
    for (size_t i = 0; i < n; i++) none += x[i] - x[i] != 0;
    return none == 0;
}

/* Nothing can be measured or ordered by a score that is no number: who meets one says where, and this. */
#define PN_NO_NUMBER                                                                                                        \
    "is no number: either the model has diverged, which a lower learning rate (or training.clipNorm) mends, or the data has " \
    "a number that is too large, which clip or transform: [log1p] of its feature mends"

/* ---- evaluate.c: scores of a data set, read through the servers. A figure that was not measured is NaN ---- */
struct pn_evaluation_result { char task[64]; bool done; enum pn_result code; struct pn_error error; double auc, logloss, ne, calibration, ece, gauc, head_auc[PN_MAX_HEADS], hr, ndcg, recall, mrr; uint64_t rows, epoch; };
struct pn_evaluation *pn_evaluation_open(struct pn_run *, const struct pn_data *, const char *task, uint64_t epoch);
void pn_evaluation_close(struct pn_evaluation *);
const struct pn_evaluation_result *pn_evaluation_look(const struct pn_evaluation *);
const char *pn_evaluation_of(const struct pn_run *, const struct pn_data *); /* "validation" or "test" */

/* ---- ranking.c: all items ranked for each user of a data set (rank_all), by a model of dot products ---- */
struct pn_ranking_run;
/* done(owner) once; *result has hr, ndcg, recall, mrr and rows (the positive ones), or what went wrong. NULL: no memory. */
struct pn_ranking_run *pn_ranking_open(struct pn_run *, const struct pn_data *, struct pn_evaluation_result *result, void (*done)(void *owner), void *owner);
void pn_ranking_close(struct pn_ranking_run *);

/* ---- start.c: dense parameters of published models (model.start) over those of pn_net_init ---- */
enum pn_result pn_start_dense(struct pn_run *, const struct pn_net *, float *parameters, struct pn_error *);

/* ---- statistics.c: the one pass that transforms need, the same on every worker ---- */
/* done(owner): run->statistics is set; of a job that prepares run->offered and run->file, unless a plan came first; or the run has failed. */
struct pn_statistics;
struct pn_statistics *pn_statistics_start(struct pn_run *, void (*done)(void *owner), void *owner);
/* Those that the job file gives, for data that no pass goes over. malloc. */
char *pn_statistics_given(const struct pn_job *);
void pn_statistics_close(struct pn_statistics *);

/* ---- vocabularies.c ---- */
/* run->statistics is there, or run->given its file. done(owner): run->statistics and run->vocabularies are; or the run has failed. NULL: no memory. */
struct pn_vocabulary_run;
struct pn_vocabulary_run *pn_vocabularies_start(struct pn_run *, void (*done)(void *owner), void *owner);
void pn_vocabularies_stop(struct pn_vocabulary_run *); /* NULL is allowed */

#endif
