/* A training job: the YAML file of an engineer, read and checked into plain structs.
 * docs/jobs/ has commented examples; every unknown key, wrong type or impossible value is refused with
 * file:line:column, what was found, what is allowed and the nearest known name. */
#ifndef PN_JOB_JOB_H
#define PN_JOB_JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "common/codec.h"
#include "common/result.h"

#define PN_MAX_FIELDS 128
#define PN_MAX_TABLES 16
#define PN_MAX_LAYERS 16
#define PN_MAX_HEADS 3
#define PN_MAX_PRODUCERS 64
#define PN_MAX_STARTS 4
#define PN_MAX_FILES 64
#define PN_MAX_PROPERTIES 16
#define PN_MAX_PARTITIONS 1024

enum pn_format { PN_FORMAT_CSV, PN_FORMAT_CRITEO, PN_FORMAT_MOVIELENS, PN_FORMAT_AUDIT, PN_FORMAT_LIBFM, PN_FORMAT_NCF, PN_FORMAT_LIGHTGCN, PN_FORMAT_SASREC, PN_FORMAT_S3REC, PN_FORMAT_JSONL, PN_FORMAT_PARQUET };
static inline bool pn_format_lists(enum pn_format f) { return f == PN_FORMAT_CSV || f == PN_FORMAT_CRITEO || f == PN_FORMAT_LIBFM || f == PN_FORMAT_JSONL || f == PN_FORMAT_PARQUET; } /* uri may be several files */
static inline bool pn_format_pairs(enum pn_format f) { return f == PN_FORMAT_NCF || f == PN_FORMAT_LIGHTGCN; }
static inline bool pn_format_sequences(enum pn_format f) { return f == PN_FORMAT_SASREC || f == PN_FORMAT_S3REC; }

/* Rows out of a Kafka topic in place of files: a message is a row. Partition p belongs to data shard p % n (worker/reader/topic.h). brokers "": files. */
struct pn_kafka_spec {
    char brokers[400], topic[250]; /* host:port,host:port */
    enum { PN_START_EARLIEST, PN_START_LATEST, PN_START_OFFSETS } start;
    uint64_t offsets[PN_MAX_PARTITIONS]; /* START_OFFSETS: of partitions 0, 1, ...; those behind the list begin at their first message */
    uint32_t n_offsets;
    enum { PN_END_NEVER, PN_END_LATEST, PN_END_IDLE } end; /* LATEST: what was there when the job began */
    uint64_t idle_ms;
    uint32_t n_properties;
    struct { char name[48], value[256]; } properties[PN_MAX_PROPERTIES]; /* of librdkafka; those that say a password hold file:PATH */
};

/* One part of the data. Rows [first_row, first_row + n_rows) of the file (n_rows 0: to the end).
 * CSV: header line, column names; the label column named by `label`.
 * CRITEO: TSV label, I1..I13, C1..C26. Any path may end in .zst or .gz, or exist with that ending.
 * MOVIELENS: path is the folder of ml-100k; `split` names the test file ("u1"); `part` says which side.
 *   split "time": the last tenth of all ratings in time is test, the tenth before it validation.
 *   label = rating >= `threshold`; columns user item age gender occupation zip genres decade hour weekday (and title).
 * LIBFM (libsvm is another name of it): lines `label id:value id:value ...`; worker/reader/libfm.c says which columns they become.
 * NCF (He et al. 2017): lines `user item ...`, and `(user,item) item ...`: a positive row and rows of label 0 behind it. LIGHTGCN: lines `user item item ...`.
 *   Ids are decimal numbers; columns user and item; every pair is a positive row. Negatives come right behind their positive row (worker/reader/pairs.c).
 * SASREC (a line "user item" an action, a user's lines together and in time order) and S3REC (a line "user item item ..." a user): one row a user, see
 *   worker/reader/sequences.c; `part` splits by leave-one-out, `history` is how many actions a row has.
 * JSONL: a JSON object a line; `columns` names the keys that are columns, `label` the label (worker/reader/json_lines.c).
 * PARQUET: read by DuckDB (worker/parquet/), a row as a CSV file's; `columns` names those that are read, without it all that can be values of a feature.
 * AUDIT: no file: the integer oracle (worker/audit.h); n_rows = steps * batch_size of all producers. */
struct pn_data {
    enum pn_format format;
    char path[400];
    char more[PN_MAX_FILES - 1][400]; /* csv, criteo, libfm, jsonl and parquet: files behind it, read as if they were one with it */
    uint32_t n_more;
    struct pn_kafka_spec kafka; /* train only; then there is no path, and columns of csv name all fields in order, the label among them */
    bool tabs;             /* csv: declared as tsv. Of a topic: fields are separated by tabs; a file's header says it by itself */
    char label[64];
    double threshold;      /* label = value >= threshold; 0.5 by default */
    char split[16];
    /* held: ncf, lightgcn with hold_out, where train is all but held; validation: movielens split by time, sasrec and s3rec */
    enum { PN_PART_ALL, PN_PART_TRAIN, PN_PART_TEST, PN_PART_HELD, PN_PART_VALIDATION } part;
    uint32_t history;      /* movielens: columns history and history_rating hold the user's last so many ratings before the row's moment; 0: no such columns.
                            * sasrec, s3rec: the most positions of a row */
    uint64_t first_row, n_rows;  /* of the file: drawn negatives do not count */
    char columns[1000];    /* libfm, jsonl, parquet: names with ',' between; "": none given. libfm: NAME by its place, or ID=NAME, then all are */
    bool weighted;         /* libfm: every feature over the column `features` takes weights. From the features, not from the file */
    /* ncf, lightgcn: of each user's pairs in the file hold_out ones, drawn by hold_out_seed, are the part HELD; a user with no more than these keeps all. 0: none */
    uint32_t hold_out;
    uint64_t hold_out_seed;
    bool rank_all;         /* evaluation: ranks all items of the `seen` files and of this one, without those that the user has in the `seen` files */
    /* Negatives drawn behind each positive row of a libfm file with columns (worker/reader/libfm.c), or of ncf and lightgcn (worker/reader/pairs.c). */
    struct {
        uint32_t per_positive;   /* 0: none */
        char column[64];         /* whose value is drawn */
        char group[64];          /* never one that this column's value was seen with ... */
        char seen[4][400];       /* ... in a positive row of these files, whose values are also what is drawn from */
        uint32_t n_seen;
        uint64_t seed;
        bool redraw;             /* others in each epoch */
        bool any;                /* ncf, lightgcn: also those that the group was seen with (Rendle et al. 2020) */
        double power;            /* ncf, lightgcn: a value is drawn in proportion to its rows ^ power; 0: uniformly */
    } negatives;
    bool present;
};
/* The column of a libfm file's ids that have none of their own. */
#define PN_LIBFM_IDS "features"
/* Is `name` among `columns` (of struct pn_data: names with ',' between)? */
bool pn_data_names(const char *columns, const char *name);
/* Do the columns of a libfm file go by ids (ID=NAME)? */
static inline bool pn_data_by_id(const struct pn_data *d) { return d->format == PN_FORMAT_LIBFM && strchr(d->columns, '=') != NULL; }

enum pn_field_type {
    PN_FIELD_CATEGORICAL,  /* one value -> one key */
    PN_FIELD_MULTI,        /* values separated by `separator` -> keys, pooled */
    PN_FIELD_NUMERIC,      /* number -> dense input after its transforms; with `bucketise` -> one key */
    PN_FIELD_CROSS,        /* the values of other fields together -> one key */
    PN_FIELD_SEQUENCE,     /* values separated by `separator`, oldest first -> keys in order, not pooled: for spec.model.sequence */
    PN_FIELD_LEAVES        /* no column: a leaf of each of the job's boosted trees (forest) -> keys, summed */
};
enum pn_pooling { PN_POOL_SUM, PN_POOL_MEAN, PN_POOL_SQRTN };

/* Values that keep keys of their own; all others share `oov` keys. COUNTED in train, GIVEN in the job, of a FILE of lines, or those OF an earlier field. */
enum pn_vocabulary_kind { PN_VOCABULARY_NONE, PN_VOCABULARY_COUNTED, PN_VOCABULARY_GIVEN, PN_VOCABULARY_FILE, PN_VOCABULARY_OF };
struct pn_vocabulary_spec {
    enum pn_vocabulary_kind kind;
    uint32_t oov;            /* 1 or more */
    uint32_t min_count, max_size; /* counted: values with fewer rows are left out; the most frequent so many are kept */
    uint64_t rows;           /* counted: the first so many rows of train; 0: all */
    char *values;            /* given: a line each, owned by the job */
    char path[400];          /* file */
    uint32_t of;             /* of: index of the field, which has the same hash_seed */
};
#define PN_VOCABULARY_MOST (1u << 24) /* values of a vocabulary */
#define PN_VOCABULARY_VALUE 256       /* bytes of one that the job file gives, with a NUL */

struct pn_field {
    char name[64];          /* also the name of the raw column, unless `column` is given */
    char column[64];
    enum pn_field_type type;
    uint32_t i_table;       /* categorical, multi, cross and bucketised numeric */
    uint32_t buckets;       /* > 0: all values are hashed into so many keys; 0: a key for each value */
    uint64_t hash_seed;     /* resolved: from spec hash.seed and the field's name, or hash.share's name */
    char missing[64];       /* what an empty cell is read as (for numbers also one that is none); "": missing has a key of its own, is the mean where standardized, else 0 */
    /* numeric, in this order */
    bool clip;              /* x to [low, high] */
    double clip_low, clip_high;
    bool log1p;             /* sign(x) * ln(1 + |x|) */
    bool criteo_log;        /* x > 2 ? floor(ln(x)^2) : x, then a key (a bucketise of its own) */
    bool standardize;       /* (x - mean) / std; mean and std from the file or from the first rows of train */
    double mean, std;       /* std 0: to be computed */
    double *boundaries;     /* bucketise: rising; NULL if none */
    size_t n_boundaries;
    uint32_t quantiles;     /* bucketise: > 0: boundaries that cut the numbers of train into so many parts, not known before they were counted */
    uint64_t quantile_rows; /* of the first so many rows; 0: of all */
    struct pn_vocabulary_spec vocabulary; /* categorical, multi, sequence */
    char separator;
    bool weighted;          /* multi: a value is VALUE:WEIGHT (VALUE alone: 1), and its row counts so many times; pooling is SUM */
    enum pn_pooling pooling;
    uint32_t max_length;    /* multi: values beyond are dropped; sequence: the last ones are kept */
    uint32_t crossed[4], n_crossed; /* indices of earlier fields */
};

/* Has keys, and so a table: all but plain numbers. */
static inline bool pn_field_keyed(const struct pn_field *f) { return f->type != PN_FIELD_NUMERIC || f->n_boundaries > 0 || f->quantiles > 0 || f->criteo_log; }

/* Has a vocabulary that lies in a file of the job, once it was made: not those that other fields have, or that the job file holds. */
static inline bool pn_field_files(const struct pn_field *f) { return f->vocabulary.kind == PN_VOCABULARY_COUNTED || f->vocabulary.kind == PN_VOCABULARY_FILE; }

/* Takes several values of a row. */
static inline bool pn_field_listed(const struct pn_field *f) { return f->type == PN_FIELD_MULTI || f->type == PN_FIELD_SEQUENCE; }

/* MOMENTUM: sgd with momentum > 0 in the job file, a kind of its own because its rows have state. */
enum pn_optimizer { PN_SGD, PN_ADAGRAD, PN_ROWWISE_ADAGRAD, PN_ADAM, PN_FTRL, PN_MOMENTUM, PN_ADAMW };
enum pn_schedule_shape { PN_LINEAR, PN_COSINE, PN_EXPONENTIAL };
struct pn_optimizer_spec {
    enum pn_optimizer kind;
    float lr;
    float epsilon;               /* adagrad 1e-10, adam 1e-8 */
    float initial_accumulator;   /* adagrad */
    float beta1, beta2;          /* adam .9 .999 */
    float l1, l2, ftrl_beta;     /* ftrl; l2 also for the others: gradient += l2 * value of touched rows; adamw: value -= lr * l2 * value, apart from the moments */
    float momentum;              /* momentum: share of the velocity that a step keeps */
    bool nesterov;
    /* Schedule of lr, by a producer's own step s: s / warmup below warmup; then from 1 down to lr_floor, which is reached at step warmup + lr_steps and kept. */
    uint32_t warmup, lr_steps;   /* lr_steps 0: no way down */
    float lr_floor;              /* as a share of lr */
    enum pn_schedule_shape shape; /* a straight line, half a cosine, or the same factor each step */
    /* Lazy decay: a row that comes back after k steps gets l2 * min(k, decay_cap), so that rare rows decay as the dense run lets them. 0: off.
     * decay_pace: pushes that one step stands for, all producers together; set by the shard. */
    uint32_t decay_cap, decay_pace;
};
enum pn_init { PN_INIT_ZERO, PN_INIT_CONSTANT, PN_INIT_UNIFORM, PN_INIT_NORMAL, PN_INIT_XAVIER /* uniform(-a, a), a = s * sqrt(6 / (1 + dim)): Glorot and Bengio 2010, one unit in, dim out */ };
struct pn_table_spec {
    char name[64];
    uint32_t dim;                /* embedding floats a row, as the server stores it */
    struct pn_optimizer_spec optimizer;
    enum pn_codec storage;       /* of values in memory and in checkpoints, rounded stochastically at each update; optimizer state is float32 */
    enum pn_init init;
    float init_scale;            /* constant, uniform(-s, s), standard deviation */
    uint64_t init_seed;          /* resolved from the job's seed and the table's name */
    bool explicit_rows;          /* rows exist only by SEED: dense parameters */
    /* admission: a row is made at the admit_count-th push of its key (0, 1: the first), or by a share of pushes; admit_counters bytes of sketch */
    uint32_t admit_count, admit_counters;
    float admit_probability;
    /* eviction: rows not pushed for evict_age steps (0: never); beyond evict_rows rows of the whole table (0: no limit) the least pushed */
    uint64_t evict_age, evict_rows;
    uint64_t memory;             /* bytes of the whole table in memory; rows beyond live in the second tier. 0: all of it */
    uint64_t preallocate;        /* bytes of the whole table that are asked of the system when the servers open it; 0: as it grows */
    bool track;                  /* keeps each row's frequency and last step: for eviction and tiers */
};

/* EXTERNAL: nothing is read or computed here; client processes (client/pinion.h) pull and push the declared tables. */
enum pn_model { PN_MODEL_LR, PN_MODEL_FM, PN_MODEL_DEEPFM, PN_MODEL_AUDIT, PN_MODEL_EXTERNAL, PN_MODEL_WIDE_DEEP, PN_MODEL_DCN_V2, PN_MODEL_DLRM,
                PN_MODEL_MF, PN_MODEL_GMF, PN_MODEL_MLP, PN_MODEL_NEUMF, PN_MODEL_SASREC };
/* Models whose rows begin with a linear weight. */
static inline bool pn_model_wide(enum pn_model m) { return m == PN_MODEL_LR || m == PN_MODEL_FM || m == PN_MODEL_DEEPFM || m == PN_MODEL_WIDE_DEEP; }
/* Models with a tower of hidden layers. */
static inline bool pn_model_deep(enum pn_model m) { return m == PN_MODEL_DEEPFM || m == PN_MODEL_WIDE_DEEP || m == PN_MODEL_DCN_V2 || m == PN_MODEL_DLRM || m == PN_MODEL_MLP || m == PN_MODEL_NEUMF; }
/* Models of two vectors: the first field (the user) and the second (the item). */
static inline bool pn_model_pair(enum pn_model m) { return m >= PN_MODEL_MF && m <= PN_MODEL_NEUMF; }
enum pn_norm { PN_NORM_NONE, PN_NORM_LAYER, PN_NORM_BATCH };
enum pn_interaction { PN_INTERACTION_DOT, PN_INTERACTION_CAT, PN_INTERACTION_BOTH };
/* IN_BATCH: the softmax over the items of the batch's positive rows (matrix factorization only). The others but BCE go by a positive row and those behind it. */
enum pn_loss { PN_LOSS_BCE, PN_LOSS_BPR, PN_LOSS_HINGE, PN_LOSS_SOFTMAX, PN_LOSS_IN_BATCH };
/* By what early stopping judges; log loss and normalised entropy are the better the lower. */
enum pn_metric_kind { PN_BY_AUC, PN_BY_LOGLOSS, PN_BY_HR, PN_BY_NDCG, PN_BY_RECALL, PN_BY_MRR, PN_BY_GAUC, PN_BY_NE, PN_METRIC_KINDS };
extern const char *const pn_metric_names[PN_METRIC_KINDS + 1];   /* as a job file says them, without @K; NULL behind */
enum pn_consistency { PN_ASYNC, PN_SYNC, PN_SSP };
/* Where workers compute: AUTO takes a CUDA device where there is one that can compute the model. */
enum pn_device_kind { PN_DEVICE_AUTO, PN_DEVICE_CPU, PN_DEVICE_CUDA };
#define PN_ALL_DEVICES UINT64_MAX
/* What a GPU computes products of matrices in (sums are float32); a CPU computes in float32 whatever this says. */
enum pn_precision { PN_FLOAT32, PN_TF32, PN_BFLOAT16, PN_FLOAT16 };

/* Boosted trees over the numeric and categorical features (He et al. 2014), trained once before the job's first step. */
struct pn_forest_spec {
    uint32_t trees, depth;       /* trees 0: no such feature */
    uint32_t min_count;          /* categorical values with fewer rows are as one never seen */
    uint64_t rows;               /* the first so many rows of train, at most */
    float rate, l2, min_weight;  /* shrinkage; L2 of a leaf's value; least sum of p (1 - p) in a leaf */
    float row_share, column_share; /* drawn for each tree */
    bool wanted;                 /* the model is called gbdt+lr */
};

struct pn_job {
    char name[64];
    struct pn_data train, validation, test;
    uint64_t shuffle_buffer, shuffle_seed;   /* rows; 0: file order */
    /* One pass in the order of the data; figures of each window of rows, of the scores before they were learned. window 0: off. */
    struct pn_stream_spec {
        uint32_t window;                     /* rows */
        char segment[64];                    /* a raw column: figures for each of its values, too; "": none */
        double guard_rate, guard_calibration; /* the job stops when a window's label rate, calibration differs by more than this factor from the windows before; 0: not */
        uint32_t guard_after;                /* so many windows first */
    } stream;
    struct pn_field fields[PN_MAX_FIELDS];
    size_t n_fields;
    struct pn_forest_spec forest;
    /* Embedding tables as declared, and last the dense parameters' table (name "dense", explicit_rows). The dim of an
     * embedding table is what the model needs a row: LR 1; FM, Wide&Deep, DeepFM and MF with biases 1 + embedding_dim (first: the linear weight); NeuMF embedding_dim + mlp_dim; else embedding_dim;
     * of an external job what the table's own `dim` says. */
    struct pn_table_spec tables[PN_MAX_TABLES];
    size_t n_tables;
    uint32_t i_dense_table;                  /* = n_tables - 1 */
    /* What a table's rows begin with: NumPy files of keys (feature 0) or of values of a feature (1 + its index), and of rows. keys "": nothing. */
    struct pn_import_spec { char keys[400], rows[400]; uint32_t feature; } imports[PN_MAX_TABLES];
    enum pn_model model;
    uint32_t embedding_dim;
    uint32_t mlp_dim;                        /* NeuMF: of a row's floats those of the tower, behind the embedding_dim of the product */
    bool bias;                               /* MF: rows begin with a bias, and there is one for all */
    /* Published models (folders of snapshots) that rows and weights begin with; alpha: the share of a last layer that several have a part of. */
    struct { char path[400]; double alpha; } starts[PN_MAX_STARTS];
    size_t n_starts;
    enum pn_loss loss;
    float margin;                            /* hinge */
    float temperature;                       /* softmax: logits are divided by it */
    bool log_q;                              /* softmax: the log of the probability to be drawn is subtracted (Yi et al. 2019) */
    uint32_t hidden[PN_MAX_LAYERS];
    size_t n_hidden;
    float dropout;                           /* of hidden units */
    bool cosine;                             /* mf: the dot product of vectors brought to length 1 */
    float embedding_l2;                      /* of each example's rows, in the loss; 0: none */
    float embedding_dropout;                 /* of the pooled embeddings */
    enum pn_norm norm;                       /* between each hidden layer and its relu */
    uint32_t n_cross;                        /* DCN-V2: cross layers */
    bool stacked;                            /* DCN-V2: the tower over the crosses, not beside them */
    uint32_t bottom[PN_MAX_LAYERS];          /* DLRM: hidden layers between the numbers and their vector */
    size_t n_bottom;
    enum pn_interaction interaction;         /* DLRM */
    /* A transformer over the user's last actions (nn/sequence.c). An action is the sequence fields' values of one place; lists of unlike length are aligned at their ends. */
    struct pn_sequence_spec {
        uint32_t fields[4], n_fields;        /* indices of sequence fields; 0: none */
        uint32_t candidate;                  /* 1 + index of the field whose embedding stands beside every action; 0: none */
        uint32_t blocks, heads, width, feed_forward;
        uint32_t recent;                     /* outputs of the last so many actions go on unpooled, beside the pooled ones */
        bool positions;                      /* a learned vector for each place, counted from the end */
        float dropout;
        /* SASRec: 1 + index of the sequence fields with each position's next item, with what it is held against, and (0: none) with what a user has had and is not ranked */
        uint32_t target, negatives, seen;
        bool softmax;                        /* loss: softmax over the target and all negatives of the batch; else BCE with each position's own */
    } sequence;
    /* Further labels on the shared layers (spec.model.heads): each a logit of its own over what the main one's last layer sees; the loss is the sum of weight times log loss. */
    struct pn_head_spec {
        char name[24];
        char column[64];                     /* label = number in this column >= threshold; "": the data's own label column, before its threshold */
        double threshold;
        float weight;                        /* the main label has weight 1 */
    } heads[PN_MAX_HEADS];
    size_t n_heads;
    /* Distillation (Hinton et al. 2015) of the main label: (1 - weight) log loss + weight T^2 times the log loss against the teacher's softened score. weight 0: off. */
    struct { char column[64]; float weight, temperature; } distill; /* column: the teacher's logit, of train; a row without a number has its label alone */
    float linear_scale;                      /* the linear term is linear_scale * sum of first weights; > 0, default 1 */
    uint32_t batch_size;
    uint32_t epochs;
    uint64_t max_steps;                      /* a producer; 0: none */
    uint64_t seed;
    enum pn_consistency consistency;
    uint64_t staleness;                      /* ssp */
    bool ack_durable;                        /* true ("safe"): replay ring until durable; false ("fast") */
    uint32_t n_producers;                    /* data shards, fixed for the job's life; 0: number of workers at submission; external: 1 or more */
    enum pn_codec codec;                     /* of embedding rows on the wire; dense parameters always travel as float32 */
    uint32_t max_in_flight;                  /* batches a producer (external: unacknowledged pushes); 1..64 */
    uint32_t max_restarts;
    uint64_t checkpoint_every_ms;            /* 0: only on demand, at the end, and when a replay ring is full */
    uint32_t checkpoint_keep;                /* >= 2 */
    uint64_t ring_bytes;                     /* replay ring of a producer, bytes; default 256 MiB */
    bool evaluate_every_epoch;
    uint32_t group_by;                       /* evaluation: AUC by this field's key, 1 + its index; 0: none */
    /* Early stopping: after each epoch of all producers training waits while validation is measured; patience epochs without min_delta of progress end
     * it, and the job goes back to its best epoch's checkpoint. 0: off. */
    uint32_t patience;
    double min_delta;
    enum pn_metric_kind stop_by;
    uint32_t rank_k;                         /* evaluation: HR, NDCG and recall among the first rank_k of each group, and MRR; 0: none */
    float clip_norm;                         /* a producer's gradient of one batch, dense and rows together, is scaled down to this L2 norm; 0: not */
    enum pn_device_kind device;
    uint64_t devices;                        /* CUDA: bit N is cuda:N; PN_ALL_DEVICES: all that a worker has */
    enum pn_precision precision;
    uint64_t cache_rows;                     /* of each table, kept on a worker's device; 0: none */
    uint32_t cache_staleness;                /* steps that a row is served from there */
    /* publication at the end of the job */
    bool publish;
    char publish_model[64];
    enum { PN_STORE_FLOAT32, PN_STORE_FLOAT16, PN_STORE_INT8 } publish_storage;
    double publish_min_auc;                  /* gate on the validation (else test) AUC; 0: none */
    /* Differential privacy of the training rows (docs/privacy.md): every step's sums are of clipped examples, with noise. */
    struct pn_privacy_spec {
        uint64_t rows;                       /* units of train (rows, or users), a public number; 0: the job is not private */
        uint32_t per_user;                   /* unit: user: at most so many examples of one in a step; 0: the unit is the example */
        char user_field[64];                 /* ... and the raw column that says whose a row is; "": none */
        double epsilon, delta;               /* what the job may spend */
        double limit;                        /* ... and all jobs on this data set, epsilon at the same delta */
        char dataset[64];
        float clip;                          /* L2 norm of a unit's whole gradient */
        double noise;                        /* multiplier of the whole release of a step: of the gradients, or of votes and gradients together */
        enum pn_selection { PN_SELECT_DENSE, PN_SELECT_FEST, PN_SELECT_ADAFEST } selection;
        double vote_clip, vote_noise, threshold; /* adafest: the votes' multiplier, of which and the gradients' `noise` is made; fest: of the one count at the beginning */
        struct { double clip, noise, threshold; } choice; /* adafest: only rows that one count at the beginning chose have votes (Ghazi et al. 2023: both together); threshold 0: all have */
        /* Secure aggregation (docs/secure-aggregation.md): each producer is a data holder, and its vectors leave it masked. */
        bool secure;
        bool own_data;                       /* a holder's train files are its own and read whole; else they are dealt as in other jobs */
        uint32_t min_workers;                /* a sum of fewer is never made */
        double max_dropout, max_colluding;   /* shares of the holders */
        uint32_t vote_buckets;               /* adafest, fest: rows are counted in so many buckets */
        uint64_t phase_ms;                   /* how long a phase of a round waits for those who do not answer */
    } privacy;
    uint64_t audit_keys;                     /* audit: size of the key space */
};

/* Rows begin with a linear weight. */
static inline bool pn_job_wide(const struct pn_job *job) { return pn_model_wide(job->model) || (job->model == PN_MODEL_MF && job->bias); }
/* Embedding floats behind it. */
static inline uint32_t pn_job_width(const struct pn_job *job) { return job->model == PN_MODEL_LR ? 0 : job->embedding_dim + job->mlp_dim; }

/* A step's examples are shared out: cuda:0,1 or cuda:all. */
static inline bool pn_job_several_devices(const struct pn_job *job) { return job->device == PN_DEVICE_CUDA && (job->devices & (job->devices - 1)) != 0; }
/* As the job file has it. */
#define PN_DEVICE_TEXT 200u
const char *pn_job_device_text(const struct pn_job *, char text[PN_DEVICE_TEXT]);

/* The floats of one row of the dense parameters' table. */
#define PN_DENSE_ROW 256u
/* Rows of it whose key has this bit hold state, not weights (running statistics of batch norm): a push is subtracted as it is, no optimizer acts on them.
 * The other bits are the row's place in the flat vector, behind the weights. */
#define PN_STATE_KEY (1ull << 63)

/* Reads text (not NUL-terminated needed) into *job. `file` is the name for messages. Relative data paths are resolved
 * against `base` (NULL: left as they are). PN_INVALID: err has the first problem in one line
 * "job.yaml:6:12: ...", and `report` (may be NULL) gets every problem with its source line, as a malloc'ed text. */
enum pn_result pn_job_parse(struct pn_job *job, const char *text, size_t n_bytes, const char *file, const char *base,
                            char **report, struct pn_error *err);
void pn_job_free(struct pn_job *job);
/* Before the first step one worker makes something of the data, for all: trees, quantiles or vocabularies. */
bool pn_job_prepares(const struct pn_job *job);
/* What goes to other processes and into a snapshot: YAML text that parses to the same job with absolute paths. malloc. */
char *pn_job_text(const struct pn_job *job);
/* What early stopping goes by, as the job's file names it: "auc", "ndcg@10". */
void pn_job_stop_by(const struct pn_job *job, char text[24]);
/* HR, NDCG and recall are of the first so many of a list; 0: the job ranks no lists. */
uint32_t pn_job_rank_k(const struct pn_job *job);

/* The events (privacy/accountant.h) of a private job by which one unit is seen: `steps` steps of the shard it is in, under so many `lives` of its producer. */
struct pn_privacy_event;
size_t pn_job_privacy_events(const struct pn_job *job, uint64_t steps, uint32_t lives, struct pn_privacy_event *events /* room for 2 */);
/* The steps of one producer from the beginning to the end. */
uint64_t pn_job_privacy_steps(const struct pn_job *job);

/* ---- aggregation: secure (secure.c) ---- */
#define PN_SECURE_BITS 40u                 /* of security and of correctness: privacy/secagg/params.h */
#define PN_SECURE_MAX_VALUES (1u << 21)    /* of one round's vector */
#define PN_SECURE_MAX_BUCKETS 65536u
/* The rows that the tables can have: all keys of all features. */
uint64_t pn_job_declared_rows(const struct pn_job *);
/* Rows are chosen before the first step, by a count of all units that is paid for once a life of a producer. */
bool pn_job_chooses(const struct pn_privacy_spec *);
/* Of n holders: the fewest a sum is made of, and how many may collude with the servers. */
uint32_t pn_job_fewest(const struct pn_privacy_spec *, uint32_t n);
uint32_t pn_job_colluding(const struct pn_privacy_spec *, uint32_t n);

/* Of sums of clipped gradients (docs/privacy.md, "What a step sends"). A private step sums pieces of so many units in float32 (large ones while they are few, as each piece costs time), and pieces in double.
 * One unit more or less changes the sums by its clip and by what roundoff differs, at most this share of the clip: over n examples whose magnitudes add up to at most m clips the roundoff of a float32 sum has an
 * L2 norm of about sqrt(n) 2^-24 m (Higham and Mary 2019); twice that is taken, as there are two sums. c units of at most k examples each have n = c k and m = c sqrt(k), which pn_job_spread sees to; pieces add up
 * as independent errors, and the end is rounded to float32 once. in_pieces: false where all units are summed in float32. */
size_t pn_job_piece(size_t units);
double pn_job_roundoff(double units, uint32_t per_unit, bool in_pieces);
/* How many units one of n_producers may have: twice its share (and some, for few), as rows are dealt by a hash. With more, a step's batch would be larger than roundoff is counted for. */
double pn_job_most_units(const struct pn_privacy_spec *, uint32_t n_producers);
/* How far the norms of a user's examples may add up to above the clip (pn_net_step_clipped): as far as those of examples that have nothing in common; 0: the unit is the example. */
float pn_job_spread(const struct pn_privacy_spec *);

/* Do two features mean the same rows (hash: {share})? */
bool pn_fields_share(const struct pn_field *, const struct pn_field *);
/* How many keys a field can have at all, and the i-th of them (fields with `buckets`, and bucketised numbers). 0: any number. */
uint64_t pn_field_domain(const struct pn_field *);
uint64_t pn_field_domain_key(const struct pn_field *, uint64_t i);
uint64_t pn_field_missing_key(const struct pn_field *); /* of an empty cell, before `buckets` */

/* How the rows of a table travel. */
static inline enum pn_codec pn_job_codec(const struct pn_job *job, size_t i_table) { return job->tables[i_table].explicit_rows ? PN_CODEC_FLOAT32 : job->codec; }

#endif
