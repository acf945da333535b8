"""Public sets as their archives unpack, in miniature."""

from PIL import Image


class Listed(str):
    """A path that a text file lists."""

    def __new__(cls, path, listed, line):
        """The path, the text file and what it says."""
        self = super().__new__(cls, path)
        self.listed, self.line = listed, line
        return self

    def __radd__(self, around):
        """Below another folder."""
        return Listed(around + str(self), around + self.listed, self.line)


def tree(root, *names, size=(20, 24)):
    """Write images whose grey is the number in their name's key, so that partners are told by their
    pixels."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        digits = [int(d) for d in "".join(c if c.isdigit() else " " for c in path.stem).split()]
        Image.new("RGB", size[::-1], (digits[0] % 256,) * 3).save(path)
        if isinstance(name, Listed):
            with (root / name.listed).open("a") as file:
                file.write(f"{name.line} ")
    return root


def realblur(letters, around="", train=(), test=()):
    """RealBlur's files: for tree() to write, with the lists that it makes of them."""
    tops = {"J": "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"}
    tops["R"] = "RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref"
    files = []
    for letter in letters:
        for half, numbers in (("train", train), ("test", test)):
            for n in numbers:
                listed = f"{around}RealBlur_{letter}_{half}_list.txt"
                scene = f"{tops[letter]}/scene{n:03d}"
                files += [
                    Listed(around + f"{scene}/{k}/{k}_{n}.png", listed, f"{scene}/{k}/{k}_{n}.png")
                    for k in ("gt", "blur")
                ]
    return files


# name: [(files, names of the pairs, title)]
TREES = {
    "rain100h": [
        (
            ["norain-1.png", "rain-1.png", "rainstreak-1.png", "norain-2.png", "rain-2.png"],
            ["rain-1", "rain-2"],
            "Rain100H",
        ),
        (
            ["norain/norain-1.png", "rain/rain-1.png", "rainstreak/rainstreak-1.png"],
            ["rain-1"],
            "Rain100H",
        ),
        (
            [
                "rain_data_test_Heavy/norain-3.png",
                "rain_data_test_Heavy/rain-3.png",
                "rain_data_train_Heavy/norain-3.png",
                "rain_data_train_Heavy/rain-3.png",
            ],
            ["rain-3"],
            "Rain100H",
        ),
        (
            ["rain_data_train_Heavy/norain-3.png", "rain_data_train_Heavy/rain-3.png"],
            ["rain-3"],
            "Rain100H train",
        ),
        (["test/norain/norain-5.png", "test/rain/X2/norain-5x2.png"], ["norain-5x2"], "Rain100H"),
    ],
    "reside_ots": [
        (
            ["clear/0001.jpg", "clear/0002.jpg", "haze/0001_0.8_0.2.jpg", "haze/0001_1_0.1.jpg"],
            ["0001_0.8_0.2", "0001_1_0.1"],
            "RESIDE OTS",
        ),
        (
            [
                "OTS/clear/1.jpg",
                "OTS/clear/2.jpg",
                "OTS/haze/part1/1_0.8_0.2.jpg",
                "OTS/haze/part2/2_0.8_0.2.jpg",
            ],
            ["1_0.8_0.2", "2_0.8_0.2"],
            "RESIDE OTS",
        ),
        (
            [
                "OTS/clear/1.jpg",
                "OTS/haze/1_0.8_0.2.jpg",
                "SOTS/outdoor/gt/3.png",
                "SOTS/outdoor/hazy/3_1_0.1.jpg",
            ],
            ["1_0.8_0.2"],
            "RESIDE OTS",
        ),
    ],
    "sots_indoor": [
        (
            [
                "indoor/gt/1400.png",
                "indoor/hazy/1400_1.png",
                "indoor/hazy/1400_2.png",
                "outdoor/gt/7.png",
                "outdoor/hazy/7_0.8_0.1.jpg",
            ],
            ["1400_1", "1400_2"],
            "SOTS indoor",
        ),
        (
            ["SOTS/nyuhaze500/gt/1400.png", "SOTS/nyuhaze500/hazy/1400_1.png"],
            ["1400_1"],
            "SOTS indoor",
        ),
    ],
    "sots_outdoor": [
        (
            [
                "SOTS/outdoor/gt/0007.png",
                "SOTS/outdoor/hazy/0007_0.8_0.1.jpg",
                "SOTS/indoor/gt/1.png",
                "SOTS/indoor/hazy/1_1.png",
            ],
            ["0007_0.8_0.1"],
            "SOTS outdoor",
        ),
        (
            [
                "OTS/clear/1.jpg",
                "OTS/haze/1_0.8_0.2.jpg",
                "SOTS/outdoor/gt/7.png",
                "SOTS/outdoor/hazy/7_1_0.1.jpg",
            ],
            ["7_1_0.1"],
            "SOTS outdoor",
        ),
        (
            [
                "outdoor/gt/0007.png",
                "outdoor/hazy/0007_0.8_0.1.jpg",
                "indoor/gt/1.png",
                "indoor/hazy/1_1.png",
            ],
            ["0007_0.8_0.1"],
            "SOTS outdoor",
        ),
        (["gt/0007.png", "hazy/0007_0.8_0.1.jpg"], ["0007_0.8_0.1"], "SOTS outdoor"),
    ],
    "snow100k": [
        (["gt/a_1.jpg", "synthetic/a_1.jpg", "mask/a_1.jpg"], ["a_1"], "Snow100K"),
        (
            [f"test/Snow100K-{p}/{d}/a_1.jpg" for p in "SML" for d in ("gt", "synthetic", "mask")]
            + ["all/gt/b_1.jpg", "all/synthetic/b_1.jpg"],
            ["L_a_1", "M_a_1", "S_a_1"],
            "Snow100K",
        ),
        (["all/gt/b_1.jpg", "all/synthetic/b_1.jpg"], ["b_1"], "Snow100K train"),
        (
            [
                f"{h}/{d}/{n}.jpg"
                for h, n in (("media/jdway/GameSSD/overlapping/test/Snow100K-M", 2), ("all", 1))
                for d in ("gt", "synthetic", "mask")
            ],
            ["M_2"],
            "Snow100K",
        ),
    ],
    "raindrop": [
        (
            [
                "train/data/0_rain.png",
                "train/gt/0_clean.png",
                "test_a/data/9_rain.png",
                "test_a/gt/9_clean.png",
            ],
            ["9_rain"],
            "RainDrop",
        ),
        (
            ["raindrop/test_a/rain/9_rain.png", "raindrop/test_a/clean/9_clean.png"],
            ["9_rain"],
            "RainDrop",
        ),
        (["train/data/0_rain.png", "train/gt/0_clean.png"], ["0_rain"], "RainDrop train"),
    ],
    "lol": [
        (
            ["our485/high/2.png", "our485/low/2.png", "eval15/high/1.png", "eval15/low/1.png"],
            ["1"],
            "LOL v1",
        ),
        (["LOLdataset/eval15/high/1.png", "LOLdataset/eval15/low/1.png"], ["1"], "LOL v1"),
        (["our485/high/2.png", "our485/low/2.png"], ["2"], "LOL v1 train"),
    ],
    "gopro": [
        (
            [
                f"{h}/S{s}/{k}/000001.png"
                for h in ("test", "train")
                for s in (1, 2)
                for k in ("blur", "blur_gamma", "sharp")
            ],
            ["S1_000001", "S2_000001"],
            "GoPro",
        ),
        (
            ["GOPRO_Large/test/S1/blur_gamma/7.png", "GOPRO_Large/test/S1/sharp/7.png"],
            ["S1_7"],
            "GoPro",
        ),
    ],
    "hide": [
        (
            [
                *(f"HIDE_dataset/GT/{n}.png" for n in (1, 2, 3)),
                "HIDE_dataset/test/test-close-ups/1.png",
                "HIDE_dataset/test/test-long-shot/2.png",
                "HIDE_dataset/train/3.png",
            ],
            ["1", "2"],
            "HIDE",
        ),
        (["GT/1.png", "GT/2.png", "test/2.png"], ["2"], "HIDE"),
        (["GT/1.png", "GT/2.png", "train/1.png"], ["1"], "HIDE train"),
    ],
    "realblur": [
        (realblur("JR", train=[1], test=[2]), ["scene002_blur_2"], "RealBlur-J"),
        (realblur("JR", "RealBlur/", [1], [2]), ["scene002_blur_2"], "RealBlur-J"),
        (realblur("J", "", [1, 2], []), ["scene001_blur_1", "scene002_blur_2"], "RealBlur-J train"),
    ],
    "realblur_r": [
        (realblur("JR", "", [1], [2]), ["scene002_blur_2"], "RealBlur-R"),
    ],
}

# A root with both halves, as the archives unpack side by side: name, (training, test) files, names
# of the pairs
BOTH = [
    (
        "rain100h",
        ["rain_data_train_Heavy/norain-1.png", "rain_data_train_Heavy/rain-1.png"],
        ["rain_data_test_Heavy/norain-2.png", "rain_data_test_Heavy/rain-2.png"],
        ["rain-1"],
        ["rain-2"],
    ),
    (
        "snow100k",
        [f"all/{d}/1.jpg" for d in ("gt", "mask", "synthetic")],
        [
            f"media/jdway/GameSSD/overlapping/test/Snow100K-{p}/{d}/2.jpg"
            for p in "SL"
            for d in ("gt", "mask", "synthetic")
        ],
        ["1"],
        ["L_2", "S_2"],
    ),
    (
        "raindrop",
        ["train/gt/1_clean.png", "train/data/1_rain.png"],
        ["test_a/gt/2_clean.png", "test_a/data/2_rain.png"],
        ["1_rain"],
        ["2_rain"],
    ),
    (
        "lol",
        ["our485/high/1.png", "our485/low/1.png"],
        ["eval15/high/2.png", "eval15/low/2.png"],
        ["1"],
        ["2"],
    ),
    (
        "gopro",
        ["train/S1/sharp/1.png", "train/S1/blur/1.png"],
        ["test/S2/sharp/2.png", "test/S2/blur/2.png"],
        ["S1_1"],
        ["S2_2"],
    ),
    (
        "hide",
        ["GT/1.png", "train/1.png"],
        ["GT/2.png", "test/test-close-ups/2.png"],
        ["1"],
        ["2"],
    ),
    (
        "realblur",
        realblur("J", "", [1], []),
        realblur("J", "", [], [2]),
        ["scene001_blur_1"],
        ["scene002_blur_2"],
    ),
    (
        "celebahq",
        ["train/female/1.jpg", "train/male/3.jpg"],
        ["val/female/2.jpg", "val/male/4.jpg"],
        ["1", "3"],
        ["2", "4"],
    ),
]
