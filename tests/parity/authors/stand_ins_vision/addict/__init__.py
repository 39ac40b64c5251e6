"""For configuration files, which are not read here."""

Dict = dict
