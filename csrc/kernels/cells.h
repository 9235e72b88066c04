/* SPDX-License-Identifier: BSD-3-Clause */
/* cells.h -- the table of cells, and the only place where they are listed.
 *
 * A cell's file ends with its entry; a line here includes the file, and another puts the
 * entry into the table.  The order is that of the cells' indices.
 */
#ifndef FR_CELLS_H
#define FR_CELLS_H

#include "rnn.c"
#include "lstm.c"
#include "gru.c"

static const cell_entry *const cell_table[] = {
    &rnn_tanh_cell,
    &rnn_relu_cell,
    &lstm_cell,
    &gru_cell,
};

#endif
