"""The law of a bridge as a picture: a, b and c over the time, and states of one photograph."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from irbridge.assets import find
from irbridge.bridges import Bridge
from irbridge.data.degradations import Rain
from irbridge.gaussian.marginal import Marginal, broadcast, draw
from irbridge.gaussian.noise import Noise, image_seed
from irbridge.images.arrays import to_image, to_tensor
from irbridge.images.io import read_image
from irbridge.images.resize import centre_crop
from irbridge.own_files import write_result

PHOTOGRAPH = "data/samples/test/201080.jpg"
RAIN = 2  # the draw of the rain, which is a heavy one
SIDE = 112  # of a state, in pixels
REDUCTION = 2  # of the photograph, so that more of it is seen
SHARES = 0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0  # of T, at which states are shown
POINTS = 501  # of a curve
COLOURS = 128  # of the palette, which halves the file and takes nothing that the eye misses


def ends() -> tuple[Tensor, Tensor]:
    """The photograph that the pictures show, clean and in rain, (1, 3, H, W) in [-1, 1]."""
    photograph = centre_crop(read_image(find(PHOTOGRAPH)), REDUCTION * SIDE)
    blocks = photograph.reshape(SIDE, REDUCTION, SIDE, REDUCTION, 3)
    clean = blocks.mean(axis=(1, 3))
    rain = Rain()(clean, np.random.default_rng([0, RAIN]))
    return to_tensor(clean)[None], to_tensor(rain)[None]


def states(bridge: Bridge, seed: int = 0) -> list[Tensor]:
    """States of the photograph at ``SHARES`` of T, all with the same noise, (1, 3, H, W) each."""
    x0, y = ends()
    noise = Noise([image_seed(seed, "bridge")])(x0) * bridge.scale(x0, y)
    return [draw(bridge.marginal(share * bridge.T), x0, y, noise) for share in SHARES]


def shown(state: Tensor, law: Marginal) -> tuple[np.ndarray, float]:
    """A state as an image, and what it is divided by so that its noise fits into [-1, 1]."""
    divisor = torch.clamp(2 * law.noise, min=1)
    return to_image((state / broadcast(divisor, state))[0]), float(divisor)


def constants(bridge: Bridge) -> str:
    """The class of a bridge with its numbers and words, such as "I2SB, T 1000, beta_max 0.3"."""
    told = [type(bridge).__name__]
    for entry in fields(bridge):
        value = getattr(bridge, entry.name)
        if entry.init and isinstance(value, (bool, int, float, str)):
            told.append(f"{entry.name} {value:.5g}" if _number(value) else f"{entry.name} {value}")
    return ", ".join(told)


def _number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def draw_bridge(bridge: Bridge, name: str, path: Path, seed: int = 0) -> None:
    """Write the picture of a bridge.

    Args:
        bridge: on its prior, where its law is made of the prior's.
        name: of its config.
        path: of the PNG.
        seed: of the noise in the states.

    Raises:
        UserError: the file is there and irbridge did not write it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 4.2), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    rows = figure.add_gridspec(2, len(SHARES), height_ratios=(2.1, 1))
    figure.suptitle(f"bridge={name}: {constants(bridge)}", fontsize=10)
    _draw_law(figure.add_subplot(rows[0, :]), bridge)
    for column, state in enumerate(states(bridge, seed)):
        time = SHARES[column] * bridge.T
        image, divisor = shown(state, bridge.marginal(time))
        axis = figure.add_subplot(rows[1, column])
        axis.imshow(image, interpolation="nearest")
        axis.set_axis_off()
        scale = f"÷ {divisor:.3g}" if divisor > 1 else ""
        axis.set_title(f"t = {time:.4g}\n{scale}", fontsize=8)
    canvas.draw()
    write_result(path, lambda aside: _save(np.asarray(canvas.buffer_rgba()), aside))


def _draw_law(axis, bridge: Bridge) -> None:
    """The curves: a and b against the left axis, c against the right one."""
    times = torch.linspace(0, 1, POINTS, dtype=torch.float64) * bridge.T
    law = bridge.marginal(times)
    other = axis.twinx()
    noise = "c |x0 - y|, std of the noise" if bridge.modulated else "c, std of the noise"
    lines = [
        *axis.plot(times, law.clean, "C0", label="a, share of x0"),
        *axis.plot(times, law.degraded, "C1", label="b, share of y"),
        *other.plot(times, law.noise, "C2--", label=noise),
    ]
    axis.set(xlim=(0, bridge.T), ylim=(-0.03, 1.03), xlabel="t, from clean to degraded")
    axis.set_ylabel("a, b")
    other.set_ylim(bottom=-0.03 * float(law.noise.max()))
    other.set_ylabel("c", color="C2")
    other.tick_params(axis="y", colors="C2")
    axis.grid(alpha=0.3)
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 0.99), "ncols": 3}
    axis.legend(handles=lines, frameon=False, fontsize=9, **above)


def _save(pixels: np.ndarray, path: Path) -> None:
    """A small PNG."""
    from PIL import Image

    picture = Image.fromarray(pixels).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, format="PNG", optimize=True)
