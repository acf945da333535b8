"""What is known of public sets: how their archives unpack, which images are pairs, their terms."""

from dataclasses import dataclass, field

from irbridge.errors import UserError

NOTHING = "(?!)"  # a pattern that fits nothing


@dataclass(frozen=True)
class Benchmark:
    """How a set's archives unpack, and what is known of it.

    The patterns are regular expressions, matched whole and without regard to case.

    Args:
        title: the set's name in records and tables.
        task: whose adapter it is for.
        layout: its folders in words, for one who lacks them.
        pairs: (clean, degraded) patterns of a path below the set's folder, without suffix; the
            first that fit count. Images with equal ``key``, and ``part`` where there is one, are
            partners. An empty degraded pattern: the set has clean images alone.
        rule: which two images are partners, in words.
        source: its paper and home page.
        counts: pairs by the title of what was taken, in the IRBridge paper (arXiv 2505.24406, App.
            E.2) where it names them.
        remark: where releases differ.
        terms: of use.
        test: pattern of the folder names of its test half.
        train: pattern of the folder names of its training half.
        part: pattern of a folder that is one part of the set.
        other: pattern of folders that belong to a sister set.
        only: the half that the whole set is, where it has no two.
        cut: pixels by which the clean side is larger all round.
        partial: clean images may lack a degraded one.
        shared: the clean images of both halves are in one folder, beside the halves' folders.
        lists: the name of the text file that lists a half's images, with ``{half}`` for train or
            test: a line has paths of a clean and a degraded one. Empty: folders tell the halves.
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
    part: str = NOTHING
    other: str = NOTHING
    only: str = ""
    cut: int = 0
    partial: bool = False
    shared: bool = False
    lists: str = ""

    @property
    def clean_only(self) -> bool:
        """Whether the set has clean images alone, which a task must degrade."""
        return not self.pairs[0][1]


KEY = "(?P<key>[^/]+)"
SCENE = "(?P<key>[^/_]+)"  # RESIDE: what follows "_" is the haze
PART = "(?P<part>[^/]+)/"
SOTS = ((f"(gt|clear)/{SCENE}", f"(hazy|haze)/{SCENE}(_[^/]*)?"),)
OTS_FOLDERS, SOTS_FOLDERS = "ots([-_].*)?", "sots([-_].*)?"
REALBLUR = "Rim et al., ECCV 2020, http://cg.postech.ac.kr/research/realblur/"
RESIDE = "Li et al., TIP 2019, https://sites.google.com/view/reside-dehaze-datasets"
BENCHMARKS = {
    "rain100h": Benchmark(
        title="Rain100H",
        task="derain",
        layout="norain-1.png and rain-1.png, in one folder or in two",
        pairs=(
            (f"norain-{KEY}", f"rain-{KEY}"),
            (f"[^/]+/norain-{KEY}", f"[^/]+/rain-{KEY}"),
            (f"norain/norain-{KEY}", r"rain/(X2/)?norain-(?P<key>[^/]+?)(x2)?"),
        ),
        rule="norain-N is the clean version of rain-N; rainstreak-N is left out",
        source="Yang et al., CVPR 2017,"
        " https://www.icst.pku.edu.cn/struct/Projects/joint_rain_removal.html",
        counts={"Rain100H train": 1800, "Rain100H": 100},
        remark="a later release has 200 test pairs",
    ),
    "reside_ots": Benchmark(
        title="RESIDE OTS",
        task="dehaze",
        layout="clear/0001.jpg and haze/0001_0.8_0.2.jpg, the haze also in part1, part2, ...",
        pairs=((f"(clear|gt)(/clear)?/{SCENE}", f"((haze|hazy|ots|part)[^/]*/)+{SCENE}_[^/]+"),),
        rule='a hazy name begins with its clear one; what follows "_" is the haze, several of one'
        " scene",
        source=RESIDE,
        counts={"RESIDE OTS": 72135},
        remark="hazy images are counted; releases differ",
        other=f"{SOTS_FOLDERS}|nyuhaze500",
        only="train",
        partial=True,
    ),
    "sots_indoor": Benchmark(
        title="SOTS indoor",
        task="dehaze",
        layout="indoor/gt/1400.png and indoor/hazy/1400_1.png",
        pairs=SOTS,
        rule="a hazy name begins with its clear one; ten of a scene",
        source=RESIDE,
        counts={"SOTS indoor": 500},
        remark="in some releases gt is 640 x 480, hazy 620 x 460: 10 px a side are cut from gt",
        test=f"test|{SOTS_FOLDERS}",
        other=f"(sots[-_]?)?outdoor|{OTS_FOLDERS}",
        only="test",
        cut=10,
    ),
    "sots_outdoor": Benchmark(
        title="SOTS outdoor",
        task="dehaze",
        layout="outdoor/gt/0001.png and outdoor/hazy/0001_0.8_0.2.jpg",
        pairs=SOTS,
        rule="a hazy name begins with its clear one",
        source=RESIDE,
        counts={"SOTS outdoor": 500},
        test=f"test|{SOTS_FOLDERS}",
        other=f"(sots[-_]?)?indoor|nyuhaze500|{OTS_FOLDERS}",
        only="test",
    ),
    "snow100k": Benchmark(
        title="Snow100K",
        task="desnow",
        layout="gt/1.jpg and synthetic/1.jpg, in all for training, in Snow100K-S, -M and -L for"
        " tests, or in one folder",
        pairs=tuple(
            (f"{part}gt/{KEY}", f"{part}synthetic/{KEY}")
            for part in ("(snow100k-)?(?P<part>[sml])/", "")
        ),
        rule="equal names in gt and synthetic; mask is left out",
        source="Liu et al., TIP 2018, https://sites.google.com/view/yunfuliu/desnownet",
        counts={"Snow100K train": 50000, "Snow100K": 50000},
        train="all|train",
        # The archive of the tests unpacks to media/jdway/GameSSD/overlapping/test.
        part="(snow100k-)?([sml])|media|jdway|gamessd|overlapping",
    ),
    "raindrop": Benchmark(
        title="RainDrop",
        task="raindrop",
        layout="test_a/gt/0_clean.png and test_a/data/0_rain.png, or train/...",
        pairs=(
            ("(gt|clean)/(?P<key>[^/]+?)([-_]clean)?", "(data|rain)/(?P<key>[^/]+?)([-_]rain)?"),
        ),
        rule="N_clean is the clean version of N_rain",
        source="Qian et al., CVPR 2018, https://github.com/rui1996/DeRaindrop",
        counts={"RainDrop train": 861, "RainDrop": 58},
        remark="test_a; test_b, another test half, is not the paper's",
        test="test_a|test",
        part="(test_)(b)",
    ),
    "lol": Benchmark(
        title="LOL v1",
        task="lowlight",
        layout="eval15/high/1.png and eval15/low/1.png, or our485/...",
        pairs=((f"high/{KEY}", f"low/{KEY}"),),
        rule="equal names in high and low",
        source="Wei et al., BMVC 2018, https://daooshee.github.io/BMVC2018website/",
        counts={"LOL v1 train": 485, "LOL v1": 15},
        test="eval15|test",
        train="our485|train",
    ),
    "celebahq": Benchmark(
        title="CelebA-HQ",
        task="inpaint",
        layout="clean faces in one folder, or in female and male of train and val",
        pairs=((f"(female|male)/{KEY}", ""), (KEY, "")),
        rule="no pairs: holes are drawn by brush, or taken from a folder of masks (data.masks=DIR)",
        source="Karras et al., ICLR 2018, https://github.com/tkarras/progressive_growing_of_gans",
        counts={"CelebA-HQ train": 20000},
        remark="the paper does not say which of the 30,000, nor how many test images",
        terms="faces of CelebA: non-commercial research",
        test="test|val",
        train="train",
        other="masks?",
    ),
    "gopro": Benchmark(
        title="GoPro",
        task="deblur",
        layout="test/SCENE/sharp/000001.png and test/SCENE/blur/000001.png, or blur_gamma",
        pairs=tuple(
            (f"{part}sharp/{KEY}", f"{part}{blur}/{KEY}")
            for part in (PART, "")
            for blur in ("blur", "blur_gamma")
        ),
        rule="equal names in sharp and blur of a scene; blur_gamma where there is no blur",
        source="Nah et al., CVPR 2017, https://seungjunnah.github.io/Datasets/gopro.html",
        counts={"GoPro train": 2103, "GoPro": 1111},
        terms="see its page",
    ),
    "hide": Benchmark(
        title="HIDE",
        task="deblur",
        layout="GT/1.png beside test/test-close-ups/1.png, test/test-long-shot/2.png and"
        " train/3.png",
        pairs=((f"GT/{KEY}", f"(train|test)/([^/]+/)?{KEY}"),),
        rule="equal names in GT and in a half's folder or one below it",
        source="Shen et al., ICCV 2019, https://github.com/joanshen0508/HA_deblur",
        counts={"HIDE train": 6397, "HIDE": 2025},
        remark="GT holds the sharp images of both halves",
        terms="see its page",
        partial=True,
        shared=True,
    ),
}


def _realblur(letter: str, sister: str) -> Benchmark:
    """One of the two versions of RealBlur: J, a camera's JPEG, or R, made from its raw images."""
    return Benchmark(
        title=f"RealBlur-{letter}",
        task="deblur",
        layout=f"RealBlur-{letter}.../scene001/gt/gt_1.png and scene001/blur/blur_1.png, and beside"
        f" that folder RealBlur_{letter}_test_list.txt and RealBlur_{letter}_train_list.txt",
        pairs=((f"{PART}gt/gt_{KEY}", f"{PART}blur/blur_{KEY}"),),
        rule="equal numbers in gt and blur of a scene; the list files tell the halves",
        source=REALBLUR,
        counts={f"RealBlur-{letter} train": 3758, f"RealBlur-{letter}": 980},
        remark="published figures align the images first; here they are compared as they are",
        terms="see its page",
        part=f"realblur|realblur[-_]{letter}([-_].*)?",
        other=f"realblur[-_]{sister}([-_].*)?",
        lists=f"RealBlur_{letter}_{{half}}_list.txt",
    )


BENCHMARKS |= {"realblur": _realblur("J", "R"), "realblur_r": _realblur("R", "J")}


def known(name: str) -> Benchmark:
    """The benchmark of a name.

    Raises:
        UserError: there is none.
    """
    if name not in list(BENCHMARKS):  # what came from the command line need not be hashable
        raise UserError(f"benchmark={name!r} is unknown; choose one of {', '.join(BENCHMARKS)}.")
    return BENCHMARKS[name]
