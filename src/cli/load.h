/* A MODEL argument, loaded: what every verb does first. */
#ifndef PQ_CLI_LOAD_H
#define PQ_CLI_LOAD_H

#include "cli/cli.h"
#include "config/config.h"
#include "data/dataset.h"
#include "formats/packed.h"
#include "model/model.h"
#include <potqat/engine.h>
#include <potqat/tokenizer.h>

/* From any MODEL (see store/run.h) to the one in-memory form. */
pq_status pq_load_model(const char *spec, pq_model **out, pq_error *err);
/* From any MODEL to the form the engine reads: a packed file is mapped, anything else packed in memory. */
pq_status pq_load_packed(const char *spec, pq_packed **out, pq_error *err);
/* The data that a model is judged or calibrated with: `path` (NULL: the config's data.path) by its tokenizer.
 */
pq_status pq_load_dataset(const pq_model *model, const pq_config *config, const char *path, pq_dataset **out,
                          pq_error *err);

/* A tokenizer by where it is: a tokenizer.json, a folder with a tokenizer's files, any MODEL, "byte", or else
 * a text (a file or a name, as data.path) whose characters become one. */
pq_status pq_load_tokenizer(const char *spec, pq_tokenizer **out, pq_error *err);

/* How an engine computes, as --act and --cache say; `otherwise` is what --act is without a word. Rows of a
 * command's flags. */
#define PQ_ENGINE_FLAGS(otherwise)                                                                           \
    {"act", 0, "A", "fp32 (exact) or int8: inputs of quantized matrices in 8 bits; default " otherwise}, {   \
        "cache", 0, "C", "fp16 or fp32: keys and values; default fp16 with int8, else fp32"                  \
    }
pq_status pq_load_engine_options(const pq_cli *cli, const char *otherwise, pq_engine_options *out,
                                 pq_error *err);

#endif
