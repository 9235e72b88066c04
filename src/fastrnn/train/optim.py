# SPDX-License-Identifier: BSD-3-Clause
"""Optimisers: one kernel call a step over a model's flat parameters and gradients.

Arguments, defaults, formulas and results are PyTorch's; `csrc/kernels/optim.c` states
the formulas.  Each class is mostly its docstring, with all of its arguments.
"""

from __future__ import annotations

import math
from typing import ClassVar, overload

from fastrnn.nn.module import Module
from fastrnn.train.optimizer import Optimizer


class SGD(Optimizer):
    """Gradient descent, with momentum if asked.

    Parameters
    ----------
    model : Module, optional
        Whose parameters to change. Without one, `Model.compile` gives the optimiser
        its model, and defaults are Keras's.
    lr : float in [0, inf)
        Learning rate.
    momentum : float in [0, inf)
        Weight of the previous step's direction; 0 keeps no state.
    dampening : float
        The new gradient counts 1 - dampening, but for the first step.
    weight_decay : float in [0, inf)
        Adds weight_decay times the parameters to the gradient.
    nesterov : bool
        Look ahead along the momentum, which must be > 0, with dampening 0.
    maximize : bool
        Ascend.

    Raises
    ------
    TypeError
        If `model` is not a Module, or an argument is of the wrong type.
    ValueError
        If an argument is out of range, or the model has no parameters.

    References
    ----------
    .. [1] H. Robbins and S. Monro, "A stochastic approximation method", 1951.
    .. [2] I. Sutskever et al., "On the importance of initialization and momentum in
       deep learning", 2013.

    Examples
    --------
    >>> layer = fastrnn.Linear(1, 1, bias=False)
    >>> layer.parameters["weight"][:] = 3
    >>> layer.flat_grads[:] = 2
    >>> SGD(layer, lr=0.5).step()
    >>> layer.parameters["weight"]
    array([[2.]], dtype=float32)
    """

    _kernel = "sgd"
    _keras_defaults: ClassVar = {"lr": 1e-2}
    _hyperparameters: ClassVar = {
        "momentum": "[0, inf)",
        "dampening": "(-inf, inf)",
        "weight_decay": "[0, inf)",
        "nesterov": bool,
        "maximize": bool,
    }
    _optional_state: ClassVar = {"momentum_buffer": "momentum"}

    momentum: float
    dampening: float
    weight_decay: float
    nesterov: bool
    maximize: bool

    @overload
    def __init__(
        self,
        learning_rate: float = ...,
        *,
        momentum: float = ...,
        nesterov: bool = ...,
    ) -> None: ...
    @overload
    def __init__(
        self,
        model: Module | None = ...,
        lr: float = ...,
        momentum: float = ...,
        dampening: float = ...,
        weight_decay: float = ...,
        nesterov: bool = ...,
        *,
        maximize: bool = ...,
    ) -> None: ...
    def __init__(
        self,
        model: Module | None = None,
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            model,
            lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
            maximize=maximize,
        )
        self._check_options("SGD", ValueError)

    def _check_options(self, who, error):
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise error(
                f"{who}: nesterov needs momentum > 0 and dampening = 0, "
                f"got {self.momentum:g} and {self.dampening:g}"
            )

    def _arrays(self):
        return (self._kept("momentum_buffer"),)

    def _options(self):
        first = self.n_steps == 1 and self.momentum != 0
        return (
            self.weight_decay,
            self.maximize,
            self.momentum,
            self.dampening,
            self.nesterov,
            first,
        )


class RMSprop(Optimizer):
    """Gradient over the root of its running mean square.

    Parameters
    ----------
    model : Module, optional
        Whose parameters to change. Without one, `Model.compile` gives the optimiser
        its model, and defaults are Keras's.
    lr : float in [0, inf)
        Learning rate.
    alpha : float in [0, 1]
        Decay of the running means.
    eps : float in [0, inf)
        Added to the root.
    weight_decay : float in [0, inf)
        Adds weight_decay times the parameters to the gradient.
    momentum : float in [0, inf)
        Weight of the previous step's direction.
    centered : bool
        Divide by the standard deviation: subtract the square of the running mean.
    maximize : bool
        Ascend.

    Raises
    ------
    TypeError
        If `model` is not a Module, or an argument is of the wrong type.
    ValueError
        If an argument is out of range, or the model has no parameters.

    References
    ----------
    .. [1] T. Tieleman and G. Hinton, "Lecture 6.5 - rmsprop", 2012.
    .. [2] A. Graves, "Generating sequences with recurrent neural networks", 2013.

    Examples
    --------
    >>> layer = fastrnn.Linear(1, 1, bias=False)
    >>> layer.parameters["weight"][:] = 3
    >>> layer.flat_grads[:] = 2
    >>> RMSprop(layer, lr=0.1, alpha=0.0).step()
    >>> layer.parameters["weight"]
    array([[2.9]], dtype=float32)
    """

    _kernel = "rmsprop"
    _keras_defaults: ClassVar = {"lr": 1e-3, "alpha": 0.9, "eps": 1e-7}
    _own_state: ClassVar = {"square_avg": 0.0}
    _hyperparameters: ClassVar = {
        "alpha": "[0, 1]",
        "eps": "[0, inf)",
        "weight_decay": "[0, inf)",
        "momentum": "[0, inf)",
        "centered": bool,
        "maximize": bool,
    }
    _optional_state: ClassVar = {
        "grad_avg": "centered",
        "momentum_buffer": "momentum",
    }

    alpha: float
    eps: float
    weight_decay: float
    momentum: float
    centered: bool
    maximize: bool

    @overload
    def __init__(
        self,
        learning_rate: float = ...,
        *,
        rho: float = ...,
        momentum: float = ...,
        epsilon: float = ...,
        centered: bool = ...,
    ) -> None: ...
    @overload
    def __init__(
        self,
        model: Module | None = ...,
        lr: float = ...,
        alpha: float = ...,
        eps: float = ...,
        weight_decay: float = ...,
        momentum: float = ...,
        centered: bool = ...,
        *,
        maximize: bool = ...,
    ) -> None: ...
    def __init__(
        self,
        model: Module | None = None,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            model,
            lr,
            alpha=alpha,
            eps=eps,
            weight_decay=weight_decay,
            momentum=momentum,
            centered=centered,
            maximize=maximize,
        )

    def _arrays(self):
        return (
            self._state["square_avg"],
            self._kept("grad_avg"),
            self._kept("momentum_buffer"),
        )

    def _options(self):
        return self.weight_decay, self.maximize, self.alpha, self.eps, self.momentum


class Adagrad(Optimizer):
    """Gradient over the root of the sum of its squares.

    Parameters
    ----------
    model : Module, optional
        Whose parameters to change. Without one, `Model.compile` gives the optimiser
        its model, and defaults are Keras's.
    lr : float in [0, inf)
        Learning rate.
    lr_decay : float in [0, inf)
        Step t uses lr / (1 + (t - 1) lr_decay).
    weight_decay : float in [0, inf)
        Adds weight_decay times the parameters to the gradient.
    initial_accumulator_value : float in [0, inf)
        Where the sums begin.
    eps : float in [0, inf)
        Added to the root.
    maximize : bool
        Ascend.

    Raises
    ------
    TypeError
        If `model` is not a Module, or an argument is of the wrong type.
    ValueError
        If an argument is out of range, or the model has no parameters.

    References
    ----------
    .. [1] J. Duchi, E. Hazan and Y. Singer, "Adaptive subgradient methods for online
       learning and stochastic optimization", 2011.

    Examples
    --------
    >>> layer = fastrnn.Linear(1, 1, bias=False)
    >>> layer.parameters["weight"][:] = 3
    >>> layer.flat_grads[:] = 2
    >>> Adagrad(layer, lr=1.0).step()
    >>> layer.parameters["weight"]
    array([[2.]], dtype=float32)
    """

    _kernel = "adagrad"
    _keras_defaults: ClassVar = {
        "lr": 1e-3,
        "initial_accumulator_value": 0.1,
        "eps": 1e-7,
    }
    _own_state: ClassVar = {"sum": "initial_accumulator_value"}
    _hyperparameters: ClassVar = {
        "lr_decay": "[0, inf)",
        "weight_decay": "[0, inf)",
        "initial_accumulator_value": "[0, inf)",
        "eps": "[0, inf)",
        "maximize": bool,
    }
    _first_only = ("initial_accumulator_value",)

    lr_decay: float
    weight_decay: float
    initial_accumulator_value: float
    eps: float
    maximize: bool

    @overload
    def __init__(
        self,
        learning_rate: float = ...,
        *,
        initial_accumulator_value: float = ...,
        epsilon: float = ...,
    ) -> None: ...
    @overload
    def __init__(
        self,
        model: Module | None = ...,
        lr: float = ...,
        lr_decay: float = ...,
        weight_decay: float = ...,
        initial_accumulator_value: float = ...,
        eps: float = ...,
        *,
        maximize: bool = ...,
    ) -> None: ...
    def __init__(
        self,
        model: Module | None = None,
        lr: float = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            model,
            lr,
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            eps=eps,
            maximize=maximize,
        )

    def _arrays(self):
        return (self._state["sum"],)

    def _rates(self):
        return (self.lr / (1 + (self.n_steps - 1) * self.lr_decay),)

    def _options(self):
        return self.weight_decay, self.maximize, self.eps


class Adam(Optimizer):
    """Running mean of the gradient over the root of that of its square.

    Parameters
    ----------
    model : Module, optional
        Whose parameters to change. Without one, `Model.compile` gives the optimiser
        its model, and defaults are Keras's.
    lr : float in [0, inf)
        Learning rate.
    betas : pair of float in [0, 1)
        Decay of the two running means.
    eps : float in [0, inf)
        Added to the root.
    weight_decay : float in [0, inf)
        Adds weight_decay times the parameters to the gradient.
    amsgrad : bool
        Divide by the largest mean square so far.
    maximize : bool
        Ascend.

    Raises
    ------
    TypeError
        If `model` is not a Module, or an argument is of the wrong type.
    ValueError
        If an argument is out of range, or the model has no parameters.

    References
    ----------
    .. [1] D. Kingma and J. Ba, "Adam: a method for stochastic optimization", 2015.
    .. [2] S. Reddi, S. Kale and S. Kumar, "On the convergence of Adam and beyond",
       2018.

    Examples
    --------
    >>> layer = fastrnn.Linear(1, 1, bias=False)
    >>> layer.parameters["weight"][:] = 3
    >>> layer.flat_grads[:] = 2
    >>> optimizer = Adam(layer, lr=0.1)
    >>> optimizer.step()
    >>> layer.parameters["weight"]
    array([[2.9]], dtype=float32)
    >>> optimizer.zero_grad()
    """

    _kernel = "adam"
    _keras_defaults: ClassVar = {"eps": 1e-7}
    _own_state: ClassVar = {"exp_avg": 0.0, "exp_avg_sq": 0.0}
    _hyperparameters: ClassVar = {
        "betas": "[0, 1)",
        "eps": "[0, inf)",
        "weight_decay": "[0, inf)",
        "amsgrad": bool,
        "maximize": bool,
    }
    _optional_state: ClassVar = {"max_exp_avg_sq": "amsgrad"}
    _decoupled = False
    _keras_decay = "AdamW, whose weight decay is decoupled, as Keras's always is"

    betas: tuple[float, float]
    eps: float
    weight_decay: float
    amsgrad: bool
    maximize: bool

    @overload
    def __init__(
        self,
        learning_rate: float = ...,
        *,
        beta_1: float = ...,
        beta_2: float = ...,
        epsilon: float = ...,
        amsgrad: bool = ...,
    ) -> None: ...
    @overload
    def __init__(
        self,
        model: Module | None = ...,
        lr: float = ...,
        betas: tuple[float, float] = ...,
        eps: float = ...,
        weight_decay: float = ...,
        amsgrad: bool = ...,
        *,
        maximize: bool = ...,
    ) -> None: ...
    def __init__(
        self,
        model: Module | None = None,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            model,
            lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            maximize=maximize,
        )

    def _arrays(self):
        return (
            self._state["exp_avg"],
            self._state["exp_avg_sq"],
            self._kept("max_exp_avg_sq"),
        )

    def _rates(self):
        beta1, beta2 = self.betas
        return (
            self.lr / (1 - beta1**self.n_steps),
            1 / math.sqrt(1 - beta2**self.n_steps),
            1 - self.lr * self.weight_decay if self._decoupled else 1.0,
        )

    def _options(self):
        coupled = 0.0 if self._decoupled else self.weight_decay
        return coupled, self.maximize, *self.betas, self.eps


class AdamW(Adam):
    """`Adam` whose weight decay shrinks the parameters instead of joining the gradient.

    Each step multiplies the parameters by 1 - lr weight_decay first. All arguments are
    those of `Adam`.

    References
    ----------
    .. [1] I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", 2019.

    Examples
    --------
    >>> AdamW(fastrnn.Linear(1, 1)).weight_decay
    0.01
    """

    _decoupled = True
    _keras_defaults: ClassVar = {"eps": 1e-7, "weight_decay": 4e-3}
    _keras_decay = None

    @overload
    def __init__(
        self,
        learning_rate: float = ...,
        *,
        weight_decay: float = ...,
        beta_1: float = ...,
        beta_2: float = ...,
        epsilon: float = ...,
        amsgrad: bool = ...,
    ) -> None: ...
    @overload
    def __init__(
        self,
        model: Module | None = ...,
        lr: float = ...,
        betas: tuple[float, float] = ...,
        eps: float = ...,
        weight_decay: float = ...,
        amsgrad: bool = ...,
        *,
        maximize: bool = ...,
    ) -> None: ...
    def __init__(
        self,
        model: Module | None = None,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            model, lr, betas, eps, weight_decay, amsgrad, maximize=maximize
        )
