/* potqat train: a run from a config, or a run that goes on. */
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/threads.h"
#include "cli/cli.h"
#include "config/config.h"
#include "potqat/trainer.h"
#include "store/run.h"
#include "train/job.h"

static volatile sig_atomic_t signalled;

/* The first signal asks the loop to save and stop; the second one leaves at once. */
static void on_signal(int number) {
    signalled = 1;
    signal(number, SIG_DFL);
}

static bool cancelled(void *user) {
    (void)user;
    return signalled;
}

static void print_memory(const pq_session_memory *m) {
    const double mib = 1 << 20;
    printf("# memory plan, MiB: weights %.1f, quantized or bf16 %.1f, gradients %.1f, moments "
           "%.1f, methods %.1f, "
           "teacher %.1f, activations %.1f, scratch %.1f, together %.1f\n",
           (double)m->weights / mib, (double)m->shown / mib, (double)m->gradients / mib,
           (double)m->moments / mib, (double)m->methods / mib, (double)m->teacher / mib,
           (double)m->activations / mib, (double)m->scratch / mib, (double)m->total / mib);
}

/* What a run would be, without running it. */
static pq_status dry_run(pq_config *config, pq_error *err) {
    pq_job *job;
    PQ_TRY(pq_job_prepare(config, NULL, false, &job, err));
    const pq_config *c = config;
    char quant[96], *text = pq_config_to_yaml(c, false);
    double bytes = (double)job->model->params.elements * sizeof(float);
    double iteration = (double)(c->train.batch * c->train.accumulate * c->train.context);
    double tokens = (double)pq_dataset_tokens(job->dataset, PQ_TRAIN);
    pq_job_describe_quant(job, quant, sizeof quant);
    if (text) fputs(text, stdout);
    printf("# data: %s; %zu, %zu and %zu tokens to train, validate and test; vocabulary %lld\n",
           pq_dataset_source(job->dataset), pq_dataset_tokens(job->dataset, PQ_TRAIN),
           pq_dataset_tokens(job->dataset, PQ_VAL), pq_dataset_tokens(job->dataset, PQ_TEST),
           (long long)job->model->params.shape.vocab);
    printf("# parameters: %zu, of these quantized %zu (%s); %zu bytes of weights as exported, %zu in fp32\n",
           job->model->params.weights, pq_job_quantized_parameters(job), quant,
           pq_model_weight_bytes(job->model), job->model->params.weights * sizeof(float));
    print_memory(&job->session->memory);
    /* A checkpoint holds weights and two moments; one more is being written while the old ones are kept. */
    printf("# disk, MiB: %.1f a checkpoint, %.1f a best.h5, at most %.1f at once\n", 3 * bytes / (1 << 20),
           bytes / (1 << 20), ((double)(c->save.keep + 1) * 3 + 2) * bytes / (1 << 20));
    printf("# an iteration reads %.0f tokens: %.2f epochs of %.0f tokens in %lld iterations\n", iteration,
           iteration * (double)(c->train.max_iters - job->counters.iter) / tokens, tokens,
           (long long)c->train.max_iters);
    free(text);
    pq_job_destroy(job);
    return PQ_OK;
}

static void print_result(const pq_cli *cli, const char *dir, const pq_train_result *r) {
    if (pq_cli_json(cli)) {
        json_t *line = json_pack("{s:s, s:I}", "run", dir, "iter", (json_int_t)r->iter);
        const struct {
            const char *name;
            double value;
        } reals[] = {{"loss", r->loss},
                     {"loss_se", r->loss_se},
                     {"best_loss", r->best_loss},
                     {"best_loss_se", r->best_loss_se},
                     {"tokens_per_s", r->tokens_per_s}};
        for (size_t i = 0; i < sizeof reals / sizeof *reals; i++)
            json_object_set_new(line, reals[i].name,
                                isfinite(reals[i].value) ? json_real(reals[i].value) : json_null());
        json_object_set_new(line, "best_iter", json_integer(r->best_iter));
        json_dumpf(line, stdout, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9));
        putchar('\n');
        json_decref(line);
        return;
    }
    printf("%s: iteration %lld", dir, (long long)r->iter);
    if (isfinite(r->loss)) printf(", loss %s", pq_format_loss(r->loss, r->loss_se).text);
    if (r->best_iter >= 0) printf(", best %.4f at %lld", r->best_loss, (long long)r->best_iter);
    printf(", %.0f tokens/s\n", r->tokens_per_s);
}

/* The config of the run in `dir` with the command line's overrides; the folder may have been moved. */
static pq_status load_resumed(const char *dir, const char *const *overrides, size_t count, pq_config **out,
                              pq_error *err) {
    pq_config *before = NULL, *after = NULL;
    char *path = pq_run_path(dir, "config.yaml"), *place = malloc(strlen(dir) + 16);
    const char **all = malloc((count + 1) * sizeof *all);
    pq_status status = path && place && all ? PQ_OK : PQ_FAIL(err, PQ_ERR_MEMORY, "no memory for the config");
    if (status == PQ_OK) status = pq_run_check(dir, err);
    if (status == PQ_OK) {
        sprintf(place, "run.dir=\"%s\"", dir);
        for (size_t i = 0; i < count; i++) all[i] = overrides[i];
        all[count] = place;
        status = pq_config_load(path, (const char *const *)&all[count], 1, &before, err);
    }
    if (status == PQ_OK) status = pq_config_load(path, all, count + 1, &after, err);
    if (status == PQ_OK) status = pq_config_check_resume(before, after, err);
    if (status == PQ_OK) {
        *out = after;
        after = NULL;
    }
    pq_config_destroy(before);
    pq_config_destroy(after);
    free(path);
    free(place);
    free(all);
    return status;
}

static pq_status run(const pq_cli *cli, pq_error *err) {
    size_t count;
    const char *const *overrides = pq_cli_overrides(cli, &count);
    const char *resumed = pq_cli_text(cli, "resume"), *path = pq_cli_at(cli, 0);
    pq_config *config;
    pq_train_result result;
    if (!resumed == !path)
        return PQ_FAIL(err, PQ_ERR_USAGE, "expected either a config file or --resume RUN, found %s",
                       path ? "both" : "neither");
    if (resumed)
        PQ_TRY(load_resumed(resumed, overrides, count, &config, err));
    else
        PQ_TRY(pq_config_load(path, overrides, count, &config, err));
    if (pq_cli_text(cli, "threads")) config->run.threads = 0; /* the option wins over the key */
    pq_train_options options = {.resume = resumed != NULL,
                                .overwrite = pq_cli_has(cli, "overwrite"),
                                .quiet = pq_cli_quiet(cli),
                                .cancelled = cancelled,
                                .profile = pq_cli_has(cli, "profile") ? stderr : NULL};
    options.arguments = pq_cli_words(cli, &options.argument_count);
    pq_status status;
    if (pq_cli_has(cli, "dry-run")) {
        status = dry_run(config, err);
    } else {
        signal(SIGINT, on_signal);
        signal(SIGTERM, on_signal);
        status = pq_train(config, &options, &result, err);
        if (status == PQ_OK || status == PQ_STOPPED || status == PQ_DIVERGED)
            print_result(cli, config->run.dir, &result);
    }
    pq_config_destroy(config);
    return status;
}

static const pq_flag flags[] = {
    {"resume", 0, "RUN", "go on with the run in folder RUN from its newest checkpoint"},
    {"overwrite", 0, NULL, "replace the run that stands in run.dir"},
    {"dry-run", 0, NULL,
     "print the resolved config, parameters, memory, disk need and epochs; train nothing"},
    {"profile", 0, NULL,
     "end with what took the time, to stderr: ops forward and backward, optimizer, loader, evaluation, "
     "saving"},
    {NULL, 0, NULL, NULL},
};

const pq_command pq_cmd_train = {
    .verb = "train",
    .synopsis =
        "CONFIG [key=value ...] [--dry-run] [--overwrite]\n    potqat train --resume RUN [key=value ...]",
    .summary = "train a model, in fp32 or quantization-aware, as a config says",
    .details =
        "Reads the YAML file CONFIG, applies the overrides, and trains in the folder run.dir, which must not "
        "exist. "
        "Every key is listed by: potqat config --help.\n"
        "\n"
        "The folder receives config.yaml (as resolved), run.json (program, machine, data, arguments, "
        "result), "
        "metrics.jsonl (losses; the same bytes for the same config and seed, whatever the threads), "
        "timing.jsonl, "
        "ckpt-N.h5 (the newest save.keep of them), best.h5 (least validation loss, no optimizer state), "
        "windows-best.csv and windows-last.csv (the loss of each validation window, to compare runs in "
        "pairs) and "
        "report.html.\n"
        "\n"
        "SIGINT or SIGTERM finishes the iteration (and an evaluation that is due), saves, and exits with 3; "
        "a second "
        "one leaves at once. --resume continues bit for bit; keys that may change on the way are marked in "
        "potqat "
        "config --help, for example train.max_iters.\n"
        "\n"
        "An iteration whose loss or gradient is NaN or infinite updates nothing; after train.max_bad_iters "
        "of them in "
        "a row the last good weights are saved and the exit status is 4.\n"
        "\n"
        "--profile lists each op, forward (with what is recomputed) and backward, and the other parts of an "
        "iteration: calls, milliseconds an iteration, share of all iterations; GFLOP/s of the products, "
        "counted from their shapes (attention: the causal half), and their share of what this machine can do "
        "in the type they multiply, measured at the end (potqat bench kernels). Below, shares of the whole: "
        "iterations, evaluation, saving.\n"
        "\n"
        "EXAMPLES\n"
        "    potqat train configs/char-fp32.yaml\n"
        "    potqat train configs/char-qat.yaml quant.levels=9 run.dir=runs/char-qat-9\n"
        "    potqat train --resume runs/char-qat train.max_iters=10000\n",
    .flags = flags,
    .overrides = true,
    .most = 1,
    .run = run,
};
