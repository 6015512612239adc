"""Finished stages, in a folder or on object storage."""
