/* logfmt on stderr through libqb: ts=... level=info comp=ps-0 msg="..." */
#include <qb/qbdefs.h>
#include <qb/qblog.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <syslog.h>
#include <time.h>
#include "common/shell/internal.h"

static char component[64]; /* libqb's log is one a process, and so is its name */
static const int priorities[] = {LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERR};

void pn_logs_open(const char *name, enum pn_log_level level) {
    snprintf(component, sizeof component, "%s", name);
    qb_log_init(component, LOG_DAEMON, LOG_EMERG);
    qb_log_ctl(QB_LOG_SYSLOG, QB_LOG_CONF_ENABLED, QB_FALSE);
    qb_log_filter_ctl(QB_LOG_STDERR, QB_LOG_FILTER_ADD, QB_LOG_FILTER_FILE, "*", (uint8_t)priorities[level]);
    qb_log_format_set(QB_LOG_STDERR, "%b");
    qb_log_ctl(QB_LOG_STDERR, QB_LOG_CONF_ENABLED, QB_TRUE);
}

void pn_logs_write(enum pn_log_level level, const char *line) {
    static const char *const names[] = {"debug", "info", "warn", "error"};
    char text[2200], when[40];
    size_t n = 0;
    struct timeval now;
    struct tm utc;
    gettimeofday(&now, NULL);
    gmtime_r(&now.tv_sec, &utc);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &utc);
    for (const char *c = line; *c != '\0' && n + 3 < sizeof text; c++) {
        if (*c == '"' || *c == '\\') text[n++] = '\\';
        text[n++] = *c;
    }
    text[n] = '\0';
    qb_log_from_external_source(__func__, __FILE__, "ts=%s.%03ldZ level=%s comp=%s msg=\"%s\"", (uint8_t)priorities[level], __LINE__, 0, when, now.tv_usec / 1000,
                                names[level], component, text);
}
