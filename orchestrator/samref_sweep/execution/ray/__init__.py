"""The execution in the words of Ray Tune and Ray Train (written for Ray 2.60); the only modules that import ray.

Importing it sets the variables of `ENVIRONMENT` that are not set, which Ray reads when it is imported.
"""

import os

ENVIRONMENT = {
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a thread that outlives our connection would join whatever cluster it finds
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else each worker starts through `uv run` again
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # workers stay in this folder, so relative paths in logs mean what they say
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it would kill what runs
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # snapshots that we never read
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # Tune asks a custom searcher for one trial at a time unless told otherwise.
    "TUNE_MAX_PENDING_TRIALS_PG": "16",
    # For the workers' torch, on whose CPU a decoder of many clicks takes half the time when freed memory is kept.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
}
os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
