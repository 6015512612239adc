"""A worker whose driver is not heard of any more, because a link was cut and the driver's call went with it."""

import time
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.slow
@pytest.mark.usefixtures("ray_head")
def test_a_worker_ends_whose_report_no_driver_takes(tmp_path: Path) -> None:
    import ray
    from ray.exceptions import RayActorError
    from ray.train._internal.storage import StorageContext
    from ray.tune.trainable.function_trainable import wrap_function

    def tell_twice(config: dict[str, Any]) -> None:
        from samref_sweep.execution.ray import worker

        worker.ANSWER_SECONDS = 1.0
        for step in (1, 2):
            worker._tell({"step": step})

    storage = StorageContext(str(tmp_path), "trials", trial_dir_name="trial")
    trial: Any = ray.remote(max_concurrency=2)(wrap_function(tell_twice)).remote({}, storage=storage)
    assert ray.get(trial.train.remote())["step"] == 1
    assert ray.get(trial.train.remote())["step"] == 2  # the first report was taken in time
    with pytest.raises(RayActorError):
        ray.get(trial.__ray_call__.remote(lambda here: time.sleep(60)))
