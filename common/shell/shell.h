/* The shell of a role: libuv's loop, ZeroMQ, threads and real files behind struct pn_env. One a process, one thread runs it; embedded ones
 * (in a program that is not ours) may be many, one thread each. */
#ifndef PN_COMMON_SHELL_SHELL_H
#define PN_COMMON_SHELL_SHELL_H

#include "common/env.h"

struct pn_shell;
struct pn_keys;
/* bind: NULL (no incoming messages) or "tcp://127.0.0.1:PORT", port 0 for a free one. keys (common/shell/keys.h; the shell's from here on, also on errors): every message is encrypted, and comes from whom the keys
 * say; NULL: nothing is, and only loopback is allowed. PN_INVALID, PN_EXISTS (address in use), PN_REFUSED: err names it. */
enum pn_result pn_shell_open(struct pn_shell **, const char *name, const char *bind, struct pn_keys *, enum pn_log_level, struct pn_error *);
/* Without incoming messages, in somebody else's process: signals, malloc's settings and stderr stay as they are, lines of the log go to `log`
 * (on the thread that runs the shell; NULL: nowhere). Only the thread that runs it may call it, but for uv_async_send on handles of its loop. */
enum pn_result pn_shell_open_embedded(struct pn_shell **, const char *name, struct pn_keys *, void (*log)(void *owner, enum pn_log_level, const char *line), void *owner, struct pn_error *);
/* After pn_shell_run has returned, its core is closed and no work or io is under way. Closes all handles of the loop. */
void pn_shell_close(struct pn_shell *);
struct pn_env *pn_shell_env(struct pn_shell *);
const char *pn_shell_address(const struct pn_shell *);   /* the bound address with its real port, and with keys #PUBLIC-KEY */
struct uv_loop_s *pn_shell_loop(struct pn_shell *);
/* Drives the core until SIGTERM, SIGINT or pn_shell_stop. */
void pn_shell_run(struct pn_shell *, const struct pn_core_ops *, void *core);
void pn_shell_stop(struct pn_shell *);

#endif
