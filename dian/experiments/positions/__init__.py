"""Recorded experiments of the chapter on positions."""
