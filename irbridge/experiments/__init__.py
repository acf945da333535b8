"""From configs to objects, the only chapter that knows Hydra."""
