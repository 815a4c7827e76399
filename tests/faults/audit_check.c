/* audit-check DIR PRODUCERS STEPS KEYS: compares a committed checkpoint of an audit job with the exact answer. Exit 1 names what was lost or doubled. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/json.h"
#include "ps/checkpoint.h"
#include "worker/audit.h"

struct audit { uint64_t n_keys, rows, wrong; float *expected; unsigned char *seen; };

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
    struct audit *a = ctx;
    if (b->type != PN_BLOCK_RECORDS || b->i_table != 0) return PN_OK;
    for (size_t at = 0; at < b->n_bytes; at += h->record_bytes[0], a->rows++) {
        uint64_t key;
        float row[PN_AUDIT_DIM];
        char line[300];
        memcpy(&key, (const char *)payload + at, sizeof key);
        memcpy(row, (const char *)payload + at + 16, sizeof row);
        if (key >= a->n_keys || a->seen[key]++ != 0) {
            printf("key %llu is foreign or stands twice\n", (unsigned long long)key);
            a->wrong++;
        } else if (pn_audit_check(key, row, a->expected + key * PN_AUDIT_DIM, line, sizeof line) != 0) {
            printf("%s\n", line);
            a->wrong++;
        }
    }
    return PN_OK;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: audit-check DIR PRODUCERS STEPS KEYS\n");
        return 2;
    }
    uint32_t producers = (uint32_t)strtoul(argv[2], NULL, 10);
    uint64_t steps = strtoull(argv[3], NULL, 10);
    struct audit a = {.n_keys = strtoull(argv[4], NULL, 10)};
    a.expected = calloc(a.n_keys, PN_AUDIT_DIM * sizeof(float));
    a.seen = calloc(a.n_keys, 1);
    char path[1200];
    size_t n = 0;
    struct pn_error err = {""};
    snprintf(path, sizeof path, "%s/manifest.json", argv[1]);
    char *text = read_file(path, &n);
    struct json_object *manifest = text == NULL ? NULL : pn_json_parse(text, n, &err), *files = pn_json_get(manifest, "files");
    if (a.expected == NULL || a.seen == NULL || pn_json_length(files) == 0) {
        printf("%s: no sound manifest %s\n", path, err.text);
        return 1;
    }
    pn_audit_expect(producers, steps, a.n_keys, a.expected);
    for (size_t i = 0; i < pn_json_length(files); i++) {
        struct pn_checkpoint_head head;
        snprintf(path, sizeof path, "%s/%s", argv[1], pn_json_str(pn_json_at(files, i), "name", "?"));
        char *image = read_file(path, &n);
        if (image == NULL || pn_checkpoint_read(image, n, pn_json_str(pn_json_at(files, i), "digest", ""), &head, visit, &a, &err) != PN_OK) {
            printf("%s: %s\n", path, image == NULL ? "missing" : err.text);
            return 1;
        }
        free(image);
    }
    for (uint64_t k = 0; k < a.n_keys; k++)
        if (!a.seen[k] && a.expected[k * PN_AUDIT_DIM] > 0) {
            printf("key %llu is missing: all its pushes are lost\n", (unsigned long long)k);
            a.wrong++;
        }
    printf("%llu rows, %llu pushes: %llu wrong\n", (unsigned long long)a.rows, (unsigned long long)(producers * steps), (unsigned long long)a.wrong);
    return a.wrong > 0;
}
