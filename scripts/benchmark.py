"""Where the time and memory of training and restoring go: ``python scripts/benchmark.py task=derain
backbone=sd15``.
"""

from irbridge.experiments.config import run_cli


def main(cfg):
    from irbridge.commands.profile import benchmark_run

    benchmark_run(cfg)


if __name__ == "__main__":
    run_cli(main, "benchmark")
