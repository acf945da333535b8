"""What a file's values mean is read from its tags, alike by every reader, or refused."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from conftest import RNG
from PIL import Image

from irbridge.errors import UserError
from irbridge.images.holes import read_mask
from irbridge.images.io import list_images, read_image, write_image
from irbridge.images.photo import Photo, read_photo, write_photo
from irbridge.images.png import colour_chunks
from irbridge.images.samples import read_header

RAMP = np.tile(np.linspace(0, 1, 64), (48, 1))


def packed(path, values, bits, photometric=1, deflate=False):
    """A TIFF of any number of bits, (H, W) or (H, W, 3) from 0 to 1, written bit by bit."""
    channels = 3 if values.ndim == 3 else 1
    data = b""
    for row in np.round(values.reshape(len(values), -1) * (2**bits - 1)).astype(int):
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        data += bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
    data = zlib.compress(data) if deflate else data
    data += b"\0" * (len(data) % 2)
    height, width = values.shape[:2]
    offset = 8 + len(data)
    after = offset + 2 + 12 * 10 + 4
    tags = [
        (256, width),
        (257, height),
        (258, bits if channels == 1 else after),
        (259, 8 if deflate else 1),
        (262, photometric if channels == 1 else 2),
        (273, 8),
        (277, channels),
        (278, height),
        (279, len(data)),
        (284, 1),
    ]
    entries = b""
    for tag, value in tags:
        count = channels if tag == 258 else 1
        kind = 3 if tag in (258, 259, 262, 277, 284) else 4
        inline = struct.pack("<HH", value, 0) if kind == 3 and count == 1 else None
        entries += struct.pack("<HHI", tag, kind, count) + (inline or struct.pack("<I", value))
    content = b"II*\0" + struct.pack("<I", offset) + data
    content += struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(content + struct.pack("<HHH", bits, bits, bits))


@pytest.mark.parametrize("deflate", [False, True])
@pytest.mark.parametrize("photometric", [0, 1, 2])
@pytest.mark.parametrize("bits", [9, 10, 12, 14, 15])
def test_odd_numbers_of_bits_go_from_black_to_white(bits, photometric, deflate, tmp_path):
    ramp = np.dstack([RAMP, RAMP[:, ::-1], RAMP]) if photometric == 2 else RAMP
    packed(tmp_path / "a.tif", ramp, bits, photometric, deflate)
    photo = read_photo(tmp_path / "a.tif")
    wanted = 1 - ramp if photometric == 0 else ramp
    wanted = wanted if photometric == 2 else np.dstack([wanted] * 3)
    assert photo.bits == 16 and photo.grey == (photometric != 2)
    np.testing.assert_allclose(photo.pixels, wanted, atol=2 / 2**bits)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), photo.pixels)


@pytest.mark.parametrize(
    "kind, scale", [("f2", 1), ("f4", 1), ("f8", 1), ("u1", 255), ("u2", 65535), ("u4", 2**32 - 1)]
)
@pytest.mark.parametrize("colour", [False, True])
def test_floats_and_unsigned_integers_of_any_size(kind, scale, colour, tmp_path):
    ramp = np.dstack([RAMP, RAMP[:, ::-1], RAMP]) if colour else RAMP
    values = (ramp * scale).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb" if colour else "minisblack")
    photo = read_photo(tmp_path / "a.tif")
    np.testing.assert_allclose(
        photo.pixels, ramp if colour else np.dstack([ramp] * 3), atol=1 / 200
    )
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), photo.pixels)
    assert read_header(tmp_path / "a.tif")[0] == (64, 48)


@pytest.mark.parametrize(
    "values, said",
    [
        (np.round(RAMP * 65535).astype("i4"), "signed integers"),
        (np.round(RAMP * 32767).astype("i2"), "signed integers"),
        (np.round(RAMP * 127).astype("i1"), "signed integers"),
        ((RAMP * 255).astype("f4"), "floats from 0 to 255"),
        ((RAMP * 2 - 1).astype("f4"), "floats from -1 to 1"),
        (np.where(RAMP > 0.5, np.nan, RAMP).astype("f4"), "no numbers"),
        (np.where(RAMP > 0.9, np.inf, RAMP).astype("f8"), "no numbers"),
        (np.round(RAMP * 65535).astype("u4"), "no value beyond 65535"),
        (RAMP.astype("c8"), "numbers of a kind"),
    ],
)
def test_what_is_ambiguous_is_refused_by_every_reader(values, said, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    for read in (read_photo, read_image):
        with pytest.raises(UserError, match="a.tif") as caught:
            read(tmp_path / "a.tif")
        assert said in str(caught.value)


def test_masks_of_any_range_and_of_one_value(tmp_path):
    hole = np.zeros((48, 64), bool)
    hole[10:20, 5:40] = True
    for k, kind in enumerate(("u1", "i1", "u2", "i2", "i4", "u4", "f4", "f2")):
        for white in (1, 100):
            path = tmp_path / f"{k}-{white}.tif"
            tifffile.imwrite(path, (hole * white).astype(kind), photometric="minisblack")
            assert np.array_equal(read_mask(path), hole)
    tifffile.imwrite(tmp_path / "one.tif", hole * np.uint8(0) + 1, photometric="minisblack")
    with pytest.raises(UserError, match="one value everywhere"):
        read_mask(tmp_path / "one.tif")


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("suffix", ["tif", "png", "jpg"])
def test_the_size_is_that_of_the_upright_picture(turn, suffix, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.new("RGB", (9, 6)).save(tmp_path / f"a.{suffix}", exif=exif)
    size, mode = read_header(tmp_path / f"a.{suffix}")
    assert size == ((6, 9) if turn >= 5 else (9, 6)) and mode == "RGB"
    assert read_image(tmp_path / f"a.{suffix}").shape[1::-1] == size


def test_deep_colour_png_is_read_in_full_everywhere(tmp_path):
    from irbridge.images.png import png16

    values = RNG.integers(0, 65536, (9, 7, 3), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(png16(values))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), values.astype("f4") / 65535)


@pytest.mark.parametrize("bits", [8, 16])
def test_chunks_that_say_what_colours_mean_are_kept(bits, tmp_path):
    from irbridge.images.png import png16

    def chunk(name, data):
        end = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + end

    chunks = {
        b"gAMA": struct.pack(">I", 100000),
        b"cHRM": struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000),
        b"cICP": bytes([9, 16, 0, 1]),
    }
    if bits == 16:
        content = png16(RNG.integers(0, 65536, (5, 4, 3), dtype=np.uint16))
    else:
        data = io.BytesIO()
        Image.fromarray(RNG.integers(0, 256, (5, 4, 3), dtype=np.uint8)).save(data, "PNG")
        content = data.getvalue()
    added = b"".join(chunk(name, body) for name, body in chunks.items())
    (tmp_path / "a.png").write_bytes(content[:33] + added + content[33:])
    photo = read_photo(tmp_path / "a.png")
    write_photo(tmp_path / "out.png", photo, photo.pixels)
    assert colour_chunks((tmp_path / "out.png").read_bytes()) == added
    with Image.open(tmp_path / "out.png") as written:
        assert written.info["gamma"] == 1
        written.load()


def test_what_is_invisible_has_the_colour_of_the_visible_edge():
    pixels = np.zeros((8, 8, 3), np.float32)
    pixels[2:6, 2:6] = RNG.random((4, 4, 3))
    alpha = np.zeros((8, 8), np.uint8)
    alpha[2:6, 2:6] = 200
    black, white = (
        Photo(np.where(alpha[..., None] > 0, pixels, shade), alpha=alpha) for shade in (0, 1)
    )
    assert np.array_equal(black.visible, white.visible)
    assert np.array_equal(black.visible[2:6, 2:6], pixels[2:6, 2:6])
    assert np.array_equal(black.visible[0, 0], pixels[2, 2])
    assert np.array_equal(black.visible[7, 4], pixels[5, 4])
    hidden = Photo(pixels, alpha=alpha * 0)
    assert hidden.visible is pixels


@pytest.mark.parametrize(
    "image, said",
    [
        (np.zeros((4, 4, 3), np.uint8), "float in .0, 1., not uint8"),
        (np.full((4, 4, 3), np.nan, np.float32), "no numbers"),
        (np.full((4, 4, 3), 255, np.float32), "divide them by their white"),
        (np.zeros((4, 4), np.float32), "shape"),
        ([[1.0]], "not list"),
    ],
)
def test_what_is_no_image_is_not_written(image, said, tmp_path):
    with pytest.raises(UserError, match=said):
        write_image(tmp_path / "a.png", image)
    if isinstance(image, np.ndarray):
        with pytest.raises(UserError, match=said):
            write_photo(tmp_path / "a.png", Photo(np.zeros((4, 4, 3), np.float32)), image)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_what_is_no_file_says_so(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("nowhere")
    with pytest.raises(UserError, match="b.png is no file but"):
        list_images(tmp_path)
