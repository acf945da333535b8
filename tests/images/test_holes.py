"""Filling holes: where they are told, what stays bit for bit, and what is refused."""

import json

import numpy as np
import pytest
from conftest import save_images
from PIL import Image

from irbridge.errors import UserError
from irbridge.images.holes import holes_of, mask_file, read_mask
from irbridge.images.io import read_image
from irbridge.images.photo import Photo, read_photo
from irbridge.images.png import png16

HOLE = np.zeros((40, 48), bool)
HOLE[10:22, 8:30] = True


def write(path, values, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8), mode).save(path)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory, backbone_folder):
    """A tiny model that fills holes. Its weights are random, so that it changes what it fills."""
    import torch

    from irbridge.experiments.build import build_model, describe, save_pretrained
    from irbridge.experiments.config import composed

    small = [
        f"backbone.pretrained={backbone_folder}",
        "adapter.width=4",
        "adapter.encoder=[1,1]",
        "adapter.decoder=[1,1]",
    ]
    config = composed("train", "task=inpaint", "name=x", *small)
    model, folder = build_model(config), tmp_path_factory.mktemp("inpaint")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.adapter.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    save_pretrained(model, folder, describe(config, model))
    return folder


@pytest.fixture
def restore(command, tmp_path, run):
    def go(*words, status=0):
        words = [f"run={run}", "suffix=filled", "device=cpu", *map(str, words)]
        code, out, err = command("restore", *words)
        assert code == status, err
        return err if status else out

    return go


@pytest.mark.parametrize("steps", [0, 2])
def test_a_mask_file_says_what_is_filled_and_nothing_else_changes(restore, tmp_path, steps):
    photo = save_images(tmp_path / "p", 1) / "0.png"
    write(tmp_path / "m.png", HOLE * 255)
    restore(f"input={photo}", f"mask={tmp_path / 'm.png'}", f"steps={steps}")
    before, after = (np.asarray(Image.open(p)) for p in (photo, photo.with_name("0-filled.png")))
    assert np.array_equal(before[~HOLE], after[~HOLE])
    assert (before[HOLE] != after[HOLE]).any(axis=1).mean() > 0.9


def test_what_lies_in_a_hole_is_not_seen(restore, tmp_path):
    """A hole looks as in training, whether something is painted over or was already cut out."""
    photo = save_images(tmp_path / "p", 1) / "0.png"
    pixels, found = np.asarray(Image.open(photo)), []
    write(tmp_path / "m.png", HOLE * 255)
    for value in (None, 0, 255):
        changed = pixels if value is None else np.where(HOLE[..., None], np.uint8(value), pixels)
        write(photo, changed)
        restore(f"input={photo}", f"mask={tmp_path / 'm.png'}", f"output={tmp_path / 'out.png'}")
        found.append(np.asarray(Image.open(tmp_path / "out.png")))
        (tmp_path / "out.png").unlink()
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])


def test_known_pixels_of_16_bits_and_of_grey_stay_bit_for_bit(restore, tmp_path):
    rng = np.random.default_rng(0)
    deep, grey = (
        rng.integers(0, 65536, (40, 48, 3), dtype=np.uint16),
        rng.integers(0, 256, (40, 48), dtype=np.uint8),
    )
    (tmp_path / "deep.png").write_bytes(png16(deep))
    write(tmp_path / "grey.png", grey)
    write(tmp_path / "m.png", HOLE * 255)
    for name in ("deep", "grey"):
        restore(
            f"input={tmp_path / name}.png",
            f"mask={tmp_path / 'm.png'}",
            f"output={tmp_path / name}-out.png",
        )
    found = np.round(read_photo(tmp_path / "deep-out.png").pixels * 65535).astype(np.uint16)
    assert np.array_equal(found[~HOLE], deep[~HOLE]) and not np.array_equal(found[HOLE], deep[HOLE])
    found = np.asarray(Image.open(tmp_path / "grey-out.png"))
    assert found.ndim == 2 and np.array_equal(found[~HOLE], grey[~HOLE])


def test_what_is_transparent_is_filled_and_no_longer_transparent(restore, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    write(tmp_path / "a.png", np.dstack([image, np.where(HOLE, 0, 255).astype(np.uint8)]))
    restore(f"input={tmp_path / 'a.png'}")
    found = Image.open(tmp_path / "a-filled.png")
    assert found.mode == "RGB" and np.array_equal(np.asarray(found)[~HOLE], image[~HOLE])


def test_a_mask_leaves_the_photographs_own_transparency_alone(restore, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (40, 48, 4), dtype=np.uint8)
    write(tmp_path / "a.png", image)
    write(tmp_path / "m.png", HOLE * 255)
    restore(f"input={tmp_path / 'a.png'}", f"mask={tmp_path / 'm.png'}")
    found = np.asarray(Image.open(tmp_path / "a-filled.png"))
    assert np.array_equal(found[..., 3], image[..., 3]) and np.array_equal(
        found[~HOLE], image[~HOLE]
    )


@pytest.mark.parametrize(
    "mode, ending",
    [
        ("CMYK", "tif"),
        ("CMYK", "jpg"),
        ("YCbCr", "jpg"),  # its TIFFs Pillow 12.3 cannot read, nor those that it wrote
        ("P", "png"),
        ("1", "png"),
        ("F", "tif"),
        ("RGB", "bmp"),
    ],
)
def test_a_mask_of_any_mode_is_white_in_the_hole(tmp_path, mode, ending):
    white = Image.fromarray(HOLE.astype(np.uint8) * 255)
    (white if mode in "1F" else white.convert("RGB")).convert(mode).save(tmp_path / f"m.{ending}")
    wrong = read_mask(tmp_path / f"m.{ending}") != HOLE
    assert wrong.sum() <= (40 if ending == "jpg" else 0)  # a JPEG blurs the edges


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_mask_is_turned_as_its_photograph_is(tmp_path, turn, ending):
    exif = Image.Exif()
    exif[0x0112] = turn
    for name, values in (("m", HOLE * np.uint8(255)), ("p", np.dstack([HOLE * np.uint8(255)] * 3))):
        Image.fromarray(values).save(tmp_path / f"{name}.{ending}", exif=exif)
    colour, grey = (read_photo(tmp_path / f"{name}.{ending}").pixels[..., 0] == 1 for name in "pm")
    assert np.array_equal(read_mask(tmp_path / f"m.{ending}"), colour) and np.array_equal(
        grey, colour
    )


def test_a_mask_with_values_that_are_no_numbers_is_refused(tmp_path):
    values = HOLE.astype(np.float32)
    values[0, 0] = np.nan
    Image.fromarray(values).save(tmp_path / "m.tif")
    with pytest.raises(UserError, match="m.tif has values that are no numbers; give mask=FILE"):
        read_mask(tmp_path / "m.tif")


def test_a_folder_of_masks_goes_by_name_and_a_changed_mask_is_noticed(restore, tmp_path):
    photos = save_images(tmp_path / "p", 2)
    for k in range(2):
        write(tmp_path / "masks" / f"{k}.png", np.roll(HOLE, 5 * k, axis=0) * 255)
    out = restore(f"input={photos}", f"mask={tmp_path / 'masks'}", f"output={tmp_path / 'out'}")
    assert "Restored 2 of 2" in out
    for k in range(2):
        before, after = (
            read_image(photos / f"{k}.png"),
            read_image(tmp_path / f"out/{k}-filled.png"),
        )
        assert np.array_equal(
            (before != after).any(axis=2) & ~np.roll(HOLE, 5 * k, axis=0), np.zeros_like(HOLE)
        )
    assert "2 were finished before" in restore(
        f"input={photos}", f"mask={tmp_path / 'masks'}", f"output={tmp_path / 'out'}"
    )
    write(tmp_path / "masks/1.png", HOLE * 255)
    assert "1 was finished before" in restore(
        f"input={photos}", f"mask={tmp_path / 'masks'}", f"output={tmp_path / 'out'}"
    )
    records = json.loads((tmp_path / "out/restored-filled.json").read_text())["files"]
    assert (
        len({r["mask_sha256"] for r in records}) == 1
        and len({r["input_sha256"] for r in records}) == 2
    )
    (tmp_path / "masks/1.png").unlink()
    assert "no mask for 1.png; name it 1.png" in restore(
        f"input={photos}", f"mask={tmp_path / 'masks'}", status=2
    )


def test_photographs_without_masks_are_refused_before_the_training(
    command, small, tmp_path, images
):
    words = ["task=inpaint", "name=x", f"evaluate.real={images}", "evaluate.metrics=[niqe]", *small]
    status, _, err = command("train", *words)
    assert (
        status == 2
        and "evaluate.real=DIR holds photographs without masks" in err
        and not (tmp_path / "runs").exists()
    )


def test_without_its_mask_a_photograph_is_filled_anew(restore, tmp_path):
    """It is filled where it is transparent, not where an earlier command's mask was white."""
    seen, clear = read_image(save_images(tmp_path / "s", 1) / "0.png"), np.roll(HOLE, 12, axis=0)
    write(tmp_path / "p/0.png", np.dstack([seen * 255, 255 * ~clear]), "RGBA")
    write(tmp_path / "m.png", HOLE * 255)
    assert "finished" not in restore(f"input={tmp_path / 'p/0.png'}", f"mask={tmp_path / 'm.png'}")
    assert "finished" not in restore(f"input={tmp_path / 'p/0.png'}")
    before, after = (
        np.asarray(Image.open(tmp_path / f"p/{name}.png"))[..., :3] for name in ("0", "0-filled")
    )
    assert (
        np.array_equal(before[~clear], after[~clear])
        and (before[clear] != after[clear]).any(axis=1).mean() > 0.9
    )
    assert "1 was finished before" in restore(f"input={tmp_path / 'p/0.png'}")


@pytest.mark.parametrize(
    "values, told",
    [
        (HOLE[:30] * 255, "mask .* is 48 x 30 pixels, but 0.png is 48 x 40"),
        (HOLE * 0, "has one value everywhere"),
        (HOLE * 0 + 255, "has one value everywhere"),
    ],
)
def test_masks_that_do_not_fit_are_refused_in_a_sentence(restore, tmp_path, values, told):
    photo = save_images(tmp_path / "p", 1) / "0.png"
    write(tmp_path / "m.png", values)
    import re

    err = restore(f"input={photo}", f"mask={tmp_path / 'm.png'}", status=1)
    assert (
        re.search(told, err)
        and "Traceback" not in err
        and not (tmp_path / "p/0-filled.png").exists()
    )


def test_a_photograph_that_does_not_say_what_to_fill(restore, tmp_path):
    photo = save_images(tmp_path / "p", 1) / "0.png"
    assert "does not say what to fill; give mask=FILE" in restore(f"input={photo}", status=1)


def test_a_mask_for_another_task_is_refused(command, tmp_path):
    photo = save_images(tmp_path / "p", 1) / "0.png"
    write(tmp_path / "m.png", HOLE * 255)
    status, _, err = command(
        "restore", "task=dehaze", f"input={photo}", f"mask={tmp_path / 'm.png'}"
    )
    assert status == 2 and "is for task=inpaint" in err
    status, _, err = command("restore", "task=dehaze", f"input={photo}", "mask=nowhere.png")
    assert status == 2 and "mask=nowhere.png does not exist" in err


def test_a_mask_for_an_inpainting_that_knows_none_is_refused(command, tmp_path):
    photo = save_images(tmp_path / "p", 1) / "0.png"
    write(tmp_path / "m.png", HOLE * 255)
    (tmp_path / "config.json").write_text(json.dumps({"task": {"name": "inpaint"}, "adapter": {}}))
    words = [f"run={tmp_path}", f"input={photo}", f"mask={tmp_path / 'm.png'}"]
    status, _, err = command("restore", *words)
    assert (
        status == 2 and "trained without masks; leave it out" in err and "task=inpaint" not in err
    )


def test_a_mask_is_never_overwritten(restore, tmp_path):
    photo = save_images(tmp_path / "p", 1) / "0.png"
    write(tmp_path / "p/0-filled.png", HOLE * 255)
    err = restore(f"input={photo}", f"mask={tmp_path / 'p/0-filled.png'}", status=2)
    assert "never overwritten" in err


@pytest.mark.parametrize(
    "values, mode",
    [
        (HOLE * 255, "L"),
        (HOLE * 1, "L"),
        (HOLE * 200 + 20, "L"),
        (np.dstack([HOLE * 255] * 3), "RGB"),
        (np.dstack([HOLE * 255, HOLE * 255, HOLE * 255, HOLE * 0 + 255]), "RGBA"),
        (np.dstack([HOLE * 0, HOLE * 0, HOLE * 0, HOLE * 255]), "RGBA"),
    ],
)
def test_masks_of_any_kind(tmp_path, values, mode):
    assert np.array_equal(read_mask(write(tmp_path / "m.png", values, mode)), HOLE)


def test_masks_of_one_bit_and_of_16(tmp_path):
    Image.fromarray(HOLE).save(tmp_path / "one.png")
    Image.fromarray((HOLE * 60000).astype(np.uint16)).save(tmp_path / "deep.png")
    assert all(np.array_equal(read_mask(tmp_path / name), HOLE) for name in ("one.png", "deep.png"))
    (tmp_path / "text.png").write_text("x")
    with pytest.raises(UserError, match=r"text.png is not a readable image"):
        read_mask(tmp_path / "text.png")


def test_which_mask_of_a_folder(tmp_path):
    for name in ("a.png", "a.jpg", "b.png"):
        write(tmp_path / name, HOLE * 255)
    assert mask_file(tmp_path / "x" / "b.jpg", str(tmp_path)).name == "b.png"
    with pytest.raises(UserError, match="several masks for a.tif"):
        mask_file(tmp_path / "a.tif", str(tmp_path))


@pytest.mark.parametrize("alpha", [None, HOLE * 100 + 128, HOLE * 100, HOLE * 0, HOLE * 0 + 255])
def test_a_photograph_that_is_transparent_nowhere_or_everywhere_says_nothing(tmp_path, alpha):
    photo = Photo(
        np.zeros((40, 48, 3), np.float32), alpha if alpha is None else alpha.astype(np.uint8)
    )
    with pytest.raises(
        UserError,
        match="^a.png does not say what to fill; give mask=FILE, .* half transparent .*elsewhere.$",
    ):
        holes_of(photo, tmp_path / "a.png", None)
    with pytest.raises(UserError, match="^a.png does not say what to fill; draw them.$"):
        holes_of(photo, tmp_path / "a.png", None, "draw them")


def test_half_transparent_counts_from_the_middle(tmp_path):
    alpha = np.where(HOLE, 100, 255).astype(np.uint8)
    photo = Photo(np.zeros((40, 48, 3), np.float32), alpha)
    assert np.array_equal(holes_of(photo, tmp_path / "a.png", None), HOLE)
