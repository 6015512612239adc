"""SAM-REF (CVPR 2025): the model, its trainer and the click-loop evaluator of interactive segmentation.

Knows nothing of Ray, MLflow, Parquet or YAML: `samref.run_stage.run` runs a stage, here and now.
"""
