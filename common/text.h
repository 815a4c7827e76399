/* Text that grows: answers, metrics, SQL, cells of rows. After a failed allocation nothing more is added and `failed` stays set. */
#ifndef PN_COMMON_TEXT_H
#define PN_COMMON_TEXT_H

#include <stdbool.h>
#include <stddef.h>

struct pn_text { char *text; size_t n, room; bool failed; };
void pn_text_add(struct pn_text *, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool pn_text_bytes(struct pn_text *, const void *data, size_t n); /* !failed */
void pn_text_quoted(struct pn_text *, const char *text); /* as a JSON string; right for a Prometheus label too */

#endif
