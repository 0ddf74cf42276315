"""From raw annotations to audited multi-answer parquet, and from videos to frames decoded once."""
