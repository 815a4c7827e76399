/* Shared by the serving core's files. */
#ifndef PN_SERVING_INTERNAL_H
#define PN_SERVING_INTERNAL_H

#include "common/json.h"
#include "serving/ranker.h"
#include "serving/request.h"
#include "serving/serving.h"

#define PN_MAX_MODELS 256u
#define PN_MAX_KEEP 16u
#define PN_BUCKETS 16u            /* 50 us * 2^k */
#define PN_MAX_RANKING 16u        /* requests on work threads at once */
#define PN_MAX_WAITING 1024u      /* behind them; more are turned away */

struct pn_count { uint64_t n, ns; };

/* A loaded version. It lives as long as the model's list or a request holds it: a request sees one version from its first byte to
 * its last (I7). */
struct pn_served {
    struct pn_served *next;
    uint32_t refs;
    uint64_t version;
    struct pn_snapshot *snapshot;
    bool can_rank;                /* an audit model is held but cannot rank */
    struct pn_scorer scorer;
    struct pn_ranker *idle;
    struct pn_count success, fail, input, infer, output;
    uint64_t n_candidates, n_executions, last_ms;
};

struct pn_loading;
struct pn_model_state {
    struct pn_model_state *next;  /* never removed: requests and metrics point here */
    char name[64];
    bool planned;
    uint64_t publication, applied; /* of the plan; the one whose version is active */
    uint64_t wanted;
    char dir[512];
    uint64_t keep[PN_MAX_KEEP];
    size_t n_keep;
    struct pn_served *versions, *active;
    struct pn_loading *loading;
    uint64_t failed_version, retry_ms, n_failures, n_swaps;
    char failed_error[400];
    uint64_t n_ok, n_refused, n_errors, n_busy;
    uint64_t bucket[PN_BUCKETS + 1], duration_ns, n_durations, n_found, n_absent, n_candidates;
};

struct pn_call;
struct pn_serving {
    struct pn_env *env;
    struct pn_serving_options options;
    pn_peer coordinator;
    uint64_t incarnation, epoch, revision, beat_ms;
    struct pn_timer beat;
    bool planned, changing, closed;
    struct pn_model_state *models;
    size_t n_models;
    struct pn_call *waiting, **waiting_end;
    size_t n_waiting, n_ranking;
    size_t n_outstanding;         /* work that will call back: the struct lives as long */
    uint64_t n_not_found;
};

/* serving.c */
struct pn_model_state *pn_model_of(struct pn_serving *, const char *name); /* planned or not; NULL: never heard of */
struct pn_served *pn_served_of(struct pn_model_state *, uint64_t version);
void pn_served_unref(struct pn_served *);
bool pn_serving_ready(const struct pn_serving *, struct pn_error *why);
void pn_serving_release(struct pn_serving *); /* one outstanding work less; frees after close */

/* infer.c */
void pn_infer_start(struct pn_serving *, struct pn_model_state *, struct pn_served *, struct pn_http_request *);
void pn_infer_close(struct pn_serving *); /* answers who waits */
void pn_answer_fail(struct pn_http_request *, int status, const char *text);

/* report.c */
struct pn_text;
void pn_report_metrics(struct pn_serving *, struct pn_text *);
void pn_report_metadata(struct pn_model_state *, const struct pn_served *, struct pn_text *);
void pn_report_config(struct pn_model_state *, const struct pn_served *, struct pn_text *);
void pn_report_stats(struct pn_serving *, struct pn_model_state * /* NULL: all */, const struct pn_served * /* NULL: all */, struct pn_text *);
void pn_report_index(struct pn_serving *, bool ready_only, struct pn_text *);

#endif
