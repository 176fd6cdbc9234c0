"""From the simulated integers to a file that a runtime loads, and the proof that they agree."""
