/* Files that belong to a model's statistics beside their text: vocabularies. They lie in the job's folder while it trains, and in the folder of a published version. */
#ifndef PN_SNAPSHOT_ARTIFACTS_H
#define PN_SNAPSHOT_ARTIFACTS_H

#include <stddef.h>
#include <stdint.h>
#include "common/result.h"

#define PN_ARTIFACT_BYTES (1u << 30) /* of a file */

struct pn_artifact { char feature[64], name[64], digest[65]; uint64_t n_bytes; };
/* Those that a statistics text names; malloc, *list is NULL without any. Nothing in the text is trusted: a name is a plain file name. PN_INVALID. */
enum pn_result pn_artifacts_read(const char *statistics, struct pn_artifact **list, size_t *n, struct pn_error *);
/* Are these the bytes? PN_CORRUPT says what differs. */
enum pn_result pn_artifact_verify(const struct pn_artifact *, const void *data, size_t n_bytes, struct pn_error *);

#endif
