"""Train a model: see recipe.py."""
