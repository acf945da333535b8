"""What restores: IRBridge, bridges from scratch, plain regression."""
