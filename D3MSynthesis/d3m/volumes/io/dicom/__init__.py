"""DICOM series and studies into volumes."""
