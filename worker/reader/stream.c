/* Decompression (zlib, libzstd: any number of members or frames, one behind the other) and the cut into records. */
#include "worker/reader/stream.h"
#include <stdlib.h>
#include <string.h>
#define ZLIB_CONST
#include <zlib.h>
#include <zstd.h>

#define ROOM_BYTES (256u << 10) /* at least so much is decompressed at once */

struct pn_stream {
    const char *path;
    enum { PLAIN, GZIP, ZSTD } kind;
    z_stream gzip;
    ZSTD_DStream *zstd;
    bool complete;             /* no member or frame is open */
    bool more;                 /* the decompressor may hold output that had no room */
    const uint8_t *input;
    size_t n_input, i_input;
    uint64_t fed;              /* bytes of the file before `input` */
    bool last, ended;          /* no input comes behind `input`; and it is used up */
    char *text;
    size_t begin, end, max;    /* text[begin, end) has not been given yet */
    uint64_t line;             /* number of the line at begin */
};

static bool ends_in(const char *path, const char *ending) {
    size_t n = strlen(path), m = strlen(ending);
    return n >= m && memcmp(path + n - m, ending, m) == 0;
}

struct pn_stream *pn_stream_open(const char *path) {
    struct pn_stream *s = calloc(1, sizeof(*s));
    if (!s) return NULL;
    s->path = path;
    s->line = 1;
    s->kind = ends_in(path, ".zst") ? ZSTD : ends_in(path, ".gz") ? GZIP : PLAIN;
    if (s->kind == GZIP && inflateInit2(&s->gzip, 15 + 16) != Z_OK) goto fail;
    if (s->kind == ZSTD && !(s->zstd = ZSTD_createDStream())) goto fail;
    return s;
fail:
    free(s);
    return NULL;
}

void pn_stream_close(struct pn_stream *s) {
    if (!s) return;
    if (s->kind == GZIP) inflateEnd(&s->gzip);
    ZSTD_freeDStream(s->zstd);
    free(s->text);
    free(s);
}

void pn_stream_feed(struct pn_stream *s, const void *data, size_t n_bytes, bool last) {
    s->fed += s->n_input;
    s->input = data;
    s->n_input = n_bytes;
    s->i_input = 0;
    s->last = last;
}

/* ---- decompression ---- */

/* One step from input to text[end, max). Sets more, complete; false: the data is bad. */
static bool step(struct pn_stream *s, const char **why) {
    size_t room = s->max - s->end, left = s->n_input - s->i_input;
    if (s->kind == PLAIN) {
        size_t n = left < room ? left : room;
        memcpy(s->text + s->end, s->input + s->i_input, n);
        s->i_input += n;
        s->end += n;
        return true;
    }
    if (s->kind == ZSTD) {
        ZSTD_inBuffer in = {s->input, s->n_input, s->i_input};
        ZSTD_outBuffer out = {s->text + s->end, room, 0};
        size_t rest = ZSTD_decompressStream(s->zstd, &out, &in);
        s->i_input = in.pos;
        s->end += out.pos;
        if (ZSTD_isError(rest)) {
            *why = ZSTD_getErrorName(rest);
            return false;
        }
        s->complete = rest == 0;
        s->more = out.pos == room && rest != 0;
        return true;
    }
    if (s->complete && left > 0) {
        inflateReset(&s->gzip);
        s->complete = false;
    }
    s->gzip.next_in = s->input + s->i_input;
    s->gzip.avail_in = (uInt)left;
    s->gzip.next_out = (Bytef *)(s->text + s->end);
    s->gzip.avail_out = (uInt)room;
    int result = inflate(&s->gzip, Z_NO_FLUSH);
    s->i_input = s->n_input - s->gzip.avail_in;
    s->end = s->max - s->gzip.avail_out;
    s->complete = result == Z_STREAM_END;
    s->more = s->gzip.avail_out == 0 && !s->complete;
    if (result == Z_OK || result == Z_STREAM_END || result == Z_BUF_ERROR) return true;
    *why = s->gzip.msg ? s->gzip.msg : "inflate failed";
    return false;
}

/* Makes more text. PN_STREAM_RECORD: there is more. */
static enum pn_stream_state fill(struct pn_stream *s, enum pn_result *result, struct pn_error *err) {
    if (s->begin > 0) memmove(s->text, s->text + s->begin, s->end - s->begin);
    s->end -= s->begin;
    s->begin = 0;
    if (s->max - s->end < ROOM_BYTES) {
        size_t max = s->end + 2 * ROOM_BYTES;
        char *text = realloc(s->text, max);
        if (!text) {
            *result = pn_fail(err, PN_NO_MEMORY, "%s: no memory", s->path);
            return PN_STREAM_BAD;
        }
        s->text = text;
        s->max = max;
    }
    const size_t before = s->end;
    while (s->end == before) {
        const char *why = NULL;
        if (s->i_input < s->n_input || s->more) {
            if (step(s, &why)) continue;
            *result = pn_fail(err, PN_CORRUPT, "%s: damaged compressed data near byte %llu: %s", s->path,
                              (unsigned long long)(s->fed + s->i_input), why);
            return PN_STREAM_BAD;
        }
        if (!s->last) return PN_STREAM_HUNGRY;
        if (s->kind != PLAIN && !s->complete) {
            *result = pn_fail(err, PN_CORRUPT, "%s: truncated: the file ends at byte %llu inside compressed data", s->path,
                              (unsigned long long)(s->fed + s->n_input));
            return PN_STREAM_BAD;
        }
        s->ended = true;
        return PN_STREAM_END;
    }
    return PN_STREAM_RECORD;
}

/* ---- records ---- */

/* Where the record at text[0, n) ends (its '\n'), or n: it does not end here. `open`: inside quotes at n. */
static size_t record_end(const char *text, size_t n, bool quotes, char separator, bool *open) {
    *open = false;
    const char *newline = memchr(text, '\n', n);
    size_t end = newline ? (size_t)(newline - text) : n;
    if (!quotes || !memchr(text, '"', end)) return end;
    for (size_t i = 0; i < n;) {
        if (text[i] == '"') {
            for (i++; i < n; i++) {
                if (text[i] != '"') continue;
                if (i + 1 < n && text[i + 1] == '"') i++;
                else break;
            }
            if (i >= n) {
                *open = true;
                return n;
            }
            i++;
        }
        while (i < n && text[i] != separator && text[i] != '\n') i++;
        if (i < n && text[i] == '\n') return i;
        i++;
    }
    return n;
}

enum pn_stream_state pn_stream_record(struct pn_stream *s, bool quotes, char separator, struct pn_record *record,
                                      enum pn_result *result, struct pn_error *err) {
    for (;;) {
        char *text = s->text + s->begin;
        size_t n = s->end - s->begin;
        bool open = false;
        size_t end = n ? record_end(text, n, quotes, separator, &open) : 0;
        if (end > PN_RECORD_MAX_BYTES) {
            *result = pn_fail(err, PN_INVALID, "%s:%llu: a line of more than %u bytes%s", s->path, (unsigned long long)s->line,
                              PN_RECORD_MAX_BYTES, open ? ": a quote is not closed" : "");
            return PN_STREAM_BAD;
        }
        if (end == n && !s->ended) {
            enum pn_stream_state state = fill(s, result, err);
            if (state == PN_STREAM_HUNGRY || state == PN_STREAM_BAD) return state;
            continue;
        }
        if (n == 0) return PN_STREAM_END;
        if (open) {
            *result = pn_fail(err, PN_INVALID, "%s:%llu: a quote is not closed before the end of the file", s->path,
                              (unsigned long long)s->line);
            return PN_STREAM_BAD;
        }
        *record = (struct pn_record){text, end, s->line};
        s->begin += end < n ? end + 1 : end;
        for (const char *p = text; (p = memchr(p, '\n', (size_t)(text + end - p))); p++) s->line++;
        s->line++;
        if (record->n_bytes && text[end - 1] == '\r') record->n_bytes--;
        if (record->n_bytes) return PN_STREAM_RECORD;
    }
}
