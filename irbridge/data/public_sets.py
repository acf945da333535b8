"""What is known of public sets: how their archives unpack, which images are pairs, counts, sources
and terms.
"""

from dataclasses import dataclass, field

from irbridge.errors import UserError


@dataclass(frozen=True)
class Benchmark:
    """How a set's archives unpack, and what is known of it.

    Args: title: of the records. task: whose adapter it is for. layout: its folders in words, for
        the one who lacks them. pairs: (clean, degraded) patterns of a path below the set's folder,
        without suffix, the first that fit count.
            Images with equal ``key``, and ``part`` where there is one, are partners.
        rule: which two images are partners, in words. source: its paper and home page. terms: of
            use.
        counts: pairs by the title of what was taken, in the IRBridge paper (arXiv 2505.24406, App.
            E.2) where it names them. remark: where releases differ.
        test, train: patterns of the folder names of its two halves. part: of a folder that is one
            part of the set, or of none. other: of folders that belong to a sister set. only: the
            half that the whole set is, where it has no two.
        cut: pixels by which the clean side is larger all round. partial: clean images may lack a
            degraded one.
    """

    title: str
    task: str
    layout: str
    pairs: tuple[tuple[str, str], ...]
    rule: str
    source: str
    counts: dict[str, int] = field(default_factory=dict)
    remark: str = ""
    terms: str = "not stated; academic use"
    test: str = "(.*[-_])?test([-_].*)?"
    train: str = "(.*[-_])?train([-_].*)?"
    part: str = "(?!)"
    other: str = "(?!)"
    only: str = ""
    cut: int = 0
    partial: bool = False

    @property
    def clean_only(self) -> bool:
        """Whether the set has clean images alone, which a task must degrade."""
        return not self.pairs[0][1]


KEY = "(?P<key>[^/]+)"
SCENE = "(?P<key>[^/_]+)"  # RESIDE: what follows "_" is the haze
PART = "(?P<part>[^/]+)/"
SOTS = ((f"(gt|clear)/{SCENE}", f"(hazy|haze)/{SCENE}(_[^/]*)?"),)
OTS_FOLDERS, SOTS_FOLDERS = "ots([-_].*)?", "sots([-_].*)?"
RESIDE = "Li et al., TIP 2019, https://sites.google.com/view/reside-dehaze-datasets"
BENCHMARKS = {
    "rain100h": Benchmark(
        "Rain100H",
        "derain",
        "norain-1.png and rain-1.png, in one folder or in two",
        (
            (f"norain-{KEY}", f"rain-{KEY}"),
            (f"[^/]+/norain-{KEY}", f"[^/]+/rain-{KEY}"),
            (f"norain/norain-{KEY}", r"rain/(X2/)?norain-(?P<key>[^/]+?)(x2)?"),
        ),
        "norain-N is the clean version of rain-N; rainstreak-N is left out",
        "Yang et al., CVPR 2017,"
        " https://www.icst.pku.edu.cn/struct/Projects/joint_rain_removal.html",
        {"Rain100H train": 1800, "Rain100H": 100},
        "a later release has 200 test pairs",
    ),
    "reside_ots": Benchmark(
        "RESIDE OTS",
        "dehaze",
        "clear/0001.jpg and haze/0001_0.8_0.2.jpg, the haze also in part1, part2, ...",
        ((f"(clear|gt)(/clear)?/{SCENE}", f"((haze|hazy|ots|part)[^/]*/)+{SCENE}_[^/]+"),),
        'a hazy name begins with its clear one; what follows "_" is the haze, several of one scene',
        RESIDE,
        {"RESIDE OTS": 72135},
        "hazy images are counted; releases differ",
        other=f"{SOTS_FOLDERS}|nyuhaze500",
        only="train",
        partial=True,
    ),
    "sots_indoor": Benchmark(
        "SOTS indoor",
        "dehaze",
        "indoor/gt/1400.png and indoor/hazy/1400_1.png",
        SOTS,
        "a hazy name begins with its clear one; ten of a scene",
        RESIDE,
        {"SOTS indoor": 500},
        "in some releases gt is 640 x 480, hazy 620 x 460: 10 px a side are cut from gt",
        test=f"test|{SOTS_FOLDERS}",
        other=f"(sots[-_]?)?outdoor|{OTS_FOLDERS}",
        only="test",
        cut=10,
    ),
    "sots_outdoor": Benchmark(
        "SOTS outdoor",
        "dehaze",
        "outdoor/gt/0001.png and outdoor/hazy/0001_0.8_0.2.jpg",
        SOTS,
        "a hazy name begins with its clear one",
        RESIDE,
        {"SOTS outdoor": 500},
        test=f"test|{SOTS_FOLDERS}",
        other=f"(sots[-_]?)?indoor|nyuhaze500|{OTS_FOLDERS}",
        only="test",
    ),
    "snow100k": Benchmark(
        "Snow100K",
        "desnow",
        "gt/1.jpg and synthetic/1.jpg, in all for training, in Snow100K-S, -M and -L for tests, or"
        " in one folder",
        tuple(
            (f"{part}gt/{KEY}", f"{part}synthetic/{KEY}")
            for part in ("(snow100k-)?(?P<part>[sml])/", "")
        ),
        "equal names in gt and synthetic; mask is left out",
        "Liu et al., TIP 2018, https://sites.google.com/view/yunfuliu/desnownet",
        {"Snow100K train": 50000, "Snow100K": 50000},
        train="all|train",
        # The archive of the tests unpacks to media/jdway/GameSSD/overlapping/test.
        part="(snow100k-)?([sml])|media|jdway|gamessd|overlapping",
    ),
    "raindrop": Benchmark(
        "RainDrop",
        "raindrop",
        "test_a/gt/0_clean.png and test_a/data/0_rain.png, or train/...",
        (("(gt|clean)/(?P<key>[^/]+?)([-_]clean)?", "(data|rain)/(?P<key>[^/]+?)([-_]rain)?"),),
        "N_clean is the clean version of N_rain",
        "Qian et al., CVPR 2018, https://github.com/rui1996/DeRaindrop",
        {"RainDrop train": 861, "RainDrop": 58},
        "test_a; test_b, another test half, is not the paper's",
        test="test_a|test",
        part="(test_)(b)",
    ),
    "lol": Benchmark(
        "LOL v1",
        "lowlight",
        "eval15/high/1.png and eval15/low/1.png, or our485/...",
        ((f"high/{KEY}", f"low/{KEY}"),),
        "equal names in high and low",
        "Wei et al., BMVC 2018, https://daooshee.github.io/BMVC2018website/",
        {"LOL v1 train": 485, "LOL v1": 15},
        test="eval15|test",
        train="our485|train",
    ),
    "celebahq": Benchmark(
        "CelebA-HQ",
        "inpaint",
        "clean faces in one folder, or in female and male of train and val",
        ((f"(female|male)/{KEY}", ""), (KEY, "")),
        "no pairs: holes are drawn by brush, or taken from a folder of masks (data.masks=DIR)",
        "Karras et al., ICLR 2018, https://github.com/tkarras/progressive_growing_of_gans",
        {"CelebA-HQ train": 20000},
        "the paper does not say which of the 30,000, nor how many test images",
        terms="faces of CelebA: non-commercial research",
        test="test|val",
        train="train",
        other="masks?",
    ),
    "gopro": Benchmark(
        "GoPro",
        "deblur",
        "test/SCENE/sharp/000001.png and test/SCENE/blur/000001.png, or blur_gamma",
        tuple(
            (f"{part}sharp/{KEY}", f"{part}{blur}/{KEY}")
            for part in (PART, "")
            for blur in ("blur", "blur_gamma")
        ),
        "equal names in sharp and blur of a scene; blur_gamma where there is no blur",
        "Nah et al., CVPR 2017, https://seungjunnah.github.io/Datasets/gopro.html",
        {"GoPro train": 2103, "GoPro": 1111},
        terms="see its page",
    ),
}


def known(name: str) -> Benchmark:
    """The benchmark of a name; UserError if there is none."""
    if name not in [*BENCHMARKS]:  # what came from the command line need not be hashable
        raise UserError(f"benchmark={name!r} is unknown; choose one of {', '.join(BENCHMARKS)}.")
    return BENCHMARKS[name]
