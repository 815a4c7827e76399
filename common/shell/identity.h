/* A process's own long-term Ed25519 key (libsodium), in a file of its directory that nobody else may read. */
#ifndef PN_SHELL_IDENTITY_H
#define PN_SHELL_IDENTITY_H

#include <stdint.h>
#include "common/result.h"

/* secret[64]: the key pair of DIR/identity, which is made, with the directory, if it is not there. PN_IO, PN_CORRUPT: a line says what is wrong with which file. Blocks; for a main(). */
enum pn_result pn_identity_open(const char *dir, uint8_t secret[64], struct pn_error *);

#endif
