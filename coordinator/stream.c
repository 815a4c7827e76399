/* Progressive validation of a stream: the producers' windows of one number are added up, and their figures are kept with the job's record (the newest MOST).
 *
 * A producer says its windows in order and repeats the last ones, so a lost beat costs nothing. A window is complete when each producer has said it, a later one, or its last.
 * One that was restarted says the rest of the window in which its checkpoint fell: that window counts fewer rows.
 *
 * The guard (He et al. 2014): a stream of clicks that breaks looks like nobody clicking. A window whose label rate or calibration differs from the mean of those before by
 * more than a factor ends the job before it learns further; its checkpoints stay. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/progress.h"
#include "coordinator/internal.h"

enum { MOST = 400, MOST_PENDING = 64, MOST_SEGMENTS = 33, BASELINE = 20 };

struct pn_stream_window {
    struct pn_stream_window *next;
    uint64_t index;
    bool said[PN_MAX_PRODUCERS];
    struct pn_progress all;
    struct { char name[64]; struct pn_progress *sums; } segments[MOST_SEGMENTS];
    size_t n_segments;
};

static void free_window(struct pn_stream_window *w) {
    for (size_t i = 0; i < w->n_segments; i++) free(w->segments[i].sums);
    free(w);
}

static struct pn_stream_window *window_of(struct pn_stream *s, uint64_t index) {
    struct pn_stream_window **at = &s->pending;
    while (*at != NULL && (*at)->index < index) at = &(*at)->next;
    if (*at != NULL && (*at)->index == index) return *at;
    struct pn_stream_window *w = calloc(1, sizeof *w);
    if (w == NULL) return NULL;
    w->index = index;
    w->next = *at;
    *at = w;
    return w;
}

static void add_segment(struct pn_stream_window *w, const char *name, struct json_object *sums) {
    size_t i = 0;
    while (i < w->n_segments && strcmp(w->segments[i].name, name) != 0) i++;
    if (i == w->n_segments && i >= MOST_SEGMENTS - 1 && strcmp(name, "(other)") != 0) { /* producers that met other values: there is always a place for "(other)" */
        add_segment(w, "(other)", sums);
        return;
    }
    if (i == w->n_segments) {
        if ((w->segments[i].sums = calloc(1, sizeof *w->segments[i].sums)) == NULL) return;
        snprintf(w->segments[i].name, sizeof w->segments[i].name, "%s", name);
        w->n_segments++;
    }
    pn_progress_read(w->segments[i].sums, sums);
}

void pn_stream_take(struct pn_coordinator *c, struct pn_job_run *j, uint32_t producer, struct json_object *windows) {
    struct pn_stream *s = &j->stream;
    for (size_t i = 0; i < pn_json_length(windows); i++) {
        struct json_object *o = pn_json_at(windows, i), *segments = pn_json_get(o, "segments");
        const uint64_t index = pn_json_u64(o, "window", UINT64_MAX);
        if (index == UINT64_MAX) continue;
        if (pn_json_bool(o, "last", false)) s->ended[producer] = true;
        if (index + 1 > s->seen[producer]) s->seen[producer] = index + 1;
        struct pn_stream_window *w = index < s->next ? NULL : window_of(s, index);
        if (w == NULL || w->said[producer]) continue;
        w->said[producer] = true;
        if (!pn_progress_read(&w->all, pn_json_get(o, "all"))) pn_log(c->env, PN_WARN, "job %s: producer %u said something else than window %" PRIu64, j->id, producer, index);
        if (segments == NULL || !json_object_is_type(segments, json_type_object)) continue;
        json_object_object_foreach(segments, name, sums) add_segment(w, name, sums);
    }
}

static bool complete(const struct pn_job_run *j, uint64_t index) {
    for (uint32_t p = 0; p < j->n_producers; p++)
        if (j->stream.seen[p] <= index && !j->stream.ended[p] && !j->units[p].finished) return false;
    return true;
}

static void write_figures(struct json_object *o, const struct pn_progress *p) {
    const struct pn_progress_figures f = pn_progress_figures(p);
    const struct { const char *name; double value; } all[] = {{"auc", f.auc}, {"logloss", f.logloss}, {"ne", f.ne}, {"calibration", f.calibration}, {"label_rate", f.label_rate}};
    pn_json_add_u64(o, "rows", f.rows);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (isfinite(all[i].value)) pn_json_add_double(o, all[i].name, all[i].value);
}

/* Mean of a figure over the last windows before the newest; how many had it. */
static size_t baseline(struct json_object *history, const char *key, double *mean) {
    const size_t n = pn_json_length(history) - 1;
    size_t count = 0;
    *mean = 0;
    for (size_t i = n > BASELINE ? n - BASELINE : 0; i < n; i++) {
        const double v = pn_json_double(pn_json_at(history, i), key, NAN);
        if (!isfinite(v)) continue;
        *mean += v;
        count++;
    }
    *mean /= count > 0 ? (double)count : 1;
    return count;
}

static void guard(struct pn_coordinator *c, struct pn_job_run *j, struct json_object *newest) {
    const struct pn_stream_spec *spec = &j->job.stream;
    const struct { const char *key, *name; double factor; } watched[] = {{"label_rate", "label rate", spec->guard_rate}, {"calibration", "calibration", spec->guard_calibration}};
    if (pn_json_u64(newest, "rows", 0) < spec->window / 2) return; /* the end, or a restarted producer's rest: too few to judge by */
    for (size_t i = 0; i < 2; i++) {
        double before = 0;
        const double v = pn_json_double(newest, watched[i].key, INFINITY); /* calibration without a positive: above every measure */
        const size_t n = baseline(j->stream.history, watched[i].key, &before);
        if (watched[i].factor <= 0 || n < spec->guard_after || (v <= before * watched[i].factor && v >= before / watched[i].factor)) continue;
        char reason[300];
        snprintf(reason, sizeof reason, "stream.guard: the %s of window %" PRIu64 " is %.4g, after %.4g in the %zu windows before; training was stopped, the checkpoints are kept", watched[i].name,
                 pn_json_u64(newest, "window", 0), v, before, n);
        pn_job_end(c, j, PN_JOB_FAILED, reason);
        return;
    }
}

void pn_stream_step(struct pn_coordinator *c, struct pn_job_run *j) {
    struct pn_stream *s = &j->stream;
    for (;;) {
        struct pn_stream_window *w = s->pending;
        size_t n = 0;
        for (struct pn_stream_window *x = w; x != NULL; x = x->next) n++;
        if (w == NULL || (!complete(j, w->index) && n <= MOST_PENDING) || j->state != PN_RUNNING) return;
        s->pending = w->next;
        s->next = w->index + 1;
        s->samples += w->all.rows;
        if (w->all.rows > 0) {
            struct json_object *o = json_object_new_object(), *segments = json_object_new_object();
            pn_json_add_u64(o, "window", w->index);
            pn_json_add_double(o, "seconds", (double)j->curve.train_ms / 1000);
            pn_json_add_u64(o, "samples", s->samples);
            write_figures(o, &w->all);
            for (size_t i = 0; i < w->n_segments; i++) {
                struct json_object *e = json_object_new_object();
                write_figures(e, w->segments[i].sums);
                pn_json_add(segments, w->segments[i].name, e);
            }
            if (w->n_segments > 0) pn_json_add(o, "segments", segments);
            else json_object_put(segments);
            if (s->history == NULL) s->history = json_object_new_array();
            if (pn_json_length(s->history) >= MOST) json_object_array_del_idx(s->history, 0, 1);
            json_object_array_add(s->history, o);
            j->dirty = true;
            guard(c, j, o);
        }
        free_window(w);
    }
}

void pn_stream_load(struct pn_job_run *j, struct json_object *history) {
    const size_t n = pn_json_length(history);
    if (n == 0) return;
    j->stream.history = json_object_get(history);
    j->stream.next = pn_json_u64(pn_json_at(history, n - 1), "window", 0) + 1;
    j->stream.samples = pn_json_u64(pn_json_at(history, n - 1), "samples", 0);
}

size_t pn_stream_metrics(const struct pn_job_run *j, char *out, size_t room) {
    static const char *const keys[] = {"auc", "logloss", "ne", "calibration", "label_rate"};
    const size_t windows = pn_json_length(j->stream.history);
    struct json_object *newest = windows > 0 ? pn_json_at(j->stream.history, windows - 1) : NULL, *segments = pn_json_get(newest, "segments");
    size_t n = 0;
    if (newest == NULL) return 0;
    for (size_t k = 0; k < 5; k++) {
        const double v = pn_json_double(newest, keys[k], NAN);
        n += (size_t)snprintf(out + (n < room ? n : room), n < room ? room - n : 0, "# HELP pinion_stream_%s Of the stream's newest window.\n# TYPE pinion_stream_%s gauge\n", keys[k], keys[k]);
        if (isfinite(v)) n += (size_t)snprintf(out + (n < room ? n : room), n < room ? room - n : 0, "pinion_stream_%s{job=\"%s\",segment=\"\"} %.9g\n", keys[k], j->id, v);
        if (segments == NULL) continue;
        json_object_object_foreach(segments, name, figures) {
            char label[64];
            size_t m = 0;
            const double x = pn_json_double(figures, keys[k], NAN);
            for (const char *at = name; *at != '\0' && m < sizeof label - 1; at++) label[m++] = *at == '"' || *at == '\\' || *at == '\n' ? '_' : *at;
            label[m] = '\0';
            if (isfinite(x)) n += (size_t)snprintf(out + (n < room ? n : room), n < room ? room - n : 0, "pinion_stream_%s{job=\"%s\",segment=\"%s\"} %.9g\n", keys[k], j->id, label, x);
        }
    }
    return n < room ? n : 0;
}

void pn_stream_again(struct pn_job_run *j) {
    while (j->stream.pending != NULL) {
        struct pn_stream_window *w = j->stream.pending;
        j->stream.pending = w->next;
        free_window(w);
    }
    memset(j->stream.seen, 0, sizeof j->stream.seen);
    memset(j->stream.ended, 0, sizeof j->stream.ended);
}

void pn_stream_free(struct pn_job_run *j) {
    pn_stream_again(j);
    if (j->stream.history != NULL) json_object_put(j->stream.history);
}
