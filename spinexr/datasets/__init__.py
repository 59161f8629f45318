"""Labelled radiographs on disk."""
