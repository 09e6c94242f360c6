/* Texts as documents, a piece at a time, in bounded memory.
 *
 * A source is a text file, a JSONL file (one object a line, a document in one of its fields), either of them
 * compressed by zstd, a folder of such files (taken in the order of their names' bytes), or the name of a
 * text (fetch.h, corpus.h). In text files a line <|endoftext|> ends a document, as the end of the file does.
 *
 * Where the tokenizer has an id that ends documents (`marked`), such lines and the line break before them are
 * left out. Where it has none they stay, and documents of JSONL and the files of a folder end with a line
 * break, which is put there where it is missing.
 *
 * Pieces depend on the text alone, and begin where byte-level BPE begins a new word whatever comes before: at
 * white space behind something else. So a piece gives the tokens that it has within the whole. (Where 64 KiB
 * have no such place, at a character.) */
#ifndef PQ_DATA_DOCUMENTS_H
#define PQ_DATA_DOCUMENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define PQ_DOCUMENT_MARKER "<|endoftext|>"
#define PQ_PIECE_MOST      ((size_t)128 << 10) /* bytes of a piece, and a few more for the end of a document */
#define PQ_JSON_LINE_MOST  ((size_t)32 << 20)  /* bytes of a line of JSONL */

typedef struct pq_documents pq_documents;

/* Where the next piece begins: all that is needed to go on there. */
typedef struct pq_place {
    uint64_t file, offset; /* number of the file; of its (decompressed) bytes */
    uint64_t line;         /* JSONL: lines before `offset` */
    uint64_t within;       /* JSONL: bytes already taken of the document in the line at `offset` */
    uint64_t document;     /* counted over all files */
    int last;              /* last byte of the open document so far; -1: none yet */
} pq_place;

typedef struct pq_piece {
    char *text; /* [bytes], borrowed until the next call; NULL at the end of all files */
    size_t bytes;
    bool ends;         /* the document ends here; bytes may be 0 */
    uint64_t document; /* whose piece it is */
    pq_place place;    /* where it begins */
} pq_piece;

/* Whether `path` is a folder with a file of a kind that is read here. */
bool pq_documents_in(const char *path);
/* Open a source; `field` is the one of JSONL (NULL = text). PQ_ERR_IO when there is none. Ends of documents
 * are not marked, until pq_documents_restart says so. */
pq_status pq_documents_open(const char *path, const char *field, pq_documents **out, pq_error *err);
void pq_documents_close(pq_documents *documents); /* NULL is fine */

/* PQ_ERR_FORMAT, with file and line, for what is not JSON, has no such field, or is damaged. */
pq_status pq_documents_next(pq_documents *documents, pq_piece *out, pq_error *err);
/* Go back to the beginning. */
void pq_documents_restart(pq_documents *documents, bool marked);
/* Where the next call goes on, and going on there, also after another opening of the same files. */
pq_place pq_documents_tell(const pq_documents *documents);
pq_status pq_documents_seek(pq_documents *documents, const pq_place *place, pq_error *err);

/* Put file and line or byte of `place` before the message in err. */
pq_status pq_documents_blame(const pq_documents *documents, const pq_place *place, pq_error *err,
                             pq_status code);
const char *pq_documents_name(const pq_documents *documents); /* which text, from where; for people */
double pq_documents_floor(const pq_documents *documents);     /* pq_dataset_floor of the text */
/* Names, sizes and times of all files as one number: another one, and the files changed. */
uint64_t pq_documents_identity(const pq_documents *documents);
/* Bytes of all files as they lie on the disk, and how many of them were read. */
uint64_t pq_documents_size(const pq_documents *documents);
uint64_t pq_documents_taken(const pq_documents *documents);

#endif
