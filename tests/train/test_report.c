/* Reports: believable, hostile, partial and damaged run folders through every writer. check_page.py judges
 * the page's form; numbers are computed here again. */
#include <check.h>
#include <ftw.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "tests/harness/suite.h"
#include "train/report/report.h"

static char dir[64];
static char paths[64][512]; /* of one test */
static size_t path_count;

static void setup(void) {
    snprintf(dir, sizeof dir, "%s", "/tmp/potqat-report-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    path_count = 0;
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *where) {
    (void)info, (void)type, (void)where;
    return remove(path);
}

static void teardown(void) {
    ck_assert_int_eq(nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* DIR/name; stays until the test ends. */
static const char *at(const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    for (size_t i = 0; i < path_count; i++)
        if (strcmp(paths[i], path) == 0) return paths[i];
    ck_assert_uint_lt(path_count, sizeof paths / sizeof *paths);
    return strcpy(paths[path_count++], path);
}

static void put(const char *run, const char *name, const char *text) {
    char path[512];
    mkdir(at(run), 0777);
    snprintf(path, sizeof path, "%s/%s/%s", dir, run, name);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    ck_assert_int_eq(fclose(file), 0);
}

static double val_loss(int iter, double end) {
    return end + (4.17 - end) * exp(-iter / 300.0);
}

/* A finished run of 1,000 iterations, evaluated at 0, 250, ..., the best one at 750. */
static void make_run(const char *name, bool quantized, double end) {
    char config[512], info[1024], *lines, *timing;
    size_t bytes;
    snprintf(
        config, sizeof config,
        "run:\n  dir: runs/%s\ndata:\n  path: builtin\n  split: [0.8, 0.1, 0.1]\nquant:\n  quantizer: %s\n"
        "  levels: 15\n  range: null\n  rounding: nearest\n  granularity: row\n  scale: mse\n"
        "train:\n  max_iters: 1000\n  lr: %s\n",
        name, quantized ? "pot" : "none", quantized ? "1.0e-4" : "1.0e-3");
    put(name, "config.yaml", config);
    snprintf(
        info, sizeof info,
        "{\"potqat\":\"0.1.0\",\"commit\":\"abc123\",\"cpu\":\"A CPU\",\"kernels\":\"avx2\",\"threads\":2,"
        "\"arguments\":[\"potqat\",\"train\",\"a&b.yaml\"],\"data\":{\"source\":\"builtin\",\"floor\":1.0625}"
        ","
        "\"parameters\":1000000,\"quantized_parameters\":%d,\"weight_bytes\":%d,\"fp32_bytes\":4000000,"
        "\"status\":\"done\",\"iter\":1000,\"quant\":\"%s\",\"parent\":%s}",
        quantized ? 990000 : 0, quantized ? 40000 + 990000 / 2 + 15469 : 4000000,
        quantized ? "pot 15 row mse" : "none",
        quantized ? "{\"model\":\"runs/base@best\",\"loss\":1.5}" : "null");
    put(name, "run.json", info);
    FILE *out = open_memstream(&lines, &bytes);
    for (int i = 0; i <= 1000; i += 10) {
        if (i)
            fprintf(out, "{\"iter\":%d,\"split\":\"train\",\"loss\":%.9g,\"tokens\":768}\n", i,
                    val_loss(i, end) - 0.1);
        if (i % 250 == 0)
            fprintf(out,
                    "{\"iter\":%d,\"split\":\"val\",\"protocol\":\"all-tokens\",\"context\":64,\"loss\":%.9g,"
                    "\"loss_se\":0.005,\"tokens\":111000}\n",
                    i, i == 750 ? end - 0.01 : val_loss(i, end));
        if (i % 500 == 0 && quantized)
            fprintf(out,
                    "{\"iter\":%d,\"matrix\":\"wte.weight\",\"sqnr_db\":%d.25,\"zeros\":0.125,\"codes_"
                    "changed\":7}\n",
                    i, 10 + i / 500);
    }
    fprintf(out, "{\"iter\":1000,\"event\":\"skipped\",\"reason\":\"gradient is NaN\"}\n");
    ck_assert_int_eq(fclose(out), 0);
    put(name, "metrics.jsonl", lines);
    free(lines);
    out = open_memstream(&timing, &bytes);
    for (int i = 10; i <= 1000; i += 10)
        fprintf(out, "{\"iter\":%d,\"tokens_per_s\":%d,\"elapsed_s\":%g}\n", i, i == 500 ? 1 : 41234,
                0.1 * i);
    ck_assert_int_eq(fclose(out), 0);
    put(name, "timing.jsonl", timing);
    free(timing);
}

static char page[1 << 20], words[1 << 20];

/* Write the page about these runs, have it judged; `page` is its source, `words` its visible text. */
static void make_page(const char *const *runs, size_t count) {
    pq_error err = {0};
    char command[512];
    pq_status status = pq_report_html(runs, count, at("page.html"), true, &err);
    ck_assert_msg(status == PQ_OK, "%s", err.message);
    pq_file_view file;
    ck_assert_int_eq(pq_file_read(at("page.html"), &file, NULL), PQ_OK);
    ck_assert_uint_lt(file.size, sizeof page);
    memcpy(page, file.data, file.size + 1);
    pq_file_view_close(&file);
    snprintf(command, sizeof command, "python3 '%s' '%s' 2>&1", CHECK_PAGE, at("page.html"));
    FILE *checker = popen(command, "r");
    ck_assert_ptr_nonnull(checker);
    words[fread(words, 1, sizeof words - 1, checker)] = 0;
    ck_assert_msg(pclose(checker) == 0, "%s", words);
}

static void says(const char *text) {
    ck_assert_msg(strstr(words, text) != NULL, "the page does not say: %s", text);
}

static void says_not(const char *text) {
    ck_assert_msg(strstr(words, text) == NULL, "the page says: %s", text);
}

static size_t count_of(const char *text, const char *what) {
    size_t count = 0;
    for (; (text = strstr(text, what)); text += strlen(what)) count++;
    return count;
}

static const char *number(const char *format, double a, double b) {
    static char texts[8][64];
    static int next;
    char *text = texts[next++ % 8];
    snprintf(text, sizeof *texts, format, a, b);
    return text;
}

START_TEST(a_finished_run) {
    make_run("char-qat", true, 1.5);
    const char *runs[] = {at("char-qat")};
    make_page(runs, 1);
    double last = val_loss(1000, 1.5), best = 1.49;
    says("char-qat – potqat");
    says("val, all-tokens, context 64");
    says(number("%.4f%.4f to ", last, last - 1.96 * 0.005));
    says(number("%.4f to %.4f", last - 1.96 * 0.005, last + 1.96 * 0.005));
    says(number("%.3f%.3f to ", exp(last), exp(last - 1.96 * 0.005)));
    says(number("%.4fat 750", best, 0));
    says("at 750");
    says("154");                                                  /* levels, bits */
    says(number("%.2f", 8.0 * (990000 / 2 + 15469) / 990000, 0)); /* bits a weight, scales included */
    says("550 kB");
    says("13.8 %");
    says("41,234"); /* the median: one slow moment does not count */
    says("1:40");
    says("done, iteration 1,000 of 1,000");
    says("runs/base@best, loss 1.5000");
    says("1,000,000, 990,000 of them quantized");
    says("The entropy of the text of char-qat is 1.0625 nats a token, a perplexity of 2.894");
    says("wte.weight12.2512.50 %7"); /* the last line of the matrix: a share and a count */
    says("Iteration 1,000: skipped, gradient is NaN");
    says("potqat train a&b.yaml");
    says("max_iters: 1000");
    says_not("Config differences");
    says_not("No curves");
    ck_assert_uint_eq(count_of(page, "<svg"),
                      2 + 1 + 3 * (1 + 1));        /* loss in two sizes, three panels; keys */
    ck_assert_uint_eq(count_of(page, "black"), 0); /* text and axes follow the page, light or dark */
    ck_assert_uint_gt(count_of(page, "fill=\"currentColor\""), 0);
    ck_assert_uint_eq(count_of(page, "<circle"),
                      2 * 5 + 3 * 3 + 4);                     /* a dot an evaluation, in panels, in keys */
    ck_assert_uint_eq(count_of(page, "stroke-dasharray"), 2); /* the floor */
}
END_TEST

START_TEST(runs_side_by_side) {
    make_run("base", false, 1.4);
    make_run("char-qat", true, 1.5);
    const char *runs[] = {at("base"), at("char-qat/")};
    make_page(runs, 2);
    says("2 runs – potqat");
    says("Config differences Keybasechar-qat quant.quantizernonepot train.lr1.0e-31.0e-4 Keys in which all "
         "agree");
    says_not("run.dir");
    says_not("Different protocols");
    ck_assert_uint_eq(count_of(page, "floor of the text</li>"), 1);
    says("Perplexity against bits a weight – val, all-tokens, context 64");
    make_run("again", false, 1.4);
    const char *same[] = {at("base"), at("again"), at("base/")}; /* one of them twice */
    make_page(same, 3);
    says("2 runs – potqat");
    says("None: the configs agree in every key.");
}
END_TEST

START_TEST(same_names_are_told_apart) {
    mkdir(at("a"), 0777);
    mkdir(at("b"), 0777);
    make_run("a/run", false, 1.4);
    make_run("b/run", false, 1.4);
    const char *runs[] = {at("a/run"), at("b/run")};
    make_page(runs, 2);
    says("/a/run");
    says("/b/run");
}
END_TEST

START_TEST(protocols_stay_apart) {
    make_run("base", false, 1.4);
    put("other", "metrics.jsonl",
        "{\"iter\":0,\"split\":\"val\",\"protocol\":\"last-token\",\"context\":64,\"loss\":3.25}\n"
        "{\"iter\":0,\"split\":\"val\",\"protocol\":\"sliding\",\"context\":64,\"stride\":32,\"loss\":2.25}\n"
        "{\"iter\":0,\"split\":\"val\",\"protocol\":\"sliding\",\"context\":64,\"stride\":16,\"loss\":2.125}"
        "\n"
        "{\"iter\":0,\"split\":\"val\",\"protocol\":\"all-tokens\",\"context\":32,\"loss\":1.25}\n"
        "{\"iter\":0,\"split\":\"test\",\"protocol\":\"all-tokens\",\"context\":64,\"loss\":0.25}\n");
    const char *runs[] = {at("base"), at("other")};
    make_page(runs, 2);
    static const char *const tables[][2] = {{"val, all-tokens, context 64 Run", "base"},
                                            {"val, last-token, context 64 Run", "other03.2500"},
                                            {"val, sliding, context 64, stride 32 Run", "other02.2500"},
                                            {"val, sliding, context 64, stride 16 Run", "other02.1250"},
                                            {"val, all-tokens, context 32 Run", "other01.2500"},
                                            {"test, all-tokens, context 64 Run", "other00.2500"}};
    for (int i = 0; i < 6; i++) {
        const char *start = strstr(words, tables[i][0]);
        ck_assert_ptr_nonnull(start);
        const char *row = strstr(start, tables[i][1]),
                   *end = strstr(start + 1, i < 5 ? tables[i + 1][0] : "Different");
        ck_assert(row && end && row < end);
        if (i == 0) ck_assert(strstr(start, "other") > end);
    }
    says("Different protocols score different tokens");
    ck_assert_uint_eq(count_of(page, "<svg"), (2 + 1) * 6);
}
END_TEST

START_TEST(hostile_text_stays_text) {
    static const char name[] = "<script>alert('x')&\"`id`$(id) %s \\ '\n\x1b\xFF\xC2\x80 ü";
    char path[512];
    make_run("run", true, 1.5);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    ck_assert_int_eq(rename(at("run"), path), 0);
    put(name, "config.yaml",
        "run:\n  dir: \"</pre><script>alert(1)</script>\"\nquant:\n  quantizer: '<b>'\n");
    put(name, "run.json",
        "{\"quant\":\"</td><img src=x onerror=alert(1)>\",\"status\":\"\\u0001<i>\",\"cpu\":\"&amp;\","
        "\"arguments\":[\"<svg onload=x>\",3,null],\"parent\":{\"model\":\"'><u>\"}}");
    const char *runs[] = {path};
    make_page(runs, 1);
    says("<script>alert('x')&\"`id`$(id) %s \\ '\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD "
         "ü");
    says("</td><img src=x onerror=alert(1)>");
    says("\xEF\xBF\xBD<i>");
    says("&amp;");
    says("</pre><script>alert(1)</script>");
    pq_error err = {0};
    ck_assert_msg(pq_report_figures(runs, 1, at("figures"), false, &err) == PQ_OK, "%s", err.message);
    pq_file_view figure;
    ck_assert_int_eq(pq_file_read(at("figures/loss.svg"), &figure, NULL), PQ_OK);
    ck_assert_ptr_nonnull(strstr(figure.data, "&lt;script&gt;alert(&#39;x&#39;)&amp;&quot;`id`"));
    pq_file_view_close(&figure);
}
END_TEST

START_TEST(partial_runs) {
    static const char *const partial[][2] = {
        {"config.yaml", "train:\n  lr: 1e-3\n"},
        {"config.yaml", ""},
        {"config.yaml", "# nothing\n"},
        {"run.json", "{}"},
        {"run.json", "{\"data\":null,\"parameters\":\"many\",\"arguments\":{},\"parent\":3,\"status\":[1],"
                     "\"threads\":{}}"},
        {"metrics.jsonl", ""},
        {"metrics.jsonl", "{\"iter\":1,\"split\":\"train\",\"loss\":4}\n"},
        {"metrics.jsonl",
         "{\"iter\":1,\"split\":\"val\",\"loss\":null}\n{\"iter\":1,\"split\":3,\"loss\":3}\n{\"it"},
        {"timing.jsonl", "{\"iter\":1,\"tokens_per_s\":null}\n"}};
    for (size_t i = 0; i < sizeof partial / sizeof *partial; i++) {
        put("run", partial[i][0], partial[i][1]);
        const char *runs[] = {at("run")};
        char *text;
        size_t bytes;
        make_page(runs, 1);
        says("run: no evaluation is recorded yet.");
        ck_assert_uint_eq(count_of(page, "<svg"), 0);
        FILE *out = open_memstream(&text, &bytes);
        ck_assert_int_eq(pq_report_text(runs, 1, out, NULL), PQ_OK);
        ck_assert_int_eq(fclose(out), 0);
        ck_assert_str_eq(text, "run: no evaluation is recorded yet\n");
        free(text);
        ck_assert_int_eq(pq_report_csv(runs, 1, at("x.csv"), true, NULL), PQ_OK);
        ck_assert_int_eq(pq_report_figures(runs, 1, at("figures"), true, NULL), PQ_ERR_USAGE);
        remove(at("run/config.yaml")), remove(at("run/run.json"));
        remove(at("run/metrics.jsonl")), remove(at("run/timing.jsonl"));
    }
}
END_TEST

START_TEST(extreme_numbers) {
    static const char *const losses[] = {"0", "-1", "1e-300", "700", "800", "1e300", "3"};
    for (size_t i = 0; i < sizeof losses / sizeof *losses; i++)
        for (int several = 0; several < 2; several++) {
            char text[512];
            snprintf(
                text, sizeof text,
                "{\"iter\":0,\"split\":\"val\",\"protocol\":\"p\",\"loss\":%s,\"loss_se\":1e300}\n%s",
                losses[i],
                several ? "{\"iter\":9000000000000000000,\"split\":\"val\",\"protocol\":\"p\",\"loss\":2.5}\n"
                        : "");
            put("run", "metrics.jsonl", text);
            const char *runs[] = {at("run")};
            make_page(runs, 1);
            if (several) says("2.5000");
        }
}
END_TEST

START_TEST(long_runs_are_thinned_by_averaging) {
    char *lines;
    size_t bytes;
    FILE *out = open_memstream(&lines, &bytes);
    fprintf(out, "{\"iter\":0,\"split\":\"val\",\"protocol\":\"p\",\"loss\":3}\n");
    for (int i = 1; i <= 100000; i++)
        fprintf(out, "{\"iter\":%d,\"split\":\"train\",\"loss\":%d}\n", i, i % 2 ? 1 : 3);
    ck_assert_int_eq(fclose(out), 0);
    put("run", "metrics.jsonl", lines);
    free(lines);
    const char *runs[] = {at("run")};
    make_page(runs, 1); /* asserts that it is small */
    says("2.2");        /* the axis ends below the mean of two, not below the least value */
    says_not("1.2");
}
END_TEST

START_TEST(what_is_no_run_or_damaged_is_named) {
    static const char *const damaged[][3] = {{"run.json", "{", "run.json"},
                                             {"run.json", "[]", "other JSON"},
                                             {"metrics.jsonl", "x\n{\"iter\":1}\n", "metrics.jsonl, line 1"},
                                             {"timing.jsonl", "{\"iter\":1}\n\n", "timing.jsonl, line 2"},
                                             {"config.yaml", "a: [", "config.yaml"},
                                             {"config.yaml", "- 1\n", "config.yaml"}};
    pq_error err = {0};
    mkdir(at("run"), 0777);
    const char *runs[] = {at("run")};
    ck_assert_int_eq(pq_report_html(runs, 1, at("x.html"), false, &err), PQ_ERR_USAGE);
    ck_assert_ptr_nonnull(strstr(err.message, "is not a run folder"));
    ck_assert_int_eq(pq_report_html(runs, 0, at("x.html"), false, &err), PQ_ERR_USAGE);
    for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++) {
        put("run", damaged[i][0], damaged[i][1]);
        err = (pq_error){0};
        ck_assert_int_eq(pq_report_html(runs, 1, at("x.html"), false, &err), PQ_ERR_FORMAT);
        ck_assert_msg(strstr(err.message, damaged[i][2]) != NULL, "%s", err.message);
        ck_assert_int_eq(pq_report_text(runs, 1, stdout, NULL), PQ_ERR_FORMAT);
        ck_assert_int_eq(pq_report_json(runs, 1, stdout, NULL), PQ_ERR_FORMAT);
        ck_assert_int_eq(pq_report_csv(runs, 1, at("x.csv"), false, NULL), PQ_ERR_FORMAT);
        remove(at("run/config.yaml")), remove(at("run/run.json"));
        remove(at("run/metrics.jsonl")), remove(at("run/timing.jsonl"));
    }
    ck_assert(!pq_file_exists(at("x.html")) && !pq_file_exists(at("x.csv")));
}
END_TEST

START_TEST(nothing_is_overwritten_unasked) {
    make_run("run", false, 1.4);
    put("out", "loss.svg", "old");
    put("out", "x", "old");
    const char *runs[] = {at("run")};
    ck_assert_int_eq(pq_report_html(runs, 1, at("out/x"), false, NULL), PQ_ERR_USAGE);
    ck_assert_int_eq(pq_report_csv(runs, 1, at("out/x"), false, NULL), PQ_ERR_USAGE);
    ck_assert_int_eq(pq_report_figures(runs, 1, at("out"), false, NULL), PQ_ERR_USAGE);
    ck_assert_int_eq(pq_report_html(runs, 1, at("nowhere/x"), false, NULL), PQ_ERR_IO);
    pq_file_view file;
    ck_assert_int_eq(pq_file_read(at("out/x"), &file, NULL), PQ_OK);
    ck_assert_str_eq(file.data, "old");
    pq_file_view_close(&file);
}
END_TEST

START_TEST(without_gnuplot_the_tables_stay) {
    char *path = strdup(getenv("PATH"));
    pq_error err = {0};
    make_run("run", false, 1.4);
    const char *runs[] = {at("run")};
    mkdir(at("bin"), 0777);
    setenv("PATH", at("bin"), 1);
    ck_assert_int_eq(pq_report_html(runs, 1, at("none.html"), false, NULL), PQ_OK);
    ck_assert_int_eq(pq_report_figures(runs, 1, at("out"), false, &err), PQ_ERR_IO);
    ck_assert_ptr_nonnull(strstr(err.message, "gnuplot"));
    put("bin", "gnuplot", "#!/bin/sh\necho 'bad <b> day' >&2\nexit 3\n");
    chmod(at("bin/gnuplot"), 0755);
    ck_assert_int_eq(pq_report_html(runs, 1, at("failed.html"), false, NULL), PQ_OK);
    put("bin", "gnuplot", "#!/bin/sh\necho 'no figure'\n");
    ck_assert_int_eq(pq_report_html(runs, 1, at("empty.html"), false, NULL), PQ_OK);
    setenv("PATH", path, 1);
    free(path);
    static const char *const pages[][2] = {
        {"none.html", "No curves: gnuplot, which draws the curves, is not installed."},
        {"failed.html", "No curves: gnuplot failed and said: bad &lt;b&gt; day"},
        {"empty.html", "No curves: gnuplot wrote no SVG figure"}};
    for (int i = 0; i < 3; i++) {
        pq_file_view file;
        ck_assert_int_eq(pq_file_read(at(pages[i][0]), &file, NULL), PQ_OK);
        ck_assert_ptr_nonnull(strstr(file.data, pages[i][1]));
        ck_assert_ptr_nonnull(strstr(file.data, number("%.4f to %.4f", val_loss(1000, 1.4) - 1.96 * 0.005,
                                                       val_loss(1000, 1.4) + 1.96 * 0.005)));
        pq_file_view_close(&file);
    }
}
END_TEST

START_TEST(text_json_and_csv) {
    char *text;
    size_t bytes;
    double last = val_loss(1000, 1.5);
    make_run("char-qat", true, 1.5);
    make_run("a,\"b\"", false, 1.4);
    const char *runs[] = {at("char-qat"), at("a,\"b\"")};
    FILE *out = open_memstream(&text, &bytes);
    ck_assert_int_eq(pq_report_text(runs, 2, out, NULL), PQ_OK);
    ck_assert_int_eq(fclose(out), 0);
    ck_assert_ptr_nonnull(strstr(text, "val, all-tokens, context 64"));
    char expected[256];
    snprintf(expected, sizeof expected,
             "char-qat  pot 15 row mse     4  1,000  %.4f ± 0.0050  %.3f ± %.3f  1.4900 at 750   550 kB    "
             "41,234  1:40  %.4f to %.4f   reference\n",
             last, exp(last), exp(last) * 0.005, last - 1.96 * 0.005, last + 1.96 * 0.005);
    ck_assert_msg(strstr(text, expected) != NULL, "%s", text);
    free(text);

    out = open_memstream(&text, &bytes);
    ck_assert_int_eq(pq_report_json(runs, 2, out, NULL), PQ_OK);
    ck_assert_int_eq(fclose(out), 0);
    json_t *rows = json_loads(text, 0, NULL);
    ck_assert_uint_eq(json_array_size(rows), 2);
    double loss, perplexity_se;
    int iter, bits;
    ck_assert_int_eq(json_unpack(json_array_get(rows, 0), "{s:i, s:{s:f, s:f}, s:{s:i}}", "bits", &bits,
                                 "last", "loss", &loss, "perplexity_se", &perplexity_se, "best", "iter",
                                 &iter),
                     0);
    ck_assert_int_eq(bits, 4);
    ck_assert_int_eq(iter, 750);
    ck_assert_double_eq_tol(loss, last, 1e-8);
    ck_assert_double_eq_tol(perplexity_se, exp(last) * 0.005, 1e-8);
    ck_assert(json_is_null(json_object_get(json_array_get(rows, 1), "bits")));
    json_decref(rows);
    free(text);

    ck_assert_int_eq(pq_report_csv(runs, 2, at("x.csv"), false, NULL), PQ_OK);
    pq_file_view csv;
    ck_assert_int_eq(pq_file_read(at("x.csv"), &csv, NULL), PQ_OK);
    ck_assert_ptr_nonnull(strstr(csv.data, "\nchar-qat,val,all-tokens,64,,750,,,loss,1.49,0.005\n"));
    ck_assert_ptr_nonnull(strstr(csv.data, "\n\"a,\"\"b\"\"\",val,all-tokens,64,,0,,,loss,4.17,0.005\n"));
    ck_assert_ptr_nonnull(strstr(csv.data, "\nchar-qat,,,,,500,wte.weight,,sqnr_db,11.25,\n"));
    ck_assert_uint_eq(count_of(csv.data, ",loss,"), 2 * 5 + 2 * 100);
    pq_file_view_close(&csv);
}
END_TEST

/* Windows around a loss; the second run is lower by 0.25, give or take 0.01. */
static void put_windows(const char *run, double loss, double spread) {
    char text[4096];
    size_t used = (size_t)sprintf(text, "window,offset,loss\n");
    for (int w = 0; w < 10; w++)
        used += (size_t)sprintf(text + used, "%d,%d,%.9g\n", w, 64 * w,
                                loss + 0.1 * (w - 4.5) + (w % 2 ? spread : -spread));
    put(run, "windows-last.csv", text);
    snprintf(text, sizeof text,
             "{\"iter\":5,\"split\":\"val\",\"protocol\":\"all-tokens\",\"context\":64,\"loss\":%.9g}\n",
             loss);
    put(run, "metrics.jsonl", text);
    put(run, "run.json", "{\"data\":{\"hash\":\"abc\"}}");
}

START_TEST(differences_in_pairs) {
    put_windows("a", 1.5, 0);
    put_windows("b", 1.25, 0.01);
    const char *runs[] = {at("a"), at("b")};
    make_page(runs, 2);
    /* sd = 0.01 sqrt(10 / 9), se = sd / sqrt(10), t(9) = 2.262 */
    double half = 2.262 * 0.01 / 3;
    says("Loss minus that of a");
    says(number("-0.2500%.4f to %.4f", -0.25 - half, -0.25 + half));
    put("b", "run.json", "{\"data\":{\"hash\":\"abd\"}}"); /* another text */
    make_page(runs, 2);
    says_not("-0.2500");
    put_windows("b", 1.25, 0.01);
    put("b", "metrics.jsonl", /* another protocol */
        "{\"iter\":5,\"split\":\"val\",\"protocol\":\"last-token\",\"context\":64,\"loss\":1.25}\n");
    make_page(runs, 2);
    says_not("-0.2500");
    put("b", "windows-last.csv", "window,offset,loss\n0,0,1\n2,128,1\n");
    pq_error err = {0};
    ck_assert_int_eq(pq_report_html(runs, 2, at("x.html"), false, &err), PQ_ERR_FORMAT);
    ck_assert_msg(strstr(err.message, "windows-last.csv, line 3: expected 1,OFFSET,LOSS") != NULL, "%s",
                  err.message);
}
END_TEST

START_TEST(a_sweep_is_grouped_over_seeds) {
    static const double losses[2][3] = {{1.5, 1.52, 1.57}, {1.4, 1.41, 1.42}};
    mkdir(at("sweep"), 0777);
    put("sweep/parent,seed=1", "config.yaml", "train:\n  seed: 1\n");
    for (int p = 0; p < 2; p++)
        for (int seed = 1; seed <= 3; seed++) {
            char run[64], text[256];
            snprintf(run, sizeof run, "sweep/levels=%d,seed=%d", p ? 15 : 7, seed);
            snprintf(text, sizeof text,
                     "init:\n  from: sweep/parent,seed=%d@last\nquant:\n  levels: %d\ntrain:\n  seed: %d\n",
                     seed, p ? 15 : 7, seed);
            put(run, "config.yaml", text);
            snprintf(text, sizeof text,
                     "{\"iter\":5,\"split\":\"val\",\"protocol\":\"p\",\"loss\":%g}\n{\"iter\":5,\"matrix\":"
                     "\"wte.weight\",\"histogram\":[0.25,0.5,0.25],\"zeros\":null}\n",
                     losses[p][seed - 1]);
            put(run, "metrics.jsonl", text);
        }
    const char *runs[] = {at("sweep")};
    make_page(runs, 1);
    says("levels 731.5300"); /* three seeds; sd 0.036056, t(2) = 4.303 */
    says(number("%.4f to %.4f", 1.53 - 4.303 * 0.0360555 / sqrt(3), 1.53 + 4.303 * 0.0360555 / sqrt(3)));
    says("levels 1531.4100");
    says("Loss against quant.levels – val, p");
    says("Levels of levels=7,seed=1");
    says_not("Levels of levels=7,seed=2"); /* seeds look alike */
    says_not("Share of zeros");
    says_not("parent,seed=1no evaluation");
    pq_error err = {0};
    ck_assert_msg(pq_report_figures(runs, 1, at("figures"), false, &err) == PQ_OK, "%s", err.message);
    ck_assert(pq_file_exists(at("figures/loss-quant.levels.svg")) &&
              pq_file_exists(at("figures/levels-1.svg")));
}
END_TEST

int main(void) {
    Suite *suite = suite_create("report");
    TCase *tests = tcase_create("report");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 0);
    tcase_add_test(tests, a_finished_run);
    tcase_add_test(tests, runs_side_by_side);
    tcase_add_test(tests, same_names_are_told_apart);
    tcase_add_test(tests, protocols_stay_apart);
    tcase_add_test(tests, hostile_text_stays_text);
    tcase_add_test(tests, partial_runs);
    tcase_add_test(tests, extreme_numbers);
    tcase_add_test(tests, long_runs_are_thinned_by_averaging);
    tcase_add_test(tests, what_is_no_run_or_damaged_is_named);
    tcase_add_test(tests, nothing_is_overwritten_unasked);
    tcase_add_test(tests, without_gnuplot_the_tables_stay);
    tcase_add_test(tests, text_json_and_csv);
    tcase_add_test(tests, differences_in_pairs);
    tcase_add_test(tests, a_sweep_is_grouped_over_seeds);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
