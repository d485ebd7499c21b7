"""`python -m toolkit` is the command `inpaint`."""

from toolkit.cli import main

main()
