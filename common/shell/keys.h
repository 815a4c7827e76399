/* Keys of encrypted sockets (CurveZMQ: curve25519 key pairs, XSalsa20-Poly1305): a node's own pair, and whom it may speak to.
 *
 *   DIR/NAME.key             the pair of node NAME, in a file that nobody else may read. Stays on the machine where NAME runs
 *   DIR/authorized/NAME.pub  its public half, on every machine. Taking the file away shuts the node out within a second
 *
 * An encrypted node's address ends in its public key: tcp://10.0.0.5:7701#64-hexadecimal-digits. Whoever is told the address of a server, by the coordinator or by hand, is told
 * whom to expect there. */
#ifndef PN_SHELL_KEYS_H
#define PN_SHELL_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/result.h"

enum pn_key_role { PN_KEY_COORDINATOR, PN_KEY_PS, PN_KEY_WORKER, PN_KEY_SERVING, PN_KEY_ROLES };
extern const char *const pn_key_role_names[PN_KEY_ROLES]; /* as in a beat; a client of the library is a worker */

struct pn_key_owner { uint8_t public_key[32]; enum pn_key_role role; char name[64]; };
struct pn_keys {
    struct pn_key_owner own;
    uint8_t secret[32];               /* kept out of swap and core dumps */
    struct pn_key_owner *authorized;  /* by public key */
    size_t n_authorized;
    char dir[400];
    uint64_t looked_ms;               /* when the folder was last read */
    uint64_t signature;               /* of the folder's files, to see a change */
};

/* A new pair: DIR/NAME.key and DIR/authorized/NAME.pub. PN_EXISTS: NAME has one. PN_INVALID: the name is none. Blocks. */
enum pn_result pn_keys_make(const char *dir, const char *name, enum pn_key_role, struct pn_error *);
/* Reads DIR/NAME.key and DIR/authorized. PN_REFUSED: others may read the key's file. PN_NOT_FOUND, PN_CORRUPT, PN_IO: a line says which file and what to do. Blocks. */
enum pn_result pn_keys_open(struct pn_keys **, const char *dir, const char *name, struct pn_error *);
void pn_keys_close(struct pn_keys *); /* wipes the secret. NULL is fine */
/* Who has that key; NULL: nobody who is authorized. The folder is read again at most once a second (now_ms: a monotonic clock), which takes as long as its files are many. A file in it
 * that is no public key authorizes nobody. Valid until the next call. */
const struct pn_key_owner *pn_keys_find(struct pn_keys *, const uint8_t public_key[32], uint64_t now_ms);
/* May a node of that role send such a message (enum pn_kind and enum pn_agg_kind) to one that listens? Everything else is dropped unread. */
bool pn_key_may_send(enum pn_key_role, unsigned kind);

/* Splits an address at its '#': `plain` gets what is before it. True: a key of 64 hexadecimal digits follows. False: there is no '#' (plain is the whole address), or what follows is no key
 * (plain is ""). */
bool pn_key_of_address(const char *address, char plain[128], uint8_t public_key[32]);

#endif
