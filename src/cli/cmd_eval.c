/* potqat eval: the loss of a model over a split. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/load.h"
#include "train/evaluate.h"
#include "train/metrics.h"

/* The data as the model's own config has it, with --data and the overrides on top. */
static pq_status load_config(const pq_cli *cli, const pq_model *model, pq_config **out, pq_error *err) {
    size_t count;
    const char *const *overrides = pq_cli_overrides(cli, &count);
    if (!model->config) return pq_config_load(NULL, overrides, count, out, err);
    return pq_config_from_text(model->config, strlen(model->config), "the model's config", overrides, count,
                               out, err);
}

typedef struct subject {
    const char *spec;
    pq_model *model;
    pq_evaluation result;
} subject;

static void print_json(const subject *s, const subject *other, const pq_evaluation_options *o,
                       const pq_dataset *dataset, const pq_difference *d) {
    const pq_evaluation *e = &s->result;
    json_t *line = json_pack(
        "{s:s, s:s, s:s, s:s, s:I, s:I, s:o, s:o, s:o, s:I, s:o, s:s}", "model", s->spec, "data",
        pq_dataset_source(dataset), "split", pq_split_name(o->split), "protocol",
        pq_protocol_name(o->protocol), "context", (json_int_t)o->context, "tokens", (json_int_t)e->tokens,
        "loss", pq_json_real(e->loss), "loss_se", pq_json_real(e->loss_se), "perplexity",
        pq_json_real(exp(e->loss)), "weight_bytes", (json_int_t)pq_model_weight_bytes(s->model),
        "tokens_per_s", pq_json_real((double)(e->windows * o->context) / e->seconds), "precision", "fp32");
    if (other) {
        json_object_set_new(line, "against", json_string(other->spec));
        json_object_set_new(line, "against_loss", pq_json_real(other->result.loss));
        json_object_set_new(line, "difference", pq_json_real(d->mean));
        json_object_set_new(line, "difference_se", pq_json_real(d->se));
    }
    json_dumpf(line, stdout, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(12));
    putchar('\n');
    json_decref(line);
}

static void print_text(const subject *s, const pq_evaluation_options *o, const pq_dataset *dataset) {
    const pq_evaluation *e = &s->result;
    printf("%s\n  data        %s, split %s\n", s->spec, pq_dataset_source(dataset), pq_split_name(o->split));
    printf("  protocol    %s, fp32: %zu windows of %zu tokens that do not overlap, %zu tokens scored\n",
           pq_protocol_name(o->protocol), e->windows, o->context, e->tokens);
    printf("  loss        %s nats a token\n", pq_format_loss(e->loss, e->loss_se).text);
    printf("  perplexity  %s\n", pq_format_loss(exp(e->loss), exp(e->loss) * e->loss_se).text);
    printf("  weights     %zu bytes\n", pq_model_weight_bytes(s->model));
    printf("  speed       %.0f tokens/s\n", (double)(e->windows * o->context) / e->seconds);
}

/* The evaluations are done: print them, and keep the windows' losses where asked. */
static pq_status print_all(const pq_cli *cli, const subject *s, const subject *other,
                           const pq_evaluation_options *o, const pq_dataset *dataset, pq_error *err) {
    pq_difference d = {NAN, NAN};
    const char *windows = pq_cli_text(cli, "windows");
    if (other) PQ_TRY(pq_evaluation_compare(&s->result, &other->result, &d, err));
    if (pq_cli_json(cli)) {
        print_json(s, other, o, dataset, &d);
    } else {
        print_text(s, o, dataset);
        if (other) {
            print_text(other, o, dataset);
            printf("difference    %s nats a token, window by window\n", pq_format_loss(d.mean, d.se).text);
        }
    }
    return windows ? pq_evaluation_write_windows(&s->result, o, windows, pq_cli_has(cli, "overwrite"), err)
                   : PQ_OK;
}

static pq_status evaluate_all(const pq_cli *cli, subject *s, subject *other, pq_error *err) {
    pq_config *config = NULL;
    pq_dataset *dataset = NULL;
    pq_evaluation_options options;
    pq_status status;
    PQ_TRY_TO(status, done, pq_load_model(s->spec, &s->model, err));
    if (other->spec) PQ_TRY_TO(status, done, pq_load_model(other->spec, &other->model, err));
    PQ_TRY_TO(status, done, load_config(cli, s->model, &config, err));
    size_t context = config->train.context != PQ_UNSET ? (size_t)config->train.context
                                                       : (size_t)s->model->params.shape.context;
    PQ_TRY_TO(status, done, pq_evaluation_options_make(config, context, &options, err));
    PQ_TRY_TO(status, done, pq_load_dataset(s->model, config, pq_cli_text(cli, "data"), &dataset, err));
    PQ_TRY_TO(status, done, pq_evaluate(s->model, dataset, &options, &s->result, err));
    if (other->spec)
        PQ_TRY_TO(status, done, pq_evaluate(other->model, dataset, &options, &other->result, err));
    status = print_all(cli, s, other->spec ? other : NULL, &options, dataset, err);
done:
    pq_dataset_close(dataset);
    pq_config_destroy(config);
    return status;
}

static pq_status run(const pq_cli *cli, pq_error *err) {
    subject s = {.spec = pq_cli_at(cli, 0)}, other = {.spec = pq_cli_text(cli, "against")};
    pq_status status = evaluate_all(cli, &s, &other, err);
    pq_evaluation_deinit(&s.result);
    pq_evaluation_deinit(&other.result);
    pq_model_destroy(s.model);
    pq_model_destroy(other.model);
    return status;
}

static const pq_flag flags[] = {
    {"data", 0, "P", "a text, shards or a name, as data.path; default: what the model was trained on"},
    {"against", 0, "MODEL", "evaluate this model too, on the same windows, and print the difference"},
    {"windows", 0, "FILE", "write the loss of each window as CSV"},
    {"overwrite", 0, NULL, "replace FILE"},
    {NULL, 0, NULL, NULL},
};

const pq_command pq_cmd_eval = {
    .verb = "eval",
    .synopsis = "MODEL [--data P] [eval.*=...] [--against MODEL]",
    .summary = "loss and perplexity of a model over a split, with standard error",
    .details = "MODEL is a run folder (its best.h5), RUN@last, RUN@N, a checkpoint .h5, a packed "
               ".safetensors or a Hugging Face folder. The "
               "hard-quantized weights with the stored scales are evaluated in fp32 on the tokens of "
               "data.split's val part "
               "(eval.split=test for another), in windows of eval.context tokens that do not overlap; the "
               "protocol is "
               "printed. The standard error comes from the spread of the windows' losses.\n"
               "\n"
               "eval.protocol=last-token scores the last token of each window alone, as the papers' released "
               "code does: such "
               "losses must not be compared with all-token losses.\n"
               "\n"
               "EXAMPLES\n"
               "    potqat eval runs/char-qat\n"
               "    potqat eval runs/char-qat@last --against runs/char-fp32 eval.split=test\n"
               "    potqat eval model.safetensors --data other.txt --json\n",
    .flags = flags,
    .overrides = true,
    .least = 1,
    .most = 1,
    .run = run,
};
