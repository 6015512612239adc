"""SAM-REF (CVPR 2025): the model, its trainer and the click-loop evaluator of interactive segmentation.

Knows nothing of Ray, MLflow, Parquet or YAML: `python -m samref trial.json` runs one trial, here and now.
"""
