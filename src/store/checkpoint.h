/* The only user of HDF5; its functions are public. */
#ifndef PQ_STORE_CHECKPOINT_H
#define PQ_STORE_CHECKPOINT_H

#include <potqat/checkpoint.h>

#include "model/model.h"

#endif
