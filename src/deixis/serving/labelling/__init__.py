"""The models behind labelling tools."""
