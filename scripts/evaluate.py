"""Score a trained run: ``python scripts/evaluate.py run=runs/derain-brownian sampler.nfe=10``; again to go on."""

from irbridge.config import run_cli


def main(cfg):
    from irbridge.runs import evaluate_run
    evaluate_run(cfg)


if __name__ == "__main__":
    run_cli(main, "evaluate")
