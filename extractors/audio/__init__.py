"""Extractors of the audio group: one file, one class."""
