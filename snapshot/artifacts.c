#include "snapshot/artifacts.h"
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include "common/hash.h"
#include "common/json.h"
#include "snapshot/internal.h"

static void digest_of(const void *data, size_t n_bytes, char hex[65]) {
    struct pn_digest d;
    pn_digest_start(&d);
    pn_digest_add(&d, data, n_bytes);
    pn_digest_hex(&d, hex);
}

void pn_artifact_make(struct pn_artifact *a, const char *ending, const void *data, size_t n_bytes) {
    *a = (struct pn_artifact){.n_bytes = n_bytes};
    digest_of(data, n_bytes, a->digest);
    snprintf(a->name, sizeof a->name, "%.32s.%.30s", a->digest, ending);
}

struct json_object *pn_artifact_write(const struct pn_artifact *a) {
    struct json_object *o = json_object_new_object();
    pn_json_add_u64(o, "format", 1);
    pn_json_add_str(o, "name", a->name);
    pn_json_add_u64(o, "bytes", a->n_bytes);
    pn_json_add_str(o, "digest", a->digest);
    return o;
}

bool pn_artifact_read(struct json_object *o, struct pn_artifact *a) {
    *a = (struct pn_artifact){.n_bytes = 0};
    if (o == NULL || !json_object_is_type(o, json_type_object) || pn_json_u64(o, "format", 0) != 1) return false;
    const char *digest = pn_json_str(o, "digest", "");
    a->n_bytes = pn_json_u64(o, "bytes", 0);
    if (!pn_snapshot_plain_name(o, a->name) || strlen(digest) != 64 || a->n_bytes == 0 || a->n_bytes > PN_ARTIFACT_BYTES) return false;
    memcpy(a->digest, digest, 64);
    return true;
}

enum pn_result pn_artifacts_read(const char *statistics, struct pn_artifact **list, size_t *n, struct pn_error *err) {
    struct json_object *o = pn_json_parse(statistics, strlen(statistics), err);
    *list = NULL;
    *n = 0;
    if (o == NULL || !json_object_is_type(o, json_type_object)) {
        json_object_put(o);
        return pn_fail(err, PN_INVALID, "the statistics are no JSON object");
    }
    enum pn_result r = PN_OK;
    struct pn_artifact *all = calloc((size_t)json_object_object_length(o) + 1, sizeof *all);
    if (all == NULL) r = pn_fail(err, PN_NO_MEMORY, "no memory for the names of vocabularies");
    json_object_object_foreach(o, feature, e) {
        struct json_object *v = json_object_is_type(e, json_type_object) ? pn_json_get(e, "vocabulary") : NULL;
        if (r != PN_OK || v == NULL) continue;
        struct pn_artifact *a = &all[*n];
        if (pn_json_u64(v, "format", 0) != 1) r = pn_fail(err, PN_INVALID, "the vocabulary of feature \"%.60s\" is not of format 1, the one this program reads", feature);
        else if (!pn_artifact_read(v, a) || strlen(feature) >= sizeof a->feature)
            r = pn_fail(err, PN_INVALID, "the statistics name no sound file for the vocabulary of feature \"%.60s\"", feature);
        snprintf(a->feature, sizeof a->feature, "%s", feature);
        *n += r == PN_OK;
    }
    json_object_put(o);
    if (r == PN_OK && *n > 0) *list = all;
    else free(all);
    if (r != PN_OK) *n = 0;
    return r;
}

enum pn_result pn_artifact_verify(const struct pn_artifact *a, const void *data, size_t n_bytes, struct pn_error *err) {
    char hex[65];
    if (n_bytes != a->n_bytes) return pn_fail(err, PN_CORRUPT, "%s is damaged: it has %zu bytes and had %llu", a->name, n_bytes, (unsigned long long)a->n_bytes);
    digest_of(data, n_bytes, hex);
    return memcmp(hex, a->digest, 64) == 0 ? PN_OK : pn_fail(err, PN_CORRUPT, "%s is damaged: its digest is another than when it was written", a->name);
}
