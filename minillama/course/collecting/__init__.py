"""One archive of a class, and its calibration plot."""
