"""Where answers of one a row go: Parquet files or a Zarr array, written by the passes themselves."""
