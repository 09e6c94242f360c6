/* GPT-2 models in the files of other programs: a Hugging Face folder, nanoGPT's parameters in a safetensors
 * file, llm.c's checkpoint. All names come from model/gpt2_params.def; docs/formats.md says what is read. */
#ifndef PQ_FORMATS_FOREIGN_H
#define PQ_FORMATS_FOREIGN_H

#include "model/model.h"

/* What a file of nanoGPT's names does not say. A file that does say it must agree. */
typedef struct pq_foreign_options {
    int64_t heads;    /* 0: from the file */
    const char *gelu; /* "erf", "tanh"; NULL: from the file, or erf */
    bool bare;        /* leave the tokenizer of a folder alone, whatever it is */
} pq_foreign_options;

/* Read `path` (a folder with config.json, a .safetensors, or a .bin) into a new model in fp32, without
 * config, and with the tokenizer that a Hugging Face folder holds; options may be NULL. Input is mapped, and
 * let go piece by piece. PQ_ERR_USAGE: settings that would make another function than ours. PQ_ERR_FORMAT: a
 * tensor that is missing, unexpected, given twice, of another shape or type, or not finite; the message names
 * it. */
pq_status pq_foreign_read(const char *path, const pq_foreign_options *options, pq_model **out, pq_error *err);

/* Whether `folder` holds a config.json, as Hugging Face's models do. */
bool pq_hf_looks_like(const char *folder);

/* What the writer of another program's format found. */
typedef struct pq_export_summary {
    size_t bytes;         /* of all tensors */
    char dtype[8];        /* GGUF: that of most weights of matrices */
    double largest_error; /* absolute, over all weights; 0: all exact */
    char worst[64];       /* the parameter with it */
} pq_export_summary;

/* Write the weights that count (hard-quantized where quantized) as a folder that transformers'
 * GPT2LMHeadModel reads: config.json and model.safetensors, beside them the tokenizer's files where it is a
 * byte-level BPE; the block matrices transposed, zero biases where the model has none, the tied head left
 * out. dtype "F32", "F16" or "BF16" is that of the matrices; norms and biases stay F32 unless lossy. Without
 * lossy a weight that dtype cannot hold is PQ_ERR_USAGE; so is one beyond its range with it. The files are
 * opened again and compared before the folder gets its name; overwrite replaces these files in an older
 * folder of a model. */
pq_status pq_hf_write(const char *folder, bool overwrite, const pq_model *model, const char *dtype,
                      bool lossy, pq_export_summary *out, pq_error *err);

#endif
