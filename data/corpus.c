/* Owns the built-in corpus: its words, its transition rows, its entropy, and the text drawn from it. */
#include "data/corpus.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"

/* Streams of the fixed structure; texts use their own seed as the first argument, with a = TEXT. */
enum { STRUCTURE_SEED = 2601, WORDS = 0, ROWS = 1, TEXT = 2 };

const uint8_t pq_corpus_branch_parts[PQ_CORPUS_BRANCHES] = {20, 12, 10, 8, 6, 4, 2, 2};
const uint8_t pq_corpus_separator_parts[PQ_CORPUS_SEPARATORS] = {50, 6, 5, 3};
const char *const pq_corpus_separator[PQ_CORPUS_SEPARATORS] = {" ", ", ", ". ", ".\n"};

/* A word of one to three syllables, each a consonant and a vowel, sometimes closed by a last consonant. */
static void spell(uint32_t random, char out[12]) {
    static const char consonants[] = "bdfhjklmnprstvwz", vowels[] = "aeiou", ends[] = "nrslmt";
    uint32_t syllables = 1 + (random % 8 > 1) + (random % 8 > 5);
    size_t length = 0;
    random /= 8;
    for (uint32_t i = 0; i < syllables; i++) {
        out[length++] = consonants[random % 16];
        random /= 16;
        out[length++] = vowels[random % 5];
        random /= 5;
    }
    if (syllables == 1 || random % 3 == 0) out[length++] = ends[random / 3 % 6];
    out[length] = 0;
}

static bool has_word(const pq_corpus *corpus, size_t count, const char *word) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(corpus->word[i], word) == 0) return true;
    return false;
}

static void make_words(pq_corpus *corpus) {
    uint32_t random[4];
    for (size_t count = 0, draw = 0; count < PQ_CORPUS_WORDS; draw++) {
        pq_random4(STRUCTURE_SEED, PQ_STREAM_CORPUS, WORDS, draw, random);
        spell(random[0], corpus->word[count]);
        count += !has_word(corpus, count, corpus->word[count]);
    }
}

static void make_rows(pq_corpus *corpus) {
    uint32_t random[4];
    for (uint64_t state = 0; state < PQ_CORPUS_STATES; state++) {
        size_t count = 0;
        for (uint64_t draw = 0; count < PQ_CORPUS_BRANCHES; draw++) {
            pq_random4(STRUCTURE_SEED, PQ_STREAM_CORPUS, ROWS, state << 32 | draw, random);
            uint8_t word = (uint8_t)pq_random_below(random[0], random[1], PQ_CORPUS_WORDS);
            if (!memchr(corpus->next[state], word, count)) corpus->next[state][count++] = word;
        }
    }
}

static double entropy_of(const uint8_t *parts, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        double p = (double)parts[i] / PQ_CORPUS_PARTS;
        sum -= p * log(p);
    }
    return sum;
}

/* One step of the chain for a distribution over states. */
static void advance(const pq_corpus *corpus, const double *from, double *to) {
    double ends = 0;
    for (size_t i = PQ_CORPUS_ENDS; i < PQ_CORPUS_SEPARATORS; i++)
        ends += (double)pq_corpus_separator_parts[i] / PQ_CORPUS_PARTS;
    memset(to, 0, PQ_CORPUS_STATES * sizeof *to);
    for (size_t state = 0; state < PQ_CORPUS_STATES; state++)
        for (size_t i = 0; i < PQ_CORPUS_BRANCHES; i++) {
            double p = from[state] * pq_corpus_branch_parts[i] / PQ_CORPUS_PARTS;
            to[corpus->next[state][i]] += p * (1 - ends);
            to[PQ_CORPUS_START] += p * ends;
        }
}

void pq_corpus_init(pq_corpus *corpus) {
    double other[PQ_CORPUS_STATES];
    memset(corpus, 0, sizeof *corpus);
    make_words(corpus);
    make_rows(corpus);
    /* Each step goes to START with probability 1/8 from wherever it was, so the distance to the stationary
     * distribution shrinks by 7/8 a step: 400 steps leave less than 1e-23 of it. */
    corpus->stationary[PQ_CORPUS_START] = 1;
    for (int i = 0; i < 200; i++) {
        advance(corpus, corpus->stationary, other);
        advance(corpus, other, corpus->stationary);
    }
    double sum = 0; /* 1 but for the roundings of 400 steps */
    for (size_t state = 0; state < PQ_CORPUS_STATES; state++) sum += corpus->stationary[state];
    for (size_t state = 0; state < PQ_CORPUS_STATES; state++) corpus->stationary[state] /= sum;
    for (size_t i = 0; i < PQ_CORPUS_SEPARATORS; i++)
        corpus->mean_length +=
            (double)strlen(pq_corpus_separator[i]) * pq_corpus_separator_parts[i] / PQ_CORPUS_PARTS;
    for (size_t state = 0; state < PQ_CORPUS_STATES; state++)
        for (size_t i = 0; i < PQ_CORPUS_BRANCHES; i++)
            corpus->mean_length += corpus->stationary[state] * pq_corpus_branch_parts[i] / PQ_CORPUS_PARTS *
                                   (double)strlen(corpus->word[corpus->next[state][i]]);
    /* All rows have the same probabilities, so the entropy of a step does not depend on the state. */
    corpus->entropy = (entropy_of(pq_corpus_branch_parts, PQ_CORPUS_BRANCHES) +
                       entropy_of(pq_corpus_separator_parts, PQ_CORPUS_SEPARATORS)) /
                      corpus->mean_length;
}

/* The index that `random` falls on when index i takes parts[i] of 64. */
static size_t choose(const uint8_t *parts, uint32_t random) {
    uint32_t at = random % PQ_CORPUS_PARTS;
    size_t i = 0;
    for (; at >= parts[i]; i++) at -= parts[i];
    return i;
}

pq_status pq_corpus_generate(const pq_corpus *corpus, uint64_t seed, size_t characters, char **text,
                             pq_error *err) {
    uint32_t random[4];
    char *out = malloc(characters + 1);
    *text = NULL;
    if (!out)
        return PQ_FAIL(err, PQ_ERR_MEMORY, "a text of %zu characters could not be allocated", characters);
    size_t state = PQ_CORPUS_START, at = 0;
    for (uint64_t step = 0; at < characters; step++) {
        pq_random4(seed, PQ_STREAM_CORPUS, TEXT, step, random);
        size_t word = corpus->next[state][choose(pq_corpus_branch_parts, random[0])];
        size_t separator = choose(pq_corpus_separator_parts, random[1]);
        for (const char *c = corpus->word[word]; *c && at < characters; c++) out[at++] = *c;
        for (const char *c = pq_corpus_separator[separator]; *c && at < characters; c++) out[at++] = *c;
        state = separator < PQ_CORPUS_ENDS ? word : PQ_CORPUS_START;
    }
    out[characters] = 0;
    *text = out;
    return PQ_OK;
}
