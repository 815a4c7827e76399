/* Rows that begin with pre-trained embeddings from NumPy files (tables.NAME.import): a file of keys or of a feature's values, and one with a row of numbers for each. The
 * files stay where they are, mapped; a row is read when it is first pulled or pushed (as in start.h). */
#ifndef PN_PS_IMPORT_H
#define PN_PS_IMPORT_H

#include "common/env.h"
#include "job/job.h"

struct pn_import;
/* Maps table i_table's files and finds every key's place, on this thread. PN_INVALID: a file is not as it should be, the widths do not fit, or a key stands twice;
 * also where a file is not there; PN_IO: it cannot be read. */
enum pn_result pn_import_open(struct pn_import **, struct pn_env *, const struct pn_job *, uint32_t i_table, struct pn_error *);
void pn_import_close(struct pn_import *);
/* Overwrites the embedding floats of `values` (dim of the table) with the imported ones, if the key has any: then true. */
bool pn_import_row(const struct pn_import *, uint64_t key, float *values);

#endif
