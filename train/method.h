/* The table of quantization-aware training methods. A quantizer is the hard map; a method is what training
 * puts around it: the forward weights it shows the graph, and the gradient it gives the latent weights. */
#ifndef PQ_TRAIN_METHOD_H
#define PQ_TRAIN_METHOD_H

#include "model/model.h"

typedef struct pq_method {
    const char *name; /* quant.gradient */
    /* quantized[params.elements]: the values the graph sees, for quantized matrices only. */
    void (*forward)(const pq_model *model, float *quantized);
    /* Turn the gradients of those values into the latent weights', in place; once an iteration, after
     * accumulation. */
    void (*backward)(const pq_model *model, float *gradients);
} pq_method;

const pq_method *pq_method_find(const char *name); /* NULL: not in the table */

#endif
