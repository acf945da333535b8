"""Images are read whatever their mode, and written whole or not at all."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from irbridge.errors import UserError
from irbridge.images.arrays import to_image, to_tensor
from irbridge.images.io import read_image, write_image


def pixels(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_reads_every_mode_as_rgb(tmp_path):
    rgb = pixels(9, 7)
    grey = Image.fromarray(rgb[..., 0])
    deep = np.arange(63, dtype=np.uint16).reshape(9, 7) * 1000
    alpha = Image.fromarray(np.dstack([rgb, np.full((9, 7), 0, np.uint8)]))
    palette = Image.fromarray(rgb).quantize(256)
    cases = {
        "rgb.png": (Image.fromarray(rgb), rgb / 255),
        "grey.png": (grey, np.dstack([rgb[..., 0]] * 3) / 255),
        "deep.png": (Image.fromarray(deep), np.dstack([deep] * 3) / 65535),
        "alpha.png": (alpha, np.ones((9, 7, 3))),
        "bit.png": (grey.convert("1"), None),
        "palette.png": (palette, np.asarray(palette.convert("RGB")) / 255),
        "cmyk.tif": (Image.new("CMYK", (7, 9), (0, 255, 255, 0)), np.full((9, 7, 3), [1, 0, 0])),
    }
    for name, (image, expected) in cases.items():
        image.save(tmp_path / name)
        out = read_image(tmp_path / name)
        assert (
            out.shape == (9, 7, 3) and out.dtype == np.float32 and 0 <= out.min() <= out.max() <= 1
        )
        if expected is not None:
            assert np.abs(out - expected).max() < 1e-6, name


def test_turns_images_upright(tmp_path):
    rgb = pixels(4, 6)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned: display needs a quarter turn clockwise
    Image.fromarray(rgb).save(tmp_path / "turned.png", exif=exif)
    assert np.allclose(read_image(tmp_path / "turned.png"), np.rot90(rgb, -1) / 255)


def bomb(png):
    """The PNG with a header that claims 60000 x 60000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def test_refuses_what_is_not_an_image(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(pixels(64, 64)).save(stream, "png")
    whole = stream.getvalue()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    files = {
        "text.png": b"not a picture",
        "empty.png": b"",
        "cut.png": whole[: len(whole) // 2],
        "flipped.png": bytes(flipped),
        "bomb.png": bomb(whole),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.png").mkdir()
    for name in [*files, "folder.png", "missing.png"]:
        with pytest.raises(UserError, match=name) as error:
            read_image(tmp_path / name)
        assert str(error.value).endswith(".") and "\n" not in str(error.value)
    with pytest.raises(UserError, match="more pixels"):
        read_image(tmp_path / "bomb.png")


def test_writes_rounded_png_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "out.png"
    write_image(path, np.array([[[0.1, 0.4999 / 255, 1.2], [-1, 0.5, 1]]]))
    assert np.asarray(Image.open(path)).tolist() == [[[26, 0, 255], [0, 128, 255]]]
    assert [p.name for p in path.parent.iterdir()] == ["out.png"]
    (tmp_path / "taken.png").mkdir()
    for bad in (tmp_path / "out.jpg", path / "below.png", tmp_path / "taken.png"):
        with pytest.raises(UserError, match=bad.name):
            write_image(bad, np.zeros((2, 2, 3)))
    assert not list(tmp_path.glob(".*"))


def test_tensor_conversion_is_inverse_and_clips():
    image = pixels(5, 4) / np.float32(255)
    tensor = to_tensor(image)
    assert (
        tensor.shape == (3, 5, 4)
        and tensor.min() >= -1
        and tensor[1, 4, 2] == 2 * image[4, 2, 1] - 1
    )
    assert np.allclose(to_image(tensor), image, atol=1e-6) and to_image(tensor * 9).max() == 1
