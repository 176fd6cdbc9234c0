"""The general vision benchmark (GV-B): 26 data sets of four tasks, their loaders and metrics."""
