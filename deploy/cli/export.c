/* pinion export: a published model as a file for other programs. ONNX: the graph (nn/onnx), and beside it for each table the keys of its rows. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/shell/shell.h"
#include "deploy/cli/cli.h"
#include "nn/onnx/onnx.h"
#include "serving/ranker.h"

static void write_file(const char *path, const void *head, size_t n_head, const void *data, size_t n) {
    FILE *f = fopen(path, "wb");
    if (f == NULL) cli_fail(EXIT_FAILED, "%s cannot be written", path);
    const bool whole = fwrite(head, 1, n_head, f) == n_head && fwrite(data, 1, n, f) == n;
    if (fclose(f) != 0 || !whole) cli_fail(EXIT_FAILED, "%s could not be written to its end", path);
}

/* OUT.TABLE.keys.npy: the keys as NumPy's uint64 array (numpy.lib.format, version 1.0); entry i is row i + 1 of the graph's table. */
static void write_keys(const char *out, const char *table, const uint64_t *keys, size_t n) {
    char path[1200], head[128], text[118 + 1];
    const int used = snprintf(text, sizeof text, "{'descr': '<u8', 'fortran_order': False, 'shape': (%zu,), }", n);
    memset(text + used, ' ', sizeof text - (size_t)used);
    text[117] = '\n';
    memcpy(head, "\x93NUMPY\x01\x00\x76\x00", 10);
    memcpy(head + 10, text, 118);
    snprintf(path, sizeof path, "%s.%s.keys.npy", out, table);
    write_file(path, head, sizeof head, keys, n * sizeof *keys);
    printf("%s: %zu keys\n", path, n);
}

static void onnx(const struct pn_snapshot *snapshot, const char *out) {
    struct pn_error err = {""};
    const struct pn_job *job = pn_snapshot_job(snapshot);
    struct pn_scorer scorer;
    struct pn_net *net = NULL;
    if (pn_scorer_open(&scorer, snapshot, &err) != PN_OK || pn_net_open(&net, job, scorer.n_dense_inputs, &err) != PN_OK) cli_fail(EXIT_FAILED, "%s", err.text);
    struct pn_onnx_table tables[PN_MAX_TABLES] = {{0, NULL}};
    uint64_t *keys[PN_MAX_TABLES] = {NULL};
    float *rows[PN_MAX_TABLES] = {NULL};
    for (uint32_t t = 0; t < job->i_dense_table; t++) {
        const size_t n = tables[t].n_rows = pn_snapshot_keys(snapshot, t, NULL);
        keys[t] = malloc((n + 1) * sizeof *keys[t]);
        tables[t].rows = rows[t] = malloc((n + 1) * job->tables[t].dim * sizeof *rows[t]);
        if (keys[t] == NULL || rows[t] == NULL) cli_fail(EXIT_FAILED, "no memory for the %zu rows of table %s", n, job->tables[t].name);
        pn_snapshot_keys(snapshot, t, keys[t]);
        pn_snapshot_pull(snapshot, t, keys[t], n, rows[t]);
    }
    void *image;
    size_t n_bytes;
    const enum pn_result r = pn_onnx_write(net, scorer.parameters, tables, &image, &n_bytes, &err);
    if (r != PN_OK) cli_fail(r == PN_REFUSED ? EXIT_REFUSED : EXIT_FAILED, "%s", err.text);
    write_file(out, "", 0, image, n_bytes);
    printf("%s: %zu bytes\n", out, n_bytes);
    for (uint32_t t = 0; t < job->i_dense_table; t++) {
        write_keys(out, job->tables[t].name, keys[t], tables[t].n_rows);
        free(keys[t]);
        free(rows[t]);
    }
    free(image);
    pn_net_close(net);
    pn_scorer_close(&scorer);
}

int verb_export(const struct cli *c) {
    struct pn_error err = {""};
    if (c->n_rest != 1) cli_fail(EXIT_USAGE, "pinion export needs one folder of a published version: pinion export VERSION-FOLDER [--format onnx|safetensors] [--out FILE]");
    const char *format = cli_option(c, "format", "onnx");
    const bool graph = strcmp(format, "onnx") == 0;
    if (!graph && strcmp(format, "safetensors") != 0) cli_fail(EXIT_USAGE, "--format %s: onnx or safetensors is needed", format);
    const char *out = cli_option(c, "out", graph ? "model.onnx" : "model.safetensors");
    if (strlen(out) > 1000) cli_fail(EXIT_USAGE, "--out: a name of at most 1000 bytes is needed");
    struct pn_shell *shell;
    struct pn_snapshot *snapshot;
    if (pn_shell_open(&shell, "export", NULL, NULL, PN_ERROR, &err) != PN_OK) cli_fail(EXIT_FAILED, "%s", err.text);
    if (pn_snapshot_open(&snapshot, pn_shell_env(shell), c->rest[0], &err) != PN_OK) cli_fail(EXIT_FAILED, "%s: %s", c->rest[0], err.text);
    if (graph) onnx(snapshot, out);
    else { /* the snapshot has them so; its digest has just been verified */
        char path[1200];
        size_t n;
        snprintf(path, sizeof path, "%s/dense.safetensors", c->rest[0]);
        char *image = cli_read_file(path, &n);
        if (image == NULL) cli_fail(EXIT_FAILED, "%s cannot be read", path);
        write_file(out, "", 0, image, n);
        printf("%s: %zu bytes\n", out, n);
        free(image);
    }
    pn_snapshot_close(snapshot);
    pn_shell_close(shell);
    return EXIT_DONE;
}
