"""Extractors: arrays in, arrays out. They know no key, no HDF5 and nothing of the pipeline."""
