/* Owns the use of libfyaml: events become a small tree, and everything a config has no use for is refused. */
#include "config/yaml.h"

#include <libfyaml.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 1 << 20, MOST_VALUES = 10000, DEEPEST = 5 };

struct pq_blocks {
    struct pq_blocks *next;
    max_align_t data[];
};

void *pq_blocks_take(pq_blocks **blocks, size_t bytes) {
    pq_blocks *block = calloc(1, sizeof *block + bytes);
    if (!block) return NULL;
    block->next = *blocks;
    *blocks = block;
    return block->data;
}

void pq_blocks_free(pq_blocks *blocks) {
    while (blocks) {
        pq_blocks *next = blocks->next;
        free(blocks);
        blocks = next;
    }
}

typedef struct reader {
    struct fy_parser *parser;
    struct fy_diag *diag;
    struct fy_event *event; /* the current one */
    const char *name;
    bool lines;
    size_t values;
    pq_blocks **blocks;
} reader;

/* "name:line" or "name", cut to what leaves room for the sentence. */
typedef struct place {
    char text[300];
} place;

static place place_of(const char *name, bool lines, int line) {
    place p;
    if (lines)
        snprintf(p.text, sizeof p.text, "%.280s:%d", name, line);
    else
        snprintf(p.text, sizeof p.text, "%.280s", name);
    return p;
}

/* Bytes of the UTF-8 character at text[0], 0 where it is none (overlong forms, surrogates and NUL included).
 */
static size_t utf8_length(const unsigned char *text, size_t bytes) {
    uint32_t point = text[0];
    if (point < 0x80) return point != 0;
    size_t length = point >= 0xF0 ? 4 : point >= 0xE0 ? 3 : 2;
    if (point < 0xC2 || point > 0xF4 || length > bytes) return 0;
    point &= 0x7Fu >> length;
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xC0) != 0x80) return 0;
        point = point << 6 | (text[i] & 0x3F);
    }
    if (length == 3 && (point < 0x800 || (point >= 0xD800 && point < 0xE000))) return 0;
    return length == 4 && (point < 0x10000 || point > 0x10FFFF) ? 0 : length;
}

/* The number of the first byte that is no UTF-8 text, counted from 0; `bytes` when there is none. */
static size_t first_bad_byte(const char *text, size_t bytes) {
    size_t at = 0, length;
    while (at < bytes && (length = utf8_length((const unsigned char *)text + at, bytes - at)) > 0)
        at += length;
    return at;
}

static pq_status refuse_parse(reader *r, pq_error *err) {
    void *previous = NULL;
    struct fy_diag_error *error = fy_diag_errors_iterate(r->diag, &previous);
    if (!error || !error->msg) return PQ_FAIL(err, PQ_ERR_USAGE, "%.280s: not readable as YAML", r->name);
    return PQ_FAIL(err, PQ_ERR_USAGE, "%s: not readable as YAML: %.200s",
                   place_of(r->name, r->lines, error->line + (error->line < 1)).text, error->msg);
}

static int event_line(const struct fy_event *event) {
    const struct fy_mark *mark = fy_event_start_mark((struct fy_event *)event);
    return mark ? mark->line + 1 : 1;
}

/* A sentence about the current event. */
#define REFUSE(r, ...)                                                                                       \
    (PQ_FAIL(err, PQ_ERR_USAGE, __VA_ARGS__),                                                                \
     pq_prefix(err, PQ_ERR_USAGE, "%s", place_of((r)->name, (r)->lines, event_line((r)->event)).text))

/* Move to the next event. */
static pq_status next_event(reader *r, pq_error *err) {
    if (r->event) fy_parser_event_free(r->parser, r->event);
    r->event = fy_parser_parse(r->parser);
    if (!r->event || fy_parser_get_stream_error(r->parser)) return refuse_parse(r, err);
    if (r->event->type == FYET_ALIAS || fy_event_get_anchor_token(r->event))
        return REFUSE(r, "anchors (&name) and aliases (*name) are not allowed in a config; quote a text that "
                         "begins with & or *");
    if (fy_event_get_tag_token(r->event)) return REFUSE(r, "tags (!name) are not allowed in a config");
    return PQ_OK;
}

static pq_status read_scalar(reader *r, pq_yaml *out, pq_error *err) {
    struct fy_token *token = fy_event_get_token(r->event);
    size_t bytes = 0;
    const char *text = token ? fy_token_get_text(token, &bytes) : "";
    if (!text) text = "", bytes = 0;
    if (first_bad_byte(text, bytes) < bytes)
        return REFUSE(r, "a quoted text holds an escape that is no Unicode character");
    char *copy = pq_blocks_take(r->blocks, bytes + 1);
    if (!copy)
        return PQ_FAIL(err, PQ_ERR_MEMORY, "a config value of %zu bytes does not fit in memory", bytes);
    memcpy(copy, text, bytes);
    out->kind = PQ_YAML_SCALAR;
    out->text = copy;
    out->plain = !token || fy_token_scalar_style(token) == FYSS_PLAIN;
    return PQ_OK;
}

static pq_status read_value(reader *r, int depth, pq_yaml *out, pq_error *err);

/* The items of the list or map whose start is the current event, up to its end. */
static pq_status read_items(reader *r, int depth, pq_yaml *out, pq_error *err) {
    bool map = r->event->type == FYET_MAPPING_START;
    size_t count = 0, room = 0;
    if (depth == DEEPEST) return REFUSE(r, "values are nested deeper than any key needs");
    out->kind = map ? PQ_YAML_MAP : PQ_YAML_LIST;
    for (;;) {
        PQ_TRY(next_event(r, err));
        if (r->event->type == FYET_MAPPING_END || r->event->type == FYET_SEQUENCE_END) break;
        if (map && count % 2 == 0 && r->event->type != FYET_SCALAR)
            return REFUSE(r, "expected the name of a key, found a list or a map");
        if (count == room) {
            pq_yaml *items = pq_blocks_take(r->blocks, (room = room ? 2 * room : 8) * sizeof *items);
            if (!items) return PQ_FAIL(err, PQ_ERR_MEMORY, "a config list does not fit in memory");
            if (count) memcpy(items, out->items, count * sizeof *items);
            out->items = items;
        }
        PQ_TRY(read_value(r, depth + 1, &out->items[count++], err));
    }
    out->count = map ? count / 2 : count;
    return PQ_OK;
}

static pq_status read_value(reader *r, int depth, pq_yaml *out, pq_error *err) {
    if (++r->values > MOST_VALUES) return REFUSE(r, "a config of more than %d values", MOST_VALUES);
    *out = (pq_yaml){.line = event_line(r->event)};
    return r->event->type == FYET_SCALAR ? read_scalar(r, out, err) : read_items(r, depth, out, err);
}

static pq_status read_document(reader *r, pq_yaml **out, pq_error *err) {
    PQ_TRY(next_event(r, err)); /* start of the stream */
    PQ_TRY(next_event(r, err));
    if (r->event->type == FYET_STREAM_END) return PQ_OK;
    PQ_TRY(next_event(r, err));
    *out = pq_blocks_take(r->blocks, sizeof **out);
    if (!*out) return PQ_FAIL(err, PQ_ERR_MEMORY, "a config does not fit in memory");
    PQ_TRY(read_value(r, 0, *out, err));
    PQ_TRY(next_event(r, err)); /* end of the document */
    PQ_TRY(next_event(r, err));
    if (r->event->type != FYET_STREAM_END)
        return REFUSE(r, "a second document (---) begins; a config is one");
    return PQ_OK;
}

static pq_status check_text(const char *text, size_t bytes, const char *name, bool lines, pq_error *err) {
    int line = 1;
    if (bytes > MOST_BYTES)
        return PQ_FAIL(err, PQ_ERR_USAGE, "%.280s: %zu bytes are too many for a config (at most %d)", name,
                       bytes, MOST_BYTES);
    size_t bad = first_bad_byte(text, bytes),
           start = bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    for (size_t i = 0; i < bad; i++) {
        /* libfyaml takes broken directives for nothing, and minutes over long ones. */
        if (text[i] == '%' && (i == start || text[i - 1] == '\n' || text[i - 1] == '\r'))
            return PQ_FAIL(err, PQ_ERR_USAGE,
                           "%s: a line that begins with %% (a directive) is not allowed in a config",
                           place_of(name, lines, line).text);
        line += text[i] == '\n';
    }
    if (bad == bytes) return PQ_OK;
    return PQ_FAIL(err, PQ_ERR_USAGE, "%s: byte 0x%02x at offset %zu is not UTF-8 text; is this a config?",
                   place_of(name, lines, line).text, (unsigned)(unsigned char)text[bad], bad);
}

pq_status pq_yaml_parse(const char *text, size_t bytes, const char *name, bool lines, pq_blocks **blocks,
                        pq_yaml **out, pq_error *err) {
    *out = NULL;
    PQ_TRY(check_text(text, bytes, name, lines, err));
    struct fy_diag_cfg diag_config;
    fy_diag_cfg_default(&diag_config);
    diag_config.fp = NULL;
    diag_config.level = FYET_ERROR;
    reader r = {.name = name, .lines = lines, .blocks = blocks, .diag = fy_diag_create(&diag_config)};
    if (r.diag) fy_diag_set_collect_errors(r.diag, true);
    struct fy_parse_cfg config = {.flags = FYPCF_DEFAULT_PARSE, .diag = r.diag};
    r.parser = r.diag ? fy_parser_create(&config) : NULL;
    pq_status status = PQ_OK;
    if (!r.parser || fy_parser_set_string(r.parser, text, bytes) != 0)
        status = PQ_FAIL(err, PQ_ERR_MEMORY, "%.280s: the YAML parser could not be set up", name);
    else
        status = read_document(&r, out, err);
    if (r.event) fy_parser_event_free(r.parser, r.event);
    if (r.parser) fy_parser_destroy(r.parser);
    if (r.diag) fy_diag_destroy(r.diag);
    if (status != PQ_OK) *out = NULL;
    return status;
}

bool pq_yaml_is_null(const pq_yaml *value) {
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};
    if (value->kind != PQ_YAML_SCALAR || !value->plain) return false;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(value->text, words[i]) == 0) return true;
    return false;
}

void pq_yaml_show(const pq_yaml *value, char out[80]) {
    enum { LONGEST = 60 };
    if (value->kind != PQ_YAML_SCALAR) {
        snprintf(out, 80, "a %s of %zu", value->kind == PQ_YAML_LIST ? "list" : "map", value->count);
    } else if (pq_yaml_is_null(value)) {
        snprintf(out, 80, "null");
    } else {
        const char *quote = value->plain ? "" : "\"";
        size_t length = strlen(value->text), cut = 0, step;
        char text[LONGEST + 1];
        while (cut < length &&
               cut + (step = utf8_length((const unsigned char *)value->text + cut, length - cut)) <=
                   LONGEST) {
            memcpy(text + cut, value->text + cut, step);
            if (step == 1 && ((unsigned char)text[cut] < 0x20 || text[cut] == 0x7F)) text[cut] = ' ';
            cut += step;
        }
        text[cut] = 0;
        snprintf(out, 80, "%s%s%s%s", quote, text, cut < length ? "..." : "", quote);
    }
}
