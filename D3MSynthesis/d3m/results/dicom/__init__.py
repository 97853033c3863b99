"""A result as DICOM: a synthetic series and a segmentation."""
