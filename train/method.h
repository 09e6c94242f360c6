/* The table of quantization-aware training methods. A quantizer is the hard map; a method is what training
 * puts around it: the values the graph sees in place of the latent weights, the gradient these get, and what
 * happens to scales, codebooks and averages between two updates. Any number of rows may be active at once;
 * their hooks run in the order of the table. Adding a method means one row and one file.
 *
 * Evaluation, best.h5 and export never see a method: they use the hard map with the stored scales. */
#ifndef PQ_TRAIN_METHOD_H
#define PQ_TRAIN_METHOD_H

#include "config/config.h"
#include "graph/graph.h"
#include "model/model.h"
#include "potqat/checkpoint.h"

typedef struct pq_method pq_method;

enum {
    PQ_MOST_METHODS = 16,
    PQ_SHOWN_PIECE = 256, /* values that hooks read at once */
    PQ_SHOWN_TILE = 8192  /* values that hooks see at once before the graph does */
};

/* Where the graph finds what it sees of matrices: fp32, quantized ones alone, or bf16, all of them. */
typedef struct pq_shown {
    pq_type type;
    void *const *places; /* [parameters] */
} pq_shown;

/* What the active methods of one training share. */
typedef struct pq_qat {
    pq_model *model;         /* borrowed: latent weights, codebooks, scales */
    const pq_config *config; /* borrowed */
    pq_scale_options scale;
    int64_t iter;     /* of the iteration that runs; at creation: of the first one */
    double lr;        /* of this iteration */
    double hardness;  /* of what is shown: 0 = latent weights, 1 = hard values, between them a blend */
    bool restarted;   /* the codebooks are others than in the last iteration, their scales fitted anew */
    pq_shown shown;   /* of this iteration */
    bool reads_shown; /* an active method reads it after the backward pass has begun */
    const pq_method *active[PQ_MOST_METHODS];
    void *own[PQ_MOST_METHODS]; /* what active[i] keeps besides */
    size_t active_count;
    pq_state_array *arrays; /* state of the methods, saved in checkpoints */
    size_t array_count;
    pq_model *average; /* NULL, or the model that is evaluated, saved and exported in place of `model` */
} pq_qat;

struct pq_method {
    const char *name;
    bool (*wanted)(const pq_config *config);
    bool reads_shown; /* hooks other than begin and forward call pq_qat_shown */
    /* Hooks; any of them may be NULL. `self` is what create has put into *self, freed by destroy. */
    pq_status (*create)(pq_qat *qat, void **self, pq_error *err);
    void (*begin)(pq_qat *qat, void *self); /* once an iteration, before weights are shown */
    /* Matrix `index`: change what the graph sees of n weights from element `first` on, at most
     * PQ_SHOWN_TILE; a group is whole there, or larger than that. shown[n] holds the hard values (the row
     * "hard" comes first). Several threads call it, each for other weights. */
    void (*forward)(pq_qat *qat, void *self, size_t index, size_t first, size_t n, float *shown);
    /* Matrix `index`: turn the gradient of the shown values into that of the latent weights, in place; once
     * an iteration, after accumulation and before the norm. */
    void (*backward)(pq_qat *qat, void *self, size_t index, float *gradient);
    void (*updated)(pq_qat *qat, void *self); /* after AdamW; not where an iteration was skipped */
    void (*destroy)(void *self);
};

/* The rows that `config` wants, with the codebooks of iteration `iter`: the first one, or, before a restore,
 * the last one done. */
pq_status pq_qat_create(pq_model *model, const pq_config *config, const pq_scale_options *scale, int64_t iter,
                        pq_qat **out, pq_error *err);
void pq_qat_destroy(pq_qat *qat);
/* Begin and forward. */
void pq_qat_show(pq_qat *qat, int64_t iter, double lr, const pq_shown *shown);
/* n values that the graph saw of quantized matrix `index`, from element `first` on; wide[n] may be what is
 * returned. */
const float *pq_qat_shown(const pq_qat *qat, size_t index, size_t first, size_t n, float *wide);
void pq_qat_gradient(pq_qat *qat, float *gradients); /* backward */
void pq_qat_updated(pq_qat *qat);

/* For rows: declare `count` items of state, zeroed, saved in checkpoints as `name`; memory belongs to qat, or
 * is `borrowed` where that is not NULL. */
pq_status pq_qat_array(pq_qat *qat, const char *name, pq_array_type type, size_t count, void *borrowed,
                       void **out, pq_error *err);
/* Put a checkpoint's arrays back; the model has been read from it. PQ_ERR_FORMAT where they are not those
 * that these methods keep. */
pq_status pq_qat_restore(pq_qat *qat, const pq_training_state *state, pq_error *err);

/* Fit every scale of the model to its weights. */
pq_status pq_qat_fit_scales(pq_model *model, const pq_scale_options *options, pq_error *err);
/* Whether the codebooks of iteration `iter` differ from those of the one before (progressive levels): losses
 * on both sides can't be compared. */
bool pq_qat_levels_change(const pq_config *config, int64_t iter);

#endif
