/* The built-in corpus: a text from a word-level Markov source whose entropy is known exactly, for runs
 * without any download.
 *
 * The source: after a word comes one of PQ_CORPUS_BRANCHES words with fixed probabilities (multiples of
 * 1/64), after the end of a sentence one of the words of a row of its own; each word is followed by a
 * separator
 * (" ", ", ", ". ", ".\n") drawn independently; the last two end a sentence.
 *
 * Why its entropy a character is exact: words are letters only and differ, no separator begins with a letter
 * and none is the beginning of another, so no (word, separator) text begins another one. The characters
 * therefore tell the words, the words tell the characters, and N steps of the chain and their L_N characters
 * carry the same information. L_N / N tends to the mean length, so the entropy rate a character is the
 * chain's entropy rate a step over the mean characters a step, both under the stationary distribution. */
#ifndef PQ_DATA_CORPUS_H
#define PQ_DATA_CORPUS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define PQ_CORPUS_WORDS      128
#define PQ_CORPUS_START      PQ_CORPUS_WORDS /* the state after the end of a sentence */
#define PQ_CORPUS_STATES     (PQ_CORPUS_WORDS + 1)
#define PQ_CORPUS_BRANCHES   8
#define PQ_CORPUS_SEPARATORS 4
#define PQ_CORPUS_PARTS      64      /* every probability is a multiple of 1/64 */
#define PQ_CORPUS_CHARACTERS 1000000 /* data.path=builtin names this length ... */
#define PQ_CORPUS_SEED       1337    /* ... and seed */

typedef struct pq_corpus {
    char word[PQ_CORPUS_WORDS][12];
    uint8_t next[PQ_CORPUS_STATES][PQ_CORPUS_BRANCHES]; /* words that may follow, all different */
    double stationary[PQ_CORPUS_STATES];                /* how often the chain stands in a state */
    double entropy;                                     /* nats a character */
    double mean_length;                                 /* characters a step: word and separator */
} pq_corpus;

extern const uint8_t pq_corpus_branch_parts[PQ_CORPUS_BRANCHES]; /* probability of next[state][i], in 64ths */
extern const uint8_t pq_corpus_separator_parts[PQ_CORPUS_SEPARATORS];
extern const char
    *const pq_corpus_separator[PQ_CORPUS_SEPARATORS]; /* from PQ_CORPUS_ENDS on: end a sentence */
#define PQ_CORPUS_ENDS 2

/* The one source: always the same words, rows and numbers. */
void pq_corpus_init(pq_corpus *corpus);

/* text[characters] (heap, NUL-terminated besides, ASCII) from the source, begun at a sentence's start; the
 * last word may be cut. The same seed gives the same text, a shorter one its beginning. */
pq_status pq_corpus_generate(const pq_corpus *corpus, uint64_t seed, size_t characters, char **text,
                             pq_error *err);

#endif
