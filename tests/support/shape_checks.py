"""The type checker that tests put on every deixis function: beartype, with an int welcome where a float is."""

from beartype import BeartypeConf, beartype

typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))
