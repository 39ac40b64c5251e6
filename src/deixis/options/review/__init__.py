"""The options of `deixis review ...`."""
