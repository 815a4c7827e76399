/* spec.data.stream: one pass in the order of the data, each batch measured before it is learned. */
#include "job/sections.h"

#define KEYS(...) (const char *const[]){__VA_ARGS__, NULL}

void pn_job_read_stream(struct pn_yaml *y, struct fy_node *n, struct pn_job *job) {
    if (n == NULL || !pn_yaml_keys(y, n, "stream", KEYS("window", "segment", "guard"), NULL)) return;
    struct pn_stream_spec *s = &job->stream;
    s->window = 10000;
    pn_yaml_count32(y, pn_yaml_get(n, "window"), "window", 100, 100000000, &s->window);
    pn_yaml_text(y, pn_yaml_get(n, "segment"), "segment", s->segment, sizeof s->segment);
    struct fy_node *guard = pn_yaml_get(n, "guard");
    if (guard != NULL && pn_yaml_keys(y, guard, "guard", KEYS("labelRate", "calibration", "after"), NULL)) {
        s->guard_after = 5;
        pn_yaml_real(y, pn_yaml_get(guard, "labelRate"), "labelRate", 1.01, 1e6, &s->guard_rate);
        pn_yaml_real(y, pn_yaml_get(guard, "calibration"), "calibration", 1.01, 1e6, &s->guard_calibration);
        pn_yaml_count32(y, pn_yaml_get(guard, "after"), "after", 1, 100, &s->guard_after);
        if (s->guard_rate <= 0 && s->guard_calibration <= 0) pn_yaml_problem(y, guard, "guard needs labelRate or calibration: by what factor it may differ from the windows before");
    }
    if (job->model == PN_MODEL_AUDIT || job->model == PN_MODEL_EXTERNAL || job->model == PN_MODEL_SASREC || job->loss != PN_LOSS_BCE || pn_format_pairs(job->train.format))
        pn_yaml_problem(y, n, "stream needs a model that learns each row's label by itself (loss bce; not sasrec, ncf, lightgcn, audit or external)");
    if (job->shuffle_buffer > 0) pn_yaml_problem(y, n, "stream goes through the data in its order: shuffle has no place beside it");
    if (job->epochs != 1) pn_yaml_problem(y, n, "stream goes through the data once: training.epochs must be 1");
    if (job->patience > 0) pn_yaml_problem(y, n, "stream and earlyStopping do not go together: a stream has one epoch");
}
