"""What the IRBridge paper reports in Tables 1, 3, 4 and Fig. 11, with the digits that it prints.

Source: Wang et al., ICML 2025 (PMLR 267:63266-63289, arXiv 2505.24406).

Traps: its scores are at 512 px, PSNR and SSIM on the Y channel, with the VAE round trip of the
clean image as the reference, which spares its method the VAE's loss. The rows in ``COPIED`` equal
those of the GOUB paper digit for digit, where they are at native resolution against the true clean
image; DDRM's SSIM is .8993 there. The dagger is the paper's and is not explained. Table 3 does not
name its task, Table 4 not its bridge, Fig. 11 not its four images.
"""

from typing import NamedTuple

OWN = {"irsde": "IRBridge-IRSDE", "goub": "IRBridge-GOUB"}
SCORES = {
    "table1": ("PSNR", "SSIM", "LPIPS", "FID"),
    "table3": ("PSNR", "SSIM", "LPIPS", "s/image"),
    "table4": ("MUSIQ", "BRISQUE", "NIQE"),
    "fig11": ("PSNR", "SSIM"),
}
TABLE1 = {
    "derain": {
        "ResShift†": "27.54/.8305/.054/30.87",
        "IR-SDE": "31.65/.9041/.047/18.64",
        "GOUB": "31.96/.9028/.046/18.14",
        "RDDM†": "28.97/.9050/.058/28.80",
        "DiffUIR†": "29.87/.9619/.029/10.98",
        "IRBridge-IRSDE": "28.27/.9583/.032/9.21",
        "IRBridge-GOUB": "30.39/.9639/.027/8.64",
    },
    "dehaze": {
        "ResShift†": "24.93/.8107/.097/17.89",
        "TAO": "20.07/.7980/.105/21.84",
        "WGWS-Net†": "26.40/.9015/.051/14.15",
        "RDDM†": "25.33/.8773/.088/20.87",
        "DiffUIR†": "25.99/.8669/.057/24.87",
        "IRBridge-IRSDE": "26.85/.8755/.065/15.73",
        "IRBridge-GOUB": "26.37/.8752/.067/15.82",
    },
    "desnow": {
        "ResShift†": "24.14/.7551/.1697/29.87",
        "WGWS-Net†": "20.34/.7023/.2424/35.87",
        "WeatherDiff": "21.79/.6721/.2286/33.96",
        "RDDM†": "24.81/.7810/.1634/31.84",
        "DiffUIR†": "25.07/.7812/.1593/22.89",
        "IRBridge-IRSDE": "25.78/.7832/.1574/13.17",
        "IRBridge-GOUB": "25.87/.7813/.1569/10.38",
    },
    "raindrop": {
        "ResShift†": "25.78/.7958/.204/58.79",
        "WGWS-Net†": "28.28/.8686/.102/54.09",
        "WeatherDiff": "27.06/.8473/.089/49.06",
        "RDDM†": "27.07/.8048/.102/51.86",
        "DiffUIR†": "26.88/.8247/.114/55.84",
        "IRBridge-IRSDE": "27.08/.8165/.098/48.39",
        "IRBridge-GOUB": "26.91/.8132/.098/49.15",
    },
    "lowlight": {
        "ResShift†": "22.98/.7982/.119/50.54",
        "GDP": "14.55/.6432/.217/48.67",
        "TAO": "16.57/.7823/.186/45.74",
        "RDDM†": "21.89/.8251/.124/46.70",
        "DiffUIR†": "24.29/.8853/.100/49.88",
        "IRBridge-IRSDE": "25.52/.9232/.059/36.26",
        "IRBridge-GOUB": "25.59/.9236/.059/36.11",
    },
    "inpaint": {
        "DDRM": "27.16/.8893/.089/37.02",
        "IR-SDE (CNN)": "29.22/.9218/.065/38.35",
        "IR-SDE": "28.37/.9166/.046/25.13",
        "GOUB": "28.98/.9067/.037/4.30",
        "PromptIR": "30.22/.9180/.068/32.69",
        "IRBridge-IRSDE": "30.41/.9159/.066/3.34",
        "IRBridge-GOUB": "30.42/.9158/.067/3.37",
    },
}
COPIED = {"derain": ("IR-SDE", "GOUB"), "inpaint": ("DDRM", "IR-SDE", "GOUB", "PromptIR")}
# Images of the test sets (App. E.2); of CelebA-HQ's it is not said.
TEST_SETS = {
    "derain": ("Rain100H", 100),
    "dehaze": ("SOTS outdoor", 500),
    "desnow": ("Snow100K", 50_000),
    "raindrop": ("RainDrop", 58),
    "lowlight": ("LOL v1", 15),
    "inpaint": ("CelebA-HQ", None),
}
TABLE3 = {100: "29.63/.876/.173/14.2", 50: "29.59/.877/.179/7.3", 25: "29.24/.858/.178/3.4"}
TABLE4 = {  # the test set, its name, the task whose adapter restores it
    ("realrain", "RealRain-1k", "derain"): {
        "IR-SDE": "33.187/46.882/12.551",
        "GOUB": "39.758/42.261/10.641",
        "RDDM": "41.975/41.870/9.587",
        "DiffUIR": "41.758/43.821/9.001",
        "DCPT": "44.915/39.843/8.147",
        "IRBridge": "43.439/39.915/8.393",
    },
    ("realsnow", "Snow100K-real", "desnow"): {
        "IR-SDE": "39.854/40.872/10.874",
        "GOUB": "48.289/34.824/4.987",
        "RDDM": "47.586/33.879/6.881",
        "DiffUIR": "49.812/32.987/5.027",
        "DCPT": "45.812/35.871/6.871",
        "IRBridge": "51.969/32.347/4.002",
    },
    ("rtts", "RTTS", "dehaze"): {
        "IR-SDE": "45.256/52.825/9.852",
        "GOUB": "47.952/53.578/11.587",
        "RDDM": "49.888/51.574/10.054",
        "DiffUIR": "50.517/50.954/8.805",
        "DCPT": "48.109/54.641/9.847",
        "IRBridge": "52.076/41.315/5.003",
    },
}
SCHEDULES = "S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8"
FIG11 = {  # one of SCHEDULES after the other
    "derain": {
        "irsde": (
            "26.26/.8166 25.99/.8155 26.75/.8175 26.64/.8166 26.05/.8168 25.33/.8105 25.38/.8139"
            " 27.07/.8167"
        ),
        "goub": (
            "25.52/.8156 26.04/.8160 26.83/.8175 26.89/.8165 25.68/.8154 26.86/.8177 24.92/.8124"
            " 26.75/.8181"
        ),
    },
    "dehaze": {
        "irsde": (
            "23.99/.8317 23.68/.8274 23.90/.8243 24.06/.8321 24.06/.8286 24.83/.8431 23.68/.8265"
            " 23.93/.8285"
        ),
        "goub": (
            "23.91/.8300 23.73/.8277 23.91/.8252 24.10/.8340 24.04/.8304 22.51/.8273 23.53/.8255"
            " 23.82/.8252"
        ),
    },
    "desnow": {
        "irsde": (
            "24.76/.8200 24.60/.8189 24.88/.8198 24.76/.8189 24.99/.8193 23.36/.7916 23.77/.8089"
            " 24.19/.8162"
        ),
        "goub": (
            "24.85/.8205 24.60/.8192 24.89/.8196 24.66/.8177 24.92/.8183 24.01/.7985 24.12/.8097"
            " 24.35/.8152"
        ),
    },
    "raindrop": {
        "irsde": (
            "26.05/.7923 26.29/.7878 26.51/.7884 25.80/.7876 25.11/.7800 26.71/.7935 25.92/.7783"
            " 27.02/.7966"
        ),
        "goub": (
            "25.98/.7917 26.37/.7892 26.57/.7887 26.14/.7876 24.86/.7762 25.42/.7916 25.61/.7790"
            " 26.50/.7965"
        ),
    },
    "lowlight": {
        "irsde": (
            "23.12/.8931 24.67/.8999 23.65/.8971 24.19/.8990 24.22/.9015 13.85/.7655 24.79/.9007"
            " 21.74/.8845"
        ),
        "goub": (
            "25.56/.9031 24.63/.9003 23.97/.8975 24.61/.8995 24.46/.9021 24.52/.9018 25.19/.8986"
            " 24.46/.9001"
        ),
    },
    "inpaint": {
        "irsde": (
            "28.47/.8906 27.24/.8894 28.58/.8902 27.51/.8765 28.94/.8908 27.86/.8897 27.55/.8837"
            " 27.91/.8822"
        ),
        "goub": (
            "28.50/.8904 27.31/.8899 28.62/.8910 27.48/.8775 28.96/.8924 28.17/.8911 27.73/.8840"
            " 28.60/.8840"
        ),
    },
}

# the bridge of a row, and the task of Table 4's photographs, as the train command calls them
BRIDGES = {"goub": "goub", "irsde": "ou"}
PHOTOGRAPHS = {"realrain": "derain", "realsnow": "desnow", "rtts": "dehaze"}


class Line(NamedTuple):
    """One published row.

    Args:
        group: the task, or the set of photographs.
        method: as the paper calls it.
        figures: as printed, in the order of ``SCORES``.
        run: the run that reproduces it; None for other people's methods.
        experiment: that run's file of configs/experiment/paper.
        data: name of the test set.
        images: of the test set.
    """

    group: str
    method: str
    figures: tuple[str, ...]
    run: str | None = None
    experiment: str | None = None
    data: str | None = None
    images: int | None = None


def lines(table: str) -> list[Line]:
    """The rows of "table1", "table3", "table4" or "fig11" in the paper's order."""
    return {"table1": _table1, "table3": _table3, "table4": _table4, "fig11": _fig11}[table]()


def _figures(text: str) -> tuple[str, ...]:
    return tuple(text.split("/"))


def _table1() -> list[Line]:
    bridges = {label: key for key, label in OWN.items()}
    found = []
    for task, methods in TABLE1.items():
        for method, figures in methods.items():
            run = f"table1_{task}_{bridges[method]}" if method in bridges else None
            label = f"{method} (copied)" if method in COPIED.get(task, ()) else method
            found.append(Line(task, label, _figures(figures), run, run, *TEST_SETS[task]))
    return found


def _table3() -> list[Line]:
    found = []
    for steps, figures in TABLE3.items():
        label, run = f"{OWN['goub']}, {steps} steps", f"table3_{steps}"
        found.append(Line("derain", label, _figures(figures), run, run, *TEST_SETS["derain"]))
    return found


def _table4() -> list[Line]:
    found = []
    for (key, title, _), methods in TABLE4.items():
        for method, figures in methods.items():
            run = f"table4_{key}" if method == "IRBridge" else None
            found.append(Line(title, method, _figures(figures), run, run))
    return found


def _fig11() -> list[Line]:
    found = []
    for task, bridges in FIG11.items():
        for bridge, pairs in bridges.items():
            experiment = f"fig11_{task}_{bridge}"
            for schedule, pair in zip(SCHEDULES, pairs.split(), strict=True):
                label, run = f"{OWN[bridge]}, {schedule}", f"{experiment}_{schedule}"
                data = TEST_SETS[task][0]
                found.append(Line(task, label, _figures(pair), run, experiment, data, 4))
    return found


def words_of(run: str) -> list[str]:
    """The words of the train command for a row of the paper.

    Args:
        run: the name of the row's run or, without its schedule, its experiment, such as
            "table1_derain_irsde".

    Example:
        >>> words_of("fig11_derain_irsde_S3")
        ['experiment=paper/fig11', 'task=derain', 'bridge=ou', 'timesteps.name=S3']
    """
    table, row, *rest = run.split("_")
    words = [f"experiment=paper/{table}"]
    if table == "table3":
        return [*words, f"sampler.steps={row}"]
    if table == "table4":
        return [*words, f"task={PHOTOGRAPHS[row]}"]
    words += [f"task={row}", f"bridge={BRIDGES[rest[0]]}"]
    return words + [f"timesteps.name={schedule}" for schedule in rest[1:]]
