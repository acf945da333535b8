"""Train a restoration model, score it on held-back images and draw it: ``python scripts/train.py task=derain``.

The same command again resumes. ``--cfg job`` prints every key.
"""

from irbridge.config import run_cli


def main(cfg):
    from irbridge.runs import train_run
    train_run(cfg)


if __name__ == "__main__":
    run_cli(main, "train")
