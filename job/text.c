/* A job back as YAML: what other processes and snapshots read. Names are quoted as JSON strings, numbers printed exactly. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "job/job.h"

struct out { char *text; size_t n, room; int failed; };

static void put(struct out *o, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(struct out *o, const char *format, ...) {
    for (int round = 0; round < 2 && !o->failed; round++) {
        va_list args;
        va_start(args, format);
        int k = vsnprintf(o->text == NULL ? NULL : o->text + o->n, o->room - o->n, format, args);
        va_end(args);
        if (k >= 0 && (size_t)k < o->room - o->n) {
            o->n += (size_t)k;
            return;
        }
        size_t room = (o->room + (size_t)k + 1) * 2;
        char *grown = realloc(o->text, room);
        if (grown == NULL) o->failed = 1;
        else {
            o->text = grown;
            o->room = room;
        }
    }
}

static void quoted(struct out *o, const char *text) {
    put(o, "\"");
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c == '"' || *c == '\\') put(o, "\\%c", *c);
        else if (*c < ' ') put(o, "\\x%02x", *c);
        else put(o, "%c", *c);
    }
    put(o, "\"");
}

static void put_seen(struct out *o, const char *begin, const struct pn_data *d) {
    for (uint32_t i = 0; i < d->negatives.n_seen; i++) {
        put(o, "%s", i == 0 ? begin : ", ");
        quoted(o, d->negatives.seen[i]);
    }
    put(o, "]");
}

static void kafka(struct out *o, const struct pn_kafka_spec *k) {
    put(o, ", kafka: {brokers: ");
    quoted(o, k->brokers);
    put(o, ", topic: ");
    quoted(o, k->topic);
    if (k->start == PN_START_OFFSETS)
        for (uint32_t i = 0; i < k->n_offsets; i++) put(o, "%s%llu%s", i == 0 ? ", start: [" : ", ", (unsigned long long)k->offsets[i], i + 1 == k->n_offsets ? "]" : "");
    else put(o, ", start: %s", k->start == PN_START_LATEST ? "latest" : "earliest");
    if (k->end == PN_END_IDLE) put(o, ", end: {idle: %llums}", (unsigned long long)k->idle_ms);
    else put(o, ", end: %s", k->end == PN_END_LATEST ? "latest" : "never");
    for (uint32_t i = 0; i < k->n_properties; i++) {
        put(o, "%s%s: ", i == 0 ? ", properties: {" : ", ", k->properties[i].name);
        quoted(o, k->properties[i].value);
    }
    put(o, k->n_properties > 0 ? "}}" : "}");
}

static void data(struct out *o, const char *name, const struct pn_data *d) {
    static const char *const formats[] = {"csv", "criteo", "movielens", "audit", "libfm", "ncf", "lightgcn", "sasrec", "s3rec", "jsonl", "parquet"}, *const parts[] = {"all", "train", "test", "held", "validation"};
    if (!d->present) return;
    put(o, "    %s: {format: %s", name, d->tabs ? "tsv" : formats[d->format]);
    if (d->n_rows > 0) put(o, ", rows: %llu", (unsigned long long)d->n_rows);
    if (d->first_row > 0) put(o, ", firstRow: %llu", (unsigned long long)d->first_row);
    const bool topic = d->kafka.brokers[0] != '\0';
    if (topic) kafka(o, &d->kafka);
    if (d->format != PN_FORMAT_AUDIT) {
        if (!topic) {
            put(o, d->n_more > 0 ? ", uri: [" : ", uri: ");
            quoted(o, d->path);
            for (uint32_t i = 0; i < d->n_more; i++) {
                put(o, ", ");
                quoted(o, d->more[i]);
            }
            if (d->n_more > 0) put(o, "]");
        }
        put(o, ", label: ");
        quoted(o, d->label);
        put(o, ", threshold: %.17g", d->threshold);
        if (!topic) {
            put(o, ", split: ");
            quoted(o, d->split);
            put(o, ", part: %s", parts[d->part]);
        }
        if (d->history > 0) put(o, ", history: %u", d->history);
        for (const char *c = d->columns, *end; *c; c = *end ? end + 1 : end) {
            char name[64];
            end = strchr(c, ',') != NULL ? strchr(c, ',') : c + strlen(c);
            snprintf(name, sizeof name, "%.*s", (int)(end - c), c);
            put(o, c == d->columns ? ", columns: [" : ", ");
            quoted(o, name);
            if (*end == '\0') put(o, "]");
        }
        if (d->hold_out > 0) put(o, ", holdOut: {perUser: %u, seed: %llu}", d->hold_out, (unsigned long long)d->hold_out_seed);
        if (d->rank_all) put_seen(o, ", rankAll: [", d);
        if (d->negatives.per_positive > 0) {
            const bool pairs = d->format != PN_FORMAT_LIBFM; /* or sequences: nothing to name */
            put(o, ", negatives: {perPositive: %u, seed: %llu, redraw: %s", d->negatives.per_positive, (unsigned long long)d->negatives.seed, d->negatives.redraw ? "true" : "false");
            if (!pairs) {
                put(o, ", column: ");
                quoted(o, d->negatives.column);
                put(o, ", group: ");
                quoted(o, d->negatives.group);
            }
            if (d->negatives.power > 0) put(o, ", distribution: popularity, power: %.17g", d->negatives.power);
            if (d->negatives.any) put(o, ", unseen: false");
            if (d->negatives.n_seen > 0) put_seen(o, ", seen: [", d);
            put(o, "}");
        }
    }
    put(o, "}\n");
}

static void stream(struct out *o, const struct pn_stream_spec *s) {
    if (s->window == 0) return;
    put(o, "    stream: {window: %u", s->window);
    if (s->segment[0] != '\0') put(o, ", segment: ");
    if (s->segment[0] != '\0') quoted(o, s->segment);
    if (s->guard_after > 0) {
        put(o, ", guard: {after: %u", s->guard_after);
        if (s->guard_rate > 0) put(o, ", labelRate: %.17g", s->guard_rate);
        if (s->guard_calibration > 0) put(o, ", calibration: %.17g", s->guard_calibration);
        put(o, "}");
    }
    put(o, "}\n");
}

static void vocabulary(struct out *o, const struct pn_job *job, const struct pn_vocabulary_spec *v) {
    if (v->kind == PN_VOCABULARY_NONE) return;
    put(o, ", vocabulary: {");
    if (v->kind == PN_VOCABULARY_COUNTED) put(o, "minCount: %u, maxSize: %u, rows: %llu", v->min_count, v->max_size, (unsigned long long)v->rows);
    if (v->kind == PN_VOCABULARY_FILE) put(o, "file: ");
    if (v->kind == PN_VOCABULARY_FILE) quoted(o, v->path);
    if (v->kind == PN_VOCABULARY_OF) put(o, "of: ");
    if (v->kind == PN_VOCABULARY_OF) quoted(o, job->fields[v->of].name);
    for (const char *at = v->values, *end; v->kind == PN_VOCABULARY_GIVEN && *at; at = end + 1) {
        char value[PN_VOCABULARY_VALUE];
        end = strchr(at, '\n'); /* there is one behind each */
        snprintf(value, sizeof value, "%.*s", (int)(end - at), at);
        put(o, at == v->values ? "values: [" : ", ");
        quoted(o, value);
        if (end[1] == '\0') put(o, "]");
    }
    put(o, ", oov: %u}", v->oov);
}

static void field(struct out *o, const struct pn_job *job, const struct pn_field *f) {
    static const char *const types[] = {"categorical", "multi", "numeric", "cross", "sequence", "leaves"}, *const pools[] = {"sum", "mean", "sqrtn"};
    put(o, "    - {name: ");
    quoted(o, f->name);
    put(o, ", column: ");
    quoted(o, f->column);
    put(o, ", type: %s", types[f->type]);
    if (pn_field_keyed(f)) {
        put(o, ", table: ");
        quoted(o, job->tables[f->i_table].name);
        put(o, ", hash: {resolved: %llu}", (unsigned long long)f->hash_seed);
    }
    if (f->buckets > 0) put(o, ", buckets: %u", f->buckets);
    if (f->log1p || f->standardize) put(o, ", transform: [%s%s%s]", f->log1p ? "log1p" : "", f->log1p && f->standardize ? ", " : "", f->standardize ? "standardize" : "");
    if (f->clip) put(o, ", clip: [%.17g, %.17g]", f->clip_low, f->clip_high);
    if (f->missing[0] != '\0') put(o, ", default: ");
    if (f->missing[0] != '\0') quoted(o, f->missing);
    if (f->criteo_log) put(o, ", criteoLog: true");
    if (f->std > 0) put(o, ", mean: %.17g, std: %.17g", f->mean, f->std);
    for (size_t i = 0; i < f->n_boundaries; i++) put(o, "%s%.17g%s", i == 0 ? ", bucketize: [" : ", ", f->boundaries[i], i + 1 == f->n_boundaries ? "]" : "");
    if (f->quantiles > 0) put(o, ", bucketize: {quantiles: %u, rows: %llu}", f->quantiles, (unsigned long long)f->quantile_rows);
    vocabulary(o, job, &f->vocabulary);
    if (f->type == PN_FIELD_MULTI || f->type == PN_FIELD_SEQUENCE) {
        char separator[2] = {f->separator, 0};
        put(o, ", separator: ");
        quoted(o, separator);
        if (f->type == PN_FIELD_MULTI) put(o, ", pooling: %s", pools[f->pooling]);
        if (f->weighted) put(o, ", weighted: true");
        put(o, ", maxLength: %u", f->max_length);
    }
    for (uint32_t i = 0; i < f->n_crossed; i++) {
        put(o, "%s", i == 0 ? ", of: [" : ", ");
        quoted(o, job->fields[f->crossed[i]].name);
        if (i + 1 == f->n_crossed) put(o, "]");
    }
    const struct pn_forest_spec *s = &job->forest;
    if (f->type == PN_FIELD_LEAVES)
        put(o, ", trees: %u, depth: %u, minCount: %u, rows: %llu, rate: %.9g, l2: %.9g, minWeight: %.9g, rowShare: %.9g, columnShare: %.9g", s->trees, s->depth, s->min_count,
            (unsigned long long)s->rows, (double)s->rate, (double)s->l2, (double)s->min_weight, (double)s->row_share, (double)s->column_share);
    put(o, "}\n");
}

static void sequence(struct out *o, const struct pn_job *job) {
    const struct pn_sequence_spec *s = &job->sequence;
    for (uint32_t i = 0; i < s->n_fields; i++) {
        put(o, i == 0 ? ", sequence: {fields: [" : ", ");
        quoted(o, job->fields[s->fields[i]].name);
    }
    if (s->n_fields == 0) return;
    put(o, "], blocks: %u, heads: %u, width: %u, feedForward: %u, recent: %u, positions: %s, dropout: %.9g", s->blocks, s->heads, s->width, s->feed_forward, s->recent,
        s->positions ? "true" : "false", (double)s->dropout);
    if (s->candidate > 0) {
        put(o, ", candidate: ");
        quoted(o, job->fields[s->candidate - 1].name);
    }
    const struct { const char *key; uint32_t i; } roles[] = {{"target", s->target}, {"negatives", s->negatives}, {"seen", s->seen}};
    for (size_t i = 0; i < 3; i++) {
        if (roles[i].i == 0) continue;
        put(o, ", %s: ", roles[i].key);
        quoted(o, job->fields[roles[i].i - 1].name);
    }
    if (job->model == PN_MODEL_SASREC) put(o, ", loss: %s", s->softmax ? "softmax" : "bce");
    put(o, "}");
}

static void heads(struct out *o, const struct pn_job *job) {
    for (size_t i = 0; i < job->n_heads; i++) {
        put(o, "%s{name: ", i == 0 ? ", heads: [" : ", ");
        quoted(o, job->heads[i].name);
        if (job->heads[i].column[0] != '\0') put(o, ", column: ");
        if (job->heads[i].column[0] != '\0') quoted(o, job->heads[i].column);
        put(o, ", threshold: %.17g, weight: %.9g}%s", job->heads[i].threshold, (double)job->heads[i].weight, i + 1 == job->n_heads ? "]" : "");
    }
    if (job->distill.weight <= 0) return;
    put(o, ", distill: {column: ");
    quoted(o, job->distill.column);
    put(o, ", weight: %.9g, temperature: %.9g}", (double)job->distill.weight, (double)job->distill.temperature);
}

static void optimizer(struct out *o, const struct pn_optimizer_spec *s) {
    static const char *const names[] = {"sgd", "adagrad", "rowwise-adagrad", "adam", "ftrl", "sgd", "adamw"}, *const shapes[] = {"linear", "cosine", "exponential"};
    put(o, "{name: %s, lr: %.9g, epsilon: %.9g, initialAccumulator: %.9g, beta1: %.9g, beta2: %.9g, l1: %.9g, %s: %.9g, beta: %.9g", names[s->kind], (double)s->lr,
        (double)s->epsilon, (double)s->initial_accumulator, (double)s->beta1, (double)s->beta2, (double)s->l1, s->kind == PN_ADAMW ? "weightDecay" : "l2", (double)s->l2, (double)s->ftrl_beta);
    if (s->kind == PN_MOMENTUM) put(o, ", momentum: %.9g, nesterov: %s", (double)s->momentum, s->nesterov ? "true" : "false");
    if (s->decay_cap > 0) put(o, ", decay: lazy, decayCap: %u", s->decay_cap);
    if (s->warmup > 0 || s->lr_steps > 0) {
        put(o, ", schedule: {shape: %s, floor: %.9g", shapes[s->shape], (double)s->lr_floor);
        if (s->warmup > 0) put(o, ", warmup: %u", s->warmup);
        if (s->lr_steps > 0) put(o, ", steps: %u", s->lr_steps);
        put(o, "}");
    }
    put(o, "}");
}

static void tables(struct out *o, const struct pn_job *job) {
    static const char *const inits[] = {"zero", "constant", "uniform", "normal", "xavier"};
    put(o, "  tables:\n");
    for (size_t i = 0; i < job->i_dense_table; i++) {
        const struct pn_table_spec *t = &job->tables[i];
        put(o, "    ");
        quoted(o, t->name);
        put(o, ": {");
        if (job->model == PN_MODEL_EXTERNAL) put(o, "dim: %u, ", t->dim);
        put(o, "optimizer: ");
        optimizer(o, &t->optimizer);
        if (t->init == PN_INIT_ZERO) put(o, ", init: zero");
        else put(o, ", init: {%s: %.9g}", inits[t->init], (double)t->init_scale);
        if (t->storage != PN_CODEC_FLOAT32) put(o, ", storage: %s", pn_codec_names[t->storage]);
        if (t->admit_probability > 0) put(o, ", admission: {probability: %.9g}", (double)t->admit_probability);
        else if (t->admit_count > 0) put(o, ", admission: {count: %u, counters: %u}", t->admit_count, t->admit_counters);
        const bool evicts = t->evict_age > 0 || t->evict_rows > 0;
        if (evicts) put(o, ", eviction: {");
        if (t->evict_age > 0) put(o, "ageSteps: %llu%s", (unsigned long long)t->evict_age, t->evict_rows > 0 ? ", " : "");
        if (t->evict_rows > 0) put(o, "maxRows: %llu", (unsigned long long)t->evict_rows);
        if (evicts) put(o, "}");
        if (t->preallocate > 0) put(o, ", preallocate: %llu", (unsigned long long)t->preallocate);
        if (t->memory > 0) put(o, ", memory: %llu", (unsigned long long)t->memory);
        const struct pn_import_spec *m = &job->imports[i];
        if (m->keys[0] != '\0') {
            put(o, ", import: {keys: ");
            quoted(o, m->keys);
            put(o, ", rows: ");
            quoted(o, m->rows);
            if (m->feature > 0) put(o, ", feature: ");
            if (m->feature > 0) quoted(o, job->fields[m->feature - 1].name);
            put(o, "}");
        }
        put(o, ", seed: %llu}\n", (unsigned long long)t->init_seed);
    }
}

static void privacy(struct out *o, const struct pn_job *job) {
    const struct pn_privacy_spec *v = &job->privacy;
    if (v->rows == 0) return;
    put(o, "  privacy: {");
    if (v->per_user > 0) {
        put(o, "unit: user, examplesPerUser: %u, userField: ", v->per_user);
        quoted(o, v->user_field);
        put(o, ", ");
    }
    put(o, "%s: %llu, epsilon: %.17g, delta: %.17g, budget: %.17g, clip: %.9g, noiseMultiplier: %.17g, selection: %s, dataset: ", v->per_user > 0 ? "users" : "rows", (unsigned long long)v->rows, v->epsilon,
        v->delta, v->limit, (double)v->clip, v->noise, (const char *const[]){"dense", "fest", "adafest"}[v->selection]);
    quoted(o, v->dataset);
    if (v->selection != PN_SELECT_DENSE) put(o, ", voteClip: %.17g, voteNoise: %.17g, threshold: %.17g", v->vote_clip, v->vote_noise, v->threshold);
    if (v->selection == PN_SELECT_ADAFEST && v->choice.threshold > 0) put(o, ", frequent: {threshold: %.17g, noise: %.17g, clip: %.17g}", v->choice.threshold, v->choice.noise, v->choice.clip);
    if (v->secure)
        put(o, ", aggregation: secure, minWorkers: %u, maxDropout: %.17g, maxColluding: %.17g, phaseTimeout: %llums, data: %s", v->min_workers, v->max_dropout, v->max_colluding,
            (unsigned long long)v->phase_ms, v->own_data ? "own" : "dealt");
    if (v->secure && v->selection != PN_SELECT_DENSE) put(o, ", voteBuckets: %u", v->vote_buckets);
    put(o, "}\n");
}

void pn_job_stop_by(const struct pn_job *job, char text[24]) {
    const char *const by = pn_metric_names[job->stop_by];
    if (job->stop_by >= PN_BY_HR && job->stop_by <= PN_BY_RECALL) snprintf(text, 24, "%s@%u", by, job->rank_k);
    else snprintf(text, 24, "%s", by);
}

uint32_t pn_job_rank_k(const struct pn_job *job) { return job->rank_k > 0 ? job->rank_k : job->model == PN_MODEL_SASREC ? 10 : 0; }

char *pn_job_text(const struct pn_job *job) {
    static const char *const models[] = {"lr", "fm", "deepfm", "audit", "external", "wide_deep", "dcn_v2", "dlrm", "mf", "gmf", "mlp", "neumf", "sasrec"},
                             *const interactions[] = {"dot", "cat", "both"}, *const modes[] = {"async", "sync", "ssp"}, *const storages[] = {"float32", "float16", "int8"};
    static const char *const losses[] = {"bce", "bpr", "hinge", "softmax", "in-batch-softmax"};
    struct out o = {0};
    put(&o, "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: ");
    quoted(&o, job->name);
    put(&o, "}\nspec:\n  data:\n");
    data(&o, "train", &job->train);
    data(&o, "validation", &job->validation);
    data(&o, "test", &job->test);
    const bool external = job->model == PN_MODEL_EXTERNAL;
    if (external) put(&o, "    external: true\n");
    else put(&o, "    shuffle: {buffer: %llu, seed: %llu}\n", (unsigned long long)job->shuffle_buffer, (unsigned long long)job->shuffle_seed);
    stream(&o, &job->stream);
    if (external) {
        tables(&o, job);
        put(&o, "  model: {name: external}\n");
    } else if (job->model == PN_MODEL_AUDIT) {
        put(&o, "  audit: {keys: %llu", (unsigned long long)job->audit_keys);
        if (job->tables[0].memory > 0) put(&o, ", memory: %llu", (unsigned long long)job->tables[0].memory);
        put(&o, "}\n  model: {name: audit}\n");
    } else {
        put(&o, "  features:\n");
        for (size_t i = 0; i < job->n_fields; i++) field(&o, job, &job->fields[i]);
        tables(&o, job);
        put(&o, "  model: {name: %s, embeddingDim: %u, linearScale: %.9g, dropout: %.9g", job->forest.wanted ? "gbdt+lr" : models[job->model], job->embedding_dim, (double)job->linear_scale,
            (double)job->dropout);
        if (job->embedding_dropout > 0) put(&o, ", embeddingDropout: %.9g", (double)job->embedding_dropout);
        if (job->embedding_l2 > 0) put(&o, ", embeddingL2: %.9g", (double)job->embedding_l2);
        if (job->norm != PN_NORM_NONE) put(&o, ", norm: %s", job->norm == PN_NORM_LAYER ? "layer" : "batch");
        if (job->model == PN_MODEL_DCN_V2) put(&o, ", cross: %u, structure: %s", job->n_cross, job->stacked ? "stacked" : "parallel");
        if (job->model == PN_MODEL_DLRM) put(&o, ", interaction: %s", interactions[job->interaction]);
        if (job->model == PN_MODEL_NEUMF) put(&o, ", mlpDim: %u", job->mlp_dim);
        if (job->model == PN_MODEL_MF && !job->bias) put(&o, ", bias: false%s", job->cosine ? ", similarity: cosine" : "");
        for (size_t i = 0; i < job->n_starts; i++) {
            put(&o, "%s{snapshot: ", i == 0 ? ", start: [" : ", ");
            quoted(&o, job->starts[i].path);
            put(&o, ", alpha: %.17g}%s", job->starts[i].alpha, i + 1 == job->n_starts ? "]" : "");
        }
        for (size_t i = 0; i < job->n_bottom; i++) put(&o, "%s%u%s", i == 0 ? ", bottom: [" : ", ", job->bottom[i], i + 1 == job->n_bottom ? "]" : "");
        for (size_t i = 0; i < job->n_hidden; i++) put(&o, "%s%u%s", i == 0 ? ", hidden: [" : ", ", job->hidden[i], i + 1 == job->n_hidden ? "]" : "");
        sequence(&o, job);
        heads(&o, job);
        put(&o, "}\n");
    }
    if (!external) {
        put(&o, "  optimizer: ");
        optimizer(&o, &job->tables[job->i_dense_table].optimizer);
    }
    put(&o, "\n  training: {");
    if (!external) put(&o, "batchSize: %u, epochs: %u, ", job->batch_size, job->epochs);
    if (job->max_steps > 0) put(&o, "maxSteps: %llu, ", (unsigned long long)job->max_steps);
    if (job->n_producers > 0) put(&o, "dataShards: %u, ", job->n_producers);
    if (job->patience > 0) {
        char by[24];
        pn_job_stop_by(job, by);
        put(&o, "earlyStopping: {metric: %s, patience: %u, minDelta: %.17g}, ", by, job->patience, job->min_delta);
    }
    if (job->loss != PN_LOSS_BCE) {
        put(&o, "loss: {name: %s", losses[job->loss]);
        if (job->loss == PN_LOSS_HINGE) put(&o, ", margin: %.9g", (double)job->margin);
        if (job->loss == PN_LOSS_SOFTMAX || job->loss == PN_LOSS_IN_BATCH) put(&o, ", temperature: %.9g, logQ: %s", (double)job->temperature, job->log_q ? "true" : "false");
        put(&o, "}, ");
    }
    char device[PN_DEVICE_TEXT];
    if (job->device != PN_DEVICE_AUTO) put(&o, "device: \"%s\", ", pn_job_device_text(job, device));
    if (job->cache_rows > 0) put(&o, "deviceCache: {rows: %llu, staleness: %u}, ", (unsigned long long)job->cache_rows, job->cache_staleness);
    if (job->precision != PN_FLOAT32) put(&o, "precision: %s, ", (const char *const[]){"float32", "tf32", "bfloat16", "float16"}[job->precision]);
    if (job->clip_norm > 0) put(&o, "clipNorm: %.9g, ", (double)job->clip_norm);
    put(&o, "seed: %llu, inFlight: %u, codec: %s, consistency: {mode: %s, ack: %s", (unsigned long long)job->seed, job->max_in_flight, pn_codec_names[job->codec], modes[job->consistency],
        job->ack_durable ? "durable" : "applied");
    if (job->consistency == PN_SSP) put(&o, ", staleness: %llu", (unsigned long long)job->staleness);
    put(&o, "}}\n  checkpoint: {");
    if (job->checkpoint_every_ms > 0) put(&o, "every: %llums, ", (unsigned long long)job->checkpoint_every_ms);
    put(&o, "keep: %u, ringBytes: %llu}\n  failurePolicy: {maxRestarts: %u}\n  validation: {everyEpoch: %s", job->checkpoint_keep,
        (unsigned long long)job->ring_bytes, job->max_restarts, job->evaluate_every_epoch ? "true" : "false");
    if (job->group_by > 0) {
        put(&o, ", groupBy: ");
        quoted(&o, job->fields[job->group_by - 1].name);
    }
    if (job->rank_k > 0) put(&o, ", metrics: [hr@%u]", job->rank_k);
    put(&o, "}\n");
    privacy(&o, job);
    if (job->publish) {
        put(&o, "  publish: {model: ");
        quoted(&o, job->publish_model);
        put(&o, ", storage: %s, gate: {minAuc: %.17g}}\n", storages[job->publish_storage], job->publish_min_auc);
    }
    if (o.failed) {
        free(o.text);
        return NULL;
    }
    return o.text;
}
