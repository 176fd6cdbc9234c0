"""Adaptation: what a backbone is worth to a new task, with a part of its labels (INTERN's D-A)."""
