"""Training crops, validation pairs and test pairs from a run's config."""

import math
import re
from pathlib import Path
from typing import NamedTuple

from irbridge.assets import find
from irbridge.data.crops import CropStream, MixedStream, Room
from irbridge.data.degradations.mixture import OneOf
from irbridge.data.image_source import ImageSource
from irbridge.data.layouts import BenchmarkPairs, Faces, halves
from irbridge.data.pair import Degradation
from irbridge.data.pairs import PackedPairs, PairedFolders, SyntheticPairs, in_turns
from irbridge.data.people import check_people
from irbridge.data.public_sets import known
from irbridge.data.selection import (
    Chain,
    OfTask,
    Renamed,
    Subset,
    distinct,
    photographs_of,
    split_scenes,
)
from irbridge.errors import UserError
from irbridge.experiments.instantiate import instantiate
from irbridge.training.growth import phases_of

# CelebA-HQ in one folder: of 30,000 faces the 20,000 that the IRBridge paper names are trained on
HOLD_OUT = 3
REMEDY = (
    "give data.root=DIR of the unpacked archive, and data.test_root=DIR where the test half is"
    " elsewhere"
)
SAMPLES = "data/samples/"  # stand in for faces that are not there
# What a source of data.mix may say: where its images are, and how they are drawn.
PLACES = "pairs", "clean", "degraded", "benchmark", "root"
KEYS = *PLACES, "name", "weight", "degradation", "lighter", "same", "turn", "jpeg", "scene"


class Source(NamedTuple):
    """One source of training images: pairs, or clean images with a degradation."""

    name: str
    images: object  # len, names, scenes and [i]: a Pair or a clean image
    degradation: Degradation | None
    weight: float = 1.0
    lighter: float = 0.0
    same: float = 0.0
    turn: bool = False
    jpeg: float = 0.0
    scene: str | None = None

    def scenes(self) -> list[str]:
        """The scene of each image.

        It is what the first group of ``scene`` finds in the image's name, else what the images say.
        """
        if not self.scene:
            return self.images.scenes
        matches = [re.match(self.scene, name) for name in self.images.names]
        found = [match[1] if match else None for match in matches]
        if all(scene is None for scene in found):
            raise UserError(
                f"data.mix: scene={self.scene} matches no name of {self.name}, such as"
                f" {self.images.names[0]}; give a pattern that matches from the name's start."
            )
        pairs = zip(found, self.images.scenes, strict=True)
        return [own if scene is None else scene for scene, own in pairs]


def training_stream(config: dict, crop: int) -> CropStream | MixedStream:
    """The endless stream of training crops of a run.

    Scenes that are held back for validation are not in it. With ``data.cache_latents`` an image has
    one crop.

    Args:
        config: of the run.
        crop: pixels a side.

    Raises:
        UserError: The images are not there, do not pair, or are too few.
    """
    config = with_people(config)
    fixed, room, seed = bool(config["data"].get("cache_latents")), Room(), config["seed"]
    sources, found = training_sources(config), []
    split = _split(sources, held_back_every(config["data"]))
    for index, (source, (kept, _)) in enumerate(zip(sources, split, strict=True)):
        if not kept:
            raise UserError(
                f"{source.name} has {len(source.images)} images, too few to hold some back for"
                " validation; give more, or data.validation=null."
            )
        # two sources must not draw the same numbers
        own = seed if len(sources) == 1 else (seed * 1000 + index + 1)
        found.append(
            CropStream(
                Subset(source.images, kept),
                crop,
                own,
                source.degradation,
                fixed,
                source.lighter,
                source.same,
                source.turn,
                source.jpeg,
                room,
            )
        )
    if len(found) == 1:
        return found[0]
    weights = None if config["data"].get("each_step") else [source.weight for source in sources]
    return MixedStream(found, weights, seed)


def check_round(config: dict) -> None:
    """UserError where the crops of a step cannot be shared equally among the tasks that take turns.

    These are the choices of a mixture with ``each_step``, or the sources of ``data.mix`` with
    ``data.each_step``. No image is looked at.

    Args:
        config: of the run.
    """
    data = config["data"]
    mix, turns = data.get("mix"), data.get("each_step")
    if turns and mix is None:
        raise UserError(
            "data.each_step=true shares each step among the sources of data.mix; give data.mix, or"
            " leave it out."
        )
    own = config["task"].get("degradation")
    described = [own]
    if mix is not None:
        clean = [entry for entry in _entries(data) if not {"pairs", "degraded", "root"} & {*entry}]
        described = [entry.get("degradation") or own for entry in clean]
    made = [instantiate(part, of="degradation") for part in described if part]
    several = math.lcm(*(part.round for part in made if isinstance(part, OneOf)))
    several *= len(mix) if turns else 1
    for phase in phases_of(config["trainer"]):
        batch, key = phase.batch_size, f"{phase.key}.batch_size"
        if batch % several:
            raise UserError(
                f"{key}={batch} cannot be shared equally by {several} tasks; give a multiple of"
                f" {several}, such as {key}={-(-batch // several) * several}."
            )


def validation_pairs(config: dict, size: int | None):
    """The pairs that choices are made on.

    They are the scenes of the training images that no training crop shows, degraded with randomness
    of (seed, name).

    Args:
        config: of the run.
        size: of the centre crop in pixels; None: whole images.

    Raises:
        UserError: None are held back.
    """
    config = with_people(config)
    every, folder = held_back_every(config["data"]), validation_folder(config["data"])
    if folder and config["task"].get("degradation"):
        degradation = instantiate(config["task"]["degradation"], of="degradation")
        images = ImageSource(folder, _resize(config["data"]))
        return in_turns(SyntheticPairs(images, degradation, config["seed"], size))
    if every is None:
        raise UserError(
            "This training holds back no images for validation; give data.validation=16, which"
            " holds back every 16th scene (a public set as a source of data.mix), and train anew."
        )
    found, labels, sources = [], [], training_sources(config, size)
    for source, (_, held) in zip(sources, _split(sources, every), strict=True):
        images = Subset(source.images, held)
        if source.degradation is not None:
            images = in_turns(SyntheticPairs(images, source.degradation, config["seed"], size))
        if config["data"].get("each_step"):
            images = OfTask(images, source.name)
        found.append(images)
        labels += [source.name] * len(held)
    pairs = found[0] if len(found) == 1 else Chain(found)
    names = distinct(pairs.names, labels)  # scores are kept by name
    return pairs if names == pairs.names else Renamed(pairs, names)


def _split(sources: list[Source], every: int | None) -> list[tuple[list[int], list[int]]]:
    """Of each source the indices to train on and those held back for validation.

    Held back are its own scenes' share, see :func:`~irbridge.data.selection.split_scenes`, and all
    scenes with a file that another source holds back.
    """
    scenes = [source.scenes() for source in sources]
    held = [{names[i] for i in split_scenes(names, every)[1]} for names in scenes]
    if every and len(sources) > 1:
        files = [source.images.files for source in sources]
        held = _held_together(scenes, files, held)
    parts = []
    for names, own in zip(scenes, held, strict=True):
        kept = [i for i, scene in enumerate(names) if scene not in own]
        parts.append((kept, [i for i, scene in enumerate(names) if scene in own]))
    return parts


def _held_together(scenes: list, files: list, held: list[set[str]]) -> list[set[str]]:
    """The scenes that each source holds back, with those that show a file held back of any source.

    Args:
        scenes: of each source, the scene of each image.
        files: of each source, the files of each image.
        held: of each source, the scenes that it holds back for itself.
    """
    shown = [
        list(zip(names, images, strict=True)) for names, images in zip(scenes, files, strict=True)
    ]
    before = None
    while held != before:  # what is held back of one source may reach a third through a second
        before, gone = held, set()
        for images, own in zip(shown, held, strict=True):
            gone |= {file for scene, of in images if scene in own for file in of}
        held = [
            own | {scene for scene, of in images if not gone.isdisjoint(of)}
            for images, own in zip(shown, held, strict=True)
        ]
    return held


def test_pairs(config: dict, size: int | None) -> SyntheticPairs | PairedFolders | Subset:
    """The held-back pairs of a task, scaled to ``data.resize``; a public set's have its ``title``.

    Args:
        config: of the run.
        size: of the centre crop in pixels; None: whole images.
    """
    config = with_people(config)
    data, degradation, resize = (
        config["data"],
        config["task"].get("degradation"),
        _resize(config["data"]),
    )
    if _public(data):
        return _half(config, "test", size, resize)
    if degradation:
        pairs = SyntheticPairs(
            find(_place(data, "test")),
            instantiate(degradation, of="degradation"),
            config["seed"],
            size,
            resize,
        )
        return in_turns(pairs)
    if data.get("test_clean") is not None:
        return _folders(data, "test_", size, resize)
    pairs = _folders(data, "", size, resize)
    pairs.keep(lambda index: index % data.get("hold_out", 10) == 0)
    return pairs


def training_sources(config: dict, size: int | None = None) -> list[Source]:
    """Where a run's training images come from, validation images included.

    That is ``data.mix``, or else the one source that the other keys of ``data`` name.

    Args:
        config: of the run.
        size: pairs are centre-cropped to it; None: whole.
    """
    config = with_people(config)
    data = config["data"]
    if data.get("mix") is not None:
        return _mix(config, size)
    degradation, resize = config["task"].get("degradation"), _resize(data)
    if _public(data):
        source = _half(config, "train", size, resize)
        if isinstance(source, Faces) and not source.masks:  # other holes at every draw
            return [Source(source.title, source.source, source.degradation)]
        return [Source(source.title, source, None)]
    if degradation:
        return [
            Source(
                _place(data, "train"),
                photographs_of([find(_place(data, "train"))], resize=resize),
                instantiate(degradation, of="degradation"),
            )
        ]
    pairs = _folders(data, "", size, resize)
    if data.get("test_clean") is None:
        pairs.keep(lambda index: index % data.get("hold_out", 10) != 0)
    return [Source(str(data["degraded"]), pairs, None)]


def _mix(config: dict, size: int | None) -> list[Source]:
    """The sources of ``data.mix``, each a dict of :data:`KEYS`."""
    return [_source(config, entry, size) for entry in _entries(config["data"])]


def _entries(data: dict) -> list[dict]:
    """The checked entries of ``data.mix``, each with its weight; UserError for a wrong one."""
    entries = data["mix"]
    if (
        not entries
        or not isinstance(entries, list)
        or not all(isinstance(entry, dict) for entry in entries)
    ):
        raise UserError(
            "data.mix must be a list of sources, such as data.mix=[{pairs: rain.tar, weight: 0.5},"
            " {clean: photos, weight: 0.5}]."
        )
    if data.get("each_step"):
        if weighted := [k for k, entry in enumerate(entries) if "weight" in entry]:
            raise UserError(
                f"data.mix[{weighted[0]}].weight does not go with data.each_step=true, which gives"
                " all sources the same; leave it out."
            )
        entries = [entry | {"weight": 1 / len(entries)} for entry in entries]
    for k, entry in enumerate(entries):
        _check_entry(k, entry)
    total = math.fsum(entry["weight"] for entry in entries)
    if abs(total - 1) > 1e-3:
        raise UserError(
            f"The weights of data.mix add up to {total:g}; make them shares that add up to 1."
        )
    return entries


def _check_entry(k: int, entry: dict) -> None:
    """UserError unless one source of a mix says what it must, and nothing else."""
    where = f"data.mix[{k}]"
    if unknown := sorted(entry.keys() - set(KEYS)):
        raise UserError(
            f"{where}.{unknown[0]} is unknown; a source of data.mix has {', '.join(KEYS)}."
        )
    given = [key for key in PLACES if entry.get(key)]
    if given not in (["pairs"], ["clean"], ["clean", "degraded"], ["benchmark", "root"]):
        raise UserError(
            f"{where} names {' and '.join(given) or 'no images'}; give pairs=, clean=, clean= with"
            " degraded=, or benchmark= with root=."
        )
    _check_words(where, entry, given)
    if type(entry.get("turn", False)) is not bool:
        raise UserError(f"{where}.turn={entry['turn']!r} must be true or false.")
    if entry.get("degradation") is not None:
        _check_degradation(where, entry["degradation"], given)
    _check_shares(where, entry)
    if entry.get("scene") is not None:
        _check_scene(where, entry["scene"])


def _check_words(where: str, entry: dict, given: list[str]) -> None:
    for key in (*given, "name"):
        values = [entry.get(key) or ""]
        if given == [key] == ["clean"] and isinstance(entry[key], list):
            values = entry[key]
        if not all(isinstance(value, str) for value in values):
            raise UserError(
                f"{where}.{key}={entry[key]} must be text"
                + (", or a list of folders and tars." if key == "clean" else ".")
            )


def _check_degradation(where: str, degradation, given: list[str]) -> None:
    if given != ["clean"]:
        raise UserError(
            f"{where}.degradation is for clean= alone, but this source has"
            f" {' and '.join(given)}; leave it out."
        )
    if not isinstance(degradation, dict) or not isinstance(degradation.get("_target_"), str):
        raise UserError(
            f"{where}.degradation={degradation} must name a class, such as {{_target_:"
            " irbridge.data.degradations.Rain}."
        )


def _check_shares(where: str, entry: dict) -> None:
    weight = entry.get("weight")
    if type(weight) not in (int, float) or not 0 < weight <= 1:
        raise UserError(f"{where}.weight={weight} must be a number above 0, at most 1.")
    shares = [entry.get(key, 0) for key in ("lighter", "same")]
    if any(type(s) not in (int, float) or not 0 <= s <= 1 for s in shares) or sum(shares) > 1:
        raise UserError(
            f"{where} has lighter={shares[0]} and same={shares[1]}; these are shares that add up to"
            " at most 1."
        )
    jpeg = entry.get("jpeg", 0)
    if type(jpeg) not in (int, float) or not 0 <= jpeg <= 1:
        raise UserError(f"{where}.jpeg={jpeg} must be a share from 0 to 1.")


def _check_scene(where: str, scene) -> None:
    try:
        fits = re.compile(scene).groups > 0
    except (re.error, TypeError):
        fits = False
    if not fits:
        raise UserError(
            f"{where}.scene={scene} is no regular expression with a group; give one whose first"
            " group is the scene's name, such as (room_[0-9]+)_."
        )


def _source(config: dict, entry: dict, size: int | None) -> Source:
    data, resize = config["data"], _resize(config["data"])
    own, degradation = entry.get("degradation") or config["task"].get("degradation"), None
    if entry.get("pairs"):
        images, name = PackedPairs(find(entry["pairs"]), size, resize), Path(entry["pairs"]).name
        images.check()
    elif entry.get("degraded"):
        images, name = (
            PairedFolders(find(entry["clean"]), find(entry["degraded"]), size, resize),
            Path(entry["degraded"]).name,
        )
        images.check()
    elif entry.get("benchmark"):
        images = BenchmarkPairs(
            entry["benchmark"], find(entry["root"]), "train", size, resize, remedy=REMEDY
        )
        images.check()
        name = images.title
    else:
        paths = entry["clean"] if isinstance(entry["clean"], list) else [entry["clean"]]
        exclude = data.get("exclude")
        images = photographs_of(
            [find(path) for path in paths],
            find(exclude) if exclude else None,
            resize,
            "data.mix: clean",
        )
        if not own:
            raise UserError(
                f"data.mix: {paths[0]} holds clean images, and task={config['task']['name']} does"
                " not degrade them; give the source a degradation, or pairs."
            )
        name, degradation = (
            ", ".join(Path(path).name for path in paths),
            instantiate(own, of="degradation"),
        )
    if config["task"].get("masked") and degradation is None:
        raise UserError(
            f"data.mix: {name} holds pairs, but task={config['task']['name']} must know its holes;"
            " give clean images."
        )
    if config["task"].get("masked") and entry.get("jpeg"):
        raise UserError(
            f"data.mix: {name} has jpeg={entry['jpeg']}, but task={config['task']['name']} makes"
            " holes, which no JPEG keeps; leave it out."
        )
    return Source(
        entry.get("name") or name,
        images,
        degradation,
        entry["weight"],
        entry.get("lighter", 0.0),
        entry.get("same", 0.0),
        entry.get("turn", False),
        entry.get("jpeg", 0.0),
        entry.get("scene"),
    )


def with_people(config: dict) -> dict:
    """The config of a run, once the people of its images are known to be apart (``data.people``).

    With ``data.stand_in`` the embedded photographs stand in for a set that is not there.

    Raises:
        UserError: a part of the set is not there, or a person is in two of them.
    """
    data = config["data"]
    if not data.get("people"):
        return config
    parts = {part: data[part] for part in ("train", "validation", "test")}
    places = {part: find(place) for part, place in parts.items() if isinstance(place, str)}
    if data.get("stand_in") and not places["train"].exists():
        stand_in = {"train": SAMPLES + "train", "test": SAMPLES + "test", "validation": 16}
        return config | {"data": data | stand_in | {"people": False}}
    check_people(places)
    return config | {"data": data | {"people": False}}


def held_back_every(data: dict) -> int | None:
    """Every so many-th scene is held back; None: none.

    None are of a public set, as the scores are of its test half, nor where a folder is held back.
    """
    every = data.get("validation")
    return None if isinstance(every, str) or (_public(data) and not data.get("mix")) else every


def validation_folder(data: dict) -> Path | None:
    """Where the validation images are, if they are apart from the training images."""
    place = data.get("validation")
    return find(place) if isinstance(place, str) else None


def _resize(data: dict) -> int | None:
    resize = data.get("resize")
    if resize is not None and (type(resize) is not int or resize < 1):
        raise UserError(
            f"data.resize={resize!r} must be a whole number of pixels, such as 512, or null."
        )
    return resize


def _public(data: dict) -> bool:
    """Whether the config asks for a public set and says where it is."""
    name, root = data.get("benchmark"), data.get("root")
    if root and not name:
        raise UserError(
            f"data.root={root} does not say which set it holds; give data.benchmark=NAME as well,"
            " one of those that `python scripts/prepare_data.py list` prints."
        )
    if data.get("masks") and not (name and known(name).clean_only):
        raise UserError(
            f"data.masks={data['masks']} makes holes in data.benchmark=celebahq alone; leave it"
            " out, or give that set."
        )
    if not name:
        return False
    title, layout = known(name).title, known(name).layout
    if not root and not data.get("stand_in"):
        raise UserError(
            f"{title} is not there: give data.root=DIR, the folder that its archive unpacks to"
            f" ({layout}); `python scripts/prepare_data.py list` says more of it."
        )
    return bool(root)


def _half(config: dict, half: str, size: int | None, resize: int | None) -> BenchmarkPairs | Faces:
    """The training or the test half of the config's public set, all headers checked."""
    data = config["data"]
    train = data["benchmark"], find(str(data["root"]))
    test = data.get("test_benchmark") or train[0], find(str(data.get("test_root") or data["root"]))
    name, root = train if half == "train" else test
    # each folder is then one half, by any name
    alone = train[0] != test[0] or train[1].resolve() != test[1].resolve()
    where = {"size": size, "resize": resize, "alone": alone, "remedy": REMEDY}
    if known(name).clean_only:
        degradation = config["task"].get("degradation")
        if not degradation:
            raise UserError(
                f"{known(name).title} has clean images alone; choose a task that degrades,"
                " task=inpaint."
            )
        whole = not alone and root.is_dir() and "train" not in halves(name, root)
        pairs = Faces(
            name,
            root,
            instantiate(degradation, of="degradation"),
            data.get("masks"),
            None if whole else half,
            config["seed"],
            **where,
        )
        if whole:
            pairs.keep(lambda index: (index % HOLD_OUT == 0) == (half == "test"))
    else:
        pairs = BenchmarkPairs(name, root, half, **where)
    pairs.check()
    return pairs


def _folders(data: dict, prefix: str, size: int | None, resize: int | None) -> PairedFolders:
    clean, degraded = _place(data, f"{prefix}clean"), _place(data, f"{prefix}degraded")
    pairs = PairedFolders(clean, degraded, size, resize)
    pairs.check()
    return pairs


def _place(data: dict, key: str) -> str:
    """The folder or tar that a key of ``data`` names; UserError where it names none."""
    if not data.get(key):
        raise UserError(f"data.{key} is not set; give the folder, data.{key}=DIR.")
    return data[key]
