"""Training: the loop, losses, metrics, schedules and regularization."""
