"""Road test: what the deployment system does to a model (SysNoise, arXiv 2307.00280)."""
