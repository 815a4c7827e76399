/* Sections of the job file that have a file of their own; each reads its node (NULL: not there) into *job and reports what is wrong to y. */
#ifndef PN_JOB_SECTIONS_H
#define PN_JOB_SECTIONS_H

#include "job/job.h"
#include "job/yaml.h"

/* A path or file:// URI into out; `base` (NULL: none) is what a relative one is relative to. */
void pn_job_read_path(struct pn_yaml *y, struct fy_node *uri, const char *base, char out[400]);
/* spec.data.train, .validation, .test: `what` is its name in messages. */
void pn_job_read_data(struct pn_yaml *y, struct fy_node *n, const char *what, const char *base, struct pn_data *d);
void pn_job_check_weights(struct pn_job *job); /* sets pn_data.weighted, behind the features */
/* data.train.kafka: a topic in place of files; the format is known. */
void pn_job_read_kafka(struct pn_yaml *y, struct fy_node *n, const char *what, struct pn_data *d);
/* What goes with it in the job, all else has been read. */
void pn_job_check_kafka(struct pn_yaml *y, struct fy_node *data, const struct pn_job *job);
/* One entry of spec.features: a field and, if it is new, its table. */
void pn_job_read_feature(struct pn_yaml *y, struct fy_node *n, const char *base, struct pn_job *job);
/* bucketize and vocabulary of a feature; its hash_seed is known. */
void pn_job_read_boundaries(struct pn_yaml *y, struct fy_node *n, struct pn_field *f);
void pn_job_read_vocabulary(struct pn_yaml *y, struct fy_node *n, const char *base, struct pn_job *job, struct pn_field *f);
int pn_job_find_field(const struct pn_job *job, const char *name);   /* its index, or -1 */
int pn_job_find_table(const struct pn_job *job, const char *name);
/* spec.tables; the tables are known by name. An external job's are declared there. */
void pn_job_read_tables(struct pn_yaml *y, struct fy_node *n, struct pn_job *job);
void pn_job_declare_tables(struct pn_yaml *y, struct fy_node *spec, struct pn_job *job);
/* tables.NAME.import; tables and features have been read. */
void pn_job_read_imports(struct pn_yaml *y, struct fy_node *tables, const char *base, struct pn_job *job);
/* The dense parameters' table, with spec.optimizer. */
void pn_job_add_dense_table(struct pn_yaml *y, struct fy_node *optimizer, struct pn_job *job);
struct pn_optimizer_spec pn_job_default_optimizer(enum pn_optimizer kind, float lr);
/* spec.model. */
void pn_job_read_model(struct pn_yaml *y, struct fy_node *n, const char *base, struct pn_job *job);
/* spec.privacy; all else has been read. */
void pn_job_read_privacy(struct pn_yaml *y, struct fy_node *n, struct pn_job *job);
/* The part of spec.privacy that is about secure aggregation. */
void pn_job_read_secure(struct pn_yaml *y, struct fy_node *n, struct pn_job *job);
/* spec.training. */
void pn_job_read_training(struct pn_yaml *y, struct fy_node *n, struct pn_job *job);
/* ... its device and precision; and, when all else has been read, whether several devices can share what the job asks for. */
void pn_job_read_device(struct pn_yaml *y, struct fy_node *training, struct pn_job *job);
void pn_job_check_devices(struct pn_yaml *y, struct fy_node *training, const struct pn_job *job);
/* spec.training.deviceCache; training has been read. */
void pn_job_read_device_cache(struct pn_yaml *y, struct fy_node *training, struct pn_job *job);
/* "hr@10" and the like: one K for a job. False: no such name. */
bool pn_job_ranking_metric(struct pn_yaml *y, struct fy_node *n, const char *text, struct pn_job *job, enum pn_metric_kind *kind);
/* spec.data.stream; data, model and training have been read. */
void pn_job_read_stream(struct pn_yaml *y, struct fy_node *n, struct pn_job *job);
/* spec.model.sequence; the features have been read. */
void pn_job_read_sequence(struct pn_yaml *y, struct fy_node *n, struct pn_job *job);
/* spec.model.heads and spec.model.distill. */
void pn_job_read_heads(struct pn_yaml *y, struct fy_node *n, struct pn_job *job);
void pn_job_read_distill(struct pn_yaml *y, struct fy_node *n, struct pn_job *job);
/* A feature of type leaves; and, behind all features, whether the job has what it needs. */
void pn_job_read_leaves(struct pn_yaml *y, struct fy_node *n, struct pn_job *job);
void pn_job_check_leaves(struct pn_yaml *y, struct fy_node *features, const struct pn_job *job);

#endif
