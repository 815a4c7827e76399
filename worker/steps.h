/* A producer and its steps, as its files see them: producer.c (life, and what happens next), prepare.c (read, features), pull.c, compute.c, push.c. */
#ifndef PN_WORKER_STEPS_H
#define PN_WORKER_STEPS_H

#include "common/mutant.h"
#include "nn/devices.h"
#include "worker/audit.h"
#include "worker/hot.h"
#include "worker/internal.h"
#include "worker/private.h"

struct pn_step {
    struct pn_step *next;
    struct pn_producer *owner;
    uint64_t step;
    uint32_t epoch;
    bool last;
    enum { PREPARED, LOOKING, PULLING, READY, COMPUTING, ON_DEVICE, COMPUTED, PUSHED } state;
    struct pn_batch batch;
    bool have_batch;
    float *rows[PN_MAX_TABLES], *gradients[PN_MAX_TABLES], *scores;
    uint8_t *segments;           /* of a stream: each row's, for windows.c */
    double loss;
    enum pn_result result;
    struct pn_error why;
    size_t slot; /* of the device */
    struct pn_hot_step hot; /* with a cache on it */
    bool looked_for, empty, keep;
    struct pn_work work;
    uint64_t since_ns;
    struct pn_draws noise;               /* private: of this step */
    uint64_t secret_seed;                /* private: what the net draws goes by an example's place in the batch, which one example more moves for all behind it: nobody may know it */
    struct pn_private_push push;
    /* audit */
    uint64_t keys[PN_AUDIT_RAW];
    size_t n_keys;
};

/* A step's part is brought to one of the devices. */
struct pn_bring {
    struct pn_work work;
    struct pn_step *step;
    size_t i;
    enum pn_result result;
    struct pn_error why;
};

struct pn_producer {
    struct pn_producer *next;
    struct pn_run *run;
    bool closed;
    uint32_t id, incarnation;
    uint64_t next_step, started, limit, first_step, total_steps, gate_epochs, gate_step;
    uint64_t samples, loss_rows, begin_ns, last_ns;
    uint64_t rows_read, rows_an_epoch;   /* rows_an_epoch 0: not known yet */
    double loss_sum;
    bool pooled;                         /* private: all examples are in memory */
    bool all_read, last_started, finished, fenced;
    bool computing;                      /* on the CPU, or a step is being brought to the device */
    bool collecting;                     /* ... or what it has computed is being fetched */
    /* reading */
    struct pn_reader *reader;
    uint32_t epoch;
    uint64_t to_skip, read_since_ns;
    bool reading;
    struct pn_features *features;
    struct pn_step *preparing;
    struct pn_work features_work;
    const struct pn_raw *raw;
    enum pn_result features_result;
    uint64_t n_bad;
    bool in_features;
    /* steps: prepared ones first wait here, then run in order */
    struct pn_step *prepared, *running;
    size_t n_prepared, n_running;
    struct pn_net *net;
    struct pn_devices *devices;          /* NULL: the CPU computes */
    size_t next_slot, on_device;         /* steps brought and not fetched */
    struct pn_bring *bring;              /* each device's */
    size_t bringing;                     /* parts of a step that are being brought */
    bool cached;                         /* its one device holds rows from step to step */
    bool looks[PN_DEVICE_LOOKS];         /* those in use */
    uint64_t life;                       /* run->hot.life that its rows are of */
    uint64_t rows_held, rows_evicted;
    struct pn_device_seconds on_device_before; /* that the run's stages have */
    uint64_t *dense_keys;
    struct pn_private *private;          /* NULL: not a private job */
    struct pn_private_spec private_spec;
    uint64_t drawn;                      /* the last step whose batch was drawn */
    struct pn_windows *windows;  /* NULL: no stream */
    struct json_object *ledger;  /* of a topic: the newest */
};

/* producer.c */
void pn_producer_advance(struct pn_producer *);   /* whatever can go on: after each thing that happened */
bool pn_producer_gone(struct pn_producer *);      /* at the end of a computation, behind its flag: true if the producer is closed; it is freed with the last one */
void pn_producer_fail(struct pn_producer *, enum pn_result, const char *text); /* the run fails */
void pn_producer_stage(struct pn_run *, enum pn_stage, uint64_t since_ns);     /* time that passed in a stage */
bool pn_producer_topic(const struct pn_producer *);   /* reads a topic */
bool pn_producer_audits(const struct pn_producer *);  /* the integer oracle */
bool pn_producer_gated(const struct pn_producer *);   /* the next step is of an epoch that is not open yet */
uint64_t pn_step_seed(const struct pn_step *);        /* of what the net draws in it */
void pn_step_free(struct pn_step *);
void pn_steps_append(struct pn_step **list, struct pn_step *);

void pn_producer_prepare(struct pn_producer *);   /* prepare.c: goes on reading until enough batches are ahead */
void pn_step_start(struct pn_producer *, struct pn_step *); /* pull.c: gives it its number and asks for its rows */
void pn_producer_look_next(struct pn_producer *); /* pull.c: looks for rows that are on the device */
/* compute.c: is what the step pulled, lost or would push no number? Then its result and why say so. It looks at everything: for a step that ends the job. A private step's numbers are not told. */
bool pn_step_diverged(struct pn_step *);
void pn_producer_compute(struct pn_producer *);   /* compute.c: the next steps whose rows are there, in order */
void pn_producer_push(struct pn_producer *);      /* push.c: computed steps, in order */

#endif
