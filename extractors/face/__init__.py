"""Extractors of the face group: one file, one class."""
