/* Owns DIR.part: the tokens of a text on their way to shards, and how that is resumed. The shards themselves
 * are shards_write.c's. */
#include "data/prepare.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/memory.h"
#include "data/encode.h"
#include "data/shards.h"

#define SAVE_EVERY ((uint64_t)32 << 20)
#define PROGRESS   "progress.json"
#define VERSION    1

typedef enum phase { TOKENS, SHARDS, DONE } phase;
static const char *const phase_names[] = {"tokens", "shards", "done"};

typedef struct work {
    const pq_prepare_options *o;
    char *target, *part, *shards; /* DIR, DIR.part, DIR.part/shards */
    int lock;                     /* descriptor of DIR.part, -1 = none */
    bool owned;                   /* DIR.part is ours: on an error it goes */
    bool older;                   /* DIR was a folder of shards before */
    phase phase;
    pq_documents *documents;
    pq_tokenizer *tokenizer;
    FILE *spool[3];
    uint64_t count[3]; /* tokens in each */
    pq_place place;    /* what they are the tokens of */
    uint64_t identity;
    pq_shards_plan plan;
    uint64_t written; /* tokens of shards */
} work;

static pq_status no_memory(pq_error *err) {
    return PQ_FAIL(err, PQ_ERR_MEMORY, "the names of the shards' files could not be allocated");
}

static pq_status stopped(const work *w, pq_error *err) {
    return PQ_FAIL(err, PQ_STOPPED, "stopped; the same command with --resume goes on with what is in %s",
                   w->part);
}

static bool go_on(const work *w, const char *doing, uint64_t done, uint64_t total) {
    return !w->o->go_on || w->o->go_on(w->o->context, doing, done, total);
}

/* Remove all files in a folder of ours, and the folder. */
static void remove_folder(const char *folder) {
    DIR *open = opendir(folder);
    if (!open) return;
    for (struct dirent *entry = readdir(open); entry; entry = readdir(open))
        unlinkat(dirfd(open), entry->d_name, 0);
    closedir(open);
    rmdir(folder);
}

static void remove_part(work *w) {
    remove_folder(w->shards);
    remove_folder(w->part);
}

static char *spool_path(const work *w, size_t i) {
    char name[16];
    snprintf(name, sizeof name, "tokens-%zu", i);
    return pq_path_join(w->part, name);
}

static size_t spools(const work *w) {
    return w->o->data.by_document ? 3 : 1;
}

/* ---- progress.json ---- */

/* What the tokens depend on: with another text or other settings nothing can be resumed. */
static uint64_t identify(const work *w) {
    const pq_data_options *d = &w->o->data;
    const char *tokenizer = d->parent ? "parent" : d->tokenizer ? d->tokenizer : "char";
    const char *field = d->field ? d->field : "text";
    uint64_t facts[] = {VERSION,
                        pq_documents_identity(w->documents),
                        pq_hash(tokenizer, strlen(tokenizer)),
                        d->parent ? pq_tokenizer_hash(d->parent) : 0,
                        pq_hash(field, strlen(field)),
                        pq_hash(d->split, sizeof d->split),
                        d->by_document,
                        w->o->shard_tokens,
                        w->older};
    return pq_hash(facts, sizeof facts);
}

/* Bring all that was written to the disk, then say so. */
static pq_status save(work *w, phase now, pq_error *err) {
    const pq_place *p = &w->place;
    for (size_t i = 0; i < spools(w); i++)
        if (w->spool[i] && (fflush(w->spool[i]) != 0 || fdatasync(fileno(w->spool[i])) != 0))
            return PQ_FAIL(err, PQ_ERR_IO, "the tokens in %s could not be written: %s", w->part,
                           strerror(errno));
    char *path = pq_path_join(w->part, PROGRESS);
    json_t *object =
        json_pack("{s:i, s:I, s:s, s:b, s:[I,I,I], s:{s:I, s:I, s:I, s:I, s:I, s:i}}", "version", VERSION,
                  "identity", (json_int_t)w->identity, "phase", phase_names[now], "older", w->older, "tokens",
                  (json_int_t)w->count[0], (json_int_t)w->count[1], (json_int_t)w->count[2], "place", "file",
                  (json_int_t)p->file, "offset", (json_int_t)p->offset, "line", (json_int_t)p->line, "within",
                  (json_int_t)p->within, "document", (json_int_t)p->document, "last", p->last);
    char *text = object ? json_dumps(object, JSON_INDENT(1)) : NULL;
    pq_status status = path && text ? pq_file_put(path, true, text, strlen(text), err) : no_memory(err);
    if (status == PQ_OK) w->phase = now;
    free(text);
    free(path);
    json_decref(object);
    return status;
}

static bool read_phase(const char *name, phase *out) {
    for (phase i = TOKENS; name && i <= DONE; i++)
        if (strcmp(name, phase_names[i]) == 0) {
            *out = i;
            return true;
        }
    return false;
}

static pq_status take_progress(work *w, json_t *object, pq_error *err) {
    json_int_t version, identity, tokens[3], place[5];
    const char *name;
    int older, last;
    if (json_unpack(object, "{s:I, s:I, s:s, s:b, s:[I,I,I], s:{s:I, s:I, s:I, s:I, s:I, s:i}}", "version",
                    &version, "identity", &identity, "phase", &name, "older", &older, "tokens", &tokens[0],
                    &tokens[1], &tokens[2], "place", "file", &place[0], "offset", &place[1], "line",
                    &place[2], "within", &place[3], "document", &place[4], "last", &last) != 0 ||
        version != VERSION || !read_phase(name, &w->phase))
        return PQ_FAIL(err, PQ_ERR_FORMAT, "it is damaged or of another version; --overwrite begins anew");
    for (size_t i = 0; i < 3; i++) {
        if (tokens[i] < 0) return PQ_FAIL(err, PQ_ERR_FORMAT, "it counts %lld tokens", (long long)tokens[i]);
        w->count[i] = (uint64_t)tokens[i];
    }
    w->older = older;
    w->place = (pq_place){(uint64_t)place[0], (uint64_t)place[1], (uint64_t)place[2],
                          (uint64_t)place[3], (uint64_t)place[4], last};
    w->identity = identify(w);
    if ((json_int_t)w->identity != identity)
        return PQ_FAIL(err, PQ_ERR_USAGE,
                       "it was begun with other settings or another text (name, size or time of a file); "
                       "--overwrite without --resume begins anew");
    return PQ_OK;
}

static pq_status read_progress(work *w, pq_error *err) {
    pq_file_view view = {0};
    json_error_t where;
    char *path = pq_path_join(w->part, PROGRESS);
    pq_status status = path ? pq_file_read(path, &view, err) : no_memory(err);
    if (status == PQ_OK) {
        json_t *object = json_loadb(view.data, view.size, JSON_REJECT_DUPLICATES, &where);
        status = take_progress(w, object, err);
        if (status != PQ_OK) pq_prefix(err, status, "%s", path);
        json_decref(object);
        pq_file_view_close(&view);
    }
    free(path);
    return status;
}

/* ---- the text to tokens ---- */

static bool go_on_reading(void *context, const pq_documents *at) {
    return go_on(context, "looking for characters", pq_documents_taken(at), pq_documents_size(at));
}

static pq_status write_tokenizer(const work *w, pq_error *err) {
    char *path = pq_path_join(w->part, "tokenizer.json"), *json = pq_tokenizer_to_json(w->tokenizer);
    pq_status status = path && json ? pq_file_put(path, true, json, strlen(json), err) : no_memory(err);
    free(path);
    free(json);
    return status;
}

static pq_status open_spools(work *w, pq_error *err) {
    for (size_t i = 0; i < spools(w); i++) {
        char *path = spool_path(w, i);
        if (!path) return no_memory(err);
        w->spool[i] = fopen(path, w->count[i] ? "r+be" : "w+be");
        bool good = w->spool[i] && fseeko(w->spool[i], 0, SEEK_END) == 0;
        int reason = errno;
        if (good && (uint64_t)ftello(w->spool[i]) < 2 * w->count[i]) {
            free(path);
            return PQ_FAIL(err, PQ_ERR_FORMAT,
                           "%s has fewer tokens than its progress.json says; --overwrite without --resume "
                           "begins anew",
                           w->part);
        }
        /* What was written behind the saved progress is made again. */
        good = good && ftruncate(fileno(w->spool[i]), (off_t)(2 * w->count[i])) == 0 &&
               fseeko(w->spool[i], 0, SEEK_END) == 0;
        pq_status status =
            good ? PQ_OK : PQ_FAIL(err, PQ_ERR_IO, "%s could not be opened: %s", path, strerror(reason));
        free(path);
        PQ_TRY(status);
        setvbuf(w->spool[i], NULL, _IOFBF, 1 << 20);
    }
    return PQ_OK;
}

static pq_status take_tokens(void *context, uint64_t document, const uint16_t *tokens, size_t count,
                             pq_error *err) {
    work *w = context;
    int split = w->o->data.by_document ? pq_split_of_document(w->o->data.split, document) : 0;
    if (split > 2) return PQ_OK;
    if (fwrite(tokens, 2, count, w->spool[split]) != count)
        return PQ_FAIL(err, PQ_ERR_IO, "the tokens in %s could not be written: %s", w->part, strerror(errno));
    w->count[split] += count;
    return PQ_OK;
}

static pq_status encode_all(work *w, pq_error *err) {
    pq_encoder *encoder;
    bool more = true;
    uint64_t every = w->o->save_every ? w->o->save_every : SAVE_EVERY, saved = 0;
    pq_status status;
    pq_documents_restart(w->documents, pq_tokenizer_end_of_text(w->tokenizer) >= 0);
    PQ_TRY(pq_documents_seek(w->documents, &w->place, err));
    PQ_TRY(pq_encoder_create(w->documents, w->tokenizer, &encoder, err));
    while (more) {
        PQ_TRY_TO(status, done, pq_encoder_next(encoder, take_tokens, w, &more, err));
        w->place = pq_documents_tell(w->documents);
        uint64_t taken = pq_documents_taken(w->documents), all = pq_documents_size(w->documents);
        bool stop = !go_on(w, "tokens", taken, all);
        if (stop || taken - saved >= every) PQ_TRY_TO(status, done, save(w, TOKENS, err));
        if (taken - saved >= every) saved = taken;
        if (stop) PQ_TRY_TO(status, done, stopped(w, err));
    }
    status = save(w, SHARDS, err);
done:
    pq_encoder_destroy(encoder);
    return status;
}

/* ---- tokens to shards ---- */

static pq_status read_spool(void *context, pq_split split, size_t offset, size_t count, uint16_t *out,
                            pq_error *err) {
    work *w = context;
    size_t file = w->o->data.by_document ? (size_t)split : 0, done = 0, bytes = 2 * count;
    for (size_t i = 0; i < (size_t)split && file == 0; i++) offset += w->plan.tokens[i];
    while (done < bytes) {
        ssize_t got =
            pread(fileno(w->spool[file]), (char *)out + done, bytes - done, (off_t)(2 * offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0)
            return PQ_FAIL(err, PQ_ERR_IO, "the tokens in %s could not be read: %s", w->part,
                           got < 0 ? strerror(errno) : "the file became shorter");
        done += (size_t)got;
    }
    w->written += count;
    uint64_t all = w->plan.tokens[0] + w->plan.tokens[1] + w->plan.tokens[2];
    return go_on(w, "shards", 2 * w->written, 2 * all) ? PQ_OK : stopped(w, err);
}

static pq_status make_shards(work *w, pq_prepared *out, pq_error *err) {
    const pq_data_options *d = &w->o->data;
    uint64_t n = w->count[0] + w->count[1] + w->count[2], hash[3];
    w->plan = (pq_shards_plan){.tokenizer = w->tokenizer,
                               .floor = pq_documents_floor(w->documents),
                               .by_document = d->by_document,
                               .source = pq_documents_name(w->documents),
                               .shard_tokens = w->o->shard_tokens,
                               .read = read_spool,
                               .context = w};
    memcpy(w->plan.split, d->split, sizeof w->plan.split);
    if (n == 0)
        return PQ_FAIL(err, PQ_ERR_USAGE, "%s is empty; a text to learn from has characters", w->plan.source);
    if (d->by_document)
        for (size_t i = 0; i < 3; i++) w->plan.tokens[i] = (size_t)w->count[i];
    else
        pq_split_tokens(d->split, (size_t)n, w->plan.tokens);
    PQ_TRY(pq_split_check(d->split, w->plan.tokens, (size_t)n, w->plan.source, err));
    remove_folder(w->shards); /* of a run that was cut short */
    PQ_TRY(pq_folder_create(w->shards, err));
    PQ_TRY(pq_shards_write_files(&w->plan, w->shards, hash, err));
    PQ_TRY(pq_shards_publish(w->shards, w->target, w->older, err));
    PQ_TRY(save(w, DONE, err));
    memcpy(out->tokens, w->plan.tokens, sizeof out->tokens);
    out->hash = pq_dataset_hash_of(w->tokenizer, w->plan.tokens, hash);
    out->tokenizer = w->tokenizer;
    w->tokenizer = NULL;
    return pq_copy_text(w->plan.source, &out->source, err);
}

/* ---- beginning, resuming, ending ---- */

/* Only one process at a time works in DIR.part. */
static pq_status lock_part(work *w, pq_error *err) {
    w->lock = open(w->part, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (w->lock < 0) return PQ_FAIL(err, PQ_ERR_IO, "%s could not be opened: %s", w->part, strerror(errno));
    if (flock(w->lock, LOCK_EX | LOCK_NB) != 0)
        return PQ_FAIL(err, PQ_ERR_USAGE, "another process is working in %s", w->part);
    w->owned = true;
    return PQ_OK;
}

static pq_status begin(work *w, pq_error *err) {
    PQ_TRY(pq_shards_check_target(w->target, w->o->overwrite, &w->older, err));
    if (pq_file_exists(w->part)) {
        PQ_TRY(lock_part(w, err));
        remove_part(w);
        close(w->lock);
        w->lock = -1;
    }
    w->identity = identify(w);
    w->place = (pq_place){.last = -1};
    PQ_TRY(pq_folder_create(w->part, err));
    PQ_TRY(lock_part(w, err));
    PQ_TRY(pq_data_tokenizer(&w->o->data, w->documents, go_on_reading, w, &w->tokenizer, err));
    return write_tokenizer(w, err);
}

static pq_status resume(work *w, pq_error *err) {
    PQ_TRY(lock_part(w, err));
    w->owned = false; /* what cannot be resumed is left alone */
    PQ_TRY(read_progress(w, err));
    PQ_TRY(pq_shards_tokenizer(w->part, &w->tokenizer, err));
    /* Renaming was the last thing that was done. */
    if (w->phase == SHARDS && !w->older && pq_folder_exists(w->target) && !pq_folder_exists(w->shards))
        w->phase = DONE;
    bool older;
    if (w->phase != DONE) PQ_TRY(pq_shards_check_target(w->target, w->o->overwrite, &older, err));
    w->owned = true;
    return PQ_OK;
}

/* What a folder of shards holds, which is there already. */
static pq_status describe(const char *folder, pq_prepared *out, pq_error *err) {
    pq_shards shards;
    PQ_TRY(pq_shards_open(folder, &shards, err));
    for (size_t split = 0; split < 3; split++)
        for (size_t i = 0; i < shards.count[split]; i++) out->tokens[split] += shards.shard[split][i].count;
    out->hash = pq_dataset_hash_of(shards.tokenizer, out->tokens, shards.hash);
    out->tokenizer = shards.tokenizer;
    out->source = shards.source;
    shards.tokenizer = NULL;
    shards.source = NULL;
    pq_shards_close(&shards);
    return PQ_OK;
}

/* Whether DIR was made by this very command before: of the same text, cut in the same way. */
static bool is_made(const work *w) {
    const pq_data_options *d = &w->o->data;
    pq_shards shards;
    if (pq_shards_open(w->target, &shards, NULL) != PQ_OK) return false;
    bool same =
        strcmp(shards.source, pq_documents_name(w->documents)) == 0 && shards.by_document == d->by_document &&
        memcmp(shards.split, d->split, sizeof shards.split) == 0 &&
        (d->parent ? pq_tokenizer_hash(d->parent) == pq_tokenizer_hash(shards.tokenizer)
                   : strcmp(d->tokenizer ? d->tokenizer : "char", pq_tokenizer_kind(shards.tokenizer)) == 0);
    pq_shards_close(&shards);
    return same;
}

static pq_status run(work *w, pq_prepared *out, pq_error *err) {
    const pq_prepare_options *o = w->o;
    char *progress = pq_path_join(w->part, PROGRESS);
    bool begun = progress && pq_file_exists(progress);
    free(progress);
    PQ_TRY(pq_documents_open(o->data.path, o->data.field, &w->documents, err));
    if (!o->resume && !o->overwrite && pq_file_exists(w->part))
        return PQ_FAIL(
            err, PQ_ERR_USAGE,
            "%s is left from a preparation that was cut short; --resume goes on with it, --overwrite "
            "begins anew",
            w->part);
    if (o->resume && !begun && is_made(w)) { /* done, but perhaps not with putting away */
        if (pq_file_exists(w->part)) PQ_TRY(lock_part(w, err));
        return describe(w->target, out, err);
    }
    PQ_TRY(o->resume && begun ? resume(w, err) : begin(w, err));
    if (w->phase == DONE) return describe(w->target, out, err);
    PQ_TRY(open_spools(w, err));
    if (w->phase == TOKENS) PQ_TRY(encode_all(w, err));
    return make_shards(w, out, err);
}

static pq_status prepare_text(const pq_prepare_options *options, const char *target, pq_prepared *out,
                              pq_error *err) {
    work w = {.o = options, .lock = -1};
    pq_status status = pq_copy_text(target, &w.target, err);
    if (status == PQ_OK && asprintf(&w.part, "%s.part", target) < 0) status = no_memory(err);
    if (status == PQ_OK && !(w.shards = pq_path_join(w.part, "shards"))) status = no_memory(err);
    if (status == PQ_OK) status = run(&w, out, err);
    for (size_t i = 0; i < 3; i++)
        if (w.spool[i]) fclose(w.spool[i]);
    if (w.owned && status != PQ_STOPPED) remove_part(&w);
    if (w.lock >= 0) close(w.lock);
    pq_documents_close(w.documents);
    pq_tokenizer_destroy(w.tokenizer);
    free(w.target);
    free(w.part);
    free(w.shards);
    return status;
}

/* What is tokens already is only written anew. */
static pq_status prepare_tokens(const pq_prepare_options *options, const char *target, pq_prepared *out,
                                pq_error *err) {
    pq_dataset *dataset;
    PQ_TRY(pq_dataset_open(&options->data, &dataset, err));
    pq_status status = pq_shards_write(dataset, target, options->overwrite, options->shard_tokens, err);
    if (status == PQ_OK) status = describe(target, out, err);
    pq_dataset_close(dataset);
    return status;
}

pq_status pq_prepare(const pq_prepare_options *options, pq_prepared *out, pq_error *err) {
    char *target;
    *out = (pq_prepared){0};
    size_t length = strlen(options->folder);
    while (length > 1 && options->folder[length - 1] == '/') length--;
    if (length == 0 || options->shard_tokens == 0)
        return PQ_FAIL(err, PQ_ERR_USAGE, "shards need a folder's name and a size of at least one token");
    PQ_TRY(pq_data_check(&options->data, err));
    if (asprintf(&target, "%.*s", (int)length, options->folder) < 0) return no_memory(err);
    pq_status status = pq_data_kind_of(options->data.path) == PQ_DATA_TEXT
                           ? prepare_text(options, target, out, err)
                           : prepare_tokens(options, target, out, err);
    free(target);
    if (status != PQ_OK) pq_prepared_deinit(out);
    return status;
}

void pq_prepared_deinit(pq_prepared *prepared) {
    free(prepared->source);
    pq_tokenizer_destroy(prepared->tokenizer);
    *prepared = (pq_prepared){0};
}
