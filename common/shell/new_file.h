/* Files that appear whole or not at all and never replace another: keys. For a main(): they block. */
#ifndef PN_SHELL_NEW_FILE_H
#define PN_SHELL_NEW_FILE_H

#include <stddef.h>
#include "common/result.h"

/* Makes the directory of `path` (0700) and those above it (0755), then the file, on disk before it returns. Of two processes that do so at once both find the first one's.
 * PN_EXISTS: it is there already, untouched. PN_IO: a line says why. */
enum pn_result pn_new_file(const char *path, const void *data, size_t n_bytes, unsigned mode, struct pn_error *);

#endif
