"""Post-training quantization: one reconstruction engine, the published methods as points of it."""
