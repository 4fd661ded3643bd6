"""Wide gamuts and high dynamic range, shown as an ordinary screen would: in BT.709, at its brightness.

What such a screen can show keeps its colour: reference white, 203 cd/m² (BT.2408), is white. Brighter highlights are clipped, as are
colours outside BT.709. So a video that was made for ordinary screens and stored in HDR comes back as it was. Numbers of transfers and
primaries are those of ITU-T H.273.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float32, UInt8, UInt16

PQ, HLG = 16, 18  # SMPTE ST 2084, ARIB STD-B67
BT709, BT2020, DISPLAY_P3 = 1, 9, 12  # the first also as transfer and as matrix, the second as matrix
WHITE = 203.0  # cd/m²
HLG_PEAK, HLG_GAMMA = 1000.0, 1.2  # of the screen that HLG is made for
GAMMA = 2.4  # of an ordinary screen (BT.1886)

# Linear light in other primaries as linear light in those of BT.709, all with the white of D65.
_TO_BT709 = {
    BT2020: ((1.660491, -0.587641, -0.072850), (-0.124550, 1.132900, -0.008349), (-0.018151, -0.100579, 1.118730)),
    DISPLAY_P3: ((1.224940, -0.224940, 0.0), (-0.042057, 1.042057, 0.0), (-0.019638, -0.078636, 1.098274)),
}
_LUMINANCE = (0.2627, 0.6780, 0.0593)  # of BT.2020


def is_ordinary(transfer: int, primaries: int) -> bool:
    """Whether an ordinary screen shows it as it is."""
    return transfer not in (PQ, HLG) and primaries not in _TO_BT709


def to_bt709(rgb: UInt16[np.ndarray, "H W 3"], transfer: int, primaries: int) -> UInt8[np.ndarray, "H W 3"]:
    """Pixels of 16 bits in another transfer or other primaries, as BT.709. HDR without primaries is in those of BT.2020."""
    light = _light(transfer)[rgb]
    if transfer == HLG:  # so far as the camera saw it; the screen brightens what is bright
        light *= HLG_PEAK / WHITE * (light @ np.array(_LUMINANCE, np.float32))[..., None] ** (HLG_GAMMA - 1)
    if primaries not in _TO_BT709 and primaries != BT709:
        primaries = BT2020
    if primaries != BT709:
        light = light @ np.array(_TO_BT709[primaries], np.float32).T
    return np.rint(255 * np.clip(light, 0, 1) ** np.float32(1 / GAMMA)).astype(np.uint8)


@cache
def _light(transfer: int) -> Float32[np.ndarray, " 65536"]:
    """The linear light of each level: of the screen with 1 for white, or for HLG of the scene with 1 for the most."""
    signal = np.arange(2**16) / (2**16 - 1)
    if transfer == PQ:
        power = signal ** (1 / 78.84375)
        light = (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125) * 10_000 / WHITE
    elif transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    else:
        light = signal**GAMMA
    return light.astype(np.float32)
