#include "common/result.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const names[] = {
    [PN_OK] = "ok", [PN_FAILED] = "failed", [PN_INVALID] = "invalid", [PN_NOT_FOUND] = "not_found",
    [PN_EXISTS] = "exists", [PN_DEADLINE] = "deadline", [PN_FENCED] = "fenced", [PN_STALE_TERM] = "stale_term",
    [PN_NOT_SEEDED] = "not_seeded", [PN_BUSY] = "busy", [PN_FULL] = "full", [PN_NO_MEMORY] = "no_memory",
    [PN_IO] = "io", [PN_CORRUPT] = "corrupt", [PN_REFUSED] = "refused", [PN_UNREACHABLE] = "unreachable",
};

enum pn_result pn_fail(struct pn_error *err, enum pn_result result, const char *format, ...) {
    if (err == NULL) return result;
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    for (char *c = err->text; *c != '\0'; c++)
        if ((unsigned char)*c < ' ') *c = ' '; /* one line, whatever was quoted in it */
    return result;
}

const char *pn_result_name(enum pn_result result) {
    return (unsigned)result < sizeof names / sizeof *names ? names[result] : "unknown";
}

enum pn_result pn_result_from_name(const char *name) {
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], name) == 0) return (enum pn_result)i;
    return PN_FAILED;
}
