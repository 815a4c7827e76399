/* A job file from anybody: refused with a line or read; never a crash; what is read prints and reads back. */
#include <stdlib.h>
#include <string.h>
#include "job/job.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    static struct pn_job job, again;
    struct pn_error err;
    char *report = NULL;
    if (pn_job_parse(&job, (const char *)data, size, "job.yaml", "/", &report, &err) == PN_OK) {
        char *text = pn_job_text(&job);
        if (text != NULL && pn_job_parse(&again, text, strlen(text), "again.yaml", NULL, NULL, &err) != PN_OK) __builtin_trap();
        if (text != NULL) pn_job_free(&again);
        free(text);
        pn_job_free(&job);
    }
    free(report);
    return 0;
}
