"""mmseg's photometric distortion of a whole batch where it lies: the same law, the same arithmetic in whole numbers.

Decoding processes then leave it out: it is most of what they do for a crop beside decoding it. Source: mmseg's
`PhotoMetricDistortion` and OpenCV's conversions between 8-bit RGB and HSV (hue in 0..179).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

BRIGHTNESS, LOW, HIGH, HUE = 32.0, 0.5, 1.5, 18  # mmseg's defaults; hue is drawn from -18..17
SHIFT = 12  # binary digits after the point in OpenCV's conversion
HUES = 180
# which of (v, v(1-s), v(1-sf), v(1-s(1-f))) is red, green, blue in each sixth of the circle of hues
SECTORS = ((0, 3, 1), (2, 0, 1), (1, 0, 3), (1, 2, 0), (3, 1, 0), (0, 1, 2))


@dataclass(frozen=True)
class Distortion:
    """What is done to each of B pictures. Values that change nothing stand where something is not done.

    Args:
        brightness: float32 [B], added. contrast, saturation: float32 [B], factors. hue: int64 [B], halves of a degree.
        early: bool [B], contrast before the colours. saturated, turned: bool [B]: the way to HSV and back rounds.
    """

    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    early: Tensor
    saturated: Tensor
    turned: Tensor

    def to(self, device: torch.device) -> Distortion:
        return Distortion(*(getattr(self, f.name).to(device, non_blocking=True) for f in dataclasses.fields(self)))


def draw_distortion(count: int, generator: torch.Generator) -> Distortion:
    """Each part every second time, by the law of mmseg.

    Example: `draw_distortion(16, torch.Generator().manual_seed(0)).contrast.shape` is `(16,)`
    """
    done = torch.rand(5, count, generator=generator, dtype=torch.float64) < 0.5
    light, contrast, colour = torch.rand(3, count, generator=generator, dtype=torch.float64)
    hue = torch.randint(-HUE, HUE, (count,), generator=generator)
    brighter, contrasted, saturated, turned, early = done
    return Distortion(
        torch.where(brighter, BRIGHTNESS * (2 * light - 1), 0.0).float(),
        torch.where(contrasted, LOW + (HIGH - LOW) * contrast, 1.0).float(),
        torch.where(saturated, LOW + (HIGH - LOW) * colour, 1.0).float(),
        torch.where(turned, hue, 0), early, saturated, turned,
    )  # fmt: skip


def distort(images: Tensor, drawn: Distortion) -> Tensor:
    """uint8 RGB [B, 3, H, W] -> the same, distorted; does not wait for the device.

    Example: `distort(images, draw_distortion(len(images), generator).to(images.device))`
    """
    with torch.autocast(images.device.type, enabled=False):
        ones = torch.ones_like(drawn.contrast)
        x = _scaled(images.float(), ones, drawn.brightness)
        x = _scaled(x, torch.where(drawn.early, drawn.contrast, ones))
        hue, saturation, value = to_hsv(x)
        saturation = _scaled(saturation[:, None], drawn.saturation)[:, 0]
        x = torch.where(_each(drawn.saturated), to_rgb(hue, saturation, value), x)
        hue, saturation, value = to_hsv(x)
        hue = (hue + drawn.hue[:, None, None]) % HUES
        x = torch.where(_each(drawn.turned), to_rgb(hue, saturation, value), x)
        return _scaled(x, torch.where(drawn.early, ones, drawn.contrast)).to(torch.uint8)


def to_hsv(pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Whole numbers of hue 0..179, saturation and value 0..255, float32 [B, H, W], of RGB [B, 3, H, W] in 0..255."""
    red, green, blue = pixels.int().unbind(1)
    value, least = pixels.int().amax(1), pixels.int().amin(1)
    spread = value - least
    steps = torch.arange(1, 256, device=pixels.device, dtype=torch.float64)
    none = steps.new_zeros(1)
    by_value = torch.cat([none, ((255 << SHIFT) / steps).round()]).int()
    by_spread = torch.cat([none, ((HUES << SHIFT) / (6 * steps)).round()]).int()
    half = 1 << (SHIFT - 1)
    saturation = (spread * by_value[value.long()] + half) >> SHIFT
    sixth = torch.where(
        value == red, green - blue,
        torch.where(value == green, blue - red + 2 * spread, red - green + 4 * spread),
    )  # fmt: skip
    hue = (sixth * by_spread[spread.long()] + half) >> SHIFT
    hue = torch.where(hue < 0, hue + HUES, hue)
    return hue.float(), saturation.float(), value.float()


def to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """RGB [B, 3, H, W] of what `to_hsv` gives, whole numbers of 0..255 as float32."""
    place = hue * (6 / HUES)
    sector = place.floor()
    part, s = place - sector, saturation / 255
    mixes = torch.stack([value, value * (1 - s), value * (1 - s * part), value * (1 - s * (1 - part))], 1)
    which = torch.tensor(SECTORS, device=hue.device)[(sector.long() % 6)]  # [B, H, W, 3]
    # OpenCV 5 drops what follows the point, but in the last pixels of a row it rounds
    return mixes.gather(1, which.movedim(-1, 1)).floor().clamp(0, 255)


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _scaled(x: Tensor, factor: Tensor, more: Tensor | None = None) -> Tensor:
    """`x * factor + more` as 8-bit numbers: cut to 0..255, and what follows the point dropped."""
    x = x * _each(factor)
    return (x if more is None else x + _each(more)).clamp(0, 255).floor()
