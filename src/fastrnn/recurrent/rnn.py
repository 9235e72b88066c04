# SPDX-License-Identifier: BSD-3-Clause
"""`RNN`: layers of Elman's cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack, overload

import numpy as np

from fastrnn.nn import schemes
from fastrnn.recurrent import table
from fastrnn.recurrent.arguments import Functions
from fastrnn.recurrent.layer import Recurrent
from fastrnn.util import checks
from fastrnn.util.typing import Array

if TYPE_CHECKING:
    from fastrnn.recurrent.keras_arguments import ByUnits, RNNOptions


class RNN(Recurrent[Array]):
    """Elman network: ``h_t = tanh(x_t W^T + b_ih + h_{t-1} R^T + b_hh)``, or ReLU.

    Parameters
    ----------
    input_size, hidden_size : int
        Features of x and of h. An input_size of None is found at the first call.
        One number is Keras's way: units, samples first, the last output alone.
    num_layers : int
        Layers stacked, each on the outputs of the one below.
    nonlinearity : {"tanh", "relu"}
    bias : bool
        False leaves b_ih and b_hh out.
    batch_first : bool
        x and y are (B, T, features) instead of (T, B, features); states are not.
    dropout : float in [0, 1]
        Share of a layer's outputs zeroed on the way to the next, in training mode.
    bidirectional : bool
        A second set of cells runs from the last step to the first; y holds both
        directions' outputs side by side.
    heads : int
        The units are in so many heads of equal size, and see the h of their own head
        alone: ``weight_hh_l{k}`` has H / heads columns, the blocks of a block-diagonal
        matrix, and the product takes that part of the work [9]_.
    activation : str, tuple or dict, optional
        In place of `nonlinearity`:
        "tanh", "sigmoid", "relu", "hard_sigmoid", "hard_tanh", "softsign", "softplus",
        "elu", "leaky_relu", "thresholded_relu", "affine", "scaled_tanh", "gelu",
        "exponential" or "identity" ("linear"), with parameters where it has some:
        ``("elu", 0.5)`` or ``{"name": "elu", "alpha": 0.5}``. Defaults are ONNX's;
        "hard_sigmoid",
        ``max(0, min(1, alpha a + beta))``, has alpha 0.2 and beta 0.5, as in ONNX and
        Keras 2: Keras 3's is ``("hard_sigmoid", 1 / 6)``.
    cell_clip : float, optional
        Pre-activations are brought into [-cell_clip, cell_clip], as ONNX's `clip` does.
    zoneout : float in [0, 1]
        In training, units of h keep the value of the step before with this probability;
        in inference they have the expectation of that [6]_.
    recurrent_dropout : float in [0, 1]
        Share of h_{t-1} that is zeroed before it is multiplied by R, in training mode:
        the same units at all steps of a call [7]_.
    recurrent_dropout_mode : {"h", "per_gate"}
        "h": one mask for all gates. "per_gate": one for each, as in Keras.
    input_dropout : float in [0, 1]
        Share of each layer's inputs zeroed in training mode, the same features at all
        steps of a call; each direction has its own mask. Keras's `dropout`.
    weight_drop : float in [0, 1]
        Share of R zeroed in each call in training mode [8]_.
    layer_norm : bool or str
        What is normalised over its units, at each step [10]_. True is "apart": x W^T
        and h R^T by themselves; "joint" is their sum, and "input" x W^T alone:
        ``N(r) = gamma * (r - mean(r)) / sqrt(var(r) + 1e-5)`` takes the place of r,
        with parameters ``weight_norm_ih_l{k}`` and, if "apart", ``weight_norm_hh_l{k}
        (H,)``.
    rms_norm : bool or str
        The same by the root mean square, without a mean [11]_.
    learn_initial_state : bool
        The state before the first step, where none is given, is a parameter: ``h_0``
        one row for each layer and direction, shared by the batch.
    clip_state_grad : float, ("value", float) or ("norm", float), optional
        Bound on dL/dh_t inside backward, for each row: of every element [3]_, or of
        the norm.
    merge_mode : {"concat", "sum", "mean", "ave", "mul"}
        How the outputs of both directions become one, for the layer above too; "ave" is
        Keras's name of "mean".
    connection : {"residual", "highway"}, optional
        Around every layer after the first, from its input x to its output y:
        ``y + x`` [4]_ or ``t * y + (1 - t) * x``, ``t = sigmoid(x W^T + b)`` [5]_, with
        parameters ``weight_gate_l{k}`` and ``bias_gate_l{k}`` (-1 at first).
    return_sequences : bool
        False gives the last output of each direction alone, without the axis of time.
    checkpoint_every : int, optional
        Training keeps the states of every so many steps instead of all that backward
        needs, which it computes again block by block: the same gradients to the bit,
        for a third more time. For long sequences; about the square root of T needs the
        least memory. Ctrl-C is noticed after as many steps, not after all. May be
        changed at any time: a backward goes as its forward did.
    go_backwards : bool
        From each sequence's last step to its first; y is in the order of computation.
    stateful : bool
        A call that is given no `hx` goes on from the last state of the one before,
        which is kept in ``state``, until `reset_state`. Gradients stay in a call.
    zero_output_for_mask : bool
        y is zero at masked steps, not that of the step before; without
        ``return_sequences``, where the last step is masked. As in Keras, for one
        direction: see `Masking` for two.
    init : {"keras", "torch"}, callable or mapping
        First values of the parameters. "keras": weights from x Glorot's uniform, those
        from h orthogonal, biases 0 and an LSTM's forget gate's 1. "torch": all
        U(-1/sqrt(hidden_size), 1/sqrt(hidden_size)). A function of `fastrnn.init`, or
        any that fills an array in place, is for all weights. A mapping has one of
        these, or a number, for each kind of parameter that it names:
        ``{"weight_hh": fastrnn.init.orthogonal_, "bias_hh": 0}``. A function is given
        ``seed=`` and ``n_gates=`` if it takes them.
    dtype : {"float32", "float64"}
    compute : {"float32", "float64", "bfloat16", "bfloat16-fast"}, optional
        "bfloat16", for a float32 layer: what products multiply (x, h, the weights, and
        gradients of pre-activations) is rounded to bfloat16 there; sums, states, gates
        and all that is stored stay float32. "bfloat16-fast" also leaves the order of
        sums to the processor, so that bits depend on its kind
        (docs/guide/half_precision.md). Neither is for more heads than one. Default:
        `dtype`. It may be set later on.
    quantized : {"int8", "bfloat16"}, optional
        What W and R are stored as, of a layer for inference alone, which `quantize`
        makes of a trained one. Default: numbers of `dtype`.
    seed : int or numpy.random.Generator, optional
        For the first values and for dropout.

    Notes
    -----
    Parameters: ``weight_ih_l{k} (H, I)``, ``weight_hh_l{k} (H, H)``, ``bias_ih_l{k}``
    and ``bias_hh_l{k} (H,)``, with ``_reverse`` appended for the second direction. A
    `torch.nn.RNN` state dict loads as it is. `init.identity_` on ``weight_hh`` makes
    the network of Le, Jaitly & Hinton out of a ReLU layer.

    References
    ----------
    .. [1] J. Elman, "Finding Structure in Time", Cognitive Science 14, 1990.
    .. [2] Q. Le, N. Jaitly, G. Hinton, "A Simple Way to Initialize Recurrent Networks
       of Rectified Linear Units", arXiv:1504.00941, 2015.
    .. [3] A. Graves, "Generating Sequences With Recurrent Neural Networks",
       arXiv:1308.0850, 2013.
    .. [4] Y. Wu et al., "Google's Neural Machine Translation System",
       arXiv:1609.08144, 2016.
    .. [5] R. Srivastava, K. Greff, J. Schmidhuber, "Training Very Deep Networks",
       NIPS 2015.
    .. [6] D. Krueger et al., "Zoneout: Regularizing RNNs by Randomly Preserving Hidden
       Activations", ICLR 2017.
    .. [7] Y. Gal, Z. Ghahramani, "A Theoretically Grounded Application of Dropout in
       Recurrent Neural Networks", NIPS 2016.
    .. [8] S. Merity, N. Keskar, R. Socher, "Regularizing and Optimizing LSTM Language
       Models", ICLR 2018.
    .. [9] M. Beck et al., "xLSTM: Extended Long Short-Term Memory", arXiv:2405.04517,
       2024: block-diagonal recurrent weights.
    .. [10] J. Ba, J. Kiros, G. Hinton, "Layer Normalization", arXiv:1607.06450, 2016.
    .. [11] B. Zhang, R. Sennrich, "Root Mean Square Layer Normalization", NeurIPS 2019.

    Examples
    --------
    >>> import numpy as np
    >>> rnn = RNN(3, 5, seed=0)
    >>> y, h_n = rnn(np.ones((7, 2, 3), "f"))
    >>> y.shape, h_n.shape
    ((7, 2, 5), (1, 2, 5))
    >>> dx, d_h0 = rnn.backward(np.ones_like(y))
    >>> dx.shape
    (7, 2, 3)
    """

    _not_kept = ("recurrent_activation",)
    heads: int
    layer_norm: bool | str
    rms_norm: bool | str
    quantized: str | None

    @overload
    def __init__(
        self,
        units: int,
        activation: Functions | None = ...,
        **options: Unpack[ByUnits],
    ) -> None: ...
    @overload
    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        num_layers: int = ...,
        nonlinearity: str = ...,
        bias: bool = ...,
        batch_first: bool = ...,
        dropout: float = ...,
        bidirectional: bool = ...,
        *,
        activation: Functions | None = ...,
        **options: Unpack[RNNOptions],
    ) -> None: ...
    def __init__(
        self,
        input_size: int | None,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        heads: int = 1,
        activation: Functions | None = None,
        cell_clip: float | None = None,
        zoneout: float | tuple[float, float] = 0.0,
        recurrent_dropout: float = 0.0,
        recurrent_dropout_mode: str = "h",
        input_dropout: float = 0.0,
        weight_drop: float = 0.0,
        layer_norm: bool | str = False,
        rms_norm: bool | str = False,
        learn_initial_state: bool = False,
        clip_state_grad: float | tuple[str, float] | None = None,
        merge_mode: str = "concat",
        connection: str | None = None,
        return_sequences: bool = True,
        checkpoint_every: int | None = None,
        go_backwards: bool = False,
        stateful: bool = False,
        zero_output_for_mask: bool = False,
        init: schemes.Init = schemes.DEFAULT,
        dtype: str = "float32",
        compute: str | None = None,
        quantized: str | None = None,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        known = tuple(table.nonlinearities(self._cells))
        checks.choice("RNN", "nonlinearity", nonlinearity, known)
        if activation is not None and nonlinearity != "tanh":
            raise ValueError(
                "RNN: activation takes the place of nonlinearity, got "
                f"{activation!r} and {nonlinearity!r}"
            )
        self.nonlinearity = nonlinearity
        self._take(
            heads=heads,
            layer_norm=layer_norm,
            rms_norm=rms_norm,
            quantized=quantized,
        )
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            activation=activation,
            cell_clip=cell_clip,
            zoneout=zoneout,
            recurrent_dropout=recurrent_dropout,
            recurrent_dropout_mode=recurrent_dropout_mode,
            input_dropout=input_dropout,
            weight_drop=weight_drop,
            learn_initial_state=learn_initial_state,
            clip_state_grad=clip_state_grad,
            merge_mode=merge_mode,
            connection=connection,
            return_sequences=return_sequences,
            checkpoint_every=checkpoint_every,
            go_backwards=go_backwards,
            stateful=stateful,
            zero_output_for_mask=zero_output_for_mask,
            init=init,
            dtype=dtype,
            compute=compute,
            seed=seed,
        )
