/* Publication: a committed checkpoint becomes a numbered version (docs/architecture.md, "Publication"). */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "coordinator/internal.h"
#include "snapshot/artifacts.h"
#include "snapshot/snapshot.h"

#define DEADLINE_MS 120000u

struct pn_publication {
    struct pn_coordinator *c;
    char model[64], job_id[32], dir[480], checkpoint_dir[480];
    uint64_t version, checkpoint, forgot, since_ms;
    enum { SEGMENTS, DENSE, FILES, COMMIT } phase;
    struct pn_asker *askers;
    struct json_object *parts;       /* per checkpoint file: {name, number, node}; later with what the server reported */
    struct json_object *written;     /* files of the manifest */
    float *parameters;
    size_t n_parameters, i_file;
    struct pn_artifact file;         /* the statistics, where they are one */
    char *statistics;                /* their text */
    struct pn_artifact *artifacts;   /* vocabularies, each file once */
    size_t n_artifacts;
    bool closed, in_io;
    bool final;                      /* the end of its job, not by hand */
    bool alone;                      /* no server still shows a publication of the same number, of another model; the files are dealt */
    struct pn_load load;
    struct pn_save save;
    char *text;                      /* of the file being saved */
    void *image;
    size_t n_image;
    char name[64], path[560];
};

struct pn_model_entry *pn_model_find(struct pn_coordinator *c, const char *name, bool make) {
    struct pn_model_entry **at = &c->models;
    while (*at != NULL && strcmp((*at)->name, name) < 0) at = &(*at)->next;
    if (*at != NULL && strcmp((*at)->name, name) == 0) return *at;
    struct pn_model_entry *m = make ? calloc(1, sizeof *m) : NULL;
    if (m == NULL) return NULL;
    snprintf(m->name, sizeof m->name, "%s", name);
    m->next_version = 1;
    m->next = *at;
    *at = m;
    return m;
}

void pn_models_free(struct pn_coordinator *c) {
    while (c->models != NULL) {
        struct pn_model_entry *m = c->models;
        c->models = m->next;
        while (m->versions != NULL) {
            struct pn_version *v = m->versions;
            m->versions = v->next;
            free(v);
        }
        free(m);
    }
}

static void free_publication(struct pn_publication *p) {
    json_object_put(p->parts);
    json_object_put(p->written);
    free(p->parameters);
    free(p->text);
    free(p->image);
    free(p->statistics);
    free(p->artifacts);
    free(p);
}

static void end(struct pn_publication *p, int status, const char *error) {
    struct pn_coordinator *c = p->c;
    pn_answer_all(&p->askers, status, "version", p->version, error);
    if (error != NULL) pn_log(c->env, PN_WARN, "%s version %" PRIu64 " is not published: %s", p->model, p->version, error);
    struct pn_job_run *j = pn_job_find(c, p->job_id);
    if (p->final && j != NULL && j->state == PN_RUNNING && j->phase == PN_PUBLISH) pn_job_end(c, j, PN_SUCCEEDED, error != NULL ? error : "");
    c->publication = NULL;
    p->closed = true;
    if (!p->in_io) free_publication(p);
}

void pn_publication_close(struct pn_coordinator *c) {
    struct pn_publication *p = c->publication;
    if (p == NULL) return;
    pn_answer_all(&p->askers, 503, NULL, 0, "the coordinator stops");
    c->publication = NULL;
    p->closed = true;
    if (!p->in_io) free_publication(p);
}

bool pn_publication_writes(const struct pn_coordinator *c, const char *model, const char *version) {
    char number[32];
    if (c->publication == NULL || strcmp(c->publication->model, model) != 0) return false;
    snprintf(number, sizeof number, "%" PRIu64, c->publication->version);
    return strcmp(number, version) == 0;
}

bool pn_publication_uses(const struct pn_coordinator *c, const struct pn_job_run *j, uint64_t epoch) {
    return c->publication != NULL && c->publication->checkpoint == epoch && strcmp(c->publication->job_id, j->id) == 0;
}

/* The files to the live servers, in turn. False: none is alive, as when the coordinator itself has just come back. */
static bool deal(struct pn_coordinator *c, struct pn_publication *p) {
    struct pn_node *n = c->nodes;
    while (n != NULL && !(n->role == PN_ROLE_PS && pn_node_alive(c, n))) n = n->next;
    for (size_t i = 0; n != NULL && i < pn_json_length(p->parts); i++) {
        pn_json_add_str(pn_json_at(p->parts, i), "node", n->name);
        do n = n->next == NULL ? c->nodes : n->next;
        while (n->role != PN_ROLE_PS || !pn_node_alive(c, n));
    }
    return n != NULL;
}

bool pn_publication_start(struct pn_coordinator *c, struct pn_job_run *j, bool force, struct pn_http_request *asker, struct pn_error *err) {
    const struct pn_checkpoint *k = pn_job_committed(j);
    const struct pn_metric *m = j->validation.known ? &j->validation : j->test.known ? &j->test : &j->epoch_validation;
    if (j->job.model == PN_MODEL_EXTERNAL) return pn_fail(err, PN_REFUSED, "job %s is external: no features are known by which a replica could rank", j->id) == PN_OK;
    if (c->publication != NULL) return pn_fail(err, PN_BUSY, "another publication is under way; try again when it is done") == PN_OK;
    if (k == NULL) return pn_fail(err, PN_NOT_FOUND, "job %s has no committed checkpoint to publish from; take one first", j->id) == PN_OK;
    if (!force && j->job.publish_min_auc > 0 && !(m->known && isfinite(m->auc)))
        return pn_fail(err, PN_REFUSED, "the gate holds it back: publish.gate.minAuc %.4f, but %s", j->job.publish_min_auc, m->known ? "no AUC was measured" : "nothing was evaluated yet") == PN_OK;
    if (!force && j->job.publish_min_auc > 0 && m->auc < j->job.publish_min_auc)
        return pn_fail(err, PN_REFUSED, "the gate holds it back: AUC %.4f, publish.gate.minAuc %.4f", m->auc, j->job.publish_min_auc) == PN_OK;
    struct pn_publication *p = calloc(1, sizeof *p);
    struct pn_asker *a = asker != NULL ? calloc(1, sizeof *a) : NULL;
    const char *model = j->job.publish_model[0] ? j->job.publish_model : j->job.name;
    struct pn_model_entry *entry = strpbrk(model, "/\\ .") == NULL ? pn_model_find(c, model, true) : NULL;
    if (p == NULL || (asker != NULL && a == NULL) || entry == NULL) {
        free(p);
        free(a);
        return pn_fail(err, PN_INVALID, "the model's name \"%s\" cannot name a folder", model) == PN_OK;
    }
    p->c = c;
    p->final = asker == NULL;
    p->parts = json_object_new_array();
    p->written = json_object_new_array();
    if (a != NULL) {
        a->request = asker;
        p->askers = a;
    }
    snprintf(p->model, sizeof p->model, "%s", model);
    snprintf(p->job_id, sizeof p->job_id, "%s", j->id);
    p->version = entry->next_version++;
    p->checkpoint = k->epoch;
    p->forgot = k->forgot;
    snprintf(p->checkpoint_dir, sizeof p->checkpoint_dir, "%s", k->dir);
    p->since_ms = pn_now_ms(c->env);
    snprintf(p->dir, sizeof p->dir, "%s/models/%s/%" PRIu64, c->options.dir, p->model, p->version);
    entry->dirty = true;
    for (size_t i = 0; i < pn_json_length(k->files); i++) {
        struct json_object *e = json_object_new_object();
        char number[16];
        snprintf(number, sizeof number, "%03zu", i);
        pn_json_add_str(e, "name", pn_json_str(pn_json_at(k->files, i), "name", "?"));
        pn_json_add_str(e, "number", number);
        json_object_array_add(p->parts, e);
    }
    c->publication = p;
    return true;
}

struct json_object *pn_publication_plan(struct pn_coordinator *c, const struct pn_node *n) {
    static const char *const storages[] = {"float32", "float16", "int8"};
    struct pn_publication *p = c->publication;
    struct pn_job_run *j = p != NULL ? pn_job_find(c, p->job_id) : NULL;
    if (j == NULL || p->phase != SEGMENTS || !p->alone) return NULL;
    struct json_object *files = json_object_new_array();
    for (size_t i = 0; i < pn_json_length(p->parts); i++)
        if (strcmp(pn_json_str(pn_json_at(p->parts, i), "node", ""), n->name) == 0) json_object_array_add(files, json_object_get(pn_json_at(p->parts, i)));
    if (pn_json_length(files) == 0) {
        json_object_put(files);
        return NULL;
    }
    struct json_object *o = json_object_new_object();
    pn_json_add_u64(o, "version", p->version);
    pn_json_add_str(o, "dir", p->dir);
    pn_json_add_str(o, "storage", storages[j->job.publish_storage]);
    pn_json_add_str(o, "checkpoint_dir", p->checkpoint_dir);
    pn_json_add(o, "files", files);
    return o;
}

/* ---- collecting the dense parameters ---- */
static void save_next(struct pn_publication *p);

static bool gone(struct pn_publication *p) {
    p->in_io = false;
    if (!p->closed) return false;
    free_publication(p);
    return true;
}

static void load_next(struct pn_publication *p);
static void load_statistics(struct pn_publication *p);

static void dense_loaded(struct pn_load *l) {
    struct pn_publication *p = l->owner;
    struct pn_coordinator *c = p->c;
    uint64_t n = 0, dim = 0;
    if (gone(p)) {
        free(l->data);
        return;
    }
    bool ok = l->result == 0 && l->n_bytes >= 16;
    if (ok) {
        memcpy(&n, l->data, 8);
        memcpy(&dim, l->data + 8, 8);
        ok = dim <= 65536 && (dim > 0 || n == 0) && n <= (l->n_bytes - 16) / (8 + dim * 4) && l->n_bytes == 16 + n * (8 + dim * 4);
    }
    for (uint64_t i = 0; ok && i < n; i++) {
        const char *at = l->data + 16 + i * (8 + dim * 4);
        uint64_t key;
        memcpy(&key, at, 8);
        key &= ~PN_STATE_KEY; /* the place in the flat vector */
        ok = key <= p->n_parameters / dim;
        for (uint64_t d = 0; ok && d < dim; d++)
            if (key * dim + d < p->n_parameters) memcpy(&p->parameters[key * dim + d], at + 8 + d * 4, 4);
    }
    free(l->data);
    if (!ok) {
        end(p, 503, "a server's dense parameters cannot be read"); /* p is freed */
        pn_reconcile(c);
        return;
    }
    p->i_file++;
    load_next(p);
}

static void load_next(struct pn_publication *p) {
    struct json_object *e = pn_json_at(p->parts, p->i_file);
    if (e == NULL) {
        load_statistics(p);
        return;
    }
    snprintf(p->path, sizeof p->path, "%s/%s.dense", p->dir, pn_json_str(e, "number", "000"));
    p->load.done = dense_loaded;
    p->load.owner = p;
    p->in_io = true;
    pn_load_start(&p->load, p->c->env, p->path, 1u << 30);
}

/* ---- the small files, the manifest last ---- */
static void saved(struct pn_save *s) {
    struct pn_publication *p = s->owner;
    struct pn_coordinator *c = p->c;
    if (gone(p)) return;
    if (s->result < 0) {
        char text[200];
        snprintf(text, sizeof text, "writing %s: %s", p->name, strerror((int)-s->result));
        end(p, 503, text);
    } else {
        if (p->i_file < 3 + p->n_artifacts) {
            struct json_object *f = json_object_new_object();
            struct pn_digest d;
            char hex[65];
            pn_digest_start(&d);
            pn_digest_add(&d, p->image, p->n_image);
            pn_digest_hex(&d, hex);
            pn_json_add_str(f, "name", p->name);
            pn_json_add_u64(f, "bytes", p->n_image);
            pn_json_add_str(f, "digest", hex);
            json_object_array_add(p->written, f);
        }
        free(p->image);
        p->image = NULL;
        p->i_file++;
        save_next(p);
    }
    pn_reconcile(c);
}

static bool dense_image(struct pn_publication *p, struct pn_job_run *j) {
    struct json_object *blocks = pn_json_get(j->model, "blocks");
    size_t n = pn_json_length(blocks);
    if (n > 256) return false;
    const char *names[256];
    size_t offsets[256], shapes[256][2];
    for (size_t i = 0; i < n; i++) {
        struct json_object *b = pn_json_at(blocks, i), *shape = pn_json_get(b, "shape");
        names[i] = pn_json_str(b, "name", "?");
        offsets[i] = pn_json_u64(b, "offset", 0);
        shapes[i][0] = json_object_get_uint64(pn_json_at(shape, 0));
        shapes[i][1] = json_object_get_uint64(pn_json_at(shape, 1));
        size_t cells;
        if (__builtin_mul_overflow(shapes[i][0], shapes[i][1], &cells) || offsets[i] > p->n_parameters || cells > p->n_parameters - offsets[i]) return false;
    }
    return pn_safetensors_write(p->parameters, n, names, offsets, (const size_t(*)[2])shapes, &p->image, &p->n_image) == PN_OK;
}

static void finish(struct pn_publication *p) {
    struct pn_coordinator *c = p->c;
    struct pn_model_entry *m = pn_model_find(c, p->model, true);
    struct pn_version *v = calloc(1, sizeof *v);
    struct pn_job_run *j = pn_job_find(c, p->job_id);
    if (m == NULL || v == NULL || j == NULL) {
        free(v);
        end(p, 503, "no memory");
        return;
    }
    v->version = p->version;
    v->checkpoint = p->checkpoint;
    v->forgot = p->forgot;
    snprintf(v->job, sizeof v->job, "%s", p->job_id);
    snprintf(v->dir, sizeof v->dir, "%s", p->dir);
    v->next = m->versions;
    m->versions = v;
    m->active = p->version;
    m->publication++;
    m->dirty = true;
    j->version = p->version;
    j->dirty = true;
    if (p->final && j->state == PN_RUNNING && j->phase == PN_PUBLISH) pn_job_end(c, j, PN_SUCCEEDED, ""); /* version and end in one transaction */
    p->phase = COMMIT; /* the asker hears of it when the record is durable */
    pn_log(c->env, PN_INFO, "%s version %" PRIu64 " published from checkpoint %" PRIu64 " of job %s", p->model, p->version, p->checkpoint, p->job_id);
}

static void save_image(struct pn_publication *p) {
    p->save.done = saved;
    p->save.owner = p;
    p->in_io = true;
    pn_save_start(&p->save, p->c->env, p->path, p->image, p->n_image);
}

/* ---- what the pass over the data made ---- */
static void load_artifact(struct pn_publication *p, const struct pn_job_run *j, const char *name, void (*done)(struct pn_load *)) {
    char dir[480], path[560];
    pn_job_folder(p->c, j, dir);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    p->load.done = done;
    p->load.owner = p;
    p->in_io = true;
    pn_load_start(&p->load, p->c->env, path, PN_ARTIFACT_BYTES);
}

/* In each callback first: false: the publication has ended. */
static bool loaded(struct pn_load *l, const struct pn_artifact *a) {
    struct pn_publication *p = l->owner;
    struct pn_coordinator *c = p->c;
    struct pn_error why = {""};
    if (p->closed) free(l->data);
    if (gone(p)) return false;
    if (l->result < 0) pn_fail(&why, PN_IO, "%s: %s", l->path, strerror((int)-l->result));
    if (l->result >= 0 && pn_artifact_verify(a, l->data, l->n_bytes, &why) == PN_OK) return true;
    free(l->data);
    end(p, 503, why.text); /* p is freed */
    pn_reconcile(c);
    return false;
}

/* A vocabulary of the job, about to be one of the version. */
static void vocabulary_loaded(struct pn_load *l) {
    struct pn_publication *p = l->owner;
    if (!loaded(l, &p->artifacts[p->i_file - 3])) return;
    p->image = l->data;
    p->n_image = l->n_bytes;
    save_image(p);
}

static void begin_files(struct pn_publication *p) {
    p->phase = FILES;
    p->i_file = 0;
    save_next(p);
}

static void statistics_loaded(struct pn_load *l) {
    struct pn_publication *p = l->owner;
    if (!loaded(l, &p->file)) return;
    p->statistics = l->data;
    begin_files(p);
}

static void load_statistics(struct pn_publication *p) {
    const struct pn_job_run *j = pn_job_find(p->c, p->job_id);
    struct json_object *s = j != NULL ? pn_json_get(j->model, "statistics") : NULL;
    if (pn_artifact_read(s, &p->file)) {
        load_artifact(p, j, p->file.name, statistics_loaded);
        return;
    }
    p->statistics = strdup(j != NULL ? pn_json_str(j->model, "statistics", "{}") : "{}");
    begin_files(p);
}

/* Fields may have the same vocabulary, and so the same file. */
static bool find_artifacts(struct pn_publication *p) {
    size_t n = 0;
    if (p->statistics == NULL || pn_artifacts_read(p->statistics, &p->artifacts, &n, NULL) != PN_OK) return false;
    for (size_t i = 0; i < n; i++) {
        size_t k = 0;
        while (k < p->n_artifacts && strcmp(p->artifacts[k].name, p->artifacts[i].name) != 0) k++;
        if (k == p->n_artifacts) p->artifacts[p->n_artifacts++] = p->artifacts[i];
    }
    return true;
}

static void save_next(struct pn_publication *p) {
    static const char *const names[] = {"dense.safetensors", "job.yaml", "statistics.json", "manifest.json"};
    static const char *const storages[] = {"float32", "float16", "int8"};
    struct pn_job_run *j = pn_job_find(p->c, p->job_id);
    if (p->i_file == 4 + p->n_artifacts || j == NULL) {
        finish(p);
        return;
    }
    if (p->i_file >= 3 && p->i_file < 3 + p->n_artifacts) {
        snprintf(p->name, sizeof p->name, "%s", p->artifacts[p->i_file - 3].name);
        snprintf(p->path, sizeof p->path, "%s/%s", p->dir, p->name);
        load_artifact(p, j, p->name, vocabulary_loaded);
        return;
    }
    const size_t which = p->i_file < 3 ? p->i_file : 3;
    snprintf(p->name, sizeof p->name, "%s", names[which]);
    snprintf(p->path, sizeof p->path, "%s/%s", p->dir, p->name);
    bool ok = true;
    if (which == 0) {
        ok = dense_image(p, j) && find_artifacts(p);
    } else {
        const char *text = which == 1 ? j->text : p->statistics;
        struct json_object *o = NULL;
        if (which == 3) {
            o = json_object_new_object();
            pn_json_add_u64(o, "format", 1);
            pn_json_add_str(o, "job", j->id);
            pn_json_add_str(o, "model", p->model);
            pn_json_add_u64(o, "version", p->version);
            pn_json_add_u64(o, "checkpoint", p->checkpoint);
            pn_json_add_str(o, "storage", storages[j->job.publish_storage]);
            pn_json_add_u64(o, "published_ms", p->c->env->ops->wall_ms(p->c->env));
            pn_json_add(o, "files", json_object_get(p->written));
            text = pn_json_text(o);
        }
        p->n_image = strlen(text);
        p->image = strdup(text);
        ok = p->image != NULL;
        if (o != NULL) json_object_put(o);
    }
    if (!ok) {
        end(p, 503, "the dense parameters and their blocks, or the statistics and their files, do not fit together");
        return;
    }
    save_image(p);
}

void pn_publication_step(struct pn_coordinator *c) {
    struct pn_publication *p = c->publication;
    if (p == NULL) return;
    struct pn_job_run *j = pn_job_find(c, p->job_id);
    if (p->phase == COMMIT) {
        if (pn_records_flush(c)) end(p, 200, NULL);
        return;
    }
    if (p->in_io) return;
    if (j == NULL || pn_now_ms(c->env) - p->since_ms > DEADLINE_MS) {
        end(p, 503, "the servers did not convert the checkpoint in time");
        return;
    }
    if (p->phase != SEGMENTS) return;
    if (!p->alone) { /* the servers let go of the one before first: they know a publication by its number */
        for (struct pn_node *node = c->nodes; node != NULL; node = node->next)
            if (node->role == PN_ROLE_PS && pn_node_alive(c, node) && pn_json_u64(pn_json_get(node->beat, "snapshot"), "version", 0) == p->version) return;
        p->alone = deal(c, p);
        return;
    }
    size_t n = 0;
    for (struct pn_node *node = c->nodes; node != NULL; node = node->next) {
        struct json_object *s = node->role == PN_ROLE_PS && node->beat != NULL ? pn_json_get(node->beat, "snapshot") : NULL;
        if (s == NULL || pn_json_u64(s, "version", 0) != p->version) continue;
        if (strcmp(pn_json_str(s, "state", ""), "failed") == 0) {
            end(p, 503, pn_json_str(s, "error", "a server failed"));
            return;
        }
        if (strcmp(pn_json_str(s, "state", ""), "written") == 0) n += pn_json_length(pn_json_get(s, "files"));
    }
    if (n < pn_json_length(p->parts)) return;
    for (struct pn_node *node = c->nodes; node != NULL; node = node->next) {
        struct json_object *s = node->role == PN_ROLE_PS && node->beat != NULL ? pn_json_get(node->beat, "snapshot") : NULL;
        if (s == NULL || pn_json_u64(s, "version", 0) != p->version) continue;
        struct json_object *files = pn_json_get(s, "files");
        for (size_t i = 0; i < pn_json_length(files); i++) json_object_array_add(p->written, json_object_get(pn_json_at(files, i)));
    }
    p->n_parameters = pn_json_u64(j->model, "parameters", 0);
    if (p->n_parameters > (1u << 28)) p->n_parameters = 0;
    p->parameters = calloc(p->n_parameters + 1, sizeof(float));
    p->phase = DENSE;
    if (p->parameters == NULL) end(p, 503, "no memory for the dense parameters");
    else load_next(p);
}

bool pn_model_rollback(struct pn_coordinator *c, struct pn_model_entry *m, uint64_t version, struct pn_error *err) {
    (void)c;
    struct pn_version *v = m->versions;
    while (v != NULL && v->version != m->active) v = v->next;
    if (version == 0 && v != NULL && v->next != NULL) version = v->next->version;
    for (v = m->versions; v != NULL && v->version != version; v = v->next) {}
    if (v == NULL) {
        pn_fail(err, PN_NOT_FOUND, "model %s has no %s to go back to", m->name, version == 0 ? "earlier version" : "such version");
        return false;
    }
    m->active = version;
    m->publication++; /* a rollback is a publication: replicas never go back by themselves */
    m->dirty = true;
    return true;
}
