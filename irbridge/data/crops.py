"""Endless training crops, a pure function of seed and draw, and batches of them."""

import math
import os
import signal
from collections.abc import Iterator
from copy import copy
from functools import partial
from itertools import count

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from irbridge.data.degradations.mixture import OneOf
from irbridge.data.image_source import CACHE_SHARE
from irbridge.data.jpeg import as_jpeg
from irbridge.data.pair import Degradation, Pair, degraded, with_mask
from irbridge.errors import UserError
from irbridge.gaussian.noise import name_rng
from irbridge.images.arrays import to_bytes, to_tensor


class CropStream(Dataset):
    """Endless training crops; ``stream[draw]`` is a pure function of (seed, draw).

    The draw picks the image, the position, a horizontal flip and the degradation. Images smaller
    than the crop are padded by reflection.

    Args:
        source: clean images, degraded after the crop (unchanged without a degradation); or aligned
            pairs.
        crop: side of a crop.
        seed: of all draws.
        degradation: ``degradation(image, rng)`` of clean images.
        fixed: the draw picks the image and the flip alone; the crop is the central one and the
            degradation depends on (seed, name), so that an image has two versions in all, whose
            encodings can be kept.
        lighter: share of the draws whose degradation is mixed back towards the clean image, by a
            uniform amount.
        same: share of the draws that stay clean, so that a clean image passes unharmed.
        turn: a random quarter turn as well, where up and down mean nothing to the task.
        jpeg: share of the draws whose degraded image is then saved as a JPEG file; not where a
            degradation makes holes.
        room: for decoded images, which the streams of a mix share.

    Raises:
        UserError: a ``fixed`` stream is to take tasks in turn, and one of them has no image.
    """

    def __init__(
        self,
        source,
        crop: int,
        seed: int,
        degradation: Degradation | None = None,
        fixed: bool = False,
        lighter: float = 0.0,
        same: float = 0.0,
        turn: bool = False,
        jpeg: float = 0.0,
        room: "Room | None" = None,
    ):
        self.source = source
        self.crop = crop
        self.seed = seed
        self.degradation = degradation
        self.fixed = fixed
        self.lighter = lighter
        self.same = same
        self.turn = turn
        self.jpeg = jpeg
        self.room = room or Room()
        self.round = degradation.round if isinstance(degradation, OneOf) else 1
        """Of how many consecutive draws one has each task."""
        self.by_turn = self._by_turn() if fixed and self.round > 1 else None
        self.kept: dict[int, np.ndarray] = {}
        """Decoded images in this memory, by index: uint8 (1 or 2, H, W, 3)."""
        self.moved: dict[int, Tensor] = {}
        """Decoded images on the device, by index: uint8 (1 or 2, 3, H, W)."""

    def __getitem__(self, draw: int) -> dict[str, Tensor]:
        """A crop: ``clean`` and ``degraded``, (3, crop, crop) in [-1, 1], and ``draw``.

        ``degraded`` has the mask as a fourth channel where the degradation makes holes.
        """
        rng = np.random.default_rng([self.seed, draw])
        i = self._image(draw, rng)
        images = self._crop(self._padded(self._read(i)), rng).astype(np.float32) / 255
        flip = rng.random() < 0.5
        if self.fixed:  # the degradation must not see the flip
            own = name_rng(self.seed, self.source.names[i])
            clean, seen = self._pair(images, own, self.degradation)
            if flip:
                clean, seen = clean[:, ::-1], seen[:, ::-1]
        else:
            images = images[:, :, ::-1] if flip else images
            if self.turn:
                images = np.rot90(images, rng.integers(4), (1, 2))
            clean, seen = self._pair(images, rng, self._degradation(draw))
        return {"clean": to_tensor(clean), "degraded": to_tensor(seen), "draw": draw}

    def sized(self, crop: int) -> "CropStream":
        """The same stream with crops of another size; the two share the decoded images."""
        other = copy(self)
        other.crop = crop
        return other

    def _by_turn(self) -> list[list[int]]:
        """The indices of the images that have each task by their names, in the tasks' order."""
        kinds = [self.degradation.drawn(name_rng(self.seed, name)) for name in self.source.names]
        found = [[i for i, kind in enumerate(kinds) if kind == turn] for turn in range(self.round)]
        if empty := [turn for turn, images in enumerate(found) if not images]:
            raise UserError(
                f"data.cache_latents keeps one version of each image, and none of these"
                f" {len(kinds)} has degradation {empty[0]} of task.degradation.choices; give more"
                " images, or leave data.cache_latents out."
            )
        return found

    def _image(self, draw: int, rng: np.random.Generator) -> int:
        """The index of a draw's image."""
        if self.by_turn is None:
            return int(rng.integers(len(self.source)))
        images = self.by_turn[draw % self.round]
        return images[int(rng.integers(len(images)))]

    def _degradation(self, draw: int) -> Degradation | None:
        """The degradation of a draw; of a mixture that takes turns, with the one that is due."""
        if self.round == 1:
            return self.degradation
        return partial(self.degradation.apply_in_turn, turn=draw)

    def on_device(self, draw: int, device: torch.device, room: "Room") -> dict[str, Tensor]:
        """``self[draw]`` of a stream without a degradation, made on a device.

        Args:
            draw: which one.
            device: where it is cropped and flipped.
            room: while there is some, images are kept on the device, as uint8.
        """
        rng = np.random.default_rng([self.seed, draw])
        images = self._moved(int(rng.integers(len(self.source))), device, room)
        cropped = self._crop(self._padded(images.permute(0, 2, 3, 1)), rng)
        images = cropped.float().permute(0, 3, 1, 2) / 255 * 2 - 1
        images = images.flip(-1) if rng.random() < 0.5 else images
        images = images.rot90(int(rng.integers(4)), (2, 3)) if self.turn else images
        share, same = self._share(rng)
        clean = images[0]
        worse = clean if same else images[-1]
        if share is not None:
            worse = clean + share * (worse - clean)
        return {"clean": clean, "degraded": worse, "draw": draw}

    def _moved(self, i: int, device: torch.device, room: "Room") -> Tensor:
        """The image or pair on the device, uint8 (1 or 2, 3, H, W).

        What is kept there is not kept here as well.
        """
        if i in self.moved:
            return self.moved[i]
        images = self.kept[i] if i in self.kept else self._decoded(i)
        there = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)
        if room.take(there.nbytes):
            self.moved[i] = there
            self.kept.pop(i, None)
        else:
            self._keep(i, images)
        return there

    def _padded(self, images):
        """(N, H, W, 3), an array or a tensor, padded to the crop where it is smaller."""
        rows, columns = (self._reflected(side) for side in images.shape[1:3])
        if rows is not None:
            images = images[:, rows]
        return images if columns is None else images[:, :, columns]

    def _reflected(self, side: int) -> np.ndarray | None:
        """Which pixels of a side a crop takes where it is longer; None: it is not."""
        missing = self.crop - side
        if missing <= 0:
            return None
        margins = missing // 2, missing - missing // 2
        return np.pad(np.arange(side), margins, mode="reflect")

    def _crop(self, images, rng: np.random.Generator):
        """A random crop of (N, H, W, 3), the central one of a ``fixed`` stream."""
        spare = [side - self.crop for side in images.shape[1:3]]
        top, left = (s // 2 if self.fixed else int(rng.integers(s + 1)) for s in spare)
        return images[:, top : top + self.crop, left : left + self.crop]

    def _share(self, rng: np.random.Generator) -> tuple[np.float32 | None, bool]:
        """How much of the degradation a draw keeps, None for all; and whether it stays clean."""
        if not (self.same or self.lighter):
            return None, False
        chance = rng.random()
        if chance < self.same:
            return None, True
        return (np.float32(rng.random()) if chance < self.same + self.lighter else None), False

    def _pair(
        self, images: np.ndarray, rng: np.random.Generator, degradation: Degradation | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The clean image and what is seen of it.

        Args:
            images: float32 (1 or 2, H, W, 3) in [0, 1], the clean image first.
            rng: draws the degradation, and how much of it is kept.
            degradation: of a clean image alone.

        Returns:
            (H, W, 3), and (H, W, 3 or 4) with the mask last.
        """
        clean, mask = images[0], None
        if degradation is None:
            worse = images[-1]
        else:
            worse, mask = degraded(clean, degradation, rng)
        share, same = self._share(rng)
        if same:
            worse, mask = clean, None if mask is None else np.zeros_like(mask)
        elif share is not None:
            worse = clean + share * (worse - clean)
        if self.jpeg and rng.random() < self.jpeg:  # the last to happen to a photograph
            worse = as_jpeg(worse, rng)
        return clean, with_mask(worse, mask)

    def _read(self, i: int) -> np.ndarray:
        """The clean image or the pair, uint8 (1 or 2, H, W, 3), kept while there is room."""
        return self.kept[i] if i in self.kept else self._keep(i, self._decoded(i))

    def _decoded(self, i: int) -> np.ndarray:
        item = self.source[i]
        return to_bytes(np.stack(item[1:3] if isinstance(item, Pair) else [item]))

    def _keep(self, i: int, images: np.ndarray) -> np.ndarray:
        """The images themselves, kept where there is room."""
        if i not in self.kept and self.room.take(images.nbytes):
            self.kept[i] = images
        return images

    def preload(self) -> None:
        """Decode every image that there is room for.

        This is for before workers start, which then share one copy.
        """
        for i in range(len(self.source)):
            self._read(i)
            if i not in self.kept:
                return


class MixedStream(Dataset):
    """Several streams as one: a draw takes one of them, as a function of (seed, draw).

    Args:
        streams: of crops of one size.
        weights: the odds of each; None: they take turns, so that consecutive draws have equally
            many of each.
        seed: of the choice.
    """

    def __init__(self, streams: list[CropStream], weights: list[float] | None, seed: int):
        self.streams, self.seed, self.crop = streams, seed, streams[0].crop
        self.shares = None if weights is None else np.cumsum(weights) / np.sum(weights)

    @property
    def round(self) -> int:
        """See :attr:`CropStream.round`."""
        turns = len(self.streams) if self.shares is None else 1
        return turns * math.lcm(*(stream.round for stream in self.streams))

    def __getitem__(self, draw: int) -> dict[str, Tensor]:
        """See :meth:`CropStream.__getitem__`."""
        stream, own = self._chosen(draw)
        return stream[own] | {"draw": draw}

    def on_device(self, draw: int, device: torch.device, room: "Room") -> dict[str, Tensor]:
        """See :meth:`CropStream.on_device`."""
        stream, own = self._chosen(draw)
        return stream.on_device(own, device, room) | {"draw": draw}

    def sized(self, crop: int) -> "MixedStream":
        """See :meth:`CropStream.sized`."""
        other = copy(self)
        other.crop, other.streams = crop, [stream.sized(crop) for stream in self.streams]
        return other

    def _chosen(self, draw: int) -> tuple[CropStream, int]:
        """The stream of a draw, and which of the stream's own draws it is."""
        if self.shares is None:  # each stream's own draws follow each other, for its own turns
            own, turn = divmod(draw, len(self.streams))
            return self.streams[turn], own
        # other numbers than the chosen stream draws
        chance = np.random.default_rng([self.seed, draw, 1]).random()
        found = np.searchsorted(self.shares, chance, side="right")
        return self.streams[int(found.clip(max=len(self.streams) - 1))], draw

    def preload(self) -> None:
        """See :meth:`CropStream.preload`."""
        for stream in self.streams:
            stream.preload()


class Room:
    """Memory for decoded images. What a worker of a loader takes, each other may take as well.

    Args:
        limit: in bytes; None: a share of what is free when it is first asked for, of a GPU where
            ``device`` is one, else of the machine, which the processes of a command share.
        device: where the images are.
    """

    def __init__(self, limit: int | None = None, device: torch.device | None = None):
        self.limit, self.taken, self.device = limit, 0, device

    def take(self, size: int) -> bool:
        """Whether so many bytes are left; they are then taken."""
        if self.limit is None:
            self.limit = int(CACHE_SHARE * self._free())
        worker = get_worker_info()
        size *= worker.num_workers if worker else 1
        if self.taken + size > self.limit:
            return False
        self.taken += size
        return True

    def _free(self) -> float:
        if self.device is not None and self.device.type == "cuda":
            return torch.cuda.mem_get_info(self.device)[0]
        # as launchers say it
        processes = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("WORLD_SIZE") or 1
        return psutil.virtual_memory().available / int(processes)


def stream_loader(
    stream: CropStream | MixedStream,
    start_draw: int,
    batch_size: int,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
) -> DataLoader:
    """Endless batches of consecutive draws, the same for any number of workers.

    Args:
        stream: of crops.
        start_draw: the first draw.
        batch_size: draws in a batch.
        workers: processes that make them; 0: this one does.
        rank: of this process among ``world`` that train together. Each takes every world-th batch,
            so that together they see what one would.
        world: the number of these processes.
    """
    # Its own generator, because a loader otherwise draws from torch's global one.
    return DataLoader(
        stream,
        batch_sampler=_Batches(start_draw, batch_size, rank, world),
        num_workers=workers,
        generator=torch.Generator(),
        prefetch_factor=4 if workers else None,
        worker_init_fn=_outlast,
    )


def _outlast(_worker: int) -> None:
    """Let a worker live half a minute after SIGTERM.

    A cluster sends it to every process at once, and a training wants its crops to finish the step.
    """
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(30))


def device_batches(
    stream: CropStream | MixedStream,
    start_draw: int,
    batch_size: int,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
) -> Iterator[dict[str, Tensor]]:
    """The batches of :func:`stream_loader`, made on a device.

    Raises:
        UserError: a degradation or a JPEG is in the way, which the processor makes.
    """
    parts = getattr(stream, "streams", [stream])
    if any(part.degradation is not None or part.jpeg for part in parts):
        raise UserError(
            "data.on_device=true is for pairs and for clean images alone, but this task degrades"
            " its images, or saves them as JPEG, on the processor; leave it out, and give"
            " trainer.workers=8."
        )
    room = Room(device=device)
    for draws in _Batches(start_draw, batch_size, rank, world):
        yield default_collate([stream.on_device(draw, device, room) for draw in draws])


class _Batches:
    """Endless ranges of consecutive draws, those of one process of several."""

    def __init__(self, start_draw: int, size: int, rank: int, world: int):
        self.start, self.size, self.stride = start_draw + rank * size, size, size * world

    def __iter__(self) -> Iterator[range]:
        return (range(first, first + self.size) for first in count(self.start, self.stride))
