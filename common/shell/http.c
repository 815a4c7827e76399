#include "common/shell/http.h"
#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "common/shell/internal.h"

#define MAX_BODY (64u << 20)

struct pn_http {
    struct pn_shell *shell;
    struct MHD_Daemon *daemon;
    uv_poll_t poll;
    uv_timer_t timer;
    void (*handle)(void *, struct pn_http_request *);
    void *core;
    char address[64];
    bool running;
};

/* One connection's request. It ends when MHD is done with it and the core has answered. */
struct exchange {
    struct pn_http_request r;  /* first */
    struct pn_http *http;
    struct MHD_Connection *connection;
    char method[8], path[512], query[512], header_length[24];
    uint8_t *body;
    size_t n_body, room;
    bool too_large, given, answered, suspended, gone;
    int status;
    char type[64], extra_name[64], extra_value[64];
    void *answer;
    size_t n_answer;
};

static void run(struct pn_http *h);
static void on_timer(uv_timer_t *t);

static int append_process(char *out, size_t room) {
    struct rusage u;
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f != NULL) {
        if (fscanf(f, "%*d %ld", &pages) != 1) pages = 0;
        fclose(f);
    }
    getrusage(RUSAGE_SELF, &u);
    double cpu = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
    return snprintf(out, room,
                    "# HELP process_cpu_seconds_total CPU time used.\n# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total %.3f\n"
                    "# HELP process_resident_memory_bytes Memory in use.\n# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes %ld\n",
                    cpu, pages * sysconf(_SC_PAGESIZE));
}

static void answer(struct pn_http_request *r, int status, const char *type, const char *extra, const void *body, size_t n) {
    struct exchange *x = (struct exchange *)r;
    if (x->answered) return;
    x->answered = true;
    if (x->gone) { /* the client left while we thought */
        free(x->body);
        free(x);
        return;
    }
    char process[600];
    size_t more = strcmp(x->path, "/metrics") == 0 && status == 200 ? (size_t)append_process(process, sizeof process) : 0;
    x->status = status;
    snprintf(x->type, sizeof x->type, "%s", type);
    const char *colon = extra != NULL ? strstr(extra, ": ") : NULL;
    if (colon != NULL && (size_t)(colon - extra) < sizeof x->extra_name) {
        memcpy(x->extra_name, extra, (size_t)(colon - extra));
        snprintf(x->extra_value, sizeof x->extra_value, "%s", colon + 2);
    }
    x->answer = malloc(n + more + 1);
    if (x->answer != NULL) {
        if (n > 0) memcpy(x->answer, body, n);
        if (more > 0) memcpy((char *)x->answer + n, process, more);
        x->n_answer = n + more;
    } else {
        x->status = 503;
    }
    if (x->suspended) {
        x->suspended = false;
        MHD_resume_connection(x->connection);
        uv_timer_start(&x->http->timer, on_timer, 0, 0); /* where we stand inside a run: then once more behind it */
        run(x->http);
    }
}

static enum MHD_Result send_answer(struct exchange *x) {
    struct MHD_Response *m = MHD_create_response_from_buffer(x->n_answer, x->answer, MHD_RESPMEM_MUST_FREE);
    if (m == NULL) return MHD_NO;
    x->answer = NULL;
    MHD_add_response_header(m, "Content-Type", x->type);
    if (x->extra_name[0] != '\0') MHD_add_response_header(m, x->extra_name, x->extra_value);
    if (x->status == 503) MHD_add_response_header(m, "Retry-After", "1");
    enum MHD_Result r = MHD_queue_response(x->connection, (unsigned)x->status, m);
    MHD_destroy_response(m);
    return r;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url, const char *method, const char *version, const char *data, size_t *n_data,
                                  void **context) {
    struct pn_http *h = cls;
    struct exchange *x = *context;
    (void)version;
    if (x == NULL) {
        x = calloc(1, sizeof *x);
        if (x == NULL) return MHD_NO;
        *context = x;
        x->http = h;
        x->connection = connection;
        snprintf(x->method, sizeof x->method, "%s", method);
        snprintf(x->path, sizeof x->path, "%s", url);
        const char *length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Inference-Header-Content-Length");
        if (length != NULL) snprintf(x->header_length, sizeof x->header_length, "%s", length);
        const char *announced = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Length");
        x->too_large = announced != NULL && (strlen(announced) > 10 || strtoull(announced, NULL, 10) > MAX_BODY);
        return MHD_YES;
    }
    if (*n_data > 0) {
        if (x->n_body + *n_data > MAX_BODY) x->too_large = true;
        if (!x->too_large && x->n_body + *n_data > x->room) {
            size_t room = (x->n_body + *n_data) * 2;
            uint8_t *grown = realloc(x->body, room);
            if (grown == NULL) x->too_large = true;
            else {
                x->body = grown;
                x->room = room;
            }
        }
        if (!x->too_large) {
            memcpy(x->body + x->n_body, data, *n_data);
            x->n_body += *n_data;
        }
        *n_data = 0;
        return MHD_YES;
    }
    if (x->answered) return send_answer(x);
    if (x->given) return MHD_YES;
    x->given = true;
    x->r = (struct pn_http_request){.method = x->method, .path = x->path, .query = x->query, .body = x->body, .body_bytes = x->n_body, .answer = answer,
                                    .inference_header_length = x->header_length[0] != '\0' ? x->header_length : NULL};
    static const char large[] = "{\"error\":\"the body is larger than 64 MiB\"}", starting[] = "{\"error\":\"starting\"}";
    if (x->too_large) answer(&x->r, 413, "application/json", NULL, large, sizeof large - 1);
    else if (h->core == NULL) answer(&x->r, 503, "application/json", NULL, starting, sizeof starting - 1);
    else h->handle(h->core, &x->r);
    pn_transport_drain(h->shell->transport);
    if (x->answered) return send_answer(x);
    x->suspended = true;
    MHD_suspend_connection(connection);
    return MHD_YES;
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **context, enum MHD_RequestTerminationCode code) {
    struct exchange *x = *context;
    (void)cls;
    (void)connection;
    (void)code;
    if (x == NULL) return;
    if (x->given && !x->answered) {
        x->gone = true; /* the core still holds it */
        return;
    }
    free(x->answer);
    free(x->body);
    free(x);
}

/* ---- on libuv's loop ---- */
static void on_timer(uv_timer_t *t) { run(t->data); }

static void run(struct pn_http *h) {
    if (h->running) return; /* from inside a handler: the run under way sees the resumed connection, or the timer does */
    h->running = true;
    MHD_run(h->daemon);
    h->running = false;
    MHD_UNSIGNED_LONG_LONG ms;
    if (MHD_get_timeout(h->daemon, &ms) == MHD_YES) uv_timer_start(&h->timer, on_timer, ms > 1000 ? 1000 : ms, 0);
    else uv_timer_stop(&h->timer);
}

static void on_event(uv_poll_t *p, int status, int events) {
    (void)status;
    (void)events;
    run(p->data);
}

enum pn_result pn_http_open(struct pn_http **out, struct pn_shell *s, const char *address, void (*handle)(void *, struct pn_http_request *), struct pn_error *err) {
    struct sockaddr_in in = {.sin_family = AF_INET};
    char host[64] = "";
    unsigned port = 0;
    if (sscanf(address, "%63[^:]:%u", host, &port) != 2 || port > 65535 || inet_pton(AF_INET, host, &in.sin_addr) != 1)
        return pn_fail(err, PN_INVALID, "--http %s: an address like 127.0.0.1:7700 is needed", address);
    if (strncmp(host, "127.", 4) != 0) return pn_fail(err, PN_REFUSED, "--http %s: only loopback is allowed, nothing is encrypted yet", address);
    in.sin_port = htons((uint16_t)port);
    struct pn_http *h = calloc(1, sizeof *h);
    if (h == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory");
    h->shell = s;
    h->handle = handle;
    errno = 0;
    h->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, (uint16_t)port, NULL, NULL, on_request, h, MHD_OPTION_SOCK_ADDR, &in,
                                 MHD_OPTION_CONNECTION_LIMIT, 256u, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)(512u << 10), MHD_OPTION_CONNECTION_TIMEOUT, 30u,
                                 MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL, MHD_OPTION_END);
    if (h->daemon == NULL) {
        free(h);
        return pn_fail(err, PN_EXISTS, "cannot listen at http://%s: %s; another process has that port, choose another with --http or stop it", address,
                       errno != 0 ? strerror(errno) : "address in use");
    }
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_BIND_PORT);
    snprintf(h->address, sizeof h->address, "http://%s:%u", host, info != NULL ? info->port : port);
    uv_timer_init(&s->loop, &h->timer);
    info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    uv_poll_init(&s->loop, &h->poll, info->epoll_fd);
    h->poll.data = h->timer.data = h;
    uv_poll_start(&h->poll, UV_READABLE, on_event);
    *out = h;
    return PN_OK;
}

void pn_http_core(struct pn_http *h, void *core) { h->core = core; }
const char *pn_http_address(const struct pn_http *h) { return h->address; }

void pn_http_close(struct pn_http *h) {
    uv_poll_stop(&h->poll);
    uv_timer_stop(&h->timer);
    MHD_stop_daemon(h->daemon);
}
