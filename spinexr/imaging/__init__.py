"""Bytes → Radiograph: reading DICOM, decoding pixels, and the gate in front of the models."""
