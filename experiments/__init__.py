"""What was tried: recipes, seeds and training curves."""
