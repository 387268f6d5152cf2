"""Recorded runs: experiments, records, checkpoints and their verification."""
