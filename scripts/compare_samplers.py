"""Bridges, step rules and call counts of one adapter: ``python scripts/compare_samplers.py run=data/adapters/derain``."""

from irbridge.config import run_cli


def main(cfg):
    from irbridge.comparison import compare_run
    compare_run(cfg)


if __name__ == "__main__":
    run_cli(main, "compare")
