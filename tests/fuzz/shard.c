/* What a shard does with requests from the network: several frames in a row whose checksum is right, in one of two forms. Raw: the bytes are header and body.
 * Built: the bytes choose the fields of a request, so that counts, keys and values behind a good header are reached. One table of plain pushes, one with int8
 * rows and admission, one with a second tier; two producers. */
#include <math.h>
#include "tests/unit/ps/util.h"

static const char job[] =
    "apiVersion: pinion/v1\nkind: TrainingJob\nmetadata: {name: t}\nspec:\n  data:\n    train: {format: csv, uri: /nowhere/a.csv, label: y}\n"
    "  features:\n    - {name: a, type: categorical, table: a}\n    - {name: b, type: categorical, table: b}\n    - {name: c, type: categorical, table: c}\n"
    "  tables: {b: {storage: int8, admission: {count: 2}, optimizer: {name: adam}}, c: {memory: 64Ki}, defaults: {eviction: {ageSteps: 5}}}\n"
    "  model: {name: fm, embeddingDim: 3}\n  training: {batchSize: 32, codec: %s, consistency: {mode: %s}}\n";

struct input { const uint8_t *p, *end; };
static uint64_t take(struct input *in, size_t n) {
    uint64_t v = 0;
    if ((size_t)(in->end - in->p) < n) n = (size_t)(in->end - in->p);
    memcpy(&v, in->p, n);
    in->p += n;
    return v;
}

static struct pn_msg *raw(struct fake *f, struct input *in, size_t n) {
    if ((size_t)(in->end - in->p) < n) n = (size_t)(in->end - in->p);
    struct pn_msg *m = fake_message(&f->env, PN_ENVELOPE_BYTES + n);
    memset(m->data, 0, PN_ENVELOPE_BYTES);
    memcpy(m->data + PN_ENVELOPE_BYTES, in->p, n);
    in->p += n;
    m->data[5] = (uint8_t)(PN_PULL + take(in, 1) % 6);
    m->data[8] = TERM;
    const uint32_t header = (uint32_t)(take(in, 1) * 8);
    memcpy(m->data + 24, &header, 4);
    return m;
}

static struct pn_msg *built(struct fake *f, struct input *in) {
    static const enum pn_kind kinds[] = {PN_PULL, PN_PUSH, PN_PUSH, PN_SEED};
    struct pn_writer w;
    uint64_t tables[4], counts[4], told[4];
    const size_t n_parts = take(in, 1) % 5;
    pn_write_start(&w, kinds[take(in, 1) % 4], TERM - (take(in, 1) % 16 == 15), take(in, 1));
    pn_write_str(&w, "job", take(in, 1) % 16 == 15 ? "other" : "j");
    pn_write_u64(&w, "producer", take(in, 1) % 4);
    pn_write_u64(&w, "incarnation", take(in, 1) % 3);
    pn_write_u64(&w, "step", take(in, 1) % 100);
    pn_write_u64(&w, "clock", take(in, 1) % 100);
    pn_write_u64(&w, "last", take(in, 1) % 32 == 31);
    size_t body_bytes = 0;
    for (size_t i = 0; i < n_parts; i++) {
        tables[i] = take(in, 1) % 6;
        counts[i] = take(in, 1) % 32;
        told[i] = take(in, 1) % 16 == 15 ? take(in, 8) : counts[i]; /* what the header says may not be what is there */
        body_bytes += counts[i] * 8 + pn_pad8(counts[i] * 4 * 4);
    }
    pn_write_u64s(&w, "tables", tables, n_parts);
    pn_write_u64s(&w, "counts", told, n_parts);
    uint8_t *body;
    struct pn_msg *m = pn_write_finish(&w, &f->env, body_bytes, &body);
    if (m == NULL) return NULL;
    memset(body, 0, body_bytes);
    for (size_t i = 0; i < n_parts; i++) {
        uint64_t keys[32];
        for (size_t k = 0; k < counts[i]; k++) keys[k] = take(in, 1);
        if (take(in, 1) % 8 != 7) { /* as it should be: rising by mix, once each */
            qsort(keys, counts[i], sizeof *keys, by_mix);
            for (size_t k = 1; k < counts[i]; k++)
                if (keys[k] == keys[k - 1]) keys[k] += 1000 + k;
            qsort(keys, counts[i], sizeof *keys, by_mix);
        }
        memcpy(body, keys, counts[i] * 8);
        body += counts[i] * 8;
        for (size_t k = 0; k < counts[i] * 4; k++) {
            const uint8_t b = (uint8_t)take(in, 1);
            const float v = b == 255 ? NAN : b == 254 ? 3e38f : ((float)b - 128) / 16;
            memcpy(body + k * 4, &v, 4);
        }
        body += pn_pad8(counts[i] * 4 * 4);
    }
    return m;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const codecs[] = {"float32", "float16", "bfloat16", "int8"}, *const modes[] = {"async", "sync", "ssp, staleness: 2"};
    struct input in = {data, data + size};
    char text[1200];
    struct fake *f = fake_open();
    snprintf(text, sizeof text, job, codecs[take(&in, 1) % 4], modes[take(&in, 1) % 3]);
    char *evicts = strstr(text, ", defaults: {eviction: {ageSteps: 5}}");
    if (take(&in, 1) % 2) memset(evicts, ' ', strlen(", defaults: {eviction: {ageSteps: 5}}")); /* a second tier goes without */
    else memset(strstr(text, ", c: {memory: 64Ki}"), ' ', strlen(", c: {memory: 64Ki}"));
    struct pn_shard *s = open_shard(f, text, 2, 0, ALL);
    if (size > 0 && data[0] >> 4 > 0) s->slice = data[0] >> 4;
    while (in.p < in.end) {
        struct pn_msg *m = take(&in, 1) % 4 == 0 ? raw(f, &in, take(&in, 1)) : built(f, &in);
        if (m == NULL) continue;
        memcpy(m->data, "PNW1\x01", 5);
        pn_msg_seal(m);
        struct pn_frame frame;
        if (pn_frame_open(&frame, m->data, m->n_bytes, NULL) == PN_OK) {
            pn_shard_message(s, PEER, m, &frame);
            pn_frame_close(&frame);
        }
        pn_msg_unref(m);
        fake_drop_sent(f);
        if (in.p < in.end && *in.p % 2) fake_run(f);
        if (in.p < in.end && *in.p % 3 == 0 && !s->broken) fake_advance(f, 0); /* pushes in slices go on */
    }
    fake_run(f);
    pn_shard_close(s);
    fake_close(f);
    return 0;
}
