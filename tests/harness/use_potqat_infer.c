/* A program outside the repository: the start of a chat with libpotqat-infer. */
#include <potqat/engine.h>
#include <potqat/tokenizer.h>
#include <stdio.h>

int main(void) {
    const pq_sampling greedy = {.temperature = 0, .top_p = 1};
    const float logits[] = {0.5F, 2.0F, -1.0F};
    uint16_t token = 0;
    pq_error err = {0};
    pq_packed *packed = NULL;
    if (pq_packed_open("missing.safetensors", &packed, &err) != PQ_ERR_IO) return 1;
    printf("as expected: %s\n", err.message);
    return pq_sample(&greedy, logits, 3, 0, &token, &err) || token != 1;
}
