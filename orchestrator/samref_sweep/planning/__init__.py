"""A sweep's plan: its trials, the stages that they share, units of work, and what they will cost."""
