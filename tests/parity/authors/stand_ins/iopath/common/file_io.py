"""Stand-in for iopath: opens local files."""


class g_pathmgr:  # noqa: N801
    """iopath's name."""

    open = open
