/* Files that belong to a model, each known by its digest: the text of its statistics, which can be long, and the vocabularies that stand beside it. They lie in the job's folder while it
 * trains, and in the folder of a published version. */
#ifndef PN_SNAPSHOT_ARTIFACTS_H
#define PN_SNAPSHOT_ARTIFACTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/result.h"

#define PN_ARTIFACT_BYTES (1u << 30) /* of a file */

struct json_object;
struct pn_artifact { char feature[64] /* of a vocabulary */, name[64], digest[65]; uint64_t n_bytes; };
/* The file of these bytes: its name is the first 32 digits of its digest and the ending. */
void pn_artifact_make(struct pn_artifact *, const char *ending, const void *data, size_t n_bytes);
/* As beats, plans and records name it, and back: {format, name, bytes, digest}. Nothing in it is trusted: a name is a plain file name. False: it is no such thing. */
struct json_object *pn_artifact_write(const struct pn_artifact *);
bool pn_artifact_read(struct json_object *, struct pn_artifact *);
/* The vocabularies that a statistics text names; malloc, *list is NULL without any. PN_INVALID. */
enum pn_result pn_artifacts_read(const char *statistics, struct pn_artifact **list, size_t *n, struct pn_error *);
/* Are these the bytes? PN_CORRUPT says what differs. */
enum pn_result pn_artifact_verify(const struct pn_artifact *, const void *data, size_t n_bytes, struct pn_error *);

#endif
