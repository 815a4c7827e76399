/* What every fallible function returns, and the one line of text that goes with a failure. */
#ifndef PN_COMMON_RESULT_H
#define PN_COMMON_RESULT_H

enum pn_result {
    PN_OK = 0,
    PN_FAILED,      /* none of the below */
    PN_INVALID,     /* the caller's or the file's fault: bad value, bad format */
    PN_NOT_FOUND,
    PN_EXISTS,
    PN_DEADLINE,    /* not answered in time */
    PN_FENCED,      /* a newer incarnation of this producer exists */
    PN_STALE_TERM,  /* the shard map has moved on */
    PN_NOT_SEEDED,  /* a push reached an explicit table before its first values */
    PN_BUSY,        /* try again later */
    PN_FULL,        /* disk, memory limit or queue is full */
    PN_NO_MEMORY,
    PN_IO,          /* a file operation failed */
    PN_CORRUPT,     /* checksum or structure wrong */
    PN_REFUSED,     /* not allowed */
    PN_UNREACHABLE, /* the peer cannot be reached */
};

/* One line for a person: what, where, how to mend it. Empty when nothing failed. */
struct pn_error {
    char text[480];
};

/* Writes the line (err may be NULL) and returns `result`: `return pn_fail(err, PN_IO, "...", ...)`. */
enum pn_result pn_fail(struct pn_error *err, enum pn_result result, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Short lower-case name ("stale_term"), for wire, logs and metrics; pn_result_from_name is its inverse
 * (PN_FAILED when unknown). */
const char *pn_result_name(enum pn_result result);
enum pn_result pn_result_from_name(const char *name);

#endif
