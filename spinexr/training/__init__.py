"""Making weights."""
