/* A learning curve as TensorBoard event files: TFRecords (a length and its checksum, a message and its checksum) of Event messages (tensorflow/core/util/event.proto), of which only
 * these fields are written, in Protocol Buffers' encoding:
 *   Event: 1 wall_time double, 2 step int64, 3 file_version string (the first), 5 summary;  Summary: 1 value;  Summary.Value: 1 tag string, 2 simple_value float */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "common/hash.h"
#include "deploy/cli/cli.h"
#include "deploy/cli/events.h"

enum { MOST_MESSAGE = 400 };
struct message { uint8_t bytes[MOST_MESSAGE]; size_t n; };

static void varint(struct message *m, uint64_t v) {
    for (; v >= 128; v >>= 7) m->bytes[m->n++] = (uint8_t)(v | 128);
    m->bytes[m->n++] = (uint8_t)v;
}
/* wire: 0 varint, 1 eight bytes, 2 a length and bytes, 5 four bytes */
static void key(struct message *m, unsigned field, unsigned wire) { varint(m, field << 3 | wire); }
static void raw(struct message *m, const void *data, size_t n) { /* little-endian, as our machines are */
    memcpy(m->bytes + m->n, data, n);
    m->n += n;
}
static void bytes(struct message *m, unsigned field, const void *data, size_t n) {
    key(m, field, 2);
    varint(m, n);
    raw(m, data, n);
}

struct events { FILE *f; char path[600], tmp[610]; };

static uint32_t masked(const void *data, size_t n) {
    const uint32_t crc = pn_crc32c(0, data, n);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static void record(struct events *e, const struct message *m) {
    const uint64_t length = m->n;
    const uint32_t of_length = masked(&length, sizeof length), of_bytes = masked(m->bytes, m->n);
    fwrite(&length, sizeof length, 1, e->f);
    fwrite(&of_length, sizeof of_length, 1, e->f);
    fwrite(m->bytes, 1, m->n, e->f);
    fwrite(&of_bytes, sizeof of_bytes, 1, e->f);
}

static void make_folders(char *path) {
    for (char *c = path + 1; (c = strchr(c, '/')) != NULL; c++) {
        *c = '\0';
        if (mkdir(path, 0755) != 0 && errno != EEXIST) cli_fail(EXIT_FAILED, "%s cannot be made: %s", path, strerror(errno));
        *c = '/';
    }
}

struct events *events_open(const char *folder, const char *job, const char *run) {
    struct events *e = calloc(1, sizeof *e);
    if (e == NULL) cli_fail(EXIT_FAILED, "no memory");
    int n = snprintf(e->path, sizeof e->path, "%s/%s/", folder, job);
    if (n < 0 || (size_t)n + strlen(run) + 60 > sizeof e->path) cli_fail(EXIT_USAGE, "--tensorboard: the path is too long");
    for (const char *c = run; *c; c++) e->path[n++] = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || strchr("-_./", *c) != NULL ? *c : '_';
    snprintf(e->path + n, sizeof e->path - (size_t)n, "/events.out.tfevents.0000000000.pinion"); /* one name: written anew, nothing stands twice */
    snprintf(e->tmp, sizeof e->tmp, "%s", e->path);
    make_folders(e->tmp);
    snprintf(strrchr(e->tmp, '/'), 20, "/.writing");
    if ((e->f = fopen(e->tmp, "wb")) == NULL) cli_fail(EXIT_FAILED, "%s cannot be written: %s", e->tmp, strerror(errno));
    struct message m = {.n = 0};
    const double start = 0;
    key(&m, 1, 1);
    raw(&m, &start, sizeof start);
    bytes(&m, 3, "brain.Event:2", 13);
    record(e, &m);
    return e;
}

void events_add(struct events *e, const char *tag, double seconds, uint64_t step, double value) {
    if (!isfinite(value)) return;
    struct message v = {.n = 0}, s = {.n = 0}, m = {.n = 0};
    const float simple = (float)value;
    bytes(&v, 1, tag, strlen(tag));
    key(&v, 2, 5);
    raw(&v, &simple, sizeof simple);
    bytes(&s, 1, v.bytes, v.n);
    key(&m, 1, 1);
    raw(&m, &seconds, sizeof seconds);
    key(&m, 2, 0);
    varint(&m, step);
    bytes(&m, 5, s.bytes, s.n);
    record(e, &m);
}

void events_close(struct events *e) {
    const bool failed = ferror(e->f) != 0;
    if (fclose(e->f) != 0 || failed || rename(e->tmp, e->path) != 0) cli_fail(EXIT_FAILED, "%s could not be written to its end", e->path);
    free(e);
}
