"""Codes of great collections: pictures are encoded part by part, here or on many machines, into parquet files."""
