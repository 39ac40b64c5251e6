"""Stand-in for hydra, which `sam2` imports and these tests do not use: no configuration file is read."""


def initialize_config_module(*_args: object, **_options: object) -> None:
    """Nothing to set up."""
