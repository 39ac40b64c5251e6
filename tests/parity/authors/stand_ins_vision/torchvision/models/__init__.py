"""Other backbones, which are not built here."""
