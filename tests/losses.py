"""The arguments of a model's loss, as the tests write them."""

from irbridge.models.training_step import Batch, TrainingStep


def given(clean, degraded, noise, uniform, progress=1.0):
    return Batch(clean, degraded), TrainingStep(progress, uniform, noise)
