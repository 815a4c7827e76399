#include "secure/plan.h"
#include <stdlib.h>
#include <string.h>

const char *const pn_secure_phases[] = {"idle", "counts", "update", "apply"};

char *pn_secure_hex(const uint8_t *bytes, size_t n) {
    char *text = malloc(2 * n + 1);
    if (text == NULL) return NULL;
    for (size_t i = 0; i < n; i++) {
        text[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
        text[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
    }
    text[2 * n] = '\0';
    return text;
}
bool pn_secure_unhex(const char *text, uint8_t *bytes, size_t n) {
    if (text == NULL || strlen(text) != 2 * n) return false;
    for (size_t i = 0; i < 2 * n; i++) {
        const char *digits = "0123456789abcdef", *at = strchr(digits, text[i]);
        if (at == NULL) return false;
        bytes[i / 2] = (uint8_t)(i % 2 == 0 ? (at - digits) << 4 : bytes[i / 2] | (at - digits));
    }
    return true;
}

enum pn_result pn_secure_plan_read(struct pn_secure_plan *p, struct json_object *o, const struct pn_job *job, struct pn_error *err) {
    memset(p, 0, sizeof *p);
    if (o == NULL || !job->privacy.secure) return pn_fail(err, PN_INVALID, "a plan of a secure job without its round, or of another job with one");
    struct json_object *holders = pn_json_get(o, "holders"), *slots = pn_json_get(o, "slots");
    const char *phase = pn_json_str(o, "phase", ""), *passed = pn_json_str(o, "passed", NULL);
    int which = 0;
    while (which < 4 && strcmp(phase, pn_secure_phases[which]) != 0) which++;
    p->phase = (enum pn_secure_phase)which;
    p->attempt = pn_json_u64(o, "attempt", 0);
    p->step = pn_json_u64(o, "step", 0);
    p->applied = pn_json_u64(o, "applied", 0);
    p->n_weights = pn_json_u64(o, "weights", 0);
    p->n = (uint32_t)pn_json_length(holders);
    p->n_servers = (uint32_t)pn_json_length(slots);
    bool sound = which < 4 && p->n == job->n_producers && p->n <= PN_MAX_PRODUCERS && p->n_servers >= 1 && p->n_servers <= PN_AGG_MAX_SERVERS;
    for (uint32_t i = 0; sound && i < p->n; i++) sound = pn_secure_unhex(json_object_get_string(pn_json_at(holders, i)), p->identities[i], 32);
    for (uint32_t s = 0; sound && s < p->n_servers; s++) {
        const uint64_t slot = json_object_get_uint64(pn_json_at(slots, s));
        sound = s == 0 ? slot == 0 : slot > p->slots[s - 1] && slot < 1024;
        p->slots[s] = (uint32_t)slot;
    }
    if (sound && passed != NULL) {
        const size_t n = pn_secure_bitmap_bytes(job->privacy.vote_buckets);
        if ((p->passed = malloc(n + 1)) == NULL) return pn_fail(err, PN_NO_MEMORY, "no memory for a plan");
        sound = pn_secure_unhex(passed, p->passed, n);
    }
    /* In a job that chooses rows an update without its buckets would be one of all rows. */
    if (sound && p->phase == PN_SECURE_UPDATE) sound = (p->passed != NULL) == (job->privacy.selection != PN_SELECT_DENSE);
    if (sound && p->phase == PN_SECURE_COUNTS) sound = job->privacy.selection != PN_SELECT_DENSE;
    if (sound) return PN_OK;
    pn_secure_plan_close(p);
    return pn_fail(err, PN_INVALID, "the round in a plan does not fit the job");
}

void pn_secure_plan_close(struct pn_secure_plan *p) {
    free(p->passed);
    p->passed = NULL;
}

bool pn_secure_same_round(const struct pn_secure_plan *a, const struct pn_secure_plan *b) { return a->attempt == b->attempt && a->phase == b->phase; }

struct pn_agg_terms pn_secure_terms(const struct pn_job *job, const struct pn_secure_plan *p, const uint64_t *first, unsigned word_bytes) {
    const struct pn_privacy_spec *v = &job->privacy;
    return (struct pn_agg_terms){.n = p->n, .min_workers = v->min_workers, .max_dropout = v->max_dropout, .max_colluding = v->max_colluding, .security_bits = PN_SECURE_BITS,
                                 .correctness_bits = PN_SECURE_BITS, .word_bytes = word_bytes, .n_servers = p->n_servers, .first = first,
                                 .identities = (const uint8_t(*)[32])p->identities, .retry_ms = v->phase_ms < 1000 ? v->phase_ms / 10 : 100, .phase_ms = v->phase_ms};
}
