"""The door: from what the user wrote to checked plain data.

Only here Hydra composes a config, and every mistake ends as one clear sentence.
"""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from irbridge.assets import CONFIGS
from irbridge.errors import INTERRUPTED, STOPPED, Failure, UserError, is_mistake, one_sentence, told
from irbridge.experiments.names import import_named, import_own
from irbridge.experiments.schema import check_added, checked
from irbridge.experiments.suggestions import check_renamed, suggested
from irbridge.experiments.sweep import check_alone
from irbridge.experiments.words import for_hydra, quoted
from irbridge.training.signals import stops


def run_cli(task, config_name: str) -> None:
    """Run a command's task under Hydra, on the words of ``sys.argv``.

    Mistakes end with one sentence and status 2, faults with status 1, Ctrl-C with 130. The
    traceback is shown with IRBRIDGE_DEBUG=1. A sweep goes on after a job that fails, and ends at a
    stop signal.

    Args:
        task: called with the config of each job as checked plain data: dicts, lists, words,
            numbers.
        config_name: the file in configs/ that lists the command's keys.

    Raises:
        SystemExit: the status, where it is not 0.
    """
    # so that Hydra raises here instead of printing its own traceback
    os.environ["HYDRA_FULL_ERROR"] = "1"
    raised: list[Exception] = []
    interrupted, debug = False, os.environ.get("IRBRIDGE_DEBUG") == "1"
    stops.clear()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        check_renamed(config_name, sys.argv[1:])
        check_added(config_name, sys.argv[1:])
        sys.argv[1:] = for_hydra(config_name, sys.argv[1:])
        _jobs(task, config_name, raised, debug)()
    except KeyboardInterrupt:
        interrupted = True
    except Exception as error:
        raised.append(error if debug else _of_composing(error, config_name))
    if raised and debug:
        raise raised[0]
    for error in raised:
        print(f"Error: {error}", file=sys.stderr)
    if interrupted:
        print(INTERRUPTED, file=sys.stderr)
        sys.exit(STOPPED)
    if raised:
        sys.exit(min(2 if isinstance(error, UserError) else 1 for error in raised))


def _jobs(task, config_name: str, raised: list[Exception], debug: bool):
    """Hydra's main function, which runs the task once, or once for every job of a sweep.

    Args:
        task: see :func:`run_cli`.
        config_name: likewise.
        raised: what jobs raise is added here, told in one sentence.
        debug: it is added as it is.
    """
    process, words = os.getpid(), tuple(sys.argv[1:])

    @hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)
    def main(cfg: DictConfig):
        try:
            check_renamed(config_name, given_words())  # a sweep has words of its own
            config = given(cfg)
            # first, as the check builds the parts, the user's own too
            import_own(own_folders())
            import_named(config)
            checked(config_name, config)
            check_alone(config_name, words, sweep_job)
            task(config)
        except Exception as error:  # kept from Hydra, which would print a line of its own
            raised.append(error if debug else _told(error))
            # in a launcher's worker: Hydra takes it to the command's own process
            if os.getpid() != process:
                raise raised[-1] from None
        if stops and HydraConfig.get().mode == RunMode.MULTIRUN:
            raise KeyboardInterrupt

    return main


def _of_composing(error: Exception, config_name: str) -> Exception:
    """What Hydra raised before or between the jobs: a mistake, or the fault of a worker."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, RuntimeError):
        return Failure(one_sentence(error))
    return UserError(_meant(one_sentence(error), config_name))


def _meant(sentence: str, config_name: str) -> str:
    """A sentence on a word that Hydra does not know, with what was meant."""
    try:
        return suggested(sentence, composed(config_name, resolve=False))
    except Exception:  # where the config cannot be had, the sentence stands as it is
        return suggested(sentence, None)


def _told(error: Exception) -> Exception:
    """The error of a job in one sentence, which in a sweep names the job.

    A mistake is a UserError, anything else a Failure.
    """
    config, text = HydraConfig.get(), told(error)
    if config.mode == RunMode.MULTIRUN:
        text = f"Job {config.job.num} ({' '.join(config.overrides.task)}): {text}"
    return UserError(text) if is_mistake(error) else Failure(text)


def given(cfg: DictConfig) -> dict:
    """The composed config as plain data; UserError where a key that must be given is not."""
    for key in _missing(cfg):
        raise UserError(f"{key} has no value; give {key}=... on the command line.")
    return plain(cfg)


def _missing(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in cfg:
        if OmegaConf.is_missing(cfg, key):
            yield f"{prefix}{key}"
        elif isinstance(cfg[key], DictConfig):
            yield from _missing(cfg[key], f"{prefix}{key}.")


def given_words() -> list[str]:
    """The words of the command line that the running job was composed of; none outside of one."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def composed(
    config_name: str, *overrides: str, folder: Path = CONFIGS, resolve: bool = True
) -> dict:
    """The plain config that a command would get from these overrides, also within a running one.

    Args:
        config_name: the file in configs/ that lists the command's keys.
        overrides: words as on the command line.
        folder: the configs of another checkout.
        resolve: False leaves interpolations as they are written.
    """
    return OmegaConf.to_container(_compose(config_name, overrides, folder), resolve=resolve)


def _compose(config_name: str, overrides: Sequence[str], folder: Path) -> DictConfig:
    # A user's own folders are another checkout's business as little as its configs are ours.
    places = [quoted(f"file://{place}") for place in own_folders() if folder == CONFIGS]
    own = [f"hydra.searchpath=[{','.join(places)}]"] if places else []
    state, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with hydra.initialize_config_dir(str(folder), version_base="1.3"):
            return hydra.compose(config_name, [*overrides, *own])
    finally:
        GlobalHydra.instance().clear()
        GlobalHydra.instance().hydra = state


def sweep_job(config_name: str, words: tuple[str, ...]) -> DictConfig:
    """The config of another job of the running sweep, with what it takes from Hydra's own."""
    own = HydraConfig.instance().cfg
    places = [f"file://{place}" for place in own_folders()]
    search = [f"hydra.searchpath=[{','.join(places)}]"] if places else []
    state, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = hydra.compose(config_name, [*words, *search], return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        return OmegaConf.create({key: config.get(key) for key in ("run", "output")})
    finally:
        GlobalHydra.instance().clear()
        GlobalHydra.instance().hydra = state
        HydraConfig.instance().cfg = own


def own_folders() -> list[Path]:
    """The user's own folders of configs, which ``--config-dir`` adds to a running command."""
    if not HydraConfig.initialized():
        return []
    sources = HydraConfig.get().runtime.config_sources
    return [Path(source.path) for source in sources if source.provider == "command-line"]


def plain(cfg) -> dict:
    """A config, or a value of one, as resolved plain data."""
    return OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg
