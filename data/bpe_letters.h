/* GPT-2's way to write a token as text: one letter for each of the 256 bytes, none of them a space. Files of
 * byte-level BPE tokenizers are written in these. */
#ifndef PQ_DATA_BPE_LETTERS_H
#define PQ_DATA_BPE_LETTERS_H

#include "data/utf8.h"

/* The letter of `byte`. What prints stands for itself, the others, in order, for U+0100 and on. */
static inline uint32_t pq_bpe_letter_code(unsigned char byte) {
    return byte <= 32                   ? 256u + byte
           : byte >= 127 && byte <= 160 ? 256u + 33 + (byte - 127u)
           : byte == 173                ? 256u + 67
                                        : byte;
}

/* The same as UTF-8; returns its length. */
static inline size_t pq_bpe_letter(unsigned char byte, char out[4]) {
    return pq_utf8_write(pq_bpe_letter_code(byte), out);
}

#endif
