/* Owns run.json. */
#include "train/run_info.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "base/threads.h"
#include "kernels/gemm.h"
#include "store/run.h"
#include "train/metrics.h"
#include "version.h"

static void read_cpu(char *out, size_t bytes) {
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "r");
    snprintf(out, bytes, "unknown");
    while (file && fgets(line, sizeof line, file)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon) continue;
        snprintf(out, bytes, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    if (file) fclose(file);
}

void pq_run_info_fill(pq_run_info *info, const pq_job *job, const char *const *arguments, int count) {
    time_t seconds = time(NULL);
    struct tm utc;
    gmtime_r(&seconds, &utc);
    strftime(info->started, sizeof info->started, "%Y-%m-%dT%H:%M:%SZ", &utc);
    read_cpu(info->cpu, sizeof info->cpu);
    pq_job_describe_quant(job, info->quant, sizeof info->quant);
    info->arguments = arguments;
    info->argument_count = count;
}

static json_t *evaluation(int64_t iter, double loss, double se) {
    if (!isfinite(loss)) return json_null();
    return json_pack("{s:I, s:f, s:o}", "iter", (json_int_t)iter, "loss", loss, "loss_se", pq_json_real(se));
}

static json_t *describe(const pq_run_info *info, const pq_job *job, const char *status, double last_loss,
                        double last_se) {
    const pq_counters *c = &job->counters;
    const pq_params *params = &job->model->params;
    char hash[24];
    json_t *arguments = json_array();
    for (int i = 0; i < info->argument_count; i++)
        json_array_append_new(arguments, json_string(info->arguments[i]));
    snprintf(hash, sizeof hash, "%016" PRIx64, pq_dataset_hash(job->dataset));
    json_t *data = json_pack("{s:s, s:s, s:o}", "source", pq_dataset_source(job->dataset), "hash", hash,
                             "floor", pq_json_real(pq_dataset_floor(job->dataset)));
    json_t *parent =
        job->parent ? json_pack("{s:s, s:o}", "model", job->parent, "loss", pq_json_real(job->parent_loss))
                    : json_null();
    json_t *teacher = NULL;
    if (job->teacher) {
        snprintf(hash, sizeof hash, "%016" PRIx64, job->teacher->hash);
        teacher = json_pack("{s:s, s:s}", "model", job->config->distill.from, "hash", hash);
    }
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:s, s:s, s:I, s:o, "
                     "s:o, s:s, s:o, s:o*}",
                     "potqat", PQ_VERSION, "commit", PQ_COMMIT, "cpu", info->cpu, "kernels",
                     pq_kernels_get()->name, "blas", pq_gemm_describe(), "threads", pq_threads_get(),
                     "arguments", arguments, "data", data, "parameters", (json_int_t)params->weights,
                     "quantized_parameters", (json_int_t)pq_job_quantized_parameters(job), "weight_bytes",
                     (json_int_t)pq_model_weight_bytes(job->model), "fp32_bytes",
                     (json_int_t)(params->weights * sizeof(float)), "planned_memory_bytes",
                     (json_int_t)job->session->memory.total, "started", info->started, "status", status,
                     "iter", (json_int_t)c->iter, "best", evaluation(c->best_iter, c->best_loss, c->best_se),
                     "last", evaluation(c->iter, last_loss, last_se), "quant", info->quant, "parent", parent,
                     "teacher", teacher);
}

pq_status pq_run_info_write(const pq_run_info *info, const pq_job *job, const char *dir, const char *status,
                            double last_loss, double last_se, pq_error *err) {
    pq_file_writer file;
    json_t *object = describe(info, job, status, last_loss, last_se);
    char *text =
        object ? json_dumps(object, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9)) : NULL;
    char *path = pq_run_path(dir, "run.json");
    pq_status result = text && path ? PQ_OK : PQ_FAIL(err, PQ_ERR_MEMORY, "no memory for run.json");
    if (result == PQ_OK) result = pq_file_create(path, true, &file, err);
    if (result == PQ_OK) {
        result = pq_file_write(&file, text, strlen(text), err);
        if (result == PQ_OK) result = pq_file_write(&file, "\n", 1, err);
        result = pq_file_end(&file, result, err);
    }
    json_decref(object);
    free(text);
    free(path);
    return result;
}
