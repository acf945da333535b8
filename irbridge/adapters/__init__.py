"""What sees the degraded image, the only part that is trained."""
