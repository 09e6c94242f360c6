/* Owns gnuplot: started without a shell, its script, result and complaints being temporary files without
 * names, so that no pipe can fill up; and what happens to its SVG before it goes on a page: no ids that could
 * meet, no fixed black. */
#include "train/report/gnuplot.h"

#include <errno.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/memory.h"

extern char **environ;

/* Run gnuplot with these files as its standard streams. -d: no personal start-up files. */
static pq_status run_gnuplot(FILE *script, FILE *result, FILE *complaints, pq_error *err) {
    char *arguments[] = {"gnuplot", "-d", NULL};
    posix_spawn_file_actions_t actions;
    pid_t child;
    int status = 0;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fileno(script), STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, fileno(result), STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, fileno(complaints), STDERR_FILENO);
    int failure = posix_spawnp(&child, "gnuplot", &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (failure == ENOENT)
        return PQ_FAIL(err, PQ_ERR_IO, "gnuplot, which draws the curves, is not installed");
    if (failure) return PQ_FAIL(err, PQ_ERR_IO, "gnuplot could not be started: %s", strerror(failure));
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return PQ_OK;
    char said[300] = "";
    rewind(complaints);
    size_t length = fread(said, 1, sizeof said - 1, complaints);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)said[i] < 0x20) said[i] = ' ';
    return PQ_FAIL(err, PQ_ERR_IO, "gnuplot failed and said: %s", length ? said : "nothing");
}

static pq_status read_back(FILE *stream, char **text, pq_error *err) {
    if (fseek(stream, 0, SEEK_END) != 0) return PQ_FAIL(err, PQ_ERR_IO, "gnuplot's result could not be read");
    long size = ftell(stream);
    PQ_TRY(pq_calloc((size_t)(size > 0 ? size : 0) + 1, 1, "a figure", text, err));
    rewind(stream);
    if (size > 0 && fread(*text, 1, (size_t)size, stream) != (size_t)size) {
        free(*text);
        *text = NULL;
        return PQ_FAIL(err, PQ_ERR_IO, "gnuplot's result could not be read");
    }
    return PQ_OK;
}

/* gnuplot's words -> ours. Groups set `color` to black, so that currentColor within them would be black. */
static const char *const replacements[][2] = {
    {"rgb( 18,  52,  86)", "currentColor"},
    {"rgb(18,52,86)", "currentColor"},
    {" color=\"black\"", ""},
    {" color=\"white\"", ""},
    {" color=\"gray\"", ""},
    {"stroke=\"black\"", "stroke=\"currentColor\""},
    {" id=\"gnuplot_canvas\"", ""},
    {"<use xlink:href='#gpPt4'", "<path d='M-.9,-.9h1.8v1.8h-1.8z' stroke='none' fill='currentColor'"},
    {"<use xlink:href='#gpPt6'", "<circle r='1' stroke='none' fill='currentColor'"},
    {"<use xlink:href='#gpPt8'", "<path d='M0,-1.3L1.3,.8H-1.3z' stroke='none' fill='currentColor'"},
    {"<use xlink:href='#gpPt10'", "<path d='M0,1.3L1.3,-.8H-1.3z' stroke='none' fill='currentColor'"},
    {"<use xlink:href='#gpPt12'", "<path d='M0,-1.4L1.4,0L0,1.4L-1.4,0z' stroke='none' fill='currentColor'"},
    {"stroke='black'", "stroke='currentColor'"},
    {" stroke-linecap=\"butt\" stroke-linejoin=\"miter\"", ""},
};

static void write_line(FILE *out, const char *line, size_t length) {
    for (size_t i = 0; i < length;) {
        size_t known = sizeof replacements / sizeof *replacements, r;
        for (r = 0; r < known; r++)
            if (strncmp(line + i, replacements[r][0], strlen(replacements[r][0])) == 0) break;
        if (r < known) {
            fputs(replacements[r][1], out);
            i += strlen(replacements[r][0]);
        } else {
            fputc(line[i++], out);
        }
    }
    fputc('\n', out);
}

static bool starts(const char *line, const char *with) {
    return strncmp(line, with, strlen(with)) == 0;
}

/* Copy what stands between <svg ...> and </svg>, line by line, without titles, definitions and empty groups.
 */
const char *pq_svg_write_body(FILE *out, const char *svg) {
    const char *held = NULL; /* the opening of a group that may turn out to be empty */
    size_t held_length = 0, length;
    bool defs = false, head = true;
    for (const char *line = svg; *line; line += length + (line[length] == '\n')) {
        length = strcspn(line, "\n");
        const char *text = line + strspn(line, "\t ");
        if (starts(text, "</svg>")) return line + length;
        if (head) {
            head = !starts(text, "<desc>");
        } else if (defs || starts(text, "<defs>")) {
            defs = !starts(text, "</defs>");
        } else if (held && starts(text, "</g>")) {
            held = NULL;
        } else if (length) {
            if (held) write_line(out, held, held_length);
            held = NULL;
            if (starts(text, "<g id=\"gnuplot_plot")) {
                fputs("<g>\n", out);
            } else if (starts(text, "<g fill=\"none\"")) {
                held = line;
                held_length = length;
            } else {
                write_line(out, line, length);
            }
        }
    }
    return NULL;
}

pq_status pq_gnuplot(FILE *script, char **svg, pq_error *err) {
    FILE *result = tmpfile(), *complaints = tmpfile();
    pq_status status = PQ_OK;
    *svg = NULL;
    if (!result || !complaints)
        status = PQ_FAIL(err, PQ_ERR_IO, "a temporary file could not be made: %s", strerror(errno));
    rewind(script);
    if (status == PQ_OK) status = run_gnuplot(script, result, complaints, err);
    if (status == PQ_OK) status = read_back(result, svg, err);
    if (status == PQ_OK && (!strstr(*svg, "<desc>") || !strstr(*svg, "</svg>"))) {
        status = PQ_FAIL(err, PQ_ERR_IO, "gnuplot wrote no SVG figure (is its svg terminal missing?)");
        free(*svg);
        *svg = NULL;
    }
    if (result) fclose(result);
    if (complaints) fclose(complaints);
    return status;
}
