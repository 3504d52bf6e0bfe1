"""The simulator: what it plays, and what it finds."""
