/* The metrics page of a server (Prometheus text format 0.0.4). */
#ifndef PN_PS_METRICS_H
#define PN_PS_METRICS_H

#include "ps/shard.h"

/* Writes the page of a shard (NULL: none is open) to out; returns its bytes without the NUL, at most room - 1. */
size_t pn_ps_metrics(const struct pn_shard *, uint64_t checkpoints_written, uint64_t checkpoints_failed, char *out, size_t room);

#endif
