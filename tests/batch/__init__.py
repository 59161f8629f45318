"""Batches, from their inputs to their result sets."""
