/* The reader: what it accepts, and the sentence for each thing it refuses. */
#include <check.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"
#include "config/yaml.h"
#include "tests/harness/suite.h"

static pq_config *load(const char *yaml, const char *override) {
    pq_config *config = NULL;
    pq_error err = {0};
    pq_status status =
        pq_config_from_text(yaml, strlen(yaml), "x.yaml", &override, override ? 1 : 0, &config, &err);
    ck_assert_msg(status == PQ_OK, "%s", err.message);
    return config;
}

START_TEST(defaults_are_those_of_the_manual) {
    pq_config *config = load("", NULL);
    ck_assert_ptr_null(config->run.dir);
    ck_assert_str_eq(config->data.path, "tinyshakespeare");
    ck_assert_ptr_null(config->data.tokenizer);
    ck_assert_uint_eq(config->data.split.count, 3);
    ck_assert_double_eq(config->data.split.items[0], 0.8);
    ck_assert_int_eq(config->model.layers, 4);
    ck_assert_int_eq(config->model.heads, 4);
    ck_assert_int_eq(config->model.width, 128);
    ck_assert_int_eq(config->model.context, 64);
    ck_assert_int_eq(config->model.bias, 0);
    ck_assert_str_eq(config->model.gelu, "erf");
    ck_assert_str_eq(config->quant.quantizer, "none");
    ck_assert_int_eq(config->quant.levels, 15);
    ck_assert_uint_eq(config->quant.range.count, 0);
    ck_assert_int_eq(config->quant.refit, 0);
    ck_assert_double_nan(config->quant.scale_eps);
    ck_assert_uint_eq(config->quant.params.count, 1);
    ck_assert_str_eq(config->quant.params.items[0], "*.weight");
    ck_assert_uint_eq(config->qat.progressive.count, 0);
    ck_assert(config->train.context == PQ_UNSET);
    ck_assert(config->train.decay_iters == PQ_UNSET);
    ck_assert_double_eq(config->train.lr, 1e-3);
    ck_assert_double_eq(config->train.min_lr, 1e-4);
    ck_assert_double_eq(config->train.adam_eps, 1e-8);
    ck_assert_int_eq(config->train.max_iters, 5000);
    ck_assert(config->log.matrices);
    pq_config_destroy(config);
}
END_TEST

START_TEST(values_of_every_type_are_read) {
    pq_config *config =
        load("# comment\n"
             "train: {grad_clip: 64, lr: 1, min_lr: .5e-1, seed: 9007199254740991, recompute: True}\r\n"
             "data:\n  split: [1, 0, 0.0]\n  path: 'a b: #c'\n"
             "quant:\n  quantizer: uniform\n  range: [-8, 7]\n  refit: step\n"
             "  params:\n  - wte.weight\n  - \"h.\\u002a.weight\"\n"
             "run:\n  dir: ~\nlog:\n",
             "quant.refit=20");
    ck_assert_double_eq(config->train.grad_clip, 64);
    ck_assert_double_eq(config->train.min_lr, 0.05);
    ck_assert_int_eq(config->train.seed, 9007199254740991);
    ck_assert(config->train.recompute);
    ck_assert_double_eq(config->data.split.items[0], 1);
    ck_assert_str_eq(config->data.path, "a b: #c");
    ck_assert_double_eq(config->quant.range.items[0], -8);
    ck_assert_double_eq(config->quant.range.items[1], 7);
    ck_assert_int_eq(config->quant.refit, 20);
    ck_assert_uint_eq(config->quant.params.count, 2);
    ck_assert_str_eq(config->quant.params.items[1], "h.*.weight");
    ck_assert_ptr_null(config->run.dir);
    pq_config_destroy(config);
}
END_TEST

START_TEST(shapes_are_resolved) {
    static const struct {
        const char *preset;
        int64_t layers, heads, width, context, bias;
        const char *gelu;
    } shapes[] = {{"char", 4, 4, 128, 64, 0, "erf"},
                  {"baby", 6, 6, 384, 256, 0, "erf"},
                  {"gpt2-124m", 12, 12, 768, 1024, 1, "tanh"},
                  {"gpt2-355m", 24, 16, 1024, 1024, 1, "tanh"},
                  {"gpt2-774m", 36, 20, 1280, 1024, 1, "tanh"},
                  {"gpt2-1558m", 48, 25, 1600, 1024, 1, "tanh"}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        char override[64];
        snprintf(override, sizeof override, "model.preset=%s", shapes[i].preset);
        pq_config *config = load("init: {from: parent.h5}", override);
        ck_assert_int_eq(config->model.layers, shapes[i].layers);
        ck_assert_int_eq(config->model.heads, shapes[i].heads);
        ck_assert_int_eq(config->model.width, shapes[i].width);
        ck_assert_int_eq(config->model.context, shapes[i].context);
        ck_assert_int_eq(config->model.bias, shapes[i].bias);
        ck_assert_str_eq(config->model.gelu, shapes[i].gelu);
        pq_config_destroy(config);
    }
    pq_config *config = load("model: {preset: baby, layers: 2, bias: true}", NULL);
    ck_assert_int_eq(config->model.layers, 2);
    ck_assert_int_eq(config->model.bias, 1);
    ck_assert_int_eq(config->model.width, 384);
    pq_config_destroy(config);
    config = load("init: {from: parent.h5}\nmodel: {context: 32}", NULL); /* the rest is the parent's */
    ck_assert(config->model.layers == PQ_UNSET && config->model.bias == PQ_UNSET);
    ck_assert_ptr_null(config->model.gelu);
    ck_assert_int_eq(config->model.context, 32);
    pq_config_destroy(config);
}
END_TEST

/* Refused: the text, an override or NULL, the beginning of the sentence. */
static const struct refusal {
    const char *yaml, *override, *sentence;
} refusals[] = {
    /* names */
    {"train:\n  lr: 1\n  max_iter: 5\n", NULL,
     "x.yaml:3: train.max_iter: unknown key; did you mean train.max_iters?"},
    {"train: {rl: 1}", NULL, "x.yaml:1: train.rl: unknown key; did you mean train.lr?"},
    {"trian:\n  lr: 1\n", NULL, "x.yaml:1: trian: unknown section; did you mean train?"},
    {"lr: 1\n", NULL, "x.yaml:1: lr: unknown section; did you mean train.lr?"},
    {"train: {windows: 3}", NULL, "x.yaml:1: train.windows: unknown key; did you mean eval.windows?"},
    {"save: {qwertyuiop: 3}", NULL,
     "x.yaml:1: save.qwertyuiop: unknown key; section save has every, every_minutes, keep"},
    {"zzzzzzzzzzz: 3", NULL, "x.yaml:1: zzzzzzzzzzz: unknown section; sections are run, data,"},
    {"", "train.max_iter=5", "command line: train.max_iter: unknown key; did you mean train.max_iters?"},
    {"", "tran.lr=5", "command line: tran.lr: unknown section; did you mean train.lr?"},
    {"", "lr=5", "command line: lr: unknown section; did you mean train.lr?"},
    {"", "train.lr", "command line: train.lr: expected section.key=value"},
    {"", "=5", "command line: =5: expected section.key=value"},
    {"<<: 5", NULL, "x.yaml:1: <<: unknown section"},
    /* types and bounds */
    {"train:\n  lr: fast\n", NULL,
     "x.yaml:2: train.lr: expected a number above 0 and at most 10, found fast"},
    {"train: {lr: \"1\"}", NULL, "x.yaml:1: train.lr: expected a number above 0 and at most 10, found \"1\""},
    {"train: {lr: 0}", NULL, "x.yaml:1: train.lr: expected a number above 0"},
    {"train: {lr: 10.5}", NULL, "x.yaml:1: train.lr: expected a number above 0 and at most 10, found 10.5"},
    {"train: {lr: .nan}", NULL, "x.yaml:1: train.lr: expected a number"},
    {"train: {lr: .inf}", NULL, "x.yaml:1: train.lr: expected a number"},
    {"train: {lr: 1e999}", NULL, "x.yaml:1: train.lr: expected a number"},
    {"train: {lr: 0x1}", NULL, "x.yaml:1: train.lr: expected a number"},
    {"train: {lr: 1e}", NULL, "x.yaml:1: train.lr: expected a number"},
    {"train: {lr: 1_0}", NULL, "x.yaml:1: train.lr: expected a number"},
    {"train: {lr: }", NULL, "x.yaml:1: train.lr: expected a number above 0 and at most 10, found null"},
    {"train: {lr: [1]}", NULL,
     "x.yaml:1: train.lr: expected a number above 0 and at most 10, found a list of 1"},
    {"train: {dropout: 1}", NULL,
     "x.yaml:1: train.dropout: expected a number at least 0 and below 1, found 1"},
    {"train: {batch: 64.0}", NULL,
     "x.yaml:1: train.batch: expected a whole number from 1 to 65536, found 64.0"},
    {"train: {batch: 0}", NULL, "x.yaml:1: train.batch: expected a whole number from 1 to 65536, found 0"},
    {"train: {batch: 1e2}", NULL, "x.yaml:1: train.batch: expected a whole number"},
    {"train: {batch: 99999999999999999999999}", NULL, "x.yaml:1: train.batch: expected a whole number"},
    {"train: {seed: 9007199254740993}", NULL,
     "x.yaml:1: train.seed: expected a whole number from 0 to 9007199254740991"},
    {"train: {recompute: yes}", NULL, "x.yaml:1: train.recompute: expected true or false, found yes"},
    {"model: {bias: 1}", NULL, "x.yaml:1: model.bias: expected true, false, or null, found 1"},
    {"model: {gelu: relu}", NULL, "x.yaml:1: model.gelu: expected one of erf, tanh, or null, found relu"},
    {"data: {path: null}", NULL, "x.yaml:1: data.path: expected a text, found null"},
    {"data: {path: \"\"}", NULL, "x.yaml:1: data.path: expected a text, found \"\""},
    {"data: {path: {a: b}}", NULL, "x.yaml:1: data.path: expected a text, found a map of 1"},
    {"data: {split: [0.9, 0.1]}", NULL,
     "x.yaml:1: data.split: expected a list of 3 numbers from 0 to 1, found a list of 2"},
    {"data: {split: [0.9, 0.1, x]}", NULL,
     "x.yaml:1: data.split: expected a list of 3 numbers from 0 to 1, found x"},
    {"data: {split: [1.1, 0, 0]}", NULL,
     "x.yaml:1: data.split: expected a list of 3 numbers from 0 to 1, found 1.1"},
    {"quant: {params: wte}", NULL, "x.yaml:1: quant.params: expected a list of texts, found wte"},
    {"quant: {params: [[a]]}", NULL, "x.yaml:1: quant.params: expected a list of texts, found a list of 1"},
    {"quant: {refit: 0}", NULL,
     "x.yaml:1: quant.refit: expected never, step, or a whole number of iters from 1"},
    {"quant: {refit: sometimes}", NULL, "x.yaml:1: quant.refit: expected never, step"},
    {"", "train.batch=many",
     "command line: train.batch: expected a whole number from 1 to 65536, found many"},
    {"", "train.batch=", "command line: train.batch: expected a whole number from 1 to 65536, found null"},
    {"", "train.batch=5\n---\n6", "command line: train.batch: a second document (---) begins"},
    {"", "data.path=[", "command line: data.path: not readable as YAML"},
    {"", "data.path=*x", "command line: data.path: anchors (&name) and aliases (*name) are not allowed"},
    /* structure */
    {"train: {lr: 1, batch: 3, lr: 2}", NULL, "x.yaml:1: train.lr: given already on line 1"},
    {"train:\n  lr: 1\nsave:\ntrain:\n  batch: 3\n", NULL,
     "x.yaml:4: section train: given already on line 1"},
    {"train: 5", NULL, "x.yaml:1: train: expected the section's keys, found 5"},
    {"train: [lr, batch]", NULL, "x.yaml:1: train: expected the section's keys, found a list of 2"},
    {"- train\n", NULL, "x.yaml:1: expected sections (train:, quant:, ...), found a list"},
    {"hello", NULL, "x.yaml:1: expected sections (train:, quant:, ...), found a single value"},
    {"? [a]\n: b\n", NULL, "x.yaml:1: expected the name of a key, found a list or a map"},
    {"train:\n\tlr: 1\n", NULL, "x.yaml:"},
    {"train: {lr: 1", NULL, "x.yaml:"},
    {"train: lr: 1", NULL, "x.yaml:1: not readable as YAML: "},
    {"a: &a [x]\nb: *a\n", NULL, "x.yaml:1: anchors (&name) and aliases (*name) are not allowed in a config"},
    {"train: {lr: !!float 1}", NULL, "x.yaml:1: tags (!name) are not allowed in a config"},
    {"train:\n%YAML 1.2\n", NULL, "x.yaml:2: a line that begins with % (a directive) is not allowed"},
    {"\xef\xbb\xbf%%", NULL, "x.yaml:1: a line that begins with % (a directive) is not allowed"},
    {"---\ntrain:\n---\ntrain:\n", NULL, "x.yaml:3: a second document (---) begins; a config is one"},
    {"a: [[[[[[[[1]]]]]]]]", NULL, "x.yaml:1: values are nested deeper than any key needs"},
    {"train:\n  lr: \xff\n", NULL, "x.yaml:2: byte 0xff at offset 13 is not UTF-8 text; is this a config?"},
    {"data: {path: \"a\\0b\"}", NULL, "x.yaml:1: a quoted text holds an escape that is no Unicode character"},
    /* more than one key */
    {"model:\n  heads: 3\n  width: 128\n", NULL,
     "x.yaml:3: model.width: 128 is not divisible by model.heads, 3"},
    {"model: {preset: baby}\n", "model.heads=5",
     "x.yaml: model.width: 384 is not divisible by model.heads, 5"},
    {"train:\n  lr: 1.0e-4\n", "train.min_lr=0.01",
     "command line: train.min_lr: 0.01 is above train.lr, 0.0001"},
    {"train:\n  lr: 1.0e-5\n", NULL, "x.yaml: train.min_lr: 0.0001 is above train.lr, 1e-05"},
    {"data: {split: [0.8, 0.2, 0.1]}", NULL, "x.yaml:1: data.split: 0.8 + 0.2 + 0.1 is more than 1"},
    {"data: {split: [0, 0.5, 0.5]}", NULL, "x.yaml:1: data.split: the share of train is 0"},
    {"train: {context: 65}", NULL, "x.yaml:1: train.context: 65 is longer than model.context, 64"},
    {"eval: {context: 65}", NULL, "x.yaml:1: eval.context: 65 is longer than model.context, 64"},
    {"quant: {quantizer: pot, levels: 16}", NULL,
     "x.yaml:1: quant.levels: pot has an odd number of levels from 3 to 63, found 16"},
    {"quant: {quantizer: pot, levels: 65}", NULL, "x.yaml:1: quant.levels: pot has"},
    {"quant: {quantizer: pot, range: [-8, 7]}", NULL,
     "x.yaml:1: quant.range: pot takes quant.levels, no range"},
    {"quant: {quantizer: pot-zero-free}", NULL,
     "x.yaml: quant.levels: pot-zero-free has 4, 8, 16, 32 or 64 levels, found 15"},
    {"quant: {quantizer: pot-zero-free, levels: 2}", NULL, "x.yaml:1: quant.levels: pot-zero-free has 4, 8"},
    {"quant: {quantizer: uniform, levels: 16}", NULL, "x.yaml:1: quant.levels: uniform has an odd number"},
    {"quant: {quantizer: uniform, range: [7, -8]}", NULL,
     "x.yaml:1: quant.range: expected two whole numbers"},
    {"quant: {quantizer: uniform, range: [-8, 7.5]}", NULL,
     "x.yaml:1: quant.range: expected two whole numbers"},
    {"quant: {quantizer: pot-released}", NULL,
     "x.yaml: quant.range: pot-released needs a range, such as [-8, 4]"},
    /* not in this build */
    {"quant: {quantizer: pot, rounding: stochastic}\nqat: {freeze: [[0, 0.5]]}", NULL,
     "x.yaml:2: qat.freeze: weights are frozen at their nearest level"},
    {"quant: {quantizer: apot, levels: 9}", NULL, "x.yaml:1: quant.levels: apot has 5, 7, 15, 31 or 63"},
    {"quant: {quantizer: pot, overrides: [{match: \"h.*\", levels: 30}]}", NULL,
     "x.yaml:1: quant.overrides, \"h.*\": quant.levels: pot has an odd number"},
    {"quant: {quantizer: uniform, range: [-8, 7], overrides: [{match: \"h.*\", levels: 31}]}", NULL,
     "x.yaml:1: quant.overrides: the codebook is given by quant.range"},
    {"quant: {overrides: [{match: h, levels: 31, more: 1}]}", NULL,
     "x.yaml:1: quant.overrides: expected a list of {match: pattern, levels: N}"},
    {"qat: {freeze: [[0, 0.5], [0, 0.75]]}", NULL, "x.yaml:1: qat.freeze: iters must rise from pair to pair"},
    {"quant: {quantizer: pot, levels: 3}\nqat: {progressive: [[0, 15], [10, 7]]}", NULL,
     "x.yaml:2: qat.progressive: the last stage has 7 levels, quant.levels says 3"},
    {"quant: {quantizer: pot, levels: 3}\nqat: {progressive: [[0, 15], [10, 3.5]]}", NULL,
     "x.yaml:2: qat.progressive: expected a number of levels, found 3.5"},
    {"quant: {quantizer: pot, levels: 3}\nqat: {progressive: [[0, 8], [10, 3]]}", NULL,
     "x.yaml:1: quant.levels: pot has an odd number of levels from 3 to 63, found 8"},
    {"quant: {quantizer: uniform, range: [-8, 7]}\nqat: {progressive: [[0, 15]]}", NULL,
     "x.yaml:2: qat.progressive: the codebook is given by quant.range"},
    {"quant: {quantizer: pot}\nqat: {freeze: [[0, 0.5], [10, 0.5]]}", NULL,
     "x.yaml:2: qat.freeze: stage 2 fixes a share of 0.5, not more than the one before it"},
    {"quant: {quantizer: pot, refit: step}\nqat: {freeze: [[0, 0.5]]}", NULL,
     "x.yaml:2: qat.freeze: frozen weights need scales that stand still"},
    {"quant: {quantizer: pot, scale: learned, refit: step}", NULL,
     "x.yaml:1: quant.refit: learned scales are not fitted again: expected never"},
    {"distill: {weight: 1.5}", NULL, "x.yaml:1: distill.weight: expected a number from 0 to 1, found 1.5"},
    {"distill: {temperature: 0}", NULL, "x.yaml:1: distill.temperature: expected a number above 0"},
    {"data: {split_by: line}", NULL, "x.yaml:1: data.split_by: expected one of token, document, found line"},
    {"train: {precision: fp16}", NULL, "x.yaml:1: train.precision: expected one of fp32, bf16, found fp16"},
    {"quant: {quantizer: pot, activations: int8-token}\ntrain: {precision: bf16}", NULL,
     "x.yaml:1: quant.activations: int8-token needs train.precision: fp32"},
    {"eval: {protocol: sliding, stride: 65}", NULL,
     "x.yaml:1: eval.stride: windows of 64 tokens that begin 65 apart would leave tokens out"},
    {"eval: {protocol: sliding, stride: 33, context: 32}", NULL,
     "x.yaml:1: eval.stride: windows of 32 tokens that begin 33 apart would leave tokens out"},
};

START_TEST(refusals_name_place_key_and_remedy) {
    const struct refusal *r = &refusals[_i];
    pq_config *config = (pq_config *)&config;
    pq_error err = {0};
    pq_status status = pq_config_from_text(r->yaml, strlen(r->yaml), "x.yaml", &r->override,
                                           r->override ? 1 : 0, &config, &err);
    ck_assert_msg(status == PQ_ERR_USAGE && err.code == PQ_ERR_USAGE, "status %d for %s %s", status, r->yaml,
                  r->override ? r->override : "");
    ck_assert_ptr_null(config);
    ck_assert_msg(strncmp(err.message, r->sentence, strlen(r->sentence)) == 0,
                  "expected \"%s\", found \"%s\"", r->sentence, err.message);
}
END_TEST

static void refuse_text(const char *text, size_t bytes, const char *sentence) {
    pq_config *config;
    pq_error err = {0};
    ck_assert_int_eq(pq_config_from_text(text, bytes, "x.yaml", NULL, 0, &config, &err), PQ_ERR_USAGE);
    ck_assert_msg(strncmp(err.message, sentence, strlen(sentence)) == 0, "expected \"%s\", found \"%s\"",
                  sentence, err.message);
}

START_TEST(large_and_foreign_texts_are_refused) {
    enum { BYTES = 2 << 20 };
    char *text = malloc(BYTES);
    refuse_text("train:\n  lr: 1\0\n", 16, "x.yaml:2: byte 0x00 at offset 14 is not UTF-8 text");
    memset(text, ' ', BYTES);
    refuse_text(text, BYTES, "x.yaml: 2097152 bytes are too many for a config");
    memset(text, '[', BYTES);
    refuse_text(text, 1 << 20, "x.yaml:1: ");
    memset(text, '%', BYTES);
    refuse_text(text, 1 << 20, "x.yaml:1: a line that begins with %");
    memset(text, '-', BYTES);
    for (size_t i = 1; i < 1 << 20; i += 2) text[i] = ' ';
    refuse_text(text, 1 << 20, "x.yaml:1: ");
    for (size_t i = 1; i < 1 << 20; i += 2) text[i] = '\n';
    refuse_text(text, 1 << 20, "x.yaml:1: a config of more than 10000 values");
    char *at = text;
    for (size_t i = 0; i < 4000; i++) at += sprintf(at, "key%zu: 1\n", i);
    refuse_text(text, (size_t)(at - text), "x.yaml:1: key0: unknown section");
    memset(text, 'x', BYTES);
    memcpy(text, "a: ", 3);
    refuse_text(text, 1 << 20, "x.yaml:1: a: unknown section");
    memcpy(text, "train: {lr: ", 12);
    text[(1 << 20) - 1] = '}';
    refuse_text(text, 1 << 20, "x.yaml:1: train.lr: expected a number above 0 and at most 10, found xxxx");
    free(text);
}
END_TEST

START_TEST(files_are_read_and_missing_ones_named) {
    pq_config *config;
    pq_error err = {0};
    ck_assert_int_eq(pq_config_load("/nonexistent/x.yaml", NULL, 0, &config, &err), PQ_ERR_IO);
    ck_assert_ptr_nonnull(strstr(err.message, "/nonexistent/x.yaml"));
    ck_assert_int_eq(pq_config_load("/", NULL, 0, &config, &err), PQ_ERR_IO);
    const char *overrides[] = {"train.lr=2e-3", "train.lr=1e-3",
                               "data.path=a=b"}; /* the last wins; first "=" */
    ck_assert_int_eq(pq_config_load(NULL, overrides, 3, &config, &err), PQ_OK);
    ck_assert_double_eq(config->train.lr, 1e-3);
    ck_assert_str_eq(config->data.path, "a=b");
    pq_config_destroy(config);
    pq_config_destroy(NULL);
    ck_assert_int_eq(pq_config_load(NULL, (const char *[]){"train.lr=x"}, 1, &config, NULL), PQ_ERR_USAGE);
}
END_TEST

START_TEST(numbers_do_not_follow_the_locale) {
    if (!setlocale(LC_ALL, "de_DE.UTF-8") || strcmp(localeconv()->decimal_point, ",") != 0) {
        printf("skipped: no locale with a decimal comma (de_DE.UTF-8) is installed\n");
        return;
    }
    pq_config *config = load("train: {lr: 0.25}", NULL);
    ck_assert_double_eq(config->train.lr, 0.25);
    char *text = pq_config_to_yaml(config, false);
    ck_assert_ptr_nonnull(strstr(text, "  lr: 0.25\n"));
    free(text);
    pq_config_destroy(config);
    ck_assert_str_eq(localeconv()->decimal_point, ",");
    setlocale(LC_ALL, "C");
}
END_TEST

START_TEST(only_declared_keys_change_on_resume) {
    pq_error err = {0};
    pq_config *a = load("train: {max_iters: 100}", NULL);
    static const char *const allowed[] = {"train.max_iters=200", "run.threads=1",   "save.every=7",
                                          "eval.every=9",        "train.lr=1.0e-3", "log.every=1"};
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++) {
        pq_config *b = load("train: {max_iters: 100}", allowed[i]);
        ck_assert_int_eq(pq_config_check_resume(a, b, &err), PQ_OK);
        pq_config_destroy(b);
    }
    pq_config *b = load("train: {max_iters: 100}", "train.lr=0.5");
    ck_assert_int_eq(pq_config_check_resume(a, b, &err), PQ_ERR_USAGE);
    ck_assert_str_eq(err.message,
                     "train.lr: the run has 0.001, found 0.5; this key may not change on --resume (potqat "
                     "config --help says which may)");
    pq_config_destroy(a);
    pq_config_destroy(b);
}
END_TEST

START_TEST(settings_of_another_file_name_it) {
    pq_config *config;
    pq_error err = {0};
    pq_yaml name = {.kind = PQ_YAML_SCALAR, .line = 7, .text = "quant.levels", .plain = true};
    pq_yaml value = {.kind = PQ_YAML_SCALAR, .line = 7, .text = "31", .plain = true};
    pq_setting setting = {.file = "sweep.yaml", .key = &name, .value = &value};
    const char *override = "quant.quantizer=pot";
    ck_assert_int_eq(pq_config_load_settings(NULL, &setting, 1, &override, 1, &config, &err), PQ_OK);
    ck_assert_int_eq(config->quant.levels, 31);
    char *text = pq_config_value(config, "quant.levels");
    ck_assert_str_eq(text, "31");
    free(text);
    ck_assert_ptr_null(pq_config_value(config, "quant.level"));
    ck_assert_ptr_null(pq_config_value(config, "quant"));
    pq_config_destroy(config);
    value.text = "8"; /* only together with pot is it wrong */
    ck_assert_int_eq(pq_config_load_settings(NULL, &setting, 1, &override, 1, &config, &err), PQ_ERR_USAGE);
    ck_assert_msg(strncmp(err.message, "sweep.yaml:7: quant.levels: ", 28) == 0, "%s", err.message);
    name.text = "quant.level";
    ck_assert_int_eq(pq_config_load_settings(NULL, &setting, 1, NULL, 0, &config, &err), PQ_ERR_USAGE);
    ck_assert_str_eq(err.message, "sweep.yaml:7: quant.level: unknown key; did you mean quant.levels?");
}
END_TEST

START_TEST(a_run_has_its_config_but_for_what_training_fills_in) {
    pq_error err = {0};
    pq_config *now = load("init: {from: x}\nrun: {dir: a}", NULL);
    pq_config *run = load("init: {from: x}\nrun: {dir: b}\nmodel: {width: 8}\ntrain: {context: 4}", NULL);
    ck_assert_int_eq(pq_config_check_same(run, now, &err), PQ_OK);
    ck_assert_int_eq(pq_config_check_same(now, run, &err), PQ_ERR_USAGE);
    ck_assert_str_eq(err.message, "model.width: the run was trained with null, found 8");
    pq_config_destroy(now);
    now = load("init: {from: x}\neval: {every: 9}", NULL);
    ck_assert_int_eq(pq_config_check_same(run, now, &err), PQ_ERR_USAGE);
    ck_assert_str_eq(err.message, "eval.every: the run was trained with 250, found 9");
    pq_config_destroy(now);
    pq_config_destroy(run);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("config reader");
    TCase *tests = tcase_create("all");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, defaults_are_those_of_the_manual);
    tcase_add_test(tests, values_of_every_type_are_read);
    tcase_add_test(tests, shapes_are_resolved);
    tcase_add_loop_test(tests, refusals_name_place_key_and_remedy, 0, sizeof refusals / sizeof *refusals);
    tcase_add_test(tests, large_and_foreign_texts_are_refused);
    tcase_add_test(tests, files_are_read_and_missing_ones_named);
    tcase_add_test(tests, numbers_do_not_follow_the_locale);
    tcase_add_test(tests, only_declared_keys_change_on_resume);
    tcase_add_test(tests, settings_of_another_file_name_it);
    tcase_add_test(tests, a_run_has_its_config_but_for_what_training_fills_in);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
