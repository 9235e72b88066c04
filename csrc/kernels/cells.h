/* SPDX-License-Identifier: BSD-3-Clause */
/* cells.h -- the table of cells.  Nothing else in the C code or in Cython lists them.
 *
 * The file of a cell ends with its entry.  Here one line includes the file, and another
 * line puts the entry into the table; a cell's index is its place in the table.
 */
#ifndef FR_CELLS_H
#define FR_CELLS_H

#include "rnn.c"
#include "lstm.c"
#include "gru.c"
#include "mgu.c"
#include "ligru.c"
#include "leaky.c"
#include "slstm.c"
#include "mingru.c"
#include "minlstm.c"
#include "indrnn.c"
#include "sru.c"

/* One line for each cell: */
/* clang-format off */
static const cell_entry *const cell_table[] = {
    &rnn_tanh_cell,
    &rnn_relu_cell,
    &lstm_cell,
    &gru_cell,
    &mgu_cell,
    &ligru_cell,
    &leaky_cell,
    &slstm_cell,
    &mingru_cell,
    &minlstm_cell,
    &indrnn_relu_cell,
    &indrnn_tanh_cell,
    &sru_cell,
};
/* clang-format on */

#endif
