"""Layers of the five systems, on sequences (B, T, D) with masks (B, T), True where a row is real.

Every layer takes `mask=None` for rows that are all real. What stands in the other rows, NaN included, changes nothing at the real ones,
to the bit, and what comes out of the other rows is zero. A sequence without any real row is allowed.
"""
