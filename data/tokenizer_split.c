/* Owns GPT-2's split pattern: a text becomes words, within which alone bytes are merged. It is the pattern of
 * GPT-2's encoder.py,
 *
 *   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *
 * written so that it finds the same and never goes back: possessive, ASCII in classes of its own. Letters,
 * numbers and white space are Unicode 16's, as in the tokenizers of other programs. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "data/tokenizer_bpe.h"
#include "data/utf8.h"

/* clang-format off */
/* Letters and numbers that came with Unicode 15 to 16, after PCRE2 10.42's tables. */
#define NEW_LETTERS \
    "\\x{1C89}-\\x{1C8A}\\x{A7CB}-\\x{A7CD}\\x{A7DA}-\\x{A7DC}\\x{105C0}-\\x{105F3}" \
    "\\x{10D4A}-\\x{10D65}\\x{10D6F}-\\x{10D85}\\x{10EC2}-\\x{10EC4}\\x{1123F}-\\x{11240}" \
    "\\x{11380}-\\x{11389}\\x{1138B}\\x{1138E}\\x{11390}-\\x{113B5}\\x{113B7}\\x{113D1}" \
    "\\x{113D3}\\x{11BC0}-\\x{11BE0}\\x{11F02}\\x{11F04}-\\x{11F10}\\x{11F12}-\\x{11F33}" \
    "\\x{1342F}\\x{13441}-\\x{13446}\\x{13460}-\\x{143FA}\\x{16100}-\\x{1611D}" \
    "\\x{16D40}-\\x{16D6C}\\x{18CFF}\\x{1B132}\\x{1B155}\\x{1DF25}-\\x{1DF2A}" \
    "\\x{1E030}-\\x{1E06D}\\x{1E4D0}-\\x{1E4EB}\\x{1E5D0}-\\x{1E5ED}\\x{1E5F0}\\x{2B739}" \
    "\\x{2EBF0}-\\x{2EE5D}\\x{31350}-\\x{323AF}"
#define NEW_NUMBERS \
    "\\x{10D40}-\\x{10D49}\\x{116D0}-\\x{116E3}\\x{11BF0}-\\x{11BF9}\\x{11F50}-\\x{11F59}" \
    "\\x{16130}-\\x{16139}\\x{16D70}-\\x{16D79}\\x{1CCF0}-\\x{1CCF9}\\x{1D2C0}-\\x{1D2D3}" \
    "\\x{1E4F0}-\\x{1E4F9}\\x{1E5F1}-\\x{1E5FA}"
/* White_Space. PCRE2's \s has U+180E besides, which Unicode took out. */
#define SPACES "\\t-\\r\\x{85}\\p{Z}"

static const char pattern[] =
    "'(?:[sdmt]|ll|ve|re)"
    "| ?(?:[A-Za-z]++|[\\p{L}" NEW_LETTERS "]++)++"
    "| ?(?:[0-9]++|[\\p{N}" NEW_NUMBERS "]++)++"
    "| ?(?:[!-/:-@\\[-`{-~]++|[^" SPACES "\\p{L}\\p{N}" NEW_LETTERS NEW_NUMBERS "]++)++"
    "|[" SPACES "]+(?![^" SPACES "])"
    "|[" SPACES "]";
/* clang-format on */

struct pq_split {
    pcre2_code *code;
    bool jit; /* the processor has a compiler in PCRE2 */
};

static pq_status refuse(int code, const char *what, pq_error *err) {
    PCRE2_UCHAR reason[128] = "";
    pcre2_get_error_message(code, reason, sizeof reason);
    return PQ_FAIL(err, code == PCRE2_ERROR_NOMEMORY ? PQ_ERR_MEMORY : PQ_ERR_FORMAT,
                   "the tokenizer's split pattern %s: PCRE2 says %s", what, (const char *)reason);
}

pq_status pq_split_create(pq_split **out, pq_error *err) {
    int code;
    PCRE2_SIZE where;
    pq_split *split;
    PQ_TRY(pq_calloc(1, sizeof *split, "the split pattern", &split, err));
    split->code = pcre2_compile((PCRE2_SPTR)pattern, sizeof pattern - 1,
                                PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &code, &where, NULL);
    if (!split->code) {
        free(split);
        return refuse(code, "does not compile", err);
    }
    split->jit = pcre2_jit_compile(split->code, PCRE2_JIT_COMPLETE) == 0;
    *out = split;
    return PQ_OK;
}

void pq_split_destroy(pq_split *split) {
    if (!split) return;
    pcre2_code_free(split->code);
    free(split);
}

pq_status pq_words_init(pq_words *words, const pq_split *split, pq_error *err) {
    *words = (pq_words){.split = split, .match = pcre2_match_data_create(1, NULL)};
    return words->match ? PQ_OK : PQ_FAIL(err, PQ_ERR_MEMORY, "no memory to split a text into words");
}

void pq_words_deinit(pq_words *words) {
    pcre2_match_data_free(words->match);
}

/* The end of the UTF-8 that begins at `at`. */
static size_t end_of_valid(const char *text, size_t bytes, size_t at) {
    uint32_t code;
    uint64_t eight;
    for (size_t length; at < bytes; at += length) {
        for (; at + 8 <= bytes; at += 8) {
            memcpy(&eight, text + at, 8);
            if (eight & UINT64_C(0x8080808080808080)) break;
        }
        if (at == bytes || (length = pq_utf8_read(text + at, bytes - at, &code)) == 0) break;
    }
    return at;
}

void pq_words_start(pq_words *words, const char *text, size_t bytes) {
    words->text = text;
    words->bytes = bytes;
    words->at = 0;
    words->valid = end_of_valid(text, bytes, 0);
}

/* The run of bytes that are not UTF-8, from words->at on. */
static size_t take_invalid(pq_words *words) {
    const size_t start = words->at;
    uint32_t code;
    while (words->at < words->bytes &&
           pq_utf8_read(words->text + words->at, words->bytes - words->at, &code) == 0)
        words->at++;
    words->valid = end_of_valid(words->text, words->bytes, words->at);
    return words->at - start;
}

pq_status pq_words_next(pq_words *words, size_t *length, pq_error *err) {
    *length = 0;
    if (words->at == words->bytes) return PQ_OK;
    if (words->at == words->valid) {
        *length = take_invalid(words);
        return PQ_OK;
    }
    const PCRE2_SPTR text = (PCRE2_SPTR)words->text + words->at;
    const size_t bytes = words->valid - words->at;
    int found =
        words->split->jit
            ? pcre2_jit_match(words->split->code, text, bytes, 0, PCRE2_NO_UTF_CHECK, words->match, NULL)
            : pcre2_match(words->split->code, text, bytes, 0, PCRE2_NO_UTF_CHECK, words->match, NULL);
    if (found < 0) return refuse(found, "does not match", err);
    *length = pcre2_get_ovector_pointer(words->match)[1];
    words->at += *length;
    return *length ? PQ_OK : PQ_FAIL(err, PQ_ERR_FORMAT, "the tokenizer's split pattern found no word");
}
