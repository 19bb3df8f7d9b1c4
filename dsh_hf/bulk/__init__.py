"""Codes of great collections: pictures are encoded part by part, here or on many machines, into parquet files."""

PART_ROWS = 10_000  # pictures of one file of codes, unless told otherwise
