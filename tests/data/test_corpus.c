/* The built-in corpus: its chain and entropy against a computation that shares no code, its text against the
 * true model. */
#include <math.h>

#include "base/file.h"
#include "data/corpus.h"
#include "tests/data/scratch.h"

enum { N = PQ_CORPUS_WORDS * PQ_CORPUS_SEPARATORS }; /* states (word, separator) of the dense chain */

static pq_error err;
static pq_corpus corpus;
static double dense[N][N]; /* probability of a (word, separator) after another */
static double system_[N][N + 1];

static void fill_dense(void) {
    memset(dense, 0, sizeof dense);
    for (int from = 0; from < N; from++) {
        int ends = from % PQ_CORPUS_SEPARATORS >= PQ_CORPUS_ENDS;
        int state = ends ? PQ_CORPUS_START : from / PQ_CORPUS_SEPARATORS;
        for (int b = 0; b < PQ_CORPUS_BRANCHES; b++)
            for (int s = 0; s < PQ_CORPUS_SEPARATORS; s++)
                dense[from][corpus.next[state][b] * PQ_CORPUS_SEPARATORS + s] +=
                    pq_corpus_branch_parts[b] * pq_corpus_separator_parts[s] / 4096.0;
    }
}

/* The stationary distribution by Gaussian elimination: x (P - I) = 0, sum x = 1. */
static void solve(double x[N]) {
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++) system_[i][j] = i == N - 1 ? 1 : dense[j][i] - (i == j);
        system_[i][N] = i == N - 1;
    }
    for (int k = 0; k < N; k++) {
        int pivot = k;
        for (int i = k; i < N; i++)
            if (fabs(system_[i][k]) > fabs(system_[pivot][k])) pivot = i;
        ck_assert(fabs(system_[pivot][k]) > 1e-12); /* one solution only: the chain is irreducible */
        for (int j = k; j <= N; j++) {
            double swap = system_[k][j];
            system_[k][j] = system_[pivot][j];
            system_[pivot][j] = swap;
        }
        for (int i = k + 1; i < N; i++) {
            double factor = system_[i][k] / system_[k][k];
            if (factor == 0) continue;
            for (int j = k; j <= N; j++) system_[i][j] -= factor * system_[k][j];
        }
    }
    for (int i = N; i-- > 0;) {
        x[i] = system_[i][N];
        for (int j = i + 1; j < N; j++) x[i] -= system_[i][j] * x[j];
        x[i] /= system_[i][i];
    }
}

START_TEST(probabilities_sum_to_one) {
    int branches = 0, separators = 0;
    for (int i = 0; i < PQ_CORPUS_BRANCHES; i++) branches += pq_corpus_branch_parts[i];
    for (int i = 0; i < PQ_CORPUS_SEPARATORS; i++) separators += pq_corpus_separator_parts[i];
    ck_assert_int_eq(branches, PQ_CORPUS_PARTS);
    ck_assert_int_eq(separators, PQ_CORPUS_PARTS);
    for (int state = 0; state < PQ_CORPUS_STATES; state++)
        for (int i = 0; i < PQ_CORPUS_BRANCHES; i++) {
            ck_assert_int_lt(corpus.next[state][i], PQ_CORPUS_WORDS);
            for (int j = 0; j < i; j++) ck_assert_int_ne(corpus.next[state][i], corpus.next[state][j]);
        }
}
END_TEST

/* What makes the entropy a character exact: no (word, separator) text begins another one. */
START_TEST(steps_can_be_told_from_their_characters) {
    static char step[N][20];
    for (int i = 0; i < N; i++) {
        const char *word = corpus.word[i / PQ_CORPUS_SEPARATORS];
        snprintf(step[i], sizeof step[i], "%s%s", word, pq_corpus_separator[i % PQ_CORPUS_SEPARATORS]);
        ck_assert_uint_gt(strlen(word), 0);
        ck_assert_uint_eq(strspn(word, "abcdefghijklmnopqrstuvwxyz"), strlen(word));
    }
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            ck_assert_msg(i == j || strncmp(step[i], step[j], strlen(step[i])) != 0, "\"%s\" begins \"%s\"",
                          step[i], step[j]);
}
END_TEST

START_TEST(stationary_distribution_and_entropy) {
    static double x[N];
    double sum = 0, by_state[PQ_CORPUS_STATES] = {0}, entropy = 0, length = 0;
    fill_dense();
    solve(x);
    for (int i = 0; i < N; i++) {
        double row = 0;
        ck_assert(x[i] > 0);
        by_state[i % PQ_CORPUS_SEPARATORS >= PQ_CORPUS_ENDS ? PQ_CORPUS_START : i / PQ_CORPUS_SEPARATORS] +=
            x[i];
        length += x[i] * (double)(strlen(corpus.word[i / PQ_CORPUS_SEPARATORS]) +
                                  strlen(pq_corpus_separator[i % PQ_CORPUS_SEPARATORS]));
        for (int j = 0; j < N; j++)
            if (dense[i][j] > 0) {
                row += dense[i][j];
                entropy -= x[i] * dense[i][j] * log(dense[i][j]);
            }
        ck_assert_double_eq_tol(row, 1, 1e-15);
    }
    for (int state = 0; state < PQ_CORPUS_STATES; state++) {
        sum += corpus.stationary[state];
        ck_assert_double_eq_tol(corpus.stationary[state], by_state[state], 1e-12);
    }
    ck_assert_double_eq_tol(sum, 1, 1e-14);
    ck_assert_double_eq_tol(corpus.stationary[PQ_CORPUS_START], 8 / 64.0, 1e-14);
    for (int to = 0; to < PQ_CORPUS_WORDS; to++) { /* invariant under one step of the true chain */
        double p = 0;
        for (int from = 0; from < PQ_CORPUS_STATES; from++)
            for (int b = 0; b < PQ_CORPUS_BRANCHES; b++)
                if (corpus.next[from][b] == to)
                    p += corpus.stationary[from] * pq_corpus_branch_parts[b] / 64.0 * (56 / 64.0);
        ck_assert_double_eq_tol(p, corpus.stationary[to], 1e-15);
    }
    ck_assert_double_eq_tol(corpus.mean_length, length, 1e-11);
    ck_assert_double_eq_tol(corpus.entropy, entropy / length, 1e-12);
}
END_TEST

/* The text's mean negative log-probability under the true model, read back from its characters alone, lies
 * within five standard errors (from 100 batch means) of the entropy, and that is a narrow bound. */
START_TEST(text_has_the_entropy) {
    enum { BATCHES = 100 };
    double residual[BATCHES] = {0}, mean = 0, variance = 0;
    size_t steps = 0, length = PQ_CORPUS_CHARACTERS;
    char *text;
    assert_ok(pq_corpus_generate(&corpus, 99, length, &text, &err), &err);
    ck_assert_uint_eq(strlen(text), length);
    int state = PQ_CORPUS_START;
    for (size_t at = 0;;) {
        size_t letters = strspn(text + at, "abcdefghijklmnopqrstuvwxyz");
        int branch = -1, separator = -1;
        for (int b = 0; b < PQ_CORPUS_BRANCHES; b++) {
            const char *word = corpus.word[corpus.next[state][b]];
            if (strlen(word) == letters && memcmp(word, text + at, letters) == 0) branch = b;
        }
        for (int s = 0; s < PQ_CORPUS_SEPARATORS; s++)
            if (strncmp(text + at + letters, pq_corpus_separator[s], strlen(pq_corpus_separator[s])) == 0)
                separator = s;
        if (branch < 0 || separator < 0) { /* only the cut end may not parse */
            ck_assert_uint_gt(at + 16, length);
            break;
        }
        size_t taken = letters + strlen(pq_corpus_separator[separator]);
        double nats =
            -log(pq_corpus_branch_parts[branch] / 64.0) - log(pq_corpus_separator_parts[separator] / 64.0);
        residual[at * BATCHES / length] += nats - corpus.entropy * (double)taken;
        state = separator < PQ_CORPUS_ENDS ? corpus.next[state][branch] : PQ_CORPUS_START;
        at += taken;
        steps++;
    }
    for (int i = 0; i < BATCHES; i++) mean += residual[i] / BATCHES;
    for (int i = 0; i < BATCHES; i++) variance += (residual[i] - mean) * (residual[i] - mean) / (BATCHES - 1);
    double per_char = mean * BATCHES / (double)length;
    double error = sqrt(variance / BATCHES) * BATCHES / (double)length;
    printf("entropy %.6f nats a character; the text's excess is %.6f, its standard error %.6f\n",
           corpus.entropy, per_char, error);
    ck_assert(fabs(per_char) < 5 * error);
    ck_assert(error < 0.002 * corpus.entropy);
    ck_assert_double_eq_tol((double)length / (double)steps, corpus.mean_length, 0.05);
    free(text);
}
END_TEST

START_TEST(text_is_fixed_by_its_seed) {
    char *text, *part, *other;
    assert_ok(pq_corpus_generate(&corpus, PQ_CORPUS_SEED, PQ_CORPUS_CHARACTERS, &text, &err), &err);
    ck_assert_uint_eq(pq_hash(text, PQ_CORPUS_CHARACTERS), 0xA4C6FE5028238672u);
    for (size_t bytes = 0; bytes < 40; bytes++) {
        assert_ok(pq_corpus_generate(&corpus, PQ_CORPUS_SEED, bytes, &part, &err), &err);
        ck_assert_uint_eq(strlen(part), bytes);
        ck_assert_int_eq(memcmp(text, part, bytes), 0);
        free(part);
    }
    assert_ok(pq_corpus_generate(&corpus, PQ_CORPUS_SEED + 1, 1000, &other, &err), &err);
    ck_assert_int_ne(memcmp(text, other, 1000), 0);
    free(other);
    free(text);
}
END_TEST

int main(void) {
    TCase *tests = tcase_create("corpus");
    pq_corpus_init(&corpus);
    tcase_add_test(tests, probabilities_sum_to_one);
    tcase_add_test(tests, steps_can_be_told_from_their_characters);
    tcase_add_test(tests, stationary_distribution_and_entropy);
    tcase_add_test(tests, text_has_the_entropy);
    tcase_add_test(tests, text_is_fixed_by_its_seed);
    return run_suite(tests);
}
