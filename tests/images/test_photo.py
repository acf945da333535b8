"""Photographs keep depth, greyness, alpha, profile and EXIF.

The truth is what Pillow, torchvision and tifffile read.
"""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
import torch
from conftest import RNG, ROOT  # noqa: F401  (one thread)
from PIL import Image, ImageCms, ImageOps
from torchvision.io import ImageReadMode, decode_image

from irbridge.errors import UserError
from irbridge.images.photo import read_photo, write_photo
from irbridge.images.png import png16

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(*shape, dtype=np.uint8):
    return RNG.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def png_read(data):
    tensor = decode_image(
        torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.UNCHANGED
    )
    return tensor.permute(1, 2, 0).numpy()


def round_trip(path, tmp_path):
    """The file written for a restoration that changed nothing."""
    photo = read_photo(path)
    write_photo(tmp_path / "out.png", photo, photo.pixels)
    return photo, tmp_path / "out.png"


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "1", "P"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".webp", ".jpg"])
def test_unchanged_pixels_come_out_as_pillow_reads_them(mode, suffix, tmp_path):
    image = Image.fromarray(noise(13, 17, 4)).convert(mode)
    try:
        image.save(
            tmp_path / f"in{suffix}",
            **({"lossless": True, "exact": True} if suffix == ".webp" else {}),
        )
    except OSError:
        pytest.skip("the format has no such mode")
    with Image.open(tmp_path / f"in{suffix}") as opened:
        grey = opened.mode in ("1", "L", "LA")
        wanted = opened.convert(("L" if grey else "RGB") + "A" * opened.has_transparency_data)
    photo, out = round_trip(tmp_path / f"in{suffix}", tmp_path)
    with Image.open(out) as written:
        assert written.mode == wanted.mode and photo.grey == grey and photo.bits == 8
        np.testing.assert_array_equal(written, wanted)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png16_is_read_back_by_two_libraries(channels):
    values = noise(11, 7, channels, dtype=np.uint16)
    data = png16(values, SRGB, b"Exif\0\0II*\0\x08\0\0\0\0\0")
    np.testing.assert_array_equal(png_read(data), values)
    with Image.open(io.BytesIO(data)) as image:  # Pillow keeps the high byte of colour
        image.load()
        assert image.info["icc_profile"] == SRGB and image.size == (7, 11)
        if channels == 3:
            np.testing.assert_array_equal(image, values >> 8)
    assert data.count(b"IDAT") == 1 and data.endswith(struct.pack(">I", zlib.crc32(b"IEND")))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_of_16_bits_keeps_every_bit(channels, tmp_path):
    values = noise(9, 12, channels, dtype=np.uint16)
    (tmp_path / "in.png").write_bytes(png16(values))
    photo, out = round_trip(tmp_path / "in.png", tmp_path)
    assert photo.bits == 16 and photo.grey == (channels < 3) and photo.pixels.dtype == np.float32
    np.testing.assert_array_equal(photo.pixels[..., 0], values[..., 0].astype(np.float32) / 65535)
    # alpha to the bit
    np.testing.assert_array_equal(png_read(out.read_bytes())[..., -1], values[..., -1])
    assert np.abs(png_read(out.read_bytes()).astype(int) - values).max() <= (
        1 if channels < 3 else 0
    )


def test_transparent_colour_of_16_bits_becomes_alpha(tmp_path):
    values = noise(5, 6, 3, dtype=np.uint16)
    data = png16(values)
    body = values[2, 3].astype(">u2").tobytes()
    chunk = struct.pack(">I", 6) + b"tRNS" + body + struct.pack(">I", zlib.crc32(b"tRNS" + body))
    at = data.index(b"IDAT") - 4
    (tmp_path / "in.png").write_bytes(data[:at] + chunk + data[at:])
    alpha = read_photo(tmp_path / "in.png").alpha
    assert alpha[2, 3] == 0 and (alpha == 65535).sum() == alpha.size - 1


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"byteorder": ">"}, {"planarconfig": "separate"}]
)
def test_tiff_of_16_bits_keeps_every_bit(options, tmp_path):
    values = noise(9, 12, 3, dtype=np.uint16)
    stored = values.transpose(2, 0, 1).copy() if "planarconfig" in options else values
    tifffile.imwrite(tmp_path / "in.tif", stored, photometric="rgb", **options)
    photo, out = round_trip(tmp_path / "in.tif", tmp_path)
    assert photo.bits == 16
    np.testing.assert_array_equal(png_read(out.read_bytes()), values)


def test_tiff_with_alpha_and_grey_of_white_zero(tmp_path):
    values = noise(9, 12, 4, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read_photo(tmp_path / "a.tif").alpha, values[..., 3])
    tifffile.imwrite(tmp_path / "w.tif", values[..., 0], photometric="miniswhite")
    white = read_photo(tmp_path / "w.tif")
    assert white.grey
    np.testing.assert_allclose(white.pixels[..., 1], 1 - values[..., 0] / 65535, atol=1e-6)


def test_deep_tiff_beyond_tifffile_is_read_at_8_bits(tmp_path, monkeypatch):
    values = noise(9, 12, 3, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "in.tif", values, photometric="rgb")
    monkeypatch.setattr(
        tifffile.TiffPage, "asarray", lambda page: (_ for _ in ()).throw(ValueError("imagecodecs"))
    )
    photo = read_photo(tmp_path / "in.tif")
    assert photo.bits == 8
    np.testing.assert_allclose(photo.pixels, values / 65535, atol=1 / 250)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "tif", "tif16", "png16"])
def test_upright_as_pillow_turns_it(orientation, kind, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    values = noise(6, 9, 3, dtype=np.uint16)
    path, image = tmp_path / f"in.{kind[:3]}", Image.fromarray((values >> 8).astype(np.uint8))
    if kind == "png16":
        path.write_bytes(png16(values, exif=exif.tobytes()))
    elif kind == "tif16":
        tifffile.imwrite(
            path, values, photometric="rgb", extratags=[(274, "H", 1, orientation, True)]
        )
    else:
        image.save(path, exif=exif, quality=100, subsampling=0)
    image.info["exif"] = exif.tobytes()
    wanted = np.asarray(ImageOps.exif_transpose(image))
    photo = read_photo(path)
    assert photo.pixels.shape == wanted.shape and photo.bits == (16 if "16" in kind else 8)
    np.testing.assert_allclose(photo.pixels * 255, wanted, atol=12 if kind == "jpg" else 1)
    write_photo(tmp_path / "out.png", photo, photo.pixels)
    with Image.open(tmp_path / "out.png") as written:
        assert written.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_profile_and_exif_are_kept(suffix, tmp_path):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 6
    if suffix != "tif":
        exif.get_ifd(0x8769)[0x829A] = 0.01
    Image.fromarray(noise(8, 8, 3)).save(tmp_path / f"in.{suffix}", exif=exif, icc_profile=SRGB)
    _, out = round_trip(tmp_path / f"in.{suffix}", tmp_path)
    with Image.open(out) as written:
        kept = written.getexif()
        assert (
            written.info["icc_profile"] == SRGB
            and kept[0x010F] == "Maker"
            and kept.get(0x0112, 1) == 1
        )
        assert suffix == "tif" or float(kept.get_ifd(0x8769)[0x829A]) == pytest.approx(0.01)
        assert 0x0111 not in kept  # where a TIFF's strips were


def test_cmyk_becomes_rgb_without_its_profile(tmp_path):
    image = Image.fromarray(noise(16, 16, 3)).convert("CMYK")
    image.save(tmp_path / "in.jpg", icc_profile=SRGB, quality=95)
    photo, out = round_trip(tmp_path / "in.jpg", tmp_path)
    with Image.open(out) as written, Image.open(tmp_path / "in.jpg") as given:
        assert written.mode == "RGB" and "icc_profile" not in written.info and photo.icc is None
        np.testing.assert_array_equal(written, given.convert("RGB"))


def test_broken_exif_does_not_cost_the_picture(tmp_path):
    Image.fromarray(noise(8, 8, 3)).save(tmp_path / "in.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert read_photo(tmp_path / "in.jpg").pixels.shape == (8, 8, 3)


def bomb():
    head = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + b"IHDR"
        + head
        + struct.pack(">I", zlib.crc32(b"IHDR" + head))
        + b"\0\0\0\0IDAT"
        + struct.pack(">I", zlib.crc32(b"IDAT"))
    )


@pytest.mark.parametrize(
    "data, word",
    [  # the last two are cut short
        (b"not an image", "unknown format"),
        (b"", "unknown format"),
        (bomb(), "pixels"),
        (b"GIF89a" + bytes(30), "is GIF, and read are JPEG, PNG"),
        (png16(noise(60, 60, 3, dtype=np.uint16))[:9000], ""),
        (png16(noise(60, 60, 1, dtype=np.uint16))[:3000], ""),
    ],
)
def test_unreadable_files_are_named_in_one_sentence(data, word, tmp_path):
    (tmp_path / "bad.png").write_bytes(data)
    with pytest.raises(UserError, match="bad.png") as caught:
        read_photo(tmp_path / "bad.png")
    assert word in str(caught.value) and "\n" not in str(caught.value)


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "in.png").write_bytes(png16(noise(4, 4, 3, dtype=np.uint16)))
    photo = read_photo(tmp_path / "in.png")
    with pytest.raises(UserError, match="PNG"):
        write_photo(tmp_path / "out.jpg", photo, photo.pixels)
    with pytest.raises(UserError, match="cannot be written"):
        write_photo(tmp_path / "in.png" / "out.png", photo, photo.pixels)
    with pytest.raises(UserError, match="is a folder"):
        read_photo(tmp_path)


def test_what_is_hidden_does_not_show_in_an_enlarged_photograph(tmp_path):
    seen, enlarged = np.zeros((9, 8), bool), []
    seen[2:7, 2:6] = True
    for hidden in (0, 255):
        colours = np.full((9, 8, 3), hidden, np.uint8)
        colours[seen] = 180
        path = tmp_path / f"{hidden}.png"
        Image.fromarray(np.dstack([colours, np.uint8(255) * seen])).save(path)
        enlarged.append(read_photo(path).interpolated(4))
    shown = enlarged[0].alpha > 0
    assert shown.sum() > 16 * seen.sum()
    for photo in enlarged:
        assert np.allclose(photo.pixels[shown], 180 / 255, atol=1e-6)


@pytest.mark.parametrize("tag", [0x100, 0xA002])
@pytest.mark.parametrize("told, kept", [(8, 32), (2**32 - 1, None)])
def test_sides_that_the_exif_tells_grow_with_the_photograph(tmp_path, tag, told, kept):
    exif = Image.Exif()
    exif[0x010E] = "a title"
    (exif if tag == 0x100 else exif.get_ifd(0x8769))[tag] = told
    Image.new("RGB", (8, 9)).save(tmp_path / "a.jpg", exif=exif)
    photo = read_photo(tmp_path / "a.jpg").interpolated(4)
    write_photo(tmp_path / "b.png", photo, photo.pixels)
    left = Image.open(tmp_path / "b.png").getexif()
    assert left[0x010E] == "a title"
    assert (left if tag == 0x100 else left.get_ifd(0x8769)).get(tag) == kept
