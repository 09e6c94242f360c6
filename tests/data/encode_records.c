/* encode_records TOKENIZER plain|documents < TEXTS > IDS: the ids of texts, for tests in other languages. A
 * text is its length in bytes (uint32) and its bytes; ids are their number (uint32) and each as uint16. Each
 * is decoded again and must come back. With a third argument N, no ids: all texts N times over, and on stdout
 * the seconds each time took. */
#include <potqat/tokenizer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/threads.h"

static pq_error err;

static void need(bool good, const char *sentence) {
    if (good) return;
    fprintf(stderr, "%s\n", sentence);
    exit(1);
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int main(int argc, char **argv) {
    need(argc >= 3, "usage: encode_records TOKENIZER plain|documents [N]");
    const bool documents = strcmp(argv[2], "documents") == 0;
    const int rounds = argc > 3 ? atoi(argv[3]) : 0;
    pq_tokenizer *tokenizer;
    uint32_t bytes;
    const char *threads = getenv("THREADS");
    if (threads) pq_threads_set(atoi(threads));
    need(pq_tokenizer_open(argv[1], &tokenizer, &err) == PQ_OK, err.message);
    while (fread(&bytes, sizeof bytes, 1, stdin) == 1) {
        char *text = malloc(bytes + 1), *back;
        uint16_t *ids;
        size_t count, back_bytes;
        need(text && fread(text, 1, bytes, stdin) == bytes, "a text is cut short");
        for (int i = 0; i <= rounds; i++) {
            const double start = seconds();
            pq_status status = documents
                                   ? pq_tokenizer_encode_documents(tokenizer, text, bytes, &ids, &count, &err)
                                   : pq_tokenizer_encode(tokenizer, text, bytes, &ids, &count, &err);
            if (rounds && i) printf("%.6f\n", seconds() - start);
            need(status == PQ_OK, err.message);
            if (i < rounds) free(ids);
        }
        need(pq_tokenizer_decode(tokenizer, ids, count, &back, &back_bytes, &err) == PQ_OK, err.message);
        need(back_bytes == bytes && memcmp(back, text, bytes) == 0, "a text does not come back from its ids");
        const uint32_t n = (uint32_t)count;
        if (!rounds)
            need(fwrite(&n, sizeof n, 1, stdout) == 1 && fwrite(ids, 2, count, stdout) == count, "stdout");
        free(ids);
        free(text);
        free(back);
    }
    pq_tokenizer_destroy(tokenizer);
    return 0;
}
