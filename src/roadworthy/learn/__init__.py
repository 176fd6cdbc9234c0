"""Many sources, staged pretraining and adaptation with few data (INTERN, arXiv 2111.08687)."""
