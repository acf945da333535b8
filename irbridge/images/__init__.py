"""Reading, writing, cutting and padding of images."""
