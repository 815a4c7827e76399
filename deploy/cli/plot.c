/* pinion plot: the learning curve of a job as a picture (SVG), as numbers (CSV) or as TensorBoard event files. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "deploy/cli/cli.h"
#include "deploy/cli/events.h"

enum { WIDTH = 760, PANEL = 230, LEFT = 70, RIGHT = 20, TOP = 40, GAP = 60 };

/* column 0 of curve_of: room alone, to be filled. */
struct curve { size_t n; double *x, *y; const char *name, *colour; };

static double at(struct json_object *list, size_t i, size_t k) { return json_object_get_double(pn_json_at(pn_json_at(list, i), k)); }
static struct curve curve_of(struct json_object *list, size_t column, const char *name, const char *colour) {
    struct curve c = {.n = pn_json_length(list), .name = name, .colour = colour};
    c.x = malloc((c.n + 1) * sizeof *c.x);
    c.y = malloc((c.n + 1) * sizeof *c.y);
    if (c.x == NULL || c.y == NULL) cli_fail(EXIT_FAILED, "no memory");
    for (size_t i = 0; i < c.n && column > 0; i++) {
        c.x[i] = at(list, i, 1);
        c.y[i] = at(list, i, column);
    }
    return c;
}

/* A figure of validation, or of a stream, over samples; points without it (not measured, or a window of one class alone) are left out. */
static struct curve figure_curve(struct json_object *points, const char *key, const char *name, const char *colour) {
    struct curve c = curve_of(points, 0, name, colour);
    c.n = 0;
    for (size_t i = 0; i < pn_json_length(points); i++) {
        const double v = pn_json_double(pn_json_at(points, i), key, NAN);
        if (!isfinite(v)) continue;
        c.x[c.n] = pn_json_double(pn_json_at(points, i), "samples", 0);
        c.y[c.n++] = v;
    }
    return c;
}

/* A step of 1, 2 or 5 times a power of ten that cuts a span into four to ten. */
static double tick(double span) {
    const double power = pow(10, floor(log10(span / 5)));
    for (int k = 0; k < 3; k++) {
        static const double steps[] = {1, 2, 5};
        if (span / (power * steps[k]) <= 8) return power * steps[k];
    }
    return power * 10;
}

static void escaped(FILE *f, const char *text) {
    for (; *text; text++) {
        if (*text == '<') fputs("&lt;", f);
        else if (*text == '&') fputs("&amp;", f);
        else fputc(*text, f);
    }
}

/* One panel: axes with numbers, the curves as lines (a single point as a dot), their names. A curve without points is not named. */
static void panel(FILE *f, double top, const struct curve *curves, size_t n, double last_x, const char *empty) {
    double low = INFINITY, high = -INFINITY;
    for (size_t c = 0; c < n; c++)
        for (size_t i = 0; i < curves[c].n; i++) {
            low = fmin(low, curves[c].y[i]);
            high = fmax(high, curves[c].y[i]);
        }
    const double bottom = top + PANEL, width = WIDTH - LEFT - RIGHT;
    fprintf(f, "<path d=\"M%d %.1fV%.1fH%d\" fill=\"none\" stroke=\"#888\"/>\n", LEFT, top, bottom, WIDTH - RIGHT);
    if (!(low <= high)) {
        fprintf(f, "<text x=\"%d\" y=\"%.1f\" fill=\"#888\">%s</text>\n", LEFT + 10, top + PANEL / 2.0, empty);
        return;
    }
    if (high - low < 1e-9) {
        low -= 0.01;
        high += 0.01;
    }
    const double margin = (high - low) * 0.06;
    low -= margin;
    high += margin;
    for (double y = ceil(low / tick(high - low)) * tick(high - low); y <= high; y += tick(high - low))
        fprintf(f, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.4g</text><path d=\"M%d %.1fH%d\" stroke=\"#eee\"/>\n", LEFT - 6, bottom - (y - low) / (high - low) * PANEL + 4, y,
                LEFT, bottom - (y - low) / (high - low) * PANEL, WIDTH - RIGHT);
    for (double x = 0; last_x > 0 && x <= last_x; x += tick(last_x))
        fprintf(f, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.3g</text>\n", LEFT + x / last_x * width, bottom + 16, x);
    for (size_t c = 0, named = 0; c < n; c++) {
        if (curves[c].n == 0) continue;
        if (curves[c].n > 1) fprintf(f, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\" points=\"", curves[c].colour);
        for (size_t i = 0; i < curves[c].n; i++) {
            const double x = LEFT + (last_x > 0 ? curves[c].x[i] / last_x * width : 0), y = bottom - (curves[c].y[i] - low) / (high - low) * PANEL;
            if (curves[c].n > 1) fprintf(f, "%.1f,%.1f ", x, y);
            else fprintf(f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", x, y, curves[c].colour);
        }
        if (curves[c].n > 1) fputs("\"/>\n", f);
        fprintf(f, "<text x=\"%zu\" y=\"%.1f\" fill=\"%s\">%s</text>\n", LEFT + 8 + named++ * 180, top - 6, curves[c].colour, curves[c].name);
    }
}

/* Of lists, with K in their names: curves[] and names[] have room for all figures. Returns how many were measured. */
static size_t list_curves(struct json_object *job, struct json_object *validation, struct curve *curves, char (*names)[32]) {
    size_t n = 0;
    for (const struct cli_figure *g = cli_figures; g < cli_figures + cli_n_figures; g++) {
        if (!g->of_lists) continue;
        cli_figure_name(job, g, names[n]);
        curves[n] = figure_curve(validation, g->key, names[n], g->colour);
        if (curves[n].n > 0) n++;
    }
    return n;
}

static double last_of(const struct curve *curves, size_t n, double last) {
    for (size_t c = 0; c < n; c++)
        if (curves[c].n > 0) last = fmax(last, curves[c].x[curves[c].n - 1]);
    return last;
}

/* Losses; AUC, unless only lists were measured; figures of lists, if there are any. */
static void draw(FILE *f, struct json_object *job, struct json_object *train, struct json_object *validation, struct json_object *stream) {
    const struct curve losses[] = {curve_of(train, 2, "training loss", "#1f6fb4"), figure_curve(validation, "logloss", "validation log loss", "#d4641b"), figure_curve(stream, "logloss", "log loss of the stream", "#8a2b7d")};
    const struct curve aucs[] = {figure_curve(validation, "auc", "validation AUC", "#2b8a3e"), figure_curve(stream, "auc", "AUC of the stream", "#8a2b7d")};
    struct curve *lists = calloc(cli_n_figures, sizeof *lists);
    char (*names)[32] = calloc(cli_n_figures, sizeof *names);
    if (lists == NULL || names == NULL) cli_fail(EXIT_FAILED, "no memory");
    const size_t n_lists = list_curves(job, validation, lists, names);
    const bool rows = n_lists == 0 || aucs[0].n > 0 || aucs[1].n > 0;
    const double last = last_of(losses, 3, last_of(aucs, 2, last_of(lists, n_lists, 0)));
    const int n_panels = 1 + rows + (n_lists > 0), step = PANEL + GAP - 10, height = TOP + n_panels * step + GAP / 2;
    fprintf(f, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n", WIDTH, height);
    fprintf(f, "<text x=\"%d\" y=\"18\" font-size=\"14\">", LEFT);
    escaped(f, pn_json_str(job, "id", ""));
    fputs(" ", f);
    escaped(f, pn_json_str(job, "name", ""));
    fprintf(f, ", %s</text>\n", pn_json_str(job, "state", ""));
    panel(f, TOP + 10, losses, 3, last, "nothing has been trained yet");
    if (rows) panel(f, TOP + 10 + step, aucs, 2, last, "nothing has been measured on validation");
    if (n_lists > 0) panel(f, TOP + 10 + (n_panels - 1) * step, lists, n_lists, last, "");
    fprintf(f, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">samples</text>\n</svg>\n", WIDTH - RIGHT, height - 16);
    free(lists);
    free(names);
}

/* Figures as cells, those of lists or the others; empty where there is none. */
static void cells(FILE *f, struct json_object *figures, bool of_lists) {
    for (const struct cli_figure *g = cli_figures; g < cli_figures + cli_n_figures; g++) {
        const double v = g->of_lists == of_lists ? pn_json_double(figures, g->key, NAN) : NAN;
        if (isfinite(v)) fprintf(f, ",%.6f", v);
        else if (g->of_lists == of_lists) fputc(',', f);
    }
}
static void line(FILE *f, const char *part, struct json_object *at, struct json_object *figures, const char *segment) {
    fprintf(f, "%s,%.3f,%.0f", part, pn_json_double(at, "seconds", 0), pn_json_double(at, "samples", 0));
    cells(f, figures, false);
    fputc(',', f);
    for (const char *c = segment; *c; c++) fputc(*c == ',' || *c == '"' || *c == '\n' ? '_' : *c, f);
    fputc(',', f);
    if (pn_json_u64(at, "epoch", 0) > 0) fprintf(f, "%.0f", pn_json_double(at, "epoch", 0));
    cells(f, figures, true);
    fputc('\n', f);
}

/* What was there first keeps its column: the figures of rows, then the segment, then the rest. */
static void table(FILE *f, struct json_object *train, struct json_object *validation, struct json_object *stream) {
    fputs("part,seconds,samples", f);
    for (size_t k = 0; k < cli_n_figures; k++)
        if (!cli_figures[k].of_lists) fprintf(f, ",%s", cli_figures[k].tag);
    fputs(",segment,epoch", f);
    for (size_t k = 0; k < cli_n_figures; k++)
        if (cli_figures[k].of_lists) fprintf(f, ",%s", cli_figures[k].tag);
    fputc('\n', f);
    for (size_t i = 0; i < pn_json_length(stream); i++) {
        struct json_object *w = pn_json_at(stream, i), *segments = pn_json_get(w, "segments");
        line(f, "stream", w, w, "");
        if (segments == NULL) continue;
        json_object_object_foreach(segments, name, figures) line(f, "stream", w, figures, name);
    }
    for (size_t i = 0; i < pn_json_length(train); i++) {
        struct json_object *o = json_object_new_object();
        pn_json_add_double(o, "seconds", at(train, i, 0));
        pn_json_add_double(o, "samples", at(train, i, 1));
        pn_json_add_double(o, "logloss", at(train, i, 2));
        line(f, "train", o, o, "");
        json_object_put(o);
    }
    for (size_t i = 0; i < pn_json_length(validation); i++) line(f, "validation", pn_json_at(validation, i), pn_json_at(validation, i), "");
}

/* Points of validation, or a stream's windows; of these all rows, or one segment. */
static void figure_events(const char *folder, const char *id, const char *run, struct json_object *points, const char *segment) {
    struct events *e = events_open(folder, id, run);
    for (size_t i = 0; i < pn_json_length(points); i++) {
        struct json_object *w = pn_json_at(points, i), *figures = segment == NULL ? w : pn_json_get(pn_json_get(w, "segments"), segment);
        for (const struct cli_figure *g = cli_figures; g < cli_figures + cli_n_figures; g++)
            events_add(e, g->tag, pn_json_double(w, "seconds", 0), (uint64_t)pn_json_double(w, "samples", 0), pn_json_double(figures, g->key, NAN));
    }
    events_close(e);
}

/* One run a part, so that TensorBoard lays curves of one tag over each other: JOB/train, JOB/validation, JOB/stream, JOB/stream/SEGMENT. Steps are samples. */
static void tensorboard(const char *folder, const char *id, struct json_object *train, struct json_object *validation, struct json_object *stream) {
    struct events *e = events_open(folder, id, "train");
    for (size_t i = 0; i < pn_json_length(train); i++) events_add(e, "loss", at(train, i, 0), (uint64_t)at(train, i, 1), at(train, i, 2));
    events_close(e);
    if (pn_json_length(validation) > 0) figure_events(folder, id, "validation", validation, NULL);
    if (pn_json_length(stream) == 0) return;
    figure_events(folder, id, "stream", stream, NULL);
    struct json_object *seen = json_object_new_object(); /* a segment may begin late */
    for (size_t i = 0; i < pn_json_length(stream); i++) {
        struct json_object *segments = pn_json_get(pn_json_at(stream, i), "segments");
        if (segments == NULL) continue;
        json_object_object_foreach(segments, name, figures) {
            char run[200];
            (void)figures;
            if (pn_json_get(seen, name) != NULL) continue;
            pn_json_add_bool(seen, name, true);
            snprintf(run, sizeof run, "stream/%.150s", name);
            for (char *c = run + strlen("stream/"); *c; c++)
                if (*c == '/' || *c == '.') *c = '_';
            figure_events(folder, id, run, stream, name);
        }
    }
    json_object_put(seen);
}

int verb_plot(const struct cli *c) {
    if (c->n_rest != 1) cli_fail(EXIT_USAGE, "pinion plot needs one job: pinion plot JOB [--out FILE.svg|FILE.csv] [--tensorboard FOLDER]");
    char path[200], name[200];
    snprintf(path, sizeof path, "/api/v1/jobs/%.100s", c->rest[0]);
    snprintf(name, sizeof name, "%.100s.svg", c->rest[0]);
    const char *board = cli_option(c, "tensorboard", NULL), *out = cli_option(c, "out", name), *dot = strrchr(out, '.');
    const bool csv = dot != NULL && strcmp(dot, ".csv") == 0;
    if (dot == NULL || (!csv && strcmp(dot, ".svg") != 0)) cli_fail(EXIT_USAGE, "--out %s: the name must end in .svg or .csv", out);
    struct json_object *job = cli_must(c, "GET", path, NULL), *curve = pn_json_get(job, "curve");
    struct json_object *train = pn_json_get(curve, "train"), *validation = pn_json_get(curve, "validation"), *stream = pn_json_get(job, "stream");
    if (board != NULL) {
        if (board[0] == '\0') cli_fail(EXIT_USAGE, "--tensorboard needs a folder");
        tensorboard(board, pn_json_str(job, "id", ""), train, validation, stream);
        printf("%s/%s: %zu points of training, %zu of validation; tensorboard --logdir %s shows them\n", board, pn_json_str(job, "id", ""), pn_json_length(train), pn_json_length(validation), board);
        if (cli_option(c, "out", NULL) == NULL) return EXIT_DONE;
    }
    FILE *f = fopen(out, "w");
    if (f == NULL) cli_fail(EXIT_FAILED, "%s cannot be written", out);
    if (csv) table(f, train, validation, stream);
    else draw(f, job, train, validation, stream);
    const bool failed = ferror(f) != 0;
    if (fclose(f) != 0 || failed) cli_fail(EXIT_FAILED, "%s could not be written to its end", out);
    printf("%s: %zu points of training, %zu of validation\n", out, pn_json_length(train), pn_json_length(validation));
    return EXIT_DONE;
}
