"""The learning rate of each step of a training; needs no torch, so that whoever shows a training can tell it."""

from samref.config import TrainConfig


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then polynomial decay to zero at the last step; steps are counted from 0."""
    if step < config.warmup_steps:
        share = step / config.warmup_steps
        return config.warmup_learning_rate + share * (config.learning_rate - config.warmup_learning_rate)
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return float(config.learning_rate * (1 - done) ** config.decay_power)
