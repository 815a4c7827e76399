/* Plans and beats of one server. The shard itself is in shard.c; here is its life: open, restore, cut, write, convert, close. */
#include "ps/ps.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/file.h"
#include "common/json.h"
#include "ps/checkpoint.h"
#include "ps/metrics.h"
#include "ps/publish.h"
#include "ps/scrub.h"
#include "ps/secure.h"

enum shard_state { NONE, OPENING, OPEN, FAILED };

struct pn_ps {
    struct pn_env *env;
    struct pn_ps_options options;
    pn_peer coordinator;
    uint64_t incarnation, epoch, revision, beat_ms;
    struct pn_timer beat;
    bool stopping;

    struct pn_shard *shard;
    struct pn_ps_secure *secure;     /* of an open shard whose job is secure; else NULL */
    uint32_t i_shard;
    enum shard_state state;
    char job_id[64], error[200];
    enum pn_result code;
    uint64_t term, generation;

    /* restoring: one file after the other */
    struct restore {
        struct pn_ps *ps;            /* NULL: given up */
        struct json_object *files;
        char dir[400], path[520];
        size_t i_file;
        struct pn_load load;
    } *restore;

    /* the cut */
    uint64_t cut_epoch;
    enum { CUT_NONE, CUT_WRITING, CUT_WRITTEN, CUT_FAILED } cut;
    struct pn_checkpoint_writer *writer;
    char cut_error[120], cut_digest[65];
    uint64_t cut_bytes, cut_rows;

    struct pn_publish *publish;
    struct pn_scrub *scrub;
    struct json_object *forget;      /* the plan's; NULL: none */
    uint64_t forgot, forgotten;      /* the newest number that is done in this shard; rows that it took out */
    uint64_t n_checkpoints, n_checkpoint_failures;
};

/* ---- beats ---- */
static void send_beat(struct pn_ps *p) {
    static const char *const states[] = {"none", "opening", "open", "failed"};
    struct json_object *o = json_object_new_object(), *plan = json_object_new_array();
    pn_json_add_str(o, "role", "ps");
    pn_json_add_str(o, "name", p->options.name);
    pn_json_add_u64(o, "incarnation", p->incarnation);
    pn_json_add_str(o, "address", p->options.address);
    pn_json_add_str(o, "http", p->options.http);
    json_object_array_add(plan, json_object_new_uint64(p->epoch));
    json_object_array_add(plan, json_object_new_uint64(p->revision));
    pn_json_add(o, "plan", plan);
    struct json_object *job = NULL, *cut = NULL;
    if (p->state != NONE) {
        enum shard_state state = p->shard != NULL && p->shard->broken ? FAILED : p->state;
        job = json_object_new_object();
        pn_json_add_str(job, "id", p->job_id);
        pn_json_add_u64(job, "generation", p->generation);
        pn_json_add_u64(job, "term", p->term);
        pn_json_add_str(job, "state", states[state]);
        if (state == FAILED) {
            pn_json_add_str(job, "code", pn_result_name(p->state == FAILED ? p->code : PN_NO_MEMORY));
            pn_json_add_str(job, "error", p->state == FAILED ? p->error : "memory ran out in the middle of a push, or the second tier failed");
        }
        uint64_t rows = 0, bytes = 0;
        for (size_t t = 0; p->shard != NULL && t < p->shard->job.n_tables; t++) {
            rows += pn_table_rows(p->shard->tables[t]);
            bytes += pn_table_bytes(p->shard->tables[t]);
        }
        pn_json_add_u64(job, "rows", rows);
        pn_json_add_u64(job, "bytes", bytes);
        if (p->forgot > 0) pn_json_add_u64(job, "forgot", p->forgot);
        if (p->forgot > 0) pn_json_add_u64(job, "forgotten", p->forgotten);
        if (p->secure != NULL) pn_json_add(job, "secure", pn_ps_secure_state(p->secure));
    }
    pn_json_add(o, "job", job);
    if (p->cut != CUT_NONE) {
        cut = json_object_new_object();
        pn_json_add_u64(cut, "epoch", p->cut_epoch);
        pn_json_add_str(cut, "state", p->cut == CUT_WRITING ? "flipped" : p->cut == CUT_WRITTEN ? "written" : "failed");
        if (p->cut == CUT_FAILED) pn_json_add_str(cut, "error", p->cut_error);
        if (p->cut == CUT_WRITTEN) {
            struct json_object *f = json_object_new_object();
            char name[80];
            snprintf(name, sizeof name, "%s.ps", p->options.name);
            pn_json_add_str(f, "name", name);
            pn_json_add_u64(f, "bytes", p->cut_bytes);
            pn_json_add_str(f, "digest", p->cut_digest);
            pn_json_add_u64(f, "rows", p->cut_rows);
            pn_json_add(cut, "file", f);
        }
    }
    pn_json_add(o, "cut", cut);
    pn_json_add(o, "snapshot", p->publish != NULL ? pn_publish_state(p->publish) : NULL);
    if (p->scrub != NULL) pn_json_add(o, "scrub", pn_scrub_state(p->scrub));
    struct pn_msg *m = pn_control_write(p->env, PN_BEAT, p->epoch, p->revision, o);
    if (m != NULL) pn_send(p->env, p->coordinator, m);
    json_object_put(o);
}

static void take_forget(struct pn_ps *p);
static void beat_again(struct pn_timer *t) {
    struct pn_ps *p = t->owner;
    take_forget(p);
    send_beat(p);
    pn_timer_start(p->env, &p->beat, p->beat_ms);
}

/* ---- opening and restoring ---- */
static void end_restore(struct pn_ps *p) {
    if (p->restore == NULL) return;
    p->restore->ps = NULL; /* its load still runs: it frees itself */
    p->restore = NULL;
}

static void close_shard(struct pn_ps *p) {
    end_restore(p);
    pn_checkpoint_abandon(p->writer);
    p->writer = NULL;
    p->cut = CUT_NONE;
    pn_ps_secure_close(p->secure);
    p->secure = NULL;
    pn_shard_close(p->shard);
    p->shard = NULL;
    p->state = NONE;
    p->forgot = p->forgotten = 0;
}

static void fail_shard(struct pn_ps *p, enum pn_result code, const char *text) {
    pn_log(p->env, PN_ERROR, "job %s cannot be opened here: %s", p->job_id, text);
    end_restore(p);
    pn_shard_close(p->shard);
    p->shard = NULL;
    p->state = FAILED;
    p->code = code;
    snprintf(p->error, sizeof p->error, "%s", text);
}

static void restore_next(struct restore *r);

static void restore_loaded(struct pn_load *l) {
    struct restore *r = l->owner;
    struct pn_ps *p = r->ps;
    if (p != NULL) {
        struct pn_error err = {""};
        struct json_object *f = pn_json_at(r->files, r->i_file);
        enum pn_result code = PN_OK;
        if (l->result == -ENOENT) code = pn_fail(&err, PN_CORRUPT, "it is not there");
        else if (l->result < 0) code = pn_fail(&err, PN_IO, "%s", strerror((int)-l->result));
        else code = pn_checkpoint_restore(p->shard, l->data, l->n_bytes, pn_json_str(f, "digest", ""), &err);
        if (code == PN_OK) {
            free(l->data);
            r->i_file++;
            restore_next(r);
            return;
        }
        char text[700];
        snprintf(text, sizeof text, "checkpoint file %s: %s", r->path, err.text);
        fail_shard(p, code, text);
        send_beat(p);
    }
    free(l->data);
    json_object_put(r->files);
    free(r);
}

static void restore_next(struct restore *r) {
    struct pn_ps *p = r->ps;
    struct json_object *f = pn_json_at(r->files, r->i_file);
    if (f == NULL) {
        p->state = OPEN;
        p->restore = NULL;
        json_object_put(r->files);
        free(r);
        pn_log(p->env, PN_INFO, "job %s restored, term %" PRIu64, p->job_id, p->term);
        send_beat(p);
        return;
    }
    snprintf(r->path, sizeof r->path, "%s/%s", r->dir, pn_json_str(f, "name", "?"));
    r->load.done = restore_loaded;
    r->load.owner = r;
    pn_load_start(&r->load, p->env, r->path, SIZE_MAX / 2);
}

static void open_shard(struct pn_ps *p, struct json_object *job) {
    unsigned first = 0, last = 0;
    struct pn_error err = {""};
    close_shard(p);
    snprintf(p->job_id, sizeof p->job_id, "%s", pn_json_str(job, "id", ""));
    p->term = pn_json_u64(job, "term", 0);
    p->generation = pn_json_u64(job, "generation", 0);
    p->i_shard = (uint32_t)pn_json_u64(job, "shard", 0);
    p->state = OPENING;
    enum pn_result r = sscanf(pn_json_str(job, "owner", ""), "%u-%u", &first, &last) == 2 ? PN_OK : pn_fail(&err, PN_INVALID, "the plan names no slots");
    if (r == PN_OK)
        r = pn_shard_open(&p->shard, p->env, p->options.tiers, pn_json_str(job, "text", ""), p->job_id, p->term, p->generation, (uint32_t)pn_json_u64(job, "n_producers", 0), first,
                          last, &err);
    if (r == PN_OK && p->options.slice > 0) p->shard->slice = p->options.slice;
    if (r == PN_OK) take_forget(p); /* before anything is restored */
    struct json_object *restore = pn_json_get(job, "restore");
    if (r == PN_OK && restore != NULL) {
        struct restore *x = calloc(1, sizeof *x);
        if (x == NULL) r = pn_fail(&err, PN_NO_MEMORY, "no memory to restore");
        else {
            x->ps = p;
            x->files = json_object_get(pn_json_get(restore, "files"));
            snprintf(x->dir, sizeof x->dir, "%s", pn_json_str(restore, "dir", ""));
            p->restore = x;
            restore_next(x);
            return;
        }
    }
    if (r != PN_OK) {
        fail_shard(p, r, err.text);
        return;
    }
    p->state = OPEN;
    pn_log(p->env, PN_INFO, "job %s open for slots %u-%u, term %" PRIu64, p->job_id, first, last, p->term);
}

/* ---- rows that are forgotten for good: the job's whole list comes with every plan ---- */
static void take_forget(struct pn_ps *p) {
    const uint64_t number = pn_json_u64(p->forget, "number", 0);
    if (p->shard == NULL || p->shard->broken || number <= p->forgot) return;
    uint32_t *tables;
    uint64_t *keys, removed = 0;
    size_t n;
    const bool read = pn_scrub_keys(pn_json_get(p->forget, "keys"), &tables, &keys, &n);
    if (p->writer != NULL) { /* its file would have them */
        pn_checkpoint_abandon(p->writer);
        p->writer = NULL;
        p->cut = CUT_FAILED;
        snprintf(p->cut_error, sizeof p->cut_error, "rows were to be forgotten meanwhile");
    }
    const enum pn_result r = read ? pn_shard_forget(p->shard, tables, keys, n, &removed) : PN_NO_MEMORY;
    free(tables);
    free(keys);
    p->forgotten += removed;
    if (r != PN_OK) return; /* with the next beat */
    p->forgot = number;
    pn_log(p->env, PN_INFO, "job %s: %" PRIu64 " rows forgotten here, request %" PRIu64, p->job_id, p->forgotten, number);
}

/* ---- the cut ---- */
static void checkpoint_done(void *owner, int64_t result, uint64_t n_bytes, const char *digest, uint64_t rows) {
    struct pn_ps *p = owner;
    p->writer = NULL;
    if (result < 0) {
        p->cut = CUT_FAILED;
        p->n_checkpoint_failures++;
        snprintf(p->cut_error, sizeof p->cut_error, "writing the checkpoint: %s", strerror((int)-result));
        pn_log(p->env, PN_WARN, "checkpoint %" PRIu64 " failed: %s; training goes on", p->cut_epoch, strerror((int)-result));
    } else {
        p->cut = CUT_WRITTEN;
        p->n_checkpoints++;
        p->cut_bytes = n_bytes;
        p->cut_rows = rows;
        snprintf(p->cut_digest, sizeof p->cut_digest, "%s", digest);
    }
    send_beat(p);
}

static void take_cut(struct pn_ps *p, struct json_object *cut) {
    uint64_t epoch = pn_json_u64(cut, "epoch", 0);
    if (cut == NULL || (p->cut != CUT_NONE && p->cut_epoch != epoch)) {
        pn_checkpoint_abandon(p->writer);
        p->writer = NULL;
        p->cut = CUT_NONE;
    }
    if (cut == NULL || p->cut != CUT_NONE || p->state != OPEN || p->shard->broken) return;
    p->cut_epoch = epoch;
    p->writer = pn_checkpoint_write(p->shard, pn_json_str(cut, "dir", ""), p->options.name, epoch, checkpoint_done, p);
    p->cut = p->writer != NULL ? CUT_WRITING : CUT_FAILED;
    if (p->writer == NULL) snprintf(p->cut_error, sizeof p->cut_error, "no memory for a cut");
}

/* ---- plans ---- */
static void on_plan(struct pn_ps *p, struct pn_frame *f) {
    if (f->term < p->epoch || (f->term == p->epoch && f->request < p->revision)) return;
    struct pn_error err;
    struct json_object *plan = pn_control_read(f, &err);
    if (plan == NULL) {
        pn_log(p->env, PN_WARN, "a plan was not readable: %s", err.text);
        return;
    }
    p->epoch = f->term;
    p->revision = f->request;
    p->beat_ms = pn_json_u64(plan, "beat_ms", p->beat_ms);
    if (p->beat_ms < 5 || p->beat_ms > 60000) p->beat_ms = 100;
    struct json_object *job = pn_json_get(plan, "job"), *forget = pn_json_get(job, "forget");
    if (p->forget != NULL) json_object_put(p->forget);
    p->forget = forget != NULL ? json_object_get(forget) : NULL;
    if (job == NULL) {
        if (p->state != NONE) close_shard(p);
    } else if (p->state == NONE || strcmp(pn_json_str(job, "id", ""), p->job_id) != 0 || pn_json_u64(job, "term", 0) != p->term ||
               pn_json_u64(job, "generation", 0) != p->generation) {
        open_shard(p, job);
    }
    take_forget(p);
    if (p->state == OPEN && p->shard->job.privacy.secure && !p->shard->broken) {
        if (p->secure == NULL) p->secure = pn_ps_secure_open(p->env, p->shard, p->i_shard, p->coordinator, (void (*)(void *))send_beat, p);
        if (p->secure != NULL) pn_ps_secure_plan(p->secure, pn_json_get(job, "secure"));
    }
    take_cut(p, pn_json_get(plan, "cut"));
    struct json_object *snapshot = pn_json_get(plan, "snapshot");
    if (p->publish != NULL && (snapshot == NULL || pn_publish_version(p->publish) != pn_json_u64(snapshot, "version", 0))) {
        pn_publish_abandon(p->publish);
        p->publish = NULL;
    }
    if (snapshot != NULL && p->publish == NULL) p->publish = pn_publish_start(p->env, snapshot, (void (*)(void *))send_beat, p);
    struct json_object *scrub = pn_json_get(plan, "scrub");
    if (p->scrub != NULL && (scrub == NULL || pn_scrub_task(p->scrub) != pn_json_u64(scrub, "task", 0))) {
        pn_scrub_abandon(p->scrub);
        p->scrub = NULL;
    }
    if (scrub != NULL && p->scrub == NULL) p->scrub = pn_scrub_start(p->env, scrub, (void (*)(void *))send_beat, p);
    json_object_put(plan);
    send_beat(p);
}

static void message(void *core, pn_peer from, struct pn_msg *m) {
    struct pn_ps *p = core;
    struct pn_frame f;
    if (pn_frame_open(&f, m->data, m->n_bytes, NULL) != PN_OK) return; /* whoever sent it gets no answer worth having */
    if (f.kind == PN_PLAN) {
        if (from == p->coordinator) on_plan(p, &f);
    } else if (f.kind == PN_PULL || f.kind == PN_PUSH || f.kind == PN_SEED || f.kind == PN_CHANGES) {
        if (p->state == OPEN && !p->shard->broken) pn_shard_message(p->shard, from, m, &f);
        else pn_shard_refuse(p->env, from, p->term, f.request, PN_STALE_TERM, "the shard is not open");
    } else if (f.kind >= 40 && f.kind <= 55) { /* privacy/secagg/round.h */
        if (p->secure != NULL && !p->shard->broken) pn_ps_secure_message(p->secure, from, m, &f);
    }
    pn_frame_close(&f);
}

/* ---- life ---- */
struct pn_ps *pn_ps_open(struct pn_env *env, const struct pn_ps_options *options) {
    struct pn_ps *p = calloc(1, sizeof *p);
    if (p == NULL) return NULL;
    p->env = env;
    p->options = *options;
    p->incarnation = env->ops->random(env) | 1;
    p->beat_ms = 100;
    p->beat = (struct pn_timer){.fire = beat_again, .owner = p};
    p->coordinator = env->ops->connect(env, options->coordinator);
    return p;
}

void pn_ps_close(struct pn_ps *p) {
    if (p == NULL) return;
    pn_timer_stop(p->env, &p->beat);
    if (p->publish != NULL) pn_publish_abandon(p->publish);
    if (p->scrub != NULL) pn_scrub_abandon(p->scrub);
    if (p->forget != NULL) json_object_put(p->forget);
    close_shard(p);
    free(p);
}

static void start(void *core) {
    struct pn_ps *p = core;
    send_beat(p);
    pn_timer_start(p->env, &p->beat, p->beat_ms);
}

const struct pn_core_ops pn_ps_core = {.start = start, .message = message};

void pn_ps_http(void *core, struct pn_http_request *r) {
    struct pn_ps *p = core;
    char text[16384];
    if (strcmp(r->path, "/health") == 0) {
        int n = snprintf(text, sizeof text, "{\"ready\":%s}", p->state == OPEN || p->state == NONE ? "true" : "false");
        r->answer(r, 200, "application/json", NULL, text, (size_t)n);
    } else if (strcmp(r->path, "/metrics") == 0) {
        const size_t n = pn_ps_metrics(p->shard, p->n_checkpoints, p->n_checkpoint_failures, text, sizeof text);
        r->answer(r, 200, "text/plain; version=0.0.4", NULL, text, n);
    } else {
        static const char none[] = "{\"error\":\"no such page: /metrics and /health are here\"}";
        r->answer(r, 404, "application/json", NULL, none, sizeof none - 1);
    }
}
