"""``python -m smooth_attention`` is the command line."""

from smooth_attention.cli.main import main

main()
