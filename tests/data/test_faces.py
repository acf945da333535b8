"""A made-up LFW: cropped, capped, and split so that nobody is on both sides."""

import io
import json
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from irbridge.data.faces import MOST, PARTS, cropped, part_of, split, write_faces
from irbridge.data.people import check_people, person_of
from irbridge.errors import UserError

PEOPLE = [f"Person_{chr(65 + k // 26)}{chr(97 + k % 26)}" for k in range(60)]


def photograph(number, size=250):
    """A square of its own colour where LFW's face is, black around."""
    image = np.zeros((size, size, 3), np.uint8)
    image[52:180, 61:189] = 40 + number % 200
    return image


def jpeg(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.fixture(scope="module")
def lfw(tmp_path_factory):
    """As the archive unpacks: sixty people, two photographs each, and one who has many."""
    root = tmp_path_factory.mktemp("lfw") / "lfw-deepfunneled"
    for k, person in enumerate(PEOPLE):
        (root / person).mkdir(parents=True)
        for number in range(1, 66 if k == 3 else 3):
            path = root / person / f"{person}_{number:04d}.jpg"
            path.write_bytes(jpeg(photograph(k)))
    return root


@pytest.fixture(scope="module")
def written(lfw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out") / "faces"
    return folder, write_faces(lfw, folder)


def names(folder, part):
    return sorted(path.stem for path in (folder / part).iterdir())


def test_crops_the_face_to_64_pixels(written):
    folder, _ = written
    path = next((folder / "train").glob("Person_Aa_*.jpg"), None) or next(
        path for part in PARTS for path in (folder / part).glob("Person_Aa_*.jpg")
    )
    with Image.open(path) as image:
        assert image.size == (64, 64) and image.format == "JPEG"
        assert np.abs(np.asarray(image).astype(int) - 40).max() < 6  # nothing of the black
    ramp = np.broadcast_to(np.arange(250)[None, :, None] / 250, (250, 250, 3)).astype(np.float32)
    face = cropped(ramp)
    assert face.shape == (64, 64, 3)
    assert abs(face[32, 0, 0] * 250 - 61.5) < 2 and abs(face[32, -1, 0] * 250 - 187.5) < 2


def test_nobody_is_on_two_sides(written):
    folder, found = written
    people = {part: {person_of(name) for name in names(folder, part)} for part in PARTS}
    assert {part: len(who) for part, who in people.items()} == found.people
    assert sum(found.people.values()) == len(PEOPLE) == len(set().union(*people.values()))
    check_people({part: folder / part for part in PARTS})
    assert json.loads((folder / "faces.json").read_text())["people"] == found.people


def test_of_one_person_the_first_sixty_count(written):
    folder, found = written
    many = [name for part in PARTS for name in names(folder, part) if PEOPLE[3] in name]
    assert many == [f"{PEOPLE[3]}_{k:04d}" for k in range(1, MOST + 1)]
    assert sum(found.counts.values()) == MOST + 2 * (len(PEOPLE) - 1)


def test_a_person_stays_where_the_hash_says():
    everyone = [f"Name_{k}" for k in range(20000)]
    shares = [np.mean([part_of(name, 0) == part for name in everyone]) for part in PARTS]
    assert np.allclose(shares, (0.9, 0.05, 0.05), atol=0.006)
    assert [part_of("Aaron_Eckhart", seed) for seed in range(6)] == [
        part_of("Aaron_Eckhart", seed) for seed in range(6)
    ]
    assert len({part_of("Aaron_Eckhart", seed) for seed in range(200)}) == 3
    few, _ = split([f"{name}_0001" for name in everyone[:100]], 0)
    more, _ = split([f"{name}_0001" for name in everyone[:1000]], 0)
    assert all(set(few[part]) <= set(more[part]) for part in PARTS)


@pytest.mark.parametrize("kind", ["tgz", "tar", "zip"])
def test_an_archive_gives_what_its_folder_gives(kind, lfw, written, tmp_path):
    path = tmp_path / f"lfw.{kind}"
    if kind == "zip":
        shutil.make_archive(str(tmp_path / "lfw"), "zip", lfw.parent)
    else:
        with tarfile.open(path, "w:gz" if kind == "tgz" else "w") as tar:
            tar.add(lfw, lfw.name)
    assert write_faces(path, tmp_path / "out") == written[1]
    for part in PARTS:
        own, other = tmp_path / "out" / part, written[0] / part
        assert names(tmp_path / "out", part) == names(written[0], part)
        assert all((own / p.name).read_bytes() == p.read_bytes() for p in other.iterdir())
    assert not (tmp_path / "out/.unfinished").exists()


def test_faces_without_names_are_split_by_tenths_and_copied(tmp_path):
    contents = {f"{k:05d}.jpg": jpeg(photograph(k, 64)) for k in range(41)}
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    found = write_faces(tmp_path / "faces.zip", tmp_path / "out")
    assert found.people is None and found.counts == {"train": 36, "validation": 2, "test": 3}
    assert "tell no people" in found.in_words(tmp_path)
    assert names(tmp_path / "out", "train")[-1] == "00035"
    for part in PARTS:
        for path in (tmp_path / "out" / part).iterdir():
            assert path.read_bytes() == contents[path.name]


def test_other_sizes_give_their_central_square(tmp_path):
    (tmp_path / "in").mkdir()
    pixels = np.zeros((100, 160, 3), np.uint8)
    pixels[:, 30:130] = 200
    for k in range(20):
        Image.fromarray(pixels).save(tmp_path / "in" / f"{k}.png")
    write_faces(tmp_path / "in", tmp_path / "out")
    with Image.open(tmp_path / "out/train/0.jpg") as image:
        assert image.size == (64, 64) and np.asarray(image).min() > 190


def test_the_command(lfw, tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, _ = command("prepare_data", "faces", str(lfw), "output=mine", "seed=1")
    assert status == 0 and f"{'mine/train'}: " in out.replace("\\", "/") and "people" in out
    status, _, err = command("prepare_data", "faces", str(lfw), "output=mine")
    assert status == 2 and "mine/train is there already; give another output=DIR." in err
    status, _, err = command("prepare_data", "faces")
    assert status == 2 and "faces PLACE [output=DIR]" in err
    status, _, err = command("prepare_data", "list", "seed=1")
    assert status == 2 and "seed= does not go with list" in err


def test_what_is_no_set_of_faces_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="lfw-deepfunneled.tgz"):
        write_faces(tmp_path / "none.tgz", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images; give LFW's"):
        write_faces(tmp_path / "empty", tmp_path / "out")
    (tmp_path / "text.tgz").write_text("no archive")
    with pytest.raises(UserError, match="is no folder, tar or zip"):
        write_faces(tmp_path / "text.tgz", tmp_path / "out")
    (tmp_path / "few").mkdir()
    (tmp_path / "few/1.jpg").write_bytes(jpeg(photograph(1)))
    with pytest.raises(UserError, match="1 faces, too few for a"):
        write_faces(tmp_path / "few", tmp_path / "out")
    for place in ("a", "b"):
        (tmp_path / "twice" / place).mkdir(parents=True)
        (tmp_path / "twice" / place / "1.jpg").write_bytes(jpeg(photograph(1)))
    with pytest.raises(UserError, match="several images named 1"):
        write_faces(tmp_path / "twice", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_truncated_archive_leaves_nothing_that_looks_whole(lfw, tmp_path):
    path = tmp_path / "lfw.tgz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(lfw, lfw.name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="is damaged"):
        write_faces(path, tmp_path / "out")
    assert not any((tmp_path / "out" / part).exists() for part in PARTS)


@pytest.mark.parametrize(
    "name, person",
    [
        ("Aaron_Eckhart_0001", "Aaron_Eckhart"),
        ("Jean-Claude_Van_Damme_0012", "Jean-Claude_Van_Damme"),
        ("00012", "00012"),
        ("photo_1", "photo_1"),
    ],
)
def test_the_person_of_a_name(name, person):
    assert person_of(name) == person


def test_a_person_on_both_sides_is_refused(tmp_path):
    for part, name in (("train", "A_B_0001"), ("test", "A_B_0002"), ("test", "C_D_0001")):
        (tmp_path / part).mkdir(exist_ok=True)
        (tmp_path / part / f"{name}.jpg").write_bytes(jpeg(photograph(1, 64)))
    parts = {part: tmp_path / part for part in ("train", "test")}
    with pytest.raises(UserError, match="A_B is in both .*train and .*test, so no people are held"):
        check_people(parts)
    with pytest.raises(UserError, match="no people are split off; `irbridge data faces"):
        check_people(parts | {"validation": tmp_path / "validation"})
