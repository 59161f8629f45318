"""Synthetic radiographs, and the DICOM writer that they and the tests share."""
