"""Known degradations of images: forward, adjoint, pseudo-inverse, proximal step, SVD."""
