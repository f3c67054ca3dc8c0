"""One module per noun; each command is a plain typed function named in :mod:`bentotool.cli.table`."""
