/* table-values DIR: the first float of each row of a job's first table in a committed checkpoint, as "value count" lines. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/json.h"
#include "ps/checkpoint.h"

struct values { struct { float value; unsigned long long rows; } all[4096]; size_t n; };

static char *read_file(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    if (f == NULL) return NULL;
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(*n + 8);
    if (data != NULL && fread(data, 1, *n, f) != *n) *n = 0;
    fclose(f);
    return data;
}

static enum pn_result visit(void *ctx, const struct pn_checkpoint_head *h, const struct pn_block *b, const void *payload) {
    struct values *v = ctx;
    if (b->type != PN_BLOCK_RECORDS || b->i_table != 0) return PN_OK;
    for (size_t at = 0; at < b->n_bytes; at += h->record_bytes[0]) {
        float x;
        size_t i = 0;
        memcpy(&x, (const char *)payload + at + 16, sizeof x);
        while (i < v->n && v->all[i].value != x) i++;
        if (i == sizeof v->all / sizeof *v->all) return PN_FULL;
        if (i == v->n) v->all[v->n++].value = x;
        v->all[i].rows++;
    }
    return PN_OK;
}

int main(int argc, char **argv) {
    static struct values v;
    char path[1200];
    size_t n = 0;
    struct pn_error err = {""};
    snprintf(path, sizeof path, "%s/manifest.json", argc == 2 ? argv[1] : "?");
    char *text = read_file(path, &n);
    struct json_object *manifest = text == NULL ? NULL : pn_json_parse(text, n, &err), *files = pn_json_get(manifest, "files");
    if (pn_json_length(files) == 0) {
        fprintf(stderr, "%s: no sound manifest %s\n", path, err.text);
        return 1;
    }
    for (size_t i = 0; i < pn_json_length(files); i++) {
        struct pn_checkpoint_head head;
        snprintf(path, sizeof path, "%s/%s", argv[1], pn_json_str(pn_json_at(files, i), "name", "?"));
        char *image = read_file(path, &n);
        if (image == NULL || pn_checkpoint_read(image, n, pn_json_str(pn_json_at(files, i), "digest", ""), &head, visit, &v, &err) != PN_OK) {
            fprintf(stderr, "%s: %s\n", path, image == NULL ? "missing" : err.text);
            return 1;
        }
        free(image);
    }
    for (size_t i = 0; i < v.n; i++) printf("%.9g %llu\n", (double)v.all[i].value, v.all[i].rows);
    return 0;
}
