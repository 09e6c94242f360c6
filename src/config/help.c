/* Owns the description of keys for people: what is allowed, the help text, docs/config.md. */
#include "config/help.h"

#include <stdarg.h>
#include <string.h>

#include "config/key.h"

/* A text being put together in the caller's storage; what does not fit is cut. */
typedef struct line {
    char *text;
    size_t bytes, used;
} line;

static void add(line *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(line *l, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int length = vsnprintf(l->text + l->used, l->bytes - l->used, format, args);
    va_end(args);
    if (length > 0) l->used += (size_t)length < l->bytes - l->used ? (size_t)length : l->bytes - l->used - 1;
}

static void add_bounds(line *l, const pq_key *key) {
    if (!key->above && !key->below)
        add(l, "from %.16g to %.16g", key->least, key->most);
    else
        add(l, "%s %.16g and %s %.16g", key->above ? "above" : "at least", key->least,
            key->below ? "below" : "at most", key->most);
}

static void add_words(line *l, const char *words) {
    for (; *words; words++) {
        if (*words == '|')
            add(l, ", ");
        else
            add(l, "%c", *words);
    }
}

void pq_key_allowed(const pq_key *key, char *out, size_t bytes) {
    line l = {.text = out, .bytes = bytes};
    *out = 0;
    switch (key->type) {
    case PQ_KEY_INT:
        add(&l, "a whole number ");
        add_bounds(&l, key);
        break;
    case PQ_KEY_REAL:
        add(&l, "a number ");
        add_bounds(&l, key);
        break;
    case PQ_KEY_BOOL:
    case PQ_KEY_MAYBE:
        add(&l, key->nullable ? "true, false" : "true or false");
        break;
    case PQ_KEY_TEXT:
        add(&l, "a text");
        break;
    case PQ_KEY_CHOICE:
        if (strchr(key->choices, '|')) add(&l, "one of ");
        add_words(&l, key->choices);
        if (key->beyond) add(&l, ", %s", key->beyond);
        break;
    case PQ_KEY_EVERY:
        add(&l, "never, step, or a whole number of iters from 1 to %.16g", key->most);
        break;
    case PQ_KEY_REALS:
        add(&l, "a list of %zu numbers ", key->count);
        add_bounds(&l, key);
        break;
    case PQ_KEY_TEXTS:
        add(&l, "a list of texts");
        break;
    case PQ_KEY_PAIRS:
        add(&l, "a list of [iter, number], the numbers ");
        add_bounds(&l, key);
        break;
    case PQ_KEY_OVERRIDES:
        add(&l, "a list of {match: pattern, levels: N}, N ");
        add_bounds(&l, key);
        break;
    }
    if (key->nullable) add(&l, ", or null");
}

/* What of the key does not work yet; "" where all does. */
static void describe_absence(const pq_key *key, char *out, size_t bytes) {
    line l = {.text = out, .bytes = bytes};
    *out = 0;
    if (key->absent)
        add(&l, "other values");
    else if (key->later)
        add_words(&l, key->later);
    if (*out) add(&l, ": not in this build");
}

/* Words of `text` in lines of up to 88 columns that begin at column `at`. */
static void print_paragraph(const char *text, size_t at, FILE *out) {
    size_t column = 0;
    while (*text) {
        size_t word = strcspn(text, " ");
        if (column == 0 || column + 1 + word > 88) {
            fprintf(out, "%s%*s", column ? "\n" : "", (int)at, "");
            column = at;
        } else {
            fputc(' ', out);
            column++;
        }
        fwrite(text, 1, word, out);
        column += word;
        text += word + strspn(text + word, " ");
    }
    fputc('\n', out);
}

static void print_text(FILE *out) {
    char allowed[400], absence[200], sentence[800];
    for (size_t s = 0; s < pq_section_count; s++) {
        fprintf(out, "\n%s: %s\n", pq_sections[s].name, pq_sections[s].help);
        for (size_t i = 0; i < pq_key_count; i++) {
            const pq_key *key = &pq_keys[i];
            if (strcmp(key->section, pq_sections[s].name) != 0) continue;
            pq_key_allowed(key, allowed, sizeof allowed);
            describe_absence(key, absence, sizeof absence);
            fprintf(out, "  %s.%s = %s%s\n", key->section, key->name, key->initial,
                    key->resume ? "   (may change on --resume)" : "");
            print_paragraph(key->help, 6, out);
            snprintf(sentence, sizeof sentence, "%s%s%s%s", allowed, *absence ? " (" : "", absence,
                     *absence ? ")" : "");
            print_paragraph(sentence, 6, out);
        }
    }
}

/* A cell of a Markdown table: "|", "*", "<" and "_" lose their meaning. */
static void print_cell(const char *text, FILE *out) {
    for (; *text; text++) {
        if (strchr("|*<_\\", *text)) fputc('\\', out);
        fputc(*text, out);
    }
}

static void print_markdown(FILE *out) {
    char allowed[400], absence[200];
    fprintf(
        out,
        "# The config, key by key\n\n"
        "Made by `potqat config --markdown` from `src/config/schema.def`; edit that file, not this one. A "
        "config "
        "is YAML, `section: {key: value}`; on the command line a key is `section.key=value`. Every key has a "
        "default, so a config names only what differs. Relative paths start at the current folder; iter = "
        "one "
        "optimizer update. *resume*: the key may change on `--resume`.\n");
    for (size_t s = 0; s < pq_section_count; s++) {
        fprintf(out, "\n## %s\n", pq_sections[s].name);
        print_cell(pq_sections[s].help, out);
        fprintf(out, "\n\n| key | default | allowed | meaning |\n|---|---|---|---|\n");
        for (size_t i = 0; i < pq_key_count; i++) {
            const pq_key *key = &pq_keys[i];
            if (strcmp(key->section, pq_sections[s].name) != 0) continue;
            pq_key_allowed(key, allowed, sizeof allowed);
            describe_absence(key, absence, sizeof absence);
            fprintf(out, "| `%s` | `%s` | ", key->name, key->initial);
            print_cell(allowed, out);
            if (*absence) fprintf(out, "; *");
            print_cell(absence, out);
            fprintf(out, "%s | ", *absence ? "*" : "");
            print_cell(key->help, out);
            fprintf(out, "%s |\n", key->resume ? " *(resume)*" : "");
        }
    }
}

void pq_config_print_help(bool markdown, FILE *out) {
    if (markdown)
        print_markdown(out);
    else
        print_text(out);
}
