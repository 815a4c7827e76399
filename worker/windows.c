/* A window is a number of steps, the same for every producer: batches are dealt round-robin, so that the producers' windows of one number lie in the same stretch of the
 * stream. Each producer keeps sums and histograms of its own; the coordinator adds them up. Scores come in the order of steps, when a step is pushed. */
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include "common/progress.h"
#include "worker/internal.h"

enum { SEGMENTS = 32, KEPT = 8 };            /* further values go together as "(other)"; windows that beats carry */

struct pn_windows {
    const struct pn_job *job;
    uint64_t steps, at;                      /* steps a window; 1 + the window under way, 0: none yet */
    struct pn_progress all, *segments[SEGMENTS + 1];
    char names[SEGMENTS][64];
    size_t n_names;
    struct json_object *kept[KEPT];          /* oldest first */
    size_t n_kept;
};

struct pn_windows *pn_windows_open(const struct pn_job *job, uint32_t n_producers) {
    struct pn_windows *w = calloc(1, sizeof *w);
    if (w == NULL) return NULL;
    const uint64_t rows = (uint64_t)job->batch_size * n_producers;
    w->job = job;
    w->steps = (job->stream.window + rows - 1) / rows;
    return w;
}

void pn_windows_close(struct pn_windows *w) {
    if (w == NULL) return;
    for (size_t i = 0; i < w->n_kept; i++) json_object_put(w->kept[i]);
    for (size_t i = 0; i <= SEGMENTS; i++) free(w->segments[i]);
    free(w);
}

/* A name travels in a beat, which must be UTF-8 throughout: other bytes, and a character that was cut at the end, become '?'. */
static void make_plain(char *name) {
    for (unsigned char *p = (unsigned char *)name; *p != '\0';) {
        size_t more = *p < 0x80 ? 0 : *p >= 0xc2 && *p < 0xe0 ? 1 : (*p & 0xf0) == 0xe0 ? 2 : *p >= 0xf0 && *p < 0xf5 ? 3 : 4, k = 1;
        while (more < 4 && k <= more && (p[k] & 0xc0) == 0x80) k++;
        if (more == 4 || k <= more) {
            *p = '?';
            k = 1;
        }
        p += k;
    }
}

static uint8_t segment_of(struct pn_windows *w, const char *text, size_t n) {
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name - 1), text);
    make_plain(name);
    for (size_t i = 0; i < w->n_names; i++)
        if (strcmp(w->names[i], name) == 0) return (uint8_t)i;
    if (w->n_names == SEGMENTS) return SEGMENTS;
    memcpy(w->names[w->n_names], name, sizeof name);
    return (uint8_t)w->n_names++;
}

uint8_t *pn_windows_segments(struct pn_windows *w, const struct pn_raw *raw, struct pn_error *err) {
    uint8_t *out = calloc(raw->n_rows + 1, 1);
    const char *wanted = w->job->stream.segment;
    if (out == NULL) {
        pn_fail(err, PN_NO_MEMORY, "no memory for a batch");
        return NULL;
    }
    if (wanted[0] == '\0') return out;
    size_t c = 0;
    while (c < raw->n_columns && strcmp(raw->names[c], wanted) != 0) c++;
    if (c == raw->n_columns) {
        pn_fail(err, PN_INVALID, "stream.segment: the training data has no column \"%s\"", wanted);
        free(out);
        return NULL;
    }
    for (size_t r = 0; r < raw->n_rows; r++) out[r] = segment_of(w, raw->text + raw->offset[c * raw->n_rows + r], raw->length[c * raw->n_rows + r]);
    return out;
}

/* The window under way goes to the kept ones. */
static void finish(struct pn_windows *w, bool last) {
    struct json_object *o = json_object_new_object(), *segments = json_object_new_object();
    pn_json_add_u64(o, "window", w->at - 1);
    pn_json_add_bool(o, "last", last);
    pn_json_add(o, "all", pn_progress_json(&w->all));
    memset(&w->all, 0, sizeof w->all);
    for (size_t i = 0; i <= SEGMENTS; i++) {
        if (w->segments[i] == NULL || w->segments[i]->rows == 0) continue;
        pn_json_add(segments, i == SEGMENTS ? "(other)" : w->names[i][0] == '\0' ? "(missing)" : w->names[i], pn_progress_json(w->segments[i]));
        memset(w->segments[i], 0, sizeof *w->segments[i]);
    }
    pn_json_add(o, "segments", segments);
    if (w->n_kept == KEPT) {
        json_object_put(w->kept[0]);
        memmove(w->kept, w->kept + 1, --w->n_kept * sizeof *w->kept);
    }
    w->kept[w->n_kept++] = o;
}

bool pn_windows_add(struct pn_windows *w, uint64_t step, bool last, const float *scores, const float *labels, const uint8_t *segments, size_t n) {
    w->at = 1 + (step - 1) / w->steps;
    for (size_t i = 0; i < n; i++) {
        pn_progress_add(&w->all, scores[i], labels[i]);
        if (w->job->stream.segment[0] == '\0') continue;
        struct pn_progress **s = &w->segments[segments[i]];
        if (*s == NULL) *s = calloc(1, sizeof **s);
        if (*s != NULL) pn_progress_add(*s, scores[i], labels[i]);
    }
    const bool full = step % w->steps == 0 || last;
    if (full) finish(w, last);
    return full;
}

struct json_object *pn_windows_json(const struct pn_windows *w) {
    struct json_object *list = json_object_new_array();
    for (size_t i = 0; i < w->n_kept; i++) json_object_array_add(list, json_object_get(w->kept[i]));
    return list;
}
