/* GGUF, the file of llama.cpp and of programs built on ggml: a model with its tokenizer, architecture gpt2.
 * docs/formats.md says what is inside. */
#ifndef PQ_FORMATS_GGUF_H
#define PQ_FORMATS_GGUF_H

#include "formats/foreign.h"

/* Write the weights that count (hard-quantized where quantized), zero biases where the model has none. dtype
 * is that of the matrices: "fp32", "fp16", "q8_0" or "mxfp4"; NULL takes for each matrix the smallest of
 * these that holds it exactly. wpe, norms and biases are F32. Without lossy a weight that dtype cannot hold
 * is PQ_ERR_USAGE; so is one beyond its range with it, a dtype that is none of these, and a row that is not a
 * multiple of its block. The file is opened again and compared before it gets its name. */
pq_status pq_gguf_write(const char *path, bool overwrite, const pq_model *model, const char *dtype,
                        bool lossy, pq_export_summary *out, pq_error *err);

#endif
