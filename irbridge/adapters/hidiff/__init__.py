"""The networks of HI-Diff (Chen et al., NeurIPS 2023): a Transformer that tokens steer."""
