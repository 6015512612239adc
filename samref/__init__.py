"""SAM-REF (CVPR 2025): the model, its trainer and the click-loop evaluator of interactive segmentation.

Knows nothing of Ray, MLflow, Parquet or YAML: `samref.run_stage.run_job` runs a stage, here and now.
"""
