"""What restores: IRBridge, bridges from scratch, refinement, plain regression."""
