"""Recorded experiments of the chapter on attention."""
