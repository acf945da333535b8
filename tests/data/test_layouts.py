"""Miniature public sets as archives unpack, mixed folders, other methods' saved images."""

import numpy as np
import pytest
from PIL import Image
from public_trees import BOTH, TREES, realblur, tree

from irbridge.data.degradations import Inpaint
from irbridge.data.layouts import BenchmarkPairs, Faces, halves
from irbridge.data.pairs import PairedFolders
from irbridge.data.public_sets import BENCHMARKS
from irbridge.errors import UserError
from irbridge.evaluation.saved_outputs import output_row
from irbridge.images.io import write_image


@pytest.mark.parametrize(
    "name, case", [(name, i) for name, cases in TREES.items() for i in range(len(cases))]
)
def test_layouts(tmp_path, name, case):
    files, names, title = TREES[name][case]
    root = tree(tmp_path / "set", *files)
    pairs = BenchmarkPairs(name, root)
    pairs.check()
    assert pairs.names == names and pairs.title == title and len(pairs) == len(names)
    for pair, (clean, degraded) in zip((pairs[i] for i in range(len(pairs))), pairs.paths):
        # the number in the name
        assert clean != degraded and np.allclose(pair.clean, pair.degraded, atol=0.02)
        assert not any("streak" in str(p) or "mask" in str(p) for p in (clean, degraded))


def test_blur_comes_before_its_gamma_version(tmp_path):
    root = tree(tmp_path / "set", *(f"test/S1/{k}/1.png" for k in ("blur", "blur_gamma", "sharp")))
    assert BenchmarkPairs("gopro", root).paths[0][1].parent.name == "blur"


def test_realblur_s_lists_tell_the_halves(tmp_path):
    root = tree(tmp_path / "set", *realblur("JR", "", [1], [2]))
    inner = root / "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"
    assert BenchmarkPairs("realblur", inner).names == ["scene002_blur_2"]
    assert BenchmarkPairs("realblur", inner, "train").names == ["scene001_blur_1"]
    (inner / "scene002/gt/gt_2.png").unlink()
    with pytest.raises(UserError, match=r"test_list.txt lists RealBlur-J.*gt_2.png, which is not"):
        BenchmarkPairs("realblur", root)
    (root / "RealBlur_J_test_list.txt").unlink()
    assert halves("realblur", root) == ["train"]
    with pytest.raises(UserError, match=r"does not hold RealBlur-J \(test\).*_test_list.txt"):
        BenchmarkPairs("realblur", root, "test")
    (root / "RealBlur_J_train_list.txt").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"RealBlur_J_train_list.txt cannot be read"):
        BenchmarkPairs("realblur", root)
    (root / "RealBlur_J_test_list.txt").write_text("\n")  # the train half is no stand-in
    with pytest.raises(UserError, match=r"RealBlur_J_test_list.txt lists no image; unpack"):
        BenchmarkPairs("realblur", root)


def test_a_blurred_image_of_hide_needs_its_sharp_one(tmp_path):
    root = tree(tmp_path / "set", "GT/1.png", "test/test-close-ups/1.png", "test/2.png")
    with pytest.raises(UserError, match=r"test/2.png has no partner; HIDE has GT/1.png"):
        BenchmarkPairs("hide", root)


def test_a_half_can_be_asked_for(tmp_path):
    root = tree(
        tmp_path / "set",
        *(f"{h}/{k}/{i}.png" for i, h in enumerate(("eval15", "our485")) for k in ("high", "low")),
    )
    assert BenchmarkPairs("lol", root, "train").names == ["1"] and BenchmarkPairs(
        "lol", root, "test"
    ).names == ["0"]
    assert BenchmarkPairs("lol", root / "our485").title == "LOL v1 train"
    with pytest.raises(UserError, match="train"):
        BenchmarkPairs("lol", root / "eval15", "train")


@pytest.mark.parametrize("name, train, test, trained, tested", BOTH)
@pytest.mark.parametrize("around", ["", "release/"])
def test_the_halves_of_one_root_are_told_apart(
    tmp_path, name, train, test, trained, tested, around
):
    root = tree(tmp_path / "set", *(around + file for file in train + test))
    assert halves(name, root) == ["train", "test"]
    assert (
        BenchmarkPairs(name, root, "train").names == trained
        and BenchmarkPairs(name, root, "test").names == tested
    )
    assert BenchmarkPairs(name, root).names == tested and BenchmarkPairs(
        name, root, "train"
    ).title.endswith(" train")


def test_a_folder_of_any_name_is_a_half_where_it_is_said_to_be(tmp_path):
    root = tree(tmp_path / "mine", "gt/1.jpg", "synthetic/1.jpg")
    with pytest.raises(UserError, match=r"does not hold Snow100K \(train\)"):
        BenchmarkPairs("snow100k", root, "train")
    pairs = BenchmarkPairs("snow100k", root, "train", alone=True)
    assert (
        pairs.names == ["1"]
        and pairs.title == "Snow100K train"
        and halves("snow100k", root) == ["test"]
    )
    # Never the other half.
    for wrong in (
        tree(tmp_path / "lol", "eval15/high/1.png", "eval15/low/1.png"),
        tmp_path / "lol" / "eval15",
    ):
        with pytest.raises(UserError, match=r"does not hold LOL v1 \(train\)"):
            BenchmarkPairs("lol", wrong, "train", alone=True)


@pytest.mark.parametrize(
    "name, own, other", [("reside_ots", "train", "test"), ("sots_outdoor", "test", "train")]
)
def test_a_set_that_is_one_half(tmp_path, name, own, other):
    root = tree(tmp_path / "set", "gt/1.png", "hazy/1_1_0.1.png")
    assert halves(name, root) == [own]
    assert (
        BenchmarkPairs(name, root, own).title
        == BenchmarkPairs(name, root).title
        == BENCHMARKS[name].title
    )
    with pytest.raises(UserError, match=f"is a {own} set as a whole.*data.benchmark=reside_ots"):
        BenchmarkPairs(name, root, other)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_counts_are_of_titles_that_exist(name):
    benchmark = BENCHMARKS[name]
    titles = {benchmark.title} if benchmark.only else {benchmark.title, f"{benchmark.title} train"}
    assert benchmark.counts and set(benchmark.counts) <= titles


def test_all_headers_are_told_with_the_number_of_faults(tmp_path):
    root = tree(tmp_path / "set", *(f"{k}/{n}.png" for k in ("high", "low") for n in (1, 2, 3)))
    Image.new("RGB", (24, 21)).save(root / "low/1.png")
    (root / "low/3.png").write_text("broken")
    with pytest.raises(UserError, match=r"low/1.png differ in size.*\(and 1 more\)\.$"):
        BenchmarkPairs("lol", root).check()


def test_parts_of_a_set_have_titles_of_their_own(tmp_path):
    root = tree(
        tmp_path / "set", *(f"Snow100K-{p}/{k}/1.jpg" for p in "SL" for k in ("gt", "synthetic"))
    )
    assert BenchmarkPairs("snow100k", root / "Snow100K-L").title == "Snow100K-L"
    rain = tree(tmp_path / "rain", "test_b/data/1_rain.png", "test_b/gt/1_clean.png")
    assert BenchmarkPairs("raindrop", rain).title == "RainDrop-B"


@pytest.mark.parametrize("name", ["sots_indoor", "sots_outdoor"])
def test_only_indoor_gt_loses_its_border(tmp_path, name):
    rng = np.random.default_rng(0)
    big = rng.random((40, 50, 3), dtype=np.float32)
    write_image(tmp_path / "set/gt/1.png", big)
    write_image(tmp_path / "set/hazy/1_1.png", big[10:-10, 10:-10])
    pairs = BenchmarkPairs(name, tmp_path / "set")
    if name == "sots_outdoor":
        for use in (pairs.check, lambda: pairs[0]):
            with pytest.raises(UserError, match="differ in size"):
                use()
        return
    pairs.check()
    assert pairs[0].clean.shape == (20, 30, 3) and np.array_equal(pairs[0].clean, pairs[0].degraded)


@pytest.mark.parametrize("name", [n for n in BENCHMARKS])
def test_a_missing_layout_is_told(tmp_path, name):
    make = BenchmarkPairs if name != "celebahq" else lambda n, r: Faces(n, r, Inpaint())
    with pytest.raises(UserError, match="absent is not a folder"):
        make(name, tmp_path / "absent")
    root = tree(tmp_path / "set", "a/b/c/d/1.png")
    (root / "notes.txt").write_text("")
    with pytest.raises(UserError) as fault:
        make(name, root)
    assert all(
        word in str(fault.value)
        for word in (BENCHMARKS[name].title, BENCHMARKS[name].layout, "a/", "notes.txt")
    )


@pytest.mark.parametrize(
    "name, files, words",
    [
        ("rain100h", ["norain-1.png", "rain-1.png", "rain-2.png"], ["rain-2.png", "no partner"]),
        (
            "lol",
            ["eval15/high/1.png", "eval15/high/2.png", "eval15/low/1.png"],
            ["high/2.png", "no partner"],
        ),
        (
            "lol",
            ["eval15/high/1.png", "eval15/high/1.jpg", "eval15/low/1.png"],
            ["1.png", "two clean images"],
        ),
        (
            "lol",
            ["eval15/high/1.png", "eval15/low/1.png", "eval15/low/1.jpg"],
            ["several images named 1"],
        ),
        (
            "raindrop",
            ["a/gt/1_clean.png", "a/data/1_rain.png", "b/gt/1_clean.png", "b/data/1_rain.png"],
            ["more than once"],
        ),
    ],
)
def test_faulty_trees(tmp_path, name, files, words):
    with pytest.raises(UserError) as fault:
        BenchmarkPairs(name, tree(tmp_path / "set", *files))
    assert all(word in str(fault.value) for word in words)


def test_faces_get_holes_or_masks(tmp_path):
    root = tree(tmp_path / "set", "celeba/11.jpg", "celeba/12.jpg", size=(64, 64))
    made = Faces("celebahq", root, Inpaint())
    assert made.names == ["11", "12"] and made.title == "CelebA-HQ"
    assert np.array_equal(made[0].degraded, Faces("celebahq", root, Inpaint())[0].degraded)
    holes = (made[0].degraded == 0.5).all(axis=2)
    assert 0.005 < holes.mean() < 0.9 and np.array_equal(
        made[0].clean[~holes], made[0].degraded[~holes]
    )
    mask = np.zeros((32, 32, 3), dtype=np.float32)
    mask[:, :16] = 1
    write_image(tmp_path / "masks/any.png", mask)
    masked = Faces("celebahq", root, Inpaint(), tmp_path / "masks", size=32)
    masked.check()
    made.keep(lambda index: index == 1)
    assert made.names == ["12"] and len(made) == len(made.source) == 1
    with pytest.raises(UserError, match="too few"):
        made.keep(lambda index: index == 1)
    assert Faces("celebahq", root, Inpaint(), resize=32)[0].degraded.shape == (32, 32, 3)
    pair = masked[1]
    assert masked.title == "CelebA-HQ, masks masks" and pair.degraded.shape == (32, 32, 3)
    assert (pair.degraded[:, 16:] == 0.5).all() and np.array_equal(
        pair.degraded[:, :16], pair.clean[:, :16]
    )


def test_clean_and_degraded_in_one_folder(tmp_path):
    root = tree(
        tmp_path / "a",
        "norain-1.png",
        "norain-2.png",
        "rain-1.png",
        "rain-2.png",
        "rainstreak-1.png",
    )
    pairs = PairedFolders(root, f"{root}/.")
    assert pairs.names == ["rain-1", "rain-2"] and [c.stem for c, _ in pairs.paths] == [
        "norain-1",
        "norain-2",
    ]
    assert PairedFolders(*[tree(tmp_path / "b", "1_clean.png", "1_rain.png")] * 2).names == [
        "1_rain"
    ]
    with pytest.raises(UserError, match="tell the two apart"):
        PairedFolders(*[tree(tmp_path / "c", "1.png", "2.png")] * 2)
    with pytest.raises(UserError, match="rain-3.png has no partner"):
        PairedFolders(*[tree(tmp_path / "d", "norain-1.png", "rain-1.png", "rain-3.png")] * 2)


@pytest.fixture
def pairs(tmp_path):
    root = tree(
        tmp_path / "set", "gt/1.png", "gt/2.png", "hazy/1_1.png", "hazy/1_10.png", "hazy/2_1.png"
    )
    return BenchmarkPairs("sots_outdoor", root, size=16)


@pytest.mark.parametrize(
    "names, chosen",
    [
        (["1_1.png", "1_10.png", "2_1.png"], ["1_1", "1_10", "2_1"]),
        (["1_1_out.png", "1_10_out.png", "2_1_out.png"], ["1_1_out", "1_10_out", "2_1_out"]),
        # 2: one degraded version
        (["1_1-dehaze.jpg", "1_10-dehaze.png", "2.png"], ["1_1-dehaze", "1_10-dehaze", "2"]),
        (["1_1.png", "1_1_path.png", "1_10.png", "2-x.png"], ["1_1", "1_10", "2-x"]),
    ],
)
def test_saved_outputs_are_found_by_name(tmp_path, pairs, names, chosen):
    folder = tree(tmp_path / "out", *names)
    for k, name in enumerate(names):
        Image.new("RGB", (24, 20), (k * 40,) * 3).save(folder / name, quality=100)
    row = output_row(folder, None, pairs, 16)
    assert (
        row.label == "out"
        and row.key == "out"
        and output_row(folder, "MPRNet", pairs, 16).label == "MPRNet"
    )
    for name, stem in zip(pairs.names, chosen):
        expected = 40 * [n.rsplit(".", 1)[0] for n in names].index(stem) / 255
        restored = row.restore(pairs[pairs.names.index(name)].degraded, name)
        assert restored.shape == (16, 16, 3) and np.allclose(restored, expected, atol=0.01)


def test_the_hash_of_outputs_is_of_their_content(tmp_path, pairs):
    folder = tree(tmp_path / "out", *(f"{n}.png" for n in pairs.names))
    before = output_row(folder, None, pairs, 16).weights
    assert output_row(folder, None, pairs, 16).weights == before
    Image.new("RGB", (24, 20), (99,) * 3).save(folder / "2_1.png")
    assert output_row(folder, None, pairs, 16).weights != before


@pytest.mark.parametrize(
    "names, words, size",
    [
        (["1_1.png", "1_10.png"], ["2_1"], (20, 24)),
        (["1_1.png", "1_10.png", "1.png"], ["2_1"], (20, 24)),
        (
            ["1_1_a.png", "1_1_b.png", "1_10.png", "2_1.png"],
            ["1_1_a.png", "1_1_b.png", "could both"],
            (20, 24),
        ),
        (["1_1.png", "1_1.jpg", "1_10.png", "2_1.png"], ["several images named 1_1"], (20, 24)),
        (["1_1.png", "1_10.png", "2_1.png"], ["1_1.png", "24 x 19", "24 x 20"], (19, 24)),
        ([], ["no images"], None),
    ],
)
def test_missing_or_wrong_outputs(tmp_path, pairs, names, words, size):
    (tmp_path / "out").mkdir()
    folder = tree(tmp_path / "out", *names, size=size)
    with pytest.raises(UserError) as fault:
        output_row(folder, None, pairs, 16).restore(pairs[0].degraded, pairs.names[0])
    assert all(word in str(fault.value) for word in words)


@pytest.mark.parametrize("white", [1, 100, 255])
def test_masks_of_any_range_make_the_same_holes(tmp_path, white):
    """Black is a hole, whether white is 1 or 255; a mask of one value says nothing."""
    root = tree(tmp_path / "set", "celeba/11.jpg", size=(32, 24))
    keep = np.ones((24, 32), np.uint8)
    keep[4:9, 5:20] = 0
    (tmp_path / "masks").mkdir()
    Image.fromarray(keep * np.uint8(white)).save(tmp_path / "masks/11.png")
    masked = Faces("celebahq", root, Inpaint(), tmp_path / "masks")
    share = masked[0].mask.mean()
    assert abs(share - (keep == 0).mean()) < 0.02
    Image.fromarray(keep * 0 + np.uint8(white)).save(tmp_path / "masks/11.png")
    with pytest.raises(UserError, match="one value everywhere.*black in the holes"):
        masked[0]
