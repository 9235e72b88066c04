# SPDX-License-Identifier: BSD-3-Clause
"""The bits that csrc/README.md promises are those of other machines, too.

`recorded_bits.json` was written with x86_v3 kernels; aarch64 and other compilers are
held to it. A release whose bits are others says so in its changelog.
"""

import platform

import pytest
import recorded_bits

from fastrnn.native import core


@pytest.mark.parametrize("target", recorded_bits.fused_targets())
def test_bits_are_those_recorded(target):
    with core.use_isa(target):
        found = recorded_bits.digests()
    assert recorded_bits.differences(found, recorded_bits.recorded()) == []


def test_the_record_covers_every_cell_and_dtype():
    names = recorded_bits.recorded()
    for name, *_ in recorded_bits.recurrent_layers():
        for dtype in recorded_bits.DTYPES:
            assert f"{name} {dtype}" in names


@pytest.mark.skipif(
    platform.machine() not in ("aarch64", "arm64"), reason="for 64-bit ARM"
)
def test_aarch64_fuses_multiply_adds():
    """So that the test above holds its baseline to the record."""
    assert recorded_bits.fused_targets() == ["baseline"]


def test_a_changed_bit_is_named():
    wanted = recorded_bits.recorded()
    name = min(wanted)
    assert recorded_bits.differences({**wanted, name: "0" * 16}, wanted) == [name]


@pytest.mark.parametrize("target", core.SUPPORTED)
def test_fused_targets_are_those_that_round_once(target):
    with core.use_isa(target):
        fused = recorded_bits.fma_is_fused()
    assert fused == (target in recorded_bits.fused_targets())
