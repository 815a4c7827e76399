/* A committed checkpoint's files, for the programs of the tests that look into one. */
#ifndef PN_TESTS_CHECKPOINT_FILES_H
#define PN_TESTS_CHECKPOINT_FILES_H

#include <stdio.h>
#include <stdlib.h>
#include "common/json.h"
#include "ps/checkpoint.h"

typedef enum pn_result (*checkpoint_visit)(void *, const struct pn_checkpoint_head *, const struct pn_block *, const void *);

static char *checkpoint_file(const char *path, size_t *n) {
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

/* Every block of every file that DIR/manifest.json names. False, and a line on standard output: one is missing or not sound. */
static bool checkpoint_blocks(const char *dir, checkpoint_visit visit, void *ctx) {
    char path[1200];
    size_t n = 0;
    struct pn_error err = {""};
    snprintf(path, sizeof path, "%s/manifest.json", dir);
    char *text = checkpoint_file(path, &n);
    struct json_object *manifest = text == NULL ? NULL : pn_json_parse(text, n, &err), *files = pn_json_get(manifest, "files");
    if (pn_json_length(files) == 0) {
        printf("%s: no sound manifest %s\n", path, err.text);
        return false;
    }
    for (size_t i = 0; i < pn_json_length(files); i++) {
        struct pn_checkpoint_head head;
        snprintf(path, sizeof path, "%s/%s", dir, pn_json_str(pn_json_at(files, i), "name", "?"));
        char *image = checkpoint_file(path, &n);
        if (image == NULL || pn_checkpoint_read(image, n, pn_json_str(pn_json_at(files, i), "digest", ""), &head, visit, ctx, &err) != PN_OK) {
            printf("%s: %s\n", path, image == NULL ? "missing" : err.text);
            return false;
        }
        free(image);
    }
    return true;
}
#endif
