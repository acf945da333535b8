"""The options of the plain commands: every flag with its default and a sentence.

They stand here, apart from what the commands do, so that a mistake or a help page waits for no
import of torch.
"""

from dataclasses import asdict, dataclass
from typing import ClassVar

from irbridge.assets import called, shipped
from irbridge.commands.flags import (
    Options,
    group,
    number,
    numbers,
    one_of,
    option,
    rest,
    switch,
    text,
    whole,
)
from irbridge.errors import UserError
from irbridge.ranges import BATCH, CALLS, DRAWS, PROCESSES, SEEDS, SIDE

THREADS = whole(1, PROCESSES)
NFE = whole(0, CALLS)
SEED = whole(0, SEEDS)
SAMPLES = whole(1, DRAWS)
EDGE = whole(1, SIDE)  # of an image, in pixels
LARGEST = 16  # times as large
BENEFIT = "of the CPU; as many as cores are free where it is left out."


@dataclass(frozen=True)
class SamplerOptions(Options):
    """How the bridge is sampled; what is left out stays as the adapter was trained."""

    PREFIX: ClassVar[str] = "sampler."

    steps: int | None = option(None, NFE, "Another name of sampler.nfe.")
    nfe: int | None = option(None, NFE, "Calls of the frozen network, whatever the rule.")
    rule: str | None = option(
        None,
        text("RULE"),
        "The step rule: reverse, implicit, posterior, eta, mean, renoise, drift, dbim2, dbim3,"
        " odes3, heun, ddim, ddim_fresh or dpmpp.",
    )
    eta: float | None = option(
        None, number("a number"), "Of rule eta: from 0, implicit, to 1, posterior."
    )
    churn: float | None = option(
        None, number("a number"), "Of rule heun: the stochastic share of a step."
    )
    noise: bool | None = option(None, switch(), "Whether fresh noise is drawn at all.")
    spacing: str | None = option(
        None, text("NAME"), "How the times are spaced: time, logsnr or karras."
    )
    rho: float | None = option(None, number("a number"), "The exponent of spacing karras.")
    boot: float | None = option(
        None, number("a number"), "The share of the time that the first step takes."
    )
    times: list[float] | None = option(
        None, numbers(), "The times themselves, falling, instead of nfe and spacing."
    )
    more: dict = rest()  # of a sampler of one's own


@dataclass(frozen=True)
class BackboneOptions(Options):
    """Where the frozen model is now; what is left out is as it was trained."""

    PREFIX: ClassVar[str] = "backbone."

    pretrained: str | None = option(
        None, text("FOLDER"), "Where the frozen model is now, if it was moved since the training."
    )
    vae: str | None = option(None, text("FOLDER"), "Where its VAE is now, of a latent model.")
    dtype: str | None = option(
        None,
        one_of("float32", "bfloat16", "float16"),
        "What its weights are kept in, of a latent model.",
    )
    anchor: str | None = option(
        None, text("FILE"), "Where a pretrained anchor's weights are now (spandrel:FILE)."
    )


@dataclass(frozen=True)
class PriorOptions(BackboneOptions):
    """Which frozen model restores alone, or where the one of an adapter is now."""

    more: dict = rest()  # of a file of configs/backbone

    def given(self) -> dict:
        """What is said of the frozen model, as a config says it."""
        said = asdict(self)
        said |= said.pop("more")
        return {key: value for key, value in said.items() if value is not None}


@dataclass(frozen=True)
class RestoreOptions(Options):
    """Restore photographs: files, folders of them, or a glob in quotes.

    The restored photo-derain.png is written beside photo.jpg, with a report, restored-derain.json.
    The same command again goes on where it was stopped. A photograph's name is given as it is,
    whatever it holds; one that begins with a dash goes after --.

    With --method zeroshot no adapter is needed: a frozen model and a solver undo a degradation that
    is known, named by --operator.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "irbridge restore --task derain photo.jpg",
        'irbridge restore --task lowlight --steps 3 --output restored "holiday/*.jpg"',
        "irbridge restore --task inpaint --mask holes.png photo.jpg",
        "irbridge restore task=derain input=photo.jpg sampler.rule=ddim",
        "irbridge restore method=zeroshot solver=diffpir operator=inpaint mask=m.png input=a.png",
        "irbridge restore method=zeroshot solver=ddrm operator=sr operator.factor=4 input=a.png",
        "irbridge restore method=zeroshot solver=diffpir operator=blur kernel=k.png noise=0.05"
        " input=a.png",
    )

    input: tuple[str, ...] = option(
        (),
        text("PHOTO"),
        "A photograph, a folder of them, or a glob in quotes; the words that stand alone.",
        required=True,
        several=True,
        literal=True,
        positional=True,
    )
    task: str | None = option(
        None,
        text("NAME"),
        f"The shipped adapter: {', '.join(called(*adapter) for adapter in shipped().items())}.",
    )
    run: str | None = option(
        None, text("FOLDER"), "A run that irbridge train made, instead of a task."
    )
    method: str | None = option(
        None,
        one_of("zeroshot"),
        "zeroshot: by the frozen model alone, instead of a task; give solver and operator.",
    )
    solver: str | None = option(
        None,
        text("NAME"),
        "Of method zeroshot, how it is sampled: diffpir, ddrm, ddnm, dps, pigdm, reddiff, deqir,"
        " scd or likelihood; its constants are solver.steps=50 and so on.",
        settings=True,
    )
    solver_settings: dict = rest("solver")
    operator: str | None = option(
        None,
        text("NAME"),
        "Of method zeroshot, what the photograph went through: inpaint, sr, blur, colour, denoise,"
        " jpeg or hdr; settings of sr are operator.factor and kernel, of blur operator.padding,"
        " and of a kernel's word operator.std, width, extent, angle, seed; of jpeg"
        " operator.quality.",
        settings=True,
    )
    operator_settings: dict = rest("operator")
    kernel: str | None = option(
        None,
        text("FILE"),
        "Of operator blur: gaussian, uniform, line or motion, or a file: an image, brighter where"
        " it weighs more, or numbers as .npy or .txt.",
    )
    noise: float | None = option(
        None,
        number("a number from 0 to 1, the std where white is 1", lambda v: 0 <= v <= 1),
        "Of method zeroshot: std of the photograph's noise, where white is 1; 0 if left out.",
    )
    output: str | None = option(
        None, text("PATH"), "A folder, or for one photograph a name ending in .png."
    )
    mask: str | None = option(
        None,
        text("PATH"),
        "Of task or operator inpaint: an image that is white where it is to be filled, or a folder"
        " of them; the photograph's transparency where it is left out.",
    )
    suffix: str | None = option(
        None, text("TEXT"), "What is added to the names of the results instead of the task."
    )
    enlarge: int | None = option(
        None,
        whole(1, LARGEST),
        "How many times as large photographs are made first, smoothly; what an adapter of sr was"
        " trained for, and 1 for others, where it is left out.",
    )
    steps: int | None = option(
        None,
        NFE,
        "Calls of the frozen network; 0 gives the adapter's own estimate alone. Of method zeroshot"
        " another name of solver.steps.",
    )
    samples: int | None = option(
        None, SAMPLES, "The mean of so many draws, each of all calls; else as the model says."
    )
    seed: int = option(0, SEED, "Seed of the noise, together with the photograph's name.")
    sampler: SamplerOptions = group(
        SamplerOptions(), "A file of configs/sampler, such as posterior or ddim.", "sampler"
    )
    config_dir: str | None = option(
        None,
        text("FOLDER"),
        "Your own configs: --sampler NAME also finds FOLDER/sampler/NAME.yaml, and a run may hold"
        " the classes that FOLDER names.",
    )
    backbone: PriorOptions = group(
        PriorOptions(),
        "Of method zeroshot, the frozen model: a file of configs/backbone, such as faces or sd15;"
        " the embedded one if left out.",
        "backbone",
    )
    device: str = option("auto", text("NAME"), "auto (CUDA, else MPS, else CPU), cpu, cuda, mps.")
    precision: str = option(
        "auto",
        one_of("auto", "float32", "bf16"),
        "auto takes bf16 where a trial on this machine finds it faster and no pixel shows it.",
    )
    memory: float | None = option(
        None,
        number("a number of GB above 0", lambda v: v > 0),
        "GB that the command may take; a share of what is free where it is left out.",
    )
    tile: int | None = option(
        None,
        EDGE,
        "Pixels of a side of the tiles; as large as memory allows if left out.",
    )
    overlap: int = option(64, whole(0, SIDE), "Pixels that neighbouring tiles share.")
    threads: int | None = option(None, THREADS, f"Threads {BENEFIT}")
    batch: int = option(4, whole(1, BATCH), "Tiles in one network call, on a GPU.")
    compare: bool = option(
        False, switch(), "Also write degraded and restored side by side, photo-derain-compare.png."
    )
    save_path: bool = option(
        False, switch(), "Also write the estimate of every network call, photo-derain-path.png."
    )


@dataclass(frozen=True)
class ExportOptions(Options):
    """Turn a finished run into a folder to hand on: small weights, config, model card."""

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "irbridge export --run runs/derain-brownian --output my-adapter",
        "irbridge export --run runs/derain-brownian --output my-adapter"
        ' --results runs/derain-brownian/results --weak "Hail."',
        "irbridge export run=runs/mine output=my-adapter 'results=[runs/mine/results]'",
    )

    run: str | None = option(None, text("FOLDER"), "The folder of a finished run.", required=True)
    output: str | None = option(
        None, text("FOLDER"), "The folder to write, such as data/adapters/derain."
    )
    redraw: bool = option(
        False,
        switch(),
        "Draw the picture of an exported folder anew, and leave all else as it is; without output.",
    )
    results: tuple[str, ...] = option(
        (), text("FOLDER"), "A folder of scores for the card; may be given again.", several=True
    )
    backbone: BackboneOptions = group(BackboneOptions())
    weights: str = option(
        "float16",
        one_of("float16", "int8"),
        "How they are stored: int8, with a scale for each output channel, takes half the room of"
        " float16.",
    )
    machine: str = option("not stated", text(), "What it was trained on, for the card.")
    weak: str = option("Not examined.", text(), "What it is bad at, in words, for the card.")
    experimental: str | None = option(
        None,
        text("TEXT"),
        "Why it is experimental, where nothing shows that it helps on real photographs; every list"
        " then says so.",
    )
    size: int | None = option(
        160,
        EDGE,
        "Pixels of a side of the card's pictures, cut from the centre; null: whole.",
    )
    threads: int | None = option(None, THREADS, f"Threads {BENEFIT}")
    shipped: bool = option(
        False, switch(), "The output is data/adapters/TASK, which --task TASK finds."
    )
    config_dir: str | None = option(
        None,
        text("FOLDER"),
        "Your own configs, which name the classes of yours that the run holds.",
    )


@dataclass(frozen=True)
class ConvertHIDiffOptions(Options):
    """Turn the released weights of HI-Diff into a model of irbridge, in safetensors.

    FILE is net_g.pth, net_le_dm.pth or net_d.pth, or a folder that holds them. Nothing but tensors
    is read of them, and weights of neither published variant are refused. What is written restores
    and is scored as any run: irbridge restore run=FOLDER, irbridge evaluate run=FOLDER.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "irbridge convert_hidiff HI_Diff_GoPro --output models/hidiff-gopro",
        "irbridge convert_hidiff net_g.pth net_le_dm.pth net_d.pth --output models/hidiff-gopro",
        "irbridge convert_hidiff net_g.pth net_le.pth --output models/hidiff-stage1",
    )

    weights: tuple[str, ...] = option(
        (),
        text("FILE"),
        "A file of the authors, or a folder of them; the words that stand alone.",
        required=True,
        several=True,
        positional=True,
        literal=True,
    )
    output: str | None = option(None, text("FOLDER"), "The folder to write.", required=True)


@dataclass(frozen=True)
class TableOptions(Options):
    """Make a table, a page or a plot of scored runs.

    FOLDER is a run, its results, or a folder of runs. What is text is printed where no output is
    named.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "irbridge table runs/derain-brownian --format latex",
        "irbridge table results --layout tasks --output table.md",
        "irbridge table runs/derain-brownian --format html --images 6 --output page.html",
        "irbridge table paper=table1",
    )

    folder: tuple[str, ...] = option(
        (), text("FOLDER"), "", several=True, positional=True, alone=True
    )
    format: str | None = option(
        None,
        text("NAME"),
        "md, latex or csv: a table with 95 % intervals; html: a page with pictures; nfe: a plot of"
        " quality against network calls; pd: of LPIPS against PSNR; fid: FID of saved images; iqa:"
        " scores without a reference.  [default: md]",
    )
    output: str | None = option(None, text("FILE"), "The file to write.")
    layout: str | None = option(
        None,
        text("NAME"),
        "methods: a row for each method; tasks: a row for each method and three columns for each"
        " task; budgets: of experiment=efficiency, a column for each training budget."
        "  [default: methods]",
    )
    images: str | None = option(
        None, text("N"), "Of format html: pictures of each task.  [default: 4]"
    )
    weights: str | None = option(
        None, text("FILE"), "Of format fid, and of paper: weights of the Inception network."
    )
    metrics: str | None = option(
        None, text("NAMES"), "Of format iqa: names of pyiqa, such as niqe,musiq."
    )
    plot: str | None = option(None, text("FILE"), "Of layout budgets: a PNG of the same numbers.")
    picture: str | None = option(
        None, text("FILE"), "Of layout budgets: a PNG or JPEG of what the largest one restored."
    )
    results: str | None = option(
        None,
        text("NAME"),
        "Of layout budgets: the folder of scores in each run.  [default: results]",
    )
    paper: str | None = option(
        None,
        text("NAME"),
        "table1, table3, table4 or fig11: the published figures beside those of your runs, by"
        " default of runs/paper.",
    )


@dataclass(frozen=True)
class DataOptions(Options):
    """Say of public sets what goes where, and whether what is there is right.

    list shows every set: folders, pair rule, counts, terms, how to ask for it. check NAME DIR finds
    it below DIR, counts it, opens every header and compares hashes; it ends with status 1 where
    counts, images or hashes are not right. manifest NAME DIR prints a JSON line for each pair:
    name, paths relative to DIR, SHA-256 of both. Nothing is downloaded, moved or renamed. tasks
    draws what the synthetic degradations do to a folder of pictures; samples writes the degraded
    photographs of data/samples/degraded; front draws four of them beside what the shipped
    adapters make of them. faces PLACE crops LFW's deep-funneled archive to the 64 px of
    experiment=faces, in train, validation and test, which show different people; or it splits a
    folder, tar or zip of faces that are cropped already.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "irbridge data list",
        "irbridge data check rain100h DIR --split test",
        "irbridge data manifest lol DIR --output lol.jsonl",
        "irbridge data faces lfw-deepfunneled.tgz --output data/faces",
    )

    words: tuple[str, ...] = option(
        (),
        text("list | check NAME DIR | manifest NAME DIR | tasks | samples | front | faces PLACE"),
        "",
        several=True,
        positional=True,
        alone=True,
    )
    split: str | None = option(None, text("train|test"), "Only this half.")
    manifest: str | None = option(None, text("FILE"), "Of check: hashes to compare with.")
    output: str | None = option(
        None,
        text("FILE"),
        "Of manifest: the file to write; of tasks, samples, front: the folder; of faces: it,"
        " data/faces where it is left out.",
    )
    task: str | None = option(
        None, text("NAME"), "Of tasks: this one alone, such as deblur or sr8; all if left out."
    )
    seed: int | None = option(
        None, whole(0), "Of faces: which people are held out; 0 where it is left out."
    )


@dataclass(frozen=True)
class DemoOptions(Options):
    """Serve a page in the browser: a photograph, a task, before and after; Ctrl-C ends it."""

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "irbridge demo",
        "irbridge demo --port 8000 --run runs/derain-brownian",
    )

    port: int = option(
        7860,
        whole(1, 65_535),
        "Where the page is served, as http://127.0.0.1:7860/.",
    )
    host: str = option("127.0.0.1", text("NAME"), "The address that it is served at.")
    share: bool = option(
        False, switch(), "Whether gradio hands out a public address; photographs then leave here."
    )
    device: str = option("auto", text("NAME"), "auto (CUDA, else MPS, else CPU), cpu, cuda, mps.")
    task: str | None = option(None, text("NAME"), "The task that is selected at first.")
    run: str | None = option(
        None, text("FOLDER"), "A trained run of your own, added to the shipped adapters."
    )

    def __post_init__(self):
        for name in ("host", "device", "task", "run"):
            if getattr(self, name) == "":
                raise UserError(
                    f"{name}= has no value; leave it out, or give one such as port=7860 or"
                    " run=FOLDER."
                )
        super().__post_init__()


@dataclass(frozen=True)
class InverseOptions(Options):
    """Compare zero-shot solvers, classical methods and trained models on known problems.

    Clean images are measured by operators that all contenders know, with noise: pixels (half of
    them lost at random), brush (strokes to fill), sr (four times smaller), gaussian and motion
    (blurred). Scores, calls of the network, seconds and memory go into tables. The same command
    again goes on where it was stopped. Needs deepinv: pip install -e ".[inverse]".
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "irbridge inverse",
        "irbridge inverse solver=dps solver.zeta=0.5 problem=[sr,motion] noise=0.05 limit=4",
        "irbridge inverse solver=[ddrm,diffpir] backbone=faces images=data/faces/test",
        "irbridge inverse problem=[pixels,brush] solver=[] run=[inpaint,runs/mine]",
    )

    problem: tuple[str, ...] = option(
        ("pixels", "brush", "sr", "gaussian", "motion"),
        text("NAME"),
        "The problems, a list of pixels, brush, sr, gaussian and motion; all if left out.",
        several=True,
    )
    noise: tuple[float, ...] = option(
        (0.0, 0.05),
        number("a number from 0 to 1, the std where white is 1", lambda v: 0 <= v <= 1),
        "Stds of the noise, where white is 1, a list; 0 and 0.05 if left out.",
        several=True,
    )
    solver: tuple[str, ...] = option(
        ("ddrm", "ddnm", "pigdm", "diffpir", "reddiff", "deqir", "likelihood"),
        text("NAME"),
        "The solvers, a list of ddrm, ddnm, pigdm, diffpir, reddiff, deqir, likelihood, scd and"
        " dps; the last two, which take long, only where they are named. Constants of a single one"
        " are solver.zeta=0.5 and so on.",
        several=True,
        settings=True,
    )
    solver_settings: dict = rest("solver")
    run: tuple[str, ...] = option(
        (),
        text("NAME"),
        "Trained models beside them, a list of folders and of tasks with a shipped adapter; each"
        " is shown the measurement as an image.",
        several=True,
    )
    baselines: bool = option(
        True,
        switch(),
        "Whether the degraded image, biharmonic inpainting, bicubic enlargement and the Wiener"
        " filter are scored too.",
    )
    images: str | None = option(
        None, text("DIR"), "Clean images, a folder or a tar; data/samples/test if left out."
    )
    split: str = option(
        "test",
        one_of("test", "validation"),
        "validation: the project's photographs that its trainings hold back, for choices.",
    )
    limit: int = option(16, whole(1), "So many images, the first by name.")
    size: int = option(64, EDGE, "Pixels of a side of the centre crop that is measured.")
    backbone: PriorOptions = group(
        PriorOptions(),
        "The frozen model of the solvers: a file of configs/backbone, such as faces; the embedded"
        " one if left out.",
        "backbone",
    )
    config_dir: str | None = option(
        None,
        text("FOLDER"),
        "Your own configs: --backbone NAME also finds FOLDER/backbone/NAME.yaml.",
    )
    results: str | None = option(
        None,
        text("DIR"),
        "Folder of the records and of table.md; named by the images and the prior in runs if left"
        " out.",
    )
    save_images: bool = option(
        False, switch(), "Also write the restored images beside their records."
    )
    seed: int = option(0, SEED, "Of masks, kernels and all noise, together with the image's name.")
    threads: int | None = option(None, THREADS, f"Threads {BENEFIT}")
    device: str = option("auto", text("NAME"), "auto (CUDA, else MPS, else CPU), cpu, cuda, mps.")


@dataclass(frozen=True)
class BridgesOptions(Options):
    """Draw the law of every bridge, or of those that are named.

    A picture shows a, b and c over the time, and states of one photograph on its way from clean to
    degraded. Words with an equals sign are those of irbridge train.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "irbridge bridges",
        "irbridge bridges goub bridge.lam=0.2353",
        "irbridge bridges brownian task=inpaint output=pictures",
    )

    names: tuple[str, ...] = option(
        (), text("NAME"), "", several=True, positional=True, alone=True, open=True
    )
    output: str = option("runs/bridges", text("DIR"), "The folder of the pictures, NAME.png each.")
    seed: int = option(0, SEED, "Of the noise in the states.")


@dataclass(frozen=True)
class ReproduceOptions(Options):
    """Make a table of the documentation again: every run that it needs, then the table.

    What is finished is not run again, so the same command goes on where it was stopped. Words after
    the name go to the commands that train and score, such as data.root=DIR or debug=default.
    """

    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "irbridge reproduce list",
        "irbridge reproduce rdbm",
        "irbridge reproduce paper/table3 data.root=DIR --dry-run",
    )

    name: tuple[str, ...] = option(
        (), text("NAME"), "", several=True, positional=True, alone=True, open=True
    )
    dry_run: bool = option(False, switch(), "Only print the commands.")
