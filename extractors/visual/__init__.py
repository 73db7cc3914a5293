"""Extractors of the visual group: one file, one class."""
