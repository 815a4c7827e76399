/* Shared by the pinion command's files. */
#ifndef PN_DEPLOY_CLI_CLI_H
#define PN_DEPLOY_CLI_CLI_H

#include "common/json.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_UNREACHABLE = 3, EXIT_REFUSED = 4, EXIT_TIMEOUT = 5, EXIT_INTERRUPTED = 130 };

/* The command line of one verb: --long VALUE or --flag, and the rest. */
struct cli {
    const char *verb;
    const char *dir;           /* --dir, default pinion-data */
    const char *coordinator;   /* --coordinator, else $PINION_COORDINATOR, else from DIR/cluster.json */
    bool json;                 /* --output json */
    int n_rest;
    char **rest;
    char **options;            /* pairs name, value ("" for a flag), ends with NULL */
};
const char *cli_option(const struct cli *, const char *name, const char *otherwise);
long cli_number(const struct cli *, const char *name, long otherwise, long low, long high);
/* Prints "pinion: line" and ends with the code. */
void cli_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));

/* http.c: status (0: not reachable) and parsed body (owned by the caller, may be NULL). body NULL: GET. */
int cli_http(const char *url, const char *method, struct json_object *body, struct json_object **answer);
/* To the coordinator; ends the process with 3 when it does not answer. */
int cli_ask(const struct cli *, const char *method, const char *path, struct json_object *body, struct json_object **answer);
/* As above, and ends the process with 4 and the error's line when the status is not 2xx. */
struct json_object *cli_must(const struct cli *, const char *method, const char *path, struct json_object *body);
const char *cli_coordinator(const struct cli *);
struct json_object *cli_read_json(const char *path);
char *cli_read_file(const char *path, size_t *n);

/* figures.c: what is printed, drawn and written of a measurement.
 *   key     its name in the coordinator's JSON, behind "validation_" or "test_" of a job
 *   tag     column of the CSV, tag of event files
 *   name    for people, where it is printed or drawn; colour: its curve's, where it is of lists */
struct cli_figure { const char *key, *tag, *name, *colour; bool printed, of_lists, whole; }; /* whole: of all of a list, not of its first K */
extern const struct cli_figure cli_figures[];
extern const size_t cli_n_figures;
void cli_figure_name(struct json_object *job, const struct cli_figure *, char text[32]); /* "NDCG@10" */
double cli_figure_of(struct json_object *job, const char *part, const struct cli_figure *); /* NaN: not measured */
const struct cli_figure *cli_figure_first(struct json_object *job); /* that the job stops by; AUC for others */
/* "validation NDCG@10 0.4213, HR@10 0.7012, AUC 0.9120": what was measured of a part, the first figure first. brief: that one and those of lists. Nothing measured: "". */
void cli_measured(struct json_object *job, const char *part, bool brief, char *out, size_t room);

int verb_up(const struct cli *);      /* cluster.c */
int verb_down(const struct cli *);
int verb_status(const struct cli *);  /* jobs.c */
int verb_submit(const struct cli *);
int verb_jobs(const struct cli *);
int verb_wait(const struct cli *);
int verb_logs(const struct cli *);
int verb_cancel(const struct cli *);
int verb_checkpoint(const struct cli *);
int verb_restore(const struct cli *);
int verb_publish(const struct cli *);
int verb_rollback(const struct cli *);
int verb_rank(const struct cli *);    /* rank.c */
int verb_plot(const struct cli *);    /* plot.c */
int verb_export(const struct cli *); /* export.c */
int verb_keygen(const struct cli *);  /* keygen.c */
int verb_synth(const struct cli *);   /* synth.c */
int verb_convert(const struct cli *); /* convert.c */
struct pn_job;
void cli_privacy_ahead(const struct pn_job *); /* what a private job would spend, epoch by epoch; nothing for others */
int verb_privacy(const struct cli *); /* privacy.c */
int verb_forget(const struct cli *); /* forget.c */

#endif
