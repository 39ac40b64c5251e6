"""For configuration files, which are not written here."""
