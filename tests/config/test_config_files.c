/* The configs and the reference that the repository ships. */
#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "config/help.h"
#include "tests/harness/suite.h"

static pq_config *load(const char *name) {
    char path[1024];
    pq_config *config = NULL;
    pq_error err = {0};
    snprintf(path, sizeof path, PQ_SOURCE_ROOT "/configs/%s", name);
    ck_assert_msg(pq_config_load(path, NULL, 0, &config, &err) == PQ_OK, "%s", err.message);
    return config;
}

START_TEST(every_config_loads_and_says_where_it_writes) {
    DIR *folder = opendir(PQ_SOURCE_ROOT "/configs");
    size_t count = 0;
    ck_assert_ptr_nonnull(folder);
    for (struct dirent *entry; (entry = readdir(folder));) {
        const char *ending = strrchr(entry->d_name, '.');
        char dir[512];
        if (!ending || strcmp(ending, ".yaml") != 0 || strncmp(entry->d_name, "sweep-", 6) == 0) continue;
        pq_config *config = load(entry->d_name);
        snprintf(dir, sizeof dir, "runs/%.*s", (int)(ending - entry->d_name), entry->d_name);
        ck_assert_str_eq(config->run.dir, dir);
        pq_config_destroy(config);
        count++;
    }
    closedir(folder);
    ck_assert_uint_ge(count, 6);
}
END_TEST

START_TEST(configs_say_what_the_papers_did) {
    pq_config *config = load("quickstart.yaml");
    ck_assert_int_eq(config->train.max_iters, 3000);
    ck_assert_int_eq(config->model.width, 128);
    ck_assert_double_eq(config->train.min_lr, 1e-4);
    pq_config_destroy(config);
    config = load("quickstart-qat.yaml");
    ck_assert_str_eq(config->init.from, "runs/quickstart@last");
    ck_assert_str_eq(config->quant.quantizer, "pot");
    ck_assert(config->model.layers == PQ_UNSET);
    pq_config_destroy(config);
    config = load("char-qat-released.yaml");
    ck_assert_double_eq(config->quant.scale_eps, 0x1p-12);
    ck_assert_double_eq(config->quant.range.items[1], 4);
    ck_assert_str_eq(config->train.loss, "last-token");
    ck_assert_str_eq(config->init.optimizer, "keep");
    ck_assert_int_eq(config->train.max_iters, 22500);
    pq_config_destroy(config);
    config = load("baby.yaml");
    ck_assert_int_eq(config->model.context, 256);
    ck_assert_int_eq(config->train.batch, 64);
    pq_config_destroy(config);
}
END_TEST

START_TEST(the_reference_is_up_to_date) {
    char *text;
    size_t bytes;
    pq_file_view file;
    pq_error err = {0};
    FILE *out = open_memstream(&text, &bytes);
    pq_config_print_help(true, out);
    fclose(out);
    ck_assert_msg(pq_file_read(PQ_SOURCE_ROOT "/docs/config.md", &file, &err) == PQ_OK, "%s", err.message);
    ck_assert_msg(file.size == bytes && memcmp(file.data, text, bytes) == 0,
                  "docs/config.md is stale: potqat config --markdown > docs/config.md");
    pq_file_view_close(&file);
    free(text);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("config files");
    TCase *tests = tcase_create("all");
    tcase_add_test(tests, every_config_loads_and_says_where_it_writes);
    tcase_add_test(tests, configs_say_what_the_papers_did);
    tcase_add_test(tests, the_reference_is_up_to_date);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
