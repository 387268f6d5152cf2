"""The contracts, by subject."""
