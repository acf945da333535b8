"""Where the operations and the seconds go."""
