"""Copies of a platform's data in another place, and the way back from them."""
