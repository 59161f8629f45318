"""The DICOM node: radiographs come in by C-STORE, objects about them go out to archives."""
