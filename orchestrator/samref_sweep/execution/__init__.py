"""Executes a plan: the ready queue, what may change its course, one unit of work, and Ray, which runs them."""
