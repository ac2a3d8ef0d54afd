"""Power-of-two balance of weights that fp16 cannot hold, or whose activations it cannot hold.

Where the outputs of one weight are the inputs of another, the first can be multiplied by 2^-e and the second by 2^e,
channel by channel, without changing the function:

    gain of a norm → q, k, v or gate, up
    gain of q's norm → gain of k's norm, for both channels of a rotation
    v → o, for the query heads of a group
    up → down

A head of q or k that passes a norm can be multiplied by 2^-e alone, because RMSNorm is invariant to the scale of its
input. That is done only where activations are so large that its eps does not matter.

Channels keep their values, e = 0, unless a weight or an activation is beyond fp16's range, or rounding to fp16's
subnormals would change their product.

Invariant: the function is unchanged, and no weight or activation is moved out of fp16's range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..architectures import DecoderConfig, LayerTensors
from ..sources.weights import LazyTensor, Weights
from .rescale import FP16_MAX, HEADROOM, ActivationPeaks, Rescale, rescale_exponents
from .smooth import SmoothingPoint, smooth_weights
from .weight_peaks import WeightPeaks, measure_peaks

_SUBNORMAL_ERROR = 2.0**-25
"""Largest error of rounding to a subnormal of fp16."""
_LOSS = 2.0**-14
"""Relative change that is too large: a quarter of the usual rounding error."""
_SMALLEST, _LARGEST = 2.0**-100, 2.0**100
"""Limits of the values whose exponents are compared, so that zeros have one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """Balanced weights."""

    weights: dict[str, LazyTensor]
    peaks: ActivationPeaks
    """Of the balanced weights before the rescale."""
    layers: tuple[int, ...]
    """Layers of which a weight was changed."""


def balance_weights(weights: Weights, config: DecoderConfig, peaks: ActivationPeaks, rescale: Rescale) -> Balance:
    """Balance the weights of all layers. Matrices without known peaks are read for it.

    Args:
        weights: Weights after `rescale`.
        config: Shapes of the decoder.
        peaks: Activations and matrices before `rescale`; channels without peaks do not count as large.
        rescale: What was applied to the weights.
    """
    balanced, channels, changed = dict(weights), dict(peaks.channels), []
    exponents = rescale_exponents(config, rescale)
    known = {name: found.scaled(math.ldexp(1.0, exponents.get(name, 0))) for name, found in peaks.weights.items()}
    for index in range(config.layers):
        layer = _Layer(index=index, config=config, weights=balanced, channels=channels, known=known, rescale=rescale)
        layer.balance_heads()
        layer.balance_norms()
        layer.bound_heads()
        layer.balance_products()
        changed += [index] if layer.changed else []
    return Balance(weights=balanced, peaks=peaks.with_channels(channels, config), layers=tuple(changed))


def choose_exponents(
    produced: torch.Tensor, read: torch.Tensor, activation: torch.Tensor, read_activation: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the exponent e of each channel, 0 where fp16 holds the channel as it is.

    Args:
        produced: [channels], largest absolute weight that produces the channel.
        read: [channels], largest absolute weight that reads it.
        activation: [channels], largest activation of the channel, with the headroom that it must have.
        read_activation: [channels], the same of what `read` produces, if that is multiplied by 2^e as well.
    """
    read_peak = read if read_activation is None else torch.maximum(read, read_activation)
    least = _log2(torch.maximum(produced, activation) / FP16_MAX).ceil()
    most = _log2(FP16_MAX / read_peak).floor()
    lost = _is_lost(produced, read) | _is_lost(read, produced)
    middle = ((_log2(produced) - _log2(read)) / 2).round()
    fits = middle.maximum(least).minimum(most)
    return torch.where((least > 0) | (most < 0) | lost, fits, torch.zeros(()))


def _is_lost(weight: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Whether rounding `weight` [channels] to subnormals changes a channel, and its product with `other` noticeably."""
    product = weight * other
    usual = product[product > 0].median() if (product > 0).any() else product.max()
    return (product > 0) & (_LOSS * weight < _SUBNORMAL_ERROR) & (_SUBNORMAL_ERROR * other > _LOSS * usual)


def _log2(values: torch.Tensor) -> torch.Tensor:
    return values.clamp(_SMALLEST, _LARGEST).log2()


@dataclass(slots=True, kw_only=True)
class _Layer:
    index: int
    config: DecoderConfig
    weights: dict[str, LazyTensor]
    """Weights of the whole model; those of the layer are replaced."""
    channels: dict[str, torch.Tensor]
    """Peaks of activations, like `ActivationPeaks.channels`; those of the layer are replaced."""
    known: dict[str, WeightPeaks]
    """Peaks of matrices as they are in `weights`."""
    rescale: Rescale
    changed: bool = False

    @property
    def names(self) -> LayerTensors:
        return self.config.architecture.layer(self.index)

    def balance_heads(self) -> None:
        """Balance the gains of the norms on q and k, and scale heads whose activations before it are out of range."""
        names, head_dim = self.names, self.config.head_dim
        if names.q_norm is None or names.k_norm is None:
            return
        # of both channels of a rotation, which may add up
        largest = math.sqrt(2 * head_dim)
        queries, keys = (
            self.weights[norm].fp32().abs().reshape(2, -1).amax(0) for norm in (names.q_norm, names.k_norm)
        )
        exponents = choose_exponents(queries, keys, queries * largest, keys * largest).repeat(2)
        self._scale(names.q_norm, -exponents)
        self._scale(names.k_norm, exponents)
        for name in (names.q, names.k):
            self._bound_heads(name, HEADROOM * self._activation(name))

    def balance_norms(self) -> None:
        """Balance the gains of both norms with the weights that read them; v and up are balanced later."""
        # an RMSNorm without gain has at most this output
        largest = math.sqrt(self.config.hidden)
        for point, norm, readers in (
            (SmoothingPoint.ATTENTION, self.names.attention_norm, (self.names.q, self.names.k)),
            (SmoothingPoint.MLP, self.names.mlp_norm, (self.names.gate,)),
        ):
            gain = self.weights[norm].fp32().abs()
            read = torch.stack([self._peaks(name).columns for name in readers]).amax(0)
            self._apply(point, choose_exponents(gain, read, gain * largest))

    def bound_heads(self) -> None:
        """Scale heads of q and k that pass a norm if their weights are out of range."""
        if self.config.architecture.head_norms:
            for name in (self.names.q, self.names.k):
                self._bound_heads(name, self._peaks(name).rows)

    def balance_products(self) -> None:
        """Balance v with o, and up with down."""
        names, config = self.names, self.config
        value = self._peaks(names.v).rows
        if names.v_bias is not None:
            value = torch.maximum(value, self.weights[names.v_bias].fp32().abs())
        read = self._peaks(names.output).columns.reshape(config.kv_heads, -1, config.head_dim).amax(1)
        self._apply(
            SmoothingPoint.VALUE,
            choose_exponents(value, read.reshape(-1), HEADROOM * self._activation(names.v)),
            names.v,
        )
        self._apply(
            SmoothingPoint.INTERMEDIATE,
            choose_exponents(
                self._peaks(names.up).rows,
                self._peaks(names.down).columns,
                HEADROOM * self._activation(names.up) * math.ldexp(1.0, -self.rescale.intermediate),
            ),
            names.up,
        )

    def _bound_heads(self, name: str, rows: torch.Tensor) -> None:
        """Scale the heads of a weight whose largest value in `rows` [out] is out of range."""
        head_dim = self.config.head_dim
        exponents = _log2(rows.reshape(-1, head_dim).amax(1) / FP16_MAX).ceil().clamp(min=0)
        self._scale(name, -exponents.repeat_interleave(head_dim))

    def _peaks(self, name: str) -> WeightPeaks:
        """Return the peaks of a matrix."""
        if name not in self.known:
            self.known[name] = measure_peaks(self.weights[name].fp32_parts(), self.weights[name].shape)
        return self.known[name]

    def _activation(self, name: str) -> torch.Tensor:
        """Return the peaks of a weight's outputs [out]."""
        found = self.channels.get(name)
        return torch.zeros(self.weights[name].shape[0]) if found is None else found

    def _apply(self, point: SmoothingPoint, exponents: torch.Tensor, product: str | None = None) -> None:
        """Divide the channels at `point` by 2^exponents; `product` is the weight whose outputs they are."""
        if not exponents.any():
            return
        before = dict(self.weights)
        self.weights |= smooth_weights(before, self.config, {self.index: {point: exponents.exp2()}})
        for name, tensor in before.items():
            if self.weights[name] is not tensor:
                self.known.pop(name, None)
        if product in self.channels:
            self.channels[product] = self.channels[product] * (-exponents).exp2()
        self.changed = True

    def _scale(self, name: str, exponents: torch.Tensor) -> None:
        """Multiply the rows of a weight by 2^exponents."""
        if not exponents.any():
            return
        factors = exponents.exp2()
        self.known.pop(name, None)
        self.weights[name] = self.weights[name].changed(
            lambda values: values * (factors if values.dim() == 1 else factors[:, None])
        )
        if name in self.channels:
            self.channels[name] = self.channels[name] * factors
        self.changed = True
