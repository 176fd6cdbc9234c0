"""roadworthy: takes a trained model to the field and proves that it still works there."""
