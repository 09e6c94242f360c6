/* The progress display, as a file and as a terminal of 60 columns see it. */
#include <check.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "tests/harness/suite.h"
#include "train/progress.h"

static char seen[65536];

/* Everything `show` writes to stderr, with stderr being `descriptor`. */
static void with_stderr(int descriptor, void (*show)(void)) {
    int saved;
    fflush(stderr);
    saved = dup(STDERR_FILENO);
    ck_assert_int_ge(dup2(descriptor, STDERR_FILENO), 0);
    show();
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
}

static void capture_file(void (*show)(void)) {
    FILE *file = tmpfile();
    ck_assert_ptr_nonnull(file);
    with_stderr(fileno(file), show);
    rewind(file);
    seen[fread(seen, 1, sizeof seen - 1, file)] = 0;
    fclose(file);
}

static bool has_terminals(void) {
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master >= 0) close(master);
    return master >= 0;
}

static void capture_terminal(unsigned short columns, void (*show)(void)) {
    int master = posix_openpt(O_RDWR | O_NOCTTY), terminal;
    struct winsize size = {.ws_row = 24, .ws_col = columns};
    struct pollfd ready = {.fd = master, .events = POLLIN};
    size_t used = 0;
    ck_assert_int_ge(master, 0);
    ck_assert_int_eq(grantpt(master), 0);
    ck_assert_int_eq(unlockpt(master), 0);
    terminal = open(ptsname(master), O_RDWR | O_NOCTTY);
    ck_assert_int_ge(terminal, 0);
    ck_assert_int_eq(ioctl(terminal, TIOCSWINSZ, &size), 0);
    with_stderr(terminal, show);
    while (used < sizeof seen - 1 && poll(&ready, 1, 0) > 0 && ready.revents & POLLIN) {
        ssize_t got = read(master, seen + used, sizeof seen - 1 - used);
        if (got <= 0) break;
        used += (size_t)got;
    }
    seen[used] = 0;
    close(terminal);
    close(master);
}

static void show_run(void) {
    pq_progress *progress = pq_progress_create(0, 3000, false);
    for (int i = 1; i <= 30; i++) pq_progress_step(progress, i, 4.0 - 0.1 * i, 768, 10, 500);
    pq_progress_pause(progress);
    pq_progress_note(progress, "iter 30: validation loss %.3f", 1.25);
    pq_progress_continue(progress);
    pq_progress_step(progress, 3000, 1.0, 768, 10, 500);
    pq_progress_destroy(progress);
}

START_TEST(plain_lines_in_a_file) {
    static const int shown[] = {1, 10, 20, 30, 3000}; /* the first, every tenth, the last */
    capture_file(show_run);
    ck_assert_ptr_null(strchr(seen, '\r'));
    ck_assert_ptr_null(strchr(seen, '\x1b'));
    ck_assert_ptr_nonnull(strstr(seen, "\niter 30: validation loss 1.250\n"));
    size_t count = 0, lines = 0;
    for (const char *line = seen; *line; line = strchr(line, '\n') + 1) {
        long long iter, last;
        double loss;
        ck_assert_ptr_nonnull(strchr(line, '\n'));
        lines++;
        if (sscanf(line, "iter %lld/%lld  loss %lf", &iter, &last, &loss) != 3) continue;
        ck_assert_uint_lt(count, sizeof shown / sizeof *shown);
        ck_assert_int_eq(iter, shown[count++]);
        ck_assert_int_eq(last, 3000);
        ck_assert_double_eq_tol(loss, iter == 3000 ? 1.0 : 4.0 - 0.1 * (double)iter, 6e-4);
        const char *end = strchr(line, '\n');
        const char *rate = strstr(line, " tok/s  left "), *save = strstr(line, "next save 500\n");
        ck_assert(rate && rate < end);
        ck_assert((save && save < end) == (iter < 500));
    }
    ck_assert_uint_eq(count, 5);
    ck_assert_uint_eq(lines, 6);
}
END_TEST

/* Characters between the erase sequences: no redraw reaches the last column, so none wraps. */
static size_t widest_redraw(void) {
    size_t widest = 0;
    for (const char *at = seen; (at = strstr(at, "\r\x1b[K"));) {
        at += 4;
        size_t width = strcspn(at, "\r\n");
        if (strncmp(at, "iter 30:", 8) != 0 && width > widest) widest = width;
    }
    return widest;
}

START_TEST(one_redrawn_line_on_a_terminal) {
    setenv("TERM", "xterm", 1);
    for (unsigned short columns = 1; columns <= 100; columns++) {
        capture_terminal(columns, show_run);
        ck_assert_uint_lt(widest_redraw(), columns);
        ck_assert_ptr_nonnull(strstr(seen, "\r\x1b[Kiter 30: validation loss 1.250\r\n\r\x1b[K"));
        ck_assert_int_eq(seen[strlen(seen) - 1], '\n');
        size_t lines = 0;
        for (const char *c = seen; *c; c++) lines += *c == '\n';
        ck_assert_uint_eq(lines, 2); /* the note's and the end's */
    }
    capture_terminal(60, show_run);
    ck_assert_ptr_nonnull(strstr(seen, "iter 0/3000"));
    ck_assert_ptr_nonnull(strstr(seen, "iter 3000/3000  loss 1.000  "));
    ck_assert_ptr_nonnull(strstr(seen, "left 0:00"));
}
END_TEST

START_TEST(dumb_terminal_gets_plain_lines) {
    setenv("TERM", "dumb", 1);
    capture_terminal(80, show_run);
    ck_assert_ptr_null(strchr(seen, '\x1b'));
    ck_assert_ptr_nonnull(strstr(seen, "iter 10/3000  loss 3.000"));
}
END_TEST

static void show_quiet(void) {
    pq_progress *progress = pq_progress_create(0, 10, true);
    usleep(1000);
    pq_progress_step(progress, 1, 1, 1, 1, 5);
    pq_progress_note(progress, "unseen");
    pq_progress_pause(progress);
    pq_progress_continue(progress);
    ck_assert_double_gt(pq_progress_rate(progress),
                        0); /* what timing.jsonl tells does not depend on the screen */
    pq_progress_destroy(progress);
}

START_TEST(quiet_says_nothing) {
    capture_file(show_quiet);
    ck_assert_str_eq(seen, "");
}
END_TEST

static double paused[2], running[2];

static void show_pause(void) {
    pq_progress *progress = pq_progress_create(0, 10, false);
    usleep(1000);
    pq_progress_pause(progress);
    for (int i = 0; i < 2; i++) {
        usleep(1000);
        pq_progress_step(progress, i + 1, 1, 1024, 0, 0);
        paused[i] = pq_progress_rate(progress);
    }
    pq_progress_continue(progress);
    for (int i = 0; i < 2; i++) {
        usleep(1000);
        pq_progress_step(progress, i + 3, 1, 0, 0, 0);
        running[i] = pq_progress_rate(progress);
    }
    pq_progress_destroy(progress);
}

/* While the clock stands still, twice the tokens are exactly twice the rate; when it runs on, the rate falls.
 */
START_TEST(pauses_do_not_count) {
    capture_file(show_pause);
    ck_assert_double_gt(paused[0], 0);
    ck_assert_double_eq(paused[1], 2 * paused[0]);
    ck_assert_double_lt(running[0], paused[1]);
    ck_assert_double_lt(running[1], running[0]);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("progress");
    TCase *tests = tcase_create("progress");
    tcase_set_timeout(tests, 0);
    tcase_add_test(tests, plain_lines_in_a_file);
    if (has_terminals()) {
        tcase_add_test(tests, one_redrawn_line_on_a_terminal);
        tcase_add_test(tests, dumb_terminal_gets_plain_lines);
    } else {
        printf("skipped: what a terminal shows (no pseudo-terminal could be opened here)\n");
    }
    tcase_add_test(tests, quiet_says_nothing);
    tcase_add_test(tests, pauses_do_not_count);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
