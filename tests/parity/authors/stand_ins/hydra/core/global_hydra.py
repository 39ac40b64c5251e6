"""See the package."""


class GlobalHydra:
    """Says that hydra is set up."""

    @classmethod
    def instance(cls) -> "GlobalHydra":
        return cls()

    def is_initialized(self) -> bool:
        return True
