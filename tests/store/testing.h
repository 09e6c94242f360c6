/* Random models, comparisons and temporary folders for the tests of store. */
#ifndef PQ_TESTS_STORE_TESTING_H
#define PQ_TESTS_STORE_TESTING_H

#include "model/model.h"
#include "store/checkpoint.h"

/* A 64-bit generator of its own, so that tests do not lean on what they test. */
uint64_t testing_random(uint64_t *state);

/* Random weights, moments and texts. `kind`: 0 nothing quantized; 1 pot 15 per row; 2 pot 7 per tensor, a
 * third in c_attn; 3 pot-zero-free 16 in groups of 32; 4 uniform [-8, 7] per row; 5 pot-released [-8, 4] per
 * tensor; 6 a mixture of log-rounded pot 63 in groups of 64, pot 3 per row, uniform 5 levels, and fp32.
 * Activations: int8-affine in 1 and 6, int8-token in 4. Odd kinds and 6 have arrays of
 * training state. */
enum { TESTING_KINDS = 7 };
void testing_make(uint64_t seed, const pq_gpt2_shape *shape, int kind, pq_model **model,
                  pq_training_state *state);
/* Every bit equal? Says where not, on stdout. */
bool testing_equal(const pq_model *a, const pq_training_state *sa, const pq_model *b,
                   const pq_training_state *sb);

char *testing_folder(void);                                /* made by mkdtemp; heap */
void testing_remove(char *folder);                         /* with all in it; frees the name */
size_t testing_entries(const char *dir, const char *part); /* entries whose name contains `part` */
char *testing_path(const char *dir, const char *name);     /* like pq_path_join, never NULL */
void testing_write(const char *path, const char *data, size_t bytes);

#endif
