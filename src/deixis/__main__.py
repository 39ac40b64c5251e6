"""`python -m deixis` is the command `deixis`."""

from deixis.cli.main import main

main()
