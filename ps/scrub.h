/* A copy of a committed checkpoint's files without some rows (pinion forget). Everything else stays: windows, clocks, audit sums, so that a job goes on from the copy
 * as it would have from the original. Works beside the shard; knows only files. */
#ifndef PN_PS_SCRUB_H
#define PN_PS_SCRUB_H

#include "common/env.h"
#include "common/json.h"

/* A plan's list of what is to be forgotten, [[table, key], ..]: *tables and *keys are malloc'ed, n of each, and the caller's also on errors. A table's number that is too large for any job stays
 * one. False: no memory. */
bool pn_scrub_keys(struct json_object *list, uint32_t **tables, uint64_t **keys, size_t *n);

struct pn_scrub;
/* plan: {task, from, to, files: [{name, digest}], keys: [[table, key], ..]}. Writes `to`/name for each; changed(owner) after each change of state. NULL: no memory. */
struct pn_scrub *pn_scrub_start(struct pn_env *, struct json_object *plan, void (*changed)(void *owner), void *owner);
uint64_t pn_scrub_task(const struct pn_scrub *);
/* For a beat: {task, state: writing|written|failed, code, error, files: [{name, bytes, digest, rows, removed}]}. */
struct json_object *pn_scrub_state(const struct pn_scrub *);
void pn_scrub_abandon(struct pn_scrub *); /* frees it when nothing is in flight any more */

/* The pure part: *out (malloc) is image without the records of those keys; keys[i] of table tables[i]. digest NULL: not checked. hex: 65 bytes, of the copy.
 * PN_CORRUPT as pn_checkpoint_read. */
enum pn_result pn_scrub_image(const void *image, size_t n_bytes, const char *digest, const uint32_t *tables, const uint64_t *keys, size_t n, void **out, size_t *out_bytes, char *hex,
                              uint64_t *rows, uint64_t *removed, struct pn_error *);

#endif
