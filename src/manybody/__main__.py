"""``python -m manybody`` is the command `manybody`."""

from manybody.cli import main

main()
