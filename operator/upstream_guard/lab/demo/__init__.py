"""The demo: the same changes with and without the guard, under load, counted."""
