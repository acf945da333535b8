"""Damaged and made-up files: pixels of the right shape, or one sentence; never anything else.

Restoring, training and evaluating read by the same functions, so each file goes through all.
"""

import io
import os
import socket
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from conftest import RNG, ROOT  # noqa: F401  (one thread)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from irbridge.errors import UserError
from irbridge.files import sha256
from irbridge.images import formats
from irbridge.images.holes import read_mask
from irbridge.images.io import read_image
from irbridge.images.photo import read_photo
from irbridge.images.png import ADAM7, COLOUR_TYPES, png16, read_png16
from irbridge.images.samples import read_header

READERS = {
    "photo": lambda path: read_photo(path).pixels,
    "image": read_image,
    "mask": read_mask,
    "header": read_header,
}


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def encoded(values, filters, interlace=0):
    """A PNG of 16 bits whose rows have the given filters in turn, written pixel by pixel."""
    (height, width, channels), pixel, data = values.shape, 2 * values.shape[2], b""
    for top, left, down, right in ADAM7 if interlace else ((0, 0, 1, 1),):
        part = values[top::down, left::right]
        if not part.size:
            continue
        rows = part.astype(">u2").reshape(len(part), -1).view(np.uint8).astype(int)
        above = np.zeros(rows.shape[1], int)
        for y, row in enumerate(rows):
            kind = filters[y % len(filters)]
            data += bytes([kind])
            for i, value in enumerate(row):
                a, b, c = (
                    (row[i - pixel], above[i], above[i - pixel]) if i >= pixel else (0, above[i], 0)
                )
                p = a + b - c
                paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
                data += bytes([(value - [0, a, b, (a + b) // 2, paeth][kind]) & 255])
            above = row
    head = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, interlace)
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize("filters", [[0], [1], [2], [3], [4], [4, 3, 1, 2, 0, 4]])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (13, 11), (600, 3)])
def test_every_filter_and_both_orders_of_a_16_bit_png(size, filters, interlace):
    for channels in (1, 2, 3, 4):
        values = RNG.integers(0, 65536, (*size, channels), dtype=np.uint16)
        assert np.array_equal(read_png16(encoded(values, filters, interlace)), values)


DEEP = png16(RNG.integers(0, 65536, (24, 32, 3), dtype=np.uint16))
BODY = DEEP[8:]


def with_samples(stored, height=24, width=32, bits=16, kind=2, rest=(0, 0, 0)):
    """A PNG with these compressed samples."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, *rest))
    return DEEP[:8] + head + chunk(b"IDAT", stored) + chunk(b"IEND", b"")


ROWS = b"".join(b"\0" + bytes(192) for _ in range(24))
DAMAGES = {
    "checksum": (DEEP[:-13] + bytes([DEEP[-13] ^ 1]) + DEEP[-12:], "checksum"),
    "adler": (with_samples(zlib.compress(ROWS)[:-1] + b"\xff"), "damaged"),
    "short": (with_samples(zlib.compress(ROWS[:-200])), "fewer or more"),
    "long": (with_samples(zlib.compress(ROWS + bytes(2**20))), "fewer or more"),
    "filter": (with_samples(zlib.compress(b"\x09" + ROWS[1:])), "filter 9"),
    "unfinished": (with_samples(zlib.compress(ROWS)[:-6]), "fewer or more"),
    "interlace": (with_samples(zlib.compress(ROWS), rest=(0, 0, 7)), ""),
    "compression": (with_samples(zlib.compress(ROWS), rest=(3, 0, 0)), ""),
    "palette": (with_samples(zlib.compress(ROWS), kind=3), ""),
    "empty": (with_samples(b""), ""),
    "no samples": (DEEP[:33] + DEEP[-12:], ""),
    "no end": (DEEP[:-12], "cut short"),
    "cut": (DEEP[: len(DEEP) // 2], "cut short"),
    "bomb": (with_samples(zlib.compress(bytes(2**20)), height=2**20, width=2**20), "more pixels"),
    "no width": (with_samples(zlib.compress(ROWS), width=0), ""),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_16_bit_png_is_one_sentence(kind, tmp_path):
    data, said = DAMAGES[kind]
    (tmp_path / "b.png").write_bytes(data)
    for name in ("photo", "image", "mask"):
        with pytest.raises(UserError, match="b.png") as caught:
            READERS[name](tmp_path / "b.png")
        assert said in str(caught.value)


def small_files():
    """A small file of each format and of most kinds."""
    colours = RNG.integers(0, 256, (12, 16, 4), dtype=np.uint8)
    found = {"deep": DEEP, "interlaced": encoded(RNG.integers(0, 65536, (9, 7, 2)), [4, 3], 1)}
    for mode in ("RGB", "L", "P", "1", "RGBA"):
        for form in ("PNG", "JPEG", "TIFF", "WEBP", "BMP"):
            data = io.BytesIO()
            try:
                Image.fromarray(colours).convert(mode).save(data, form)
            except OSError:  # the format has no such mode
                continue
            found[f"{mode} {form}"] = data.getvalue()
    for kind, values in {
        "tiff16": RNG.integers(0, 65536, (12, 16, 3), dtype=np.uint16),
        "float": RNG.random((12, 16, 3)).astype(np.float32),
        "half": RNG.random((12, 16)).astype(np.float16),
        "uint32": RNG.integers(0, 2**32, (12, 16), dtype=np.uint32),
    }.items():
        for options in ({}, {"compression": "zlib"}, {"tile": (16, 16)}):
            data = io.BytesIO()
            photometric = "rgb" if values.ndim == 3 else "minisblack"
            tifffile.imwrite(data, values, photometric=photometric, **options)
            found[f"{kind} {options}"] = data.getvalue()
    return found


FILES = small_files()


def check(data, path):
    """Every reader gives an image, or one sentence that names the file, and no warning."""
    path.write_bytes(data)
    for name, read in READERS.items():
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                found = read(path)
            except UserError as error:
                assert path.name in str(error) and "\n" not in str(error)
                assert str(error).endswith(".")
                continue
            finally:
                assert not told
        if name in ("photo", "image"):
            assert found.dtype == np.float32 and found.ndim == 3 and found.shape[2] == 3
            assert np.isfinite(found).all() and found.min() >= 0 and found.max() <= 1
        if name == "mask":
            assert found.dtype == bool and found.ndim == 2


quick = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@quick
@given(
    st.sampled_from(sorted(FILES)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    st.floats(0, 1),
    st.booleans(),
)
def test_a_changed_file_is_an_image_or_a_sentence(tmp_path_factory, kind, changes, end, cut):
    data = bytearray(FILES[kind])
    for place, value in changes:
        data[int(place * min(len(data), 400 if value % 2 else len(data)))] = value
    if cut:
        data = data[: int(end * len(data))]
    check(bytes(data), tmp_path_factory.getbasetemp() / "changed.png")


@quick
@given(st.sampled_from([b"", *(FILES[k][:8] for k in sorted(FILES))]), st.binary(max_size=200))
def test_made_up_bytes_are_an_image_or_a_sentence(tmp_path_factory, sign, data):
    check(sign + data, tmp_path_factory.getbasetemp() / "made-up.tif")


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "lost.png").symlink_to(tmp_path / "nothing")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.png"))
        for name in ("pipe", "link", "zero", "lost", "socket"):
            for read in [*READERS.values(), sha256]:
                with pytest.raises(UserError, match=f"{name}.png"):
                    read(tmp_path / f"{name}.png")


@pytest.mark.parametrize(
    "start, title",
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "EPS"),
        (b"8BPS\0\1" + bytes(40), "PSD"),
        (b"icns" + bytes(40), "ICNS"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "JPEG 2000"),
        (b"\0\0\0\x18ftypheic" + bytes(100), "HEIC"),
        (b"\0\0\0\x18ftypavif" + bytes(100), "AVIF"),
        (b"GIF89a" + bytes(40), "GIF"),
    ],
)
def test_other_formats_are_named_and_never_opened(start, title, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)  # such as Ghostscript
    (tmp_path / "a.png").write_bytes(start)
    for read in READERS.values():
        with pytest.raises(UserError, match=f"a.png is {title}, and read are .*; convert it to"):
            read(tmp_path / "a.png")


def test_want_of_memory_is_not_called_damage(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(FILES["RGB PNG"])

    def short(*args):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", short)
    monkeypatch.setattr(np, "asarray", short)
    for name in ("photo", "image", "mask"):
        with pytest.raises(UserError, match="does not fit into the free memory"):
            READERS[name](tmp_path / "a.png")
    assert "free memory" in str(formats.unreadable("x", OSError("encoder error -9 out of memory")))


def test_the_limit_of_pixels_is_said_and_can_be_raised(tmp_path, monkeypatch):
    Image.new("1", (400, 300)).save(tmp_path / "a.png")
    monkeypatch.setattr(formats, "MAX_PIXELS", 1000)
    for read in READERS.values():
        with pytest.raises(UserError, match="400 x 300.*IRBRIDGE_MAX_PIXELS=120000"):
            read(tmp_path / "a.png")
    monkeypatch.setenv("IRBRIDGE_MAX_PIXELS", "120000")
    assert read_photo(tmp_path / "a.png").pixels.shape == (300, 400, 3)
    monkeypatch.setenv("IRBRIDGE_MAX_PIXELS", "many")
    with pytest.raises(UserError, match="IRBRIDGE_MAX_PIXELS=many"):
        read_photo(tmp_path / "a.png")


def test_a_warning_of_a_library_does_not_reach_the_user(tmp_path):
    """A TIFF with an odd tag, in a process of its own, where tifffile logs."""
    data = io.BytesIO()
    values = RNG.random((8, 8, 3)).astype(np.float32)
    tifffile.imwrite(data, values, photometric="rgb", extratags=[(42113, "s", 0, "x", True)])
    content = bytearray(data.getvalue())
    at = content.index(struct.pack("<HH", 305, 2))  # Software: of an unknown type
    content[at + 2 : at + 4] = struct.pack("<H", 99)
    (tmp_path / "a.tif").write_bytes(content)
    code = f"import irbridge; print(irbridge.read_image({str(tmp_path / 'a.tif')!r}).shape)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.stdout == "(8, 8, 3)\n" and not done.stderr


def remade(kind, width=56, height=40):
    """A PNG of 8 bits that Pillow would show, damaged in one way."""
    values = np.random.default_rng(5).integers(0, 256, (40, 56, 3), np.uint8)
    rows = np.concatenate([np.zeros((40, 1), np.uint8), values.reshape(40, -1)], axis=1).tobytes()
    rows = rows[:-169] if kind == "a row less" else rows
    stored = bytearray(zlib.compress(rows, 0))
    damaged = kind in ("samples", "samples of a right checksum")
    if damaged:
        stored[len(stored) // 2] ^= 255
    head = struct.pack(">IIBBBBB", width, height, 8, 3 if kind == "no palette" else 2, 0, 0, 0)
    data = chunk(b"IDAT", bytes(stored))
    if kind in ("samples", "checksum"):
        data = data[:-4] + b"\0\0\0\0"
    end = b"" if kind == "no end" else chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + data + end


@pytest.mark.parametrize(
    ("kind", "sides", "said"),
    [
        ("samples", (56, 40), "checksum"),
        ("samples of a right checksum", (56, 40), "samples are damaged"),
        ("checksum", (56, 40), "checksum"),
        ("a row less", (56, 40), "fewer or more samples"),
        ("taller", (56, 41), "fewer or more samples"),
        ("narrower", (55, 40), "fewer or more samples"),
        ("no palette", (169, 40), "palette is missing|fewer or more"),
        ("no end", (56, 40), "cut short"),
    ],
)
def test_a_damaged_8_bit_png_is_one_sentence(kind, sides, said, tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(remade("whole"))
    assert read_image(path).shape == (40, 56, 3)
    path.write_bytes(remade(kind, *sides))
    with pytest.raises(UserError, match=said):
        read_image(path)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("sides", [(1, 1), (3, 2), (9, 17), (33, 5)])
def test_whole_pngs_of_all_kinds_are_read(mode, sides, tmp_path):
    values = np.random.default_rng(5).integers(0, 256, (*sides, 3), np.uint8)
    Image.fromarray(values).convert(mode).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png").shape == (*sides, 3)


def test_a_tiff_of_too_few_strips_is_cut_short(tmp_path):
    path = tmp_path / "x.tif"
    Image.new("RGB", (56, 40), "red").save(path)
    data = bytearray(path.read_bytes())
    (directory,) = struct.unpack("<I", data[4:8])
    (tags,) = struct.unpack("<H", data[directory : directory + 2])
    for at in range(directory + 2, directory + 2 + 12 * tags, 12):
        if data[at : at + 2] == b"\x01\x01":  # ImageLength
            data[at + 8 : at + 12] = struct.pack("<HH", 60000, 0)
    path.write_bytes(data)
    with pytest.raises(UserError, match="cut short"):
        read_image(path)
