#include "ps/metrics.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

struct page { char *out; size_t n, room; };
static void put(struct page *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(struct page *p, const char *format, ...) {
    va_list a;
    va_start(a, format);
    const int n = vsnprintf(p->out + p->n, p->room - p->n, format, a);
    va_end(a);
    if (n > 0) p->n = p->n + (size_t)n < p->room ? p->n + (size_t)n : p->room - 1;
}
static void family(struct page *p, const char *name, const char *type, const char *help) { put(p, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type); }
static void one(struct page *p, const char *name, const char *label, const char *value, uint64_t n) {
    if (label != NULL) put(p, "%s{%s=\"%s\"} %" PRIu64 "\n", name, label, value, n);
    else put(p, "%s %" PRIu64 "\n", name, n);
}

size_t pn_ps_metrics(const struct pn_shard *s, uint64_t written, uint64_t failed, char *out, size_t room) {
    struct page p = {out, 0, room};
    static const struct pn_shard_counters none;
    const struct pn_shard_counters *c = s != NULL ? &s->counters : &none;
    const size_t n_tables = s != NULL ? s->job.n_tables : 0;
    const char *name = "pinion_ps_requests_total";
    out[0] = '\0';
    family(&p, name, "counter", "Requests answered.");
    one(&p, name, "op", "pull", c->pulls);
    one(&p, name, "op", "push", c->pushes);
    one(&p, name, "op", "seed", c->seeds);
    family(&p, name = "pinion_ps_rows_total", "counter", "Rows read and written.");
    one(&p, name, "op", "pull", c->rows_pulled);
    one(&p, name, "op", "push", c->rows_pushed);
    family(&p, name = "pinion_ps_rejected_total", "counter", "Requests without effect.");
    one(&p, name, "reason", "duplicate", c->duplicates);
    one(&p, name, "reason", "refused", c->refused);
    one(&p, name, "reason", "poison", c->poison);
    family(&p, name = "pinion_ps_rows_missing_total", "counter", "Rows pulled that are not there: the initializer's were given.");
    one(&p, name, NULL, NULL, c->rows_missing);
    struct pn_table_counters k = {0};
    for (size_t t = 0; t < n_tables; t++) {
        const struct pn_table_counters *of = pn_table_counters(s->tables[t]);
        k.admitted += of->admitted;
        k.dropped += of->dropped;
        k.evicted += of->evicted;
        k.promoted += of->promoted;
        k.demoted += of->demoted;
        k.demotions_failed += of->demotions_failed;
    }
    family(&p, name = "pinion_ps_admission_total", "counter", "Gradients of keys without a row, where there is admission.");
    one(&p, name, "result", "admitted", k.admitted);
    one(&p, name, "result", "dropped", k.dropped);
    family(&p, name = "pinion_ps_evicted_rows_total", "counter", "Rows that eviction took.");
    one(&p, name, NULL, NULL, k.evicted);
    family(&p, name = "pinion_ps_tier_rows_total", "counter", "Rows that came into memory from the second tier, and left it for there.");
    one(&p, name, "move", "promoted", k.promoted);
    one(&p, name, "move", "demoted", k.demoted);
    family(&p, name = "pinion_ps_tier_failures_total", "counter", "Batches that the second tier did not take: their rows stay in memory.");
    one(&p, name, NULL, NULL, k.demotions_failed);
    family(&p, name = "pinion_ps_table_rows", "gauge", "Rows held, in both tiers.");
    for (size_t t = 0; t < n_tables; t++) one(&p, name, "table", s->job.tables[t].name, pn_table_rows(s->tables[t]));
    family(&p, name = "pinion_ps_table_cold_rows", "gauge", "Of these, rows in the second tier alone.");
    for (size_t t = 0; t < n_tables; t++) one(&p, name, "table", s->job.tables[t].name, pn_table_cold_rows(s->tables[t]));
    family(&p, name = "pinion_ps_table_memory_bytes", "gauge", "Memory of rows and index.");
    for (size_t t = 0; t < n_tables; t++) one(&p, name, "table", s->job.tables[t].name, pn_table_bytes(s->tables[t]));
    family(&p, name = "pinion_ps_tier_bytes", "gauge", "Files of the second tier.");
    for (size_t t = 0; t < n_tables; t++) one(&p, name, "table", s->job.tables[t].name, pn_table_cold_bytes(s->tables[t]));
    uint64_t audit = 0;
    for (size_t i = 0; s != NULL && i < PN_SLOTS; i++) audit += s->audit[i];
    family(&p, "pinion_ps_audit_hash_info", "gauge", "Sum over slots of the hash of applied pushes.");
    put(&p, "pinion_ps_audit_hash_info{hash=\"%016" PRIx64 "\"} 1\n", audit);
    family(&p, name = "pinion_ps_checkpoints_total", "counter", "Checkpoint files written or failed.");
    one(&p, name, "result", "written", written);
    one(&p, name, "result", "failed", failed);
    return p.n;
}
