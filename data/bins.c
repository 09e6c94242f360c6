/* Owns the reading of nanoGPT's and llm.c's files of tokens. */
#include "data/bins.h"

#include <inttypes.h>
#include <string.h>

enum { HEADER = 1024, MAGIC = 20240520, MAGIC_UINT32 = 20240801, VERSION = 1 };

char *pq_bin_path(const char *folder, pq_split split) {
    char name[16];
    snprintf(name, sizeof name, "%s.bin", pq_split_names[split]);
    return pq_path_join(folder, name);
}

/* Where the tokens begin: behind llm.c's header where there is one. Read as nanoGPT's tokens its magic would
 * be 55432, 308: the first is beyond GPT-2's vocabulary. */
static pq_status find_tokens(const char *path, const pq_file_view *view, size_t *start, pq_error *err) {
    int32_t header[3] = {0};
    memcpy(header, view->data, view->size < sizeof header ? view->size : sizeof header);
    *start = 0;
    if (header[0] == MAGIC_UINT32)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "%s is llm.c's with tokens of 32 bits (magic %d); expected 16",
                       path, MAGIC_UINT32);
    if (header[0] == MAGIC) {
        if (view->size < HEADER)
            return PQ_FAIL(err, PQ_ERR_FORMAT, "%s has %zu bytes; llm.c's header alone has %d", path,
                           view->size, HEADER);
        if (header[1] != VERSION)
            return PQ_FAIL(err, PQ_ERR_FORMAT, "%s is llm.c's, version %" PRId32 "; expected %d", path,
                           header[1], VERSION);
        if (header[2] < 0 || 2 * (uint64_t)header[2] != view->size - HEADER)
            return PQ_FAIL(err, PQ_ERR_FORMAT,
                           "%s: llm.c's header promises %" PRId32 " tokens; the file holds %zu bytes of them",
                           path, header[2], view->size - HEADER);
        *start = HEADER;
    }
    if (view->size == *start || view->size % 2)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "%s holds %zu bytes of tokens; expected two for each", path,
                       view->size - *start);
    return PQ_OK;
}

static pq_status check_ids(const char *path, const pq_shard *bin, const pq_tokenizer *tokenizer,
                           uint16_t largest, pq_error *err) {
    size_t vocab = pq_tokenizer_vocab(tokenizer), at = 0;
    if (largest < vocab) return PQ_OK;
    while (bin->tokens[at] < vocab) at++;
    return PQ_FAIL(err, PQ_ERR_FORMAT,
                   "%s: token %zu is %u; the vocabulary (%s, %zu ids) ends at %zu: it was made with another "
                   "tokenizer",
                   path, at, bin->tokens[at], pq_tokenizer_kind(tokenizer), vocab, vocab - 1);
}

pq_status pq_bin_open(const char *path, const pq_tokenizer *tokenizer, pq_shard *out, pq_error *err) {
    pq_shard bin = {0};
    size_t start;
    uint16_t largest = 0;
    *out = bin;
    PQ_TRY(pq_file_map(path, &bin.view, err));
    pq_status status = find_tokens(path, &bin.view, &start, err);
    if (status == PQ_OK) {
        bin.tokens = (const uint16_t *)(bin.view.data + start);
        bin.count = (bin.view.size - start) / 2;
        status = pq_tokens_scan(bin.tokens, bin.count, NULL, &bin.hash, &largest, err);
    }
    if (status == PQ_OK) status = check_ids(path, &bin, tokenizer, largest, err);
    if (status != PQ_OK)
        pq_file_view_close(&bin.view);
    else
        *out = bin;
    return status;
}
