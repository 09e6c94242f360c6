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
    const char *arithmetic; /* "fp32", or how the engine computed */
    pq_evaluation result;
} subject;

/* What is told of both models and of the text. */
typedef struct findings {
    const pq_dataset *dataset;
    pq_evaluation_options options;
    pq_text_size text;
    pq_difference difference;
    pq_nearness nearness;
} findings;

/* Nats a word or a byte; NaN where there is none. */
static double nats_each(const pq_evaluation *e, size_t count) {
    return count ? e->loss * (double)e->tokens / (double)count : NAN;
}

static void print_json(const subject *s, const subject *other, const findings *f) {
    const pq_evaluation *e = &s->result;
    const pq_evaluation_options *o = &f->options;
    double word = nats_each(e, f->text.words), byte = nats_each(e, f->text.bytes);
    json_t *line =
        json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:o, s:I, s:o, s:o, s:o, s:I, s:o, s:s}", "model", s->spec,
                  "data", pq_dataset_source(f->dataset), "split", pq_split_name(o->split), "protocol",
                  pq_protocol_name(o), "windows", (json_int_t)e->windows, "context", (json_int_t)o->context,
                  "stride", o->stride ? json_integer((json_int_t)o->stride) : json_null(), "tokens",
                  (json_int_t)e->tokens, "loss", pq_json_real(e->loss), "loss_se", pq_json_real(e->loss_se),
                  "perplexity", pq_json_real(exp(e->loss)), "weight_bytes",
                  (json_int_t)pq_model_weight_bytes(s->model), "tokens_per_s",
                  pq_json_real((double)(e->windows * o->context) / e->seconds), "precision", s->arithmetic);
    json_t *text =
        json_pack("{s:I, s:I, s:o, s:o, s:o}", "words", (json_int_t)f->text.words, "bytes",
                  (json_int_t)f->text.bytes, "perplexity_word", pq_json_real(exp(word)), "perplexity_byte",
                  pq_json_real(exp(byte)), "bits_per_byte", pq_json_real(byte / M_LN2));
    json_object_update(line, text);
    json_decref(text);
    if (other) {
        const pq_nearness *n = &f->nearness;
        json_t *pair = json_pack(
            "{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "against", other->spec, "against_loss",
            pq_json_real(other->result.loss), "difference", pq_json_real(f->difference.mean), "difference_se",
            pq_json_real(f->difference.se), "kl", pq_json_real(n->kl), "kl_se", pq_json_real(n->kl_se),
            "top1_agreement", pq_json_real(n->agreement), "top1_agreement_se", pq_json_real(n->agreement_se));
        json_object_update(line, pair);
        json_decref(pair);
    }
    json_dumpf(line, stdout, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(12));
    putchar('\n');
    json_decref(line);
}

static void print_protocol(const subject *s, const pq_evaluation_options *o) {
    const pq_evaluation *e = &s->result;
    printf("  protocol    %s%s%s: %zu windows of %zu tokens ", pq_protocol_name(o), o->bf16 ? "" : ", ",
           o->bf16 ? "" : s->arithmetic, e->windows, o->context);
    if (o->protocol == PQ_SLIDING)
        printf("that begin %zu apart, of each after the first the last %zu", o->stride, o->stride);
    else if (o->protocol == PQ_LAST_TOKEN)
        printf("that do not overlap, of each the last one alone, as the papers' released code");
    else
        printf("that do not overlap");
    printf(", %zu tokens scored\n", e->tokens);
}

static void print_text(const subject *s, const findings *f) {
    const pq_evaluation *e = &s->result;
    const pq_evaluation_options *o = &f->options;
    double byte = nats_each(e, f->text.bytes), word = nats_each(e, f->text.words);
    printf("%s\n  data        %s, split %s\n", s->spec, pq_dataset_source(f->dataset),
           pq_split_name(o->split));
    print_protocol(s, o);
    printf("  loss        %s nats a token\n", pq_format_loss(e->loss, e->loss_se).text);
    printf("  perplexity  %s a token", pq_format_loss(exp(e->loss), exp(e->loss) * e->loss_se).text);
    if (f->text.words) printf(", %.4g a word", exp(word));
    printf(", %.4f a byte\n  bits        %.4f a byte", exp(byte), byte / M_LN2);
    if (f->text.words) printf(", of %zu words and", f->text.words);
    printf("%s %zu bytes\n", f->text.words ? "" : ", of", f->text.bytes);
    printf("  weights     %zu bytes\n", pq_model_weight_bytes(s->model));
    printf("  speed       %.0f tokens/s\n", (double)(e->windows * o->context) / e->seconds);
}

static void print_pair(const findings *f) {
    const pq_nearness *n = &f->nearness;
    printf("difference    %s nats a token, window by window\n",
           pq_format_loss(f->difference.mean, f->difference.se).text);
    if (isnan(n->kl)) return;
    printf("divergence    %.4g ± %.2g nats a token, KL(against || model)\n", n->kl, n->kl_se);
    printf("agreement     %s of tokens have the same most likely token\n",
           pq_format_loss(n->agreement, n->agreement_se).text);
}

/* The evaluations are done: print them, and keep the windows' losses where asked. */
static pq_status print_all(const pq_cli *cli, const subject *s, const subject *other, findings *f,
                           pq_error *err) {
    const char *windows = pq_cli_text(cli, "windows");
    if (other) PQ_TRY(pq_evaluation_compare(&s->result, &other->result, &f->difference, err));
    PQ_TRY(pq_evaluation_count_text(&s->result, f->dataset, &f->options, &f->text, err));
    if (pq_cli_json(cli)) {
        print_json(s, other, f);
    } else {
        print_text(s, f);
        if (other) {
            print_text(other, f);
            print_pair(f);
        }
    }
    return windows ? pq_evaluation_write_windows(&s->result, &f->options, windows,
                                                 pq_cli_has(cli, "overwrite"), err)
                   : PQ_OK;
}

/* By the trainer's graph, both models at once; with --act the first by the engine that packed models have. */
static pq_status evaluate(const pq_cli *cli, subject *s, subject *other, findings *f, pq_error *err) {
    const pq_evaluation_options *o = &f->options;
    pq_engine_options engine;
    pq_packed *packed;
    s->arithmetic = other->arithmetic = o->bf16 ? "bf16" : "fp32";
    if (!pq_cli_text(cli, "act") && !pq_cli_text(cli, "cache"))
        return other->spec ? pq_evaluate_both(s->model, other->model, f->dataset, o, &s->result,
                                              &other->result, &f->nearness, err)
                           : pq_evaluate(s->model, f->dataset, o, &s->result, err);
    if (o->bf16)
        return PQ_FAIL(
            err, PQ_ERR_USAGE,
            "eval.precision: the inference engine (--act, --cache) has no bf16, only the trainer's "
            "graph has");
    f->nearness = (pq_nearness){NAN, NAN, NAN, NAN};
    PQ_TRY(pq_load_engine_options(cli, "fp32", &engine, err));
    s->arithmetic = engine.int8 ? "engine int8" : "engine fp32";
    PQ_TRY(pq_packed_from_model(s->model, &packed, err));
    pq_status status = pq_evaluate_engine(packed, &engine, f->dataset, o, &s->result, err);
    pq_packed_close(packed);
    if (status != PQ_OK || !other->spec) return status;
    return pq_evaluate(other->model, f->dataset, o, &other->result, err);
}

static pq_status evaluate_all(const pq_cli *cli, subject *s, subject *other, pq_error *err) {
    pq_config *config = NULL;
    pq_dataset *dataset = NULL;
    findings f = {0};
    pq_status status;
    PQ_TRY_TO(status, done, pq_load_model(s->spec, &s->model, err));
    if (other->spec) PQ_TRY_TO(status, done, pq_load_model(other->spec, &other->model, err));
    PQ_TRY_TO(status, done, load_config(cli, s->model, &config, err));
    size_t context = config->train.context != PQ_UNSET ? (size_t)config->train.context
                                                       : (size_t)s->model->params.shape.context;
    PQ_TRY_TO(status, done, pq_evaluation_options_make(config, context, &f.options, err));
    PQ_TRY_TO(status, done, pq_load_dataset(s->model, config, pq_cli_text(cli, "data"), &dataset, err));
    f.dataset = dataset;
    status = evaluate(cli, s, other, &f, err);
    if (status == PQ_OK) status = print_all(cli, s, other->spec ? other : NULL, &f, err);
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
    {"against", 0, "MODEL",
     "evaluate this model too, on the same windows; print the difference, the divergence and the agreement"},
    {"windows", 0, "FILE", "write the loss of each window as CSV"},
    {"overwrite", 0, NULL, "replace FILE"},
    {"act", 0, "A",
     "evaluate MODEL by the inference engine, activations fp32 (exact) or int8; default: as training does"},
    {"cache", 0, "C", "the engine's keys and values: fp16 or fp32; default fp16 with int8, else fp32"},
    {NULL, 0, NULL, NULL},
};

const pq_command pq_cmd_eval = {
    .verb = "eval",
    .synopsis = "MODEL [--data P] [eval.*=...] [--against MODEL] [--act fp32|int8]",
    .summary = "loss and perplexity of a model over a split, with standard error",
    .details =
        "MODEL is a run folder (its best.h5), RUN@last, RUN@N, a checkpoint .h5, a packed "
        ".safetensors or a Hugging Face folder. The "
        "hard-quantized weights with the stored scales are evaluated in fp32 on the tokens of "
        "data.split's val part "
        "(eval.split=test for another), in windows of eval.context tokens that do not overlap; the "
        "protocol is "
        "printed. The standard error comes from the spread of the windows' losses.\n"
        "\n"
        "eval.protocol=sliding lets windows overlap: each begins eval.stride tokens (half of the context) "
        "after the one before it, and of each but the first the last eval.stride tokens are scored, so "
        "that none has less than context - stride tokens before it and every one counts once. That is the "
        "loop of Hugging Face's guide to perplexity with max_length = context + 1.\n"
        "\n"
        "Perplexity is given a token, a word and a byte, of what the scored tokens say: a word is a run of "
        "anything but white space (space, tab, newline and the like of ASCII). Models with different "
        "tokenizers can be compared by bits a byte alone.\n"
        "\n"
        "--against prints besides the mean difference of losses (with the standard error of windows in "
        "pairs) KL(against || model), and how often both find the same token most likely.\n"
        "\n"
        "eval.protocol=last-token scores the last token of each window alone, as the papers' released "
        "code does: such "
        "losses must not be compared with all-token losses.\n"
        "\n"
        "--act evaluates MODEL by the inference engine instead, as a packed model would be used; a model "
        "to compare with (--against, MODEL itself too) is still evaluated as training does, and divergence "
        "and agreement are left out.\n"
        "\n"
        "EXAMPLES\n"
        "    potqat eval runs/char-qat\n"
        "    potqat eval model.safetensors --act int8 --against model.safetensors\n"
        "    potqat eval runs/char-qat@last --against runs/char-fp32 eval.split=test\n"
        "    potqat eval gpt2.h5 --data text.txt eval.protocol=sliding eval.stride=512\n"
        "    potqat eval model.safetensors --data other.txt --json\n",
    .flags = flags,
    .overrides = true,
    .least = 1,
    .most = 1,
    .run = run,
};
