"""What a sweep file says: settings, axes, and how the sweep is to run."""
