"""Training crops and test pairs from a run's config."""

from irbridge.benchmarks import BenchmarkPairs, Faces, halves
from irbridge.build import find
from irbridge.config import instantiate
from irbridge.data import CropStream, ImageSource, PairedFolders, SyntheticPairs
from irbridge.errors import UserError
from irbridge.public_sets import known

HOLD_OUT = 3   # CelebA-HQ in one folder: of 30,000 faces the 20,000 that the IRBridge paper names are trained on
REMEDY = "give data.root=DIR of the unpacked archive, and data.test_root=DIR where the test half is elsewhere"


def training_stream(config: dict, crop: int) -> CropStream:
    """The endless stream of training crops of a task: of the public set ``data.benchmark`` below ``data.root``, of
    clean images that the task degrades, or of pairs of folders; all :func:`~irbridge.data.scaled` to ``data.resize``.
    With ``data.cache_latents`` an image has one crop. UserError if the images are not there or do not pair."""
    data, degradation = config["data"], config["task"].get("degradation")
    resize, fixed = _resize(data), bool(data.get("cache_latents"))
    if _public(data):
        source = _half(config, "train", None, resize)
        if isinstance(source, Faces) and not source.masks:   # other holes at every draw
            return CropStream(source.source, crop, config["seed"], source.degradation, fixed)
        return CropStream(source, crop, config["seed"], fixed=fixed)
    if degradation:
        images = ImageSource(find(data["train"]), resize)
        return CropStream(images, crop, config["seed"], instantiate(degradation), fixed)
    pairs = _folders(data, "", None, resize)
    if data["test_clean"] is None:
        pairs.keep(lambda index: index % data["hold_out"] != 0)
    return CropStream(pairs, crop, config["seed"], fixed=fixed)


def test_pairs(config: dict, size: int | None) -> SyntheticPairs | PairedFolders:
    """The held-back pairs of a task, :func:`~irbridge.data.scaled` to ``data.resize`` and centre-cropped to ``size``
    (None: whole). Those of a public set have its ``title``."""
    data, degradation, resize = config["data"], config["task"].get("degradation"), _resize(config["data"])
    if _public(data):
        return _half(config, "test", size, resize)
    if degradation:
        return SyntheticPairs(find(data["test"]), instantiate(degradation), config["seed"], size, resize)
    if data["test_clean"] is not None:
        return _folders(data, "test_", size, resize)
    pairs = _folders(data, "", size, resize)
    pairs.keep(lambda index: index % data["hold_out"] == 0)
    return pairs


def _resize(data: dict) -> int | None:
    resize = data.get("resize")
    if resize is not None and (type(resize) is not int or resize < 1):
        raise UserError(f"data.resize={resize!r} must be a whole number of pixels, such as 512, or null.")
    return resize


def _public(data: dict) -> bool:
    """Whether the config asks for a public set and says where it is."""
    name, root = data.get("benchmark"), data.get("root")
    if root and not name:
        raise UserError(f"data.root={root} does not say which set it holds; give data.benchmark=NAME as well, one of "
                        "those that `python scripts/prepare_data.py list` prints.")
    if not name:
        return False
    title, layout = known(name).title, known(name).layout
    if not root and not data.get("stand_in"):
        raise UserError(f"{title} is not there: give data.root=DIR, the folder that its archive unpacks to ({layout}); "
                        "`python scripts/prepare_data.py list` says more of it.")
    return bool(root)


def _half(config: dict, half: str, size: int | None, resize: int | None) -> BenchmarkPairs | Faces:
    """The training or the test half of the config's public set, all headers checked."""
    data = config["data"]
    train = data["benchmark"], find(str(data["root"]))
    test = data.get("test_benchmark") or train[0], find(str(data.get("test_root") or data["root"]))
    name, root = train if half == "train" else test
    alone = train[0] != test[0] or train[1].resolve() != test[1].resolve()   # each folder is then one half, by any name
    where = {"size": size, "resize": resize, "alone": alone, "remedy": REMEDY}
    if known(name).clean_only:
        degradation = config["task"].get("degradation")
        if not degradation:
            raise UserError(f"{known(name).title} has clean images alone; choose a task that degrades, task=inpaint.")
        whole = not alone and root.is_dir() and "train" not in halves(name, root)
        pairs = Faces(name, root, instantiate(degradation), data.get("masks"), None if whole else half, config["seed"],
                      **where)
        if whole:
            pairs.keep(lambda index: (index % HOLD_OUT == 0) == (half == "test"))
    else:
        pairs = BenchmarkPairs(name, root, half, **where)
    pairs.check()
    return pairs


def _folders(data: dict, prefix: str, size: int | None, resize: int | None) -> PairedFolders:
    for key in (clean := prefix + "clean", degraded := prefix + "degraded"):
        if not data.get(key):
            raise UserError(f"data.{key} is not set; give the folder, data.{key}=DIR.")
    pairs = PairedFolders(data[clean], data[degraded], size, resize)
    pairs.check()
    return pairs
