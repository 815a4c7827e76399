/* spec.training.device: where workers compute, and which of a job's parts several devices cannot share. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "job/sections.h"

/* "0,2,3": rising bits of *set. */
static void read_list(struct pn_yaml *y, struct fy_node *n, const char *text, uint64_t *set) {
    const char *at = text + strlen("cuda:");
    for (;;) {
        char *end = NULL;
        const unsigned long number = *at >= '0' && *at <= '9' ? strtoul(at, &end, 10) : 64;
        if (end == NULL || (*end != ',' && *end != '\0') || number > 63) {
            pn_yaml_problem(y, n, "device \"%s\": cuda:N goes from cuda:0 to cuda:63, several are cuda:0,1 or cuda:all", text);
            return;
        }
        if (*set >> number & 1) {
            pn_yaml_problem(y, n, "device \"%s\" has cuda:%lu twice", text, number);
            return;
        }
        *set |= 1ull << number;
        if (*end == '\0') return;
        at = end + 1;
    }
}

void pn_job_read_device(struct pn_yaml *y, struct fy_node *training, struct pn_job *job) {
    struct fy_node *d = pn_yaml_get(training, "device");
    char text[256] = "auto";
    if (d != NULL && pn_yaml_text(y, d, "device", text, sizeof text)) {
        if (strcmp(text, "cpu") == 0) job->device = PN_DEVICE_CPU;
        else if (strcmp(text, "cuda") == 0 || strcmp(text, "cuda:all") == 0 || (strncmp(text, "cuda:", 5) == 0 && text[5] >= '0' && text[5] <= '9')) {
            job->device = PN_DEVICE_CUDA;
            if (text[4] == '\0') job->devices = 1;
            else if (text[5] == 'a') job->devices = PN_ALL_DEVICES;
            else read_list(y, d, text, &job->devices);
        } else if (strcmp(text, "auto") != 0) pn_yaml_problem(y, d, "device \"%s\" is unknown; allowed: auto, cpu, cuda:N, cuda:N,N,..., cuda:all", text);
    }
    int precision = PN_FLOAT32;
    struct fy_node *p = pn_yaml_get(training, "precision");
    if (p == NULL || !pn_yaml_choice(y, p, "precision", (const char *const[]){"float32", "tf32", "bfloat16", "float16", NULL}, NULL, &precision)) return;
    job->precision = (enum pn_precision)precision;
    if (job->precision != PN_FLOAT32 && job->device == PN_DEVICE_CPU) pn_yaml_problem(y, p, "precision has a meaning on a GPU only: a CPU computes in float32");
}

void pn_job_check_devices(struct pn_yaml *y, struct fy_node *training, const struct pn_job *job) {
    struct fy_node *d = training != NULL ? pn_yaml_get(training, "device") : NULL;
    if (!pn_job_several_devices(job)) return;
    if (job->norm == PN_NORM_BATCH)
        pn_yaml_problem(y, d, "batch norm takes its statistics of the whole batch, whose examples lie on several devices: norm: layer, or one device");
    if (job->sequence.softmax)
        pn_yaml_problem(y, d, "sequence.loss: softmax holds each example against the negatives of the whole batch, whose examples lie on several devices: loss: bce, or one device");
    if (job->loss == PN_LOSS_IN_BATCH) pn_yaml_problem(y, d, "in-batch-softmax holds each example against the whole batch, whose examples lie on several devices: take one device");
    if (job->cache_rows > 0) pn_yaml_problem(y, d, "deviceCache keeps rows on one device; each of several would have its own, of other rows every step: take one device, or leave deviceCache out");
}

const char *pn_job_device_text(const struct pn_job *job, char text[PN_DEVICE_TEXT]) {
    if (job->device != PN_DEVICE_CUDA) return job->device == PN_DEVICE_CPU ? "cpu" : "auto";
    if (job->devices == PN_ALL_DEVICES) return "cuda:all";
    size_t at = 0;
    for (unsigned i = 0; i < 64; i++)
        if (job->devices >> i & 1) at += (size_t)snprintf(text + at, PN_DEVICE_TEXT - at, "%s%u", at == 0 ? "cuda:" : ",", i);
    return text;
}
