/* What the engine makes of a packed model with 8-bit activations and an fp16 cache, for programs to be
 * compared with. usage: engine_tokens FILE.safetensors LOGITS TOKENS ID ...: prints TOKENS greedy tokens
 * behind the ids, and leaves in LOGITS the fp32 logits behind each of the last ids that fit in the context.
 */
#include <stdio.h>
#include <stdlib.h>

#include "infer/generate.h"
#include "infer/parts.h"

static pq_status print_token(void *user, uint16_t token, pq_error *err) {
    (void)user;
    (void)err;
    printf("%u\n", (unsigned)token);
    return PQ_OK;
}

static pq_status run(char **words, size_t count, pq_engine *engine, pq_error *err) {
    const size_t context = (size_t)pq_engine_context(engine), vocab = pq_engine_vocab(engine),
                 tail = count < context ? count : context;
    uint16_t *ids = malloc(count * sizeof *ids);
    float *logits = malloc(tail * vocab * sizeof *logits);
    FILE *out = fopen(words[1], "wb");
    if (!ids || !logits || !out) return PQ_ERR_IO;
    for (size_t i = 0; i < count; i++) ids[i] = (uint16_t)atoi(words[3 + i]);
    pq_status status = pq_generate(engine, &(pq_sampling){.top_p = 1}, ids, count, (size_t)atoi(words[2]),
                                   print_token, NULL, err);
    pq_engine_reset(engine);
    if (status == PQ_OK) status = pq_engine_forward(engine, ids + count - tail, tail, false, logits, err);
    if (fwrite(logits, sizeof *logits, tail * vocab, out) != tail * vocab || fclose(out) != 0)
        status = PQ_ERR_IO;
    free(logits);
    free(ids);
    return status;
}

int main(int argc, char **argv) {
    pq_packed *packed = NULL;
    pq_engine *engine = NULL;
    pq_error err = {0};
    if (argc < 5) return 2;
    pq_status status = pq_packed_open(argv[1], &packed, &err);
    if (status == PQ_OK)
        status = pq_engine_create_with(packed, &(pq_engine_options){.int8 = true, .half_cache = true},
                                       &engine, &err);
    if (status == PQ_OK) status = run(argv + 1, (size_t)argc - 4, engine, &err);
    if (status != PQ_OK) fprintf(stderr, "%s\n", err.message);
    pq_engine_destroy(engine);
    pq_packed_close(packed);
    return status != PQ_OK;
}
