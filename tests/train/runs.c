#include "tests/train/runs.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

pq_error err;
char folder[64];
const char cat_words[] = "the cat sat on a mat. ";

void must(pq_status status) {
    ck_assert_msg(status == PQ_OK, "%s", err.message);
}

const char *path_of(const char *name) {
    static char paths[8][256];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

void make_text(const char *name, const char *words, size_t bytes) {
    FILE *file = fopen(path_of(name), "w");
    unsigned state = 1;
    ck_assert_ptr_nonnull(file);
    for (size_t i = 0; i < bytes; i++) {
        state = state * 1103515245u + 12345u;
        /* Words of a fixed cycle with some noise: there is something to learn. */
        fputc((state >> 16) % 10 == 0 ? 'z' : words[i % strlen(words)], file);
    }
    fclose(file);
}

void make_folder(void) {
    strcpy(folder, "/tmp/potqat-train-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    make_text("text.txt", cat_words, 4000);
}

void remove_folder(void) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    ck_assert_int_eq(system(command), 0);
}

typedef struct stopper {
    int after, asked;
} stopper;

static bool stop_after(void *user) {
    stopper *s = user;
    return s->asked++ >= s->after;
}

static const char *const base[] = {"data.tokenizer=char", "model.layers=2",       "model.heads=2",
                                   "model.width=16",      "model.context=12",     "model.bias=true",
                                   "model.gelu=tanh",     "train.batch=3",        "train.max_iters=9",
                                   "eval.every=4",        "eval.windows=5",       "save.every=1",
                                   "save.keep=100",       "log.every=2",          "train.lr=1e-2",
                                   "train.min_lr=1e-3",   "train.warmup_iters=2", NULL};
enum { MOST = 40 };

pq_status config_of(const char *run, const char *const *const *lists, pq_config **out) {
    char data[300], dir[300];
    const char *all[MOST];
    size_t count = 0;
    snprintf(data, sizeof data, "data.path=%s/text.txt", folder);
    snprintf(dir, sizeof dir, "run.dir=%s/%s", folder, run);
    all[count++] = data, all[count++] = dir;
    for (; *lists; lists++)
        for (const char *const *words = *lists; *words; words++) {
            ck_assert_uint_lt(count, MOST);
            all[count++] = *words;
        }
    return pq_config_load(NULL, all, count, out, &err);
}

pq_status train_lists(const char *run, const char *const *const *lists, bool resume, int stop,
                      pq_train_result *result) {
    pq_config *config;
    stopper s = {.after = stop};
    pq_status status = config_of(run, lists, &config);
    if (status != PQ_OK) return status;
    pq_train_options options = {
        .resume = resume, .quiet = true, .cancelled = stop >= 0 ? stop_after : NULL, .user = &s};
    status = pq_train(config, &options, result, &err);
    pq_config_destroy(config);
    return status;
}

pq_status train(const char *run, const char *const *more, bool resume, int stop, pq_train_result *result) {
    const char *const *const lists[] = {base, more, NULL};
    return train_lists(run, lists, resume, stop, result);
}

void same_file(const char *run_a, const char *run_b, const char *name) {
    char a[300], b[300];
    pq_file_view x, y;
    snprintf(a, sizeof a, "%s/%s/%s", folder, run_a, name);
    snprintf(b, sizeof b, "%s/%s/%s", folder, run_b, name);
    must(pq_file_read(a, &x, &err));
    must(pq_file_read(b, &y, &err));
    ck_assert_msg(x.size == y.size && memcmp(x.data, y.data, x.size) == 0, "%s of %s and %s differ", name,
                  run_a, run_b);
    pq_file_view_close(&x);
    pq_file_view_close(&y);
}
