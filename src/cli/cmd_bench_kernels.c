/* potqat bench kernels: the speed of each kernel beside what the machine can do. */

#include "base/threads.h"
#include "cli/cli.h"
#include "train/bench_kernels.h"

typedef struct printer {
    bool json;
    pq_status status;
    pq_error *err;
    size_t rows;
} printer;

static void print_json(printer *p, const pq_bench_row *r) {
    if (p->status != PQ_OK) return;
    json_t *line =
        json_pack("{s:s, s:s, s:s, s:s, s:f, s:f, s:i, s:f, s:f}", "kernel", r->kernel, "what", r->what,
                  "data", r->data, "unit", r->unit, "one_thread", r->one, "one_thread_share", r->one_share,
                  "threads", pq_threads_get(), "all_threads", r->all, "all_threads_share", r->all_share);
    p->status = pq_cli_print_json(line, p->err);
}

static void print_text(const printer *p, const pq_bench_row *r) {
    if (p->rows == 0)
        printf("%-22s %-17s %-9s %-7s %9s %6s %6d thr. %6s\n", "kernel", "", "data", "", "1 thread", "peak %",
               pq_threads_get(), "peak %");
    printf("%-22s %-17s %-9s %-7s %9.2f %6.1f %11.2f %6.1f\n", r->kernel, r->what, r->data, r->unit, r->one,
           100 * r->one_share, r->all, 100 * r->all_share);
    fflush(stdout);
}

static void print_row(void *user, const pq_bench_row *row) {
    printer *p = user;
    if (p->json)
        print_json(p, row);
    else
        print_text(p, row);
    p->rows++;
}

static pq_status run(const pq_cli *cli, pq_error *err) {
    printer p = {.json = pq_cli_json(cli), .err = err};
    pq_status status = pq_bench_kernels(pq_cli_at(cli, 0), print_row, &p, err);
    return status == PQ_OK ? p.status : status;
}

static const pq_flag flags[] = {{NULL, 0, NULL, NULL}};

const pq_command pq_cmd_bench_kernels = {
    .verb = "bench kernels",
    .synopsis = "[NAME] [--threads N] [--json]",
    .summary = "time each kernel beside what the machine can do",
    .details =
        "Times the kernels whose name contains NAME (default: all, in some 20 seconds) with one thread and "
        "with "
        "all, and compares each with a peak of this machine, which is measured before and after (the larger "
        "counts): multiply-adds in registers (peak_multiply_add; peak_multiply_add_bf16 where the CPU "
        "multiplies bf16); "
        "an "
        "array that is read, copied, or changed in place (peak_read, peak_copy, peak_update), in the L2 and "
        "far "
        "beyond the last cache.\n"
        "\n"
        "Kernels that go through arrays have two rows: data in the L2 (half of it, each thread its own), and "
        "streamed from memory. GB/s are all bytes read and written; the peak is that of the same traffic in "
        "the "
        "same place. Products have the shapes of training (fc: C to 4 C, proj: 4 C to C, head: C to the "
        "vocabulary, in slices), attention is one head over one sequence a thread; GFLOP/s count a "
        "multiply-add "
        "as two, of attention the causal half. Times are the least of three measurements: run it on an idle "
        "machine.\n"
        "\n"
        "--json prints one line a row: kernel, what, data, unit, one_thread, one_thread_share, threads, "
        "all_threads, all_threads_share.\n"
        "\n"
        "EXAMPLES\n"
        "    potqat bench kernels\n"
        "    potqat bench kernels gemm --threads 2\n"
        "    POTQAT_CPU=avx2 potqat bench kernels adamw --json\n",
    .flags = flags,
    .most = 1,
    .run = run,
};
