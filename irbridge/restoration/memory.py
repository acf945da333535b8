"""How much memory a restoration takes, and so into which tiles an image is cut."""

import ctypes
import hashlib
import json
import math
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from irbridge.adapters.base import bare
from irbridge.errors import UserError
from irbridge.images.tiles import Tiles, even
from irbridge.models.precision import frozen_parts, remembered
from irbridge.models.restorer import Restorer
from irbridge.models.zero_shot import ZeroShot

GB = 10**9
BASE = 0.92 * GB  # of a process with its libraries, on the CPU; on CUDA a tenth of it
# bytes a pixel of the image itself: states and estimates of a call, the photographs before and
# after it
PIXEL = 130
SPARE = 1.5  # times what tensors take: what the allocator and kernels take besides
# the same of bfloat16 on a CPU that lacks AVX512, where convolutions first write out all neighbours
# of every pixel, which no tensor shows
SPARE_WITHOUT_AVX512 = 4.0
SHARE = 0.6  # of the free memory, at most
LIGHT = 0.1 * GB  # of weights; what heavier ones take more is added to the default budget
COMMON = 2048**2  # pixels; up to here 3 GB are enough
# pixels a side of the smallest tile: smaller ones cost more in overlaps than they save
SMALLEST = 256
WIDEST = 2048  # pixels of a side at which a solver's share of memory is measured, below
STEPS = 20  # of a solver, when it holds all that it does
# GB; few, so that tiles, and with them the bytes, seldom depend on what else runs
DEFAULTS = 3, 2, 1


class Footprint(NamedTuple):
    """Bytes of tensors for each pixel of a tile."""

    call: float  # the most that a network call takes at once
    look: float  # the most that the adapter's pass over y takes
    kept: float  # what is kept of that for all calls
    vae: float = 0.0  # the most that a VAE takes to encode or decode
    image: float = 0.0  # what a zero-shot solver and its operator take, of the whole image


class _Live(TorchDispatchMode):
    """Counts the bytes of all tensors made within it that are still there."""

    def __init__(self):
        super().__init__()
        self.now, self.most, self.seen = 0, 0, weakref.WeakKeyDictionary()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # to skip the compiler, torch would first import it, which takes seconds

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage) -> None:
        if storage not in self.seen:
            size = storage.nbytes()
            self.seen[storage] = True
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._drop, size)

    def _drop(self, size: int) -> None:
        self.now -= size


@torch.inference_mode()
def measured(model: Restorer, calls: int) -> Footprint:
    """The footprint of a model that calls its network ``calls`` times.

    Two small sizes are run, and what grows with the pixels counts.
    """
    cost = Footprint(*_growth(lambda side: _bytes(model, side, calls), 4 * model.stride))
    if not isinstance(model, ZeroShot):
        return cost
    image, at_once = _held(model)
    return cost._replace(call=cost.call * at_once, image=image)


def _growth(measure: Callable[[int], tuple[int, ...]], side: int) -> list[float]:
    """What grows with the pixels, for each of them, by images of a side and of twice that."""
    small, large = measure(side), measure(2 * side)
    return [(b - a) / (3 * side**2) for a, b in zip(small, large, strict=True)]


def _bytes(model: Restorer, side: int, calls: int) -> tuple[int, int, int, int]:
    """The fields of a :class:`Footprint`, of an image of ``side`` x ``side`` pixels in all."""
    y = torch.zeros(1, 3 + model.masked, side, side, device=next(model.parameters()).device)
    if isinstance(model, ZeroShot):
        return _zero_shot_bytes(model, side)
    if not hasattr(model, "adapter"):
        return _most(lambda: next(iter(model.trajectory(y, nfe=1)))), 0, 0, 0
    if not calls:
        with model.networks():
            return _most(lambda: model.adapter.estimate(model.seen(y))), 0, 0, 0
    state, kept = model.backbone.encode(y[:, :3]), []
    tau = torch.tensor(model.backbone.prior.lowest, dtype=torch.float64)

    def look() -> None:
        with model.networks():
            if model.adapter.silent:
                _ = model.adapter.estimate(model.seen(y))
                kept.append(bare(model.seen(y)))
            else:
                kept.append(model.adapter.condition(model.seen(y), state))

    with _Live() as live:
        look()
        held, most = live.now, live.most
    vae = 0
    if model.backbone.vae is not None:
        encoding = _most(lambda: model.backbone.encode(y[:, :3]))
        vae = max(encoding, _most(lambda: model.backbone.decode(state)))
    call = _most(lambda: model.denoise(state, tau, kept[0]))
    # what the trunk has freed, once for the whole image, serves only a part of the calls
    if model.adapter.silent:
        call = int(1.3 * call)
    return call, most - held, held, vae


@torch.inference_mode(False)
def _zero_shot_bytes(model: ZeroShot, side: int) -> tuple[int, int, int, int]:
    """The fields of a :class:`Footprint` of a frozen network alone.

    Where the solver asks for gradients a call is measured with them.
    """
    backbone, graded = model.backbone, model.solver.backward
    y = torch.zeros(1, 3, side, side, device=next(model.parameters()).device)
    tau = torch.tensor(backbone.prior.lowest, dtype=torch.float64)
    with torch.no_grad():
        state = backbone.encode(y).clone()

    def call() -> None:
        with torch.set_grad_enabled(graded), model.networks():
            z = state.detach().requires_grad_(graded)
            x0 = backbone.denoise(z, tau)
            if graded:
                _ = torch.autograd.grad(x0.sum(), z)

    vae = 0
    if backbone.vae is not None:
        with torch.no_grad():
            encoding = _most(lambda: backbone.encode(y))
            vae = max(encoding, _most(lambda: backbone.decode(state)))
    return _most(call), 0, 0, vae


def _held(model: ZeroShot) -> tuple[float, int]:
    """What solver and operator take besides the network.

    Returns:
        Bytes for each pixel of the restored image, and the most images in one network call.
    """
    side, batches = 4 * model.stride, [1]
    while side < WIDEST:
        with suppress(UserError):  # a kernel may be larger than so small an image
            (grown,) = _growth(lambda side: (_most(lambda: _solve(model, side, batches)),), side)
            return max(0.0, grown), max(batches)
        side *= 2
    return 0.0, 1


@torch.inference_mode(False)
@torch.no_grad()
def _solve(model: ZeroShot, side: int, batches: list[int]) -> None:
    """Some steps of a solver by a network that takes nothing.

    Args:
        model: whose solver it is.
        side: of the restored image.
        batches: the numbers of images in its network calls are added here.
    """
    small = side * side // model.sides(side, side)[0]
    image = torch.zeros(1, 3, small, small, device=next(model.parameters()).device)
    operator = model.operator_of(image, torch.ones_like(image[:, :1], dtype=torch.bool))

    def denoise(z: Tensor, tau: Tensor) -> Tensor:
        batches.append(len(z))
        # a solver that adapts the network asks for gradients to what it added
        added = [p.flatten()[0] for p in model.backbone.network.parameters() if p.requires_grad]
        return z / 2 + 0 * sum(added)

    problem = replace(model.problem(operator.read(image), operator, [0]), denoise=denoise)
    for _ in islice(model.solver.run(problem), STEPS):
        pass


def _most(run: Callable) -> int:
    with _Live() as live:
        _ = run()
    return live.most


def footprint(model: Restorer, **options) -> Footprint:
    """:func:`measured`, or what it gave before of a model of these shapes.

    Args:
        model: that restores.
        options: fields of its sampler.
    """
    calls = model.calls(**options)
    shapes = [(name, list(value.shape)) for name, value in model.trainable().state_dict().items()]
    about = json.dumps(
        [type(model.trainable()).__name__, shapes, frozen_parts(model)], sort_keys=True
    )
    key = {
        "footprint": hashlib.sha256(about.encode()).hexdigest(),
        "precision": model.precision,
        "calls": bool(calls),
        "silent": getattr(model.trainable(), "silent", False),
        "device": next(model.parameters()).device.type,
    }
    if isinstance(model, ZeroShot):
        key |= {
            "solver": [model.solver.name, asdict(model.solver)],
            "operator": [model.operator.name, getattr(model.operator, "settings", {})],
        }
    return Footprint(**remembered(key, lambda: measured(model, calls)._asdict()))


def keep_pages() -> None:
    """Let this process keep the memory that it frees, until it ends.

    glibc takes tensors of tens of MB from the system anew at every layer, page by page, which takes
    as long as the layers of a large image.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            # M_TRIM_THRESHOLD, M_MMAP_MAX of malloc.h
            mallopt, (trim, mmaps) = ctypes.CDLL(None).mallopt, (-1, -4)
            mallopt(mmaps, 0)
            mallopt(trim, 2**31 - 1)


def free(device: torch.device) -> int:
    """Bytes that this process could still take or has taken: of the GPU, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    import psutil

    return psutil.virtual_memory().available + psutil.Process().memory_info().rss


class Plan:
    """How a restoration cuts images.

    Args:
        model: that restores.
        cost: what it takes for each pixel.
        tile: the side of a tile where the user gives it; None: by memory.
        memory: GB that the whole process may take (on CUDA: of the GPU); None: a share of what is
            free, in steps of 1 GB, and 3 GB at most for images of up to 2048 x 2048 pixels and
            light weights.
        overlap: see :class:`~irbridge.images.tiles.Tiles`. Where the model's reach is known, tiles
            and overlap are at least so large that tiles give what the whole image gives.
        batch: see there.
    """

    def __init__(
        self,
        model: Restorer,
        cost: Footprint,
        tile: int | None,
        memory: float | None,
        overlap: int,
        batch: int,
    ):
        cut = Tiles(tile, overlap, batch).reaching(model.reach)  # a mistake shows here
        self.model, self.cost, self.tile, self.memory = model, cost, cut.size, memory
        self.overlap, self.still, self.batch = cut.overlap, cut.still, batch
        self.device = next(model.parameters()).device
        weights = [*model.parameters(), *model.buffers()]
        for anchor in getattr(getattr(model, "adapter", None), "pretrained", ()):
            weights += anchor.weights
        self.weights = sum(v.numel() * v.element_size() for v in weights)
        self.base = BASE * (1 if self.device.type == "cpu" else 0.1) + self.weights
        self.pixel = PIXEL + cost.image
        lacking = "AVX512" not in torch.backends.cpu.get_cpu_capability()
        unfolds = self.device.type == "cpu" and model.precision == "bf16" and lacking
        self.spare = SPARE_WITHOUT_AVX512 if unfolds else SPARE

    def budget(self, pixels: int) -> float:
        """Bytes for an image of so many pixels."""
        if self.memory is not None:
            return self.memory * GB
        room = SHARE * free(self.device) / GB
        cap = next((step for step in DEFAULTS if step <= room), DEFAULTS[-1])
        return cap * GB + self.pixel * max(0, pixels - COMMON) + max(0, self.weights - LIGHT)

    def tiles(self, height: int, width: int) -> Tiles:
        """The tiles of an image of these sides, in pixels.

        Raises:
            UserError: ``memory`` is too little for the smallest tile.
        """
        stride, given = self.model.stride, (height, width)
        height, width = height + -height % stride, width + -width % stride
        pixels = height * width
        left = self.budget(pixels) - self.base - self.pixel * pixels
        if self.tile is not None:
            size = self.tile
            keep = self.cost.kept * pixels + self._working(size**2, True) <= left
        else:
            size, keep = self._cut(height, width, left, given)
        return Tiles(size, self.overlap, self.batch, still=self.still, keep=keep)

    def _cut(
        self, height: int, width: int, left: float, given: tuple[int, int]
    ) -> tuple[tuple[int, int] | None, bool]:
        """The size of the tiles, and whether what is known of them is kept.

        Args:
            height: of the image, divisible by the stride.
            width: of the image, divisible by the stride.
            left: bytes for what is not of the whole image.
            given: height and width as the user knows them.
        """
        pixels, smallest = height * width, self._smallest(height, width)
        for keep in (True, False):
            room = left - self.cost.kept * pixels * keep
            most = room / self._working(1, keep)
            if most >= min(pixels, 4 * smallest) and (
                size := even(height, width, self.model.stride, self.overlap, most)
            ):
                return (None if size == (height, width) else size), keep
        most = left / self._working(1)
        if most < smallest and self.memory is not None:
            needed = (self.base + self.pixel * pixels + self._working(smallest)) / GB
            needed = math.ceil(needed * 10) / 10
            raise UserError(
                f"memory={self.memory:g} is too little for an image of {given[1]} x {given[0]}"
                f" pixels, which takes {needed:g} GB; give that, or a smaller image."
            )
        size = even(height, width, self.model.stride, self.overlap, max(most, smallest))
        return size or self._side(height, width), False

    def _working(self, pixels: float, keep: bool = False) -> float:
        """Bytes of a call on tiles of so many pixels.

        What is not ``keep``, kept of them for all calls, is there at their own call.
        """
        at_once = self.batch if self.device.type != "cpu" else 1
        most = max(self.cost.call + self.cost.kept * (not keep), self.cost.look + self.cost.kept)
        # a VAE is given one tile at a time
        return self.spare * max(most * at_once, self.cost.vae) * pixels

    def _side(self, height: int, width: int) -> tuple[int, int]:
        side = max(SMALLEST, 2 * self.overlap + 2 * self.model.stride)
        return min(height, side), min(width, side)

    def _smallest(self, height: int, width: int) -> int:
        """Pixels of the smallest tile."""
        return math.prod(self._side(height, width))
