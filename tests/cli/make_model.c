/* Writes a checkpoint of a small random model with 9 levels a matrix, for tests of the commands.
 * usage: make_model FILE.h5 char|byte|none (its tokenizer; "none" has none, "nan" one weight that is not a
 * number) */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/packed.h"
#include "potqat/tokenizer.h"
#include "random_model.h"
#include "store/checkpoint.h"

int main(int argc, char **argv) {
    static const char text[] = "\n abcdefghijklmnopqrstuvwxyz\xc3\xa9";
    const coding how = {"pot", 9, NULL, "row", PQ_GRID_BF16, PQ_ROUND_NEAREST};
    const char *kind = argc == 3 ? argv[2] : "char";
    pq_tokenizer *tokenizer;
    pq_error err = {0};
    if (argc != 3 || pq_tokenizer_create(strcmp(kind, "byte") == 0 ? "byte" : "char", text, strlen(text),
                                         &tokenizer, &err) != PQ_OK)
        return 1;
    const pq_gpt2_shape shape = {
        .layers = 1, .heads = 2, .width = 64, .context = 16, .vocab = (int64_t)pq_tokenizer_vocab(tokenizer)};
    pq_model *model = random_model(&shape, &how, 1);
    free(model->tokenizer);
    model->tokenizer = strcmp(kind, "none") == 0 ? NULL : pq_tokenizer_to_json(tokenizer);
    if (strcmp(kind, "nan") == 0) model->weights[0] = NAN;
    pq_status status = pq_checkpoint_write(argv[1], true, model, &(pq_training_state){0}, &err);
    if (status != PQ_OK) fprintf(stderr, "%s\n", err.message);
    pq_tokenizer_destroy(tokenizer);
    pq_model_destroy(model);
    return status != PQ_OK;
}
