/* Who may connect to an encrypted socket: the ZAP handler of the process (ZeroMQ RFC 27). A CURVE socket of libzmq 4.3.4 lets every key in unless a handler is there before it binds and
 * ZMQ_ZAP_ENFORCE_DOMAIN is set, so both are, and pn_zap_test sees to it that a stranger is refused. */
#ifndef PN_SHELL_ZAP_H
#define PN_SHELL_ZAP_H

#include "common/shell/internal.h"
#include "common/shell/keys.h"

struct pn_zap;
/* Answers on the loop. keys are borrowed. PN_FAILED, PN_NO_MEMORY. */
enum pn_result pn_zap_open(struct pn_zap **, struct pn_shell *, void *context, struct pn_keys *, struct pn_error *);
void pn_zap_close(struct pn_zap *);  /* its handle closes with the loop, then: */
void pn_zap_free(struct pn_zap *);
void pn_zap_drain(struct pn_zap *);  /* all questions that wait */
/* The listening side of a socket: called before it binds. */
void pn_zap_guard(void *socket, const struct pn_keys *);
/* The asking side: called before it connects to whom has server_key. */
void pn_zap_client(void *socket, const struct pn_keys *, const uint8_t server_key[32]);
/* Knocks at the own door with a key that nobody knows, for up to 5 s. PN_REFUSED: it was let in, so nothing may be served here. PN_DEADLINE: no answer came. */
enum pn_result pn_zap_test(struct pn_zap *, const char *endpoint, struct pn_error *);
/* Who sent a frame of a guarded socket, still authorized; NULL: nobody who is. */
const struct pn_key_owner *pn_zap_sender(struct pn_zap *, void *frame);

#endif
