/* Owns the checkpoint's seal, its tables of attributes and how HDF5 is set up. */
#include "store/layout.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

void pq_seal_make(char seal[PQ_SEAL_BYTES], size_t bytes, uint64_t hash) {
    memset(seal, 0, PQ_SEAL_BYTES);
    snprintf(seal, PQ_SEAL_BYTES, PQ_CHECKPOINT_FORMAT "\nversion %d\nbytes %zu\nxxh3 %016llx\n",
             PQ_CHECKPOINT_VERSION, bytes, (unsigned long long)hash);
}

#define FIELD(type, name, kind)                                                                              \
    { #name, PQ_FIELD_##kind, 1, offsetof(type, name) }
const pq_field pq_root_table[PQ_ROOT_FIELDS] = {
    FIELD(pq_root_fields, format, TEXT),   FIELD(pq_root_fields, version, INT),
    FIELD(pq_root_fields, layers, INT),    FIELD(pq_root_fields, heads, INT),
    FIELD(pq_root_fields, width, INT),     FIELD(pq_root_fields, context, INT),
    FIELD(pq_root_fields, vocab, INT),     FIELD(pq_root_fields, bias, INT),
    FIELD(pq_root_fields, gelu, TEXT),     FIELD(pq_root_fields, iter, INT),
    FIELD(pq_root_fields, val_loss, REAL), FIELD(pq_root_fields, tokenizer_hash, UINT),
};
const pq_field pq_quant_table[PQ_QUANT_FIELDS] = {
    FIELD(pq_quant_fields, quantizer, TEXT),
    FIELD(pq_quant_fields, wire_id, UINT),
    FIELD(pq_quant_fields, levels, INT),
    FIELD(pq_quant_fields, bits, INT),
    {"range", PQ_FIELD_REAL, 2, offsetof(pq_quant_fields, range)},
    FIELD(pq_quant_fields, rounding, TEXT),
    FIELD(pq_quant_fields, granularity, TEXT),
    FIELD(pq_quant_fields, group, INT),
};
const pq_field pq_activation_table[PQ_ACTIVATION_FIELDS] = {FIELD(pq_activation_fields, kind, TEXT)};
#undef FIELD

hid_t pq_text_type(size_t bytes) {
    hid_t type = H5Tcopy(H5T_C_S1);
    if (H5Tset_size(type, bytes) < 0 || H5Tset_strpad(type, H5T_STR_NULLPAD) < 0 ||
        H5Tset_cset(type, H5T_CSET_UTF8) < 0) {
        H5Tclose(type);
        return H5I_INVALID_HID;
    }
    return type;
}

hid_t pq_field_stored_type(pq_field_kind kind) {
    switch (kind) {
    case PQ_FIELD_INT:
        return H5Tcopy(H5T_STD_I64LE);
    case PQ_FIELD_UINT:
        return H5Tcopy(H5T_STD_U64LE);
    case PQ_FIELD_REAL:
        return H5Tcopy(H5T_IEEE_F64LE);
    case PQ_FIELD_TEXT:
        break;
    }
    return pq_text_type(PQ_FIELD_TEXT_BYTES);
}

hid_t pq_field_memory_type(pq_field_kind kind) {
    switch (kind) {
    case PQ_FIELD_INT:
        return H5Tcopy(H5T_NATIVE_INT64);
    case PQ_FIELD_UINT:
        return H5Tcopy(H5T_NATIVE_UINT64);
    case PQ_FIELD_REAL:
        return H5Tcopy(H5T_NATIVE_DOUBLE);
    case PQ_FIELD_TEXT:
        break;
    }
    return pq_text_type(PQ_FIELD_TEXT_BYTES);
}

bool pq_array_name_valid(const char *name) {
    size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    return length > 0 && name[length] == 0 && length < sizeof((pq_state_array *)NULL)->name &&
           strcmp(name, ".") != 0;
}

void pq_hdf5_begin(pq_hdf5_settings *saved) {
    H5Eget_auto2(H5E_DEFAULT, &saved->print, &saved->print_data);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    if (H5PLget_loading_state(&saved->plugins) < 0) saved->plugins = H5PL_ALL_PLUGIN;
    H5PLset_loading_state(0);
}

void pq_hdf5_end(const pq_hdf5_settings *saved) {
    H5PLset_loading_state(saved->plugins);
    H5Eset_auto2(H5E_DEFAULT, saved->print, saved->print_data);
}

hid_t pq_hdf5_access(void) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    if (H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110) < 0 ||
        H5Pset_file_locking(access, false, true) < 0 || H5Pset_fclose_degree(access, H5F_CLOSE_STRONG) < 0) {
        H5Pclose(access);
        return H5I_INVALID_HID;
    }
    return access;
}
