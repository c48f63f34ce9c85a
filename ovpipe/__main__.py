"""`python -m ovpipe` is `ovpipe`."""

from ovpipe.cli import main

main()
