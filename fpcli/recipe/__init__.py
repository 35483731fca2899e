"""Recipes: what may stand in one, and how one is read."""
