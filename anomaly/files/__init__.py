"""Files: delimited text, Parquet and CSV cells, the score table, progress, threads."""
