/* Continuations of the same prompts by two models, for scores that compare texts (BERTScore: Zhang and
 * others, arXiv 1904.09675). */
#ifndef PQ_TRAIN_PAIRS_H
#define PQ_TRAIN_PAIRS_H

#include <potqat/engine.h>

#include "data/dataset.h"

typedef struct pq_pairs_options {
    const char *base, *model; /* their names, to be written down */
    pq_split split;
    size_t prompts;       /* spread evenly over the split */
    size_t prompt_tokens; /* of each; the tokens that follow it in the text are its reference */
    size_t tokens;        /* of each continuation and reference */
    size_t draws;         /* continuations of each prompt by either model */
    pq_sampling sampling; /* draw d of prompt p has seed sampling.seed + p draws + d, with both models */
} pq_pairs_options;

/* Write into `folder` what `base` and `model` say behind the same prompts:
 *   prompts.txt references.txt baseline.txt quantized.txt   line n of each belongs together; line breaks are
 * blanks pairs.jsonl                                             the same as objects, with prompt, draw and
 * seed settings.json                                           how they were made; written last What is not
 * UTF-8, such as half a character at a cut, becomes U+FFFD. Both models know the data's tokens. Nothing is
 * written before all has been drawn. PQ_ERR_USAGE: the folder exists and `overwrite` is not set, or the split
 * is too short for the prompts. */
pq_status pq_pairs_write(const pq_packed *base, const pq_packed *model, const pq_dataset *dataset,
                         const pq_pairs_options *options, const char *folder, bool overwrite, pq_error *err);

#endif
