"""The execution in the words of Ray Tune and Ray Train (written for Ray 2.60); the only modules that import ray."""
