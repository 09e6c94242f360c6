/* What writer and reader of a checkpoint share: the seal before the HDF5 data, the tables of attributes, and
 * the HDF5 surroundings. Stays inside src/store. docs/formats.md is the specification. */
#ifndef PQ_STORE_LAYOUT_H
#define PQ_STORE_LAYOUT_H

#define H5_USE_110_API /* the same calls on later releases */
#include <hdf5.h>

#include "model/model.h"
#include "store/checkpoint.h"

/* The seal is the HDF5 user block: text lines, then zeros. It is written last and compared first, so HDF5
 * never sees a file that is cut or damaged: its reader is not made for those. */
enum { PQ_SEAL_BYTES = 512, PQ_CHECKPOINT_VERSION = 1 };
#define PQ_CHECKPOINT_FORMAT "potqat checkpoint" /* the seal's first line and the root's attribute */
/* For a file of `bytes` bytes (seal included) whose bytes after the seal have XXH3 `hash`. */
void pq_seal_make(char seal[PQ_SEAL_BYTES], size_t bytes, uint64_t hash);

/* One attribute, bound to a member of a struct. */
typedef enum pq_field_kind { PQ_FIELD_INT, PQ_FIELD_UINT, PQ_FIELD_REAL, PQ_FIELD_TEXT } pq_field_kind;
enum { PQ_FIELD_TEXT_BYTES = 32 };

typedef struct pq_field {
    const char *name;
    pq_field_kind kind; /* int64_t, uint64_t, double, char[PQ_FIELD_TEXT_BYTES] */
    hsize_t count;      /* 1: scalar, more: an array */
    size_t offset;
} pq_field;

/* Attributes of the root. */
typedef struct pq_root_fields {
    char format[PQ_FIELD_TEXT_BYTES];
    int64_t version;
    int64_t layers, heads, width, context, vocab, bias;
    char gelu[PQ_FIELD_TEXT_BYTES];
    int64_t iter;
    double val_loss;
    uint64_t tokenizer_hash; /* pq_hash of /tokenizer's text, 0 without one */
} pq_root_fields;

/* Attributes of /quant/<matrix>. */
typedef struct pq_quant_fields {
    char quantizer[PQ_FIELD_TEXT_BYTES];
    uint64_t wire_id;
    int64_t levels, bits;
    double range[2];
    char rounding[PQ_FIELD_TEXT_BYTES];
    char granularity[PQ_FIELD_TEXT_BYTES];
    int64_t group; /* weights that share a scale */
} pq_quant_fields;

/* Attributes of /activations. */
typedef struct pq_activation_fields {
    char kind[PQ_FIELD_TEXT_BYTES];
} pq_activation_fields;

enum { PQ_ROOT_FIELDS = 12, PQ_QUANT_FIELDS = 8, PQ_ACTIVATION_FIELDS = 1 };
extern const pq_field pq_root_table[PQ_ROOT_FIELDS], pq_quant_table[PQ_QUANT_FIELDS],
    pq_activation_table[PQ_ACTIVATION_FIELDS];

/* What HDF5 calls the kinds, in the file and in memory. */
hid_t pq_field_stored_type(pq_field_kind kind); /* to be closed with H5Tclose */
hid_t pq_field_memory_type(pq_field_kind kind); /* the same */
/* A fixed-length UTF-8 string; to be closed with H5Tclose. */
hid_t pq_text_type(size_t bytes);

/* Letters, digits, '.', '_' and '-', at least one and not '.' alone; what /arrays may hold. */
bool pq_array_name_valid(const char *name);
enum { PQ_MOST_ARRAYS = 4096 };

/* HDF5 prints its errors and loads plug-ins by default; between these two calls it does neither. */
typedef struct pq_hdf5_settings {
    H5E_auto2_t print;
    void *print_data;
    unsigned plugins;
} pq_hdf5_settings;
void pq_hdf5_begin(pq_hdf5_settings *saved);
void pq_hdf5_end(const pq_hdf5_settings *saved);

/* File access properties: format 1.10 (all metadata checksummed; readable by every later release), no locks
 * (files appear by rename, and some file systems have none). To be closed with H5Pclose. */
hid_t pq_hdf5_access(void);

#endif
