#include "common/env.h"
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

struct pn_msg *pn_msg_ref(struct pn_msg *m) {
    m->refs++;
    return m;
}

void pn_msg_unref(struct pn_msg *m) {
    if (m == NULL) return;
    assert(m->refs > 0);
    if (--m->refs == 0) m->free(m);
}

void pn_log(struct pn_env *e, enum pn_log_level level, const char *format, ...) {
    char line[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    for (char *c = line; *c != '\0'; c++)
        if ((unsigned char)*c < ' ') *c = ' '; /* nothing from outside may forge a second line */
    e->ops->log(e, level, line);
}
