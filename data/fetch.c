/* Owns the table of downloadable texts, the cache folder, and the two programs run for it: curl and
 * sha256sum. Both are started without a shell. */
#include "data/fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"

extern char **environ;

static const pq_source sources[] = {
    {.name = "tinyshakespeare",
     .file = "tinyshakespeare.txt",
     .url = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
     .sha256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"},
};

const pq_source *pq_source_find(const char *name) {
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++)
        if (strcmp(sources[i].name, name) == 0) return &sources[i];
    return NULL;
}

/* The variable's value, NULL when unset or empty. */
static const char *environment(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static pq_status join(const char *folder, const char *name, char **out, pq_error *err) {
    *out = pq_path_join(folder, name);
    return *out ? PQ_OK : PQ_FAIL(err, PQ_ERR_MEMORY, "a file name could not be allocated");
}

pq_status pq_cache_folder(char **folder, pq_error *err) {
    const char *own = environment("POTQAT_CACHE"), *cache = environment("XDG_CACHE_HOME");
    const char *home = environment("HOME");
    *folder = NULL;
    if (own) return pq_copy_text(own, folder, err);
    if (cache && cache[0] == '/') /* the XDG specification: a relative path is to be ignored */
        return join(cache, "potqat", folder, err);
    if (home) return join(home, ".cache/potqat", folder, err);
    return PQ_FAIL(err, PQ_ERR_IO,
                   "there is no cache folder: none of POTQAT_CACHE, XDG_CACHE_HOME and HOME is set");
}

/* Run arguments[0] with what it prints (both streams) in output, cut to `bytes` - 1; PQ_ERR_IO when it cannot
 * be started, its exit status in *code (-1: ended by a signal) otherwise. */
static pq_status run_program(const char *const *arguments, char *output, size_t bytes, int *code,
                             pq_error *err) {
    int ends[2], state = 0;
    pid_t child;
    posix_spawn_file_actions_t actions;
    size_t used = 0;
    char rest[4096];
    ssize_t got;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return PQ_FAIL(err, PQ_ERR_IO, "%s could not be run: %s", arguments[0], strerror(errno));
    int reason = posix_spawn_file_actions_init(&actions);
    if (reason == 0) {
        reason = posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
        if (reason == 0) reason = posix_spawn_file_actions_adddup2(&actions, ends[1], 2);
        if (reason == 0)
            reason = posix_spawnp(&child, arguments[0], &actions, NULL, (char *const *)arguments, environ);
        posix_spawn_file_actions_destroy(&actions);
    }
    close(ends[1]);
    if (reason != 0) {
        close(ends[0]);
        return PQ_FAIL(err, PQ_ERR_IO, "%s could not be run: %s", arguments[0], strerror(reason));
    }
    while ((got = read(ends[0], rest, sizeof rest)) > 0 || (got < 0 && errno == EINTR)) {
        if (got < 0) continue;
        size_t kept = (size_t)got < bytes - 1 - used ? (size_t)got : bytes - 1 - used;
        memcpy(output + used, rest, kept);
        used += kept;
    }
    close(ends[0]);
    output[used] = 0;
    while (waitpid(child, &state, 0) < 0)
        if (errno != EINTR)
            return PQ_FAIL(err, PQ_ERR_IO, "%s could not be waited for: %s", arguments[0], strerror(errno));
    *code = WIFEXITED(state) ? WEXITSTATUS(state) : -1;
    return PQ_OK;
}

/* PQ_ERR_FORMAT when the file's SHA-256 is not the source's. */
static pq_status check_sha256(const pq_source *source, const char *path, pq_error *err) {
    const char *arguments[] = {"sha256sum", "--binary", "--", path, NULL};
    char output[256];
    int code;
    PQ_TRY(run_program(arguments, output, sizeof output, &code, err));
    output[strcspn(output, "\n")] = 0;
    if (code != 0) return PQ_FAIL(err, PQ_ERR_IO, "sha256sum could not read %s: %s", path, output);
    const char *sum = output + (output[0] == '\\'); /* it marks unusual file names so */
    size_t length = strlen(source->sha256);
    if (strncmp(sum, source->sha256, length) != 0)
        return PQ_FAIL(err, PQ_ERR_FORMAT, "%s is not %s: its SHA-256 should be %s and is %.*s", path,
                       source->name, source->sha256, (int)length, sum);
    return PQ_OK;
}

/* *path = FOLDER/file when that exists and is right, NULL when it does not exist. */
static pq_status look_in(const char *folder, const pq_source *source, char **path, pq_error *err) {
    char *file;
    *path = NULL;
    PQ_TRY(join(folder, source->file, &file, err));
    pq_status status = PQ_OK;
    if (pq_file_exists(file)) {
        status = check_sha256(source, file, err);
        if (status == PQ_OK) {
            *path = file;
            return PQ_OK;
        }
    }
    free(file);
    return status;
}

pq_status pq_source_locate(const pq_source *source, char **path, pq_error *err) {
    const char *data = environment("POTQAT_DATA");
    char *cache;
    *path = NULL;
    if (data) PQ_TRY(look_in(data, source, path, err));
    if (*path) return PQ_OK;
    if (pq_cache_folder(&cache, NULL) != PQ_OK) return PQ_OK; /* no cache holds nothing */
    pq_status status = look_in(cache, source, path, err);
    free(cache);
    return status;
}

/* curl into `temporary`, checked. */
static pq_status download_to(const pq_source *source, const char *temporary, pq_error *err) {
    const char *arguments[] = {"curl",       "--fail",     "--silent", "--show-error",
                               "--location", "--proto",    "=https",   "--connect-timeout",
                               "10",         "--max-time", "60",       "--max-filesize",
                               "1000000000", "--output",   temporary,  source->url,
                               NULL};
    char output[512];
    int code;
    PQ_TRY(run_program(arguments, output, sizeof output, &code, err));
    output[strcspn(output, "\n")] = 0;
    if (code != 0)
        return PQ_FAIL(err, PQ_ERR_IO, "%s could not be downloaded from %s: %s", source->name, source->url,
                       *output ? output : "curl failed");
    return check_sha256(source, temporary, err);
}

pq_status pq_source_download(const pq_source *source, char **path, pq_error *err) {
    char *folder = NULL, *target = NULL, name[128], *temporary = NULL;
    pq_status status;
    *path = NULL;
    PQ_TRY(pq_cache_folder(&folder, err));
    PQ_TRY_TO(status, done, pq_folder_create(folder, err));
    PQ_TRY_TO(status, done, join(folder, source->file, &target, err));
    snprintf(name, sizeof name, "%s.tmp-%ld", source->file, (long)getpid());
    PQ_TRY_TO(status, done, join(folder, name, &temporary, err));
    pq_log(PQ_LOG_INFO, "downloading %s from %s", source->name, source->url);
    status = download_to(source, temporary, err);
    if (status == PQ_OK) status = pq_file_publish(temporary, target, true, err);
    if (status != PQ_OK) unlink(temporary);
    if (status == PQ_OK) {
        *path = target;
        target = NULL;
    }
done:
    free(folder);
    free(target);
    free(temporary);
    return status;
}
