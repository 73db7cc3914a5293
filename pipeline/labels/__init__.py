"""The label formats: each file is told by its header, parsed, and becomes the one record of `records`."""
