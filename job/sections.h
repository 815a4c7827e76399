/* Sections of the job file that have a file of their own; each reads its node (NULL: not there) into *job and reports what is wrong to y. */
#ifndef PN_JOB_SECTIONS_H
#define PN_JOB_SECTIONS_H

#include "job/job.h"
#include "job/yaml.h"

/* spec.model.sequence; the features have been read. */
void pn_job_read_sequence(struct pn_yaml *y, struct fy_node *n, struct pn_job *job);
/* spec.model.heads and spec.model.distill. */
void pn_job_read_heads(struct pn_yaml *y, struct fy_node *n, struct pn_job *job);
void pn_job_read_distill(struct pn_yaml *y, struct fy_node *n, struct pn_job *job);

#endif
