"""Runs submitted notebooks and judges them outside the student's process."""
