/* Owns what stands on stderr while a run goes on. The redrawn line loses whole fields from its right end
 * where the terminal is too narrow, so that it never wraps. */
#include "train/progress.h"
#include "base/clock.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define REDRAW_SECONDS 0.1
#define MEMORY_SECONDS 10.0 /* how far back the shown rate looks */
#define ERASE          "\r\x1b[K"

struct pq_progress {
    bool quiet; /* only the clock and the rate */
    int64_t iter, last_iter, next_save;
    double loss;
    bool terminal, stepped;
    char line[160];                               /* as last drawn */
    double drawn;                                 /* when */
    double mark;                                  /* when the clock of training last ran on */
    double tokens, seconds;                       /* since the start, pauses left out */
    double near_tokens, near_seconds, near_iters; /* the same, fading */
    int pauses;
};

static size_t terminal_width(void) {
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/* A cursor that can go back and erase: a terminal that does not call itself dumb. */
static bool can_redraw(void) {
    const char *term = getenv("TERM");
    return isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;
}

static void format_count(double value, char *out, size_t bytes) {
    char digits[32];
    int length = snprintf(digits, sizeof digits, "%.0f", value < 1e15 ? value : 1e15);
    size_t o = 0;
    for (int i = 0; i < length && o + 2 < bytes; i++) {
        if (i && (length - i) % 3 == 0) out[o++] = ',';
        out[o++] = digits[i];
    }
    out[o] = 0;
}

static void format_time(double seconds, char *out, size_t bytes) {
    long long s = seconds < 1e9 ? (long long)(seconds + 0.5) : 1000000000;
    if (s >= 86400)
        snprintf(out, bytes, "%lldd %02lldh", s / 86400, s / 3600 % 24);
    else if (s >= 3600)
        snprintf(out, bytes, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, bytes, "%lld:%02lld", s / 60, s % 60);
}

/* Put the line for the present state into progress->line, at most `width` characters. */
static void compose(pq_progress *p, size_t width) {
    char fields[5][48], number[32];
    size_t count = 0, used = 0;
    snprintf(fields[count++], sizeof fields[0], "iter %lld/%lld", (long long)p->iter,
             (long long)p->last_iter);
    if (p->stepped) {
        snprintf(fields[count++], sizeof fields[0], "loss %.3f", p->loss);
        if (p->near_seconds > 0) {
            format_count(p->near_tokens / p->near_seconds, number, sizeof number);
            snprintf(fields[count++], sizeof fields[0], "%s tok/s", number);
            double left = (double)(p->last_iter - p->iter) * p->near_seconds / p->near_iters;
            format_time(left, number, sizeof number);
            snprintf(fields[count++], sizeof fields[0], "left %s", number);
        }
        if (p->next_save > p->iter)
            snprintf(fields[count++], sizeof fields[0], "next save %lld", (long long)p->next_save);
    }
    if (width >= sizeof p->line) width = sizeof p->line - 1;
    p->line[0] = 0;
    for (size_t i = 0; i < count; i++) {
        size_t length = strlen(fields[i]) + (i ? 2 : 0);
        if (used + length > width) break;
        snprintf(p->line + used, sizeof p->line - used, "%s%s", i ? "  " : "", fields[i]);
        used += length;
    }
}

static void draw(pq_progress *p) {
    compose(p, p->terminal ? terminal_width() - 1 : sizeof p->line);
    p->drawn = pq_seconds();
    fprintf(stderr, p->terminal ? ERASE "%s" : "%s\n", p->line);
    fflush(stderr);
}

pq_progress *pq_progress_create(int64_t first_iter, int64_t last_iter, bool quiet) {
    pq_progress *progress = calloc(1, sizeof *progress);
    if (!progress) return NULL;
    progress->iter = first_iter;
    progress->last_iter = last_iter;
    progress->quiet = quiet;
    progress->terminal = !quiet && can_redraw();
    progress->mark = pq_seconds();
    if (progress->terminal) draw(progress);
    return progress;
}

/* Let the clock of training run on to now. */
static double advance(pq_progress *p) {
    double t = pq_seconds(), passed = p->pauses ? 0 : t - p->mark;
    p->mark = t;
    p->seconds += passed;
    double keep = exp(-passed / MEMORY_SECONDS);
    p->near_tokens *= keep;
    p->near_iters *= keep;
    p->near_seconds = p->near_seconds * keep + passed;
    return t;
}

void pq_progress_step(pq_progress *progress, int64_t iter, double loss, double tokens, int64_t log_every,
                      int64_t next_save) {
    if (!progress) return;
    double t = advance(progress);
    bool first = !progress->stepped, last = iter >= progress->last_iter;
    progress->iter = iter;
    progress->loss = loss;
    progress->next_save = next_save;
    progress->stepped = true;
    progress->tokens += tokens;
    progress->near_tokens += tokens;
    progress->near_iters += 1;
    bool due =
        progress->terminal ? t - progress->drawn >= REDRAW_SECONDS : log_every > 0 && iter % log_every == 0;
    if (!progress->quiet && (first || last || due)) draw(progress);
}

void pq_progress_note(pq_progress *progress, const char *format, ...) {
    if (!progress || progress->quiet) return;
    va_list args;
    if (progress->terminal) fputs(ERASE, stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    if (progress->terminal) draw(progress);
}

void pq_progress_pause(pq_progress *progress) {
    if (!progress) return;
    advance(progress);
    progress->pauses++;
}

void pq_progress_continue(pq_progress *progress) {
    if (!progress) return;
    advance(progress);
    if (progress->pauses > 0) progress->pauses--;
}

double pq_progress_rate(const pq_progress *progress) {
    return progress && progress->seconds > 0 ? progress->tokens / progress->seconds : 0;
}

void pq_progress_destroy(pq_progress *progress) {
    if (progress && progress->terminal) {
        draw(progress); /* the state at the end, not the last one that was due */
        fputc('\n', stderr);
    }
    free(progress);
}
