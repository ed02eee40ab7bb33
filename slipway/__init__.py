"""Slipway: models promoted by pull request, on a platform that one command brings up."""
