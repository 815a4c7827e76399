/* What the command prints, draws and writes of a measurement. A figure that was not measured is not in the coordinator's answers, nor in what is made of them. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "deploy/cli/cli.h"

/* In the order of the CSV's columns; one figure more is one line more. */
const struct cli_figure cli_figures[] = {
    {.key = "logloss", .tag = "loss", .name = "log loss", .printed = true},
    {.key = "auc", .tag = "auc", .name = "AUC", .printed = true},
    {.key = "ne", .tag = "ne", .name = "NE"},
    {.key = "calibration", .tag = "calibration"},
    {.key = "label_rate", .tag = "label_rate"},
    {.key = "hr", .tag = "hr", .name = "HR", .printed = true, .of_lists = true, .colour = "#2b8a3e"},
    {.key = "ndcg", .tag = "ndcg", .name = "NDCG", .printed = true, .of_lists = true, .colour = "#1f6fb4"},
    {.key = "recall", .tag = "recall", .name = "Recall", .printed = true, .of_lists = true, .colour = "#d4641b"},
    {.key = "mrr", .tag = "mrr", .name = "MRR", .printed = true, .of_lists = true, .whole = true, .colour = "#7048a8"},
    {.key = "gauc", .tag = "gauc", .name = "group AUC", .printed = true, .of_lists = true, .whole = true, .colour = "#868e96"},
};
const size_t cli_n_figures = sizeof cli_figures / sizeof *cli_figures;

void cli_figure_name(struct json_object *job, const struct cli_figure *f, char text[32]) {
    const unsigned long long k = f->of_lists && !f->whole ? pn_json_u64(job, "rank_k", 0) : 0;
    if (k > 0) snprintf(text, 32, "%s@%llu", f->name, k);
    else snprintf(text, 32, "%s", f->name);
}

double cli_figure_of(struct json_object *job, const char *part, const struct cli_figure *f) {
    char key[64];
    snprintf(key, sizeof key, "%s_%s", part, f->key);
    return pn_json_double(job, key, NAN);
}

static const struct cli_figure *named(const char *key, size_t n) {
    for (const struct cli_figure *f = cli_figures; f < cli_figures + cli_n_figures; f++)
        if (strlen(f->key) == n && strncmp(f->key, key, n) == 0) return f;
    return NULL;
}

const struct cli_figure *cli_figure_first(struct json_object *job) {
    const char *by = pn_json_str(job, "stop_by", "");
    const struct cli_figure *f = named(by, strcspn(by, "@"));
    return f != NULL ? f : named("auc", 3);
}

static void append(struct json_object *job, const char *part, const struct cli_figure *f, char *out, size_t room) {
    const size_t n = strlen(out);
    const double v = cli_figure_of(job, part, f);
    char name[32];
    cli_figure_name(job, f, name);
    if (isfinite(v)) snprintf(out + n, room - n, "%s %s %.4f", n > 0 ? "," : part, name, v);
}

void cli_measured(struct json_object *job, const char *part, bool brief, char *out, size_t room) {
    const struct cli_figure *first = cli_figure_first(job);
    out[0] = '\0';
    append(job, part, first, out, room);
    for (int of_lists = 1; of_lists >= (brief ? 1 : 0); of_lists--)
        for (const struct cli_figure *f = cli_figures; f < cli_figures + cli_n_figures; f++)
            if (f != first && f->printed && f->of_lists == (of_lists == 1)) append(job, part, f, out, room);
}
