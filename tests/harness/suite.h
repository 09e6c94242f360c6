/* Running a suite of Check as a program's main: in one process, since OpenBLAS's threads and LeakSanitizer do
 * not survive a fork. */
#ifndef PQ_TESTS_HARNESS_SUITE_H
#define PQ_TESTS_HARNESS_SUITE_H

#include <check.h>

/* The exit status of the program. */
static inline int run_suite(Suite *suite) {
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

#endif
