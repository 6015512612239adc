"""What remains of a sweep: Parquet tables, and runs in MLflow."""
