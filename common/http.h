/* An HTTP request as a core sees it: the shell (common/shell/http.h) turns bytes into this and back. */
#ifndef PN_COMMON_HTTP_H
#define PN_COMMON_HTTP_H

#include <stddef.h>
#include <stdint.h>

struct pn_http_request {
    const char *method;      /* "GET", "POST" */
    const char *path;        /* decoded, without query */
    const char *query;       /* raw text after '?', "" if none */
    const char *inference_header_length; /* the header of that name, NULL if absent */
    const uint8_t *body;
    size_t body_bytes;
    /* Answers once, now or later, on the core's thread. `body` is copied. extra_header may be NULL ("Name: value"). */
    void (*answer)(struct pn_http_request *, int status, const char *content_type, const char *extra_header,
                   const void *body, size_t body_bytes);
    void *impl;
};

#endif
