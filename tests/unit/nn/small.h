/* A small batch of raw rows with what is awkward in it (repeated keys, lists, weights, missing and bad values), and a job over its columns. */
#ifndef PN_TESTS_UNIT_NN_SMALL_H
#define PN_TESTS_UNIT_NN_SMALL_H
#include <check.h>
#include <stdio.h>
#include <string.h>
#include "nn/model.h"

#define ROWS 7
static const char *const names[] = {"u", "g", "n"};
static const char *const cells[3][ROWS] = {
    {"a", "b", "a", "c", "", "d", "b"}, {"x:0.5|y", "y", "x|y:-2|z|x", "", "z:3", "z|z", "x"}, {"1", "-2.5", "", "7", "oops", "0", "3"}};
static const float labels[ROWS] = {1, 0, 1, 1, 0, 0, 1}, values[ROWS] = {5, 1, 4, 5, 2, 3, 4};

struct raw { char text[256]; uint32_t offset[3 * ROWS], length[3 * ROWS]; struct pn_raw raw; };

static void make_raw(struct raw *r) {
    size_t n = 0;
    for (size_t c = 0; c < 3; c++)
        for (size_t i = 0; i < ROWS; i++) {
            r->offset[c * ROWS + i] = (uint32_t)n;
            r->length[c * ROWS + i] = (uint32_t)strlen(cells[c][i]);
            memcpy(r->text + n, cells[c][i], strlen(cells[c][i]));
            n += strlen(cells[c][i]);
        }
    r->raw = (struct pn_raw){ROWS, 3, names, r->text, r->offset, r->length, labels, NULL, values};
}

#define WEIGHTED "    - {name: w, column: g, type: multi, weighted: true}\n"
static const char *further = ""; /* further features of the job */

static void make_job(struct pn_job *job, const char *model) {
    char text[1400];
    struct pn_error err = {""};
    snprintf(text, sizeof text,
             "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data: {train: {format: csv, uri: /x, label: y}}\n  features:\n"
             "    - {name: u, type: categorical}\n    - {name: g, type: multi, pooling: mean}\n    - {name: added, column: g, type: multi, pooling: sum}\n"
             "    - {name: rooted, column: g, type: multi, pooling: sqrtn, hash: {share: added}}\n    - {name: n, type: numeric, transform: [log1p, standardize]}\n"
             "    - {name: x, type: cross, of: [u, u]}\n%s%s%s  model: {name: %s, embeddingDim: 3, linearScale: 1.5}\n",
             further, strstr(model, "fields: [s") ? "    - {name: s, column: g, type: sequence, maxLength: 3, hash: {share: g}}\n" : "",
             strstr(model, "s2]") ? "    - {name: s2, column: u, type: sequence, maxLength: 4}\n" : "", model);
    ck_assert_msg(pn_job_parse(job, text, strlen(text), "t", NULL, NULL, &err) == PN_OK, "%s", err.text);
}
#endif
