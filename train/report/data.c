/* Owns how run folders are read for reports and how their numbers are written out. Missing files and keys are
 * normal (a run may have just begun); damaged ones are errors. */
#include "train/report/data.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "config/yaml.h"
#include "quant/quantizer.h"
#include "train/metrics.h"

/* Text from outside as valid UTF-8 without control characters, for labels in HTML, SVG and terminals. */
static pq_status clean_text(const char *text, char **out, pq_error *err) {
    size_t used = 0;
    PQ_TRY(pq_calloc(3 * strlen(text) + 1, 1, "a label", out, err)); /* a bad byte becomes three */
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        size_t length = *s < 0x80 ? 1 : *s >= 0xC2 && *s < 0xE0 ? 2 : *s >= 0xE0 && *s < 0xF0 ? 3 : 4;
        char point[5] = {0};
        memcpy(point, s, strnlen((const char *)s, length));
        json_t *valid = json_stringn(point, strlen(point)); /* NULL unless UTF-8 */
        bool good =
            valid && strlen(point) == length && *s >= 0x20 && *s != 0x7F && !(*s == 0xC2 && s[1] < 0xA0);
        json_decref(valid);
        const char *piece = good ? point : "\xEF\xBF\xBD";
        memcpy(*out + used, piece, strlen(piece));
        used += strlen(piece);
        s += good ? length : 1;
    }
    return PQ_OK;
}

/* The last part of a path, for "." and the like that of the real path. */
static pq_status short_name(const char *dir, char **out, pq_error *err) {
    char *real = realpath(dir, NULL);
    const char *path = real ? real : dir, *slash = strrchr(path, '/');
    pq_status status = clean_text(slash && slash[1] ? slash + 1 : path, out, err);
    free(real);
    return status;
}

static pq_status make_labels(pq_report *report, pq_error *err) {
    for (size_t i = 0; i < report->count; i++)
        PQ_TRY(short_name(report->runs[i].dir, &report->runs[i].label, err));
    for (size_t i = 0; i < report->count; i++) {
        bool unique = true;
        for (size_t j = 0; j < report->count; j++) {
            char *other;
            PQ_TRY(short_name(report->runs[j].dir, &other, err));
            if (j != i && strcmp(other, report->runs[i].label) == 0) unique = false;
            free(other);
        }
        if (unique) continue;
        free(report->runs[i].label);
        report->runs[i].label = NULL;
        PQ_TRY(clean_text(report->runs[i].dir, &report->runs[i].label, err));
    }
    return PQ_OK;
}

/* A value on one line, as YAML would have it. */
static void write_value(FILE *out, const pq_yaml *value) {
    bool map = value->kind == PQ_YAML_MAP;
    size_t count = map ? 2 * value->count : value->count;
    if (value->kind == PQ_YAML_SCALAR) {
        fputs(value->text, out);
        return;
    }
    fputc(map ? '{' : '[', out);
    for (size_t i = 0; i < count; i++) {
        if (i) fputs(map && i % 2 ? ": " : ", ", out);
        write_value(out, &value->items[i]);
    }
    fputc(map ? '}' : ']', out);
}

static pq_status add_setting(pq_report_run *run, const char *section, const char *key, const pq_yaml *value,
                             pq_error *err) {
    char *name = NULL, *text = NULL;
    size_t bytes;
    FILE *names = open_memstream(&name, &bytes), *texts = open_memstream(&text, &bytes);
    pq_report_setting *grown = realloc(run->settings, (run->setting_count + 1) * sizeof *grown);
    if (grown) run->settings = grown;
    if (names) fprintf(names, "%s%s%s", section, section[0] ? "." : "", key);
    if (texts) write_value(texts, value);
    bool named = names && fclose(names) == 0, written = texts && fclose(texts) == 0;
    if (!named || !written || !grown) {
        free(text);
        free(name);
        return PQ_FAIL(err, PQ_ERR_MEMORY, "the config of %s does not fit in memory", run->dir);
    }
    run->settings[run->setting_count++] = (pq_report_setting){name, text};
    return PQ_OK;
}

/* Flatten one mapping; the root's mappings are its sections. */
static pq_status add_settings(pq_report_run *run, const char *section, const pq_yaml *map, pq_error *err) {
    for (size_t i = 0; i < map->count; i++) {
        const pq_yaml *key = &map->items[2 * i], *value = key + 1;
        if (!section[0] && value->kind == PQ_YAML_MAP)
            PQ_TRY(add_settings(run, key->text, value, err));
        else
            PQ_TRY(add_setting(run, section, key->text, value, err));
    }
    return PQ_OK;
}

static pq_status read_config(pq_report_run *run, const char *path, pq_error *err) {
    pq_file_view file;
    pq_blocks *blocks = NULL;
    pq_yaml *root;
    pq_error reason = {0};
    PQ_TRY(pq_file_read(path, &file, err));
    pq_status status = pq_copy_text(file.data, &run->config, err);
    if (status == PQ_OK && pq_yaml_parse(file.data, file.size, path, true, &blocks, &root, &reason) != PQ_OK)
        status = PQ_FAIL(err, PQ_ERR_FORMAT, "%s", reason.message);
    else if (status == PQ_OK && root && root->kind != PQ_YAML_MAP)
        status = PQ_FAIL(err, PQ_ERR_FORMAT, "%s: expected a mapping of keys to values", path);
    else if (status == PQ_OK && root)
        status = add_settings(run, "", root, err);
    pq_blocks_free(blocks);
    pq_file_view_close(&file);
    return status;
}

static pq_status read_info(pq_report_run *run, const char *path, pq_error *err) {
    pq_file_view file;
    json_error_t reason;
    PQ_TRY(pq_file_read(path, &file, err));
    run->info = json_loadb(file.data, file.size, 0, &reason);
    pq_file_view_close(&file);
    if (json_is_object(run->info)) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_FORMAT, "%s: expected a JSON object, found %s", path,
                   run->info ? "other JSON" : reason.text);
}

static pq_status read_metrics(pq_report_run *run, const char *path, pq_error *err) {
    return pq_metrics_read(path, &run->metrics, err);
}

static pq_status read_timing(pq_report_run *run, const char *path, pq_error *err) {
    return pq_metrics_read(path, &run->timing, err);
}

static pq_status read_files(pq_report_run *run, pq_error *err) {
    static const struct {
        const char *name;
        pq_status (*read)(pq_report_run *run, const char *path, pq_error *err);
    } files[] = {{"config.yaml", read_config},
                 {"run.json", read_info},
                 {"metrics.jsonl", read_metrics},
                 {"timing.jsonl", read_timing}};
    bool any = false;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        pq_status status = PQ_OK;
        char *path = pq_path_join(run->dir, files[i].name);
        if (!path) return PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
        if (pq_file_exists(path)) {
            any = true;
            status = files[i].read(run, path, err);
        }
        free(path);
        PQ_TRY(status);
    }
    if (any) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_USAGE,
                   "%s is not a run folder: it has no config.yaml, run.json or metrics.jsonl", run->dir);
}

double pq_report_number(const json_t *object, const char *a, const char *b) {
    const json_t *value = json_object_get(object, a);
    if (b) value = json_object_get(value, b);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

const char *pq_report_word(const json_t *object, const char *a, const char *b) {
    const json_t *value = json_object_get(object, a);
    if (b) value = json_object_get(value, b);
    return json_string_value(value);
}

static int64_t integer_or(const json_t *line, const char *key, int64_t otherwise) {
    const json_t *value = json_object_get(line, key);
    return json_is_integer(value) ? json_integer_value(value) : otherwise;
}

/* The index of the line's protocol, added when it is new. */
static pq_status find_group(pq_report *report, const json_t *line, size_t *out, pq_error *err) {
    pq_report_group group = {.context = integer_or(line, "context", -1),
                             .stride = integer_or(line, "stride", -1)};
    const char *protocol = pq_report_word(line, "protocol", NULL);
    snprintf(group.split, sizeof group.split, "%s", pq_report_word(line, "split", NULL));
    snprintf(group.protocol, sizeof group.protocol, "%s", protocol ? protocol : "unknown protocol");
    for (size_t i = 0; i < report->group_count; i++) {
        const pq_report_group *known = &report->groups[i];
        if (strcmp(known->split, group.split) == 0 && strcmp(known->protocol, group.protocol) == 0 &&
            known->context == group.context && known->stride == group.stride) {
            *out = i;
            return PQ_OK;
        }
    }
    pq_report_group *grown = realloc(report->groups, (report->group_count + 1) * sizeof *grown);
    if (!grown) return PQ_FAIL(err, PQ_ERR_MEMORY, "the protocols of a report do not fit in memory");
    report->groups = grown;
    report->groups[ *out = report->group_count++] = group;
    return PQ_OK;
}

static pq_status sort_lines(pq_report *report, pq_report_run *run, pq_error *err) {
    size_t lines = json_array_size(run->metrics), i;
    json_t *line;
    PQ_TRY(pq_calloc(lines + 1, sizeof *run->evals, "evaluations", &run->evals, err));
    PQ_TRY(pq_calloc(lines + 1, sizeof *run->training, "training losses", &run->training, err));
    json_array_foreach(run->metrics, i, line) {
        const char *split = pq_report_word(line, "split", NULL);
        double loss = pq_report_number(line, "loss", NULL);
        int64_t iter = integer_or(line, "iter", 0);
        run->has_matrices = run->has_matrices || json_object_get(line, "matrix");
        if (!split || isnan(loss)) continue;
        if (strcmp(split, "train") == 0 && !json_object_get(line, "protocol")) {
            run->training[run->training_count++] = (pq_report_point){iter, loss};
            continue;
        }
        pq_report_eval *eval = &run->evals[run->eval_count];
        PQ_TRY(find_group(report, line, &eval->group, err));
        eval->iter = iter;
        eval->loss = loss;
        eval->loss_se = pq_report_number(line, "loss_se", NULL);
        eval->tokens = pq_report_number(line, "tokens", NULL);
        run->eval_count++;
    }
    return PQ_OK;
}

const char *pq_report_setting_value(const pq_report_run *run, const char *key) {
    for (size_t i = 0; i < run->setting_count; i++)
        if (strcmp(run->settings[i].key, key) == 0) return run->settings[i].value;
    return NULL;
}

/* Levels and bits are the codebook's own, made from the same keys as the run's. */
static void describe_quantizer(pq_report_run *run) {
    const char *name = pq_report_setting_value(run, "quant.quantizer");
    const char *levels = pq_report_setting_value(run, "quant.levels");
    const char *range = pq_report_setting_value(run, "quant.range");
    const char *granularity = pq_report_setting_value(run, "quant.granularity");
    const char *scale = pq_report_setting_value(run, "quant.scale");
    const char *rounding = pq_report_setting_value(run, "quant.rounding");
    const char *given = pq_report_word(run->info, "quant", NULL);
    double ends[2];
    bool ranged = range && sscanf(range, " [ %lf , %lf", &ends[0], &ends[1]) == 2;
    if (given)
        snprintf(run->quantizer, sizeof run->quantizer, "%s", given);
    else if (name && strcmp(name, "none") == 0)
        snprintf(run->quantizer, sizeof run->quantizer, "none");
    else if (name)
        snprintf(run->quantizer, sizeof run->quantizer, "%s %s %s %s", name,
                 ranged   ? range
                 : levels ? levels
                          : "",
                 granularity ? granularity : "", scale ? scale : "");
    if (!name || strcmp(name, "none") == 0) return;
    pq_codebook codebook;
    pq_rounding rule = PQ_ROUND_NEAREST;
    if (rounding) pq_rounding_parse(rounding, &rule);
    if (pq_codebook_init(&codebook, name, levels ? atoll(levels) : 0, ranged ? ends : NULL, rule, NULL) ==
        PQ_OK) {
        run->levels = codebook.levels;
        run->bits = codebook.bits;
    }
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median rate, so that a pause of the machine does not count, and the last clock reading. */
static pq_status read_speed(pq_report_run *run, pq_error *err) {
    size_t lines = json_array_size(run->timing), count = 0, i;
    double *rates;
    json_t *line;
    PQ_TRY(pq_calloc(lines + 1, sizeof *rates, "rates", &rates, err));
    json_array_foreach(run->timing, i, line) {
        double rate = pq_report_number(line, "tokens_per_s", NULL);
        double elapsed = pq_report_number(line, "elapsed_s", NULL);
        if (!isnan(rate)) rates[count++] = rate;
        if (!isnan(elapsed)) run->elapsed_s = elapsed;
    }
    qsort(rates, count, sizeof *rates, compare_doubles);
    if (count) run->tokens_per_s = rates[count / 2];
    free(rates);
    return PQ_OK;
}

static pq_status read_run(pq_report *report, pq_report_run *run, pq_error *err) {
    run->levels = run->bits = -1;
    run->bits_a_weight = run->tokens_per_s = run->elapsed_s = NAN;
    PQ_TRY(read_files(run, err));
    run->weight_bytes = pq_report_number(run->info, "weight_bytes", NULL);
    run->fp32_bytes = pq_report_number(run->info, "fp32_bytes", NULL);
    run->floor = pq_report_number(run->info, "data", "floor");
    describe_quantizer(run);
    /* What is not quantized counts 4 bytes, as in fp32_bytes. */
    double quantized = pq_report_number(run->info, "quantized_parameters", NULL);
    if (quantized == 0)
        run->bits_a_weight = 32;
    else if (quantized > 0)
        run->bits_a_weight = 8 * (run->weight_bytes - (run->fp32_bytes - 4 * quantized)) / quantized;
    PQ_TRY(read_speed(run, err));
    PQ_TRY(sort_lines(report, run, err));
    return pq_report_read_windows(run, err);
}

pq_status pq_report_read(const char *const *dirs, size_t count, pq_report *out, pq_error *err) {
    *out = (pq_report){0};
    if (!count) return PQ_FAIL(err, PQ_ERR_USAGE, "a report needs at least one run folder");
    PQ_TRY(pq_report_find_runs(dirs, count, out, err));
    for (size_t i = 0; i < out->count; i++) PQ_TRY(read_run(out, &out->runs[i], err));
    PQ_TRY(make_labels(out, err));
    return pq_report_find_points(out, err);
}

void pq_report_deinit(pq_report *report) {
    for (size_t i = 0; i < report->count; i++) {
        pq_report_run *run = &report->runs[i];
        for (size_t k = 0; k < run->setting_count; k++) {
            free(run->settings[k].key);
            free(run->settings[k].value);
        }
        free(run->settings);
        free(run->dir);
        free(run->label);
        free(run->config);
        free(run->windows);
        free(run->evals);
        free(run->training);
        json_decref(run->info);
        json_decref(run->metrics);
        json_decref(run->timing);
    }
    for (size_t i = 0; i < report->swept_count; i++) free(report->swept[i]);
    free(report->swept);
    free(report->runs);
    free(report->groups);
    *report = (pq_report){0};
}

bool pq_report_summarize(const pq_report_run *run, size_t group, pq_report_summary *out) {
    *out = (pq_report_summary){0};
    for (size_t i = 0; i < run->eval_count; i++) {
        const pq_report_eval *eval = &run->evals[i];
        if (eval->group != group) continue;
        if (!out->first) out->first = eval;
        if (!out->best || eval->loss < out->best->loss) out->best = eval;
        out->last = eval;
    }
    return out->first != NULL;
}

bool pq_report_evaluated(const pq_report_run *run, size_t group) {
    pq_report_summary unused;
    return pq_report_summarize(run, group, &unused);
}

bool pq_report_new_floor(const pq_report *report, size_t group, size_t index) {
    double floor_loss = report->runs[index].floor;
    if (!isfinite(floor_loss) || !pq_report_evaluated(&report->runs[index], group)) return false;
    for (size_t i = 0; i < index; i++)
        if (report->runs[i].floor == floor_loss && pq_report_evaluated(&report->runs[i], group)) return false;
    return true;
}

const char *pq_report_group_name(const pq_report_group *group, char *out, size_t bytes) {
    char context[40] = "", stride[40] = "";
    if (group->context >= 0) snprintf(context, sizeof context, ", context %lld", (long long)group->context);
    if (group->stride >= 0) snprintf(stride, sizeof stride, ", stride %lld", (long long)group->stride);
    snprintf(out, bytes, "%s, %s%s%s", group->split, group->protocol, context, stride);
    return out;
}
