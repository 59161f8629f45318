"""Judging predictions against labels: the same rules for every bundle and everybody's csv."""
