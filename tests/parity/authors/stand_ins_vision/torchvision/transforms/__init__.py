"""Random crops and erasing are imported there and not used here."""
