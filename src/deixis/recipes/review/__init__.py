"""Data sets under review."""
